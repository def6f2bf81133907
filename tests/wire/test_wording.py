"""The same wait in both kinds of words."""

from llm_router.core.words import ModelName, Notice, Stage
from llm_router.wire.wording import STATUS, ClassicWords, Speed

NOTICE = Notice(ModelName("m"), Stage.loading, 9.0, percent=38.0, left_s=20.0, running_s=15.0, phase="loading weights")
SPEED = Speed(128, 2.83, 45.2, first_s=3.14)


def test_as_one_status_line() -> None:
    assert STATUS.told(NOTICE) == "Loading m: 38 %, loading weights, about 20 s left"
    assert STATUS.waiting("m") == "Waiting for m"
    assert STATUS.reading("m") == "m is reading the prompt"
    assert STATUS.ready("m", 42.0) == "m ready (42 s)"
    assert STATUS.speed(SPEED) == "⚡ 45.2 tok/s · 128 tokens · 2.8 s · first token after 3.1 s"
    assert STATUS.speed(Speed(1, 0.1, None, True, 0.2)) == "⚡ ~1 token · 0.1 s"


def test_as_the_classic_lines() -> None:
    words = ClassicWords(180.0)
    assert words.told(NOTICE) == "⏳ Loading m... 15s / 180s (38 %, about 20 s left)"
    assert words.waiting("m") == "🔄 Switching to m..."
    assert words.reading("m") == "📖 m is reading the prompt..."
    assert words.ready("m", 42.0) == "✅ m ready (42s)"
    assert words.speed(SPEED) == "⚡ 45.2 tok/s (128 tokens in 2.8s)"
    assert words.speed(Speed(128, 2.83, None, True)) == "⚡ 45.2 tok/s (~128 tokens in 2.8s)"
