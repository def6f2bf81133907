"""Does a plan or takes it back: each deed is written down before it is done, so that nothing is ever half there.

It knows the order of things. What a deed does is the deed's own business.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from llm_router.host.install import machine
from llm_router.host.install.deeds import Account, Answering, Deed, File, Packages, Running
from llm_router.host.install.ledger import Ledger
from llm_router.host.install.machine import InstallError

Told = Callable[[str], None]
"""Hears of each thing before it is done."""


def todo(plan: Sequence[Deed]) -> list[Deed]:
    """What of the plan is not done yet. If anything is not, the router is started anew and asked to answer."""
    missing = [deed for deed in plan if not deed.done()]
    return [deed for deed in plan if deed in missing or (missing and isinstance(deed, Running | Answering))]


def perform(plan: Sequence[Deed], ledger: Ledger, told: Told) -> None:
    """Do the plan. If a deed fails, or Ctrl-C comes, all that this call did is undone first.

    Raises ``InstallError``. A router that ran before runs again after that, as it was.
    """
    ran = [deed for deed in plan if isinstance(deed, Running) and deed.done()]
    mine: list[Deed] = []
    try:
        for deed in plan:
            found = deed.found()
            told(deed.says())
            if not isinstance(found, Answering):
                ledger.add(found)
                mine.append(found)
            found.do()
        ledger.settle()
    except BaseException as error:
        left = take_back(reversed(mine), ledger, told)
        for running in ran:
            machine.ask((*running.systemctl, "start", running.unit))
        if not isinstance(error, InstallError | OSError):
            raise
        cause = str(error) if isinstance(error, InstallError) else f"cannot install: {error}"
        raise InstallError("\n".join((cause, "What this installation had done is undone.", *left))) from None


def prune(plan: Sequence[Deed], ledger: Ledger, told: Told) -> list[str]:
    """Take away the environments of earlier versions, which nothing of the plan uses any more; gives what is left."""
    keys = {deed.key for deed in plan}
    return take_back(
        [deed for deed in ledger.deeds if isinstance(deed, Packages) and deed.key not in keys], ledger, told
    )


def take_back(deeds: Iterable[Deed], ledger: Ledger, told: Told) -> list[str]:
    """Undo the deeds in the order given, whatever fails on the way; gives what is left, in sentences."""
    left = []
    for deed in deeds:
        told(deed.unsays())
        try:
            note = deed.undo()
        except (InstallError, OSError) as error:
            left.append(f"not undone ({deed.says()}): {error}")
            continue
        if note:
            left.append(note)
        ledger.drop(deed)
    return left


def uninstall(ledger: Ledger, told: Told, *, purge: bool) -> list[str]:
    """Take back all that installations did here; the configuration stays unless ``purge``. Gives what is left."""
    going, staying = parted(ledger, purge=purge)
    left = take_back(reversed(going), ledger, told)
    gone = {deed.name for deed in going if isinstance(deed, Account)}
    for deed in staying:
        if deed.owner.partition(":")[2] in gone and Path(deed.path).exists():
            # The group is gone, and its number may be somebody else's one day.
            os.chown(deed.path, 0, 0, follow_symlinks=False)
    return left


def parted(ledger: Ledger, *, purge: bool) -> tuple[list[Deed], list[File]]:
    """What an uninstall takes back, and what stays: the configuration that was put there."""
    staying = (
        [] if purge else [deed for deed in ledger.deeds if isinstance(deed, File) and deed.config and not deed.was]
    )
    return [deed for deed in ledger.deeds if deed not in staying], staying
