"""Scanning real folders: what is found, what is reported, and that odd folders neither raise nor run away."""

import json
import os
import struct
from pathlib import Path

import pytest

from formats.build import CONFIGS, LLAMA_TENSORS, Tensor, gguf, gguf_head, key, llama_keys, safetensors, tiny_gguf
from llm_router.demo.tinymodel import write_model
from llm_router.formats.estimate import Setting, estimate
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Format, Kind
from llm_router.host import scan as scanning
from llm_router.host.scan import Limits, recognise_path, scan

WEIGHTS = safetensors({"model.embed_tokens.weight": ("BF16", (40, 8))})


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def hf_folder(folder: Path, **config: object) -> Path:
    write(folder / "config.json", json.dumps(CONFIGS["llama-3-8b"] | config).encode())
    write(folder / "model.safetensors", WEIGHTS)
    write(folder / "tokenizer_config.json", b'{"chat_template": "x"}')
    return folder


def part(number: int) -> bytes:
    place = [key("split.no", number, "u16"), key("split.count", 2, "u16")]
    tensors = [Tensor(f"{number}.{tensor.name}", tensor.shape, tensor.type) for tensor in LLAMA_TENSORS]
    return gguf(llama_keys(*place) if number == 0 else place, tensors)


def by_name(models: list[Recognised]) -> dict[str, Recognised]:
    assert len({model.name for model in models}) == len(models)
    return {model.name: model for model in models}


def test_a_shelf_of_several_formats(tmp_path: Path) -> None:
    write(tmp_path / "small.gguf", tiny_gguf())
    write(tmp_path / "split/Big-00001-of-00002.gguf", part(0))
    write(tmp_path / "split/Big-00002-of-00002.gguf", part(1))
    hf_folder(tmp_path / "Plain")
    hf_folder(tmp_path / "exl2/Old", quantization_config={"quant_method": "exl2", "bits": 4.0})
    write(tmp_path / "notes.txt", b"hello")
    found = by_name(scan(tmp_path))
    assert list(found) == ["Big", "Old", "Plain", "small"]
    assert {name: model.engine for name, model in found.items()} == {
        "Big": "llamacpp",
        "Old": "tabbyapi-exl2",
        "Plain": "sglang",
        "small": "llamacpp",
    }
    assert found["Big"].path == str(tmp_path / "split/Big-00001-of-00002.gguf")
    assert found["Big"].size == 2 * found["small"].size
    assert found["Plain"].kind is Kind.chat


def test_a_generated_model_is_recognised(tmp_path: Path) -> None:
    size = write_model(tmp_path / "alpha.gguf", "alpha", "I am alpha, a demo model.")
    (found,) = scan(tmp_path)
    assert (found.name, found.format, found.kind, found.quantisation) == ("alpha", Format.gguf, Kind.chat, "F16")
    assert found.servable
    assert 0.9 * size < found.size < size
    assert found.shape is not None
    assert estimate(found, Setting("llamacpp", devices=0)).known


def test_a_model_with_folders_inside_is_one_model(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "Embedder", architectures=["Qwen3ForCausalLM"])
    write(folder / "1_Pooling/config.json", b"{}")
    hf_folder(folder / "2_Dense")
    (found,) = scan(tmp_path)
    assert (found.kind, found.engine) == (Kind.embedding, "vllm")


def test_a_hub_cache_shows_real_names(tmp_path: Path) -> None:
    blobs = tmp_path / "models--acme--Plain-8B/blobs"
    files = hf_folder(tmp_path / "elsewhere")
    snapshot = tmp_path / "models--acme--Plain-8B/snapshots/0123abc"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in files.iterdir():
        file.rename(blobs / f"hash-of-{file.name.replace('.', '-')}")
        (snapshot / file.name).symlink_to(blobs / f"hash-of-{file.name.replace('.', '-')}")
    (found,) = scan(tmp_path)
    assert (found.name, found.path, found.engine) == ("Plain-8B", str(snapshot), "sglang")
    assert recognise_path(snapshot) == found


def test_links_in_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "a/small.gguf", tiny_gguf())
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "nowhere.gguf").symlink_to(tmp_path / "gone")
    assert [model.name for model in scan(tmp_path)] == ["small"]


