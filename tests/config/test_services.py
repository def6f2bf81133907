"""Models that an existing unit serves, in the configuration."""

import pytest

from llm_router.config import shelf
from llm_router.config.load import Config, parse
from llm_router.config.problems import ConfigError
from llm_router.core.words import HOST_DEVICE
from llm_router.engines.serviced import Service, Serviced

SGLANG = "sglang: {service: sglang, port: 30000}"


def read(text: str) -> Config:
    return parse(text, "x.yml", {"HOME": "/home/me"}, lambda path: path, folder="/etc/r")


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def test_the_models_own_words_win_over_the_backends() -> None:
    config = read(
        "backends: {sglang: {service: sglang, script: ./one.sh, port: 30000}, llamacpp: {port: 8085}}\n"
        "models:\n"
        "  a: {backend: sglang}\n"
        "  b: {backend: sglang, service: other.service, script: '~/two.sh --fast', model_name: B}\n"
        "  c: {backend: llamacpp, path: /c.gguf}\n"
    )
    assert shelf.service(config, "a") == Service("sglang.service", ("/etc/r/one.sh",), home="/home/me")
    assert shelf.service(config, "b") == Service("other.service", ("/home/me/two.sh", "--fast"), "B", home="/home/me")
    assert shelf.service(config, "c") is None
    assert isinstance(shelf.engine(config, "a"), Serviced)
    assert not isinstance(shelf.engine(config, "c"), Serviced)


def test_another_script_is_another_instance() -> None:
    one, two = (
        read(f"backends: {{{SGLANG}}}\nmodels: {{a: {{backend: sglang, script: {script}}}}}")
        for script in ("/one.sh", "/two.sh")
    )
    assert shelf.revision(one, "a") != shelf.revision(two, "a")


def test_models_of_one_unit_never_live_together() -> None:
    config = read(
        f"backends: {{{SGLANG}, vllm: {{service: vllm, port: 8000}}}}\n"
        "models:\n"
        "  a: {backend: sglang, script: /a.sh, memory: 1GiB}\n"
        "  b: {backend: sglang, script: /b.sh, memory: 1GiB}\n"
        "  c: {backend: vllm, memory: 1GiB}\n"
    )
    known = {model.name: model.needs.footprint is not None for model in shelf.models(config, [HOST_DEVICE])}
    assert known == {"a": False, "b": False, "c": True}


def test_files_of_tabbyapi_are_below_the_configurations_folder() -> None:
    config = read(
        "backends: {tabbyapi: {service: tabby, port: 5000, config_file: t/config.yml, tokens_file: ~/keys.yml}}\n"
        "models: {a: {backend: tabbyapi, path: exl3/A}}"
    )
    service = shelf.service(config, "a")
    assert service is not None
    assert (service.config_file, service.tokens_file) == ("/etc/r/t/config.yml", "/home/me/keys.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "backends: {sglang: {service: sglang}}\nmodels: {a: {backend: sglang}}",
            "the port of its backend is not known",
        ),
        (
            f"backends: {{{SGLANG}}}\nmodels: {{a: {{backend: sglang, service: 'a b'}}}}",
            "cannot use 'a b' as a service",
        ),
        ("backends: {sglang: {port: 1}}\nmodels: {a: {backend: sglang, script: /a.sh}}", "a `script` but no `service`"),
        ("backends: {tabbyapi: {service: t, port: 5000}}\nmodels: {a: {backend: tabbyapi}}", "it lacks `path`"),
    ],
)
def test_what_a_unit_needs_is_asked_for(text: str, message: str) -> None:
    assert message in refused(text)


def test_two_models_that_one_unit_cannot_tell_apart_are_a_warning() -> None:
    config = read(
        f"backends: {{{SGLANG}, tabbyapi: {{service: tabby, port: 5000}}}}\n"
        "models:\n"
        "  a: {backend: sglang}\n"
        "  b: {backend: sglang}\n"
        "  c: {backend: sglang, script: /c.sh}\n"
        "  d: {backend: tabbyapi, path: exl3/D}\n"
        "  e: {backend: tabbyapi, path: exl3/E}\n"
    )
    (warning,) = config.warnings
    assert "'a' and 'b' are both what sglang runs" in str(warning)


KEYED = "backends: {sglang: {service: sglang, port: 30000, key: 'file:/etc/r/key'}}\nmodels: {a: {backend: sglang}}"


def keyed(text: str, secret: str = "s3cret\n") -> Config:
    return parse(text, "x.yml", {"HOME": "/home/me"}, {"/etc/r/key": secret}.__getitem__, folder="/etc/r")


def test_the_key_of_a_unit_is_sent_in_place_of_one_of_our_making() -> None:
    config = keyed(KEYED)
    job = shelf.job(config, "a", port=30000, directory="", key="ours")
    assert (job.key, job.asks_for_key) == ("s3cret", True)
    engine = shelf.engine(config, "a")
    assert engine.dialect(job).headers == (("Authorization", "Bearer s3cret"),)
    assert engine.launch(job).secrets == ("s3cret",)
    assert "s3cret" not in repr(config)
    assert shelf.revision(config, "a") != shelf.revision(keyed(KEYED, "other"), "a")


def test_a_command_that_has_a_key_of_its_own_is_sent_it() -> None:
    text = "backends: {mine: {engine: command, command: [/opt/serve, '{port}'], key: s3cret}}\nmodels: {a: {backend: mine}}"
    job = shelf.job(config := read(text), "a", port=1, directory="", key="ours")
    engine = shelf.engine(config, "a")
    launch = engine.launch(job)
    assert "s3cret" not in " ".join(launch.argv)
    assert launch.secrets == ("s3cret",)
    assert engine.dialect(job).headers == (("Authorization", "Bearer s3cret"),)
    assert engine.steps(job)[0].question.headers == (("Authorization", "Bearer s3cret"),)


@pytest.mark.parametrize("secret", ["", "two words", "line\nbreak", "schlüssel"])
def test_what_cannot_be_in_a_header_is_no_key(secret: str) -> None:
    with pytest.raises(ConfigError, match="the key must be one word") as caught:
        keyed(KEYED, secret)
    assert not secret or secret not in str(caught.value)


def test_a_key_where_it_has_no_business_is_refused() -> None:
    said = refused("backends: {llamacpp: {key: s3cret}}\nmodels: {a: {backend: llamacpp, path: /a.gguf}}")
    assert "makes the engine's keys itself" in said
    said = refused("backends: {command: {key: s3cret}}\nmodels: {a: {backend: command, command: [/x, '--key={key}']}}")
    assert "cannot put this key into the command of the model 'a'" in said
    assert "s3cret" not in said
