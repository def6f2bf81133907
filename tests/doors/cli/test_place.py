from pathlib import Path

import pytest

from llm_router.doors.cli.exits import CommandError, Exit
from llm_router.doors.cli.place import router_url


def test_options_come_before_the_environment_before_the_configuration(
    bare_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert router_url(None, None) == "http://127.0.0.1:8002"
    (bare_home / "llm-router.yml").write_text("server: {port: 9}")
    assert router_url(None, None) == "http://127.0.0.1:9"
    (bare_home / "mine").mkdir()
    (bare_home / "mine" / "config.yml").write_text("server: {host: '::1', port: 10}")
    assert router_url(None, Path("mine")) == "http://[::1]:10"
    monkeypatch.setenv("LLM_ROUTER_URL", "http://127.0.0.1:11/")
    assert router_url(None, None) == "http://127.0.0.1:11"
    assert router_url("127.0.0.1:12", None) == "http://127.0.0.1:12"
    assert router_url("https://router.example/v1", None) == "https://router.example"


@pytest.mark.parametrize("url", ["http://", "ftp://x", "http://x:99999", "http://x:no", "::", "http://[::1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(CommandError, match="write http://HOST:PORT") as caught:
        router_url(url, None)
    assert caught.value.code is Exit.usage


def test_a_configuration_that_does_not_tell(bare_home: Path) -> None:
    file = bare_home / "x.yml"
    file.write_text("server: {port: 0}")
    with pytest.raises(CommandError, match=r"cannot tell from .*x\.yml where the router listens; say it with --url"):
        router_url(None, file)
    with pytest.raises(CommandError, match=r"cannot find the configuration .*gone") as caught:
        router_url(None, Path("gone"))
    assert caught.value.code is Exit.configuration


def test_a_configuration_that_may_not_be_read(bare_home: Path) -> None:
    (bare_home / "x.yml").write_bytes(b"\xff\xfe")
    assert router_url(None, bare_home / "x.yml") == "http://127.0.0.1:8002"
