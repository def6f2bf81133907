"""Events and commands as lines, for people and for journals; and a journal lived through again.

This file knows how a value is written and read back exactly, as one readable line and as one line of JSON.
It does not know where lines are kept, nor what any of them means.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder, dumps, loads
from re import compile as pattern
from typing import Any, Final, get_args

from msgspec import ValidationError, convert, to_builtins
from msgspec.json import Encoder
from msgspec.structs import fields

from llm_router.core.commands import Command
from llm_router.core.events import Configured, Event
from llm_router.core.scheduler import Policy, Scheduler

_EVENTS: Final[dict[str, type]] = {kind.__name__: kind for kind in get_args(Event)}
_COMMANDS: Final[dict[str, type]] = {kind.__name__: kind for kind in get_args(Command)}
_BARE: Final = pattern(r"[^\s\"{}\[\],=]+")
_DECODER: Final = JSONDecoder()
_CUT_OFF: Final = "the last line was cut off and is left out"
_encode: Final = Encoder(order="deterministic").encode


class StoryError(ValueError):
    """A line is no event or command. The text names the line and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Line:
    """What happened, or what was asked for, and when (seconds of the router's clock)."""

    at: float
    what: Event | Command
    #: It stands there once more, at the head of a file that was begun in mid-run.
    again: bool = False

    @property
    def is_event(self) -> bool:
        return type(self.what).__name__ in _EVENTS

    @property
    def begins_a_run(self) -> bool:
        """Whether the router started with this."""
        return isinstance(self.what, Configured) and self.what.serial is not None and not self.again


def write_json(at: float, what: Event | Command, *, again: bool = False) -> str:
    """One line of JSON without its line end, e.g. ``{"at": 1.5, "event": "Withdrawn", "ticket": 7}``."""
    mark = '"again":true,' if again else ""
    # Its first field is the tag: "event" or "command", and its name.
    return f'{{"at":{at!r},{mark}{_encode(what).decode()[1:]}'


def read_json(line: str) -> Line:
    """The value that was written. Raises ``StoryError``."""
    try:
        said = loads(line)
        at, again = float(said.pop("at")), bool(said.pop("again", False))
        kinds, name = (_EVENTS, said.pop("event")) if "event" in said else (_COMMANDS, said.pop("command"))
        return Line(at, convert(said, kinds[name]), again)
    except (JSONDecodeError, ValidationError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoryError(f"cannot read the journal's line {line[:120]!r}: {error}") from error


def write_text(what: Event | Command) -> str:
    """One readable line, e.g. ``Arrived 7 qwen caller=ann``: what must be there in order, the rest by name."""
    said: dict[str, Any] = to_builtins(what, order="deterministic")
    words = [type(what).__name__]
    for field in fields(what):
        if field.name in said:
            word = _word(said[field.name])
            words.append(word if field.required else f"{field.name}={word}")
    return " ".join(words)


def read_text(text: str) -> Event | Command:
    """The value of a readable line. Raises ``StoryError``."""
    name, _, rest = text.strip().partition(" ")
    kind = _EVENTS.get(name) or _COMMANDS.get(name)
    if kind is None:
        raise StoryError(f"cannot read {text!r}: there is no event or command {name!r}")
    needed = [field.name for field in fields(kind) if field.required]
    said: dict[str, Any] = {}
    try:
        for key, value in _words(rest):
            said[key or needed[len(said)]] = value
        return convert(said, kind, strict=False)
    except (ValidationError, IndexError, JSONDecodeError) as error:
        raise StoryError(f"cannot read {text!r}: {error}") from error


def tell(at: float, what: Event | Command) -> str:
    """A line of the story: ``>`` is what happened, ``<`` what the scheduler asked for."""
    mark = ">" if type(what).__name__ in _EVENTS else "<"
    return f"{at:12.3f} {mark} {write_text(what)}"


def replay(lines: Iterable[str], policy: Callable[[], Policy] = Scheduler) -> Iterator[str]:
    """Live through a journal again and tell it: each event, and what the scheduler asks for now.

    Commands in the journal are passed over, since they follow from the events. Each run of the router begins with
    nothing. A last line of a run that was cut off is told as such; any other line that cannot be read raises
    ``StoryError`` with its number. A journal that begins in mid-run is told from there, and said to be approximate:
    what was under way is not in it.
    """
    scheduler = policy()
    broken: StoryError | None = None
    begun = False
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = read_json(text)
        except StoryError as error:
            if broken is not None:
                raise broken from None
            broken = StoryError(f"line {number}: {error}")
            continue
        if broken is not None and not line.begins_a_run:
            raise broken
        if not line.is_event or (line.again and begun):
            continue
        if line.begins_a_run and begun:
            if broken is not None:
                yield _CUT_OFF
            yield "another run of the router"
            scheduler, broken = policy(), None
        if line.again:
            yield "approximate: the journal begins in mid-run, and what was under way then is not in it"
        begun = True
        yield tell(line.at, line.what)
        for command in scheduler.step(line.what, line.at):  # type: ignore[arg-type]
            yield tell(line.at, command)
    if broken is not None:
        yield _CUT_OFF


def _word(value: Any) -> str:
    """A value as it stands in a readable line; quoted only where it would not be read back otherwise."""
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and not _looks_like_json(value) else dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple) and all(isinstance(item, str) and _BARE.fullmatch(item) for item in value):
        return f"[{','.join(value)}]" if not any(_looks_like_json(item) for item in value) else dumps(value)
    return dumps(value, ensure_ascii=False)


def _looks_like_json(text: str) -> bool:
    try:
        loads(text)
    except JSONDecodeError:
        return False
    return True


def _words(rest: str) -> Iterator[tuple[str | None, Any]]:
    """The words of a readable line: (name or ``None``, value)."""
    position = 0
    while position < len(rest):
        if rest[position].isspace():
            position += 1
            continue
        bare = _BARE.match(rest, position)
        key = None
        if bare and rest[bare.end() : bare.end() + 1] == "=":
            key, position = bare.group(), bare.end() + 1
        value, position = _value(rest, position)
        yield key, value


def _value(rest: str, position: int) -> tuple[Any, int]:
    plain_list = _PLAIN_LIST.match(rest, position)
    if plain_list and not _looks_like_json(plain_list.group()):
        inside = plain_list.group()[1:-1]
        return inside.split(","), plain_list.end()
    if rest[position : position + 1] in ('"', "[", "{"):
        return _DECODER.raw_decode(rest, position)
    bare = _BARE.match(rest, position)
    if bare is None:
        raise StoryError(f"cannot read {rest!r} at character {position + 1}")
    text = bare.group()
    return (loads(text) if _looks_like_json(text) else text), bare.end()


_PLAIN_LIST: Final = pattern(r"\[[^\s\"{}\[\]=]+\]")
