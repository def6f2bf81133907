"""Older layouts as they are in use: what they become, value by value, and that nothing is lost on the way."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.config import shelf
from llm_router.config.convert import convert
from llm_router.config.load import Config, parse, parse_parts
from llm_router.config.old import TABBY_ARGS
from llm_router.config.problems import ConfigError

OLD = Path(__file__).parent / "old"
#: Name of the generation -> its files as they are called, and where they lie here.
GENERATIONS = {
    "json": {"config.json": "config.json"},
    "services": {"config.yml": "etc/config.yml", "models.yml": "etc/models.yml"},
    "models": {"router.py": "router.txt"},
    "scripts": {"router.py": "router.txt"},
}
Env = Mapping[str, str]


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def installed(engine: str) -> Mapping[str, object]:
    return {"sglang": {"command": ("/opt/sglang/venv/bin/sglang",)}}.get(engine, {})


def parts(generation: str) -> list[tuple[str, str]]:
    return [(name, (OLD / generation / file).read_text()) for name, file in GENERATIONS[generation].items()]


def load(generation: str, env: Env | None = None) -> Config:
    return parse_parts(parts(generation), env or {}, no_file, installed=installed)


def config(text: str, name: str = "config.json", env: Env | None = None) -> Config:
    return parse(text, name, env or {}, no_file)


def problems(text: str, name: str = "x.yml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config(text, name)
    return [str(item) for item in caught.value.problems]


def ignored(text: str) -> list[str]:
    return [str(warning) for warning in config(text).warnings[1:-1]]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_each_generation_becomes_this(generation: str) -> None:
    assert convert(parts(generation), {}, installed) == (OLD / generation / "native.yml").read_text()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_is_converted_means_the_same(generation: str) -> None:
    before = load(generation)
    after = parse((OLD / generation / "native.yml").read_text(), "native.yml", {}, no_file)
    assert dataclasses.replace(before, warnings=()) == dataclasses.replace(after, warnings=())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_each_start_tells_what_is_old_and_open(generation: str) -> None:
    said = [warning.text for warning in load(generation).warnings]
    assert len(said) == 2
    assert said[0].startswith("this is the older ")
    assert said[1] == "the router listens beyond this machine without keys"


def test_the_json_layout_runs_each_model_with_its_own_command() -> None:
    found = load("json")
    assert (found.server.host, found.server.port, found.server.load_timeout) == ("0.0.0.0", 8002, 300)
    jobs = {name: shelf.job(found, name, port=9, directory="/run/x") for name in found.models}
    assert len({job.path for job in jobs.values()}) == 8
    sglang, tabby, llama = (
        jobs[name] for name in ("kat-dev-awq-8bit", "monstral-123b-exl2-4bpw", "behemoth-r1-123b-iq4nl")
    )
    assert (sglang.command, sglang.path) == (("/opt/sglang/venv/bin/sglang",), "/opt/models/awq/KAT-Dev-AWQ-8bit")
    assert (tabby.home, tabby.model_dir, tabby.path) == ("/opt/TabbyAPI", "/opt/models", "exl2/Monstral-123B-v2-4.0bpw")
    assert tabby.options == TABBY_ARGS
    assert (llama.command, llama.path) == ((), "/opt/models/gguf/Behemoth-R1-123B-v2-IQ4_NL.gguf")
    assert [found.backends[name].port for name in ("sglang", "tabbyapi", "llamacpp")] == [30000, 5000, 8085]
    assert found.engine_of("monstral-123b-exl2-4bpw") == "tabbyapi-exl2"


@pytest.mark.parametrize("generation", ["services", "models"])
def test_units_and_scripts_stay_the_operators(generation: str) -> None:
    found = load(generation)
    units = {name: shelf.service(found, name) for name in found.models}
    mistral, monstral = units["mistral-large-2411-awq"], units["monstral-123b-exl2-4bpw"]
    assert mistral is not None
    assert monstral is not None
    assert (mistral.unit, mistral.script) == ("sglang.service", ("/home/ann/sglang/start_mistral.sh",))
    assert (monstral.unit, monstral.script) == ("tabbyapi.service", ())
    assert monstral.served == "Monstral-123B-v2-exl2-4.0bpw"
    assert found.server.load_timeout == 180
    # One unit without a name of its own is the backend's.
    assert units["kat-dev-awq-8bit"] == dataclasses.replace(mistral, script=("/home/ann/sglang/start_katdev.sh",))


def test_the_oldest_has_scripts_and_one_port() -> None:
    found = load("scripts")
    assert (found.backends["sglang"].port, found.server.load_timeout) == (8001, 300)
    unit = shelf.service(found, "llama-3.3-70b-awq")
    assert unit is not None
    assert (unit.unit, unit.script) == ("sglang.service", ("/home/ann/sglang/start_llama33.sh",))


class TestDefaults:
    def test_of_the_json_layout(self) -> None:
        found = config('{"models": {"a": {"backend": "llamacpp", "model_path": "/a.gguf"}}}')
        assert (found.server.port, found.server.load_timeout, found.backends["llamacpp"].port) == (8002, 300, 8085)

    def test_of_the_layout_with_services(self) -> None:
        found = config("title: x\nmodels: {a: {backend: vllm, script: /s.sh}}")
        unit = shelf.service(found, "a")
        assert unit is not None
        assert (unit.unit, found.server.load_timeout, found.backends["vllm"].port) == ("vllm.service", 180, 8000)

    def test_of_a_mapping_of_scripts(self) -> None:
        found = config("MODELS: {a: /s.sh}")
        assert (found.server.load_timeout, found.backends["sglang"].port) == (300, 8001)

    def test_a_file_without_models_is_read(self) -> None:
        assert config('{"router_port": 9}').server.port == 9


class TestTabby:
    OWNED = '{"tabby_model_dir": "/file/models", "models": {"a": {"backend": "tabbyapi", "model_path": "exl3/A"}}}'
    UNIT = "MODELS: {a: {backend: tabby, service: tabbyapi.service, model_name: A}}"
    ENV: ClassVar[Env] = {
        "TABBY_CONFIG_PATH": "/env/tabby/config.yml",
        "TABBY_MODEL_DIR": "/env/models",
        "TABBY_TOKENS_PATH": "/env/t.yml",
    }

    def test_the_file_wins_over_the_environment(self) -> None:
        found = config(self.OWNED, env=self.ENV).backends["tabbyapi"]
        assert (found.dir, found.model_dir, found.engine) == ("/env/tabby", "/file/models", None)

    def test_a_unit_keeps_its_files(self) -> None:
        found = config(self.UNIT, env=self.ENV).backends["tabbyapi"]
        assert (found.config_file, found.tokens_file) == ("/env/tabby/config.yml", "/env/t.yml")
        assert (found.model_dir, found.dir, found.args) == ("/env/models", None, {})

    def test_without_them_a_unit_is_looked_for(self) -> None:
        found = config(self.UNIT).backends["tabbyapi"]
        assert (found.config_file, found.tokens_file, found.model_dir) == (None, None, None)


def test_an_address_of_its_own_is_kept() -> None:
    found = config("router_port: 1\nbackends: {sglang: {host: 127.0.0.2}, llamacpp: {host: 0.0.0.0}}")
    assert (found.backends["sglang"].host, found.backends["llamacpp"].host) == ("127.0.0.2", "127.0.0.1")


@pytest.mark.parametrize(("word", "level"), [("INFO", "info"), ("Warn", "warning"), ("CRITICAL", "error")])
def test_levels_of_the_log(word: str, level: str) -> None:
    assert config(f"log_level: {word}").server.log_level == level


def test_what_was_never_read_is_told_and_left_out() -> None:
    text = '{"router_port": 1, "routr_port": 2, "models": {"a": {"backend": "llamacpp", "model_path": "/a", "x": 1}}}'
    one, other = ignored(text)
    assert one.startswith("config.json:1:97: 'x' is not used: the older layout has no such key. Known here: backend,")
    assert other.endswith(
        ":20: 'routr_port' is not used: the older layout has no such key. Did you mean 'router_port'?"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("router_port: 1\nserver: {}", "x.yml:1:1: cannot use 'router_port' beside 'server' (x.yml:2:1)"),
        ("models:\n  a: {backend: sglang, model_path: /a, gpus: 2}", "x.yml:2:24: cannot use 'model_path' beside 'gpus'"),
        ("backends: {sglang: {health_endpoint: /h, args: {}}}", "x.yml:1:21: cannot use 'health_endpoint' beside 'args'"),
        ("router_port: '1'", "x.yml:1:14: cannot use '1' as server.port: it must be a whole number"),
        ("model_load_timeout: 0", "x.yml:1:21: cannot use this value of server.load_timeout"),
        ("log_level: loud", "x.yml:1:12: cannot use 'loud' as server.log_level"),
        ("router_port: 1\nmodels:\n  a: {backend: sgland, model_path: /a}", "x.yml:3:16: cannot serve the model 'a': there is no backend 'sgland'. Did you mean 'sglang'?"),
        ("router_port: 1\nmodels: {a: {model_path: /a}}", "x.yml:2:10: cannot serve the model 'a': it names no `backend`"),
        ("router_port: 1\nmodels: [a]", "x.yml:2:9: cannot use a list as models"),
        ("router_port: 1\nmodels: {a: 5}", "x.yml:2:13: cannot use 5 as models.a"),
        ("router_port: 1\nbackends: 7", "x.yml:2:11: cannot use 7 as backends"),
        ("router_port: 1\nbackends: {sglang: 7}", "x.yml:2:20: cannot use 7 as backends.sglang"),
        ("router_port: 1\nbackends: {sglang: {port: x}}", "x.yml:2:27: cannot use 'x' as backends.sglang.port"),
    ],
)  # fmt: skip
def test_mistakes_have_their_place_in_the_old_file(text: str, said: str) -> None:
    (told,) = problems(text)
    assert told.startswith(said)


def test_a_mixture_tells_each_old_word_and_its_present_form() -> None:
    told = problems("server: {}\nrouter_port: 1\nmodels: {a: {backend: sglang, model_path: /a}}")
    assert [line.rpartition(". ")[2] for line in told] == ["Write it as `port` under `server`", "Write it as `path`"]


class TestPython:
    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("MODELS = {", "router.py:1:10: cannot read the older router's source as Python: '{' was never closed"),
            ("x = 1\0", "cannot read the older router's source as Python"),
            ("import os\n", "it holds no MODELS = {...} with plain values"),
            ("MODELS = config['models']\n", "it holds no MODELS = {...} with plain values"),
            ("MODELS = {'a': {'backend': 'sglan', 'script': '/s'}}", "router.py:1:28: cannot serve the model 'a'"),
        ],
    )
    def test_what_cannot_be_read(self, source: str, said: str) -> None:
        assert said in "\n".join(problems(source, "router.py"))

    def test_ports(self) -> None:
        source = "MODELS: dict = {'a': {'backend': 'sglang', 'script': '/s'}}\nrun.run(port=81)\nSGLANG_URL = f'{x}'\nSGLANG_PORT = 77"
        found = config(source, "router.py")
        assert (found.server.port, found.backends["sglang"].port) == (81, 77)

    def test_nothing_in_it_is_run(self, tmp_path: Path) -> None:
        source = f"import pathlib\npathlib.Path('{tmp_path}/x').touch()\nMODELS = {{'a': '/s.sh'}}\n"
        assert config(source, "router.py").models["a"].script == ("/s.sh",)
        assert not (tmp_path / "x").exists()


WORDS = [
    "router_port",
    "title",
    "log_level",
    "model_load_timeout",
    "tabby_model_dir",
    "MODELS",
    "models",
    "backends",
    "x",
]
INNER = [
    "a",
    "sglang",
    "tabby",
    "backend",
    "model_path",
    "script",
    "service",
    "model_name",
    "port",
    "host",
    "health_endpoint",
]
VALUES = [
    None,
    True,
    5,
    1.5,
    "x",
    "exl2/x",
    "sglang",
    "tabby",
    "1e5",
    "on",
    "0x1",
    "/s.sh",
    "",
    "${A}",
    "a: b",
    "#",
    "- x",
    "1_0",
]


@given(
    st.dictionaries(
        st.sampled_from(WORDS),
        st.recursive(
            st.sampled_from(VALUES),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(INNER), inner, max_size=4),
            max_leaves=10,
        ),
    )
)
@settings(deadline=None)
@pytest.mark.slow
def test_any_old_document_is_read_or_refused_and_means_the_same_converted(document: dict[str, object]) -> None:
    text, env = json.dumps(document), {"A": "text"}
    try:
        before = parse(text, "x.yml", env, no_file)
        written = convert([("x.yml", text)], env)
    except ConfigError:
        return
    after = parse(written, "new.yml", env, no_file)
    assert dataclasses.replace(before, warnings=()) == dataclasses.replace(after, warnings=())
