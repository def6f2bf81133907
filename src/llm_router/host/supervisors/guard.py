"""The guard: a small process between the router and one engine, so that nothing of the engine is ever orphaned.

Run as ``python -I -S guard.py FOLDER``. It is a program of its own, with the standard library only: it knows
the engine's command line and its own folder, and nothing of models, ports or the router's code.

Why it is needed (Linux, prctl(2), proc(5)): a process may ask the kernel to be killed when its parent ends
(PR_SET_PDEATHSIG), but that follows the *thread* that forked, so it is safe only under a single-threaded
parent, and it is not inherited by grandchildren. A subreaper gets every orphaned descendant, whatever session
or environment that one has chosen, but it cannot tell whose orphan it got: so one subreaper for each engine.

What it is given: 0 the life line (its other end is the router's; the end of file means that the router is dead),
1 a pipe for one line of JSON when the engine lives or cannot, 2 the log, 3 the task in JSON.
What it leaves in its folder: ``run`` while the engine lives, ``exit`` once nothing of it is left.
What it obeys: SIGTERM ends the engine politely within the seconds in the file ``stop`` (0: at once).
"""

import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

VERSION = 1
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
#: Those who outlive the main process of an engine that was asked to end may tidy up so long, in seconds.
COURTESY_S = 1.0
#: How often the size of the log is looked at, in seconds.
LOG_CHECK_S = 60.0

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Raise ``OSError`` if the kernel refuses."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot set prctl option {option}: {os.strerror(number)}")


def write_whole(folder: str, name: str, content: dict[str, object]) -> None:
    """Write a file whole or not at all."""
    path = f"{folder}/{name}"
    with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs the start 5 ms
        json.dump(content, file)
    os.replace(f"{path}.new", path)  # noqa: PTH105


def stat_fields(pid: int | str) -> list[str] | None:
    """``/proc/PID/stat`` from the state on: 0 state, 1 parent, 19 start time in ticks since boot."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def birth(pid: int) -> dict[str, object]:
    """A process that can be told from a later one with the same number."""
    fields = stat_fields(pid)
    return {"pid": pid, "start": int(fields[19]) if fields else 0}


def descendants() -> list[int]:
    """The living processes below this one, nearest first. Zombies are left out."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit() and (fields := stat_fields(entry)):
            children.setdefault(int(fields[1]), []).append((int(entry), fields[0]))
    found, queue = [], [os.getpid()]
    for parent in queue:
        for pid, state in children.get(parent, ()):
            queue.append(pid)
            if state not in "ZX":
                found.append(pid)
    return found


def send(pid: int, number: int) -> None:
    """Send a signal to one that may be gone, or that belongs to another user."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


class CannotStart(Exception):  # noqa: N818 - read aloud: the engine cannot start
    """The engine's program could not be run: at which step ("cwd", "exec"), and the system's error number."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(f"{step}: {os.strerror(number)}")
        self.step = step
        self.number = number


def become(task: dict[str, Any], guard: int, report: int) -> NoReturn:
    """In the forked child: turn into the engine, or report why not and end."""
    step = "exec"
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(127)  # the guard ended between the fork and the prctl, so the kernel will not tell us
        signal.set_wakeup_fd(-1)
        # All of them: a shell that starts the router in the background has some ignored, and that is inherited.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        if task["cwd"] is not None:
            step = "cwd"
            os.chdir(task["cwd"])
            step = "exec"
        os.execvpe(task["argv"][0], task["argv"], task["env"])  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(report, json.dumps([step, error.errno or errno.EIO]).encode())
    except ValueError:  # a NUL in an argument
        os.write(report, json.dumps([step, errno.EINVAL]).encode())
    finally:
        os._exit(127)


def spawn(task: dict[str, Any]) -> int:
    """Start the engine in a session of its own and give its pid. Raises ``CannotStart``."""
    read_end, write_end = os.pipe()  # close-on-exec: the end of file means that exec was done
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        become(task, guard, write_end)
    os.close(write_end)
    report = os.read(read_end, 4096)
    os.close(read_end)
    if report:
        os.waitpid(pid, 0)
        raise CannotStart(*json.loads(report))
    return pid


