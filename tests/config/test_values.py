"""Each value as people write it, tried through the whole file."""

from collections.abc import Mapping
from typing import Any

import pytest

from llm_router.config.load import Config, parse
from llm_router.config.problems import ConfigError
from llm_router.config.values import hashed

HASH = hashed("sk-one")


def read_file(path: str) -> str:
    files: Mapping[str, str] = {
        "one": "sk-one\n",
        "many": f"sk-one  # laptop\n\n# gone: sk-old\n{HASH}\n",
        "empty": "\n",
    }
    if path not in files:
        raise FileNotFoundError(2, "No such file or directory", path)
    return files[path]


def config(text: str) -> Config:
    return parse(text, "x.yml", {}, read_file, ["llamacpp", "command"])


def entry(line: str) -> Any:
    return config(f"models: {{m: {{backend: llamacpp, path: p, {line}}}}}").models["m"]


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config(text)
    (found,) = caught.value.problems
    return str(found)


def entry_problem(line: str) -> str:
    return problem(f"models: {{m: {{backend: llamacpp, path: p, {line}}}}}")


@pytest.mark.parametrize(
    ("written", "gpus"),
    [
        ("all", None),
        ("null", None),
        ("0", 0),
        ("2", 2),
        ("[0, 3]", (0, 3)),
        ("[GPU-12ab, 1]", ("GPU-12ab", 1)),
        ("GPU-12ab", ("GPU-12ab",)),
        ("[MIG-1]", ("MIG-1",)),
    ],
)
def test_gpus(written: str, gpus: object) -> None:
    assert entry(f"gpus: {written}").gpus == gpus


@pytest.mark.parametrize(
    "written", ["-1", "two", "[]", "[0, 0]", "[true]", "[GPU-]", "[-1]", "1.5", "{}", "true", "''", "[{}]"]
)
def test_what_are_no_gpus(written: str) -> None:
    assert "cannot use this value of models.m.gpus: gpus must be a number of GPUs" in entry_problem(f"gpus: {written}")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("[./run.sh, --port, 5]", ("./run.sh", "--port", "5")),
        ("./run.sh --name 'a b'", ("./run.sh", "--name", "a b")),
        ("[a, 1.5]", ("a", "1.5")),
    ],
)
def test_commands(written: str, words: tuple[str, ...]) -> None:
    assert entry(f"command: {written}").command == words


@pytest.mark.parametrize("written", ["[]", "''", "[a, true]", "[a, [b]]", "5", "{a: b}", '"a \'b"', "['', b]"])
def test_what_are_no_commands(written: str) -> None:
    assert "cannot use this value of models.m.command: " in entry_problem(f"command: {written}")


def test_idle_and_memory() -> None:
    assert entry("idle: never").idle is None
    assert entry("idle: 30m").idle == 1800
    assert entry("memory: 14GiB").memory == 14 * 1024**3
    assert "memory must be more than 0" in entry_problem("memory: 0")
    assert "'often' is no duration" in entry_problem("idle: often")


def test_the_environment_is_text() -> None:
    found = entry("env: {A: 5, B: true, C: x, D: 'file:one', E: 1.5}")
    assert found.env == {"A": "5", "B": "true", "C": "x", "D": "sk-one", "E": "1.5"}
    assert "sk-one" not in repr(found)
    assert "cannot be set in an environment" in entry_problem("env: {'A=B': 5}")
    assert "must be text" in entry_problem("env: {A: [5]}")


def test_a_secret_that_cannot_be_read_names_file_and_cause() -> None:
    assert "cannot read the secret file 'gone': No such file or directory" in entry_problem("env: {A: 'file:gone'}")
    assert "cannot read the secret file 'gone'" in problem("server: {keys: [file:gone]}")


def test_keys_are_kept_as_hashes_only() -> None:
    found = config("server: {keys: [sk-one, {name: laptop, key: sk-two, models: [m]}]}")
    one, two = found.server.keys
    assert (one.key, one.admin, one.models) == (HASH, True, None)
    assert (two.key, two.name, two.admin, two.models) == (hashed("sk-two"), "laptop", False, ("m",))
    assert "sk-" not in repr(found)
    assert any("a key stands in the configuration as it is" in str(warning) for warning in found.warnings)


@pytest.mark.parametrize(
    "written",
    [
        f"['{HASH}']",
        f"'{HASH}'",
        f"['{HASH.upper().replace('SHA', 'sha')}']",
        "file:one",
        "[file:one]",
        "[{key: 'file:one', admin: true}]",
    ],
)
def test_hashed_keys_and_keys_from_files_need_no_warning(written: str) -> None:
    found = config(f"server: {{keys: {written}}}")
    assert [(key.key, key.admin) for key in found.server.keys] == [(HASH, True)]
    assert not any("key" in warning.text for warning in found.warnings)


def test_a_file_of_keys_has_one_on_each_line() -> None:
    assert [key.key for key in config("server: {keys: file:many}").server.keys] == [HASH, HASH]


def test_a_single_plain_key_is_warned_of_too() -> None:
    found = config("server: {keys: sk-one}")
    assert found.server.keys[0].key == HASH
    assert "a key stands in the configuration" in found.warnings[0].text


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("['']", "a key must not be empty"),
        ("[file:empty]", "a key must not be empty"),
        ("['sha256:12']", "a hashed key is sha256: and 64 hex digits"),
        ("[{name: x}]", "cannot use server.keys[1]: it lacks 'key'"),
        ("[{key: 5}]", "must be text"),
        ("[{kee: x, key: y}]", "Did you mean 'key'?"),
        ("5", "must be a list"),
        ("[5]", "must be a section"),
    ],
)
def test_what_are_no_keys(written: str, said: str) -> None:
    assert said in problem(f"server: {{keys: {written}}}")


def test_a_key_never_appears_in_a_message() -> None:
    with pytest.raises(ConfigError) as caught:
        config("server: {keys: [sk-secret, {key: sk-hidden, admin: maybe, x: 1}], port: a}")
    assert "sk-" not in str(caught.value)
