"""The demo's shelf: models are made once, kept, and made again when they are broken."""

from pathlib import Path

import pytest

from llm_router.demo import shelf


def test_models_are_made_once(tmp_path: Path) -> None:
    told: list[str] = []
    models = shelf.prepare(tmp_path / "new", 3, pad_mb=0, told=told.append)
    assert [model.name for model in models] == ["alpha", "beta", "gamma"]
    assert all(model.says.startswith(f"I am {model.name}, ") for model in models)
    assert len(told) == 3
    times = [model.path.stat().st_mtime_ns for model in models]
    assert shelf.prepare(tmp_path / "new", 3, pad_mb=0, told=told.append) == models
    assert [model.path.stat().st_mtime_ns for model in models] == times
    assert len(told) == 3


def test_only_what_is_broken_is_made_again(tmp_path: Path) -> None:
    first, second = shelf.prepare(tmp_path, 2, pad_mb=0)
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:1000])
    told: list[str] = []
    shelf.prepare(tmp_path, 2, pad_mb=0, told=told.append)
    assert first.path.read_bytes() == whole
    assert told == ["writing alpha.gguf (3 MB)"]
    assert second.path.exists()


@pytest.mark.parametrize("count", [0, -1, 25])
def test_an_impossible_count_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot make {count} demo models: 1 to 24 are possible"):
        shelf.prepare(tmp_path, count)


def test_a_full_disk_gets_small_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "SPARE", 1 << 60)
    told: list[str] = []
    models = shelf.prepare(tmp_path, 2, told=told.append)
    assert sum(model.path.stat().st_size for model in models) < 10_000_000
    assert "the disk is nearly full" in told[0]


def test_all_files_together_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(shelf, "write_model", lambda _path, _name, _says, pad_mb: written.append(pad_mb))
    for count in (2, 24):
        written.clear()
        shelf.prepare(tmp_path, count)
        assert len(written) == count
        assert sum(written) + 4 * count < shelf.TOTAL_MB


def test_the_engine_is_there_where_the_extra_is_installed() -> None:
    assert shelf.has_engine()
