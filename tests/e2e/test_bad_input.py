"""Bad input gets a clear error in OpenAI's form, and the next request works."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from support.router import Json, RunningRouter, ask, chat, configuration, running, says, text_of

pytestmark = [pytest.mark.real, pytest.mark.slow]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, shelf: Callable[..., Path]) -> Iterator[RunningRouter]:
    models = {"alpha": shelf("alpha"), "beta": shelf("beta")}
    with running(tmp_path_factory.mktemp("router"), configuration(models, max_body="1MiB")) as router:
        yield router


@pytest.fixture(scope="module")
def client(router: RunningRouter) -> Iterator[httpx2.Client]:
    with router.client() as client:
        yield client


def works(client: httpx2.Client) -> None:
    assert text_of(ask(client, "alpha")) == says("alpha")


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"{not json", 400, "JSON"),
        (b"[1, 2]", 400, "object"),
        (b"", 400, "JSON"),
        (b"\xff\xfe{}", 400, "JSON"),
        (b'{"messages": []}', 400, "name one in `model`"),
        (b'{"model": 5, "messages": []}', 400, "model"),
        (b'{"model": null, "messages": []}', 400, "model"),
        (b'{"model": "alpha", "stream": "yes"}', 400, "stream"),
        (b'{"model": "alhpa", "messages": []}', 404, "did you mean alpha"),
        (b'{"model": "../../etc/passwd", "messages": []}', 404, "cannot find the model"),
        (b'{"model": "alpha", "messages": "' + b"x" * 1_100_000 + b'"}', 413, "larger than 1048576 bytes"),
    ],
)
def test_bad_bodies(client: httpx2.Client, body: bytes, status: int, part: str) -> None:
    answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert part in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    works(client)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"POST " + CHAT.encode() + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: x\r\n\r\nZZ\r\nxx\r\n", 400),
        (b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
        (
            b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST " + CHAT.encode() + b" HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 50_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_bad_framing(router: RunningRouter, client: httpx2.Client, request_bytes: bytes, status: int) -> None:
    host, port = router.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(request_bytes)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert json.loads(body)["error"]["message"].startswith("cannot ")
    works(client)


def test_unknown_paths_and_methods(client: httpx2.Client) -> None:
    unknown = client.get("/nothing/here")
    assert unknown.status_code == 404
    assert "cannot find /nothing/here" in unknown.json()["error"]["message"]
    wrong = client.get(CHAT)
    assert wrong.status_code == 405
    assert "POST" in wrong.json()["error"]["message"]
    works(client)


def test_a_page_of_another_site_cannot_steer_the_router(client: httpx2.Client) -> None:
    evil = {"origin": "https://evil.example", "content-type": "text/plain"}
    assert client.post("/models/unload", content=b'{"model": "alpha"}', headers=evil).status_code == 403
    assert client.post(CHAT, json=chat("alpha"), headers=evil).status_code == 403
    near = {"origin": "http://localhost:3000"}
    allowed = client.post(CHAT, json=chat("alpha", stream=False), headers=near)
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_model_that_cannot_load_says_why_and_costs_the_resident_nothing(
    tmp_path: Path, shelf: Callable[..., Path]
) -> None:
    good = shelf("alpha")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(good.read_bytes()[:100_000])
    config = configuration({"alpha": good, "missing": tmp_path / "nowhere.gguf", "cut": cut})
    with running(tmp_path, config) as router, router.client() as client:
        works(client)
        before = router.status()["instances"]
        for name, part in (("missing", "nowhere.gguf"), ("cut", "cut.gguf")):
            answer = client.post(CHAT, json=chat(name))
            assert answer.status_code == 503
            assert answer.headers["x-should-retry"] == "false"
            error = answer.json()["error"]
            assert error["code"] == "model_load_failed"
            assert part in error["message"]
        after = router.status()["instances"]
        assert [one["id"] for one in after] == [one["id"] for one in before]
        assert {failure["model"] for failure in router.status()["failures"]} == {"missing", "cut"}
        works(client)


def test_a_bad_configuration_names_line_cause_and_suggestion(tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text(
        "server:\n  prot: 8002\nmodels:\n  alpha: {backend: llamacpp, path: /x.gguf}\n  beta: {backend: llamacpp, pth: y}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "llm_router", "config", "check", "--config", str(tmp_path / "bad.yml")],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode != 0
    told = done.stdout + done.stderr
    for part in ("bad.yml:2", "Did you mean 'port'?", "bad.yml:5", "Did you mean 'path'?"):
        assert part in told, told
    served = subprocess.run(
        [sys.executable, "-m", "llm_router", "serve", "--config", str(tmp_path / "bad.yml")],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert served.returncode != 0
    assert "bad.yml:2" in served.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    config: Json = configuration({"alpha": shelf("alpha")}, state_dir=str(tmp_path / "state"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config["server"]["port"] = taken.getsockname()[1]
        (tmp_path / "c.yml").write_text(json.dumps(config))
        done = subprocess.run(
            [sys.executable, "-m", "llm_router", "serve", "--config", str(tmp_path / "c.yml")],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {config['server']['port']}" in done.stderr


def test_two_routers_do_not_share_a_state_folder(tmp_path: Path, shelf: Callable[..., Path]) -> None:
    with running(tmp_path, configuration({"alpha": shelf("alpha")})) as router:
        done = subprocess.run(
            [sys.executable, "-m", "llm_router", "serve", "--config", str(tmp_path / "llm-router.json.yml"), "--port", "0"],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 1
        assert f"(pid {router.process.pid})" in done.stderr
