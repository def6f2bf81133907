import pytest

from llm_router.config.explain import dotted
from llm_router.config.load import parse
from llm_router.config.problems import ConfigError


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yml", {}, lambda path: path, ["llamacpp", "command"])
    (found,) = caught.value.problems
    return str(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "server: {}\nrouter_port: 1",
            "cannot use 'router_port' beside 'server' (x.yml:1:1): the one belongs to an older",
        ),
        ("scheduler: {router_port: 1}", "scheduler has no such key. Write it as `port` under `server`"),
        ("scheduler: {max_wiat: 5}", "scheduler has no such key. Did you mean 'max_wait'?"),
        ("backends: {b: {engine: llamacpp, modeldir: x}}", "backends.b has no such key. Did you mean 'model_dir'?"),
        ("backends: {b: {engine: llamacpp, load-timeout: 1}}", "Did you mean 'load_timeout'?"),
        ("models: {m: {command: x, model_path: y}}", "and a file has one of them. Write it as `path`"),
        ("models: {m: {command: x, request: {forse: {}}}}", "models.m.request has no such key. Did you mean 'force'?"),
        ("models: {m: {command: x, ttl: 5}}", "Write it as `idle`"),
        ("models: {m: {command: x, zzzzzz: 5}}", "models.m has no such key"),
        ("models: {m: {command: x, context: 24k}}", "cannot use '24k' as models.m.context: it must be a whole number"),
        ("models: {m: {command: x, context: 1.5}}", "cannot use 1.5 as models.m.context: it must be a whole number"),
        ("models: {m: {command: x, pin: 1}}", "cannot use 1 as models.m.pin: it must be true or false"),
        ("models: {m: {command: x, path: 5}}", "cannot use 5 as models.m.path: it must be text (put it in quotes)"),
        ("models: {m: {command: x, aliases: b}}", "cannot use 'b' as models.m.aliases: it must be a list"),
        ("models: {m: {command: x, aliases: [true]}}", "cannot use true as models.m.aliases[1]: it must be text"),
        ("models: {m: {command: x, args: [a]}}", "cannot use a list as models.m.args: it must be a section"),
        ("models: {m: 5}", "cannot use 5 as models.m: it must be a section of its own"),
        ("models: [a]", "cannot use a list as models: it must be a section"),
        ("server: {port: {a: 1}}", "cannot use a section as server.port: it must be a whole number"),
        ("server: {host: }", "cannot use an empty value as server.host: it must be text"),
        (
            "server: {log_level: inof}",
            "cannot use 'inof' as server.log_level: it must be 'debug', 'info', 'warning' or 'error'. Did you mean 'info'?",
        ),
        ("server: {log_level: zzz}", "it must be 'debug', 'info', 'warning' or 'error'"),
        ("server: {load_timeout: 0}", "cannot use this value of server.load_timeout: it must be greater than 0"),
        ("server: {max_body: lots}", "cannot use this value of server.max_body: 'lots' is no size"),
        ("server: {host: " + "[" + "x, " * 5 + "]}", "cannot use a list as server.host"),
        (f"server: {{port: {'x' * 500}}}", "xxx... as server.port"),
    ],
)
def test_each_kind_of_mistake_in_plain_words(text: str, said: str) -> None:
    assert said in problem(text)


def test_paths_as_people_write_them() -> None:
    assert dotted(("server", "keys", 1, "name")) == "server.keys[2].name"
    assert dotted(()) == ""
