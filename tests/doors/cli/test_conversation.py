from collections.abc import Callable, Iterator

import pytest

from fakes.admin_api import AdminApi, chunk
from llm_router.doors.cli.client import Router
from llm_router.doors.cli.conversation import Conversation


@pytest.fixture
def router(api: AdminApi) -> Iterator[Router]:
    api.chunks = [chunk("hi"), chunk(finish="length")]
    with Router(api.url, None) as found:
        yield found


def typing(*lines: str | type[BaseException]) -> Callable[[str], str]:
    """A keyboard on which these lines are typed, then the end of input."""
    left = iter(lines)

    def ask(prompt: str) -> str:
        line = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return ask


def messages(api: AdminApi) -> list[list[str]]:
    return [[message["content"] for message in body["messages"]] for _, body in api.asked]


def test_the_model_sees_what_was_said_before(api: AdminApi, router: Router) -> None:
    Conversation(router, {"model": "m"}, "Be brief").hold(typing("one", "", "two", "/new", "three"))
    assert messages(api) == [["Be brief", "one"], ["Be brief", "one", "hi", "two"], ["Be brief", "three"]]


@pytest.mark.parametrize("end", ["/quit", "/exit", "/bye", EOFError, KeyboardInterrupt])
def test_how_it_ends(api: AdminApi, router: Router, end: str | type[BaseException]) -> None:
    Conversation(router, {"model": "m"}, None).hold(typing(end, "never asked"))
    assert api.asked == []


def test_help_and_why_an_answer_is_short(api: AdminApi, router: Router, capsys: pytest.CaptureFixture[str]) -> None:
    Conversation(router, {"model": "m"}, None).hold(typing("/what", "one"))
    shown = capsys.readouterr()
    assert shown.err.count("/new begins anew") == 2
    assert "reached its limit of tokens" in shown.err
    assert shown.out == "hi\n"


def test_a_failed_question_is_forgotten_and_the_conversation_goes_on(
    api: AdminApi, router: Router, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["/v1/chat/completions"] = (503, {"error": {"message": "cannot load m: no"}})
    conversation = Conversation(router, {"model": "m"}, None)
    conversation.hold(typing("one"))
    assert "cannot load m: no" in capsys.readouterr().err
    del api.answers["/v1/chat/completions"]
    conversation.hold(typing("two"))
    assert messages(api) == [["one"], ["two"]]


def test_ctrl_c_stops_the_answer_only(
    router: Router, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[dict[str, object]]:
        yield chunk("I am")
        raise KeyboardInterrupt

    monkeypatch.setattr(router, "chat", interrupted)
    Conversation(router, {"model": "m"}, None).hold(typing("one", "two"))
    shown = capsys.readouterr()
    assert shown.out == "I amI am"
    assert shown.err.count("(stopped)") == 2
