import pytest

from llm_router.wire.paths import Api, raw_candidates, route


@pytest.mark.parametrize(
    ("path", "target", "api"),
    [
        (b"/v1/chat/completions", b"/v1/chat/completions", Api.chat),
        (b"/chat/completions", b"/v1/chat/completions", Api.chat),
        (b"/completions", b"/v1/completions", Api.completions),
        (b"/v1/responses", b"/v1/responses", Api.responses),
        (b"/v1/messages", b"/v1/messages", Api.messages),
        (b"/v1/messages/count_tokens", b"/v1/messages/count_tokens", Api.other),
        (b"/v1/audio/transcriptions", b"/v1/audio/transcriptions", Api.other),
        (b"/infill", b"/infill", Api.other),
    ],
)
def test_engine_paths(path: bytes, target: bytes, api: Api) -> None:
    found = route(path)
    assert found is not None
    assert (found.path, found.api, found.raw) == (target, api, False)


@pytest.mark.parametrize(
    "path", [b"/", b"/v1/models", b"/v1/models/m", b"/health", b"/upstream/", b"/v1/chat", b"/metrics"]
)
def test_other_paths_are_pages(path: bytes) -> None:
    assert route(path) is None


def test_a_raw_path_may_hold_slashes_in_its_model() -> None:
    found = route(b"/upstream/org/na%2Fme/v1/x")
    assert found is not None
    assert found.raw
    assert list(raw_candidates(found.path)) == [
        ("org", b"/na%2Fme/v1/x"),
        ("org/na/me", b"/v1/x"),
        ("org/na/me/v1", b"/x"),
        ("org/na/me/v1/x", b"/"),
    ]
