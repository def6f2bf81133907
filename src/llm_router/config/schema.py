"""The sections of the configuration: every key, its type, its default and one sentence about it.

This file knows the words of the file. It does not know YAML, places or what refers to what. The JSON schema
for editors and the reference page are made from these classes; the texts below the keys are part of both.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llm_router.config.values import Duration, EngineKey, Env, Gpus, Idle, Memory, Pattern, Port, Size, Words, read_keys
from llm_router.core.words import Settings


class Section(BaseModel):
    """What all sections share: no unknown keys, no guessed types, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


#: How a waiting client is told; the words are those of the header `X-Router-Status`.
Mode = Literal["event", "content", "reasoning", "comment", "off"]
#: What becomes of requests that nobody waits for.
Background = Literal["ride", "steer", "refuse"]


class Key(Section):
    """A client's key. Only its hash is kept."""

    name: str = ""
    """What the key is called in logs and lists."""
    key: str
    """`sha256:` and the 64 hex digits of the key's SHA-256, or `file:PATH` of a file that holds the key."""
    admin: bool = False
    """Whether it may load, unload and reconfigure."""
    models: tuple[str, ...] | None = None
    """The models it may use; all of them if not given."""
    status: Mode | None = None
    """How its waiting requests are told; wins over `clients`, the model's and the server's `status`."""
    background: bool = False
    """Nobody waits for its requests: they never cause a switch."""


class Client(Section):
    """What is different for the clients that name themselves so."""

    user_agent: Pattern
    """How their `User-Agent` begins, in any case; `/REGEX/` is looked for anywhere in it."""
    status: Mode | None = None
    """How their waiting requests are told; wins over the model's and the server's `status`."""
    background: bool = False
    """Nobody waits for their requests: they never cause a switch."""
    keep_alive: bool | None = None
    """As the server's `keep_alive`, for them."""


class Server(Section):
    """The router's own address and limits."""

    host: str = "127.0.0.1"
    """Address to listen on. Another one than loopback needs `keys`, or both `allow_remote` and `insecure`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8002
    """Port to listen on; 0 lets the system choose."""
    also_listen: tuple[str, ...] = ()
    """Further addresses to listen on, by the same rules, such as `172.17.0.1` for containers. They may come up later."""
    keys: Annotated[tuple[Key, ...], BeforeValidator(read_keys)] = ()
    """Keys of the clients. A plain entry may do everything; without any keys every key is accepted."""
    allow_remote: bool = False
    """Listen beyond loopback without keys: the first of two yeses."""
    insecure: bool = False
    """Listen beyond loopback without keys: the second of two yeses."""
    cors_origins: tuple[str, ...] = ()
    """Web origins, beside loopback ones, whose pages may call the router, such as `https://chat.example`."""
    max_body: Size = 64 * 1024 * 1024
    """Largest request body; more is answered with 413."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much the router writes to its log."""
    state_dir: str | None = None
    """Folder for instances, logs, journal and history; by default below `~/.local/state` (or `$STATE_DIRECTORY`)."""
    status: Mode = "event"
    """How waiting clients are told: by `event`s beside the answer, as lines in its `content` or `reasoning`, by `comment`s, or not at all (`off`)."""
    plain_lines: bool = False
    """Write the lines of `content` and `reasoning` without their invisible marks: the exact old text, which is then recognised by its grammar."""
    clients: tuple[Client, ...] = ()
    """Rules for clients by their `User-Agent`; the first that fits counts."""
    background: Background = "ride"
    """Requests that nobody waits for (titles, tags): `ride` with the requests they belong to, `steer` them to a loaded model, or `refuse` them."""
    hold: Annotated[Duration, Field(gt=0)] | None = None
    """How long a request for a whole answer is held while its model comes, then it gets 503 with `loading`; by default as long as it takes."""
    keep_alive: bool = False
    """Send a space every 10 s to who waits for a whole JSON answer; its status is then 200 whatever comes."""
    list_aliases: bool = False
    """List the models under their aliases too."""
    load_timeout: Annotated[Duration, Field(gt=0)] = 180.0
    """How long a model may load before the start counts as failed."""
    load_silence: Annotated[Duration, Field(gt=0)] = 120.0
    """How long nothing may move while a model loads: no line of its log, no memory, no reading, no computing."""
    answer_silence: Annotated[Duration, Field(gt=0)] = 120.0
    """How long an engine may show no work while requests run: no byte of an answer, no line of its log about one, no computing. Then it must make one token, or it is replaced."""
    look_every: Annotated[Duration, Field(gt=0)] = 5.0
    """How often an idle engine is asked whether it is well."""
    shutdown_grace: Duration = 30.0
    """How long running answers may go on when the router ends."""
    engines_on_exit: Literal["stop", "keep"] = "stop"
    """Whether engines end with the router, or live on and are adopted by the next one."""
    watch: bool = False
    """Reload when the configuration's files change. `llm-router reload` and SIGHUP do it at any time."""
    supervisor: Literal["auto", "child", "systemd"] = "auto"
    """Who runs the engines: `child` the router itself, `systemd` one unit for each start; `auto` takes systemd where the router is itself a unit that may."""
    units: Literal["system", "user"] = "system"
    """Whose units `service` names: the system's, or those of the account's own user manager."""
    drop_ins: Literal["run", "etc"] = "run"
    """Where the command of an existing unit is replaced: below `/run/systemd/system` (until the next boot) or `/etc/systemd/system`."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses to listen on, each once."""
        return tuple(dict.fromkeys((self.host, *self.also_listen)))

    @property
    def open_addresses(self) -> tuple[str, ...]:
        """Those that other machines, or containers, may reach."""
        return tuple(one for one in self.addresses if not (one in {"localhost", "::1"} or one.startswith("127.")))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the router."""
        return not self.open_addresses

    @property
    def url(self) -> str:
        """Where this machine reaches the router, without a slash at the end."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 - recognised
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


