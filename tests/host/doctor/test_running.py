"""What is said of the router that runs, by its own answers."""

from collections.abc import Iterator

import pytest

from fakes.admin_api import AdminApi, running, status
from llm_router import __version__
from llm_router.host.doctor import running as doctor
from llm_router.host.doctor.findings import Level

HEALTH = {"status": "ok", "current_model": "a", "loaded": ["a"]}


@pytest.fixture
def api() -> Iterator[AdminApi]:
    with running(AdminApi()) as found:
        found.answers["/health"] = (200, HEALTH)
        yield found


def test_a_router_that_is_well(api: AdminApi) -> None:
    api.statuses = [status(router={"version": __version__})]
    (found,) = doctor.router(doctor.look(api.url), expected=True)
    assert (found.level, found.text) == (Level.ok, f"the router answers at {api.url}, with a loaded")


def test_failures_memory_and_versions_are_told(api: AdminApi) -> None:
    api.statuses = [
        status(failures=[{"model": "b", "cause": "cannot load b: no"}], devices=[{"id": "GPU-1", "dirty": True}])
    ]
    found = list(doctor.router(doctor.look(api.url), expected=True))[1:]
    assert [finding.level for finding in found] == [Level.warn, Level.fail, Level.fail]
    assert "it is version 9.9" in found[0].text
    assert "b could not be loaded: cannot load b: no" in found[1].text
    assert "memory of GPU-1" in found[2].text


def test_a_key_is_needed_to_know_more(api: AdminApi) -> None:
    assert doctor.look(api.url, "sk-1").status is not None
    assert api.asked[-1][0] == "/api/status"
    api.answers["/api/status"] = (401, {"error": {"message": "no"}})
    (_, found) = doctor.router(doctor.look(api.url), expected=True)
    assert (found.level, "--key" in found.remedy) == (Level.warn, True)


@pytest.mark.parametrize("answer", [(200, {"hello": "world"}), (200, []), (500, {})])
def test_something_else_that_answers_is_no_router(api: AdminApi, answer: tuple[int, object]) -> None:
    api.answers["/health"] = answer
    (found,) = doctor.router(doctor.look(api.url), expected=False)
    assert (found.level, "no llm-router" in found.text) == (Level.fail, True)


def test_silence_is_a_failure_where_a_service_runs() -> None:
    nobody = doctor.look("http://127.0.0.1:9")
    assert [finding.level for finding in doctor.router(nobody, expected=True)] == [Level.fail]
    assert [finding.level for finding in doctor.router(nobody, expected=False)] == [Level.ok]
