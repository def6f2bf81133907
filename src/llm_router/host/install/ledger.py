"""The list of what was done on this host (``install.json``), kept so that it can be undone, also after a crash.

It lies among the router's configuration and belongs to who installed, because all that it names is removed with
their rights. This file knows no deed's nature.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from llm_router.host.install.deeds import Deed, File, Folder
from llm_router.host.install.machine import InstallError

NAME: Final = "install.json"


class _Written(msgspec.Struct):
    """``made`` are the folders that had to be made for the list itself."""

    deeds: tuple[Deed, ...] = ()
    settled: int = 0
    made: tuple[str, ...] = ()


class Ledger:
    """What was done, in order. Without a list nothing was. Raises ``InstallError`` for one that cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._written = _Written()
        try:
            self._written = msgspec.json.decode(self.path.read_bytes(), type=_Written)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InstallError(f"cannot read {self.path}: {error.strerror or error}") from None
        except msgspec.MsgspecError as error:
            raise InstallError(
                f"cannot understand {self.path}: {error}; it says what an uninstall removes, so mend it or remove "
                "the parts of the installation by hand"
            ) from None

    @property
    def deeds(self) -> tuple[Deed, ...]:
        return self._written.deeds

    @property
    def cut_off(self) -> tuple[Deed, ...]:
        """The deeds of an installation that neither ended nor was taken back: the machine stopped, or a kill came."""
        return self._written.deeds[self._written.settled :]

    def add(self, deed: Deed) -> None:
        """Write down what is about to be done."""
        if not self.path.parent.exists():
            missing = [one for one in (self.path.parent, *self.path.parent.parents) if not one.exists()]
            self.path.parent.mkdir(mode=0o755, parents=True)
            self._written.made = tuple(map(str, missing))
        self._put((*self.deeds, deed), self._written.settled)

    def drop(self, deed: Deed) -> None:
        """Forget the last deed that is this one."""
        at = len(self.deeds) - 1 - self.deeds[::-1].index(deed)
        settled = self._written.settled - (at < self._written.settled)
        self._put((*self.deeds[:at], *self.deeds[at + 1 :]), settled)

    def settle(self) -> None:
        """The installation is finished: from now on an uninstall takes it back."""
        deeds = folded(self.deeds)
        self._put(deeds, len(deeds))

    def _put(self, deeds: Sequence[Deed], settled: int) -> None:
        self._written.deeds, self._written.settled = tuple(deeds), settled
        part = self.path.with_suffix(".part")
        part.unlink(missing_ok=True)
        if deeds:
            part.touch(mode=0o600)
            part.write_bytes(msgspec.json.format(msgspec.json.encode(self._written)) + b"\n")
            part.replace(self.path)
            return
        self.path.unlink(missing_ok=True)
        for folder in map(Path, self._written.made):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self._written.made = ()


def folded(deeds: Iterable[Deed]) -> list[Deed]:
    """One deed for each thing: as it was found first, as it was left last."""
    kept: dict[tuple[str, str], Deed] = {}
    for deed in deeds:
        first = kept.get(deed.key)
        if isinstance(first, File) and isinstance(deed, File):
            kept[deed.key] = msgspec.structs.replace(deed, before=first.before, was=first.was)
        elif isinstance(first, Folder) and isinstance(deed, Folder):
            kept[deed.key] = msgspec.structs.replace(deed, was=first.was, whole=first.whole)
        else:
            kept.setdefault(deed.key, deed)
    return list(kept.values())
