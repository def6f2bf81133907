"""Whether another account can read a file: decided from modes and owners, without becoming that account.

Access lists and the like are not looked at: what they add is found out when the router starts.
"""

import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Who:
    """An account by its numbers; ``uid`` is ``None`` for one that is still to be made."""

    name: str
    uid: int | None
    gids: frozenset[int]


def who(name: str, groups: Collection[str] = ()) -> Who:
    """The account, or what it will be: a member of those of ``groups`` that this host has."""
    known = {group.gr_name: group.gr_gid for group in grp.getgrall()}
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return Who(name, None, frozenset(known[group] for group in groups if group in known))
    return Who(name, found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid)))


def closed(path: str | Path, account: Who) -> str | None:
    """Why the account cannot read the file or folder, in a sentence; ``None`` if it can, or if it is not there."""
    if account.uid == 0:
        return None
    places = (Path(path), Path(path).resolve())
    for part in (part for place in places for part in (*reversed(place.parents), place)):
        try:
            found = part.stat()
        except PermissionError:
            return f"{part} cannot be looked at from here"
        except OSError:
            return None
        wanted = 1 if part not in places else 5 if stat.S_ISDIR(found.st_mode) else 4
        if _may(found, account) & wanted != wanted:
            return f"{part} is closed to the account {account.name}"
    return None


def first_closed(paths: Iterable[str | Path], account: Who) -> list[str]:
    """The different reasons why any of the paths is closed to the account."""
    return list(dict.fromkeys(reason for path in paths if (reason := closed(path, account))))


def _may(found: os.stat_result, account: Who) -> int:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == account.uid:
        return mode >> 6 & 7
    return mode >> 3 & 7 if found.st_gid in account.gids else mode & 7