class Guard:
    """Watches over one engine from its first process to its last."""

    def __init__(self, folder: str, task: dict[str, Any]) -> None:
        self.folder = folder
        self.grace_s: float = task["grace_s"]
        self.dies_with_router: bool = task["policy"] == "die"
        self.log: str = task["log"]
        self.log_limit: int = task["log_limit"]
        self.main = 0
        self.code: int | None = None
        self.asked = False
        self.killed = False
        #: When politeness ends, on the monotonic clock.
        self.deadline: float | None = None
        self.poller = select.poll()
        self.wakeup, wakeup_write = os.pipe()
        for end in (self.wakeup, wakeup_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.poller.register(self.wakeup, select.POLLIN)
        self.poller.register(0, select.POLLIN)

    def oversee(self) -> None:
        """Return when the main process has ended, or when the grace is over."""
        while self.code is None and not self.overdue():
            self.wait(LOG_CHECK_S if self.deadline is None else self.deadline - time.monotonic())
            self.reap()
            self.trim_log()

    def sweep(self) -> None:
        """End all that is left and return when nobody is: those who were asked get a moment, the others none."""
        if self.asked and not self.overdue():
            self.let_tidy_up()
        pause = 0.002
        while self.reap():
            for pid in descendants():
                self.killed = True
                send(pid, signal.SIGKILL)
            self.wait(pause)
            pause = min(pause * 2, 0.25)

    def let_tidy_up(self) -> None:
        end = time.monotonic() + COURTESY_S
        if self.reap():
            for pid in descendants():
                send(pid, signal.SIGTERM)
        while self.reap() and not self.overdue() and (left := end - time.monotonic()) > 0:
            self.wait(min(left, 0.05))

    def ask(self, grace_s: float) -> None:
        """Ask the main process to end; a later call may only shorten the grace."""
        if not self.asked and grace_s > 0:
            # To the leader alone: workers that get SIGTERM on their own print errors and may deadlock.
            send(self.main, signal.SIGTERM)
        self.asked = True
        deadline = time.monotonic() + grace_s
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def overdue(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def wait(self, seconds: float) -> None:
        """Wait for a signal or the end of the life line, and take note of it."""
        for fd, _ in self.poller.poll(max(0.0, seconds) * 1000):
            if fd == 0:
                self.poller.unregister(0)
                if self.dies_with_router:
                    self.ask(self.grace_s)
            else:
                with suppress(BlockingIOError):
                    if {signal.SIGTERM, signal.SIGINT} & set(os.read(self.wakeup, 4096)):
                        self.ask(self.wanted_grace())

    def wanted_grace(self) -> float:
        try:
            with open(f"{self.folder}/stop", encoding="utf-8") as file:  # noqa: PTH123
                return max(0.0, float(file.read()))
        except (OSError, ValueError):
            return self.grace_s

    def reap(self) -> bool:
        """Take the exit codes of the dead; tell whether anybody is left, dead or alive."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main:
                self.code = os.waitstatus_to_exitcode(status)

    def trim_log(self) -> None:
        """Above the limit, move the log's content to ``LOG.1``. Lines between copy and cut are lost (few)."""
        with suppress(OSError):
            size = os.fstat(2).st_size
            if not 0 < self.log_limit < size:
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            copy = os.open(f"{self.log}.1", flags, 0o600)
            try:
                offset = 0
                while offset < size and (sent := os.sendfile(copy, 2, offset, size - offset)):
                    offset += sent
            finally:
                os.close(copy)
            os.ftruncate(2, 0)


def tell(content: dict[str, object]) -> bool:
    """Tell the router; whether it was there to listen."""
    try:
        os.write(1, json.dumps(content).encode() + b"\n")
    except BrokenPipeError:
        return False
    return True


def close_all_but(keep: int) -> None:
    """Close every file from ``keep`` on: a library of the router may have leaked some."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(entry) >= keep:
            with suppress(OSError):
                os.close(int(entry))


def main(folder: str) -> int:
    """Start, watch over, sweep, write the exit. Gives the guard's own exit status."""
    close_all_but(4)
    with open(3, encoding="utf-8") as file:
        task = json.load(file)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = Guard(folder, task)
    try:
        guard.main = spawn(task)
    except CannotStart as error:
        tell({"step": error.step, "errno": error.number})
        return 1
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
        boot = file.read().strip()
    run: dict[str, object] = {
        "version": VERSION,
        "token": task["token"],
        "boot": boot,
        "guard": birth(os.getpid()),
        "main": birth(guard.main),
    }
    try:
        write_whole(folder, "run", run)
    except OSError as error:
        # Who cannot be found again must not live.
        guard.ask(0)
        guard.sweep()
        tell({"step": "run", "errno": error.errno or errno.EIO})
        return 1
    if not tell(run):
        guard.ask(0)
    os.dup2(2, 1)
    guard.oversee()
    guard.sweep()
    write_whole(folder, "exit", {"version": VERSION, "code": guard.code, "asked": guard.asked, "killed": guard.killed})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
