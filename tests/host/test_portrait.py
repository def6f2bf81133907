from pathlib import Path

import pytest

from llm_router.config.load import Config, parse
from llm_router.engines import registry
from llm_router.host.portrait import hide, hide_options, portray


def config(text: str, folder: Path) -> Config:
    return parse(text, "x.yml", {"HOME": "/home/me"}, lambda name: name, registry.names(), folder=str(folder))


@pytest.fixture
def model(shelf: object, tmp_path: Path) -> Path:
    return shelf("alpha")  # type: ignore[no-any-return, operator]  # the fixture of tests/conftest.py


def test_what_is_known_before_a_start(model: Path, tmp_path: Path) -> None:
    text = (
        f"backends: {{llamacpp: {{command: [./llama-server], args: {{cache-type-k: q8_0, cache_type_v: q4_0}}}}}}\n"
        f"models: {{a: {{backend: llamacpp, path: '{model}', context: 2048, env: {{MY: 'word'}}, args: {{hf-token: s3cret}}}}}}"
    )
    found = portray(config(text, tmp_path), "a", gpus=0)
    assert (found.engine, found.backend, found.unit, found.problem) == ("llamacpp", "llamacpp", "", "")
    assert found.argv[0] == str(tmp_path / "llama-server")
    assert found.argv[found.argv.index("--port") + 1] == "PORT"
    assert found.about is not None
    assert found.about.context == 4096
    assert found.estimated is not None
    assert found.estimated.explain[1].startswith("cache ")
    assert found.estimated.explain[1].endswith("(q8_0,q4_0)")
    assert "2048 tokens" in found.estimated.explain[1]
    assert found.env is not None
    assert found.env["MY"] == found.env["LLAMA_API_KEY"] == "***"
    assert "s3cret" not in " ".join(found.argv)


def test_a_fixed_port_is_shown(model: Path, tmp_path: Path) -> None:
    text = f"backends: {{llamacpp: {{port: 8085}}}}\nmodels: {{a: {{backend: llamacpp, path: '{model}'}}}}"
    assert "8085" in portray(config(text, tmp_path), "a", gpus=0).argv


def test_an_existing_unit_runs_itself(tmp_path: Path) -> None:
    text = "backends: {sglang: {port: 30000}}\nmodels: {a: {backend: sglang, service: sglang, script: /opt/start.sh}}"
    found = portray(config(text, tmp_path), "a", gpus=2)
    assert (found.unit, found.argv, found.about) == ("sglang.service", ("/opt/start.sh",), None)


def test_a_model_for_another_engine_is_said_before_its_start_fails(model: Path, tmp_path: Path) -> None:
    found = portray(config(f"models: {{a: {{backend: vllm, path: '{model}'}}}}", tmp_path), "a", gpus=0)
    assert found.problem.startswith("cannot serve gguf weights with vLLM")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"no model")
    found = portray(config("models: {a: {backend: llamacpp, path: ./x.gguf}}", tmp_path), "a", gpus=0)
    assert found.problem.startswith("cannot ")
    assert found.estimated is None


def test_a_setting_that_cannot_be(tmp_path: Path) -> None:
    found = portray(config("models: {a: {backend: llamacpp, path: /x.gguf, args: {port: 5}}}", tmp_path), "a", gpus=0)
    assert found.problem.startswith("cannot ")
    assert found.argv == ()


@pytest.mark.parametrize(("gpus", "shown"), [("2", "0,1"), ("[1]", "1"), ("all", "0,1,2,3")])
def test_the_gpus_it_would_see(model: Path, tmp_path: Path, gpus: str, shown: str) -> None:
    text = f"models: {{a: {{backend: llamacpp, path: '{model}', gpus: {gpus}}}}}"
    found = portray(config(text, tmp_path), "a", gpus=4)
    assert found.env is not None
    assert found.env["CUDA_VISIBLE_DEVICES"] == shown


def test_a_cache_that_cannot_be_estimated(model: Path, tmp_path: Path) -> None:
    text = f"models: {{a: {{backend: llamacpp, path: '{model}', args: {{cache-type-k: odd}}}}}}"
    assert portray(config(text, tmp_path), "a", gpus=0).estimated is None


def test_secrets_are_hidden_wherever_they_stand() -> None:
    words = ("x", "--api-key", "one", "--hf-token=two", "--keys-file", "--key", "-v", "three", "a-four-b", "-k")
    assert hide(words, ["four"]) == (
        "x", "--api-key", "***", "--hf-token=***", "--keys-file", "--key", "-v", "three", "a-***-b", "-k",
    )  # fmt: skip
    assert hide_options({"api_key": "x", "tokens": 5, "tokenizer": "y"}) == {
        "api_key": "***",
        "tokens": "***",
        "tokenizer": "y",
    }
