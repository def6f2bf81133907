from pathlib import Path

import pytest

from llm_router import app
from llm_router.config.problems import ConfigError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"host": "0.0.0.0"}, "command line:1:1: cannot listen on 0.0.0.0 without keys"),
        ({"port": 70000}, "cannot use this value of port"),
        ({"log_level": "loud"}, "cannot use 'loud' as log_level"),
    ],
)
def test_the_words_of_a_command_line_are_judged_like_those_of_the_file(
    tmp_path: Path, words: dict[str, object], said: str
) -> None:
    file = tmp_path / "x.yml"
    file.write_text("models: {a: {command: x}}")
    with pytest.raises(ConfigError, match=said):
        app.serve(file, **words)  # type: ignore[arg-type]  # each case has the type of its word
