from pathlib import Path

import pytest

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Check, Job, Need
from llm_router.host.crew import prechecks
from llm_router.host.crew.prechecks import too_large, unmet, weights_of


class Engine:
    """An adapter that wants these things, and does not like files that begin with ``bad``."""

    def __init__(self, *checks: Check) -> None:
        self._checks = checks
        self.heads: list[tuple[str, int, int]] = []

    def checks(self, job: Job) -> tuple[Check, ...]:
        return self._checks

    def judge_file(self, job: Job, path: str, head: bytes, size: int) -> Failure | None:
        self.heads.append((path, len(head), size))
        return Failure(FailureKind.bad_file, "bad") if head.startswith(b"bad") else None


def job(path: str = "", model_dir: str = "") -> Job:
    return Job("m", ("engine",), 1, path=path, model_dir=model_dir)


def asked(need: Need, path: Path) -> Failure | None:
    return unmet(Engine(Check(need, str(path))), job())  # type: ignore[arg-type]


def test_what_is_there_is_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"good")
    file.chmod(0o755)
    for need, path in ((Need.file, file), (Need.program, file), (Need.directory, tmp_path), (Need.model_header, file)):
        assert asked(need, path) is None


@pytest.mark.parametrize(
    ("need", "kind"),
    [
        (Need.file, FailureKind.missing_file),
        (Need.directory, FailureKind.missing_file),
        (Need.model_header, FailureKind.missing_file),
        (Need.program, FailureKind.missing_program),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, need: Need, kind: FailureKind) -> None:
    failure = asked(need, tmp_path / "nowhere")
    assert failure is not None
    assert failure.kind is kind
    assert str(tmp_path / "nowhere") in failure.cause


def test_the_head_is_bounded_and_judged_by_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prechecks, "HEAD_BYTES", 10)
    file = tmp_path / "model"
    file.write_bytes(b"good" * 100)
    engine = Engine(Check(Need.model_header, str(file)))
    assert unmet(engine, job()) is None  # type: ignore[arg-type]
    assert engine.heads == [(str(file), 10, 400)]
    file.write_bytes(b"bad")
    assert unmet(engine, job()) == Failure(FailureKind.bad_file, "bad")  # type: ignore[arg-type]


def test_the_first_unmet_need_is_told_and_the_rest_not_looked_at(tmp_path: Path) -> None:
    engine = Engine(Check(Need.file, "/first/missing"), Check(Need.model_header, str(tmp_path)))
    failure = unmet(engine, job())  # type: ignore[arg-type]
    assert failure is not None
    assert "/first/missing" in failure.cause
    assert engine.heads == []


def test_the_weights_of_a_file_a_split_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(b"x" * 10)
    assert weights_of(job(str(tmp_path / "one.gguf"))) == 10
    assert weights_of(job("one.gguf", str(tmp_path))) == 10
    for number in (1, 2):
        (tmp_path / f"two-0000{number}-of-00002.gguf").write_bytes(b"x" * number)
    assert weights_of(job(str(tmp_path / "two-00001-of-00002.gguf"))) == 3
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"x" * 5)
    (folder / "config.json").write_bytes(b"{}")
    assert weights_of(job(str(folder))) == 5


def test_weights_that_are_not_here_are_not_known(tmp_path: Path) -> None:
    assert weights_of(job("org/name")) is None
    assert weights_of(job()) is None
    assert weights_of(job(str(tmp_path / "two-00001-of-00002.gguf"))) is None


class Whole(Engine):
    """An engine whose weights must lie on its devices, unless ``offload`` is set."""

    def all_on_devices(self, job: Job) -> bool:
        if "bad" in job.options:
            raise ValueError("cannot pass bad")
        return "offload" not in job.options


def large(folder: Path, gib: int, **options: object) -> Job:
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(gib * 2**30)
    return Job("m", ("engine",), 1, path=str(folder), options=options)


def test_weights_that_can_never_fit_are_refused(tmp_path: Path) -> None:
    failure = too_large(Whole(), large(tmp_path, 50), [24 * 2**30] * 2)  # type: ignore[arg-type]
    assert failure == Failure(
        FailureKind.out_of_memory,
        "cannot load m: its weights are 50.0 GiB, its 2 devices have together 48.0 GiB; give it more devices, or take a "
        "smaller edition of it",
    )


@pytest.mark.parametrize(
    ("gib", "totals", "options"),
    [(47, [24, 24], {}), (50, [24, 24], {"offload": 1}), (50, [24, 24], {"bad": 1}), (50, [], {})],
)
def test_what_may_fit_is_let_try(tmp_path: Path, gib: int, totals: list[int], options: dict[str, object]) -> None:
    job_ = large(tmp_path, gib, **options)
    assert too_large(Whole(), job_, [total * 2**30 for total in totals]) is None  # type: ignore[arg-type]


def test_an_engine_that_may_put_weights_elsewhere_is_let_try(tmp_path: Path) -> None:
    assert too_large(Engine(), large(tmp_path, 50), [2**30]) is None  # type: ignore[arg-type]
