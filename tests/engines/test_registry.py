"""From a word of the configuration to an adapter."""

import pytest

from llm_router.engines import registry


def test_every_adapter_is_found_by_its_own_name() -> None:
    assert "llamacpp" in registry.names()
    assert "command" in registry.names()
    for name in registry.names():
        assert registry.find(name).name == name


@pytest.mark.parametrize("word", ["llama.cpp", "llama-cpp", "LLAMA-SERVER", " LlamaCpp "])
def test_people_may_spell_it_their_way(word: str) -> None:
    assert registry.canonical(word) == "llamacpp"
    assert registry.find(word).name == "llamacpp"


def test_every_spelling_leads_to_an_engine_and_hides_none() -> None:
    for word, name in registry.SPELLINGS.items():
        assert name in registry.names()
        assert word not in registry.names()
        assert word == word.lower()


def test_an_unknown_name_is_answered_with_the_nearest_or_all() -> None:
    assert registry.canonical("wonka") is None
    with pytest.raises(LookupError, match=r"cannot find the engine 'lamacpp': did you mean llamacpp\?"):
        registry.find("lamacpp")
    with pytest.raises(LookupError, match="there are llamacpp"):
        registry.find("12345")
