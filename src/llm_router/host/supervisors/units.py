"""systemd's units as values: their names, what they are started with, what they tell of themselves.

Pure: it asks no bus and reads no file. Facts are of systemd 252 (systemd.service(5), systemd.exec(5),
org.freedesktop.systemd1(5)) and were seen there; newer ones keep them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: All instances are below one slice, so that a person can see, weigh and limit them together.
SLICE: Final = "llm-router.slice"
PREFIX: Final = "llm-router-"
#: The template of the plain-account way; ``polkit`` lets the account start its instances and nothing else.
TEMPLATE: Final = "llm-router-model@"
#: What systemd gives an engine that is stopped by somebody else, by ``systemctl`` or at a shutdown (seconds).
STOP_S: Final = 30
#: Engines open many files: sockets, shards, libraries. systemd's own soft limit is 1024.
OPEN_FILES: Final = 524_288

Property = tuple[str, str, Any]
"""A property's name, its D-Bus signature, its value."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit. ``invocation`` names this run of it; empty if it never ran.

    ``code`` is waitid's (1 exited, 2 killed, 3 dumped core; 0 not ended) and ``status`` goes with it.
    ``main_pid`` is 0 once that process has ended, ``last_pid`` still names it. ``argv`` is its first ExecStart;
    ``folder`` its working directory. ``queued``: a job of it is under way or waits; between the two halves of a
    restart that is all that tells of the second.
    """

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    invocation: str = ""
    main_pid: int = 0
    last_pid: int = 0
    cgroup: str = ""
    result: str = "success"
    code: int = 0
    status: int = 0
    kind: str = ""
    restart: str = "no"
    argv: tuple[str, ...] = ()
    folder: str = ""
    queued: bool = False

    @property
    def runs(self) -> bool:
        """Whether something of it lives, or comes back by itself."""
        return self.queued or self.active not in ("inactive", "failed")

    @property
    def waits_to_restart(self) -> bool:
        """Whether systemd itself is about to start it again (``Restart=``)."""
        return self.sub.startswith("auto-restart")

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: the code, or minus the signal's number; ``None`` while nobody knows."""
        match self.code:
            case 1:
                return self.status
            case 2 | 3:
                return -self.status
            case _:
                return None


def read_state(properties: Mapping[str, Any]) -> UnitState:
    """The state from the properties of all interfaces of a unit."""
    commands = properties.get("ExecStart") or [["", []]]
    return UnitState(
        load=properties.get("LoadState", "not-found"),
        active=properties.get("ActiveState", "inactive"),
        sub=properties.get("SubState", "dead"),
        invocation=bytes(properties.get("InvocationID", b"")).hex(),
        main_pid=properties.get("MainPID", 0),
        last_pid=properties.get("ExecMainPID", 0),
        cgroup=properties.get("ControlGroup", ""),
        result=properties.get("Result", "success"),
        code=properties.get("ExecMainCode", 0),
        status=properties.get("ExecMainStatus", 0),
        kind=properties.get("Type", ""),
        restart=properties.get("Restart", "no"),
        argv=tuple(commands[0][1]),
        folder=properties.get("WorkingDirectory", "").lstrip("!"),
        queued=bool(properties.get("Job", [0])[0]),
    )


def object_path(unit: str) -> str:
    """Where the bus has the unit: all but letters and digits as ``_`` and two hex digits, as sd-bus escapes."""
    letters = []
    for index, byte in enumerate(unit.encode()):
        letter = chr(byte)
        plain = letter.isascii() and letter.isalnum() and not (index == 0 and letter.isdigit())
        letters.append(letter if plain else f"_{byte:02x}")
    return "/org/freedesktop/systemd1/unit/" + "".join(letters)


def transient_name(state_id: str, folder: str) -> str:
    """The unit of an instance's folder. ``state_id`` keeps the routers of two state folders apart."""
    return f"{PREFIX}{state_id}-{folder}.service"


def template_name(state_id: str, token: str) -> str:
    """The template's unit for an instance."""
    return f"{TEMPLATE}{state_id}-{token}.service"


def transient(
    *, description: str, argv: Sequence[str], folder: str, environment: str, log: str
) -> tuple[Property, ...]:
    """The properties of a unit that runs ``argv`` (its first word an absolute path).

    ``environment`` is the file with its variables, as properties are readable to every user of the machine.
    ``log`` is a file that is only ever appended to: one that is tailed has no delay, and no rate limit.
    """
    return (
        ("Description", "s", description),
        # "simple" would call a start done whose program does not exist.
        ("Type", "s", "exec"),
        # ExecStart would expand $NAME in the words of the command line; the flag keeps them byte for byte.
        ("ExecStartEx", "a(sasas)", [[argv[0], list(argv), ["no-env-expand"]]]),
        ("WorkingDirectory", "s", folder),
        ("EnvironmentFiles", "a(sb)", [[environment, False]]),
        ("StandardOutputFileToAppend", "s", log),
        ("StandardErrorFileToAppend", "s", log),
        ("Slice", "s", SLICE),
        # Nothing of an engine stays behind: not its workers, not what left its session.
        ("KillMode", "s", "control-group"),
        ("TimeoutStopUSec", "t", STOP_S * 1_000_000),
        # Whether it starts again is the router's to decide.
        ("Restart", "s", "no"),
        ("LimitNOFILE", "t", OPEN_FILES),
        ("LimitNOFILESoft", "t", OPEN_FILES),
        # Else a unit that ended well is forgotten at once, with its exit code.
        ("AddRef", "b", True),
    )


def environment_file(variables: Mapping[str, str]) -> bytes:
    """Variables in the form of ``EnvironmentFile=``. Names that systemd does not take are left out."""
    lines = []
    for name, value in variables.items():
        if _VARIABLE.fullmatch(name):
            escaped = re.sub(r'(["\\`$])', r"\\\1", value)
            lines.append(f'{name}="{escaped}"\n')
    return "".join(lines).encode("utf-8", "replace")


def drop_in(words: Sequence[str], model: str) -> bytes:
    """The text that replaces a unit's ``ExecStart=`` and nothing else."""
    line = " ".join(_quoted(word) for word in words)
    about = model.replace("\n", " ")
    text = f"# Written by llm-router to serve {about}; it is replaced at each start.\n[Service]\nExecStart=\nExecStart=:{line}\n"
    return text.encode()


def _quoted(word: str) -> str:
    """A word that systemd's parser reads back as it is (with ``:`` before the command, ``$`` means itself)."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "%": "%%"}
    text = "".join(escapes.get(letter, letter) for letter in word)
    return text if re.fullmatch(r"[A-Za-z0-9_./:=@%+,-]+", text) else f'"{text}"'
