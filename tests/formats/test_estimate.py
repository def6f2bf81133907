"""Estimates, compared with figures that are known from the engines, and the decision that follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.build import CONFIGS
from llm_router.formats.document import Document
from llm_router.formats.estimate import (
    COLLECTIVES,
    CONTEXT_BYTES,
    GIB,
    GRAPHS,
    HOST_BUFFERS,
    MARGIN_BYTES,
    UNEVEN,
    VISION,
    WINDOW_SLACK,
    Setting,
    cache_bytes,
    estimate,
    fits,
    judge_split,
    kv_bytes,
    largest_context,
    margin,
    shortage,
    token_bytes,
)
from llm_router.formats.hf_shape import shape
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Format, Kind, Layers, Shape


def shape_of(name: str) -> Shape:
    found = shape(Document(CONFIGS[name]))
    assert found is not None
    return found


def model(name: str = "llama-3-8b", size: int = 16 * GIB, kind: Kind = Kind.chat) -> Recognised:
    return Recognised(name, f"/m/{name}", Format.none, kind, size=size, context=131072, shape=shape_of(name))


def test_known_bytes_for_each_token() -> None:
    assert token_bytes(shape_of("llama-3-8b")) == 131_072
    assert token_bytes(shape_of("deepseek-v3")) == 70_272
    assert kv_bytes(shape_of("llama-3-8b"), 32_768) == 4 * GIB


def test_windows_and_states_do_not_grow_with_the_context() -> None:
    gemma = shape_of("gemma-3-27b")
    each = 16 * 256 * 2
    assert kv_bytes(gemma, 100_000) == 10 * each * 100_000 + 52 * each * (1024 + WINDOW_SLACK)
    assert kv_bytes(gemma, 100) == 62 * each * 100
    assert kv_bytes(gemma, 200_000, 2) == 10 * each * 200_000 + 52 * each * 2 * (1024 + WINDOW_SLACK)
    qwen = shape_of("qwen3-next-80b")
    assert kv_bytes(qwen, 0, 3) == 3 * qwen.state
    assert kv_bytes(qwen, 1000) - qwen.state == 12 * 2 * 512 * 2 * 1000


@pytest.mark.parametrize(
    ("name", "both"),
    [
        ("f16", (2, 2)),
        ("auto", (2, 2)),
        ("FP16", (2, 2)),
        ("fp8_e4m3", (1, 1)),
        ("q8_0", (1.0625, 1.0625)),
        ("q8_0, q4_0", (1.0625, 0.5625)),
        ("Q4", (0.5625, 0.5625)),
        ("8,6", (8.5 / 8, 6.5 / 8)),
    ],
)
def test_cache_types(name: str, both: tuple[float, float]) -> None:
    assert cache_bytes(name) == both


@pytest.mark.parametrize("name", ["", "q9", "9,4", "8,x", "1"])
def test_unknown_cache_types_raise(name: str) -> None:
    with pytest.raises(ValueError, match="cannot estimate the cache"):
        cache_bytes(name)


def test_tensor_parallel_divides_heads_but_no_latent() -> None:
    llama, deepseek = shape_of("llama-3-8b"), shape_of("deepseek-v3")
    assert kv_bytes(llama, 1000, tp=4) == kv_bytes(llama, 1000) / 4
    assert kv_bytes(llama, 1000, tp=16) == kv_bytes(llama, 1000) / 8
    assert kv_bytes(deepseek, 1000, tp=8) == kv_bytes(deepseek, 1000)


def test_one_gpu() -> None:
    found = estimate(model(), Setting("vllm", context=32_768))
    assert (found.weights, found.kv, found.devices, found.known) == (16 * GIB, 4 * GIB, 1, True)
    assert found.per_device == found.weights + found.kv + found.overhead
    assert found.overhead > CONTEXT_BYTES + GRAPHS
    assert found.explain[0] == "weights 16.00 GiB"
    assert found.explain[1] == "cache 4.00 GiB for 32768 tokens at 131072 bytes (auto)"
    assert found.explain[3].startswith("in all about 2")


def test_several_gpus() -> None:
    one, four = (estimate(model(), Setting("sglang", context=32_768, devices=n)) for n in (1, 4))
    assert four.overhead == one.overhead + COLLECTIVES
    assert four.per_device == int(16 * GIB / 4 * UNEVEN + 1) + GIB + four.overhead
    assert "on each of 4" in four.explain[0]
    layers = estimate(model(), Setting("llamacpp", context=32_768, devices=4))
    assert layers.overhead == estimate(model(), Setting("llamacpp", context=32_768)).overhead
    assert layers.per_device > (16 + 4) * GIB / 4


def test_requests_share_a_pool_or_have_their_own_context() -> None:
    assert estimate(model(), Setting("vllm", 1024, parallel=4)).kv == 4 * 1024 * 131_072
    assert estimate(model(), Setting("llamacpp", 1024, parallel=4)).kv == 1024 * 131_072
    assert estimate(model(), Setting("vllm")).kv == 131_072 * 131_072


def test_overheads_follow_the_setting() -> None:
    plain = estimate(model(), Setting("vllm", 1024))
    assert plain.overhead - estimate(model(), Setting("vllm", 1024, eager=True)).overhead == GRAPHS
    assert estimate(model(kind=Kind.vision), Setting("vllm", 1024)).overhead - plain.overhead == VISION
    assert estimate(model(), Setting("llamacpp", 1024, devices=0)).overhead == HOST_BUFFERS


def test_an_unknown_shape_is_said() -> None:
    found = estimate(Recognised("x", "/x", Format.awq, Kind.chat, size=1000), Setting("vllm"))
    assert not found.known
    assert found.kv == 0
    assert found.explain[0] == "weights 0.0 MiB"
    assert "not known" in found.explain[1]
    windows = estimate(model("gemma-3-27b"), Setting("vllm", 1024))
    assert "windows" in windows.explain[1]


def test_what_fits_keeps_a_margin() -> None:
    found = estimate(model(), Setting("vllm", 1024))
    need = found.per_device
    assert margin(GIB) == MARGIN_BYTES
    assert margin(100 * GIB) == 3 * GIB
    assert not fits(found, [need + MARGIN_BYTES - 1])
    assert shortage(found, [need + MARGIN_BYTES - 100]) != (0,)
    assert fits(found, [40 * GIB])
    assert fits(found, [40 * GIB, 40 * GIB])
    assert not fits(found, [])
    assert not fits(found, [40 * GIB, GIB])
    assert not fits(estimate(model(), Setting("vllm", 1024, devices=2)), [40 * GIB])


def test_the_largest_context() -> None:
    wide = Setting("vllm")
    assert largest_context(model(), wide, [80 * GIB]) == 131_072
    assert largest_context(model(), wide, [8 * GIB]) is None
    found = largest_context(model(), wide, [24 * GIB])
    assert found is not None
    assert fits(estimate(model(), Setting("vllm", found)), [24 * GIB])
    assert not fits(estimate(model(), Setting("vllm", found + 256)), [24 * GIB])


@pytest.mark.parametrize(
    ("shape", "devices", "words"),
    [
        (shape_of("llama-3-8b"), 1, None),
        (shape_of("llama-3-8b"), 4, None),
        (shape_of("llama-3-8b"), 16, None),
        (shape_of("llama-3-8b"), 3, "use 1 or 2 or 4 or 8, or"),
        (shape_of("deepseek-v3"), 8, None),
        (Shape(0, ()), 3, None),
        (Shape(12, (Layers(1, 4, 8, 8),)), 6, "4 key-value heads"),
    ],
)
def test_heads_must_be_divided_evenly(shape: Shape, devices: int, words: str | None) -> None:
    found = judge_split(shape, devices)
    assert found is None if words is None else found is not None and words in found


@given(
    st.integers(0, 1 << 50),
    st.sampled_from(["sglang", "vllm", "llamacpp", "tabbyapi", "transformers", "command"]),
    st.integers(1, 1 << 20),
    st.integers(0, 8),
    st.sampled_from(sorted(CONFIGS)),
)
def test_more_devices_never_need_more_on_each(size: int, engine: str, context: int, devices: int, name: str) -> None:
    few = estimate(model(name, size), Setting(engine, context, devices=devices))
    many = estimate(model(name, size), Setting(engine, context, devices=devices + 1))
    assert few.per_device >= few.overhead
    if devices >= 1:
        assert many.per_device - many.overhead <= (few.per_device - few.overhead) * UNEVEN + 2
