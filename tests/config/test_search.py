from llm_router.config.search import candidates


def paths(explicit: str | None = None, **env: str) -> list[str]:
    return [place.path for place in candidates(explicit, env, "/home/ann", "/home/me")]


def test_the_order_when_nobody_says_anything() -> None:
    assert paths() == [
        "/home/ann/llm-router.yml",
        "/home/me/.config/llm-router/config.yml",
        "/etc/llm-router",
        "/opt/llm-router/config.json",
    ]
    assert "/cfg/llm-router/config.yml" in paths(XDG_CONFIG_HOME="/cfg")


def test_who_names_a_file_gets_that_one_or_an_error() -> None:
    assert paths("my.yml", LLM_ROUTER_CONFIG="/a", ROUTER_CONFIG="/b") == ["/home/ann/my.yml"]
    assert paths(LLM_ROUTER_CONFIG="/a", ROUTER_CONFIG="/b") == ["/a"]
    assert paths(LLM_ROUTER_CONFIG="", ROUTER_CONFIG="~/b") == ["/home/me/b"]
    (place,) = candidates("~", {}, "/home/ann", "/home/me")
    assert (place.path, place.origin, place.asked) == ("/home/me", "--config", True)
