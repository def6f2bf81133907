import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire import multipart
from llm_router.wire.errors import BadRequestError

KIND = b'multipart/form-data; boundary="B b"'


def form(*parts: tuple[bytes, bytes], mark: bytes = b"--B b") -> bytes:
    written = [b"%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (mark, head, value) for head, value in parts]
    return b"".join(written) + mark + b"--\r\n"


@given(st.binary(max_size=200).filter(lambda data: b"--B b" not in data), st.text(max_size=20))
def test_the_model_is_found_and_replaced_beside_any_file(data: bytes, name: str) -> None:
    body = form((b'name="file"; filename="x"', data), (b'name="model"', b"old"), (b'name="n"', b"1"))
    span = multipart.find_model(KIND, body)
    assert span is not None
    assert body[slice(*span)] == b"old"
    assert multipart.replace(body, span, name) == body.replace(b"\r\n\r\nold\r\n", b"\r\n\r\n%b\r\n" % name.encode())


def test_an_empty_or_a_missing_model() -> None:
    span = multipart.find_model(KIND, form((b'name="model"', b"")))
    assert span is not None
    assert span[0] == span[1]
    assert multipart.find_model(KIND, form((b'name="models"', b"x"), (b'name="file"; filename="model"', b"y"))) is None


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (b"multipart/form-data", b"", "no boundary"),
        (KIND, b"nothing", "not in the body"),
        (KIND, b"--B b\r\nno end", "no end"),
        (KIND, form((b'name="model"', b"a"), (b'name="model"', b"b")), "more than one"),
        (KIND, form(*[(b'name="x"', b"")] * 1001), "more than 1000 parts"),
    ],
)
def test_broken_forms_are_told(kind: bytes, body: bytes, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        multipart.find_model(kind, body)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_an_error(body: bytes) -> None:
    with contextlib.suppress(BadRequestError):
        span = multipart.find_model(b"multipart/form-data; boundary=B", b"--B" + body)
        assert span is None or 0 < span[0] <= span[1] <= len(body) + 3
