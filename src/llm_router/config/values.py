"""The values of the configuration: durations, sizes, commands, GPUs, secrets and keys as people write them.

This file knows how one value is read and what is wrong with it. It does not know which key holds it.
Validators raise ``ValueError`` only, because that is what pydantic collects.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from llm_router.config import units


@dataclass(slots=True)
class Reading:
    """What goes along with one validation: the reader of secret files, and what was noticed on the way."""

    read_file: Callable[[str], str]
    plain_keys: int = 0

    @staticmethod
    def of(info: ValidationInfo) -> "Reading":
        assert isinstance(info.context, Reading)
        return info.context


_DURATION_SCHEMA: Final = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "examples": ["2s", "30m", "1h30m"]}],
}
_SIZE_SCHEMA: Final = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "examples": ["512MiB", "24GiB"]}],
}
_WORDS_SCHEMA: Final = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_SCALAR: Final = {"type": ["string", "number", "boolean"]}

#: Seconds. Written as a number, "2s", "30m" or "1h30m".
Duration = Annotated[float, BeforeValidator(units.duration), WithJsonSchema({**_DURATION_SCHEMA, "title": "duration"})]
#: Bytes. Written as a number, "512MiB" or "24GiB".
Size = Annotated[int, BeforeValidator(units.size), WithJsonSchema({**_SIZE_SCHEMA, "title": "size"})]
Port = Annotated[int, Field(ge=1, le=65535)]


def _idle(value: object) -> float | None:
    return None if value is None or value == "never" else units.duration(value)


def _command(value: object) -> object:
    """A list of words from a list, or from one text. Quotes are understood; nothing else of a shell is."""
    words = tuple(shlex.split(value)) if isinstance(value, str) else value
    if not isinstance(words, tuple):
        raise ValueError("the command must be a list of words, or one text that is split at blanks")  # noqa: TRY004 - pydantic collects ValueError only
    texts = tuple(str(word) if isinstance(word, int | float) and not isinstance(word, bool) else word for word in words)
    if not texts or not all(isinstance(word, str) for word in texts) or not texts[0]:
        raise ValueError("the command must begin with a program, and all its words must be text or numbers")
    return texts


def _gpus(value: object) -> int | tuple[int | str, ...] | None:
    if value is None or value == "all":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1024:
        return value
    if isinstance(value, str) and value:
        value = (value,)
    if isinstance(value, tuple) and value and all(map(_names_a_gpu, value)) and len(set(value)) == len(value):
        return value
    raise ValueError('gpus must be a number of GPUs, "all", or a list of different indices or UUIDs, such as [0, 1]')


def _names_a_gpu(item: object) -> bool:
    return (isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= 1024) or (
        isinstance(item, str) and item.startswith(("GPU-", "MIG-")) and len(item) > 4
    )


def _memory(value: object) -> int:
    amount = units.size(value)
    if amount == 0:
        raise ValueError("memory must be more than 0; a model that needs no GPU says gpus: 0")
    return amount


def _text(value: object) -> object:
    """Environment values are text; numbers and true/false are what people write for them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _secret(value: object, info: ValidationInfo) -> object:
    """``file:PATH`` becomes the file's text without its line end; the reader comes with the validation."""
    if isinstance(value, str) and value.startswith("file:"):
        return _read_secret(value, info)
    return value


def _read_secret(value: str, info: ValidationInfo) -> str:
    """The text of the file that ``file:PATH`` names. Raises ``ValueError`` that names file and cause."""
    path = value.removeprefix("file:").strip()
    try:
        text = Reading.of(info).read_file(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"cannot read the secret file {path!r}: {cause}") from None
    return text.rstrip("\r\n")


def _clean_env(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"{name!r} cannot be set in an environment: its name or value holds = or a NUL")
    return value


def _clean_key(value: str) -> str:
    """A key goes into a header as it is. It is not named in the error."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("the key must be one word of printable ASCII characters")
    return value


_Text = Annotated[str, BeforeValidator(_secret), BeforeValidator(_text), WithJsonSchema(_SCALAR)]
Env = Annotated[dict[str, _Text], AfterValidator(_clean_env)]
#: A key that is sent to an engine, or ``file:PATH`` of a file that holds it.
EngineKey = Annotated[str, AfterValidator(_clean_key), BeforeValidator(_secret), WithJsonSchema({"type": "string"})]
#: Seconds, or ``None`` for ``never``.
Idle = Annotated[
    float | None, BeforeValidator(_idle), WithJsonSchema({**_DURATION_SCHEMA, "title": "duration, or never"})
]
#: Bytes, more than 0.
Memory = Annotated[int, BeforeValidator(_memory), WithJsonSchema({**_SIZE_SCHEMA, "title": "size"})]
Words = Annotated[tuple[str, ...], BeforeValidator(_command), WithJsonSchema({**_WORDS_SCHEMA, "title": "command"})]
Gpus = Annotated[
    Any,
    BeforeValidator(_gpus),
    WithJsonSchema(
        {
            "title": "gpus",
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"const": "all"},
                {
                    "type": "array",
                    "items": {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^(GPU|MIG)-"}]},
                },
            ],
        }
    ),
]


def _pattern(value: str) -> str:
    try:
        compiled(value)
    except re.error as error:
        raise ValueError(f"cannot use {value!r} as a pattern: {error}") from None
    return value


#: The beginning of a text, or ``/REGEX/``; ``compiled`` makes it usable.
Pattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_pattern)]


def compiled(pattern: str) -> re.Pattern[str]:
    """What to ``search`` for: a regular expression between slashes, else the beginning of the text, in any case.

    Raises ``re.error``.
    """
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        return re.compile(pattern[1:-1])
    return re.compile("^" + re.escape(pattern), re.IGNORECASE)


def hashed(key: str) -> str:
    """The form in which a key is kept: ``sha256:`` and hex. Keys are random and long, so no salt is needed."""
    return "sha256:" + sha256(key.encode()).hexdigest()


def read_keys(value: object, info: ValidationInfo) -> object:
    """One key, a list of keys, or ``file:PATH`` of a file with a key on each line (``#`` begins a comment)."""
    if isinstance(value, str) and value.startswith("file:"):
        lines = (line.split("#")[0].strip() for line in _read_secret(value, info).splitlines())
        return tuple({"key": key if _is_hash(key) else hashed(key), "admin": True} for key in lines if key)
    if isinstance(value, str):
        value = (value,)
    return tuple(_key(item, info) for item in value) if isinstance(value, tuple) else value


def _key(item: object, info: ValidationInfo) -> object:
    entry = {"key": item, "admin": True} if isinstance(item, str) else item
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
        return entry
    text: str = entry["key"]
    from_file = text.startswith("file:")
    if from_file:
        text = _read_secret(text, info).strip()
    if not text:
        raise ValueError("a key must not be empty")
    if text.startswith("sha256:") and not _is_hash(text):
        raise ValueError("a hashed key is sha256: and 64 hex digits; make one with `llm-router keys hash`")
    if not _is_hash(text):
        if not from_file:
            Reading.of(info).plain_keys += 1
        text = hashed(text)
    return {**entry, "key": text.lower()}


def _is_hash(text: str) -> bool:
    digits = text.removeprefix("sha256:").lower()
    return text.startswith("sha256:") and len(digits) == 64 and set(digits) <= set("0123456789abcdef")
