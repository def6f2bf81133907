"""Keys of our own making: one secret of an instance gives the different keys that its engine tells apart."""

import hashlib


def admin_key(key: str) -> str:
    """The administrator's key that belongs to an instance's key; who knows only the latter cannot find it.

    Not reversible, so that what clients' requests carry opens no door to loading and unloading.
    """
    return hashlib.sha256(f"admin:{key}".encode()).hexdigest()[:32]


def secrets_of(key: str | None) -> tuple[str, ...]:
    """All keys of an instance: SGLang and TabbyAPI print theirs."""
    return (key, admin_key(key)) if key else ()
