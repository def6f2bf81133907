"""The whole look, on this machine as it is."""

from pathlib import Path

from llm_router.host.doctor.examination import Case, examine
from llm_router.host.doctor.findings import Finding, Level, fail, ok, warn, worst


def test_every_area_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    state = tmp_path / "s"
    file.write_text(f"server: {{port: 9, state_dir: {state}}}\nmodels: {{a: {{command: [sh]}}}}")
    found = list(examine(Case({"HOME": str(tmp_path), "PATH": "/bin"}, tmp_path, file)))
    areas = {finding.area for finding in found}
    assert areas >= {"router", "gpu", "configuration", "state", "disk", "engine", "model", "port", "systemd", "running"}
    assert all(finding.remedy for finding in found if finding.level is not Level.ok)


def test_a_broken_configuration_does_not_end_the_look(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text("servr: {}")
    found = list(examine(Case({"HOME": str(tmp_path), "PATH": "/bin"}, tmp_path, file, "http://127.0.0.1:9")))
    assert {"configuration", "systemd", "running"} <= {finding.area for finding in found}
    assert worst(found) is Level.fail


def test_the_worst_counts() -> None:
    a, b, c = ok("x", "a"), warn("x", "b", "do"), fail("x", "c", "do")
    assert [worst(found) for found in ([], [a], [a, b], [c, b, a])] == [Level.ok, Level.ok, Level.warn, Level.fail]
    assert a == Finding("x", Level.ok, "a")
