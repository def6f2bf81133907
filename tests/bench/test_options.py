"""What the command understands, and what it says when it cannot begin."""

from pathlib import Path

import pytest
from bench.__main__ import arguments, main
from bench.cases import CASES
from bench.tools import BenchError, Load

from bench import tools


def test_everything_is_measured_unless_told_otherwise() -> None:
    given = arguments([])
    assert given.parts == ["road", "lag", "decisions"]
    assert given.chosen == list(CASES)
    assert given.rounds == 3


def test_a_choice_of_parts_and_cases() -> None:
    given = arguments(["--quick", "--only", "road", "--cases", "json-50,large", "--peer", "nginx=http://127.0.0.1:81"])
    assert given.parts == ["road"]
    assert [case.name for case in given.chosen] == ["json-50", "large"]
    assert given.peers == {"nginx": "http://127.0.0.1:81"}
    assert given.rounds == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "rode"], "cannot find the part 'rode'"),
        (["--cases", "json-2"], "cannot find the case 'json-2'"),
        (["--peer", "nginx"], "cannot read the peer 'nginx'"),
    ],
)
def test_what_cannot_be_understood_is_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert said in capsys.readouterr().err


def test_without_a_compiler_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(BenchError, match=r"there is no C compiler; .*apt-get install gcc"):
        tools.build(tmp_path)


def test_a_load_is_written_as_the_generator_reads_it() -> None:
    words = Load(50, seconds=2, events=3, pause_us=4, size=5).words(81, "m")
    assert words == ["-p", "81", "-m", "m", "-c", "50", "-b", "1000", "-e", "3,4,5", "-w", "0", "-d", "2"]
    assert Load(requests=7).words(81, "m")[-2:] == ["-n", "7"]
