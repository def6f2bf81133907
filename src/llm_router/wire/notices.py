"""What a waiting client is told, in words. Knows the stages of a wait; refuses to know how the words travel."""

from typing import Final

from llm_router.core.words import Notice, Stage

#: People notice that they wait.
_LONG_S: Final = 1.0


def describe(notice: Notice) -> str:
    """One line, e.g. ``Loading m: 40 %, about 20 s left`` or ``Waiting for m: 2nd in line, after k``."""
    model = notice.model
    match notice.stage:
        case Stage.queued:
            facts = [_place(notice.place)]
            if notice.ahead:
                facts.append("after " + ", ".join(notice.ahead[:3]))
            return f"Waiting for {model}: " + ", ".join([*facts, *_left(notice.left_s, "")])
        case Stage.draining:
            if notice.leaving:
                facts = [f"Waiting for the answers of {notice.leaving} to end", *_left(notice.left_s, "")]
                return f"{', '.join(facts)}, then {model} is loaded"
            return f"Waiting for the answers of others to end, then {model} is loaded"
        case Stage.stopping:
            return f"Stopping {notice.leaving or 'another model'} to make room for {model}"
        case Stage.starting:
            return _with(f"Starting {model}", [*_left(notice.left_s)])
        case Stage.loading:
            return _with(f"Loading {model}", [*_progress(notice), *_left(notice.left_s)])
        case Stage.waking:
            return _with(f"Waking {model}", [*_progress(notice), *_left(notice.left_s)])
        case Stage.ready:
            return f"{model} is ready"


def ready(model: str, waited_s: float) -> str:
    """The note that stays above an answer that was waited for."""
    return f"{model} ready ({duration(waited_s)})"


def speed(tokens: int, seconds: float, per_s: float | None, estimated: bool, first_s: float | None = None) -> str:
    """The closing line, e.g. ``⚡ 45.2 tok/s · 128 tokens · 2.8 s``; ``~`` marks an estimate of ours.

    ``seconds`` are those of decoding. ``first_s`` is what came before, mostly the reading of the prompt: it is told
    if it was long enough to be noticed.
    """
    about = "~" if estimated else ""
    noun = "token" if tokens == 1 else "tokens"
    facts = [f"{about}{tokens} {noun}", f"{seconds:.1f} s"]
    if per_s is not None:
        facts.insert(0, f"{about}{per_s:.1f} tok/s")
    if first_s is not None and first_s >= _LONG_S:
        facts.append(f"first token after {first_s:.1f} s")
    return "⚡ " + " · ".join(facts)


def duration(seconds: float) -> str:
    """Seconds for people: ``42 s``, ``3 min``, ``1 min 30 s``, ``2 h 5 min``."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes >= 60:
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def key(notice: Notice) -> tuple[object, ...]:
    """What makes a notice a new one, and not only a later one."""
    return (notice.stage, notice.phase, notice.place, notice.ahead, notice.leaving)


def _place(place: int) -> str:
    if place == 1:
        return "next in line"
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending} in line"


def _left(left_s: float | None, suffix: str = " left") -> list[str]:
    return [] if left_s is None else [f"about {duration(left_s)}{suffix}"]


def _progress(notice: Notice) -> list[str]:
    facts = [] if notice.percent is None else [f"{round(notice.percent)} %"]
    if notice.phase and notice.phase != "loading":
        facts.append(notice.phase)
    return facts


def _with(text: str, facts: list[str]) -> str:
    return f"{text}: {', '.join(facts)}" if facts else text
