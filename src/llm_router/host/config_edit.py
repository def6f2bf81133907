"""Changes to the files of a configuration: whole or not at all, with a copy of what was there.

This file knows how a file is replaced safely and how it is seen that somebody else was quicker. What is written
is made by ``config.edit``; whether it is a good configuration is judged before it is written.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from llm_router.config import edit, old
from llm_router.config.load import Config, parse_parts, read_parts
from llm_router.host import config_files

#: What the file was before the last change stands beside it under its name with this ending.
KEPT: Final = ".bak"

EditError = edit.EditError


def add_models(path: Path, entries: Mapping[str, Mapping[str, object]], env: Mapping[str, str]) -> tuple[Path, Config]:
    """Add models to the configuration at ``path``; gives the file that changed and the configuration that results.

    Raises ``EditError``, and ``ConfigError`` if the result would be none.
    """
    files = config_files.files_of(path)
    file = files[-1]

    def change(text: str) -> str:
        for name, entry in entries.items():
            text = edit.add_model(text, name, entry, top=_is_models_file(file))
        return text

    return file, _change(path, file, change, env)


def remove_models(path: Path, names: Collection[str], env: Mapping[str, str]) -> tuple[Path, Config]:
    """Remove a model. Raises as ``add_models`` does."""
    files = config_files.files_of(path)
    file = next((file for file in files if all(_holds(file, name) for name in names)), files[-1])

    def change(text: str) -> str:
        for name in names:
            text = edit.remove_model(text, name, top=_is_models_file(file))
        return text

    return file, _change(path, file, change, env)


def create(path: Path, text: str, *, replace: bool = False) -> Path | None:
    """Write a new file; gives the copy of the one that it replaced. Raises ``EditError`` if one is there and may stay."""
    if path.is_dir():
        path = path / "config.yml"
    try:
        if path.exists():
            if not replace:
                raise EditError(f"cannot write {path}: there is a file of this name; name another one, or say --force")
            with _locked(path) as before:
                return _replace(path, before, text)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text)
    except OSError as error:
        raise _not_writable(path, error) from None
    return None


def _change(path: Path, file: Path, change: Callable[[str], str], env: Mapping[str, str]) -> Config:
    try:
        with _locked(file) as before:
            text = change(before)
            config = _judged(path, file, text, env)
            _replace(file, before, text)
    except OSError as error:
        raise _not_writable(file, error) from None
    return config


def _judged(path: Path, file: Path, text: str, env: Mapping[str, str]) -> Config:
    """The configuration with this text in place of the file's. Raises ``ConfigError``."""
    folder = (path if path.is_dir() else path.parent).absolute()
    before = config_files.read_files(path)
    if old.is_old(read_parts(before, env)[1]):
        raise EditError(
            f"cannot edit {file}: it is in an older layout; write it in the present one first: "
            f"llm-router config convert {path} -o llm-router.yml"
        )
    parts = [(name, text if Path(name) == file else other) for name, other in before]
    return parse_parts(parts, env, lambda name: config_files.secret(folder, name), folder=str(folder))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[str]:
    """The text of a file that no other command of ours changes meanwhile. Raises ``OSError``, ``EditError``."""
    with file.open(encoding="utf-8", newline="") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(opened.fileno()), file.stat()):
            raise _overtaken(file)
        try:
            text = opened.read()
        except UnicodeDecodeError:
            raise EditError(f"cannot edit {file}: it is not UTF-8 text") from None
        yield text


def _replace(file: Path, before: str, text: str) -> Path:
    """Put a text in place of the one that was read; a copy stays. Raises ``EditError`` if somebody was quicker."""
    place = file.resolve()
    kept = place.with_name(place.name + KEPT)

    def keep() -> None:
        shutil.copy2(place, kept)
        if kept.read_bytes() != before.encode():
            raise _overtaken(file)

    _write(place, text, like=place, last=keep)
    return kept


def _write(place: Path, text: str, *, like: Path | None = None, last: Callable[[], None] = lambda: None) -> None:
    """Write the whole file or nothing. It gets owner and mode of ``like``; ``last`` is called right before it counts."""
    handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            status = like.stat()
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(temporary, status.st_uid, status.st_gid)
            temporary.chmod(status.st_mode & 0o7777)
        else:
            temporary.chmod(0o640)
        last()
        temporary.replace(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(place.parent)


def _sync(folder: Path) -> None:
    """Make the new name in the folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_models_file(file: Path) -> bool:
    return file.name == "models.yml"


def _holds(file: Path, name: str) -> bool:
    try:
        edit.remove_model(file.read_text(encoding="utf-8"), name, top=_is_models_file(file))
    except (OSError, UnicodeDecodeError, EditError):
        return False
    return True


def _overtaken(file: Path) -> EditError:
    return EditError(f"cannot edit {file}: somebody else changed it at the same moment; nothing was written, try again")


def _not_writable(file: Path, error: OSError) -> EditError:
    return EditError(f"cannot write {error.filename or file}: {error.strerror or error}")
