"""What the engines of these tests play, and what they are asked."""

from fakes.backend import DONE, Talk, chunk
from fakes.roadside import Reply

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}


async def echo(talk: Talk) -> None:
    await talk.json({"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


async def stream(talk: Talk) -> None:
    await talk.events(chunk("Hel"), chunk("lo"), chunk(None, "stop"), DONE)


async def endless(talk: Talk) -> None:
    await talk.events(chunk("x"), end=False)
    await talk.gone.wait()


async def silence(talk: Talk) -> None:
    await talk.gone.wait()


async def dies(talk: Talk) -> None:
    await talk.events(chunk("Hel"), end=False)
    talk.abort()


async def ends_early(talk: Talk) -> None:
    await talk.events(chunk("Hel"))


def error_of(reply: Reply) -> dict[str, object]:
    """The error at the end of a stream."""
    error = reply.payloads()[-2]["error"]
    assert reply.payloads()[-1] == "[DONE]"
    assert isinstance(error, dict)
    return error


def refusal_of(reply: Reply) -> tuple[int, str]:
    """The status and the code of an error that came instead of an answer."""
    error = reply.json()["error"]
    assert error["message"].startswith("cannot ")
    return reply.status, error["code"]
