"""Each story is a script of what happened; what the scheduler says to it is in the file, for a reviewer to read.

The first lines set the stage (device, setting, model); then come moments: ``12.5 > Released 1`` is an event,
``12.5 ! model b revision=2`` or ``! remove b`` a reload, ``12.5 ? 1`` asks for the notice of ticket 1. Lines
with ``<``, ``=`` and ``.`` are the answers: commands, the notice, and the ticks at which something happened.
``pytest tests/stories --rewrite-stories`` writes them anew: read the diff.
"""

from pathlib import Path
from typing import Any

import pytest
from msgspec import convert
from msgspec.structs import asdict, fields, replace

from llm_router.core.commands import Command
from llm_router.core.events import Adopted, Configured, Event, Ticked
from llm_router.core.invariants import violations
from llm_router.core.scheduler import Scheduler
from llm_router.core.story import read_text, write_text
from llm_router.core.words import Device, DeviceId, Footprint, Model, ModelName, Needs, Notice, Settings, TicketId

HERE = Path(__file__).parent
STORIES = sorted(HERE.glob("*.story"))
GIB = 2**30


class Stage:
    """Plays a story's lines and gives them back with the answers as they are now."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.devices: list[Device] = []
        self.models: dict[ModelName, Model] = {}
        self.settings = Settings()
        self.now = 0.0
        self.lines: list[str] = []

    def play(self, text: str) -> str:
        begun = False
        for line in text.splitlines():
            word = "" if line.startswith("#") else line.partition("  # ")[0].strip()
            if word.startswith(("<", "=", ".")) or _is_tick(word):
                continue
            if not word:
                if not begun and not line and self.devices:
                    begun = True
                    self.lines.append("")
                    self.step(Configured(tuple(self.models.values()), tuple(self.devices), self.settings), show=False)
                    continue
                self.lines.append(line)
            elif not begun:
                self.lines.append(line)
                self.set_stage(word)
            else:
                self.act(word, line)
        return "\n".join(self.lines).rstrip() + "\n"

    def set_stage(self, text: str) -> None:
        kind, *words = text.split()
        match kind:
            case "device":
                self.devices.append(Device(DeviceId(words[0]), _size(words[1])))
            case "setting":
                named = dict(word.split("=") for word in words)
                self.settings = convert({**asdict(self.settings), **named}, Settings, strict=False)
            case "model":
                self.set_model(words)
            case "remove":
                del self.models[ModelName(words[0])]
            case _:
                raise ValueError(f"cannot read {text!r}")

    def set_model(self, words: list[str]) -> None:
        name = ModelName(words[0])
        model = self.models.get(name, Model(name))
        said: dict[str, Any] = dict(word.split("=") for word in words[1:])
        devices: Any = said.pop("devices", None)
        if devices is not None:
            devices = int(devices) if devices.isdecimal() else tuple(DeviceId(one) for one in devices.split(","))
            model = replace(model, needs=replace(model.needs, devices=devices))
        size, parked = said.pop("size", None), said.pop("parked", "0")
        if size is not None:
            model = replace(model, needs=Needs(model.needs.devices, Footprint(_size(size), _size(parked))))
        kinds = {field.name: field.type for field in fields(Model)}
        self.models[name] = replace(model, **{key: convert(said[key], kinds[key], strict=False) for key in said})

    def act(self, word: str, line: str) -> None:
        at, mark, rest = word.split(maxsplit=2)
        self.pass_time(float(at))
        self.lines.append(f"{float(at):8.2f} {mark} {rest}{_comment(line)}")
        if mark == "?":
            notice = self.scheduler.notice(TicketId(int(rest)), self.now)
            self.lines.append(f"{'':8} = {_read_aloud(notice)}")
        elif mark == "!":
            self.set_stage(rest)
            self.step(Configured(tuple(self.models.values()), tuple(self.devices), self.settings))
        else:
            self.happen(rest, late="late" in _comment(line))

    def happen(self, text: str, *, late: bool) -> None:
        what = read_text(text.partition("  # ")[0])
        known = isinstance(what, Adopted) or getattr(what, "instance", None) in (None, *self.scheduler.book.instances)
        assert known != late, f"at {self.now}: {text} is {'not ' if late else ''}about a former instance"
        self.step(what)  # type: ignore[arg-type]

    def pass_time(self, at: float) -> None:
        assert at >= self.now, f"the story goes back in time, to {at}"
        while (due := self.scheduler.deadline()) is not None and due < at:
            self.now = max(due, self.now)
            commands = self.scheduler.step(Ticked(), self.now)
            if commands:
                self.lines.append(f"{self.now:8.2f} .")
                self.answer(commands)
        self.now = at

    def step(self, event: Event, *, show: bool = True) -> None:
        commands = self.scheduler.step(event, self.now)
        assert violations(self.scheduler.book, self.scheduler.deadline()) == []
        if show or commands:
            self.answer(commands)

    def answer(self, commands: list[Command]) -> None:
        self.lines.extend(f"{'':8} < {write_text(command)}" for command in commands)


def _is_tick(word: str) -> bool:
    return word.endswith(" .")


def _comment(line: str) -> str:
    _, mark, comment = line.partition("  # ")
    return f"{mark}{comment}"


def _size(text: str) -> int:
    return int(float(text.removesuffix("G")) * GIB)


def _read_aloud(notice: Notice | None) -> str:
    if notice is None:
        return "nothing"
    words = [f"{notice.model} {notice.stage.value}, place {notice.place}, waited {notice.waited_s:g} s"]
    if notice.ahead:
        words.append(f"after {', '.join(notice.ahead)}")
    if notice.leaving:
        words.append(f"{notice.leaving} makes room")
    if notice.phase:
        words.append(notice.phase)
    if notice.percent is not None:
        words.append(f"{notice.percent:g} %")
    words.append("no estimate" if notice.left_s is None else f"{notice.left_s:g} s left")
    return ", ".join(words)


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, rewrite_stories: bool) -> None:
    told = path.read_text()
    now = Stage().play(told)
    if rewrite_stories:
        path.write_text(now)
        return
    assert now == told, f"{path.name} is told otherwise now; if that is right: pytest tests/stories --rewrite-stories"


def test_there_are_stories() -> None:
    assert len(STORIES) >= 15


def test_a_story_that_is_told_otherwise_fails() -> None:
    text = "device gpu0 16G\nmodel a\n\n1 > Arrived 1 a\n < Start a#1 a [gpu0]\n"
    assert Stage().play(text) == (
        "device gpu0 16G\nmodel a\n\n    1.00 > Arrived 1 a\n         < Check a#1 a [gpu0]\n         < Tell a\n"
    )
