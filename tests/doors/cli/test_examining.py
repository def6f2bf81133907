import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., Any]


def test_findings_for_people_and_for_programs(bare_home: Path, run: Command) -> None:
    (bare_home / "llm-router.yml").write_text("server: {port: 9}\nmodels: {a: {command: [sh, '{port}']}}")
    answer = run("doctor")
    assert "ok    model          a (command)" in answer.stdout
    assert answer.stdout.splitlines()[-1].startswith("0 failures, ")
    told = json.loads(run("doctor", "--json").stdout)
    assert {"area": "model", "level": "ok", "text": "a (command)", "remedy": ""} in told["findings"]
    assert told["level"] in {"ok", "warn"}


def test_what_does_not_work_is_an_exit_code_with_a_remedy(bare_home: Path, run: Command) -> None:
    (bare_home / "llm-router.yml").write_text("server: {port: 9}\nmodels: {a: {command: [/no/such/program]}}")
    answer = run("doctor")
    assert answer.exit_code == 1
    assert "fail  engine         command: there is no program /no/such/program" in answer.stdout
    assert "                     -> install it, or correct `command` of the backend" in answer.stdout
    told = run("doctor", "--json")
    assert (told.exit_code, json.loads(told.stdout)["level"]) == (1, "fail")
