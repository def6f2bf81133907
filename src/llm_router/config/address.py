"""Where a router with this configuration listens, read without judging the rest.

For commands that only want to speak to a running router: the person who types them may not be allowed to
read the secrets that the configuration refers to. This file knows two keys, and their older form, and nothing else.
"""

from collections.abc import Mapping

from llm_router.config import old
from llm_router.config.load import read_parts
from llm_router.config.problems import ConfigError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8002
_ANYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised, not listened on


def address(text: str, name: str, env: Mapping[str, str]) -> tuple[str, int] | None:
    """Host and port to reach it from this machine; ``None`` if the text does not tell (port 0, no YAML)."""
    try:
        _, root = read_parts([(name, text), ("", "")], env)
    except ConfigError:
        return None
    if old.is_old(root):
        root = {"server": {"port": root.get("router_port", old.ROUTER_PORT)}}
    server = root.get("server")
    section = server if isinstance(server, dict) else {}
    host, port = section.get("host", DEFAULT_HOST), section.get("port", DEFAULT_PORT)
    if not isinstance(host, str) or not isinstance(port, int) or not 1 <= port <= 65535:
        return None
    return (DEFAULT_HOST if host in _ANYWHERE else host), port
