import pytest

from llm_router.config.load import Config, parse
from llm_router.config.problems import ConfigError


def config(text: str) -> Config:
    return parse(text, "x.yml", {}, lambda path: path, ["llamacpp", "sglang", "command"])


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config(text)
    (found,) = caught.value.problems
    return str(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {host: 0.0.0.0}", "x.yml:1:16: cannot listen on 0.0.0.0 without keys"),
        ("server: {also_listen: [127.0.0.2, 172.17.0.1]}", "cannot listen on 172.17.0.1 without keys"),
        ("server: {host: 0.0.0.0, allow_remote: true}", "say both `allow_remote: true` and `insecure: true`"),
        ("server: {host: chat.example, insecure: true}", "cannot listen on chat.example without keys"),
        ("scheduler: {quantum_min: 5m}", "x.yml:1:26: cannot use scheduler.quantum_min: it is longer"),
        ("scheduler: {quantum_max: 1}", "x.yml:1:26: cannot use scheduler.quantum_min: it is longer"),
        (
            "backends: {lamacpp: {}}",
            "x.yml:1:12: cannot use 'lamacpp': there is no such engine. Did you mean 'llamacpp'? A backend with",
        ),
        (
            "backends: {x: {engine: slang}}",
            "x.yml:1:24: cannot use 'slang': there is no such engine. Did you mean 'sglang'?",
        ),
        ("backends: {llamacpp: {port: 8002}}", "cannot use port 8002 twice: the router listens on it"),
        ("models: {' a': {command: x}}", "cannot use ' a' as a model's name"),
        ("models: {'': {command: x}}", "cannot use '' as a model's name"),
        ('models: {"a\\nb": {command: x}}', "as a model's name"),
        (f"models: {{{'a' * 201}: {{command: x}}}}", "as a model's name"),
        ("models: {a: {command: x, aliases: ['b ']}}", "x.yml:1:36: cannot use 'b ' as an alias"),
        (
            "models: {a: {path: x}}",
            "cannot serve the model 'a': it names no `backend`. Known here: command, llamacpp, sglang",
        ),
        ("models: {a: {backend: lama, path: x}}", "there is no backend 'lama'. Did you mean 'llamacpp'?"),
        ("backends: {mine: {engine: sglang}}\nmodels: {a: {backend: mien, path: x}}", "Did you mean 'mine'?"),
        ("models: {a: {backend: llamacpp}}", "cannot serve the model 'a': it lacks `path`"),
        ("models: {a: {backend: command}}", "cannot serve the model 'a': it lacks `command`"),
        (
            "models: {a: {command: x, parallel: 4, concurrency: 2}}",
            "cannot use concurrency 2: fewer requests than the 4",
        ),
        (
            "models: {a: {command: x}, b: {command: x, aliases: [a]}}",
            "cannot use the alias 'a' for 'b': it is a model's name already",
        ),
        ("models: {a: {command: x, aliases: [a]}}", "cannot use the alias 'a' for 'a': it is a model's name already"),
        (
            "models: {a: {command: x, aliases: [c, c]}}",
            "x.yml:1:39: cannot use the alias 'c' for 'a': it is an alias of 'a' already",
        ),
        ("models: {a: {command: x, aliases: [c]}, b: {command: x, aliases: [c]}}", "it is an alias of 'a' already"),
        ("models: {a: {command: x, default: true}, b: {command: x, default: true}}", "'a' is the default already"),
    ],
)
def test_what_does_not_go_together(text: str, said: str) -> None:
    assert said in problem(text)


@pytest.mark.parametrize(
    "text",
    [
        "server: {host: localhost}",
        "server: {host: '::1'}",
        "server: {host: 127.0.0.2}",
        "server: {host: 0.0.0.0, keys: ['sha256:" + "0" * 64 + "']}",
        "models: {a: {backend: llamacpp, args: {hf-repo: owner/name}}}",
        "backends: {command: {command: [x]}}\nmodels: {a: {backend: command}}",
        "models: {owner/name-7b.Q4: {command: x}}",
    ],
)
def test_what_does(text: str) -> None:
    assert all("no models" in warning.text for warning in config(text).warnings)


def test_warnings() -> None:
    text = "server: {host: 0.0.0.0, allow_remote: true, insecure: true}\nmodels: {a: {command: x, pin: true, idle: 5}}"
    opened, pinned = (str(warning) for warning in config(text).warnings)
    assert opened.startswith("x.yml:1:16: the router listens beyond this machine without keys. Add `keys` (an older")
    assert pinned == "x.yml:2:43: 'a' is pinned: it is unloaded when idle all the same"


@pytest.mark.parametrize(
    "text",
    [
        "models: {m: {backend: llamacpp, path: /m.gguf, park: true}}",
        "models: {m: {command: x, park: true}}",
        "{backends: {sglang: {port: 1, service: sglang}}, models: {m: {backend: sglang, path: /m, park: true}}}",
    ],
)
def test_only_what_can_sleep_may_be_parked(text: str) -> None:
    assert "cannot park the model 'm': its engine cannot sleep while its process lives" in problem(text)


def test_sglang_may_be_parked() -> None:
    assert config("models: {m: {backend: sglang, path: /m, park: true}}").models["m"].park
