"""A model as a folder: where it is, what is checked, what its config.json already refuses."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.core.words import Failure, FailureKind
from llm_router.engines.engine import Check, Job, Need
from llm_router.engines.folder import folder_checks, is_local, judge_config, model_path

JOB = Job("alpha", ("/bin/x",), 8000, path="/m/a/")


def test_where_the_model_is() -> None:
    assert model_path(JOB) == "/m/a/"
    assert model_path(replace(JOB, path="exl3/a", model_dir="/shelf")) == "/shelf/exl3/a"
    assert model_path(replace(JOB, path="/m/a", model_dir="/shelf")) == "/m/a"


@pytest.mark.parametrize(("path", "local"), [("/m/a", True), ("./a", True), ("~/a", True), ("Qwen/Qwen3-8B", False)])
def test_a_hubs_name_is_not_looked_for_on_the_disk(path: str, local: bool) -> None:
    assert is_local(path) is local
    assert len(folder_checks(replace(JOB, path=path), "/bin/x")) == (3 if local else 1)


def test_checks_in_the_order_of_telling() -> None:
    assert folder_checks(JOB, "/bin/x", "/t/template.jinja", "chatml") == (
        Check(Need.program, "/bin/x"),
        Check(Need.directory, "/m/a/"),
        Check(Need.model_header, "/m/a/config.json"),
        Check(Need.file, "/t/template.jinja"),
    )


@given(st.binary(max_size=300), st.sampled_from(["sglang", "vllm", "transformers", "tabbyapi"]), st.integers(1, 8))
def test_any_file_gives_a_judgement(head: bytes, engine: str, split: int) -> None:
    failure = judge_config(JOB, engine, "/m/a/config.json", head, len(head), split)
    assert failure is None or failure.cause.startswith("cannot ")


def judged(head: bytes, split: int = 1) -> Failure | None:
    return judge_config(JOB, "sglang", "/m/a/config.json", head, len(head), split)


def test_heads_must_divide() -> None:
    head = b'{"num_attention_heads": 12, "num_key_value_heads": 4, "num_hidden_layers": 2, "hidden_size": 768}'
    assert judged(head, 4) is None
    failure = judged(head, 8)
    assert failure is not None
    assert failure.kind is FailureKind.bad_argument
    assert failure.cause.startswith("cannot split alpha: cannot divide 12 attention heads by 8 devices")
