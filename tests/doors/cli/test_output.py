import pytest

from llm_router.doors.cli import output


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.25, "0.2 s"), (9.96, "10.0 s"), (42, "42 s"), (130, "2 min 10 s"), (7300, "2 h 1 min"), (None, ""), ("x", "")],
)
def test_seconds(value: object, words: str) -> None:
    assert output.seconds(value) == words


@pytest.mark.parametrize(("value", "words"), [(24 * 1024**3, "24.0 GiB"), (5 * 1024**2, "5 MiB"), (None, "")])
def test_sizes(value: object, words: str) -> None:
    assert output.size(value) == words


def test_progress() -> None:
    assert output.progress_words({}) == "starting"
    assert output.progress_words({"phase": "loading", "percent": 39.6, "left_s": 12}) == "loading 40 %, about 12 s left"


def test_plurals() -> None:
    assert (output.plural(1, "model"), output.plural(2, "model")) == ("1 model", "2 models")


def test_a_status_with_nothing_in_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_status({"models": None, "instances": [5], "queue": "x"})
    assert "No models are configured." in capsys.readouterr().out
