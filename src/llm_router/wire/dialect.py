"""How one engine's requests and answers differ from what clients send and expect, as a value.

The engines describe it, the road applies it; this file only knows the words.
"""

from collections.abc import Mapping

from msgspec import Struct, field


class Dialect(Struct, frozen=True):
    """How requests to this instance differ from what the client sent, and answers from what it expects.

    ``model_name`` is written into ``model`` (``None``: left as it is). ``headers`` are added (the key).
    On ``stream_only`` paths a request for a whole answer is asked for as a stream and joined, because the
    engine does not notice that a client left otherwise. ``ask_usage``: add ``stream_options.include_usage``
    to streams and hide the extra chunk from clients that did not ask. ``drop`` are request fields the
    engine refuses; of those on a path in ``accepts`` it refuses all but these. ``says_done``: its complete
    streams end with ``[DONE]``. ``serves`` are the paths it has, ``None`` if unknown: any path is passed.
    ``reserved`` are paths that only the router may ask, since they put the engine to sleep or change it.
    ``usage_whole``: it counts tokens in a whole answer only when that asks for ``stream_options.include_usage`` too.
    """

    model_name: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    stream_only: frozenset[str] = frozenset()
    ask_usage: bool = False
    drop: frozenset[str] = frozenset()
    says_done: bool = True
    serves: frozenset[str] | None = None
    usage_whole: bool = False
    reserved: frozenset[str] = frozenset()
    accepts: Mapping[str, frozenset[str]] = field(default_factory=dict)
