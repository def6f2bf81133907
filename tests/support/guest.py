"""A client in a thread of its own, that keeps what it was told: for tests in which several things happen at once."""

import threading
from dataclasses import dataclass, field

import httpx2

from support.router import Json, RunningRouter, events, text_of
from support.wild import CHAT, SAYS, wish


@dataclass
class Guest:
    """Asks a wild engine at once. ``heard`` is set with the first word of the answer, and at the end."""

    router: RunningRouter
    model: str
    text: str = "hello"
    chunks: list[Json | str] = field(default_factory=list)
    broken: bool = False

    def __post_init__(self) -> None:
        self.heard = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with (
                self.router.client() as client,
                client.stream("POST", CHAT, json=wish(self.model, self.text)) as response,
            ):
                if response.status_code != 200:
                    response.read()
                    self.chunks.append(response.json())
                    return
                for chunk in events(response):
                    self.chunks.append(chunk)
                    if text_of([chunk]):
                        self.heard.set()
        except httpx2.HTTPError:
            self.broken = True
        finally:
            self.heard.set()

    def gone(self) -> "Guest":
        """Wait for the end of its answer."""
        self._thread.join(20)
        assert not self._thread.is_alive(), f"{self.model}: {self.chunks[-3:]}"
        return self

    @property
    def errors(self) -> list[str]:
        """The codes of the errors that it got."""
        return [str(chunk["error"]["code"]) for chunk in self.chunks if isinstance(chunk, dict) and "error" in chunk]

    @property
    def whole(self) -> bool:
        """Whether it has the whole answer and nothing else."""
        return not self.broken and not self.errors and text_of(self.chunks) == SAYS and self.chunks[-1] == "[DONE]"
