import dataclasses

import pytest

from llm_router.config.load import parse
from llm_router.config.proposal import Shelved, choose, describe, first, unused_name
from llm_router.formats.estimate import GIB
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Format, Kind, Layers, Shape

QWEN = Recognised(
    "Qwen 7B",
    "/m/qwen.gguf",
    Format.gguf,
    Kind.chat,
    7_600_000_000,
    context=32768,
    size=5 * GIB,
    engine="llamacpp",
    engines=("llamacpp", "sglang"),
    quantisation="Q4_K_M",
    shape=Shape(32, (Layers(32, 8, 128, 128),)),
)
AWQ = Recognised(
    "mistral",
    "/m/mistral",
    Format.awq,
    Kind.chat,
    size=60 * GIB,
    engine="sglang",
    engines=("sglang", "vllm"),
    context=4096,
)
BROKEN = Recognised("half", "/m/half.gguf", Format.gguf, Kind.base, reason="cannot be served: it is cut off")
HERE = {"llamacpp": "llamacpp", "vllm": "my-vllm"}


def test_each_model_gets_the_best_engine_there_is() -> None:
    shelved, left = choose([QWEN, AWQ, BROKEN], HERE)
    assert [(model.name, model.backend) for model in shelved] == [("qwen-7b", "llamacpp"), ("mistral", "my-vllm")]
    assert left == [(BROKEN, "cannot be served: it is cut off")]
    assert choose([AWQ], {}) == ([], [(AWQ, "needs SGLang or vLLM, which was not found here")])


@pytest.mark.parametrize(
    ("free", "gpus", "remark"),
    [
        ((), None, "about 9.2 GiB with its whole context"),
        ((24 * GIB,), None, "about 10.1 GiB with its whole context"),
        ((24 * GIB, 24 * GIB), 1, "about 10.1 GiB with its whole context"),
        ((8 * GIB, 8 * GIB, 8 * GIB), 2, "GiB on each of 2 GPUs with its whole context"),
        ((2 * GIB,), None, "more than there is. Give it a shorter `context`, or fewer bits"),
    ],
)
def test_as_few_gpus_as_will_do(free: tuple[int, ...], gpus: int | None, remark: str) -> None:
    ((model,), _) = choose([QWEN], HERE, [*free])
    assert model.gpus == gpus
    assert model.remark.endswith(remark)


def test_names_are_told_apart() -> None:
    assert unused_name(QWEN, {"qwen-7b"}) == "qwen-7b-q4_k_m"
    assert unused_name(QWEN, {"qwen-7b", "qwen-7b-q4_k_m"}) == "qwen-7b-2"
    (shelved, _) = choose([QWEN, QWEN, QWEN], HERE, taken=["qwen-7b"])
    assert [model.name for model in shelved] == ["qwen-7b-q4_k_m", "qwen-7b-2", "qwen-7b-3"]


def test_facts_in_a_line() -> None:
    assert describe(QWEN) == "Q4_K_M, chat, 7.6 B parameters, 5.0 GiB, context 32768"
    small = dataclasses.replace(QWEN, parameters=5_000_000, size=3 << 20, quantisation="", context=None)
    assert describe(small) == "gguf, chat, 5.0 M parameters, 3.0 MiB"


def test_a_first_configuration_is_one() -> None:
    shelved, left = choose([QWEN, BROKEN], HERE, [24 * GIB, 24 * GIB])
    text = first(
        {"host": "127.0.0.1", "watch": True},
        {"llamacpp": {"command": ("llama-server",)}},
        shelved,
        left,
        ["GPUs: two."],
    )
    found = parse(text, "x.yml", {}, lambda name: name)
    assert found.models["qwen-7b"].model_dump(exclude_defaults=True) == {
        "backend": "llamacpp",
        "path": "/m/qwen.gguf",
        "gpus": 1,
    }
    assert found.server.watch
    for line in (
        "# GPUs: two.\n",
        "  # Q4_K_M, chat, 7.6 B parameters, 5.0 GiB, context 32768; about 10.1 GiB",
        "# - /m/half.gguf: cannot be served: it is cut off\n",
    ):
        assert line in text


def test_without_models_there_is_an_example_to_follow() -> None:
    text = first({"port": 5}, {}, [], [], [])
    assert parse(text, "x.yml", {}, lambda name: name).models == {}
    example = "".join(
        line.removeprefix("# ") for line in text.splitlines(keepends=True) if line.startswith(("# models", "#   "))
    )
    assert len(parse(example, "x.yml", {}, lambda name: name).models) == 3


def test_an_entry_says_no_more_than_needed() -> None:
    assert Shelved("a", QWEN, "b").entry() == {"backend": "b", "path": "/m/qwen.gguf"}
