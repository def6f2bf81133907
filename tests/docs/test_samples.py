"""Samples in the documents work: configurations load, commands exist, and what can be run is run."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from llm_router.config.load import parse
from llm_router.doors.cli.main import app
from support.documents import DOCS, ROOT, Sample, pages, prose, samples, samples_of
from support.router import SLOW_MB, configuration, make_model, running

HASH = "sha256:" + "0" * 64
#: Commands of a shell that the documents may begin a line with, beside the router's own.
KNOWN = re.compile(r"(?:sudo )?(?:\w+=\S+ )*(?:\S*/)?llm-router (.+)")


def configurations() -> list[Sample]:
    """The YAML samples; each is a configuration or a part of one."""
    return samples("yaml")


@pytest.mark.parametrize("sample", configurations(), ids=str)
def test_a_configuration_loads_without_a_warning(sample: Sample) -> None:
    text = sample.text
    if not re.search(r"^models:", text, re.MULTILINE):
        text += "\nmodels: {some: {backend: command, command: [./serve.sh]}}\n"
    if not re.search(r"^backends:", text, re.MULTILINE):
        text += "\nbackends: {command: {}}\n"
    found = parse(text, str(sample), {"HOME": "/root"}, lambda _path: HASH)
    # The one sample that shows how to be careless is warned of.
    assert len(found.warnings) == ("insecure: true" in text), found.warnings


def test_there_are_configurations() -> None:
    assert len(configurations()) > 8


@pytest.mark.parametrize("sample", samples("json"), ids=str)
def test_json_is_json(sample: Sample) -> None:
    assert json.loads(sample.text)


@pytest.mark.parametrize("sample", samples("python"), ids=str)
def test_python_is_python(sample: Sample) -> None:
    assert ast.parse(sample.text).body


@pytest.mark.parametrize("sample", samples("sh"), ids=str)
def test_a_shell_can_read_it(sample: Sample) -> None:
    done = subprocess.run(["bash", "-n"], input=sample.text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def command_lines() -> Iterator[tuple[str, str]]:
    """Every ``llm-router ...`` that a reader may type: where it stands, and the words after the name."""
    for sample in samples("sh"):
        for line in re.split(r"\n|&& | & | ; |; ", sample.text.replace("\\\n", " ")):
            if found := KNOWN.match(line.strip()):
                yield str(sample), found[1].partition(" #")[0].partition(" > ")[0]
    for page in pages():
        for words in re.findall(r"`llm-router ([^`]+)`", prose(page)):
            if page.name not in {"cli.md", "configuration.md"}:
                yield str(page.relative_to(ROOT)), words


@pytest.mark.parametrize(("where", "words"), sorted(set(command_lines())))
def test_a_command_can_be_typed_so(where: str, words: str) -> None:
    arguments = shlex.split(words)
    if "[" in words:
        return  # a synopsis
    command: Any = typer.main.get_command(app)
    while getattr(command, "commands", None) and arguments:
        assert arguments[0] in command.commands, f"{where}: there is no command {arguments[0]!r}"
        command = command.commands[arguments.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    typed = {word.partition("=")[0] for word in arguments if word.startswith("-") and word != "-"}
    assert typed <= options, f"{where}: there is no such option"


def test_commands_are_found_in_the_documents() -> None:
    found = {words for _, words in command_lines()}
    assert {"serve", "config check", 'chat alpha "Who are you?"'} <= found


def test_the_samples_of_the_simulation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [words for where, words in command_lines() if "simulate.md" in where and words.startswith("simulate ")]
    assert len(lines) >= 4
    for words in lines:
        done = CliRunner().invoke(app, shlex.split(words))
        assert done.exit_code == 0, f"{words}: {done.output}"


def test_the_transcript_of_the_simulation_is_a_real_one() -> None:
    """The scheduler may come to other numbers one day: then the page shows others too."""
    parts = [sample.text for sample in samples_of(DOCS / "how-to" / "simulate.md")]
    command, shown = parts[0].removeprefix("llm-router ").strip(), parts[1]
    done = CliRunner().invoke(app, shlex.split(command), terminal_width=120)
    assert done.exit_code == 0
    assert re.findall(r"[\w.]+", shown) == re.findall(r"[\w.]+", done.output)


@pytest.mark.slow
@pytest.mark.real
def test_the_first_commands_of_the_readme_do_what_it_shows(tmp_path: Path) -> None:
    sample = next(sample for sample in samples_of(ROOT / "README.md") if "ask()" in sample.text)
    config = configuration({name: make_model(tmp_path, name, SLOW_MB) for name in ("alpha", "beta")})
    with running(tmp_path, config) as router:
        script = sample.text.replace("http://127.0.0.1:8002", router.url)
        assert router.url in script
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    # How much of the switch is seen depends on how fast the machine is; the first news of it names beta.
    said = re.split(r'(?m)^(?="description":"[^"]*\bbeta\b)', done.stdout, maxsplit=1)
    assert len(said) == 2, done.stdout
    for part, name in zip(said, ("alpha", "beta"), strict=True):
        lines = part.splitlines()
        assert any(line.startswith(f'"description":"Loading {name}') for line in lines)
        assert f'"content":" {name},"' in lines
        assert lines[-1].startswith('"description":"⚡ ')
