"""The command ``doctor``: what is well here, what is not, and what to do about it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llm_router.doors.cli import options, output
from llm_router.doors.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_router.host.doctor.findings import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    config: options.Config = None,
    url: options.Url = None,
    key: options.Key = None,
    json: options.Json = False,
) -> None:
    """Look at engines, GPUs, files, ports, the service and the running router; exit code 1 if something does not work."""
    from llm_router.host.doctor.examination import Case, examine
    from llm_router.host.doctor.findings import Level, worst

    case = Case(os.environ, Path.home(), config, url or os.environ.get("LLM_ROUTER_URL"), key)
    findings = []
    for finding in examine(case):
        findings.append(finding)
        if not json:
            show([finding])
    level = worst(findings)
    if json:
        output.print_json({"level": level, "findings": [_entry(finding) for finding in findings]})
    else:
        count = sum(finding.level is Level.fail for finding in findings)
        warnings = sum(finding.level is Level.warn for finding in findings)
        typer.echo(f"\n{output.plural(count, 'failure')}, {output.plural(warnings, 'warning')}.")
    if level is Level.fail:
        raise typer.Exit(Exit.failed)


def show(findings: "Sequence[Finding]") -> None:
    """Findings for people, each in a line, with its remedy below it."""
    for finding in findings:
        mark = typer.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
        typer.echo(f"{mark}  {finding.area:<13}  {finding.text}")
        if finding.remedy:
            typer.echo(f"{'':21}-> {finding.remedy}")


def _entry(finding: "Finding") -> dict[str, str]:
    return {"area": finding.area, "level": finding.level, "text": finding.text, "remedy": finding.remedy}
