"""The router's own lines inside an answer: how they are built, and how they are recognised and taken out again.

Grammar and builders stand side by side so that they cannot drift apart. The file knows texts only: nothing of
messages, modes or streams.

A line normally stands between two invisible marks, made of format characters that no font shows, no trimming
removes and no model has reason to write (U+2061 to U+2064). What lies between an opening and a closing mark is
ours, whatever it says: so lines of older versions, and lines that a client copied into another text, are known
too. No character of one mark is in the other, so no text beside a region can complete or break a mark. For
operators who want the exact old text, lines can be left unmarked. Then they are known by their grammar, and only
where the router puts them: a run of lines at the very beginning, a footer at the very end.
"""

import re
from typing import Final

from llm_router.core.words import ModelName, Notice, Stage

OPEN: Final = "\u2063\u2061"
CLOSE: Final = "\u2064\u2062"

_REGION: Final = re.compile("\u2063\u2061[^\u2061-\u2064]*\u2064\u2062")
_MARKS: Final = re.compile("[\u2061-\u2064]")
_SECONDS: Final = r"[0-9]+(?:\.[0-9])?"
_WAITING: Final = (
    r"(?:🔄 Switching to [^\n]+\.\.\."
    r"|📖 [^\n]+ is reading the prompt\.\.\."
    rf"|⏳ Loading [^\n]+\.\.\. {_SECONDS}s(?: / {_SECONDS}s)?(?: \([^\n()]+\))?"
    r"|🕒 [0-9]+(?:st|nd|rd|th) in line for [^\n]+)"
)
_READY: Final = rf"✅ [^\n]+ ready \({_SECONDS}s\)"
_FOOTER: Final = rf"⚡ {_SECONDS} tok/s \(~?[0-9]+ tokens in {_SECONDS}s\)"
# A client may have trimmed what is around an answer, so the newlines after the last line may be missing.
_HEAD: Final = re.compile(rf"(?:{_WAITING}(?:\n|\Z)|{_READY}(?:\n\n|\n?\Z))*")
_FOOT: Final = re.compile(rf"\n\n{_FOOTER}")


def switching(model: str) -> str:
    """Another model leaves so that this one can come."""
    return f"🔄 Switching to {model}..."


def loading(
    model: str,
    running_s: float,
    limit_s: float | None = None,
    percent: float | None = None,
    left_s: float | None = None,
) -> str:
    """The load runs since ``running_s`` seconds and fails after ``limit_s``; ``percent`` is 0-100."""
    limit = f" / {limit_s:.0f}s" if limit_s is not None else ""
    news = [f"{percent:.0f} %"] if percent is not None else []
    news += [f"about {max(left_s, 0):.0f} s left"] if left_s is not None else []
    return f"⏳ Loading {model}... {max(running_s, 0):.0f}s{limit}" + (f" ({', '.join(news)})" if news else "")


def queued(model: str, place: int, ahead: tuple[str, ...] = (), left_s: float | None = None) -> str:
    """The request waits for its turn; ``place`` is 1 for the first, ``ahead`` are the models served before."""
    after = f", after {', '.join(ahead)}" if ahead else ""
    about = f": about {left_s:.0f} s" if left_s is not None else ""
    return f"🕒 {_ordinal(place)} in line for {model}{after}{about}"


def is_loading(line: str) -> bool:
    """Whether the line tells of a load."""
    return line.startswith("⏳ ")


def reading(model: str) -> str:
    """The engine has the request and is silent for long."""
    return f"📖 {model} is reading the prompt..."


def ready(model: str, took_s: float) -> str:
    """The wait is over, after so many seconds."""
    return f"✅ {model} ready ({_short(took_s)}s)"


def footer(tokens: int, seconds: float, per_second: float | None = None, *, estimated: bool = False) -> str:
    """The speed of the answer, in the classic form. ``estimated``: the count of tokens is not the engine's."""
    mark = "~" if estimated else ""
    return f"⚡ {_rate(tokens, seconds, per_second)} tok/s ({mark}{tokens} tokens in {max(seconds, 0):.1f}s)"


def told(notice: Notice, limit_s: float | None = None) -> str:
    """The line for a waiting client; ``limit_s`` is the time limit of the load."""
    match notice.stage:
        case Stage.ready:
            return ready(notice.model, notice.waited_s)
        case Stage.starting | Stage.loading | Stage.waking:
            return loading(notice.model, notice.running_s or 0.0, limit_s, notice.percent, notice.left_s)
        case Stage.queued if notice.place > 1 or notice.ahead:
            return queued(notice.model, notice.place, _others(notice), notice.left_s)
        case _:
            return switching(notice.model)


def before(line: str, *, last: bool = False, marked: bool = True) -> str:
    """The line as text to send before the answer; ``last``: the answer follows, after an empty line."""
    return _mark(line + ("\n\n" if last else "\n"), marked)


def after(line: str, *, marked: bool = True) -> str:
    """The footer as text to send after the answer."""
    return _mark("\n\n" + line, marked)


def has_marks(text: bytes | bytearray) -> bool:
    """Whether this UTF-8 JSON may hold a marked line. Cheap; wrong only in saying yes.

    A single byte is found a hundred times faster than a word, and most texts have not even the mark's first. Words
    of six bytes and more are searched in another way than shorter ones, which takes 1 ms for 2 MB (CPython 3.11).
    """
    return (b"\xe2" in text and OPEN.encode() in text) or b"u2063" in text


def without(text: str) -> str:
    """The text without marked lines. Any other text comes back as it is; doing it twice changes nothing more.

    One pass over the text, whatever a hostile client nests: what would need a second one loses its marks.
    """
    cleaned = _REGION.sub("", text)
    return _MARKS.sub("", cleaned) if _REGION.search(cleaned) else cleaned


def without_unmarked(text: str) -> str:
    """The text without the classic lines at its beginning and the footer at its end, marked or not."""
    text = without(text)
    # The head goes first: an answer that is itself a footer stands behind the head's empty line.
    head = _HEAD.match(text)
    start, end = head.end() if head else 0, len(text)
    while (foot := text.rfind("\n\n⚡ ", start, end)) >= 0 and _FOOT.fullmatch(text, foot, end):
        end = foot
    return text[start:end]


def _mark(text: str, marked: bool) -> str:
    if not marked:
        return text
    return OPEN + _MARKS.sub("", text) + CLOSE


def _others(notice: Notice) -> tuple[ModelName, ...]:
    return tuple(name for name in notice.ahead if name != notice.model)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _short(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{max(seconds, 0):.1f}"


def _rate(tokens: int, seconds: float, per_second: float | None) -> str:
    if per_second is None:
        per_second = tokens / seconds if seconds >= 0.001 else 0.0
    return f"{per_second:.1f}"
