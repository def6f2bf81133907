"""The operator's word about a request's fields wins over the client's, and nothing else is touched."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llm_router.wire.params import CONTEXT, PROTECTED, Change, Rules, told


def fields(body: bytes | dict[str, Any]) -> dict[str, Raw]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return msgspec.json.decode(raw, type=dict[str, Raw])


def applied(rules: Rules, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    out, changes = rules.apply(fields(body))
    return json.loads(msgspec.json.encode(out)), [f"{change.verb} {change.name}" for change in changes]


def test_force_default_drop() -> None:
    rules = Rules.of({"temperature": 0.6, "seed": 1}, {"top_p": 0.9, "top_k": 20}, ["logit_bias"])
    body = {"model": "m", "temperature": 2, "top_p": 0.5, "logit_bias": {"1": 2}}
    assert applied(rules, body) == (
        {"model": "m", "temperature": 0.6, "top_p": 0.5, "seed": 1, "top_k": 20},
        ["drop logit_bias", "force temperature", "force seed", "default top_k"],
    )


def test_what_is_so_already_is_no_change() -> None:
    body = fields(b'{"temperature": 6e-1, "top_p":1, "x": 1.0e2}')
    out, changes = Rules.of({"temperature": 0.6}, {"top_p": 0.5}, ["y"]).apply(body)
    assert out is body
    assert changes == ()


def test_true_is_not_one() -> None:
    assert applied(Rules.of({"logprobs": True}), {"logprobs": 1}) == ({"logprobs": True}, ["force logprobs"])


def test_untouched_fields_keep_their_bytes() -> None:
    out, _ = Rules.of({"seed": 1}).apply(fields(b'{"messages": [ {"content":"\\u00e9 1e2"} ],"n":1.0e2}'))
    assert bytes(out["messages"]) == b'[ {"content":"\\u00e9 1e2"} ]'
    assert bytes(out["n"]) == b"1.0e2"
    assert list(out) == ["messages", "n", "seed"]


def test_null_counts_as_not_sent() -> None:
    assert applied(Rules.of(default={"top_p": 0.9}), {"top_p": None}) == ({"top_p": 0.9}, ["default top_p"])


def test_inside_an_object() -> None:
    name = "chat_template_kwargs.enable_thinking"
    sent = {"chat_template_kwargs": {"enable_thinking": True, "x": 1}}
    assert applied(Rules.of({name: False}), sent)[0] == {"chat_template_kwargs": {"enable_thinking": False, "x": 1}}
    assert applied(Rules.of({name: False}), {}) == (
        {"chat_template_kwargs": {"enable_thinking": False}},
        [f"force {name}"],
    )
    assert applied(Rules.of({name: True}), sent) == (sent, [])
    assert applied(Rules.of(default={name: False}), sent) == (sent, [])
    assert applied(Rules.of(default={name: False}), {"chat_template_kwargs": {"x": 1}})[1] == [f"default {name}"]
    assert applied(Rules.of(drop=[name]), sent) == ({"chat_template_kwargs": {"x": 1}}, [f"drop {name}"])
    assert applied(Rules.of(drop=[name]), {}) == ({}, [])


def test_an_object_that_is_none() -> None:
    name = "chat_template_kwargs.enable_thinking"
    assert applied(Rules.of(default={name: False}), {"chat_template_kwargs": 7}) == ({"chat_template_kwargs": 7}, [])
    assert applied(Rules.of({name: False}), {"chat_template_kwargs": 7})[0] == {
        "chat_template_kwargs": {"enable_thinking": False}
    }


@pytest.mark.parametrize("name", sorted(CONTEXT))
def test_no_client_changes_the_context(name: str) -> None:
    for rules in (Rules(), Rules.of()):
        assert applied(rules, {"model": "m", name: 999_999}) == ({"model": "m"}, [f"drop {name}"])


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        *(({"force": {name: 1}}, name) for name in sorted(PROTECTED)),
        ({"default": {"stream_options.include_usage": True}}, "router's own"),
        ({"drop": ["messages"]}, "router's own"),
        ({"force": {"num_ctx": 4096}}, "set `context` of the model"),
        ({"force": {"a b": 1}}, "at most one dot"),
        ({"force": {"a.b.c": 1}}, "at most one dot"),
        ({"drop": ["a\r\nx: y"]}, "at most one dot"),
        ({"force": {"seed": 1}, "drop": ["seed"]}, "keep one of them"),
        ({"force": {"seed": 1}, "default": {"seed": 2}}, "keep one of them"),
        ({"force": {"kwargs": {}}, "default": {"kwargs.x": 2}}, "keep one of them"),
    ],
)
def test_rules_that_cannot_be(rules: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^cannot (force|default|drop|apply) .*{says}"):
        Rules.of(**rules)


def test_the_context_may_be_named_in_drop() -> None:
    assert Rules.of(drop=["num_ctx"]).drop == CONTEXT


def test_changes_are_told_in_a_header() -> None:
    assert told([Change("drop", "num_ctx"), Change("force", "temperature")]) == "drop num_ctx, force temperature"
    assert told([]) == ""
    assert (
        told([Change("force", "seed")], ["options.num_ctx", "evil\r\nheader: x", "é"])
        == "force seed, drop options.num_ctx"
    )
    assert told([], [f"f{n}" for n in range(99)]).count(",") == 19


def test_values_that_cannot_be_read_are_left_to_the_engine() -> None:
    broken = {"kwargs": Raw(b"{broken"), "seed": Raw(b"{broken")}
    out, changes = Rules.of({"seed": 1}, {"kwargs.x": 1}, ["kwargs.y"]).apply(broken)
    assert bytes(out["kwargs"]) == b"{broken"
    assert changes == (Change("force", "seed"),)


NAMES = st.sampled_from(["a", "b", "c", "d.x", "d.y"])
VALUES = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["t", 0.5])
BODIES = st.dictionaries(st.sampled_from(["a", "b", "c", "other"]), VALUES) | st.fixed_dictionaries(
    {"d": st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES) | VALUES}
)


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES), st.sets(NAMES), BODIES)
def test_the_rules_hold_whatever_is_sent(
    force: dict[str, Any], default: dict[str, Any], drop: set[str], body: dict[str, Any]
) -> None:
    default = {name: value for name, value in default.items() if name not in force}
    rules = Rules.of(force, default, drop - force.keys() - default.keys())
    out, _ = applied(rules, body)

    def at(where: dict[str, Any], name: str) -> Any:
        top, _, key = name.partition(".")
        inner = where.get(top, "absent")
        if not key:
            return inner
        return inner.get(key, "absent") if isinstance(inner, dict) else "absent"

    for name, value in force.items():
        assert (at(out, name), type(at(out, name))) == (value, type(value))
    for name in rules.drop:
        assert at(out, name) == "absent"
    for name in body.keys() - {named.partition(".")[0] for named in {*force, *default, *drop}}:
        assert out[name] == body[name]
    assert applied(rules, out) == (out, []), "twice is once"


def test_only_a_field_that_a_rule_is_for_needs_a_closer_look() -> None:
    fields = msgspec.json.decode(b'{"model":"a","messages":"num_ctx"}', type=dict[str, msgspec.Raw])
    assert not Rules().may_touch(fields)
    assert Rules().apply(fields)[0] is fields
    assert Rules().may_touch(fields | {"num_ctx": msgspec.Raw(b"1")})
    assert Rules.of(drop=["x.y"]).may_touch(fields | {"x": msgspec.Raw(b"{}")})
    assert Rules.of({"temperature": 1}).may_touch(fields)
