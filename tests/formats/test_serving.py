"""Who serves what, and the words for a refusal."""

import pytest

from llm_router.formats.serving import ENGINES, READERS, engines_for, explain_choice, refusal
from llm_router.formats.words import Format, Kind


@pytest.mark.parametrize(
    ("format_", "first"),
    [
        (Format.gguf, "llamacpp"),
        (Format.awq, "sglang"),
        (Format.compressed_tensors, "sglang"),
        (Format.mxfp4, "sglang"),
        (Format.exl3, "tabbyapi"),
        (Format.exl2, "tabbyapi-exl2"),
        (Format.bitsandbytes, "sglang"),
        (Format.torchao, "vllm"),
        (Format.none, "sglang"),
        (Format.other, "transformers"),
    ],
)
def test_the_best_engine_for_a_chat_model(format_: Format, first: str) -> None:
    assert engines_for(format_, Kind.chat)[0] == first


def test_every_format_has_an_answer() -> None:
    assert READERS.keys() == set(Format)
    assert {engine for able in READERS.values() for engine in able} == ENGINES.keys()


def test_kinds_narrow_the_choice() -> None:
    assert engines_for(Format.none, Kind.embedding) == ("vllm", "sglang")
    assert engines_for(Format.gguf, Kind.rerank) == ("llamacpp",)
    assert engines_for(Format.none, Kind.audio) == ("vllm", "transformers")
    assert engines_for(Format.exl3, Kind.embedding) == ()
    for kind in (Kind.image, Kind.projector, Kind.part):
        assert engines_for(Format.gguf, kind) == ()


@pytest.mark.parametrize(
    ("engine", "format_", "words"),
    [
        ("tabbyapi", Format.exl2, "tabbyapi-exl2"),
        ("tabbyapi", Format.gptq, "exl2-checkpoint"),
        ("tabbyapi-exl2", Format.exl3, "use tabbyapi, the main branch"),
        ("vllm", Format.gguf, "use llamacpp"),
        ("vllm", Format.bitsandbytes, "use sglang"),
        ("llamacpp", Format.awq, "use sglang or vllm or transformers"),
        ("sglang", Format.exl3, "use tabbyapi"),
        ("sglang", Format.mlx, "Apple"),
    ],
)
def test_refusals_say_what_to_do(engine: str, format_: Format, words: str) -> None:
    found = refusal(engine, format_)
    assert found is not None
    assert found.startswith(f"cannot serve {format_.value} weights with {ENGINES[engine]}: ")
    assert words in found


def test_no_refusal_for_the_able_and_the_unknown() -> None:
    assert refusal("sglang", Format.awq) is None
    assert refusal("command", Format.exl2) is None


def test_the_choice_is_explained() -> None:
    assert explain_choice(Format.exl2, Kind.chat, ("tabbyapi-exl2",)) == (
        "EXL2 weights, chat: TabbyAPI's exl2 branch serves them best"
    )
    assert explain_choice(Format.none, Kind.base, ("sglang", "vllm")).endswith("SGLang serves them best; vLLM can too")
    assert "Apple" in explain_choice(Format.mlx, Kind.chat, ())
    assert "pictures" in explain_choice(Format.none, Kind.image, ())
    assert "embedding" in explain_choice(Format.exl3, Kind.embedding, ())