#: The scheduler's own defaults are the file's.
_RULES: Final = Settings()


class Scheduler(Section):
    """The rules of waiting and switching. The defaults suit a workstation; every one may be left out."""

    stall: Duration = _RULES.stall_s
    """While a model has to leave: an answer without progress for so long may be ended. That its engine works is progress too."""
    drain_timeout: Duration = _RULES.drain_timeout_s
    """While a model has to leave: an answer older than this may be ended; 0 means never."""
    quantum_factor: Annotated[float, Field(ge=0, le=1000)] = _RULES.quantum_factor
    """A loaded model keeps its place this many times the cost of switching to another one."""
    quantum_min: Duration = _RULES.quantum_min_s
    """Shortest time that a model keeps its place while others wait."""
    quantum_max: Duration = _RULES.quantum_max_s
    """Longest time that a busy model keeps its place while others wait."""
    linger: Duration = _RULES.linger_s
    """How long a model waits after an answer for the same client's next request."""
    max_wait: Duration = _RULES.max_wait_s
    """How long a request waits beyond the switches before it, then it is refused; 0 means no limit."""
    cooldown: Duration = _RULES.cooldown_s
    """How long a failure that would repeat itself is answered without another start."""
    backoff: Duration = _RULES.backoff_s
    """Pause after a passing failure; it doubles with each further one."""
    starts_in_a_row: Annotated[int, Field(ge=1, le=100)] = _RULES.starts_in_a_row
    """Failed starts of one model before its requests are refused for a while."""
    queue_limit: Annotated[int, Field(ge=1)] = _RULES.queue_limit
    """Most requests that may wait at once; more are answered with 429."""
    margin: Size = _RULES.margin
    """Memory that stays free on each device beside the known footprints."""
    background_hold: Duration = _RULES.background_hold_s
    """How long a background request (a chat's title, tags) waits for its model before it is refused."""
    background_pause: Duration = _RULES.background_pause_s
    """How long it waits on a loaded model that is idle, so that the request it belongs to comes first."""


class Backend(Section):
    """A program that serves models. Its name is free; `engine` says which kind it is."""

    engine: str | None = None
    """The engine; by default the backend's own name."""
    command: Words | None = None
    """The program and its fixed words. A path with a slash is below `dir`, if given, else below this file's folder."""
    dir: str | None = None
    """Folder of the engine's installation."""
    model_dir: str | None = None
    """Folder that relative model paths are below."""
    host: str = "127.0.0.1"
    """Address the engine listens on."""
    port: Port | None = None
    """Port the engine listens on; by default a free one is chosen for each start."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Options of the engine under their own names; `true` is a bare flag, a list repeats it."""
    env: Env = Field(default_factory=dict, repr=False)
    """Environment of the engine."""
    cwd: str | None = None
    """Working folder; by default the instance's own."""
    service: str | None = None
    """An existing systemd unit that runs the engine; the router starts and stops it instead of a program of its own."""
    script: Words | None = None
    """Program that replaces the unit's `ExecStart`, by a drop-in; the unit's own file is never touched."""
    config_file: str | None = None
    """TabbyAPI with `service`: its `config.yml`, in which `model_name` is set; looked for in the usual places."""
    tokens_file: str | None = None
    """TabbyAPI with `service`: its `api_tokens.yml`; by default beside `config_file`."""
    key: EngineKey | None = Field(default=None, repr=False)
    """The key that the engine asks for, or `file:PATH`; with `service` or a `command` of your own. Else the router makes keys."""
    grace: Duration | None = None
    """How long the engine may take to end when asked; by default the engine's own usual time."""
    load_timeout: Annotated[Duration, Field(gt=0)] | None = None
    """How long its models may load; by default the server's `load_timeout`."""


class RequestRules(Section):
    """What happens to the fields of each request for the model."""

    force: dict[str, Any] = Field(default_factory=dict)
    """Fields that are always set to these values."""
    default: dict[str, Any] = Field(default_factory=dict)
    """Fields that are set where the client left them out."""
    drop: tuple[str, ...] = ()
    """Fields that are removed."""


