import pytest

from llm_router.config.schema import Key
from llm_router.config.values import hashed
from llm_router.doors import keys
from llm_router.doors.keys import Guard
from llm_router.host.road.road import Visitor
from llm_router.wire.errors import Fault

USER = Key(name="ann", key=hashed("user-key"))
ADMIN = Key(name="ops", key=hashed("admin-key"), admin=True)
LOCAL, REMOTE = "127.0.0.1", "192.0.2.7"


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + text.encode())]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        (bearer("abc"), "abc"),
        ([(b"authorization", b"bearer  abc ")], "abc"),
        ([(b"x-api-key", b"abc")], "abc"),
        ([(b"authorization", b"Basic abc")], ""),
        ([(b"authorization", b"Bearer")], ""),
        ([], ""),
    ],
)
def test_a_key_is_found_where_clients_put_it(headers: list[tuple[bytes, bytes]], key: str) -> None:
    assert keys.offered(headers) == key


def test_without_keys_any_key_is_accepted_and_ignored() -> None:
    guard = Guard(())
    assert isinstance(guard("/v1/chat/completions", bearer("sk-local"), LOCAL), Visitor)
    assert isinstance(guard("/v1/chat/completions", [], REMOTE), Visitor)
    assert guard.reader([]) is None


def test_without_keys_only_this_machine_changes_the_state() -> None:
    guard = Guard(())
    assert guard.operator(bearer("whatever"), LOCAL) is None
    assert guard.operator([], "::1") is None
    assert guard.operator([], "::ffff:127.0.0.1") is None
    assert guard.operator([], "") is None, "a Unix socket"
    assert guard.operator([], REMOTE) is keys.NOT_LOCAL
    assert guard.operator([], "not an address") is keys.NOT_LOCAL


def test_with_keys_a_known_one_is_needed_everywhere() -> None:
    guard = Guard((USER, ADMIN))
    assert guard("/v1/chat/completions", bearer("user-key"), REMOTE) == Visitor(f"ann@{REMOTE}")
    for wrong in ([], bearer("user-kez"), bearer(""), bearer("x" * 5000), bearer(USER.key)):
        assert guard("/v1/chat/completions", wrong, LOCAL) is keys.NO_KEY
        assert guard.reader(wrong) is keys.NO_KEY
        assert guard.operator(wrong, LOCAL) is keys.NO_KEY
    assert guard.reader(bearer("user-key")) is None
    assert guard.operator(bearer("user-key"), LOCAL) is keys.NOT_ADMIN
    assert guard.operator(bearer("admin-key"), REMOTE) is None


def test_a_chat_is_one_caller_whatever_its_key() -> None:
    guard = Guard((USER,))
    visitor = guard("/v1/chat/completions", [*bearer("user-key"), (b"x-router-chat", b"c1")], REMOTE)
    assert visitor == Visitor("chat:c1")


def test_the_faults_say_what_to_do() -> None:
    for fault in (keys.NO_KEY, keys.NOT_ADMIN, keys.NOT_LOCAL, keys.FOREIGN_PAGE):
        assert isinstance(fault, Fault)
        assert fault.message.startswith("cannot ")
