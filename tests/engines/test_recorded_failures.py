"""Whole logs of real engines that failed to start, recorded on a processor: the cause is found in all that noise."""

import re

import pytest

from fakes.golden import log_lines
from llm_router.core.words import FailureKind
from llm_router.engines.engine import Ended, Job
from llm_router.engines.registry import find

RECORDED = [
    ("sglang", "missing", FailureKind.missing_file),
    ("sglang", "corrupt", FailureKind.bad_file),
    ("sglang", "quant", FailureKind.bad_argument),
    ("sglang", "arg", FailureKind.bad_argument),
    ("vllm", "missing", FailureKind.missing_file),
    ("vllm", "corrupt", FailureKind.bad_file),
    ("vllm", "quant", FailureKind.unsupported),
    ("vllm", "long", FailureKind.bad_argument),
    ("vllm", "port", FailureKind.port_in_use),
    ("vllm", "arg", FailureKind.bad_argument),
    ("transformers", "missing", FailureKind.missing_file),
    ("transformers", "corrupt", FailureKind.bad_file),
    ("transformers", "port", FailureKind.port_in_use),
    ("transformers", "arg", FailureKind.bad_argument),
]


@pytest.mark.parametrize(("engine", "what", "kind"), RECORDED, ids=str)
def test_the_cause_is_found(engine: str, what: str, kind: FailureKind) -> None:
    lines = log_lines(engine, f"{what}.log")
    code = re.fullmatch(r"exit (\d+)", lines[-1])
    assert code is not None
    number = int(code[1])
    job = Job("alpha", ("/opt/engines/bin/serve",), 18299, path="/models/alpha-hf")
    failure = find(engine).explain(job, Ended(number if number < 128 else 128 - number), lines[:-1])
    assert failure.kind is kind
    assert failure.cause.startswith("cannot ")
    assert "alpha" in failure.cause
