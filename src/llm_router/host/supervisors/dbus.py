"""One connection to a message bus: calls, signals, and its end. The only file that knows the D-Bus library.

Messages are raw: no introspection, no proxies, so another library would need only this file again. It knows
nothing of systemd; who is asked, and what the answers mean, is manager.py's.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError, AuthTimeoutError
from dbus_fast.errors import DBusError as LibraryError
from dbus_fast.unpack import unpack_variants

#: Seconds that the bus may take to let us in.
_LET_IN_S: Final = 10.0

Signal = Callable[[str, str, list[Any]], None]
"""Takes the path of the sender, ``interface.member``, and the body without variants."""


class CallError(Exception):
    """A call was refused by whom it was made to. ``name`` is the error's dotted name, the text its own."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name

    @property
    def short(self) -> str:
        """The last part of the name, such as ``NoSuchUnit``."""
        return self.name.rpartition(".")[2]


class BusLostError(Exception):
    """There is no connection: it could not be made, or it ended before the answer."""


class Bus:
    """A connection that is made once. When it is lost, a new one must be made."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus

    @classmethod
    async def connect(cls, address: str, signal: Signal) -> "Bus":
        """Connect to the bus at ``address`` (D-Bus specification, "Server Addresses").

        ``signal`` is called on the loop for each signal that a rule of ``listen`` lets through. Raises
        ``BusLostError`` that names the address and the cause.
        """
        try:
            bus = await MessageBus(bus_address=address, auth_timeout=_LET_IN_S).connect()
        except (OSError, EOFError, AuthError, AuthTimeoutError, LibraryError, ValueError) as error:
            raise BusLostError(f"cannot reach the message bus at {address}: {_cause(error)}") from None

        def heard(message: Message) -> None:
            if message.message_type is MessageType.SIGNAL:
                what = f"{message.interface}.{message.member}"
                signal(message.path or "", what, [unpack_variants(part) for part in message.body])

        bus.add_message_handler(heard)
        return cls(bus)

    async def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()
    ) -> list[Any]:
        """Call a method; gives the answer's parts without variants. Raises ``CallError`` and ``BusLostError``."""
        message = Message(
            destination=destination, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        if not self._bus.connected:
            raise BusLostError("the connection to the message bus has ended")
        try:
            reply = await self._bus.call(message)
        except (OSError, EOFError, AttributeError) as error:
            raise BusLostError(f"the connection to the message bus ended: {_cause(error)}") from None
        if reply is None:
            raise BusLostError("the connection to the message bus ended before the answer")
        if reply.message_type is MessageType.ERROR:
            raise CallError(reply.error_name or "", str(reply.body[0]) if reply.body else reply.error_name or "")
        return [unpack_variants(part) for part in reply.body]

    async def listen(self, rule: str) -> None:
        """Let the signals of this match rule through. Raises as ``call``."""
        await self._daemon("AddMatch", rule)

    async def mute(self, rule: str) -> None:
        """Take a match rule back. Raises as ``call``."""
        await self._daemon("RemoveMatch", rule)

    async def lost(self) -> None:
        """Return when the connection has ended, by whomever."""
        with suppress(OSError, EOFError, LibraryError):
            # Shielded: the library would take a cancelled waiter for the end of the connection.
            await asyncio.shield(self._bus.wait_for_disconnect())  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        """End the connection and wait until its socket is closed."""
        self._bus.disconnect()
        await self.lost()

    async def _daemon(self, member: str, rule: str) -> None:
        await self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member, "s", [rule])


def _cause(error: Exception) -> str:
    """Its text; some of the library's have none."""
    return str(error) or type(error).__name__


def variant(signature: str, value: object) -> Variant:
    """A value that says its own type."""
    return Variant(signature, value)
