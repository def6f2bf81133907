"""The ordinary door, in process, with the views of a made-up state."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from starlette.testclient import TestClient

from llm_router.config.difference import Difference
from llm_router.config.load import Config, parse
from llm_router.config.problems import ConfigError, Place, Problem
from llm_router.core.instance import State
from llm_router.core.snapshot import DeviceView, InstanceView, ModelView, Snapshot
from llm_router.core.words import HOST_DEVICE, Failure, FailureKind, InstanceId, ModelName
from llm_router.doors import api
from llm_router.doors.keys import Guard
from llm_router.doors.reloaded import Reloaded
from llm_router.doors.views import Running, Views
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Format, Kind
from llm_router.host.machine.gpus import Gauge

CONFIG = """
models:
  alpha: {backend: llamacpp, path: /a.gguf, aliases: [a, "gpt-4"], context: 8192, description: "The *first*",
          capabilities: {builtin_tools: false}}
  beta: {backend: llamacpp, path: /b.gguf}
  org/gamma: {backend: command, command: [x], hidden: true}
"""
ALPHA, BETA, GAMMA = ModelName("alpha"), ModelName("beta"), ModelName("org/gamma")


def config(text: str = CONFIG) -> Config:
    return parse(text, "x.yml", {"HOME": "/"}, lambda path: path, ["llamacpp", "command"])


def model(name: ModelName, state: State = State.gone, **more: object) -> ModelView:
    fields: dict[str, object] = {"waiting": 0, "background": 0, "leases": 0, "pin": False, "default": False}
    return ModelView(name=name, state=state, instance=None, **{**fields, **more})  # type: ignore[arg-type]


STATE = Snapshot(
    now=100.0,
    models=(
        model(ALPHA, State.ready, leases=2, load_s=41.26),
        model(BETA, State.checking, waiting=3, background=1, waited_s=4.0, phase="loading weights", percent=40.04, left_s=20.0),
        model(
            GAMMA,
            failure=Failure(FailureKind.out_of_memory, "out of memory on GPU 0", ("last line",)),
            barred=True,
            retry_in_s=250.0,
        ),
    ),
    instances=(
        InstanceView(InstanceId("alpha#1"), ALPHA, State.ready, (HOST_DEVICE,), 40.0, 2, None, ready_at=50.0),
        InstanceView(
            InstanceId("beta#2"), BETA, State.checking, (HOST_DEVICE,), 90.0, 0, None, "loading weights", 40.04, 20.0
        ),
    ),
    devices=(DeviceView(HOST_DEVICE, 2**34, 0, False, ()),),
    waiting=4,
    leases=2,
    closing=False,
    finished=False,
)  # fmt: skip


@dataclass
class House:
    """What the operator asked for."""

    wishes: list[tuple[str, ...]] = field(default_factory=list)
    guard: Guard = field(default_factory=lambda: Guard(()))
    state: Snapshot = STATE
    origins: tuple[str, ...] = ()
    broken: tuple[Problem, ...] = ()

    def find(self, name: str) -> ModelName | None:
        return {"alpha": ALPHA, "a": ALPHA, "beta": BETA}.get(name)

    def nearest(self, name: str) -> list[str]:
        return ["alpha"]

    def names(self) -> list[str]:
        return ["alpha", "beta"]

    def load(self, model: ModelName) -> None:
        self.wishes.append(("load", model))

    def unload(self, model: ModelName) -> None:
        self.wishes.append(("unload", model))

    def pin(self, model: ModelName, *, pin: bool) -> None:
        self.wishes.append(("pin", model, str(pin)))

    async def reload(self) -> Reloaded:
        self.wishes.append(("reload",))
        if self.broken:
            raise ConfigError(self.broken)
        return Reloaded(
            Difference(added=("gamma",), needs_restart=("server.port",)), [Problem(Place("x.yml"), "look out")]
        )


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("LLM_ROUTER_GPUS", "none")
    return House()


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    gauge = Gauge()

    def views() -> Views:
        return Views(
            config=config(),
            snapshot=lambda: house.state,
            running=lambda name: Running(4711, 99) if name == "alpha#1" else None,
            gauge=gauge,
            address="http://127.0.0.1:8002",
            started=1000.0,
            clock=lambda: 1060.04,
            about={
                "alpha": Recognised(
                    "alpha",
                    "/a.gguf",
                    Format.gguf,
                    Kind.chat,
                    7_241_732_096,
                    context=32768,
                    size=123,
                    quantisation="Q4_K_M",
                )
            },
        )

    app = api.build(api.Door(house, views, lambda: house.guard, lambda: house.origins, house.reload))
    with TestClient(
        app, base_url="http://127.0.0.1:8002", client=("127.0.0.1", 5), raise_server_exceptions=False
    ) as client:
        yield client


def test_the_list_has_what_clients_read(client: TestClient) -> None:
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    alpha, beta = body["data"]
    assert alpha == {
        "id": "alpha",
        "object": "model",
        "created": 1000,
        "owned_by": "llm-router",
        "loaded": True,
        "status": {"value": "loaded"},
        "engine": "llamacpp",
        "aliases": ["a", "gpt-4"],
        "max_model_len": 8192,
        "context_length": 8192,
        "size": 123,
        "format": "gguf",
        "details": {"parameter_size": "7.2B", "quantization_level": "Q4_K_M"},
        "info": {"meta": {"description": "The *first*", "capabilities": {"builtin_tools": False}}},
    }
    assert (beta["loaded"], beta["status"]) == (False, {"value": "loading"})
    assert client.get("/models").json() == body


def test_no_value_is_null_in_the_list(client: TestClient) -> None:
    assert "null" not in client.get("/v1/models").text


def test_a_list_that_did_not_change_is_not_sent_again(client: TestClient, house: House) -> None:
    tag = client.get("/v1/models").headers["etag"]
    again = client.get("/v1/models", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    house.state = replace(STATE, models=(model(ALPHA), *STATE.models[1:]))
    assert client.get("/v1/models", headers={"if-none-match": tag}).status_code == 200


def test_one_model_by_name_alias_or_hidden_name(client: TestClient) -> None:
    assert client.get("/v1/models/alpha").json()["id"] == "alpha"
    assert client.get("/v1/models/gpt-4").json()["id"] == "alpha"
    assert client.get("/v1/models/org/gamma").json()["id"] == "org/gamma"
    missing = client.get("/v1/models/alpah")
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == "cannot find the model 'alpah'; did you mean alpha?"


def test_health_never_lies(client: TestClient, house: House) -> None:
    told = client.get("/health").json()
    assert told["status"] == "ok"
    assert told["current_model"] == "alpha"
    assert told["loaded"] == ["alpha"]
    assert told["loading"] == [{"model": "beta", "phase": "loading weights", "percent": 40.0, "left_s": 20.0}]
    assert told["failed"] == ["org/gamma"]
    assert (told["waiting"], told["running"]) == (4, 2)
    assert told["models"] == ["alpha", "beta", "org/gamma"]
    assert told["backends"] == ["command", "llamacpp"]
    house.state = replace(STATE, closing=True)
    assert client.get("/health").json()["status"] == "stopping"


def test_the_status_has_everything_a_page_shows(client: TestClient) -> None:
    told = client.get("/api/status").json()
    assert told["router"]["uptime_s"] == 60.0
    assert [entry["state"] for entry in told["models"]] == ["ready", "checking", "gone"]
    assert told["models"][0]["last_load_s"] == 41.3
    alpha, beta = told["instances"]
    assert (alpha["port"], alpha["pid"], alpha["running_s"], alpha["percent"]) == (4711, 99, 50.0, None)
    assert (beta["port"], beta["percent"], beta["left_s"], beta["since_s"]) == (None, 40.0, 20.0, 10.0)
    assert told["queue"] == [{"model": "beta", "waiting": 3, "background": 1, "oldest_s": 4.0}]
    assert told["devices"][0]["name"] == "host memory"
    (failure,) = told["failures"]
    assert failure["cause"] == "out of memory on GPU 0"
    assert failure["tail"] == ["last line"]


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_loading_and_unloading(client: TestClient, house: House, prefix: str) -> None:
    assert client.post(f"{prefix}/models/load", json={"model": "a"}).status_code == 202
    assert client.post(f"{prefix}/models/unload", json={"model": "beta"}).json()["success"] is True
    assert house.wishes == [("load", "alpha"), ("unload", "beta")]


def test_pinning(client: TestClient, house: House) -> None:
    assert client.post("/api/models/pin", json={"model": "alpha"}).json()["pinned"] is True
    assert client.post("/api/models/pin", json={"model": "alpha", "pin": False}).json()["pinned"] is False
    assert house.wishes == [("pin", "alpha", "True"), ("pin", "alpha", "False")]


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b"{", 400, 'send {"model": "NAME"}'),
        (b"[]", 400, "cannot read the request"),
        (b"{}", 400, "name one in `model`"),
        (b'{"model": 5}', 400, "cannot read the request"),
        (b'{"model": "x"}', 404, "did you mean alpha"),
        (b'{"model": "' + b"x" * 70_000 + b'"}', 413, "too long"),
    ],
)
def test_bad_wishes(client: TestClient, house: House, body: bytes, status: int, part: str) -> None:
    answer = client.post("/models/load", content=body)
    assert answer.status_code == status
    assert part in answer.json()["error"]["message"]
    assert house.wishes == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(client: TestClient, house: House, headers: dict[str, str]) -> None:
    for path in ("/models/load", "/models/unload", "/api/models/pin"):
        assert client.post(path, json={"model": "alpha"}, headers=headers).status_code == 403
    assert house.wishes == []
    house.origins = ("https://evil.example",)
    mine = {"origin": "https://evil.example"}
    assert client.post("/models/load", json={"model": "alpha"}, headers=mine).status_code == 202
    own = {"origin": "http://127.0.0.1:8002", "sec-fetch-site": "same-origin"}
    assert client.post("/models/load", json={"model": "alpha"}, headers=own).status_code == 202


def test_keys_are_asked_for_when_there_are_some(client: TestClient, house: House) -> None:
    guarded = config("server: {keys: [{key: 'file:user'}, {key: 'file:admin', admin: true}]}\nmodels: {}")
    house.guard = Guard(guarded.server.keys)
    for path in ("/v1/models", "/models", "/v1/models/alpha", "/api/status"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"authorization": "Bearer user"}).status_code == 200
    assert client.get("/health").status_code == 200
    assert client.post("/models/load", json={"model": "a"}, headers={"x-api-key": "user"}).status_code == 403
    assert client.post("/models/load", json={"model": "a"}, headers={"x-api-key": "admin"}).status_code == 202


def test_a_key_sees_its_models_only(client: TestClient, house: House) -> None:
    text = (
        "server: {keys: [{key: 'file:user', models: [gpt-4, org/gamma]}, {key: 'file:admin', admin: true}]}\nmodels: {}"
    )
    house.guard = Guard(config(text).server.keys)
    user, admin = {"authorization": "Bearer user"}, {"authorization": "Bearer admin"}
    assert [entry["id"] for entry in client.get("/v1/models", headers=user).json()["data"]] == ["alpha"]
    assert [entry["id"] for entry in client.get("/v1/models", headers=admin).json()["data"]] == ["alpha", "beta"]
    assert [entry["name"] for entry in client.get("/api/tags", headers=user).json()["models"]] == ["alpha"]
    for name, status in (("alpha", 200), ("a", 200), ("org/gamma", 200), ("beta", 404)):
        assert client.get(f"/v1/models/{name}", headers=user).status_code == status
    assert client.post("/api/show", json={"model": "beta"}, headers=user).status_code == 404
    assert client.get("/api/ps").status_code == 401


def test_only_an_operator_sees_the_ends_of_logs(client: TestClient, house: House) -> None:
    house.guard = Guard(
        config("server: {keys: [{key: 'file:user'}, {key: 'file:admin', admin: true}]}\nmodels: {}").server.keys
    )
    for key, tail in (("user", []), ("admin", ["last line"])):
        told = client.get("/api/status", headers={"authorization": f"Bearer {key}"}).json()
        assert told["failures"][0]["tail"] == tail
        assert told["failures"][0]["cause"] == "out of memory on GPU 0"


def test_every_answer_names_its_request(client: TestClient, house: House) -> None:
    mine = {"x-request-id": "abc-1"}
    for path in ("/health", "/nothing", "/v1/models"):
        assert client.get(path, headers=mine).headers["x-request-id"] == "abc-1"
        made = {client.get(path).headers["x-request-id"] for _ in range(2)}
        assert len(made) == 2
    assert client.get("/health", headers={"x-request-id": "x" * 200}).headers["x-request-id"] != "x" * 200
    house.state = None  # type: ignore[assignment]
    assert client.get("/api/status", headers=mine).headers["x-request-id"] == "abc-1"


def test_models_are_not_downloaded_or_deleted(client: TestClient) -> None:
    assert "download" in client.post("/models", json={"model": "x"}).json()["error"]["message"]
    deleted = client.delete("/models?model=alpha")
    assert deleted.status_code == 405
    assert "delete" in deleted.json()["error"]["message"]


def test_unknown_paths_and_methods_are_json(client: TestClient) -> None:
    assert client.get("/nothing").json()["error"]["code"] == "not_found"
    wrong = client.post("/health")
    assert wrong.status_code == 405
    assert "GET" in wrong.json()["error"]["message"]


def test_a_fault_of_ours_is_json_too(client: TestClient, house: House) -> None:
    house.state = None  # type: ignore[assignment]
    broken = client.get("/api/status")
    assert broken.status_code == 500
    assert broken.json()["error"]["code"] == "router_fault"


def test_the_page_and_its_parts(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for part in ("/page/style.css", "/page/page.js"):
        assert part in page.text
        assert client.get(part).status_code == 200
    assert client.get("/page/..%2fapi.py").status_code == 404
    assert client.get("/page/other").status_code == 404
    assert "innerHTML" not in client.get("/page/page.js").text, "text goes in as text"


def test_a_reload_says_what_changed(client: TestClient, house: House) -> None:
    answer = client.post("/api/reload")
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "summary": "added gamma; needs a restart of the router: server.port",
        "models": {"added": ["gamma"], "removed": [], "changed": [], "adjusted": [], "unchanged": []},
        "settings": [],
        "needs_restart": ["server.port"],
        "warnings": ["x.yml:1:1: look out"],
    }
    assert house.wishes == [("reload",)]


def test_a_broken_configuration_is_told_with_every_place(client: TestClient, house: House) -> None:
    house.broken = (Problem(Place("x.yml", 2, 3), "cannot use 'a'", "Leave it"), Problem(Place("x.yml", 4), "cannot b"))
    answer = client.post("/api/reload")
    error = answer.json()["error"]
    assert answer.status_code == 422
    assert error["message"] == (
        "cannot reload, everything stays as it is: x.yml:2:3: cannot use 'a'. Leave it\nx.yml:4:1: cannot b"
    )
    assert error["problems"][0] == {
        "file": "x.yml",
        "line": 2,
        "column": 3,
        "text": "cannot use 'a'",
        "suggestion": "Leave it",
    }


def test_a_reload_is_for_operators(client: TestClient, house: House) -> None:
    assert client.post("/api/reload", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert house.wishes == []
