"""Options as words: every kind of value, with and without knowledge of what the program understands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import DeviceId
from llm_router.engines.render import CommandLine, Spelling, flag_of, option_name, visible_devices

SPELLING = Spelling(
    short=frozenset({"ngl"}),
    switches=frozenset({"fa"}),
    negatable=frozenset({"mmap"}),
    comma=frozenset({"ts"}),
    spread=frozenset({"sizes"}),
)


def words(options: dict[str, object], known: set[str] | None = None) -> list[str]:
    line = CommandLine((), None if known is None else frozenset(known), SPELLING)
    line.add(options)
    return list(line.words())


@pytest.mark.parametrize(
    ("key", "name"), [("--ctx_size", "ctx-size"), ("ctx-size", "ctx-size"), ("-c", "c"), (" fa ", "fa")]
)
def test_a_name_is_the_same_however_it_is_written(key: str, name: str) -> None:
    assert option_name(key) == name


def test_dashes_follow_the_programs_habit() -> None:
    spelling = Spelling(short=frozenset({"ngl", "fa"}))
    assert [flag_of(name, spelling) for name in ("c", "ngl", "ctx-size")] == ["-c", "-ngl", "--ctx-size"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"metrics": True}, ["--metrics"]),
        ({"metrics": False}, []),
        ({"metrics": None}, []),
        ({"mmap": False}, ["--no-mmap"]),
        ({"ngl": 99}, ["-ngl", "99"]),
        ({"share": 0.5}, ["--share", "0.5"]),
        ({"name": ""}, ["--name", ""]),
        ({"name": "-x y"}, ["--name", "-x y"]),
        ({"lora": ["a", "b"]}, ["--lora", "a", "--lora", "b"]),
        ({"lora": []}, []),
        ({"ts": [3, 1]}, ["-ts", "3,1"]),
        ({"sizes": [1, 2]}, ["--sizes", "1", "2"]),
        ({"kwargs": {"a": [True]}}, ["--kwargs", '{"a": [true]}']),
        ({"fa": True}, ["-fa", "on"]),
        ({"fa": False}, ["-fa", "off"]),
        ({"fa": "auto"}, ["-fa", "auto"]),
        ({"flags": [True, False]}, ["--flags", "true", "--flags", "false"]),
    ],
)
def test_each_kind_of_value_has_its_form(options: dict[str, object], expected: list[str]) -> None:
    spelling = Spelling(
        short=frozenset({"ngl", "fa", "ts"}),
        switches=SPELLING.switches,
        negatable=SPELLING.negatable,
        comma=SPELLING.comma,
        spread=SPELLING.spread,
    )
    line = CommandLine((), None, spelling)
    line.add(options)
    assert list(line.words()) == expected


def test_order_is_kept_and_the_command_comes_first() -> None:
    line = CommandLine(("program", "serve"), None, SPELLING)
    line.need("--host", "127.0.0.1")
    line.add({"b": 1, "a": 2})
    assert line.words() == ("program", "serve", "--host", "127.0.0.1", "-b", "1", "-a", "2")


def test_what_the_program_does_not_list_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"cannot pass the option 'wonka': .* does not list --wonka in --help"):
        words({"wonka": 1}, {"--metrics"})
    assert words({"wonka": None, "other": False}, {"--metrics"}) == []


def test_a_negation_is_used_where_the_program_lists_it() -> None:
    assert words({"slots": False}, {"--slots", "--no-slots"}) == ["--no-slots"]
    with pytest.raises(ValueError, match="cannot switch off the option 'mmap'"):
        words({"mmap": False}, {"--mmap"})


def test_the_first_known_spelling_is_taken() -> None:
    line = CommandLine((), frozenset({"--model-path", "-c"}), SPELLING)
    line.need(("-m", "--model-path"), "/m")
    assert line.like(("--ctx-size", "-c"), 5)
    assert not line.like("--offline")
    assert line.words() == ("--model-path", "/m", "-c", "5")
    with pytest.raises(ValueError, match=r"cannot pass --host: .* update it"):
        line.need("--host", "x")


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, "a\0b", ["x", object()]])
def test_what_cannot_be_a_word_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"cannot pass --x: |cannot pass -x: "):
        words({"x": value})


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_texts_pass_unchanged(options: dict[str, str]) -> None:
    kept = {key: value for key, value in options.items() if key not in ("ts", "sizes")}
    assert words(dict(kept))[1::2] == list(kept.values())


def test_devices_are_shown_by_pci_order() -> None:
    assert visible_devices(()) == {}
    assert visible_devices((0, 3)) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,3"}


def test_rocm_is_shown_its_devices_by_its_own_variable() -> None:
    assert visible_devices((0, 2), (DeviceId("AMD-a"), DeviceId("AMD-c"))) == {"HIP_VISIBLE_DEVICES": "0,2"}
    assert "CUDA_VISIBLE_DEVICES" in visible_devices((0,), (DeviceId("GPU-a"),))
