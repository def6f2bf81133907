from typing import Any

import pytest

from fakes.admin_api import AdminApi, model, status
from llm_router.doors.cli.client import Router
from llm_router.doors.cli.exits import CommandError
from llm_router.doors.cli.loading import QUIET_S, bar, find, follow, view

FAILED = [{"model": "m", "cause": "cannot find the file", "tail": ["last"]}]


def instance(state: str = "starting", **more: Any) -> dict[str, Any]:
    return {"id": "m#1", "model": "m", "state": state, **more}


def test_what_a_status_says() -> None:
    moving = view(status({"name": "m"}, instances=[instance(phase="loading", percent=40, left_s=20)]), "m")
    assert (moving.words, moving.percent, moving.moving) == ("loading 40 %, about 20 s left", 40.0, True)
    leaving = view(status({"name": "m"}, instances=[instance("stopping")]), "m")
    assert (leaving.words, leaving.percent, leaving.moving) == ("waiting for m to leave", None, False)
    asked = view(status({"name": "m"}, instances=[{"model": "n", "state": "ready"}]), "m")
    assert (asked.words, asked.moving) == ("asked for", False)
    queued = view(status({"name": "m"}, queue=[{"model": "m", "waiting": 1}]), "m")
    assert (queued.words, queued.moving) == ("waiting for room", True)
    other = view(status({"name": "m"}, {"name": "n"}, instances=[{"model": "n", "state": "starting"}]), "m")
    assert not other.moving


def test_aliases_are_found() -> None:
    told = status({"name": "m", "aliases": ["alias"], "loaded": True})
    assert find(told, "alias") == model("m", aliases=["alias"], loaded=True)
    assert view(told, "alias").loaded
    assert find(told, "nobody") is None


class Clock:
    """Time that passes only while somebody pauses."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def watch(api: AdminApi, timeout_s: float | None = None) -> tuple[float, list[tuple[str, float | None]]]:
    drawn: list[tuple[str, float | None]] = []
    clock = Clock()
    with Router(api.url, None) as router:
        took = follow(
            router,
            "m",
            lambda words, percent: drawn.append((words, percent)),
            timeout_s=timeout_s,
            pause=lambda _: clock.pause(1.0),
            clock=clock,
        )
    return took, drawn


def test_from_asked_to_loaded(api: AdminApi) -> None:
    api.statuses = [
        status({"name": "m"}),
        status({"name": "m"}, instances=[instance(phase="loading", percent=50)]),
        status({"name": "m", "loaded": True}),
    ]
    assert watch(api) == (2.0, [("asked for", None), ("loading 50 %", 50.0)])


def test_the_failure_of_an_earlier_try_is_not_believed_at_once(api: AdminApi) -> None:
    api.statuses = [
        status({"name": "m"}, failures=FAILED),
        status({"name": "m"}, failures=FAILED, instances=[instance()]),
        status({"name": "m"}, failures=FAILED),
        status({"name": "m", "loaded": True}),
    ]
    assert watch(api)[0] == 3.0


def test_a_failure_is_told_with_its_cause(api: AdminApi) -> None:
    api.statuses = [status({"name": "m"}, instances=[instance()]), status({"name": "m"}, failures=FAILED)]
    with pytest.raises(CommandError, match=r"^cannot find the file$") as caught:
        watch(api)
    assert caught.value.details == ("last",)


def test_a_load_that_nobody_sees(api: AdminApi) -> None:
    api.statuses = [status({"name": "m"})]
    with pytest.raises(CommandError, match="somebody may have unloaded it"):
        watch(api)
    assert len(api.asked) == QUIET_S + 2


def test_a_limit_of_patience(api: AdminApi) -> None:
    api.statuses = [status({"name": "m"}, instances=[instance(phase="loading")])]
    with pytest.raises(CommandError, match=r"cannot wait longer for m: loading after 6\.0 s; the load goes on"):
        watch(api, timeout_s=5)


def test_a_model_that_a_reload_took_away(api: AdminApi) -> None:
    with pytest.raises(CommandError, match="the router does not have it any more"):
        watch(api)


def test_where_nobody_looks_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("m", quiet=False) as draw:
        draw("loading", 5)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with bar("m", quiet=False) as draw:
        draw("loading 50 %", 50)
        draw("warming up", None)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "warming up" in shown.err
    with bar("m", quiet=True) as draw:
        draw("loading", 5)
    assert capsys.readouterr().err == ""
