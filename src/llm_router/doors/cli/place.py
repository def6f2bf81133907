"""Where the router is, and with which key it is spoken to: options, environment, configuration, in this order.

This file finds an address. It does not try whether anybody listens there.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from llm_router.config.address import DEFAULT_HOST, DEFAULT_PORT, address
from llm_router.config.search import candidates
from llm_router.doors.cli.exits import CommandError, Exit


def router_url(url: str | None, config: Path | None) -> str:
    """The router's base URL without a slash at the end. Raises ``CommandError`` for what is no URL."""
    given = url or os.environ.get("LLM_ROUTER_URL")
    if given:
        return _checked(given)
    file = _configuration(config)
    if file is None:
        return _join(DEFAULT_HOST, DEFAULT_PORT)
    try:
        found = address(file.read_text(encoding="utf-8"), str(file), os.environ)
    except (OSError, UnicodeDecodeError):
        # Who may not read the system's configuration may still use the router at its usual address.
        found = (DEFAULT_HOST, DEFAULT_PORT)
    if found is None:
        raise CommandError(f"cannot tell from {file} where the router listens; say it with --url", Exit.usage)
    return _join(*found)


def _configuration(explicit: Path | None) -> Path | None:
    home = os.environ.get("HOME", "/")
    for place in candidates(str(explicit) if explicit else None, os.environ, str(Path.cwd()), home):
        path = Path(place.path)
        for file in (path / "config.yml", path):
            if file.is_file():
                return file
        if place.asked:
            raise CommandError(f"cannot find the configuration {place.path} ({place.origin})", Exit.configuration)
    return None


def _checked(url: str) -> str:
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits:
        raise CommandError(f"cannot use {url!r} as the router's address: write http://HOST:PORT", Exit.usage)
    return text.rstrip("/").removesuffix("/v1")


def _join(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
