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


OLD = '{"router_port": 8003, "models": {"a": {"backend": "llamacpp", "model_path": "/a.gguf"}}}'


def test_an_older_file_is_written_anew(bare_home: Path, run: Command) -> None:
    (bare_home / "config.json").write_text(OLD)
    printed = run("config", "convert", "config.json").stdout
    assert "  # Was `router_port`.\n  port: 8003\n" in printed
    assert json.loads(run("config", "convert", "config.json", "--json").stdout) == {"text": printed}
    answer = run("config", "convert", "config.json", "-o", "new.yml")
    assert answer.stdout.startswith("new.yml holds the configuration; look at its comments")
    assert (bare_home / "new.yml").read_text() == printed
    assert run("config", "check", "-c", "new.yml").exit_code == 0


def test_a_file_that_is_there_is_not_replaced_unasked(bare_home: Path, run: Command) -> None:
    (bare_home / "config.json").write_text(OLD)
    (bare_home / "new.yml").write_text("mine")
    answer = run("config", "convert", "config.json", "-o", "new.yml")
    assert (answer.exit_code, "there is a file of this name" in answer.stderr) == (1, True)
    told = json.loads(run("config", "convert", "config.json", "-o", "new.yml", "--force", "--json").stdout)
    assert (told["path"], Path(told["kept"]).read_text()) == ("new.yml", "mine")


@pytest.mark.parametrize(
    ("text", "said"), [(GOOD, "it is in the present layout already"), ("[", "cannot read the text")]
)
def test_what_cannot_be_written_anew(bare_home: Path, run: Command, text: str, said: str) -> None:
    (bare_home / "x.yml").write_text(text)
    answer = run("config", "convert", "x.yml")
    assert (answer.exit_code, said in answer.stderr) == (6, True)
