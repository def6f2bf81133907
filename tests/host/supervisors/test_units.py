import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.host.supervisors import units
from llm_router.host.supervisors.units import UnitState, read_state

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def read_environment_file(text: str) -> dict[str, str]:
    """As systemd reads double-quoted values: a backslash keeps the next of four letters from meaning something."""
    found = {}
    for name, value in re.findall(r'^([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\n', text, re.MULTILINE | re.ASCII | re.DOTALL):
        found[name] = re.sub(r'\\(["\\`$])', r"\1", value)
    return found


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), TEXT, max_size=4))
def test_an_environment_file_says_what_it_was_given(variables: dict[str, str]) -> None:
    assert read_environment_file(units.environment_file(variables).decode()) == variables


def test_what_systemd_does_not_take_is_left_out() -> None:
    assert units.environment_file({"BASH_FUNC_f%%": "() { :; }", "1X": "", "GOOD": "1"}) == b'GOOD="1"\n'


def command_of(text: bytes) -> str:
    reset, command = [line for line in text.decode().splitlines() if line.startswith("ExecStart=")]
    assert reset == "ExecStart="
    return command.removeprefix("ExecStart=:")


def test_a_drop_in_resets_the_command_and_says_the_new_one() -> None:
    text = units.drop_in(("/opt/start.sh",), "qwen\n[Service]\nExecStart=/bin/evil")
    assert command_of(text) == "/opt/start.sh"
    assert text.count(b"\n[Service]\n") == 1


@given(st.lists(TEXT, max_size=4))
def test_the_words_of_a_drop_in_stay_on_one_line_and_cannot_end_it(words: list[str]) -> None:
    lines = units.drop_in(("/opt/start.sh", *words), "m").decode().split("\n")
    assert [line.partition("=")[0] for line in lines[1:]] == ["[Service]", "ExecStart", "ExecStart", ""]
    plain = [word for word in words if word.isascii() and word.isprintable() and not set(word) & set("%\\\"'")]
    if plain == words:
        assert shlex.split(lines[3].removeprefix("ExecStart=:")) == ["/opt/start.sh", *words]


def test_percent_and_quotes_mean_themselves() -> None:
    assert command_of(units.drop_in(("/a", "100%", 'say "x"', "a\\b", ""), "m")) == '/a 100%% "say \\"x\\"" "a\\\\b" ""'


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        ("sglang.service", "sglang_2eservice"),
        ("llm-router-model@ab-1.service", "llm_2drouter_2dmodel_40ab_2d1_2eservice"),
        ("1a_b.service", "_31a_5fb_2eservice"),
        ("ü.service", "_c3_bc_2eservice"),
    ],
)
def test_a_unit_has_its_place_on_the_bus(unit: str, path: str) -> None:
    assert units.object_path(unit) == f"/org/freedesktop/systemd1/unit/{path}"


@pytest.mark.parametrize(("code", "status", "known"), [(0, 0, None), (1, 0, 0), (1, 3, 3), (2, 9, -9), (3, 6, -6)])
def test_an_end_is_told_as_subprocess_tells_it(code: int, status: int, known: int | None) -> None:
    assert UnitState(code=code, status=status).exit_code == known


def test_a_state_is_read_from_the_bus_and_from_nothing() -> None:
    state = read_state(
        {
            "LoadState": "loaded",
            "ActiveState": "activating",
            "SubState": "auto-restart",
            "InvocationID": [0, 255, 16],
            "ExecStart": [["/bin/sh", ["/bin/sh", "-c", "x"], False, 0, 0, 0, 0, 0, 0, 0]],
            "WorkingDirectory": "!/opt/tabby",
        }
    )
    assert state.runs
    assert state.waits_to_restart
    assert (state.invocation, state.argv, state.folder) == ("00ff10", ("/bin/sh", "-c", "x"), "/opt/tabby")
    assert not read_state({"ExecStart": []}).runs


def test_a_unit_between_the_halves_of_a_restart_runs() -> None:
    nothing, something = [0, "/"], [42, "/org/freedesktop/systemd1/job/42"]
    assert not read_state({"ActiveState": "inactive", "Job": nothing}).runs
    assert read_state({"ActiveState": "inactive", "Job": something}).runs


def test_a_transient_unit_keeps_its_words_and_shows_no_variables() -> None:
    given = units.transient(
        description="d", argv=("/bin/x", "$HOME"), folder="/", environment="/s/environment", log="/s/log"
    )
    values = {name: value for name, _, value in given}
    assert values["ExecStartEx"] == [["/bin/x", ["/bin/x", "$HOME"], ["no-env-expand"]]]
    assert values["EnvironmentFiles"] == [["/s/environment", False]]
    assert "Environment" not in values
    assert (values["Type"], values["KillMode"], values["Restart"]) == ("exec", "control-group", "no")
