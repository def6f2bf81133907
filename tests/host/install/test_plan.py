"""From what was chosen to the deeds, and what a person is told before agreeing."""

import os
from pathlib import Path

import pytest

from llm_router.config.load import Config, parse
from llm_router.host.install import layout, plan
from llm_router.host.install.deeds import Account, Answering, Deed, File, Folder, Packages
from llm_router.host.install.network import Network
from llm_router.host.install.program import Program
from llm_router.host.install.settings import Settings

HERE = Program(Path("/usr/bin/python3"), Path("/usr/lib/llm_router"), "the environment that this command runs in")
OWN = Program(
    Path("/opt/x/bin/python"), Path("/opt/x/lib"), "its own", Packages("/no/such/place/1", "/usr/bin/python3", "x")
)
TEXT = "backends: {llamacpp: {}}\nmodels: {a: {backend: llamacpp, path: /tmp/a.gguf}}"


def config(text: str = TEXT) -> Config:
    return parse(text, "c.yml", {}, lambda _path: "")


def a_plan(text: str = TEXT, **more: object) -> plan.Plan:
    settings = Settings(config(text), Path("/home/me/c.yml"), {"config.yml": text})
    words: dict[str, object] = {"account": "llm-router", **more}
    return plan.Plan(layout.system(), settings, HERE, **words)  # type: ignore[arg-type]


def paths(deeds: list[Deed]) -> list[str]:
    return [Path(deed.path).name for deed in deeds if isinstance(deed, File)]


def test_the_whole_of_it_in_order() -> None:
    deeds = plan.deeds(a_plan())
    assert isinstance(deeds[0], Account), "first, because folders are given to it"
    assert paths(deeds) == ["config.yml", "llm-router-model@.service", "50-llm-router.rules", "llm-router.service"]
    assert isinstance(deeds[-1], Answering)
    assert [type(deed).__name__ for deed in deeds[-3:]] == ["Enabled", "Running", "Answering"]
    configuration = next(deed for deed in deeds if isinstance(deed, File) and deed.config)
    assert (configuration.owner, oct(configuration.mode)) == ("root:llm-router", "0o640"), "it decides what is run"


def test_a_configuration_that_was_there_is_opened_to_the_account_and_keeps_its_owner(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "config.yml").write_text(TEXT)
    (etc / "config.yml").chmod(0o600)
    places = layout.Layout("system", etc, tmp_path / "state", tmp_path / "unit", tmp_path / "opt")
    deeds = plan.deeds(plan.Plan(places, Settings(config(), etc), HERE, "root"))
    (configuration,) = [deed for deed in deeds if isinstance(deed, File) and deed.config]
    assert configuration.owner == f"{os.getuid()}:root"
    found = configuration.found()
    found.undo()
    assert ((etc / "config.yml").read_text(), oct((etc / "config.yml").stat().st_mode)) == (TEXT, "0o100600")


def test_root_needs_no_account_no_template_and_no_rule() -> None:
    deeds = plan.deeds(a_plan(account="root"))
    assert not any(isinstance(deed, Account) for deed in deeds)
    assert paths(deeds) == ["config.yml", "llm-router.service"]


def test_engines_as_children_need_no_template_and_no_rule() -> None:
    assert paths(plan.deeds(a_plan(engines="children"))) == ["config.yml", "llm-router.service"]


def test_an_environment_of_its_own_is_made_below_its_folders() -> None:
    deeds = plan.deeds(plan.Plan(layout.system(), a_plan().settings, OWN, "llm-router"))
    at = next(index for index, deed in enumerate(deeds) if isinstance(deed, Packages))
    assert isinstance(deeds[at - 1], Folder)
    template = next(deed for deed in deeds if isinstance(deed, File) and "model@" in deed.path)
    assert "ExecStart=/opt/x/bin/python -I -S /opt/x/lib/host/supervisors/run_job.py" in template.text


def test_the_rule_names_the_existing_units_that_are_used() -> None:
    text = """
backends: {sglang: {service: sglang, port: 30000}}
models:
  a: {backend: sglang, path: /m/a}
  b: {backend: sglang, path: /m/b, service: other.service}
  c: {backend: sglang, path: /m/c, service: sglang.service}
"""
    deeds = plan.deeds(a_plan(text))
    rule = next(deed for deed in deeds if isinstance(deed, File) and deed.path.endswith(".rules"))
    assert '["other.service", "sglang.service"]' in rule.text
    assert "ProtectSystem=full" in plan.texts(a_plan(text))[str(layout.system().unit)]


def test_the_rule_is_written_for_them_also_where_engines_are_children(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "backends: {sglang: {service: sglang, port: 1}}\nmodels: {a: {backend: sglang, path: /m/a}}"
    monkeypatch.setattr(plan, "_POLKIT", ("/",))
    assert paths(plan.deeds(a_plan(text, engines="children")))[1:] == ["50-llm-router.rules", "llm-router.service"]
    monkeypatch.setattr(plan, "_POLKIT", ("/no/such/polkit",))
    assert paths(plan.deeds(a_plan(text, engines="children")))[1:] == ["llm-router.service"]
    assert "it may not start sglang.service, as polkit is not installed" in "\n".join(plan.notes(a_plan(text)))


def test_the_rule_names_no_unit_of_the_accounts_own_manager() -> None:
    text = "server: {units: user}\nbackends: {sglang: {service: sglang, port: 1}}\nmodels: {a: {backend: sglang, path: /m/a}}"
    rule = next(deed for deed in plan.deeds(a_plan(text)) if isinstance(deed, File) and deed.path.endswith(".rules"))
    assert "var services = [];" in rule.text


def test_how_engines_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_POLKIT", ("/no/such/polkit",))
    assert plan.engines(config(), "llm-router") == "children"
    assert plan.engines(config(), "root") == "units"
    assert plan.engines(config(), "") == "units"
    monkeypatch.setattr(plan, "_POLKIT", ("/",))
    assert plan.engines(config(), "llm-router") == "units"
    assert plan.engines(config("server: {supervisor: child}\n" + TEXT), "root") == "children"


def test_what_a_person_is_told() -> None:
    told = "\n".join(plan.notes(a_plan(engines="children")))
    assert "/usr/bin/python3" in told
    assert "a copy of /home/me/c.yml" in told
    assert "engines run as children" in told
    assert "/tmp/a.gguf would not be seen: the service has a /tmp of its own" in told
    assert "linger" not in told
    assert "enable-linger" in "\n".join(plan.notes(a_plan(account="")))


def test_a_script_needs_root() -> None:
    text = "backends: {sglang: {service: sglang, port: 1}}\nmodels: {a: {backend: sglang, script: /m/a.sh}}"
    assert "--account root" in "\n".join(plan.notes(a_plan(text)))
    assert "--account root" not in "\n".join(plan.notes(a_plan(text, account="root")))


def test_a_configuration_that_stays_may_lack_what_clients_need() -> None:
    kept = Settings(config(), layout.system().config)
    for network, wanted in (
        (Network("container", "172.17.0.1"), "also_listen: [172.17.0.1]"),
        (Network("remote"), "host: 0"),
    ):
        told = "\n".join(plan.notes(plan.Plan(layout.system(), kept, HERE, "root", network=network)))
        assert wanted in told
        assert "stays as it is" in told
