"""How many files this process may have open: as many as it is allowed to allow itself.

Shells and services begin with 1024 (the soft limit), for the sake of programs that use select(2). A router
has two for each request, and would refuse the five hundredth.
"""

import logging
import resource
from typing import Final

log = logging.getLogger(__name__)

#: What the router keeps for engines, guards, questions, records and listeners.
OWN: Final = 128
#: So many clients are always let in, whatever the limit.
FEWEST: Final = 16
#: More is of no use: it is above twice the most connections, with room for engines and files.
WANTED: Final = 65_536


def allow_many() -> int:
    """Raise the soft limit towards the hard one; gives the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [limit for limit in (WANTED, hard) if limit != resource.RLIM_INFINITY]
    wanted = min(limits)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("cannot open more than %d files and connections at once: %s", soft, error)
        return soft
    return wanted


def connections(limit: int, most: int) -> int:
    """How many clients may be connected at once under this limit of open files, ``most`` at most.

    Each may need a second connection, to its engine. Some descriptors are the router's own: without them it could
    neither start an engine nor be sure that one is gone.
    """
    return min(most, max(FEWEST, (limit - OWN) // 2))
