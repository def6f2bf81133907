import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.config.problems import ConfigError, Place
from llm_router.config.tree import Tree, plain, read

ENV = {"NAME": "qwen", "PORT": "8085", "EMPTY": "", "FLAG": "true"}


def tree(text: str, source: str = "x.yml") -> Tree:
    return read(text, source, ENV)


def value(text: str) -> object:
    found = tree(text)
    assert found.problems == []
    return found.root


def problem(text: str, source: str = "x.yml") -> str:
    """The one mistake in the text, whether it stops the reading or not."""
    try:
        (found,) = tree(text, source).problems
    except ConfigError as error:
        (found,) = error.problems
    return str(found)


def test_values_and_their_places() -> None:
    found = tree("a:\n  b: [1, two]\n")
    assert found.root == {"a": {"b": (1, "two")}}
    assert found.keys[("a", "b")] == Place("x.yml", 2, 3)
    assert found.values[("a", "b", 1)] == Place("x.yml", 2, 10)
    assert found.place(("a", "b", 7, "deeper")) == Place("x.yml", 2, 6)
    assert found.place(("nowhere",)) == Place("x.yml", 1, 1)


def test_words_that_other_versions_of_yaml_turn_into_something_else_stay_text() -> None:
    text = "[on, no, Yes, 2020-01-01, 30:00, .inf, 1_000, '5', \"true\", 0777]"
    assert value(text) == ("on", "no", "Yes", "2020-01-01", "30:00", ".inf", "1_000", "5", "true", 777)


def test_plain_words() -> None:
    assert value("[~, null, true, False, -3, 0x1f, 0o17, 1.5, 1e3, .5]") == (
        *(None, None, True, False, -3, 31, 15, 1.5, 1000.0, 0.5),
    )
    assert plain("9" * 5000) == "9" * 5000
    assert plain("1e999") == "1e999"


def test_keys_are_text_as_written() -> None:
    assert value("{1: a, true: b, 2.0: c}") == {"1": "a", "true": "b", "2.0": "c"}


def test_nothing_is_nothing() -> None:
    assert tree("").root is None
    assert tree("# only a comment\n").root is None


def test_variables() -> None:
    assert value('a: x-${NAME}-y\nb: "${PORT}"\nc: ${PORT}\nd: ${FLAG}\ne: $${NAME}\nf: $NAME {NAME}\n') == {
        "a": "x-qwen-y",
        "b": "8085",
        "c": 8085,
        "d": True,
        "e": "${NAME}",
        "f": "$NAME {NAME}",
    }
    assert value("a: ${MISSING:-some where}\nb: ${EMPTY:-7}\nc: '${EMPTY}'\nd: ${MISSING:-}") == {
        "a": "some where",
        "b": 7,
        "c": "",
        "d": None,
    }


def test_a_missing_variable() -> None:
    assert problem("a: 1\nb: x${MISSING}") == (
        "x.yml:2:4: cannot expand '${MISSING}': the environment has no MISSING. Set it, or write ${MISSING:-fallback}"
    )
    assert "a variable's name has letters" in problem("b: ${not a name}")


def test_the_value_of_a_variable_is_not_expanded_again() -> None:
    assert read("a: ${A}", "x.yml", {"A": "${B}", "B": "c"}).root == {"a": "${B}"}


def test_duplicate_keys() -> None:
    assert problem("a:\n  b: 1\n  b: 2\n") == (
        "x.yml:3:3: cannot use 'b' twice in one place: it stands in line 2 already"
    )


def test_merge_keys() -> None:
    text = """
base: &base {a: 1, b: {c: 2}}
more: &more {a: 9, d: 4}
one: {<<: *base, b: 3}
two:
  <<: [*base, *more]
"""
    found = tree(text)
    assert isinstance(found.root, dict)
    assert found.root["one"] == {"b": 3, "a": 1}
    assert found.root["two"] == {"a": 1, "b": {"c": 2}, "d": 4}
    assert found.keys[("one", "a")].line == 2
    assert found.values[("two", "b", "c")] == Place("x.yml", 2, 27)
    assert "its value is not a mapping" in problem("a: {<<: 5}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "x.yml:1:6: cannot read the text as YAML: expected"),
        ("models:\n\ta: 1", "x.yml:2:1: cannot read the text as YAML: found character '\\t' that cannot"),
        ("models:\n\ta: 1", "Indent with spaces"),
        ("a: {k: ${K}}", 'write "${NAME}" in quotes'),
        ("a: 1\n---\nb: 2", "Remove the line with ---"),
        ("a: b: c", "Put text that holds a colon in quotes"),
        ("a: &x [*x]", "an anchor contains itself"),
        ("a: &x {<<: *x}", "an anchor contains itself"),
        ("a: *nobody", "undefined alias"),
        ("a: !python/object:os.system x", "only plain values are read"),
        ("a: !!set {x}", "only plain values are read"),
        ("a: !!omap [x: 1]", "only plain values are read"),
        ("? [a, b]\n: 1", "a key is text"),
        ('a: "x\\0y"', "holds a NUL"),
        ('a: "\\ud800"', "half a character"),
        ("a: x\x01y", "x.yml:1:5: cannot read the text as YAML: it holds a character"),
        ("[" * 500, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("a: " + "x" * 5_000_000, "larger than 4 MiB"),
    ],
)
def test_what_is_no_usable_yaml(text: str, said: str) -> None:
    assert said in problem(text)


@pytest.mark.slow
def test_anchors_that_unfold_without_end() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "too many values" in problem("\n".join(lines))


def test_json_with_tabs() -> None:
    found = read('{\n\t"a":\t[true, null]\n}', "config.json", {})
    assert found.root == {"a": (True, None)}
    assert found.keys[("a",)] == Place("config.json", 2, 2)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0$")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def tuples(data: object) -> object:
    if isinstance(data, list):
        return tuple(map(tuples, data))
    return {key: tuples(item) for key, item in data.items()} if isinstance(data, dict) else data


@given(JSON)
@settings(deadline=None)
def test_json_is_read_as_json_reads_it(data: object) -> None:
    found = read(json.dumps(data, indent=1), "config.json", {})
    assert found.root == tuples(data)
    assert found.problems == []


@given(st.text())
@settings(deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = tree(text)
    except ConfigError as error:
        said = error.problems
    else:
        said = tuple(found.problems)
        assert () in found.values
    for item in said:
        assert item.text.startswith("cannot ")
