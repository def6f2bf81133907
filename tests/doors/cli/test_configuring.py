import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router.config.values import hashed

Command = Callable[..., Any]
GOOD = "models: {a: {command: x}, b: {command: y, pin: true, idle: 5}}\n"
BAD = "servr: {}\nmodels: {a: {comand: x}}\n"


def test_a_good_configuration(bare_home: Path, run: Command) -> None:
    file = bare_home / "x.yml"
    file.write_text(GOOD)
    answer = run("config", "check", "--config", "x.yml")
    assert (answer.exit_code, answer.stdout) == (0, f"{file} is good: 2 models.\n")
    assert answer.stderr == f"warning: {file}:1:60: 'b' is pinned: it is unloaded when idle all the same\n"
    told = json.loads(run("config", "check", "-c", "x.yml", "--json").stdout)
    assert (told["ok"], told["path"], told["models"]) == (True, str(file), ["a", "b"])
    assert told["warnings"][0]["line"] == 1


def test_a_bad_configuration(bare_home: Path, run: Command) -> None:
    file = bare_home / "llm-router.yml"
    file.write_text(BAD)
    answer = run("config", "check")
    assert (answer.exit_code, answer.stdout) == (6, "")
    assert answer.stderr == (
        f"{file}:1:1: cannot use 'servr': the configuration has no such key. Did you mean 'server'?\n"
        f"{file}:2:14: cannot use 'comand': models.a has no such key. Did you mean 'command'?\n"
        "2 mistakes found.\n"
    )
    answer = run("config", "check", "--json")
    assert answer.exit_code == 6
    assert json.loads(answer.stdout)["errors"][1] == {
        "file": str(file),
        "line": 2,
        "column": 14,
        "text": "cannot use 'comand': models.a has no such key",
        "suggestion": "Did you mean 'command'?",
    }


def test_no_configuration(run: Command) -> None:
    answer = run("config", "check", "--config", "gone.yml")
    assert answer.exit_code == 6
    assert "(--config): there is no such file" in answer.stderr


def test_the_schema_is_printed(run: Command) -> None:
    assert "models" in json.loads(run("config", "schema").stdout)["properties"]


def test_a_new_key_and_its_hash(run: Command) -> None:
    told = json.loads(run("keys", "new", "--json").stdout)
    assert told["hash"] == hashed(told["key"])
    assert len(told["key"]) > 40
    assert told["key"] != json.loads(run("keys", "new", "--json").stdout)["key"]
    assert "keys: [{name: NAME, key: 'sha256:" in run("keys", "new").stdout


def test_what_is_printed_for_a_new_key_can_be_written_into_the_configuration(bare_home: Path, run: Command) -> None:
    line = run("keys", "new").stdout.splitlines()[-1]
    (bare_home / "x.yml").write_text(f"server:\n  {line}\nmodels: {{a: {{command: x}}}}\n")
    assert run("config", "check", "-c", "x.yml").stderr == ""


@pytest.mark.parametrize(("words", "stdin"), [(("sk-one",), None), ((), "sk-one\n")])
def test_the_hash_of_a_key(run: Command, words: tuple[str, ...], stdin: str | None) -> None:
    assert run("keys", "hash", *words, stdin=stdin).stdout == hashed("sk-one") + "\n"
    assert json.loads(run("keys", "hash", *words, "--json", stdin=stdin).stdout) == {"hash": hashed("sk-one")}


def test_no_key_to_hash(run: Command) -> None:
    assert run("keys", "hash", stdin="\n").exit_code == 2