class Entry(Section):
    """A model that clients can ask for by name."""

    backend: str | None = None
    """The backend that serves it; may be left out if `command` is given, or if there is only one backend."""
    path: str | None = None
    """The model's file or folder. A path that begins with `./`, `../` or `~/` is made absolute."""
    aliases: tuple[str, ...] = ()
    """Other names of the model."""
    gpus: Gpus = None
    """A number of GPUs of the router's choice, a list of indices or UUIDs, or `all`. 0: it needs none."""
    memory: Memory | None = None
    """What it takes on each of its devices. Models whose memory is not known are alone on the machine."""
    context: Annotated[int, Field(ge=1)] | None = None
    """Context length in tokens."""
    parallel: Annotated[int, Field(ge=1)] | None = None
    """Requests that the engine answers at the same time."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Options of the engine; they win over those of the backend."""
    env: Env = Field(default_factory=dict, repr=False)
    """Environment; it wins over that of the backend."""
    cwd: str | None = None
    """Working folder; wins over that of the backend."""
    command: Words | None = None
    """The program and its fixed words; wins over that of the backend. `{port}`, `{model}`, `{path}` are filled in."""
    service: str | None = None
    """The existing systemd unit that serves it; wins over the backend's."""
    script: Words | None = None
    """Program that the unit runs for this model; wins over the backend's."""
    model_name: str | None = None
    """With `service`: the name under which the engine serves it, if that is another one."""
    health: str | None = None
    """Path that answers 2xx once the model is ready (engine `command`)."""
    pin: bool = False
    """Never unload it to make room."""
    preload: bool = False
    """Load it when the router starts."""
    park: bool = False
    """Put it to sleep instead of stopping it where the room allows that; SGLang and vLLM can. Main memory keeps the weights."""
    parked_memory: Memory | None = None
    """What it takes on each of its devices while it sleeps; by default 3GiB."""
    idle: Idle = None
    """Unload it after so long without a request; `never` (the default) keeps it until room is needed."""
    default: bool = False
    """The model of requests that name none; it comes back when nobody needs another one."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher goes first."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Most requests that are passed to it at once; further ones wait."""
    on_demand: bool = True
    """Whether a request may make room for it; otherwise it is served only while it is loaded."""
    load_timeout: Annotated[Duration, Field(gt=0)] | None = None
    """How long it may load; wins over the backend's."""
    description: str = ""
    """Shown to clients in the list of models."""
    capabilities: dict[str, bool] = Field(default_factory=dict)
    """Shown to clients, for example `vision: true`."""
    hidden: bool = False
    """Keep it out of the list of models; it can still be asked for."""
    request: RequestRules = RequestRules()
    """Rules for the fields of requests."""
    status: Mode | None = None
    """How requests that wait for it are told; wins over the server's `status`."""
    background: Background | None = None
    """What becomes of its requests that nobody waits for; wins over the server's `background`."""
    always_background: bool = False
    """Nobody waits for any of its requests: a small model for side jobs that must never cause a switch."""
    merge_user_messages: bool = False
    """Join user messages that follow each other, for chat templates that refuse them."""


class Document(Section):
    """Configuration of llm-router."""

    model_config = ConfigDict(title="llm-router configuration")

    server: Server = Server()
    scheduler: Scheduler = Scheduler()
    backends: dict[str, Backend] = Field(default_factory=dict)
    models: dict[str, Entry] = Field(default_factory=dict)


#: Words of older layouts and near misses that no similarity finds, with what to write instead.
HINTS: Final[Mapping[str, str]] = {
    "router_port": "Write it as `port` under `server`",
    "model_load_timeout": "Write it as `load_timeout` under `server`",
    "timeout": "Write it as `load_timeout`",
    "model_path": "Write it as `path`",
    "health_endpoint": "Write it as `health` at the model; known engines need none",
    "health_check": "Write it as `health`",
    "api_keys": "Write them as `keys` under `server`",
    "api_key": "Write it in the list `keys` under `server`",
    "ttl": "Write it as `idle`",
    "cmd": "Write it as `command`",
    "name": "The name is the key of the entry: NAME: {backend: ..., path: ...}",
    "n_ctx": "Write it as `context`",
    "ctx_size": "Write it as `context`, or as the engine's own option under `args`",
    "max_model_len": "Write it as `context`, or as the engine's own option under `args`",
    "tensor_parallel": "Write it as `gpus`, or as the engine's own option under `args`",
    "footprint": "Write it as `memory`",
    "vram": "Write it as `memory`",
    "options": "Write them as `args`",
    "environment": "Write it as `env`",
}


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a configuration file, for editors and for the reference.

    What pydantic cannot know is added: a key may be written as one word, as ``values.read_keys`` reads it.
    """
    schema = Document.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    keys = schema["$defs"]["Server"]["properties"]["keys"]
    entry = keys.pop("items")
    del keys["type"]
    keys["anyOf"] = [{"type": "string"}, {"type": "array", "items": {"anyOf": [{"type": "string"}, entry]}}]
    # Top-level `x-...` keys are places for shared pieces.
    schema["patternProperties"] = {"^x-": {}}
    return schema
