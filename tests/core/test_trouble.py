from math import inf

from core.play import BAD_FILE, CRASH
from llm_router.core.trouble import Trouble
from llm_router.core.words import Settings

RULES = Settings(backoff_s=2.0, starts_in_a_row=3, cooldown_s=300.0)


def test_pauses_double_and_the_third_failure_bars() -> None:
    trouble = Trouble()
    trouble.note(CRASH, RULES, 0.0)
    assert (trouble.retry_at, trouble.barred_until) == (2.0, -inf)
    trouble.note(CRASH, RULES, 10.0)
    assert (trouble.retry_at, trouble.barred_until) == (14.0, -inf)
    trouble.note(CRASH, RULES, 20.0)
    assert (trouble.retry_at, trouble.barred_until) == (28.0, 28.0)


def test_a_pause_is_never_longer_than_the_cooldown() -> None:
    trouble = Trouble()
    for _ in range(2000):
        trouble.note(CRASH, RULES, 0.0)
    assert trouble.retry_at == 300.0


def test_what_would_fail_again_is_barred_at_once() -> None:
    trouble = Trouble()
    trouble.note(BAD_FILE, RULES, 5.0)
    assert (trouble.failure, trouble.retry_at, trouble.barred_until) == (BAD_FILE, 305.0, 305.0)
    trouble.clear()
    assert trouble == Trouble()
