"""The router's own folder: one router at a time, nobody else's eyes, and the number of the last instance.

It knows where the folder is and who holds it. What lies in it belongs to those who write it.
"""

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import platformdirs

log = logging.getLogger(__name__)


class StateError(Exception):
    """The folder cannot be used; the text says which and why."""


class StateFolder:
    """The folder of a running router. Made by ``opened``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: int | None = None

    @property
    def serial(self) -> int:
        """The highest number that an instance has had, 0 if none or if nobody can know any more."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def remember_serial(self, serial: int) -> None:
        """Keep the number, so that a later router does not use it again.

        A disk that refuses costs only that: it is said, and no start may fail for it.
        """
        if serial <= self.serial:
            return
        self._known = serial
        part = self.path / "serial.part"
        try:
            part.write_text(f"{serial}\n")
            part.replace(self.path / "serial")
        except OSError as error:
            log.warning("cannot keep the number of the last instance in %s: %s", self.path / "serial", error)

    def _read(self) -> int:
        path = self.path / "serial"
        try:
            return int(path.read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("cannot read %s: %s; the instances are numbered from 1 again", path, error)
            return 0


def place(configured: str | None, environment: Mapping[str, str], folder: str = "") -> Path:
    """Where the folder is: as configured, as systemd gives it, else the user's own place for state.

    A relative one is below ``folder``, the configuration's own, as every path in a configuration is.
    """
    if configured:
        return Path(folder, Path(configured).expanduser()).absolute()
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else Path(platformdirs.user_state_path("llm-router"))


@contextmanager
def opened(path: Path) -> Iterator[StateFolder]:
    """Make the folder, closed to other users, and hold it. Raises ``StateError``, also if another router has it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"cannot use the state folder {path}: {error.strerror or error}; set `state_dir` under `server`"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "?"
            raise StateError(
                f"cannot start: a router is running already with the state folder {path} (pid {holder}); "
                "stop it, or give this one another `state_dir` under `server`"
            ) from None
        try:
            os.truncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            log.warning("cannot write %s: %s; another router will not be told who has the folder", path / "lock", error)
        yield StateFolder(path)
    finally:
        # The lock goes with the last descriptor. The file stays: removing it would race with the next router.
        os.close(lock)
