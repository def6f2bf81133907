"""What the crew learns of existing units, with the units in memory; real ones are met in tests/systemd."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from llm_router.config import shelf
from llm_router.config.load import Config, parse
from llm_router.core.words import FailureKind
from llm_router.engines.engine import Answer, Edit, Launch, Question, Somewhere
from llm_router.engines.serviced import Serviced
from llm_router.host.crew.existing import Existing, with_key
from llm_router.host.machine import ports
from llm_router.host.service.installation import InstallationError
from llm_router.host.supervisors.service import ServiceSupervisor, Unclaimed
from llm_router.host.supervisors.supervisor import SupervisorError
from llm_router.host.supervisors.units import UnitState

SHELF = """
backends:
  sglang: {service: sglang, port: 30000}
  tabbyapi: {service: tabby, port: 5000}
  vllm: {service: vllm, port: 8000}
models:
  a: {backend: sglang, script: /a.sh}
  b: {backend: sglang, script: /b.sh}
  one: {backend: tabbyapi, path: exl3/One}
  two: {backend: tabbyapi, path: exl3/Two}
  alone: {backend: vllm}
"""
CONFIG = parse(SHELF, "x.yml", {"HOME": "/home/me"}, lambda path: path, folder="/etc/r")
OWNED = parse("models: {m: {command: [x]}}", "x.yml", {"HOME": "/h"}, lambda path: path, folder="/etc/r")


@dataclass
class Units:
    """The units' supervisor as far as it is asked here."""

    running: dict[str, UnitState] = field(default_factory=dict)
    refuses: str = ""
    keys: Path | None = None
    held: frozenset[int] = frozenset()
    vacated: list[Sequence[str]] = field(default_factory=list)

    async def check(self, launch: Launch) -> None:
        if self.refuses:
            raise SupervisorError(self.refuses)

    async def unclaimed(self, names: Collection[str]) -> list[Unclaimed]:
        if self.refuses:
            raise SupervisorError(self.refuses)
        return [Unclaimed(name, self.running[name]) for name in names if name in self.running]

    async def vacate(self, names: Collection[str]) -> None:
        self.vacated.append(tuple(names))

    async def processes_of(self, names: Collection[str]) -> frozenset[int]:
        return self.held

    async def find_file(self, unit: str, file: Somewhere, edit: Edit | None) -> Path:
        if self.keys is None:
            raise InstallationError("cannot find it")
        return self.keys


def existing(units: Units) -> Existing:
    return Existing(cast("ServiceSupervisor", units))


def runs(*argv: str) -> UnitState:
    return UnitState(load="loaded", active="active", sub="running", argv=argv)


async def nobody(host: str, port: int, question: Question) -> Answer:
    return Answer(0)


