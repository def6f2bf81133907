"""From facts of files and folders to models: what they are, who serves them, and what is wrong with bad ones."""

import json

import pytest

from formats.build import CONFIGS, LLAMA_TENSORS, Tensor, gguf, head_of, key, llama_keys, safetensors, tiny_gguf
from llm_router.formats import safetensors as reader
from llm_router.formats.gguf import GgufHeader, read_header
from llm_router.formats.reading import BadFile, NeedMore
from llm_router.formats.recognise import (
    INDEX,
    Folder,
    GgufPart,
    Recognised,
    looks_like_model,
    recognise_folder,
    recognise_gguf,
    with_projector,
)
from llm_router.formats.safetensors import SafetensorsHeader
from llm_router.formats.words import Format, Kind


def part(data: bytes, name: str = "tiny.gguf", size: int | None = None) -> GgufPart:
    header = read_header(data)
    assert isinstance(header, GgufHeader), header
    return GgufPart(name, len(data) if size is None else size, header)


def split(number: int, count: int = 2) -> bytes:
    place = [key("split.no", number, "u16"), key("split.count", count, "u16")]
    keys = llama_keys(*place) if number == 0 else place
    return gguf(keys, [Tensor(f"{number}.{tensor.name}", tensor.shape, tensor.type) for tensor in LLAMA_TENSORS])


def test_a_gguf_model() -> None:
    found = recognise_gguf("tiny", "/m/tiny.gguf", [part(tiny_gguf())])
    assert (found.format, found.kind, found.quantisation) == (Format.gguf, Kind.chat, "Q4_K_M")
    assert (found.engine, found.engines) == ("llamacpp", ("llamacpp", "sglang"))
    assert found.servable
    assert found.parameters == 86021
    assert found.size == 51044
    assert found.bits == round(found.size * 8 / 86021, 2)
    assert found.context == 8192
    assert found.architecture == "llama"
    assert found.files == ("tiny.gguf",)


def test_the_parts_of_a_split_model_add_up() -> None:
    whole = recognise_gguf("tiny", "/m/tiny.gguf", [part(tiny_gguf())])
    found = recognise_gguf("big", "/m/a", [part(split(0), "a"), part(split(1), "b")])
    assert found.engine == "llamacpp"
    assert (found.parameters, found.size) == (2 * (whole.parameters or 0), 2 * whole.size)


@pytest.mark.parametrize(
    ("parts", "missing", "words"),
    [
        ([], [], "first part is not there"),
        ([GgufPart("a", 10, BadFile("cannot read it: because"))], [], "because"),
        ([part(tiny_gguf(), size=500)], [], "cut off, 500 bytes"),
        ([part(split(0))], ["b"], "b is not there"),
        ([part(split(0))], ["b", "c"], "b and 1 more are not there"),
        ([part(split(1))], [], "part 2 of 2; name the first part"),
        ([part(split(0))], [], "names that end in -00001-of-00002.gguf"),
        ([part(split(0)), GgufPart("b", 10, BadFile("cannot read it: torn"))], [], "torn (b)"),
        ([part(gguf([key("general.architecture", "clip")], LLAMA_TENSORS))], [], "projector"),
        ([part(gguf([key("general.type", "adapter")], LLAMA_TENSORS))], [], "LoRA"),
        ([part(gguf([key("general.architecture", "llama")], []))], [], "no model"),
        ([part(gguf([key("general.architecture", "flux")], LLAMA_TENSORS))], [], "makes pictures"),
        ([part(gguf([], LLAMA_TENSORS))], [], "general.architecture is missing"),
    ],
)
def test_a_bad_gguf_model_says_why(parts: list[GgufPart], missing: list[str], words: str) -> None:
    found = recognise_gguf("x", "/m/x.gguf", parts, missing)
    assert not found.servable
    assert found.engines == ()
    assert found.reason.startswith("cannot ")
    assert words in found.reason


def test_a_projector_makes_a_model_see() -> None:
    found = with_projector(recognise_gguf("tiny", "/m/tiny.gguf", [part(tiny_gguf())]), "/m/mmproj.gguf", 99)
    assert (found.kind, found.projector, found.projector_size) == (Kind.vision, "/m/mmproj.gguf", 99)
    assert found.engine == "llamacpp"
    assert "vision" in found.reason
    bad = recognise_gguf("tiny", "/m/tiny.gguf", [part(tiny_gguf(), size=500)])
    assert with_projector(bad, "/m/mmproj.gguf", 99).reason == bad.reason


WEIGHTS = safetensors({"model.embed_tokens.weight": ("BF16", (40, 8)), "lm_head.weight": ("BF16", (40, 8))})


def folder(
    config: object,
    weights: dict[str, bytes] | None = None,
    *,
    name: str = "Model",
    files: tuple[str, ...] = (),
    documents: dict[str, object] | None = None,
) -> Recognised:
    """A folder with these weight files; ``documents`` besides ``config.json`` are given as objects."""
    weights = {"model.safetensors": WEIGHTS} if weights is None else weights
    written = {name: json.dumps(value).encode() for name, value in (documents or {}).items()}
    if config is not None:
        written["config.json"] = config if isinstance(config, bytes) else json.dumps(config).encode()
    headers: dict[str, SafetensorsHeader | BadFile] = {}
    for file, data in weights.items():
        header = reader.read_header(head_of(data) if data[8:9] == b"{" else data, None)
        assert not isinstance(header, NeedMore)
        headers[file] = header
    sizes = {name: len(data) for name, data in (weights | written).items()} | dict.fromkeys(files, 1)
    return recognise_folder(Folder(name, f"/m/{name}", sizes, written, headers))


