"""The pages of the reference that are made from the code: the commands, the configuration, its JSON schema.

``python -m llm_router.doors.cli.reference docs/reference`` writes them. A test compares them with the code,
so that what exists is documented. This file knows Markdown; every fact comes from where it is used.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from llm_router.config.schema import json_schema
from llm_router.doors.cli.exits import MEANINGS
from llm_router.doors.cli.main import app

Schema = dict[str, Any]

_MADE = "<!-- Made by python -m llm_router.doors.cli.reference; do not edit by hand. -->\n\n"


def pages() -> dict[str, str]:
    """File name -> content."""
    schema = json_schema()
    return {
        "cli.md": cli_page(),
        "configuration.md": configuration_page(schema),
        "config.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
    }


def cli_page() -> str:
    """Every command with its arguments and options, and the exit codes."""
    lines = [
        "# The command line",
        "",
        "Every command prints JSON with `--json`, and asks nothing. Addresses and keys come from the options, else",
        "from the environment, else from the configuration that `llm-router serve` would read.",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()),
        "",
        "An unexpected fault of the router itself is told in a sentence; `LLM_ROUTER_TRACEBACK=1` shows where it was.",
    ]
    root: Any = typer.main.get_command(app)
    lines += _command(root, "llm-router")
    return _MADE + "\n".join(lines) + "\n"


def _command(command: Any, name: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if name != "llm-router":
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        usage = " ".join([name, *map(_usage, arguments)])
        yield from ("", f"## `{usage}`", "", command.help or "", "")
        rows = [row for parameter in command.params for row in _parameter(parameter)]
        if rows and not inner:
            yield from ("| option | meaning |", "|---|---|", *rows)
    for word, command_ in sorted((inner or {}).items()):
        yield from _command(command_, f"{name} {word}")


def _usage(argument: Any) -> str:
    word = str(argument.metavar or argument.name.upper())
    return word if argument.required else f"[{word}]"


def _parameter(parameter: Any) -> Iterator[str]:
    text = (parameter.help or "").replace("|", "\\|")
    if parameter.param_type_name == "argument":
        yield f"| `{parameter.metavar or parameter.name.upper()}` | {text} |"
        return
    words = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    facts = []
    if parameter.default not in (None, False) and not callable(parameter.default):
        facts.append(f"default: {'yes' if parameter.default is True else parameter.default}")
    if parameter.envvar:
        facts.append(f"environment: `{parameter.envvar}`")
    more = f" ({'; '.join(facts)})" if facts else ""
    yield f"| {words}{value} | {text}{more} |"


_EXAMPLE = """\
server:   {host: 127.0.0.1, port: 8002}
backends:
  llamacpp: {command: [/opt/llama.cpp/build/bin/llama-server], args: {threads: 8}}
models:
  qwen-7b:  {backend: llamacpp, path: /opt/models/qwen-7b.gguf, context: 16384, aliases: [qwen], default: true}
  big-123b: {backend: llamacpp, path: /opt/models/big-123b.gguf, gpus: 2, idle: 30m}
  my-own:   {backend: command, command: [./serve.sh, "{port}"], health: /health}
"""


def configuration_page(schema: Schema) -> str:
    """Every key with its type, default and meaning."""
    lines = [
        "# The configuration",
        "",
        "One YAML (or JSON) file, or a folder with `config.yml` and `models.yml`. It is looked for in this order:",
        "`--config`, `$LLM_ROUTER_CONFIG`, `$ROUTER_CONFIG`, `./llm-router.yml`, `~/.config/llm-router/config.yml`,",
        "`/etc/llm-router/`, `/opt/llm-router/config.json`. `llm-router config check` tells every mistake with its line.",
        "",
        "```yaml",
        *_EXAMPLE.splitlines(),
        "```",
        "",
        "* Durations are seconds, or `500ms`, `2s`, `30m`, `1h30m`. Sizes are bytes, or `512MiB`, `24GiB`, `16GB`.",
        "* `${NAME}` is replaced from the environment in every value; a missing one is an error, `${NAME:-else}` has a",
        "  fallback, `$${` is a literal `${`. Inside `{...}` and `[...]` put it in quotes.",
        "* `file:PATH` in `keys` and `env` reads the value from a file, relative to the configuration's folder.",
        "* It is YAML 1.2: `on`, `off`, `yes` and `no` are text. Anchors and `<<` work; top-level keys that begin with",
        "  `x-` are a place for shared pieces.",
        "* An editor that knows JSON schemas completes and checks the file with `config.schema.json` beside this page:",
        "  begin it with `# yaml-language-server: $schema=PATH/config.schema.json`.",
    ]
    definitions = schema["$defs"]
    for title, name in (
        ("`server`", "Server"),
        ("`server.keys[]`", "Key"),
        ("`server.clients[]`", "Client"),
        ("`scheduler`", "Scheduler"),
        ("`backends.NAME`", "Backend"),
        ("`models.NAME`", "Entry"),
        ("`models.NAME.request`", "RequestRules"),
    ):
        lines += _section(title, definitions[name])
    return _MADE + "\n".join(lines) + "\n"


def _section(title: str, section: Schema) -> Iterator[str]:
    needed = section.get("required", ())
    yield from (
        "",
        f"## {title}",
        "",
        section["description"],
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    )
    for name, field in section["properties"].items():
        default = "needed" if name in needed else _default(field)
        yield f"| `{name}` | {_type(field)} | {default} | {field.get('description', '')} |"


def _default(field: Schema) -> str:
    default, kind = field.get("default"), field.get("title")
    if default in (None, "") or isinstance(default, dict | list):
        return ""
    if kind == "duration":
        return f"{default:g} s"
    if kind == "size":
        return f"{default / 1024**2:g} MiB"
    return f"`{json.dumps(default).strip(chr(34))}`"


def _type(field: Schema) -> str:
    if "title" in field and field["title"] in {"duration", "duration, or never", "size", "command", "gpus"}:
        return str(field["title"])
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if "$ref" in field:
        return "section"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    if field.get("type") == "array" or field.get("title") == "Keys":
        return "list"
    return words.get(str(field.get("type")), "section")


def write(folder: Path) -> None:
    """Write the pages into the folder."""
    for name, content in pages().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