def test_projectors_find_their_models(tmp_path: Path) -> None:
    projector = gguf([key("general.architecture", "clip")], LLAMA_TENSORS)
    write(tmp_path / "one/Seer-7B-Q4_K_M.gguf", tiny_gguf())
    write(tmp_path / "one/Seer-7B-Q8_0.gguf", tiny_gguf())
    write(tmp_path / "one/mmproj-model-f16.gguf", projector)
    write(tmp_path / "many/Blind-8B.gguf", tiny_gguf(architecture="qwen3"))
    write(tmp_path / "many/Viewer-8B.gguf", tiny_gguf())
    write(tmp_path / "many/mmproj-Viewer-8B-f16.gguf", projector)
    write(tmp_path / "lonely/mmproj.gguf", projector)
    found = by_name(scan(tmp_path))
    assert {name for name, model in found.items() if model.projector} == {"Seer-7B-Q4_K_M", "Seer-7B-Q8_0", "Viewer-8B"}
    assert found["Viewer-8B"].kind is Kind.vision
    assert found["mmproj"].engine is None
    alone = recognise_path(tmp_path / "one/mmproj-model-f16.gguf")
    assert alone.kind is Kind.projector


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off inside its header"),
        (tiny_gguf()[:700], "cut off inside its header"),
        (tiny_gguf()[:-100], "it is cut off"),
        (b"version https://git-lfs.github.com/spec/v1", "failed download"),
    ],
)
def test_bad_files_are_reported(tmp_path: Path, data: bytes, words: str) -> None:
    write(tmp_path / "bad.gguf", data)
    (found,) = scan(tmp_path)
    assert not found.servable
    assert words in found.reason


def test_a_missing_part_is_reported_once(tmp_path: Path) -> None:
    write(tmp_path / "Big-00002-of-00002.gguf", part(1))
    (found,) = scan(tmp_path)
    assert found.name == "Big"
    assert "Big-00001-of-00002.gguf is not there" in found.reason


def test_a_header_beyond_the_first_read_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "FIRST_READ", 64)
    write(tmp_path / "small.gguf", tiny_gguf())
    hf_folder(tmp_path / "Plain")
    assert all(model.servable for model in scan(tmp_path))
    assert "header is longer than 128 bytes" in scan(tmp_path, Limits(header=128))[1].reason


def test_a_header_that_lies_is_not_followed(tmp_path: Path) -> None:
    lie = gguf_head([key("a", 1)[:-8] + struct.pack("<IIQ", 9, 6, 1 << 58)], [])
    path = write(tmp_path / "lie.gguf", lie)
    os.truncate(path, 1 << 40)
    (found,) = scan(tmp_path)
    assert "cut off" in found.reason


def test_odd_entries_do_no_harm(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    write(tmp_path / "torn/config.json", b"{")
    write(tmp_path / "torn/model.safetensors", b"{")
    write(tmp_path / ".hidden/small.gguf", tiny_gguf())
    write(tmp_path / "odd\udcff.gguf", tiny_gguf())
    found = by_name(scan(tmp_path))
    assert set(found) == {"torn", "odd\udcff"}
    assert "cannot read config.json" in found["torn"].reason
    assert scan(tmp_path / "missing")[0].reason.endswith("No such file or directory")
    assert scan(tmp_path / "torn/config.json")[0].reason.endswith("Not a directory")


def test_a_pipe_in_the_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(OSError, match="not a regular file"):
        scanning._head(tmp_path / "pipe.gguf", 10)


def test_what_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "small.gguf", tiny_gguf())
    hf_folder(tmp_path / "Plain")

    def refuse(path: Path, limit: int) -> tuple[bytes, int]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(scanning, "_head", refuse)
    plain, small = scan(tmp_path)
    assert small.reason == "cannot read small.gguf: Permission denied"
    assert plain.reason.startswith("cannot be served: it has no config.json")


def test_limits_stop_a_scan_and_are_named(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}/{number}.gguf", tiny_gguf())
    found = scan(tmp_path, Limits(entries=7))
    assert [model.name for model in found] == ["0", "1", tmp_path.name]
    assert "stopped after 7 entries" in found[-1].reason
    assert scan(tmp_path, Limits(depth=0)) == []


def test_one_path_is_one_model(tmp_path: Path) -> None:
    small = write(tmp_path / "small.gguf", tiny_gguf())
    assert recognise_path(small).engine == "llamacpp"
    assert recognise_path(tmp_path).path == str(small)
    write(tmp_path / "Big-00001-of-00002.gguf", part(0))
    second = write(tmp_path / "Big-00002-of-00002.gguf", part(1))
    assert recognise_path(second).path.endswith("Big-00001-of-00002.gguf")
    assert recognise_path(hf_folder(tmp_path / "Plain")).engine == "sglang"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "several models"),
        ("empty", "holds no model"),
        ("notes.txt", "neither a GGUF file"),
        ("gone.gguf", "there is no such file"),
        ("gone/x.gguf", "No such file or directory"),
    ],
)
def test_one_path_that_is_no_model(tmp_path: Path, name: str, words: str) -> None:
    write(tmp_path / "a.gguf", tiny_gguf())
    write(tmp_path / "b.gguf", tiny_gguf())
    write(tmp_path / "notes.txt", b"hello")
    (tmp_path / "empty").mkdir()
    found = recognise_path(tmp_path / name)
    assert found.reason.startswith("cannot ")
    assert words in found.reason
