"""What the Python engines share: environment, splits over devices, ports in logs, the parts of a load."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.engines.engine import Job
from llm_router.engines.serving import listening_port, own_options, part, python_environment, take_number, tensor_split

JOB = Job("alpha", ("/bin/x",), 8000, path="/m/a", devices=(0, 1, 2, 3))


def test_the_jobs_own_environment_wins() -> None:
    environment = python_environment(replace(JOB, env={"NO_COLOR": "0", "X": "y"}))
    assert environment["NO_COLOR"] == "0"
    assert environment["X"] == "y"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    assert "CUDA_VISIBLE_DEVICES" not in python_environment(replace(JOB, devices=()))


def test_options_by_bare_name() -> None:
    job = replace(JOB, options={"--a_b": 1, "c": None})
    assert own_options(job, {}) == {"a-b": 1, "c": None}
    with pytest.raises(ValueError, match="cannot pass the option '--a_b' for alpha: the router sets it; use path"):
        own_options(job, {"a-b": "path"})


@pytest.mark.parametrize("value", [0, -1, "x", True, 1.5, None, []])
def test_what_is_no_number_of_devices(value: object) -> None:
    with pytest.raises(ValueError, match="is not a whole number of at least 1"):
        take_number({"tp": value}, ("tp",), 1)


def test_the_first_spelling_counts_and_all_are_taken() -> None:
    options: dict[str, object] = {"tp": "4", "tp-size": 2, "other": 1}
    assert take_number(options, ("tp-size", "tp"), 9) == 2
    assert options == {"other": 1}
    assert take_number(options, ("tp",), 9) == 9


@given(st.integers(1, 16), st.integers(1, 4), st.integers(1, 4))
def test_a_split_uses_every_device_or_is_refused(devices: int, pipeline: int, replicas: int) -> None:
    job = replace(JOB, devices=tuple(range(devices)))
    options: dict[str, object] = {"pp": pipeline, "dp": replicas}
    splits = (("pp",), ("dp",))
    if devices % (pipeline * replicas):
        with pytest.raises(ValueError, match="cannot split alpha over"):
            tensor_split(job, options, ("tp",), splits)
        return
    assert tensor_split(job, options, ("tp",), splits) * pipeline * replicas == devices
    assert options == {"pp": pipeline, "dp": replicas}


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("Uvicorn running on http://127.0.0.1:8001 (Press CTRL+C to quit)", 8001),
        ("Developer documentation: http://localhost:5001/redoc", 5001),
        ("Starting vLLM server on http://[::1]:8000", 8000),
        ("see https://docs.vllm.ai/en/latest for more", None),
    ],
)
def test_the_port_that_a_line_names(line: str, port: int | None) -> None:
    assert listening_port(line) == port


def test_a_part_of_the_load() -> None:
    assert part(10, 20, 50) == 15.0
    assert part(10, 20, 900) == 20.0
    assert part(10, 20, -5) == 10.0
