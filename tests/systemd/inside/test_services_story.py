"""The story of an operator with three units: switched by asking, under streams, through kills and own stops."""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from support.router import RunningRouter, ask, chat, events, first_text, running, statuses, text_of
from support.services import Host, shown, systemctl

pytestmark = [pytest.mark.systemd, pytest.mark.slow]


@pytest.fixture
def host(tmp_path: Path, shelf: Callable[..., Path]) -> Iterator[Host]:
    made = Host(tmp_path / "host", shelf("gguf-c"))
    yield made
    made.stop_all()


@pytest.fixture
def router(tmp_path: Path, host: Host) -> Iterator[RunningRouter]:
    with running(tmp_path, host.configuration()) as router:
        yield router


def loaded(router: RunningRouter) -> set[str]:
    return {model["name"] for model in router.status()["models"] if model["state"] == "ready"}


def until(true: Callable[[], object], what: str, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_each_model_is_served_by_its_unit_one_at_a_time(router: RunningRouter, host: Host) -> None:
    with router.client() as client:
        for model, unit in [
            ("awq-a", "sglang"),
            ("awq-b", "sglang"),
            ("monstral", "tabbyapi"),
            ("behemoth", "tabbyapi"),
            ("gguf-c", "llamacpp"),
            ("awq-a", "sglang"),
        ]:
            chunks = ask(client, model)
            assert text_of(chunks), router.log
            assert chunks[-1] == "[DONE]"
            assert host.running() == {unit}
    unit_file = Path("/etc/systemd/system/sglang.service").read_text()
    assert "start_awq" not in unit_file
    assert "start_awq-a.sh" in shown("sglang.service", "ExecStart")
    before = host.config_yml.read_text()
    assert "model_name: exl3/Behemoth   # the big one" in before
    assert before.replace("exl3/Behemoth", "exl3/Monstral").startswith("# My settings, do not lose them.")


def test_the_phases_come_from_the_journal(tmp_path: Path, host: Host) -> None:
    host.speed = 10
    host.unit("sglang.service", host.sglang("awq-a"))
    with running(tmp_path, host.configuration()) as router, router.client() as client:
        told = [status["description"] for status in statuses(ask(client, "awq-a"))]
    assert any("capturing graphs" in text or "loading weights" in text for text in told), told


def test_a_running_answer_is_not_cut_by_a_switch(router: RunningRouter, host: Host) -> None:
    host.tokens_per_s = 10
    host.unit("sglang.service", host.sglang("awq-a"))
    with router.client() as client, client.stream("POST", "/v1/chat/completions", json=chat("awq-a")) as response:
        stream = events(response)
        first_text(stream)
        assert host.running() == {"sglang"}
        other: list[object] = []
        asking = threading.Thread(target=lambda: other.extend(ask(client, "monstral")))
        asking.start()
        rest = list(stream)
        # The words of the answer, all of them: the fake says seven.
        assert text_of(rest).endswith("demo model."), rest
        assert rest[-1] == "[DONE]"
        asking.join(60)
    assert other[-1] == "[DONE]", router.log


def test_a_killed_router_leaves_the_unit_and_the_next_one_takes_it_over(tmp_path: Path, host: Host) -> None:
    config = host.configuration()
    with running(tmp_path, config, leave=True) as first:
        with first.client() as client:
            ask(client, "awq-b")
        before = shown("sglang.service", "InvocationID")
        first.stop(signal.SIGKILL)
    assert host.running() == {"sglang"}
    until(lambda: not followers(), "journalctl outlives the router that followed a journal with it")
    with running(tmp_path, config) as second, second.client() as client:
        until(lambda: loaded(second) == {"awq-b"}, second.log)
        assert text_of(ask(client, "awq-b"))
        assert shown("sglang.service", "InvocationID") == before
        ask(client, "gguf-c")
        assert host.running() == {"llamacpp"}
    assert host.running() == set()


def followers() -> list[str]:
    found = subprocess.run(["pgrep", "--full", "journalctl .*--follow"], check=False, capture_output=True, text=True)
    return found.stdout.split()


def test_a_unit_that_the_operator_started_is_taken_over_if_it_serves_a_model(tmp_path: Path, host: Host) -> None:
    systemctl("start", "tabbyapi.service", "sglang.service")
    before = shown("tabbyapi.service", "InvocationID")
    with httpx2.Client(trust_env=False) as client:
        until(lambda: answers(client, host.tabby_port), "TabbyAPI does not come up")
    systemctl("stop", "sglang.service")
    with running(tmp_path, host.configuration()) as router, router.client() as client:
        until(lambda: loaded(router) == {"monstral"}, router.log)
        assert text_of(ask(client, "monstral"))
        assert shown("tabbyapi.service", "InvocationID") == before


def answers(client: httpx2.Client, port: int) -> bool:
    try:
        return client.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_unit_that_nobody_asked_for_makes_room(tmp_path: Path, host: Host) -> None:
    host.unit("llamacpp.service", "/bin/sleep 1000")
    systemctl("start", "llamacpp.service")
    config = host.configuration()
    config["models"]["gguf-c"]["script"] = str(host.folder / "start_awq-a.sh")
    with running(tmp_path, config) as router, router.client() as client:
        assert host.running() == {"llamacpp"}
        assert "llamacpp.service runs, but not as a model of the configuration" in router.log
        ask(client, "awq-a")
        assert host.running() == {"sglang"}


def test_the_operators_own_stop_is_noticed(router: RunningRouter, host: Host) -> None:
    with router.client() as client:
        ask(client, "awq-a")
        systemctl("stop", "sglang.service")
        until(lambda: not loaded(router), router.log)
        assert text_of(ask(client, "awq-a"))


def test_stop_means_stop_also_for_a_unit_that_always_restarts(router: RunningRouter, host: Host) -> None:
    with router.client() as client:
        ask(client, "gguf-c")
        ask(client, "awq-a")
        assert host.running() == {"sglang"}
        # Longer than its own pause before a restart.
        time.sleep(0.3)
        assert host.running() == {"sglang"}


def test_a_crash_of_a_unit_that_always_restarts_is_the_routers_to_deal_with(router: RunningRouter, host: Host) -> None:
    with router.client() as client:
        ask(client, "gguf-c")
        systemctl("kill", "--signal=KILL", "llamacpp.service")
        until(lambda: "gguf-c" not in loaded(router), router.log)
        assert text_of(ask(client, "gguf-c"))
    assert host.running() == {"llamacpp"}


def test_a_unit_that_is_deaf_is_killed_after_its_grace(tmp_path: Path, host: Host) -> None:
    command = f"/bin/sh -c 'trap \"\" TERM; exec {host.sglang('awq-a')}'"
    host.unit("sglang.service", command, extra="Environment=FAKE_TRAP=deaf")
    config = host.configuration()
    config["models"] = {name: config["models"][name] for name in ("awq-a", "gguf-c")}
    del config["models"]["awq-a"]["script"]
    config["backends"]["sglang"]["grace"] = 0.3
    with running(tmp_path, config) as router, router.client() as client:
        ask(client, "awq-a")
        ask(client, "gguf-c")
        assert host.running() == {"llamacpp"}
        assert shown("sglang.service", "ActiveState") == "inactive"


def test_a_missing_script_costs_the_resident_nothing(router: RunningRouter, host: Host) -> None:
    (host.folder / "start_awq-b.sh").unlink()
    with router.client() as client:
        ask(client, "awq-a")
        before = shown("sglang.service", "InvocationID")
        refused = client.post("/v1/chat/completions", json=chat("awq-b", stream=False))
        assert refused.status_code == 503
        assert "there is no script" in refused.json()["error"]["message"]
        assert shown("sglang.service", "InvocationID") == before


def test_a_stranger_on_the_port_costs_the_resident_nothing(router: RunningRouter, host: Host) -> None:
    with socket.create_server(("127.0.0.1", host.tabby_port)), router.client() as client:
        ask(client, "awq-a")
        refused = client.post("/v1/chat/completions", json=chat("monstral", stream=False))
        assert f"its port {host.tabby_port} is in use by" in refused.json()["error"]["message"]
        assert host.running() == {"sglang"}


def test_a_broken_configuration_of_tabbyapi_is_named_by_line_and_left_alone(router: RunningRouter, host: Host) -> None:
    broken = "model:\n  model_name: [a\n"
    host.config_yml.write_text(broken)
    with router.client() as client:
        refused = client.post("/v1/chat/completions", json=chat("monstral", stream=False))
    assert refused.status_code == 503
    assert "config.yml, line 3" in refused.json()["error"]["message"]
    assert host.config_yml.read_text() == broken


def test_a_missing_unit_is_named(tmp_path: Path, host: Host) -> None:
    config = host.configuration()
    config["backends"]["sglang"]["service"] = "sglong.service"
    with running(tmp_path, config) as router, router.client() as client:
        refused = client.post("/v1/chat/completions", json=chat("awq-a", stream=False))
    assert "cannot use sglong.service: there is no such unit" in refused.json()["error"]["message"]


def test_a_unit_that_fails_tells_its_cause(tmp_path: Path, host: Host) -> None:
    host.unit("sglang.service", host.sglang("awq-a"), extra="Environment=FAKE_TRAP=oom")
    with running(tmp_path, host.configuration()) as router, router.client() as client:
        refused = client.post("/v1/chat/completions", json=chat("awq-a", stream=False))
    assert "mem-fraction-static" in refused.json()["error"]["message"], refused.text


def test_a_new_key_is_used_from_the_next_request_on(router: RunningRouter, host: Host) -> None:
    with router.client() as client:
        ask(client, "monstral")
        (host.tabby / "api_tokens.yml").write_text("api_key: [second-key]\nadmin_key: the-admin\n")
        refused = client.post("/v1/chat/completions", json=chat("monstral", stream=False))
        # The fake reads its keys only at its start, so it shows that the new one was sent.
        assert "Invalid API key" in refused.text


def test_a_unit_that_asks_for_a_key_is_given_the_configured_one(tmp_path: Path, host: Host) -> None:
    host.unit("sglang.service", f"{host.sglang('awq-a')} --api-key of-the-unit")
    (tmp_path / "key").write_text("of-the-unit\n")
    config = host.configuration()
    config["models"] = {"awq-a": {"backend": "sglang"}, "gguf-c": {"backend": "llamacpp"}}
    config["backends"]["sglang"]["key"] = f"file:{tmp_path / 'key'}"
    systemctl("start", "sglang.service")
    before = shown("sglang.service", "InvocationID")
    with running(tmp_path, config, leave=True) as first, first.client() as client:
        until(lambda: loaded(first) == {"awq-a"}, first.log)
        assert text_of(ask(client, "awq-a"))
        assert shown("sglang.service", "InvocationID") == before
        first.stop(signal.SIGKILL)
    with running(tmp_path, config) as second, second.client() as client:
        until(lambda: loaded(second) == {"awq-a"}, second.log)
        assert text_of(ask(client, "awq-a"))
        assert shown("sglang.service", "InvocationID") == before
        ask(client, "gguf-c")
        assert text_of(ask(client, "awq-a"))
        assert "of-the-unit" not in second.log


def test_a_unit_whose_key_nobody_told_says_where_to_write_it(tmp_path: Path, host: Host) -> None:
    host.unit("sglang.service", f"{host.sglang('awq-a')} --api-key of-the-unit")
    config = host.configuration()
    del config["models"]["awq-a"]["script"]
    with running(tmp_path, config) as router, router.client() as client:
        refused = client.post("/v1/chat/completions", json=chat("awq-a", stream=False))
        message = refused.json()["error"]["message"]
        assert "asks for a key: write it as `key` at its backend" in message
        assert "of-the-unit" not in message + router.log