async def unmet(units: Units, ours: Collection[int] = ()) -> tuple[FailureKind, str] | None:
    engine = shelf.engine(CONFIG, "a")
    assert isinstance(engine, Serviced)
    job = shelf.job(CONFIG, "a", port=30000, directory="")
    failure = await existing(units).unmet(CONFIG, engine, job, ours)
    return None if failure is None else (failure.kind, failure.cause)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody, process 7, listens on every port."""

    async def is_refused(host: str, port: int) -> bool:
        return False

    monkeypatch.setattr(ports, "is_refused", is_refused)
    monkeypatch.setattr(ports, "listener_pids", lambda port: frozenset({7}))


async def test_what_the_units_refuse_is_the_failure() -> None:
    assert await unmet(Units(refuses="cannot use sglang.service: so")) == (
        FailureKind.missing_program,
        "cannot use sglang.service: so",
    )


@pytest.mark.usefixtures("taken")
async def test_a_stranger_on_the_port_is_in_the_way_and_our_own_is_not() -> None:
    found = await unmet(Units())
    assert found is not None
    assert found[0] is FailureKind.port_in_use
    assert "port 30000 is in use by" in found[1]
    assert await unmet(Units(held=frozenset({7, 8}))) is None
    assert await unmet(Units(), ours=[30000]) is None


async def test_without_a_systemd_nothing_is_asked_and_nothing_can_be_served() -> None:
    nothing = Existing(None)
    engine = shelf.engine(CONFIG, "a")
    assert isinstance(engine, Serviced)
    job = shelf.job(CONFIG, "a", port=1, directory="")
    failure = await nothing.unmet(CONFIG, engine, job, ())
    assert failure is not None
    assert "does not speak to systemd" in failure.cause
    assert await nothing.running(CONFIG, nobody) == []
    assert await nothing.keys(engine, job) is None
    await nothing.make_room(CONFIG)


async def test_room_is_made_among_all_units_of_the_shelf_and_only_there() -> None:
    units = Units()
    await existing(units).make_room(CONFIG)
    assert units.vacated == [("sglang.service", "tabby.service", "vllm.service")]
    await existing(units).make_room(OWNED)
    assert len(units.vacated) == 1


async def test_a_unit_is_known_by_the_script_that_it_runs() -> None:
    found = await existing(Units({"sglang.service": runs("/b.sh")})).running(CONFIG, nobody)
    assert found == [("b", "sglang.service")]


async def test_a_unit_is_known_by_what_its_engine_says(tmp_path: Path) -> None:
    keys = tmp_path / "api_tokens.yml"
    keys.write_text("api_key: k\n")
    asked: list[Question] = []

    async def ask(host: str, port: int, question: Question) -> Answer:
        asked.append(question)
        return Answer(200, body=b'{"id": "Two", "parameters": {}}')

    units = Units({"tabby.service": runs("/opt/tabby/main.py")}, keys=keys)
    assert await existing(units).running(CONFIG, ask) == [("two", "tabby.service")]
    assert ("Authorization", "Bearer k") in asked[0].headers


async def test_a_unit_with_one_model_needs_no_word() -> None:
    assert await existing(Units({"vllm.service": runs("/usr/bin/vllm")})).running(CONFIG, nobody) == [
        ("alone", "vllm.service")
    ]


async def test_what_is_not_known_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    units = Units({"sglang.service": runs("/other.sh"), "tabby.service": runs("/opt/tabby/main.py")})
    assert await existing(units).running(CONFIG, nobody) == []
    assert "sglang.service runs, but not as a model of the configuration" in caplog.text


async def test_a_bus_that_does_not_answer_is_no_reason_not_to_start(caplog: pytest.LogCaptureFixture) -> None:
    assert await existing(Units(refuses="cannot reach systemd")).running(CONFIG, nobody) == []
    assert "cannot reach systemd" in caplog.text


def engine_of(config: Config, model: str) -> Serviced:
    engine = shelf.engine(config, model)
    assert isinstance(engine, Serviced)
    return engine


async def test_keys_that_are_nowhere_are_no_keys(caplog: pytest.LogCaptureFixture) -> None:
    job = shelf.job(CONFIG, "one", port=1, directory="")
    assert await existing(Units()).keys(engine_of(CONFIG, "one"), job) is None
    assert "asked without a key" in caplog.text


async def test_a_configured_key_is_the_one_that_a_unit_is_asked_with(tmp_path: Path) -> None:
    keys = tmp_path / "api_tokens.yml"
    keys.write_text("api_key: of-the-file\n")
    text = SHELF.replace("port: 5000", "port: 5000, key: configured")
    config = parse(text, "x.yml", {"HOME": "/home/me"}, lambda path: path, folder="/etc/r")
    asked: list[Question] = []

    async def ask(host: str, port: int, question: Question) -> Answer:
        asked.append(question)
        return Answer(200, body=b'{"id": "Two", "parameters": {}}')

    units = existing(Units({"tabby.service": runs("/opt/tabby/main.py")}, keys=keys))
    assert await units.running(config, ask) == [("two", "tabby.service")]
    assert ("Authorization", "Bearer configured") in asked[0].headers
    job = shelf.job(config, "two", port=5000, directory="")
    assert await units.keys(engine_of(config, "two"), job) is None
    assert with_key(job, None).key == "configured"
