"""The configuration's rules for clients, as the manners that the road of bytes keeps to.

It knows where each rule stands in the configuration. It refuses to know what becomes of it.
"""

from collections.abc import Mapping
from typing import Final

from llm_router.config.load import Config
from llm_router.config.schema import Client, Entry
from llm_router.config.values import compiled
from llm_router.formats.recognise import Recognised
from llm_router.formats.words import Kind
from llm_router.wire.manners import ClientManners, Manners, ModelManners
from llm_router.wire.params import Rules

#: Models that a chat's side jobs can be given to.
_CHATTING: Final = frozenset({Kind.chat, Kind.vision})


def manners(config: Config, about: Mapping[str, Recognised]) -> Manners:
    """The manners of a configuration in which everything is right. ``about`` tells what the models' files are."""
    server = config.server
    return Manners(
        status=server.status,
        plain_lines=server.plain_lines,
        background=server.background,
        hold_s=server.hold,
        keep_alive=server.keep_alive,
        clients=tuple(_client(rule) for rule in server.clients),
        models={name: _model(config, name, entry, about.get(name)) for name, entry in config.models.items()},
    )


def _client(rule: Client) -> ClientManners:
    return ClientManners(compiled(rule.user_agent), rule.status or "", rule.background, rule.keep_alive)


def _model(config: Config, name: str, entry: Entry, about: Recognised | None) -> ModelManners:
    rules = entry.request
    return ModelManners(
        status=entry.status or "",
        background=entry.background or "",
        always_background=entry.always_background,
        rules=Rules.of(rules.force, rules.default, rules.drop),
        merge=entry.merge_user_messages,
        limit_s=config.load_timeout(name),
        chats=about is None or about.kind in _CHATTING,
    )
