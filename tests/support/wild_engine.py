"""An engine that serves chats and misbehaves on demand. Standard library only; run as ``python -I -S wild_engine.py``.

``wild_engine.py NOTES PORT WORD...``: it appends what happens to the file NOTES, one line each (``born PID``,
``ready``, ``asked WORD``, ``left``, ``daemon PID``), and serves on PORT. The words:

gate=PATH      loads until this file exists       load=SECONDS   loads for so long
chatty         says a line now and then while it loads
crash          ends while it loads, with code 3   once           dies as soon as it has answered one chat
deaf           SIGTERM is ignored                 end=PATH       SIGTERM is obeyed once this file exists
daemon         leaves a daemon behind: forked twice, in a session of its own
elsewhere      serves on another port than it was told
log=MB         writes a log of this size before it is ready
sick=PATH      answers no health check once this file exists
one            has one slot: a chat waits until the one before it is answered

The first word of a chat's last message may ask for more: ``hang`` (two words, then silence), ``mute`` (silence),
``die`` (two words, then the end of the process), ``endless`` (a word every 10 ms), ``flood`` (as fast as it
goes; ``GET /sent`` tells how many bytes were taken), ``hold PATH`` (one word, the rest once this file exists),
``read PATH`` (computes, and says nothing but pings until this file exists, as over a long prompt).
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

NOTES, PORT = sys.argv[1], int(sys.argv[2])
WORDS = {key: value for key, _, value in (word.partition("=") for word in sys.argv[3:])}
SAYS = ("I", " am", " wild.")
SENT = [0]
SLOT = threading.Lock()


def note(text: str) -> None:
    fd = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, text.encode() + b"\n")
    os.close(fd)


def log(text: str) -> None:
    os.write(2, text.encode() + b"\n")


def until(path: str, each: Callable[[], None] = lambda: None) -> None:
    while not os.path.exists(path):  # noqa: PTH110 - stays light
        each()
        time.sleep(0.01)


# Answering


def serve(connection: socket.socket) -> None:
    """All requests of one connection, until the other side leaves."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while request := read(connection):
            answer(connection, *request)
    except OSError:
        note("left")
    finally:
        connection.close()


def read(connection: socket.socket) -> tuple[str, bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    length = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return lines[0].rpartition(" ")[0], body


def answer(connection: socket.socket, line: str, body: bytes) -> None:
    if line == "GET /health":
        if os.path.exists(WORDS.get("sick") or "/nowhere"):  # noqa: PTH110
            silent(connection)
        whole(connection, {"status": "ok"})
    elif line == "GET /v1/models":
        whole(connection, {"object": "list", "data": [{"id": "wild", "object": "model"}]})
    elif line == "GET /sent":
        whole(connection, {"sent": SENT[0]})
    else:
        chat(connection, json.loads(body))


def chat(connection: socket.socket, asked: dict[str, object]) -> None:
    messages = asked["messages"]
    assert isinstance(messages, list)
    wish, _, more = str(messages[-1]["content"]).partition(" ")
    note(f"asked {wish}")
    if wish == "mute":
        silent(connection)
    if "one" in WORDS:
        with SLOT:
            generate(connection, asked, wish, more)
    else:
        generate(connection, asked, wish, more)
    if "once" in WORDS:
        os._exit(4)


def generate(connection: socket.socket, asked: dict[str, object], wish: str, more: str) -> None:
    if asked.get("stream"):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head)
        if wish == "read":
            read_prompt(connection, more)
        for word in words(connection, wish, more):
            event(connection, word)
        event(connection, "", "stop")
        chunk(connection, b"data: [DONE]\n\n")
        connection.sendall(b"0\r\n\r\n")
    else:
        text = "".join(words(connection, wish, more))
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        whole(connection, {"id": "x", "object": "chat.completion", "choices": choices, "usage": usage})


def read_prompt(connection: socket.socket, path: str) -> None:
    pinged = time.monotonic()
    while not os.path.exists(path):  # noqa: PTH110 - stays light
        if time.monotonic() - pinged > 0.1:
            pinged = time.monotonic()
            chunk(connection, b": ping\n\n")


def words(connection: socket.socket, wish: str, more: str) -> Iterator[str]:
    yield SAYS[0]
    if wish == "hold":
        until(more)
    yield SAYS[1]
    if wish == "die":
        os._exit(9)
    if wish == "hang":
        silent(connection)
    while wish == "endless":
        time.sleep(0.01)
        yield " on"
    while wish == "flood":
        yield " x" * 8192
    yield SAYS[2]


def silent(connection: socket.socket) -> None:
    """Say nothing more until the other side leaves."""
    while connection.recv(65536):
        pass
    raise ConnectionResetError


def event(connection: socket.socket, text: str, finish: str | None = None) -> None:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    value = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "wild", "choices": [choice]}
    chunk(connection, b"data: " + json.dumps(value).encode() + b"\n\n")


def chunk(connection: socket.socket, data: bytes) -> None:
    connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
    SENT[0] += len(data)


def whole(connection: socket.socket, value: object) -> None:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    connection.sendall(head + body)


# Living


def leave_a_daemon() -> None:
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    note(f"daemon {os.getpid()}")
    while True:
        signal.pause()


def on_term(*_: object) -> None:
    note("told to end")
    if "deaf" in WORDS:
        return
    if end := WORDS.get("end"):
        until(end)
    os._exit(0)


def load() -> None:
    if "crash" in WORDS:
        log("RuntimeError: no such luck")
        os._exit(3)
    time.sleep(float(WORDS.get("load") or 0))
    if gate := WORDS.get("gate"):
        until(gate, lambda: log("still loading") if "chatty" in WORDS else None)
    line = "x" * 99
    for _ in range(int(WORDS.get("log") or 0) * 100):
        log("\n".join([line] * 100)[:-1])


def accept(listening: socket.socket) -> None:
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()


def main() -> None:
    note(f"born {os.getpid()}")
    signal.signal(signal.SIGTERM, on_term)
    if "daemon" in WORDS:
        leave_a_daemon()
    load()
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0 if "elsewhere" in WORDS else PORT))
    listening.listen(512)
    note("ready")
    # The signals are the main thread's.
    threading.Thread(target=accept, args=(listening,), daemon=True).start()
    while True:
        signal.pause()


main()
