import json
import subprocess
import sys
from pathlib import Path

import pytest

from llm_router.host.supervisors import run_job


def run(folder: Path, **job: object) -> "subprocess.CompletedProcess[str]":
    place = folder / "job"
    given = {"argv": ["/bin/sh", "-c", 'echo "$0 $X"; pwd; exit 7', "$HOME"], "env": {"X": "y z"}, "cwd": str(folder)}
    place.write_text(json.dumps({**given, "log": str(folder / "log"), **job}))
    words = [sys.executable, "-I", "-S", run_job.__file__, str(place)]
    return subprocess.run(words, check=False, capture_output=True, text=True)


def test_it_becomes_the_engine_and_its_words_go_to_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    done = run(tmp_path)
    assert done.returncode == 7
    assert (tmp_path / "log").read_text() == f"before\n$HOME y z\n{tmp_path}\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"argv": ["/nowhere"]}, run_job.EXEC),
        ({"cwd": "/nowhere"}, run_job.CHDIR),
        ({"log": "/nowhere/log"}, run_job.STDOUT),
    ],
)
def test_what_cannot_be_run_says_why_with_systemds_code(tmp_path: Path, job: dict[str, object], code: int) -> None:
    done = run(tmp_path, **job)
    assert done.returncode == code
    told = done.stderr if "log" in job else (tmp_path / "log").read_text()
    assert told.startswith("cannot run ")
    assert "No such file or directory" in told
