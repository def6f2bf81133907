"""The files of an existing installation: found, edited with a copy kept, and its keys read when they change.

It knows files and their rights, not which engine they belong to. A file that cannot be understood is reported with
its line and left as it is.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_router.engines.engine import Edit, Somewhere
from llm_router.host.service.yaml_edit import YamlEditError, read_mapping, set_values

log = logging.getLogger(__name__)

#: The copy of an edited file, as it was before the last edit.
COPY_ENDING: Final = ".llm-router.bak"


class InstallationError(Exception):
    """A file cannot be found, read or written; the text begins with "cannot" and says what to do."""


def locate(file: Somewhere, environment: Mapping[str, str], *folders: str) -> Path:
    """Where the file is. ``folders`` are looked into before its own. Raises ``InstallationError``."""
    for said in (file.configured, environment.get(file.variable, "") if file.variable else ""):
        if said:
            path = Path(said).expanduser()
            path = path / file.name if path.is_dir() else path
            if path.is_file():
                return path
            raise InstallationError(f"cannot find {path}; correct the configuration, or {file.variable}")
    looked = [Path(folder, file.name) for folder in (*folders, *file.folders) if folder]
    found = next((path for path in looked if path.is_file()), None)
    if found is None:
        where = ", ".join(str(path.parent) for path in looked)
        raise InstallationError(
            f"cannot find {file.name} in {where}; write where it is (config_file, tokens_file or dir of the backend,"
            f" or {file.variable})"
        )
    return found


def check(edit: Edit, path: Path) -> None:
    """Whether the edit could be made. Changes nothing. Raises ``InstallationError``."""
    _edited(edit, path)
    place = path.resolve()
    for needed in (place, place.parent):
        if not os.access(needed, os.W_OK):
            raise InstallationError(f"cannot edit {place}: this account may not write {needed}; change its rights")


def apply(edit: Edit, path: Path) -> bool:
    """Make the edit, whole or not at all; gives whether something had to change.

    The file as it was stays beside it, with the same owner and rights. Raises ``InstallationError``.
    """
    before, after = _edited(edit, path)
    if before == after:
        return False
    place = path.resolve()  # what a link points to is edited, the link stays
    try:
        _write_like(place, place.with_name(place.name + COPY_ENDING), before)
        _write_like(place, place, after)
    except OSError as error:
        raise InstallationError(f"cannot edit {place}: {error.strerror or error}; change its rights") from None
    return True


def _edited(edit: Edit, path: Path) -> tuple[bytes, bytes]:
    try:
        before = path.read_bytes()
    except OSError as error:
        raise InstallationError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        mark = b"\xef\xbb\xbf" if before.startswith(b"\xef\xbb\xbf") else b""
        text = before[len(mark) :].decode()
        return before, mark + set_values(text, edit.values).encode()
    except UnicodeDecodeError as error:
        raise InstallationError(
            f"cannot edit {path}: it is no UTF-8 text ({error.reason}); it is left as it is"
        ) from None
    except YamlEditError as error:
        raise InstallationError(f"cannot edit {path}, {error}; correct it, it is left as it is") from None


def _write_like(model: Path, target: Path, content: bytes) -> None:
    """Write whole or not at all, with the owner and the rights of ``model``."""
    like = model.stat()
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(file.fileno(), like.st_uid, like.st_gid)
    new.chmod(like.st_mode & 0o7777)
    new.replace(target)


@dataclass(frozen=True, slots=True)
class Keys:
    """What an installation asks for: with ``api`` it serves, with ``admin`` it obeys."""

    api: str | None = None
    admin: str | None = None


class KeyFile:
    """The keys in a file, read anew when it has changed. A file that cannot be read leaves the keys as they were."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys = Keys()

    def __repr__(self) -> str:
        return f"<keys in {self._path}>"

    def keys(self) -> Keys:
        """The keys now; costs one look at the file's time."""
        try:
            found = self._path.stat()
        except OSError:
            return self._keys
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._seen:
            self._seen = stamp
            try:
                told = read_mapping(self._path.read_text(encoding="utf-8-sig"))
                self._keys = Keys(_first(told.get("api_key")), _first(told.get("admin_key")))
            except (OSError, UnicodeDecodeError, YamlEditError) as error:
                # The text of a YAML error may quote the line, and with it a key.
                log.warning("cannot read the keys in %s (%s); those read before stay", self._path, type(error).__name__)
        return self._keys


def _first(value: object) -> str | None:
    """A key, or the first of a list of them."""
    if isinstance(value, list):
        value = next(iter(value), None)
    return str(value) if value is not None and str(value) else None
