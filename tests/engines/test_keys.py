"""One secret gives two keys, and the lesser one does not open the greater door."""

from llm_router.engines.keys import admin_key, secrets_of


def test_the_greater_key_is_another_and_always_the_same() -> None:
    assert admin_key("a") == admin_key("a")
    assert admin_key("a") != admin_key("b")
    assert "a-secret" not in admin_key("a-secret")


def test_all_that_may_not_be_read_in_a_log() -> None:
    assert secrets_of("a") == ("a", admin_key("a"))
    assert secrets_of(None) == ()
