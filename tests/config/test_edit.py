import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.config.edit import EditError, add_model, remove_model
from llm_router.config.load import Config, parse
from llm_router.config.schema import Entry

SHELF = """\
# My shelf
server:   {host: 127.0.0.1,   port: 8002}   # aligned by hand

models:
  # all of them

  alpha: {command: x}   # the first
  # the big one,
  # with care
  beta:
    command:
      - y
      - z
    args:
      text: |
        several
        lines
    # inside
  gamma: {command: [a,
      b]}
# the end
scheduler: {linger: 1s}
"""
ENTRY = {"backend": "llamacpp", "path": "/a/b.gguf", "aliases": ("x", "1e5"), "context": 4096}


def config(text: str) -> Config:
    return parse(text, "x.yml", {}, lambda name: name)


def test_a_model_more_and_every_letter_as_it_was() -> None:
    text = add_model(SHELF, "delta", ENTRY)
    added = text[text.index("  delta") : text.index("# the end")]
    assert text.replace(added, "") == SHELF
    assert added == '  delta:\n    backend: llamacpp\n    path: /a/b.gguf\n    aliases: [x, "1e5"]\n    context: 4096\n'
    assert config(text).models["delta"] == Entry.model_validate(ENTRY)


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("alpha", "  alpha: {command: x}   # the first\n"),
        ("beta", SHELF[SHELF.index("  # the big") : SHELF.index("    # inside")]),
        ("gamma", SHELF[SHELF.index("  gamma") : SHELF.index("# the end")]),
    ],
)
def test_a_model_less_with_its_comment(name: str, cut: str) -> None:
    assert remove_model(SHELF, name) == SHELF.replace(cut, "")


@pytest.mark.parametrize(
    "text", ["", "# only words\n", "models:\n", "models: {}\n", "server: {port: 5}\n", "models: {a: {command: x}}"]
)
def test_where_there_is_no_section_of_lines(text: str) -> None:
    written = add_model(text, "delta", ENTRY)
    assert "delta" in config(written).models
    assert text.startswith("#") == written.startswith("#")
    assert remove_model(written, "delta")


def test_the_end_of_a_file_without_a_line_end() -> None:
    text = add_model("models:\n a: {command: x}", "delta", ENTRY)
    assert list(config(text).models) == ["a", "delta"]
    assert remove_model(text, "delta") == "models:\n a: {command: x}\n"


def test_the_last_model_leaves_a_good_file() -> None:
    text = remove_model("models:\n  a: {command: x}\nserver: {port: 5}  # five\n", "a")
    assert (config(text).models, "# five" in text) == ({}, True)


def test_the_first_of_models_that_all_have_a_comment_takes_its_own_along() -> None:
    text = "models:\n  # one\n  a: {command: x}\n  # two\n  b: {command: y}\n"
    assert remove_model(text, "a") == "models:\n  # two\n  b: {command: y}\n"


@pytest.mark.parametrize("text", ["a: {command: x}\n", "models:\n  a: {command: x}\n"])
def test_a_file_of_models_alone(text: str) -> None:
    assert remove_model(add_model(text, "b", {"command": "y"}, top=True), "b", top=True) == text


def test_json_stays_json() -> None:
    text = add_model('{"models": {"a": {"command": "x"}}}', "b", ENTRY)
    assert json.loads(text)["models"]["b"]["aliases"] == ["x", "1e5"]
    assert list(json.loads(remove_model(text, "a"))["models"]) == ["b"]
    assert json.loads(add_model("{}", "a", {"command": "x"}))["models"] == {"a": {"command": "x"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {delta: {command: x}}", "cannot add the model 'delta': there is one of this name"),
        ("models: [", "cannot edit the configuration: it cannot be read"),
        ("[]", "cannot edit the configuration: it has no sections"),
    ],
)
def test_what_cannot_be_added(text: str, said: str) -> None:
    with pytest.raises(EditError, match=said.replace("(", r"\(")):
        add_model(text, "delta", ENTRY)


def test_what_cannot_be_removed() -> None:
    with pytest.raises(EditError, match="cannot remove the model 'delta': it does not stand in this file"):
        remove_model(SHELF, "delta")


NAMES = st.sampled_from(["a", "b/c", "d e", "1", "on", "x: y", "#z", "é", '"q"'])
LINES = st.sampled_from(["", "  # c", "# d", "      # deep", "    # e"])


@given(st.lists(st.tuples(NAMES, LINES, st.booleans()), min_size=1, max_size=5, unique_by=lambda item: item[0]), NAMES)
@settings(deadline=None)
@pytest.mark.slow
def test_adding_and_removing_touches_nobody_else(shelf: list[tuple[str, str, bool]], name: str) -> None:
    text = "models:\n"
    for word, comment, flow in shelf:
        key = json.dumps(word)
        text += f"{comment}\n  {key}: {{command: c}}\n" if flow else f"{comment}\n  {key}:\n    command: c\n"
    before = config(text).models
    if name in before:
        after = remove_model(text, name)
        assert config(after).models == {word: entry for word, entry in before.items() if word != name}
        if len(before) > 1:
            left = iter(text.splitlines())
            assert all(line in left for line in after.splitlines())
    else:
        after = add_model(text, name, ENTRY)
        assert config(after).models == {**before, name: Entry.model_validate(ENTRY)}
        left = iter(after.splitlines())
        assert all(line in left for line in text.splitlines())
