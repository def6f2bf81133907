"""Steps whose callers have others to serve: what goes wrong in one of them ends what it belongs to, and nothing else.

It knows that a bug of ours must neither leave a client waiting for ever nor fall upon who called. It refuses to
know what is to be done then: that is ``give_up``.
"""

import functools
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

log = logging.getLogger(__name__)


class Fallible(Protocol):
    """Something that can be ended at any time."""

    def give_up(self) -> None:
        """Something went wrong that nobody foresaw."""
        ...


S = TypeVar("S", bound=Fallible)
P = ParamSpec("P")


def careful(step: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make ``step`` a method that does not raise: it writes the story to the log and gives up."""

    @functools.wraps(step)
    def taken(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            step(self, *args, **kwargs)
        except Exception:
            log.exception("cannot go on with %r", self)
            self.give_up()

    return taken
