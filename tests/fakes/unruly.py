"""A program that behaves as engines do on a bad day. Standard library only; run as ``python -I -S unruly.py``.

``unruly.py PIDS WORD...``: it writes the pids of all its processes to the file PIDS, one a line, says ``ready``,
and waits for a signal. The words:

deaf        SIGTERM is ignored, by all processes
slow        SIGTERM takes a quarter of a second to obey
child       a second process in the same session
daemon      a third one: forked twice, in a session of its own
bare        the daemon has an emptied environment too
gone        ends at once with code 3, its daemons stay
tidy        the daemon says ``tidied`` when it gets SIGTERM, and ends
environ     says its environment, as JSON
flood       says 200 numbered lines of 100 bytes
stdin       says what it reads from its standard input
"""

import json
import os
import signal
import sys
import time
from typing import NoReturn

WORDS = set(sys.argv[2:])


def note(pid: int) -> None:
    with open(sys.argv[1], "a") as file:  # noqa: PTH123 - stays light
        file.write(f"{pid}\n")


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def wait() -> None:
    while True:
        signal.pause()


def obey() -> None:
    """Set what SIGTERM does, in each process anew."""
    if "deaf" in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif "slow" in WORDS:
        signal.signal(signal.SIGTERM, leave_slowly)
    elif "tidy" in WORDS and "daemon" not in WORDS:
        signal.signal(signal.SIGTERM, tidy_up)


def leave_slowly(*_: object) -> NoReturn:
    time.sleep(0.25)
    os._exit(0)


def tidy_up(*_: object) -> NoReturn:
    say("tidied")
    os._exit(0)


def fork_child() -> None:
    if os.fork() == 0:
        wait()


def fork_daemon() -> None:
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.set_inheritable(write_end, True)
        environment = {} if "bare" in WORDS else dict(os.environ)
        words = sorted(WORDS & {"deaf", "slow", "tidy"})
        arguments = [sys.executable, "-I", "-S", __file__, sys.argv[1], f"born={write_end}", *words]
        os.execve(sys.executable, arguments, environment)
    os.wait()
    os.close(write_end)
    os.read(read_end, 1)  # the end of file: the daemon has written its pid
    os.close(read_end)


def main() -> None:
    obey()
    note(os.getpid())
    if "child" in WORDS:
        fork_child()
    if "daemon" in WORDS:
        fork_daemon()
    for word in WORDS:
        if word.startswith("born="):
            os.close(int(word[5:]))
            wait()
    if "environ" in WORDS:
        say(json.dumps(dict(os.environ)))
    if "stdin" in WORDS:
        say(f"read {os.read(0, 100)!r}")
    if "flood" in WORDS:
        for number in range(200):
            say(f"{number:099d}")
    say("ready")
    if "gone" in WORDS:
        sys.exit(3)
    wait()


main()
