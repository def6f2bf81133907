import pytest
from msgspec import structs

from llm_router.config import shelf
from llm_router.config.load import Config, parse
from llm_router.core.words import HOST_DEVICE, DeviceId, Footprint, Model, Needs, Settings

CARDS = (DeviceId("GPU-aa1"), DeviceId("GPU-ab2"))
GIB = 1024**3


def config(text: str) -> Config:
    return parse(text, "x.yml", {"HOME": "/home/me"}, lambda path: path, ["llamacpp", "command"], folder="/etc/r")


def model(line: str, devices: tuple[DeviceId, ...] = CARDS) -> Model:
    (found,) = shelf.models(config(f"models: {{m: {{command: x, {line}}}}}"), devices)
    return found


def test_the_defaults_of_the_file_are_those_of_the_scheduler() -> None:
    assert shelf.settings(config("models: {}")) == Settings()


def test_every_setting_of_the_scheduler_can_be_written() -> None:
    fields = structs.fields(Settings)
    names = {field.name: field.name.removesuffix("_s") for field in fields}
    text = "scheduler:\n" + "".join(f"  {name}: {40 + n}\n" for n, name in enumerate(names.values()))
    found = shelf.settings(config(text))
    assert [getattr(found, field.name) for field in fields] == [40 + n for n in range(len(fields))]


def test_a_model_for_the_scheduler() -> None:
    text = (
        "pin: true, preload: true, default: true, idle: 5m, priority: 3, concurrency: 2, on_demand: false, memory: 2GiB"
    )
    found = model(text)
    revision = found.revision
    assert structs.replace(found, revision="") == structs.replace(
        Model(name=found.name, needs=Needs(None, Footprint(2 * GIB)), pin=True, preload=True, default=True),
        idle_s=300.0,
        priority=3,
        concurrency=2,
        on_demand=False,
    )
    assert len(revision) == 16
    (slow,) = shelf.models(config("models: {m: {command: x}}"), CARDS, {"m": 42.0, "gone": 1.0})
    assert slow.load_s == 42.0


@pytest.mark.parametrize(
    ("written", "devices", "needs"),
    [
        ("all", CARDS, None),
        ("2", CARDS, 2),
        ("0", CARDS, 0),
        ("[1, 0]", CARDS, (CARDS[1], CARDS[0])),
        ("[7]", CARDS, ("GPU 7",)),
        ("[GPU-ab]", CARDS, (CARDS[1],)),
        ("[GPU-a]", CARDS, ("GPU-a",)),
        ("4", (HOST_DEVICE,), (HOST_DEVICE,)),
        ("[0]", (HOST_DEVICE,), (HOST_DEVICE,)),
        ("[1]", (HOST_DEVICE,), ("GPU 1",)),
        ("0", (HOST_DEVICE,), 0),
    ],
)
def test_where_it_can_live(written: str, devices: tuple[DeviceId, ...], needs: object) -> None:
    assert model(f"gpus: {written}", devices).needs == Needs(needs)  # type: ignore[arg-type]  # the table's third column


BASE = "backends: {b: {engine: llamacpp}}\nmodels: {m: {backend: b, path: p}}"


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace("path: p", "path: q"),
        BASE.replace("path: p", "path: p, context: 5"),
        BASE.replace("path: p", "path: p, args: {x: 1}"),
        BASE.replace("path: p", "path: p, env: {X: 1}"),
        BASE.replace("path: p", "path: p, gpus: 1"),
        BASE.replace("engine: llamacpp", "engine: llamacpp, port: 5"),
        BASE.replace("engine: llamacpp", "engine: llamacpp, args: {x: 1}"),
        BASE.replace("engine: llamacpp", "engine: llamacpp, dir: /x"),
    ],
)
def test_what_makes_another_instance_changes_the_revision(text: str) -> None:
    assert shelf.revision(config(text), "m") != shelf.revision(config(BASE), "m")


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace(
            "path: p", "path: p, idle: 5m, pin: true, aliases: [a], description: d, priority: 2, load_timeout: 9"
        ),
        BASE.replace("path: p", "path: p, request: {drop: [top_k]}, hidden: true, memory: 5GiB"),
        BASE.replace("engine: llamacpp", "engine: llamacpp, grace: 5, load_timeout: 5"),
        "server: {port: 1}\n" + BASE + "\nscheduler: {linger: 5}",
        BASE.replace("{m:", "{other: {command: x}, m:"),
    ],
)
def test_what_only_changes_its_treatment_does_not(text: str) -> None:
    assert shelf.revision(config(text), "m") == shelf.revision(config(BASE), "m")


