import json

import pytest

from llm_router.wire import order
from llm_router.wire.content import Content
from llm_router.wire.dialect import Dialect
from llm_router.wire.errors import BadRequestError
from llm_router.wire.order import Order
from llm_router.wire.paths import route

FORM = b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--B--\r\n'


def read(path: bytes, body: bytes, kind: bytes = b"application/json", query: bytes = b"") -> Order:
    found = route(path)
    assert found is not None
    return order.read(found, query, kind, Content(body))


def test_where_a_model_may_stand() -> None:
    assert read(b"/v1/embeddings", b'{"model":"m"}').models == (("m", b"/v1/embeddings"),)
    assert read(b"/v1/embeddings", b'{"model":"m"}', b"application/x-www-form-urlencoded").asked.model == "m"
    assert read(b"/v1/embeddings", b"{}", query=b"model=m").models[0][0] == "m"
    assert read(b"/v1/audio/transcriptions", FORM, b"multipart/form-data; boundary=B").models[0][0] == "m"
    assert read(b"/v1/audio/voices", b"", query=b"model=m").models[0][0] == "m"
    assert read(b"/upstream/m/x", b"garbage").models[0] == ("m", b"/x")
    assert read(b"/v1/embeddings", b"{}").models[0][0] == ""


def test_a_chat_needs_a_body() -> None:
    with pytest.raises(BadRequestError, match="no JSON body"):
        read(b"/v1/chat/completions", b"", query=b"model=m")


def test_each_way_to_name_a_model_is_rewritten() -> None:
    dialect = Dialect(model_name="e m")
    found = read(b"/v1/embeddings", b'{"model":"m"}')
    assert order.body_for(found, Content(b'{"model":"m"}'), dialect, "m", False) == b'{"model":"e m"}'
    found = read(b"/v1/audio/transcriptions", FORM, b"multipart/form-data; boundary=B")
    assert order.body_for(found, Content(FORM), dialect, "m", False) == FORM.replace(b"\r\nm\r\n", b"\r\ne m\r\n")
    found = read(b"/v1/audio/voices", b"", query=b"x=&model=m")
    assert order.target_for(found, b"/p", dialect, "m") == b"/p?x=&model=e%20m"
    found = read(b"/upstream/m/x", b'{"model":"m"}')
    assert order.body_for(found, Content(b'{"model":"m"}'), dialect, "m", False) == b'{"model":"m"}'


def test_an_untouched_query_stays_as_it_came() -> None:
    found = read(b"/v1/embeddings", b'{"model":"m"}', query=b"a=%2f&&b")
    assert order.target_for(found, b"/p", Dialect(model_name="e"), "m") == b"/p?a=%2f&&b"


def test_joining_and_usage_are_asked_for_where_they_may_be() -> None:
    dialect = Dialect(stream_only=frozenset({"/v1/chat/completions"}), ask_usage=True)
    body = b'{"model":"m"}'
    found = read(b"/v1/chat/completions", body)
    assert order.may_join(found, dialect)
    assert json.loads(order.body_for(found, Content(body), dialect, "m", True)) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert not order.may_join(read(b"/v1/chat/completions", b'{"n":2}'), dialect)
    assert not order.may_join(read(b"/v1/completions", body), dialect)
    streamed = read(b"/v1/chat/completions", b'{"model":"m","stream":true}')
    assert order.hides_usage(streamed, dialect)
    asked = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    assert not order.hides_usage(read(b"/v1/chat/completions", asked), dialect)
    assert not order.hides_usage(read(b"/v1/messages", b'{"model":"m","stream":true}'), dialect)


def test_only_what_the_engine_accepts_on_this_path_is_passed() -> None:
    dialect = Dialect(accepts={"/v1/chat/completions": frozenset({"model", "messages"})})
    body = b'{"model":"m","messages":[],"top_k":5,"brand_new":{}}'
    found = read(b"/v1/chat/completions", body)
    assert json.loads(order.body_for(found, Content(body), dialect, "m", False)) == {"model": "m", "messages": []}
    whole = b'{"model":"m","messages":[]}'
    assert order.body_for(read(b"/v1/chat/completions", whole), Content(whole), dialect, "m", False) == whole
    other = b'{"model":"m","input":"x","top_k":5}'
    assert order.body_for(read(b"/v1/embeddings", other), Content(other), dialect, "m", False) == other


def test_a_whole_answer_is_asked_for_its_usage_where_it_would_lack_it() -> None:
    body = b'{"model":"m"}'
    found = read(b"/v1/chat/completions", body)
    asked = json.loads(order.body_for(found, Content(body), Dialect(usage_whole=True), "m", False))
    assert asked == {"model": "m", "stream_options": {"include_usage": True}}
    embedding = read(b"/v1/embeddings", body)
    assert order.body_for(embedding, Content(body), Dialect(usage_whole=True), "m", False) == body


@pytest.mark.parametrize("path", [b"/sleep", b"/%73leep", b"//sleep/"])
def test_nobody_steers_the_engine_behind_the_routers_back(path: bytes) -> None:
    dialect = Dialect(reserved=frozenset({"/sleep"}))
    found = read(b"/upstream/m" + path, b"")
    with pytest.raises(BadRequestError, match="cannot pass /sleep: only the router itself may ask") as caught:
        order.check_path(found, path, dialect)
    assert caught.value.fault.status == 403
    order.check_path(found, b"/sleeping", dialect)
    order.check_path(found, path, Dialect())
