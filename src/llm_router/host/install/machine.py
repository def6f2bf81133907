"""What an installation does to the machine in its smallest pieces: run a program, write a file whole, give it away.

Every failure is an ``InstallError`` that says which program or file it was. It knows no deed and no plan.
"""

import grp
import os
import pwd
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Programs that an installation runs end within this time (seconds).
LIMIT_S: Final = 120.0


class InstallError(Exception):
    """It cannot be done; the text begins with "cannot" and names thing, cause and remedy."""


def run(words: Sequence[str], remedy: str = "", limit_s: float = LIMIT_S) -> None:
    """Run a program to its end; no words are no program. Raises ``InstallError`` with what it said."""
    if not words:
        return
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            words, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"cannot run `{' '.join(words)}`: {error}") from None
    if done.returncode:
        said = (done.stderr + done.stdout).strip() or f"exit code {done.returncode}"
        raise InstallError(f"cannot do `{' '.join(words)}`: {said}{f'; {remedy}' if remedy else ''}")


def ask(words: Sequence[str], limit_s: float = LIMIT_S) -> tuple[int, str]:
    """Run a program and give its exit code with what it printed; 127 if it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            words,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.strip()


def account_exists(name: str) -> bool:
    """Whether the host has this account."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def text_of(path: str) -> str | None:
    """A file's text, ``None`` if it has none that can be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def write(path: str, text: str, mode: int, owner: str) -> None:
    """Write the file whole or not at all, never through somebody's link. Raises ``InstallError``."""
    no_link(path)
    part = Path(f"{path}.part")
    try:
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        give(str(part), mode, owner)
        part.replace(path)
    except OSError as error:
        raise InstallError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def mode_and_owner(path: str) -> tuple[int, str]:
    """The permission bits, and ``UID:GID``."""
    found = Path(path).stat()
    return stat.S_IMODE(found.st_mode), f"{found.st_uid}:{found.st_gid}"


def stands(path: str, mode: int, owner: str) -> bool:
    """Whether it has this mode and, unless that is empty, this owner."""
    is_mode, is_owner = mode_and_owner(path)
    return is_mode == mode and (not owner or is_owner == ":".join(map(str, _numbers(owner) or ())))


def give(path: str, mode: int, owner: str) -> None:
    """Set owner and mode. Raises ``InstallError`` for an owner whom the host does not have."""
    if owner:
        # First: a mode that lets a group in must not be given while the group is still another one.
        numbers = _numbers(owner)
        if numbers is None:
            raise InstallError(f"cannot give {path} to {owner}: this host has no such account")
        os.chown(path, *numbers, follow_symlinks=False)
    Path(path).chmod(mode)


def no_link(path: str) -> None:
    """What an administrator writes must not be led elsewhere by somebody else's link. Raises ``InstallError``."""
    if Path(path).is_symlink():
        raise InstallError(f"cannot write {path}: it is a link; remove it or see where it leads")


def _numbers(owner: str) -> tuple[int, int] | None:
    user, _, group = owner.partition(":")
    try:
        return (
            int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid,
            int(group) if group.isdigit() else grp.getgrnam(group).gr_gid,
        )
    except KeyError:
        return None
