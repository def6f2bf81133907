import io
import string

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from llm_router.host.service.yaml_edit import YamlEditError, read_mapping, set_values

NAME = ("model", "model_name")
REAL = """\
# Sample of a long file that somebody wrote.
network:
  host: 0.0.0.0
  port: 5000   # do not change

model:
  # Models are here.
  model_dir: /opt/models

  model_name: exl2/Old-Model   # the one we like
  max_seq_len: 32768
  gpu_split: [20, 24]
  use_as_default: []

sampling:
  override_preset:
"""


def test_only_the_value_changes() -> None:
    new = set_values(REAL, [(NAME, "exl3/New-4.0bpw")])
    assert new == REAL.replace("exl2/Old-Model", "exl3/New-4.0bpw")


def test_two_values_change_at_once() -> None:
    new = set_values(REAL, [(NAME, "New"), (("model", "model_dir"), "/srv")])
    assert new == REAL.replace("exl2/Old-Model", "New").replace("/opt/models", "/srv")


def test_what_stands_there_already_is_left_byte_for_byte() -> None:
    text = "model: {model_name:   'x'  }\r\n#"
    assert set_values(text, [(NAME, "x")]) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("model:\n  model_name:\n  x: 1\n", "model:\n  model_name: new\n  x: 1\n"),
        ("model:\n  model_name:   # none yet\n", "model:\n  model_name: new   # none yet\n"),
        ("model:\n  model_name: ~\n", "model:\n  model_name: new\n"),
        ("model:\n    a: 1\n", "model:\n    model_name: new\n    a: 1\n"),
        ("model:\r\n  model_name: 'old'\r\n", "model:\r\n  model_name: new\r\n"),
        ("model: {model_name: old, b: 2}\n", "model: {model_name: new, b: 2}\n"),
        ("a: 1", "a: 1\nmodel:\n  model_name: new\n"),
        ("a: 1\r\n", "a: 1\r\nmodel:\r\n  model_name: new\r\n"),
        ("", "model:\n  model_name: new\n"),
        ("# only words\n", "# only words\nmodel:\n  model_name: new\n"),
        ("model:\n", "model:\n  model_name: new\n"),
        ("x: &m old\nmodel:\n  model_name: *m\n", "x: &m old\nmodel:\n  model_name: new\n"),
        ('model:\n  "model_name": "old"\n', 'model:\n  "model_name": new\n'),
    ],
)
def test_every_shape_of_a_file_can_be_edited(before: str, after: str) -> None:
    assert set_values(before, [(NAME, "new")]) == after


@pytest.mark.parametrize(
    "value", ["123", "true", "No", "null", "1e5", "a: b", "# x", "", "ünï", "a'b\"c", "- x", "~", "2020-01-01"]
)
def test_any_name_stays_a_text(value: str) -> None:
    assert read_mapping(set_values(REAL, [(NAME, value)]))["model"]["model_name"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  model_name: [a\n", "line 3"),
        ("a: 1\nmodel:\n\tmodel_name: x\n", "line 3"),
        ("model:\n  model_name: a\n  model_name: b\n", "line 3"),
        ("- a\n- b\n", "line 1: it must hold sections"),
        ("model: [1]\n", "model must be a section"),
        ("model: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("a: \x01\n", "special characters"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(YamlEditError, match=message):
        set_values(text, [(NAME, "new")])


WORDS = st.text(string.ascii_letters + string.digits + " /.-_:#'\"{}[],&*!|>%@`üß", max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | WORDS
SECTIONS = st.dictionaries(WORDS.filter(bool), SCALARS | st.lists(SCALARS, max_size=3), max_size=4)


@settings(max_examples=40)
@given(st.dictionaries(WORDS.filter(bool), SCALARS | SECTIONS, max_size=4), SECTIONS, WORDS, st.booleans())
def test_all_else_reads_as_before(others: dict[str, object], model: dict[str, object], value: str, flow: bool) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    stream = io.StringIO()
    yaml.dump({**others, "model": model}, stream)
    try:
        before = read_mapping(stream.getvalue())
    except YamlEditError:
        reject()  # The library's writer makes texts of some odd keys that its reader does not take.
    after = read_mapping(set_values(stream.getvalue(), [(NAME, value)]))
    assert after.pop("model") == {**(before.pop("model") or {}), "model_name": value}
    assert after == before


@settings(max_examples=40)
@given(st.text(max_size=80))
def test_any_text_is_edited_or_refused(text: str) -> None:
    try:
        new = set_values(text, [(NAME, "new")])
    except YamlEditError:
        return
    assert read_mapping(new)["model"]["model_name"] == "new"