def test_a_job() -> None:
    text = """
backends:
  b: {engine: llamacpp, dir: ~/llama, command: [bin/llama-server, --x], model_dir: ../models, host: 127.0.0.3,
      args: {threads: 4, mlock: true}, env: {A: 1, B: 2}, cwd: /tmp}
models:
  m: {backend: b, path: a.gguf, context: 4096, parallel: 2, args: {threads: 8}, env: {B: 3}, cwd: ./here, health: /up}
"""
    found = shelf.job(
        config(text), "m", port=4, devices=[1], device_ids=[CARDS[1]], directory="/d", key="k", flags=frozenset({"-m"})
    )
    assert found.command == ("/home/me/llama/bin/llama-server", "--x")
    assert (found.path, found.model_dir, found.home) == ("a.gguf", "/etc/models", "/home/me/llama")
    assert (found.host, found.port, found.context, found.parallel, found.health) == ("127.0.0.3", 4, 4096, 2, "/up")
    assert found.options == {"threads": 8, "mlock": True}
    assert found.env == {"A": "1", "B": "3"}
    assert found.cwd == "/etc/r/here"
    assert (found.devices, found.device_ids) == ((1,), (CARDS[1],))
    assert (found.directory, found.key, found.flags) == ("/d", "k", frozenset({"-m"}))


@pytest.mark.parametrize(
    ("backend", "entry", "command"),
    [
        ("", "", ()),
        ("command: llama-server", "", ("llama-server",)),
        ("command: ./a/b", "", ("/etc/r/a/b",)),
        ("command: a/b, dir: /opt/x", "", ("/opt/x/a/b",)),
        ("command: ./a/b, dir: /opt/x", "", ("/etc/r/a/b",)),
        ("command: /a/b, dir: /opt/x", "", ("/a/b",)),
        ("command: a, dir: /opt/x", "command: ~/mine/c", ("/home/me/mine/c",)),
        ("dir: /opt/x", "command: mine/c", ("/etc/r/mine/c",)),
    ],
)
def test_where_the_program_is(backend: str, entry: str, command: tuple[str, ...]) -> None:
    found = config(f"backends: {{b: {{engine: llamacpp, {backend}}}}}\nmodels: {{m: {{backend: b, path: p, {entry}}}}}")
    assert shelf.command(found, "m") == command


@pytest.mark.parametrize(
    ("written", "model_dir", "path"),
    [
        ("/models/a.gguf", None, "/models/a.gguf"),
        ("~/a.gguf", "/models", "/home/me/a.gguf"),
        ("./a.gguf", None, "/etc/r/a.gguf"),
        ("../../../a.gguf", None, "/a.gguf"),
        ("./a.gguf", "/models", "./a.gguf"),
        ("owner/name", None, "owner/name"),
    ],
)
def test_where_the_model_is(written: str, model_dir: str | None, path: str) -> None:
    more = f", model_dir: {model_dir}" if model_dir else ""
    found = config(f"backends: {{b: {{engine: llamacpp{more}}}}}\nmodels: {{m: {{backend: b, path: {written}}}}}")
    assert shelf.job(found, "m", port=1, directory="/d").path == path


def test_suggestions() -> None:
    found = config("models: {qwen-7b: {command: x, aliases: [qwen]}, qwen-14b: {command: x}, mistral: {command: x}}")
    assert shelf.suggestions(found, "qwn-7b") == ["qwen-7b", "qwen-14b"]
    assert shelf.suggestions(found, "MISTRAL") == ["mistral"]
    assert shelf.suggestions(found, "zzz") == []
    assert shelf.suggestions(config("models: {}"), "x") == []


def parked(line: str) -> Model:
    text = f"models: {{m: {{backend: vllm, path: /m, {line}}}}}"
    loaded = parse(text, "x.yml", {"HOME": "/home/me"}, lambda path: path, ["vllm"], folder="/etc/r")
    (found,) = shelf.models(loaded, CARDS, {}, {"m": 7.0})
    return found


def test_a_model_that_sleeps_keeps_something() -> None:
    assert not parked("memory: 20GiB").parkable
    assert parked("memory: 20GiB").needs.footprint == Footprint(20 * GIB)
    sleeper = parked("memory: 20GiB, park: true")
    assert sleeper.parkable
    assert sleeper.wake_s == 7.0
    assert sleeper.needs.footprint == Footprint(20 * GIB, 3 * GIB)
    assert parked("memory: 20GiB, park: true, parked_memory: 1GiB").needs.footprint == Footprint(20 * GIB, 1 * GIB)
    assert parked("memory: 2GiB, park: true").needs.footprint == Footprint(2 * GIB, 2 * GIB)
    assert parked("park: true").revision != parked("park: false").revision
