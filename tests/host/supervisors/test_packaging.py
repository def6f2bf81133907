import re
from pathlib import Path

import pytest

from llm_router.host.supervisors import packaging


def test_the_template_runs_the_job_as_the_account() -> None:
    text = packaging.template("llm-router", Path("/var/lib/llm-router"), Path("/opt/llm-router/venv/bin/python"))
    assert "@ACCOUNT@" not in text
    assert "\nUser=llm-router\n" in text
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command is not None
    python, isolated, bare, runner, job = command[1].split()
    assert (python, isolated, bare) == ("/opt/llm-router/venv/bin/python", "-I", "-S")
    assert Path(runner).name == "run_job.py"
    assert Path(runner).is_file()
    assert job == "/var/lib/llm-router/jobs/%i"


@pytest.mark.parametrize(
    ("text", "account"),
    [
        (packaging.template("llm-router", Path("/var/lib/llm-router")), "llm-router"),
        ("[Service]\nUser=a\nUser=b\n", "b"),
        ("[Service]\nUser=a\nUser=\n", "root"),
        ("[Service]\nExecStart=/bin/true\n", "root"),
    ],
)
def test_whose_a_template_is_stands_in_it(text: str, account: str) -> None:
    assert packaging.account_of(text) == account


def test_the_rule_names_the_account_its_own_units_and_the_listed_ones() -> None:
    text = packaging.rule("llm-router", ["sglang", "tabbyapi.service"])
    assert 'subject.user !== "llm-router"' in text
    assert 'var services = ["sglang.service", "tabbyapi.service"];' in text
    pattern = re.search(r"/(\^llm-router-model@.*\$)/", text)
    assert pattern is not None
    own = re.compile(pattern[1])
    assert own.match("llm-router-model@1234abcd-00ff.service")
    assert not own.match("llm-router-model@x.service")
    assert not own.match("llm-router-1234abcd-qwen-00ff.service")
    assert not own.match("llm-router-model@1234abcd-00ff.service.d")


def test_without_services_only_its_own_units_are_allowed() -> None:
    assert "var services = [];" in packaging.rule("llm-router")


@pytest.mark.parametrize("services", [[], ["a"], ["b.service", "a"]])
def test_what_a_rule_names_can_be_read_from_it(services: list[str]) -> None:
    whole = frozenset(name.removesuffix(".service") + ".service" for name in services)
    assert packaging.services_of(packaging.rule("llm-router", services)) == whole


@pytest.mark.parametrize(
    "text", ["", "polkit.addRule(function () {});", "    var services = [a];", "var services = a;"]
)
def test_what_a_rule_of_another_form_names_is_not_known(text: str) -> None:
    assert packaging.services_of(text) is None


@pytest.mark.parametrize("account", ["root", "", "a b", 'x" || true || "', "x\ny", "Ä"])
def test_a_doubtful_account_is_refused(account: str) -> None:
    with pytest.raises(ValueError, match="must be the name of a plain account"):
        packaging.rule(account)
    with pytest.raises(ValueError, match="must be the name of a plain account"):
        packaging.template(account, Path("/var/lib/llm-router"))


@pytest.mark.parametrize("service", ['x"]; evil(); ["', "a b.service", "x@.service", "../x"])
def test_a_doubtful_service_is_refused(service: str) -> None:
    with pytest.raises(ValueError, match="no name of a service"):
        packaging.rule("llm-router", [service])


@pytest.mark.parametrize("state", ["/var/lib/llm router", "relative", "/x\nExecStart=/bin/evil", "/x%i", "/$HOME"])
def test_a_doubtful_path_is_refused(state: str) -> None:
    with pytest.raises(ValueError, match="plain letters"):
        packaging.template("llm-router", Path(state))