def test_an_unquantised_folder() -> None:
    found = folder(CONFIGS["llama-3-8b"], documents={"tokenizer_config.json": {"chat_template": "x"}})
    assert (found.format, found.kind, found.bits) == (Format.none, Kind.chat, 16)
    assert found.engines == ("sglang", "vllm", "tabbyapi", "transformers")
    assert found.parameters == 640
    assert found.size == 1280
    assert found.context == 131072
    assert found.architecture == "LlamaForCausalLM"
    assert found.shape is not None
    assert found.files == ("model.safetensors",)
    assert "unquantised" in found.reason


def quantised(method: str, **more: object) -> dict[str, object]:
    return CONFIGS["llama-3-8b"] | {"quantization_config": {"quant_method": method} | more}


def test_a_packed_folder_counts_its_real_parameters() -> None:
    weights = safetensors({"a.qweight": ("I32", (64, 4)), "a.scales": ("F16", (1, 32)), "norm.weight": ("F16", (8,))})
    found = folder(quantised("awq", bits=4), {"model.safetensors": weights})
    assert (found.format, found.quantisation, found.bits) == (Format.awq, "awq", 4)
    assert found.parameters == 64 * 32 + 8
    assert found.engine == "sglang"


def test_exl_folders_are_told_by_their_tensors() -> None:
    exl3 = safetensors({"a.trellis": ("I16", (4, 2, 64)), "a.suh": ("F16", (64,)), "a.svh": ("F16", (32,))})
    found = folder(quantised("exl3", bits=4.0), {"model.safetensors": exl3})
    assert (found.format, found.engine, found.bits, found.parameters) == (Format.exl3, "tabbyapi", 4, 2048)
    exl2 = safetensors({"a.q_weight": ("I32", (9, 32)), "a.q_invperm": ("I32", (64,))})
    early = folder(CONFIGS["llama-3-8b"] | {"torch_dtype": None}, {"output.safetensors": exl2})
    assert (early.format, early.engine) == (Format.exl2, "tabbyapi-exl2")
    assert early.bits == 5.5


def test_an_older_file_beside_names_the_method() -> None:
    found = folder(CONFIGS["llama-3-8b"], documents={"quantize_config.json": {"bits": 4, "desc_act": False}})
    assert (found.format, found.bits) == (Format.gptq, 4)
    torn = Folder(
        "x", "/x", {"config.json": 1, "model.safetensors": 1}, {"config.json": b"{}", "quant_config.json": b"{"}
    )
    assert recognise_folder(torn).format is Format.none


def test_an_index_chooses_and_duplicates_are_not_counted() -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    documents: dict[str, object] = {INDEX: {"weight_map": {"a": names[0], "b": names[1]}}}
    found = folder(
        CONFIGS["llama-3-8b"], dict.fromkeys([*names, "consolidated.safetensors"], WEIGHTS), documents=documents
    )
    assert found.files == tuple(names)
    assert found.size == 2 * 1280
    half = folder(CONFIGS["llama-3-8b"], {names[0]: WEIGHTS}, documents=documents)
    assert half.reason == f"cannot be served: {names[1]} is not there; download the missing files"


def test_old_weights_are_served_by_their_size() -> None:
    sizes = {"config.json": 1, "pytorch_model.bin": 1000}
    found = recognise_folder(Folder("x", "/x", sizes, {"config.json": json.dumps(CONFIGS["llama-3-8b"]).encode()}))
    assert (found.size, found.parameters, found.engine) == (1000, None, "sglang")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (folder(None), "no config.json"),
        (folder(b"{"), "cannot read config.json"),
        (folder(CONFIGS["llama-3-8b"], {}), "no weights"),
        (
            folder(CONFIGS["llama-3-8b"], {"model.safetensors": b"version https://git-lfs"}),
            "download it again (model.s",
        ),
        (
            folder(CONFIGS["llama-3-8b"], {"model-00001-of-00002.safetensors": WEIGHTS}),
            "00002.safetensors is not there",
        ),
        (folder(None, files=("model_index.json",)), "makes pictures"),
        (folder(None, files=("adapter_config.json",)), "LoRA"),
        (folder({"quantization": {"bits": 4}}), "Apple"),
        (folder({"quantization_config": {"x": 1}}), "name the backend yourself"),
        (folder(quantised("exl3"), name="x-embedding"), "no engine here serves embedding models with exl3"),
    ],
)
def test_a_bad_folder_says_why(found: Recognised, words: str) -> None:
    assert not found.servable
    assert found.reason.startswith("cannot ")
    assert words in found.reason


def test_a_cut_weight_file_is_found() -> None:
    header = reader.read_header(head_of(WEIGHTS))
    assert isinstance(header, SafetensorsHeader)
    sizes = {"config.json": 1, "model.safetensors": len(WEIGHTS) - 1}
    found = recognise_folder(Folder("x", "/x", sizes, {"config.json": b"{}"}, {"model.safetensors": header}))
    assert "cut off" in found.reason
    assert "(model.safetensors)" in found.reason


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["config.json", "model.safetensors"], True),
        (["config.json", INDEX], True),
        (["config.json", "pytorch_model-00001-of-00002.bin"], True),
        (["model_index.json"], True),
        (["adapter_config.json", "adapter_model.safetensors"], True),
        (["config.json"], False),
        (["config.json", "training_args.bin"], False),
        (["model.safetensors"], False),
        ([], False),
    ],
)
def test_which_folders_look_like_models(names: list[str], answer: bool) -> None:
    assert looks_like_model(dict.fromkeys(names, 1)) is answer
