"""From a launch to a living guard: the files, the pipes, the first word of the guard, and why it did not work.

This file knows how guard.py is called, and the system's errors in plain words. What becomes of the guard after
its first word is child.py's.
"""

import asyncio
import errno
import fcntl
import json
import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from llm_router.engines.engine import FileToWrite, Launch
from llm_router.host.machine import processes
from llm_router.host.supervisors.records import Birth, Folder

_GUARD: Final = Path(__file__).with_name("guard.py")


_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
)


class FirstWord(msgspec.Struct, frozen=True):
    """What the guard says once: the engine's main process, or the step and the system's number of the failure."""

    main: Birth | None = None
    step: str = ""
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Spawned:
    """A guard that was just started, with our ends of its pipes."""

    pid: int
    pidfd: int
    lifeline: int
    handshake: int


def lay_out(launch: Launch) -> None:
    """Put the launch's files and links in place, each whole or not at all, with their folders.

    Raises ``OSError``. A relative path is below the launch's working directory. A link replaces a link, but never
    something else: that was not made by us.
    """
    for file in launch.files:
        _write_file(_place(launch, file.path), file)
    for place, target in launch.links:
        link = _place(launch, place)
        if link.exists() and not link.is_symlink():
            raise FileExistsError(errno.EEXIST, "something that is not a link stands where a link must be", str(link))
        new = _beside(link)
        new.symlink_to(target)
        new.replace(link)


def _place(launch: Launch, path: str) -> Path:
    place = Path(launch.cwd or "", path)
    if not place.is_absolute():
        raise OSError(errno.EINVAL, "the place of a file must be absolute, or below a working directory", path)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def _write_file(path: Path, file: FileToWrite) -> None:
    new = _beside(path)
    # Secret from the first byte on: a chmod afterwards would leave a moment in which others can read it.
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(file.content)
    if not file.secret:
        new.chmod(0o644)
    new.replace(path)


def _beside(path: Path) -> Path:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    return new


def spawn_guard(folder: Folder, task: dict[str, object]) -> Spawned:
    """Start a guard with its task. Raises ``OSError``.

    posix_spawn takes 0.3 ms and offers no point at which a cancelled caller could lose the guard. The task goes
    through a memory file, so that no secret of the environment is written to a disk or seen in ``ps``.
    """
    with ExitStack() as theirs, ExitStack() as ours:
        life_read, life_write = os.pipe()
        hand_read, hand_write = os.pipe()
        for fd in (life_write, hand_read):
            ours.callback(os.close, fd)
        log = os.open(folder.log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        given = [life_read, hand_write, log, _memory_file(json.dumps(task).encode())]
        # Above the targets 0 to 3, so that no dup2 overwrites what a later one needs.
        lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in given]
        for fd in given + lifted:
            theirs.callback(os.close, fd)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(_GUARD), str(folder.path)],
            {processes.MARKER: folder.token, "PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(lifted)],
            setsid=True,
            setsigmask=[],
        )
        # If this fails, the closed pipes tell the guard to end.
        pidfd = os.pidfd_open(pid)
        ours.pop_all()
        return Spawned(pid, pidfd, life_write, hand_read)


async def first_word(handshake: int, limit_s: float) -> FirstWord | None:
    """What the guard says, ``None`` if it ended without a word. Closes the pipe. Raises ``TimeoutError``."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    received = bytearray()

    def readable() -> None:
        piece = os.read(handshake, 65536)
        received.extend(piece)
        if (not piece or b"\n" in piece) and not line.done():
            line.set_result(bytes(received))

    loop.add_reader(handshake, readable)
    try:
        async with asyncio.timeout(limit_s):
            said = await line
    finally:
        loop.remove_reader(handshake)
        os.close(handshake)
    return msgspec.json.decode(said, type=FirstWord) if said.endswith(b"\n") else None


def is_passing(number: int | None) -> bool:
    """Whether this error of the system speaks of what the machine lacks now, not of what was wanted."""
    return number in _PASSING


def why_not(launch: Launch, word: FirstWord, folder: Folder) -> str:
    """The guard's failure for people: the thing, the cause and what to do."""
    program = launch.argv[0]
    reason = os.strerror(word.errno)
    if word.step == "cwd":
        return f"its working directory {launch.cwd} cannot be entered ({reason}); create it or correct 'cwd'"
    if word.step == "run":
        return f"{folder.path} cannot be written ({reason}); make room or correct the state folder"
    match word.errno:
        case errno.ENOENT if _exists(launch, program):
            return (
                f"the program {program} is there, but not the interpreter that its first line, or its format, names"
                " (was its virtual environment moved?)"
            )
        case errno.ENOENT | errno.ENOTDIR:
            where = "" if "/" in program else " in PATH"
            return f"there is no program {program}{where}; install it or correct 'command'"
        case errno.EACCES:
            return f"the program {program} may not be executed; try chmod +x, and look at the rights of its folders"
        case errno.ENOEXEC:
            return (
                f"the program {program} cannot be executed (exec format error): it is built for another kind of"
                " machine, or it is a script without a first line like #!/bin/sh"
            )
        case errno.EINVAL:
            return "a word of its command line or of its environment has a NUL character"
        case _:
            return f"the program {program} cannot be executed: {reason}"


def _exists(launch: Launch, program: str) -> bool:
    if "/" in program:
        return (Path(launch.cwd or ".") / program).exists()
    return shutil.which(program, path=launch.env.get("PATH")) is not None


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("task", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
