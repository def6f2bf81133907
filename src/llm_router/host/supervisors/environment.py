"""What an engine's environment is made of: what it inherits from the router's, and what it must not.

The operator's own settings pass (``PATH``, ``LD_LIBRARY_PATH``, ``CUDA_*``, ``HF_*``, proxies): an engine that
runs in a shell runs here too. What belongs to the router alone does not: its settings and secrets, its Python,
and what systemd says to the router's own unit. This file knows names of variables and nothing of processes.
"""

from collections.abc import Mapping

from llm_router.host.machine.processes import MARKER

#: The router's own, by prefix.
_OURS = ("LLM_ROUTER_", "ROUTER_")

#: Said to the router's process, wrong in a child: sd_notify(3), sd_listen_fds(3), systemd.exec(5), and the
#: settings of the router's interpreter, which is seldom the engine's.
_NOT_THEIRS = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "MAINPID",
        "MANAGERPID",
        "CREDENTIALS_DIRECTORY",
        "VIRTUAL_ENV",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONBREAKPOINT",
        "PYTHONWARNINGS",
        "PYTHONOPTIMIZE",
    }
)

#: A variable that ends so holds a secret, and which engine it is meant for cannot be known: it is not passed.
#: Give it in the model's ``env`` instead.
_SECRET = ("_API_KEY", "_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")

#: Engines fetch models with these.
_SECRETS_OF_ENGINES = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})

#: PCI order: else CUDA numbers the devices by speed, unlike the driver's tools. The rest keeps logs readable and
#: free of delay.
_ADDED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb"}


def inherits(name: str) -> bool:
    """Whether an engine gets this variable of the router's environment."""
    upper = name.upper()
    if upper in _SECRETS_OF_ENGINES:
        return True
    return not (upper.startswith(_OURS) or upper in _NOT_THEIRS or upper.endswith(_SECRET))


def engine_environment(ours: Mapping[str, str], launch: Mapping[str, str], token: str) -> dict[str, str]:
    """The cleaned environment, then the router's additions, then the launch's own, then the marker."""
    inherited = {name: value for name, value in ours.items() if inherits(name)}
    return {**inherited, **_ADDED, **launch, MARKER: token}
