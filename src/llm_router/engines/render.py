"""Settings as words of a command line, spelled as the installed program spells them.

This file knows how options become flags and that a program may not know all of them. It knows no engine:
each adapter passes its spellings in a ``Spelling``, and decides what it wants.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llm_router.core.words import AMD, DeviceId


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a program spells its flags; all names are without leading dashes.

    ``short`` are written with one dash although they have several letters (``ngl``). ``switches`` take
    ``on`` or ``off`` as a value. ``negatable`` have a ``--no-`` form. ``comma`` join a list into one value
    instead of repeating the flag. ``spread`` take all values of a list as words after one flag.
    """

    short: frozenset[str] = frozenset()
    switches: frozenset[str] = frozenset()
    negatable: frozenset[str] = frozenset()
    comma: frozenset[str] = frozenset()
    spread: frozenset[str] = frozenset()


def option_name(key: str) -> str:
    """The bare name of an option however it was written: ``--ctx_size``, ``ctx-size`` give ``ctx-size``."""
    return key.strip().lstrip("-").replace("_", "-")


def flag_of(name: str, spelling: Spelling) -> str:
    """The flag of a bare name: ``-c``, ``-ngl`` or ``--ctx-size``."""
    return f"-{name}" if len(name) == 1 or name in spelling.short else f"--{name}"


class CommandLine:
    """An argument list in the making. ``known`` are the program's flags, ``None`` if it was not asked."""

    def __init__(self, command: Iterable[str], known: frozenset[str] | None, spelling: Spelling) -> None:
        self._argv = list(command)
        self._known = known
        self._spelling = spelling

    def knows(self, flag: str) -> bool:
        """Whether the program has the flag; assumed when it was not asked."""
        return self._known is None or flag in self._known

    def need(self, spellings: str | tuple[str, ...], *values: object) -> None:
        """Add the first spelling that the program knows. Raises ``ValueError`` when it knows none."""
        if not self.like(spellings, *values):
            first = spellings if isinstance(spellings, str) else spellings[0]
            raise ValueError(f"cannot pass {first}: the installed program does not list it in --help; update it")

    def like(self, spellings: str | tuple[str, ...], *values: object) -> bool:
        """Add the first spelling that the program knows; leave it out, and say so, when it knows none."""
        choices = (spellings,) if isinstance(spellings, str) else spellings
        for flag in choices:
            if self.knows(flag):
                self._argv += [flag, *(_word(flag, value) for value in values)]
                return True
        return False

    def add(self, options: Mapping[str, object]) -> None:
        """Add options under their native names.

        True is the bare flag, False its ``--no-`` form where there is one, ``None`` nothing, a list a
        repeated flag (or as ``Spelling`` says), a mapping JSON. Raises ``ValueError`` for an option that
        the program does not know and for values that cannot be words.
        """
        for key, value in options.items():
            self._add(key, value)

    def words(self) -> tuple[str, ...]:
        """The finished argument list."""
        return tuple(self._argv)

    def _add(self, key: str, value: object) -> None:
        name = option_name(key)
        flag = flag_of(name, self._spelling)
        if value is None:
            return
        if name in self._spelling.switches and isinstance(value, bool):
            value = "on" if value else "off"
        if value is False:
            self._deny(key, name)
            return
        if not self.knows(flag):
            raise ValueError(
                f"cannot pass the option {key!r}: the installed program does not list {flag} in --help; "
                "correct its name or update the program"
            )
        self._argv += self._render(name, flag, value)

    def _deny(self, key: str, name: str) -> None:
        negation = f"--no-{name}"
        if name in self._spelling.negatable or (self._known is not None and negation in self._known):
            if not self.knows(negation):
                raise ValueError(f"cannot switch off the option {key!r}: the installed program has no {negation}")
            self._argv.append(negation)

    def _render(self, name: str, flag: str, value: object) -> list[str]:
        if value is True:
            return [flag]
        if isinstance(value, list | tuple):
            words = [_word(flag, item) for item in value]
            if name in self._spelling.comma:
                return [flag, ",".join(words)]
            if name in self._spelling.spread:
                return [flag, *words]
            return [part for word in words for part in (flag, word)]
        return [flag, _word(flag, value)]


def _word(flag: str, value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str | int | float):
        raise ValueError(f"cannot pass {flag}: {value!r} is not text, a number, a list or a mapping")  # noqa: TRY004 - the contract of Engine.launch is ValueError
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\0" in text:
        raise ValueError(f"cannot pass {flag}: its value contains a NUL byte")
    return text


def visible_devices(devices: tuple[int, ...], ids: tuple[DeviceId, ...] = ()) -> dict[str, str]:
    """The environment that shows CUDA, or ROCm by ``ids``, just these devices, by PCI order; empty without devices.

    Indices and not UUIDs: SGLang parses the variable as integers when it splits tensors, and several
    versions of vLLM fail on UUIDs. CUDA's own order is by speed, hence ``PCI_BUS_ID``. ROCm
    gets its own variable alone: vLLM fails when the two differ, and ``ROCR_VISIBLE_DEVICES`` would count twice.
    """
    if not devices:
        return {}
    if any(id_.startswith(AMD) for id_ in ids):
        return {"HIP_VISIBLE_DEVICES": ",".join(map(str, devices))}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
