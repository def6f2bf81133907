"""How the router behaves towards its clients, as a value: who is told of a wait in which way, what becomes of
requests that nobody waits for, what is laid down about a model's requests.

It knows which rule wins over which. It refuses to know where the rules are written and who carries them out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from llm_router.wire.openai import BACKGROUND_TASKS, Asked
from llm_router.wire.params import Rules

#: The ways to tell a waiting client, with older spellings of them.
MODES: Final = {
    **{mode: mode for mode in ("event", "content", "reasoning", "comment", "off")},
    "none": "off",
    "classic": "content",
}
RIDE, STEER, REFUSE = "ride", "steer", "refuse"
_STATUS: Final = (b"x-router-status", b"x-llm-router-status")
#: Where a client says what a request is for; the last is Open WebUI's own, where it forwards what it knows.
_TASK: Final = (b"x-router-task", b"x-llm-router-task", b"x-openwebui-task")
_LONGEST_AGENT: Final = 256


@dataclass(frozen=True, slots=True)
class ModelManners:
    """What is laid down about one model. ``""`` and ``None``: the server's word counts.

    ``always_background``: nobody waits for any of its requests. ``limit_s`` is how long it may load.
    ``chats``: requests for another chat model may be steered to it.
    """

    status: str = ""
    background: str = ""
    always_background: bool = False
    rules: Rules = field(default_factory=Rules)
    merge: bool = False
    limit_s: float | None = None
    chats: bool = True


@dataclass(frozen=True, slots=True)
class ClientManners:
    """What is different for clients whose ``User-Agent`` fits the pattern."""

    pattern: re.Pattern[str]
    status: str = ""
    background: bool = False
    keep_alive: bool | None = None


PLAIN: Final = ModelManners()


@dataclass(frozen=True, slots=True)
class Manners:
    """All of it. Times in seconds. ``hold_s``: a request for a whole answer waits no longer, ``None``: as long as
    its patience. ``keep_alive``: such a request gets a space now and then while it waits."""

    status: str = "event"
    plain_lines: bool = False
    background: str = RIDE
    hold_s: float | None = None
    keep_alive: bool = False
    clients: tuple[ClientManners, ...] = ()
    models: Mapping[str, ModelManners] = field(default_factory=dict)

    def of_model(self, model: str) -> ModelManners:
        return self.models.get(model, PLAIN)

    def of_client(self, fields: Mapping[bytes, bytes]) -> ClientManners | None:
        """The first rule that fits what the client calls itself."""
        if not self.clients:
            return None
        agent = fields.get(b"user-agent", b"").decode("latin-1")[:_LONGEST_AGENT]
        return next((rule for rule in self.clients if rule.pattern.search(agent)), None)

    def mode(self, fields: Mapping[bytes, bytes], key: str, client: ClientManners | None, model: ModelManners) -> str:
        """How this client is told of a wait: by its header, else its key, else its name, else the model."""
        said = next((fields[name] for name in _STATUS if name in fields), b"").decode("latin-1").strip().lower()
        return MODES.get(said) or key or (client.status if client else "") or model.status or self.status

    def is_background(
        self, fields: Mapping[bytes, bytes], asked: Asked, key: bool, client: ClientManners | None, model: ModelManners
    ) -> bool:
        """Whether nobody waits for this answer: a rule or the task header says so or, without one, it looks so."""
        if key or model.always_background or (client is not None and client.background):
            return True
        task = next((fields[name] for name in _TASK if name in fields), None)
        if task is None:
            return asked.task
        word = task.decode("latin-1").strip().lower()
        return word in BACKGROUND_TASKS or word == "background"

    def policy(self, model: ModelManners) -> str:
        """What becomes of the model's background requests."""
        return model.background or self.background
