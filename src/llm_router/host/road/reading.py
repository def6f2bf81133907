"""Which reader an engine's answer gets: as it comes, kept until it is whole, or turned into the client's form.

It knows what was asked and of whom. It refuses to know when bytes come and where they go.
"""

from functools import partial

from msgspec import Struct

from llm_router.host.road.hearing import Asking
from llm_router.wire.answer import Answer, Terms
from llm_router.wire.forms import Joined, answer_for
from llm_router.wire.interpreters import Scene
from llm_router.wire.paths import Route
from llm_router.wire.translated import Kept, TranslatedAnswer, Turn


class Reading(Struct, frozen=True):
    """One asking and its circumstances. ``began`` is on the loop's clock, ``epoch`` makes a Unix time of that."""

    asking: Asking
    route: Route
    terms: Terms
    ident: str
    model: str
    began: float
    epoch: float

    @property
    def translated(self) -> bool:
        """Whether the client's form is another one than the engine's."""
        return self.asking.interpreter is not None

    def joined(self) -> Joined | None:
        """The reader of a stream that has to be put together, if this is one."""
        joiner = self.asking.joiner
        return None if joiner is None else Joined(joiner, self.terms, self._turn(), self.epoch)

    def reader(self, status: int, kind: bytes, length: int | None, *, events: bool) -> Answer:
        """The reader by what the engine's head says; ``kind`` is the content type in lower case."""
        good = events and status == 200
        interpreter = self.asking.interpreter
        if interpreter is None:
            whole = length if status == 200 else None
            return answer_for(self.route.api, events and not self.route.raw, kind, self.terms, whole)
        if not good:
            return Kept(self.terms, status, self._turn(), self.epoch)
        face = self.terms.herald or self.terms.face
        assert face is not None  # a stream that is asked for has one
        return TranslatedAnswer(self.terms, interpreter.stream(self._scene()), face, self.epoch)

    def _scene(self) -> Scene:
        terms = self.terms
        started = self.began + self.epoch
        return Scene(self.ident, self.model, started, terms.loaded_s, terms.face, terms.introduced)

    def _turn(self) -> Turn | None:
        """What puts a whole answer into the client's form, if that is another one."""
        interpreter = self.asking.interpreter
        return None if interpreter is None else partial(interpreter.whole, self._scene())
