"""In which words a waiting client is told: as one status line, or as the classic lines inside an answer.

It knows what there is to say. How a text looks is ``notices``' and ``lines``' business, how it travels a face's.
"""

from typing import Final, Protocol

from msgspec import Struct

from llm_router.core.words import Notice
from llm_router.wire import lines, notices


class Speed(Struct, frozen=True):
    """How fast an answer was. Times in seconds; ``estimated``: the count of tokens is the router's own."""

    tokens: int
    seconds: float
    per_s: float | None
    estimated: bool = False
    first_s: float | None = None


class Words(Protocol):
    """The texts of one wait."""

    def told(self, notice: Notice) -> str:
        """The news."""
        ...

    def waiting(self, model: str) -> str:
        """There is no news yet."""
        ...

    def reading(self, model: str) -> str:
        """The engine has the request and is silent."""
        ...

    def ready(self, model: str, waited_s: float) -> str:
        """The wait is over."""
        ...

    def speed(self, speed: Speed) -> str:
        """The answer is over."""
        ...


class StatusWords:
    """One line that is replaced by the next."""

    def told(self, notice: Notice) -> str:
        return notices.describe(notice)

    def waiting(self, model: str) -> str:
        return f"Waiting for {model}"

    def reading(self, model: str) -> str:
        return f"{model} is reading the prompt"

    def ready(self, model: str, waited_s: float) -> str:
        return notices.ready(model, waited_s)

    def speed(self, speed: Speed) -> str:
        return notices.speed(speed.tokens, speed.seconds, speed.per_s, speed.estimated, speed.first_s)


class ClassicWords(Struct, frozen=True):
    """Lines that stay. ``limit_s`` is how long the model may load."""

    limit_s: float | None = None

    def told(self, notice: Notice) -> str:
        return lines.told(notice, self.limit_s)

    def waiting(self, model: str) -> str:
        return lines.switching(model)

    def reading(self, model: str) -> str:
        return lines.reading(model)

    def ready(self, model: str, waited_s: float) -> str:
        return lines.ready(model, waited_s)

    def speed(self, speed: Speed) -> str:
        return lines.footer(speed.tokens, speed.seconds, speed.per_s, estimated=speed.estimated)


STATUS: Final = StatusWords()
