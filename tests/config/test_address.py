import pytest

from llm_router.config.address import address


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ("127.0.0.1", 8002)),
        ("models: {}", ("127.0.0.1", 8002)),
        ("server: {port: 9}", ("127.0.0.1", 9)),
        ("server: {host: 10.0.0.5, port: ${P}}".replace("${P}", "'${P}'"), None),
        ("server:\n  host: 10.0.0.5\n  port: ${P}", ("10.0.0.5", 77)),
        ("server: {host: 0.0.0.0}", ("127.0.0.1", 8002)),
        ("server: {host: '::'}", ("127.0.0.1", 8002)),
        ("server: {keys: file:/secret, prot: 1}\nbackends: {x: {key: '${NOT_MINE}'}}", ("127.0.0.1", 8002)),
        ("server: {port: 0}", None),
        ("server: {port: true, host: 5}", None),
        ("server: [", None),
        ("server: 5", ("127.0.0.1", 8002)),
        ('{"router_port": 8003, "models": {}}', ("127.0.0.1", 8003)),
        ("MODELS: {a: /s.sh}", ("127.0.0.1", 8002)),
    ],
)
def test_where_it_listens(text: str, where: tuple[str, int] | None) -> None:
    assert address(text, "x.yml", {"P": "77"}) == where
