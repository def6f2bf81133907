"""What a client reads off the wire, to the letter: each API in each mode, whatever becomes of its request.

The transcripts stand beside this file. ``pytest tests/host --rewrite-transcripts`` writes them anew; read the diff.
"""

import json
import re
from pathlib import Path

import pytest

from fakes.backend import DONE, Script, Talk, chunk
from fakes.roadside import Client, Roadside, roadside
from llm_router.core.words import Failure, FailureKind, ModelName, Reason, Refusal, Stage
from llm_router.wire.dialect import Dialect
from llm_router.wire.manners import Manners, ModelManners

FOLDER = Path(__file__).parent / "transcripts"
MODES = ("event", "content", "reasoning", "comment", "off")
HI = [{"role": "user", "content": "hi"}]
TIMINGS = {
    "predicted_n": 2,
    "predicted_ms": 100.0,
    "predicted_per_second": 20.0,
    "prompt_n": 3,
    "prompt_per_second": 30.0,
}
CHATS_ONLY = Dialect(serves=frozenset({"/v1/chat/completions", "/v1/completions"}))
ANY = Dialect()


def named(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def text_chunk(text: str, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish}
    value = {"id": "c1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: %b\n\n" % json.dumps(value).encode()


CHAT_BLOCKS = (chunk("Hel"), chunk("lo"), chunk(None, "stop", timings=TIMINGS), DONE)
BLOCKS = {
    "chat": CHAT_BLOCKS,
    "completions": (text_chunk("Hel"), text_chunk("lo"), text_chunk("", "stop", timings=TIMINGS), DONE),
    "responses": (
        named("response.created", sequence_number=0, response={"id": "r"}),
        named("response.output_text.delta", sequence_number=1, delta="Hello"),
        named("response.completed", sequence_number=2, response={"status": "completed", "output": []}),
    ),
    "messages": (
        named("message_start", message={"id": "x", "usage": {"input_tokens": 3, "output_tokens": 1}}),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"}),
        named("content_block_stop", index=0),
        named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
        named("message_stop"),
    ),
}
#: Each API with its path, its request, and an engine's dialect and stream.
APIS: dict[str, tuple[str, dict[str, object], Dialect, tuple[bytes, ...]]] = {
    "chat": ("/v1/chat/completions", {"messages": HI}, ANY, BLOCKS["chat"]),
    "completions": ("/v1/completions", {"prompt": "hi"}, ANY, BLOCKS["completions"]),
    "responses": ("/v1/responses", {"input": "hi"}, ANY, BLOCKS["responses"]),
    "responses-translated": ("/v1/responses", {"input": "hi"}, CHATS_ONLY, CHAT_BLOCKS),
    "messages": ("/v1/messages", {"max_tokens": 9, "messages": HI}, ANY, BLOCKS["messages"]),
    "messages-translated": ("/v1/messages", {"max_tokens": 9, "messages": HI}, CHATS_ONLY, CHAT_BLOCKS),
    "ollama-chat": ("/api/chat", {"messages": HI}, CHATS_ONLY, CHAT_BLOCKS),
    "ollama-generate": ("/api/generate", {"prompt": "hi"}, CHATS_ONLY, CHAT_BLOCKS),
}


def playing(blocks: tuple[bytes, ...]) -> Script:
    async def script(talk: Talk) -> None:
        await talk.events(*blocks)

    return script


def dying(blocks: tuple[bytes, ...]) -> Script:
    async def script(talk: Talk) -> None:
        await talk.events(*blocks[:2], end=False)
        talk.close()

    return script


class Scene:
    """One request in front of an engine, and what is read of its answer."""

    def __init__(self, side: Roadside, api: str, mode: str) -> None:
        self.side = side
        self.path, self.body, side.desk.dialect, _ = APIS[api]
        self.mode = mode

    async def ask(self) -> Client:
        client = await self.side.client()
        headers = ("x-request-id: req1", f"x-router-status: {self.mode}")
        await client.post({"model": "m", "stream": True, **self.body}, self.path, *headers)
        return client

    async def wait(self, client: Client) -> None:
        """Until it is told of the load, if it is told anything."""
        await self.side.until(lambda: bool(self.side.desk.waiting))
        if self.mode == "off":
            return
        reply = await client.read(lambda reply: bool(reply.pieces))
        before = len(reply.pieces)
        more = {"percent": 40.0, "left_s": 20.0, "running_s": 15.0, "phase": "loading weights"}
        self.side.desk.tell(Stage.loading, **more)
        await client.read(lambda reply: len(reply.pieces) > before)


async def warm(api: str, mode: str) -> str:
    async with roadside(playing(APIS[api][3])) as side:
        return await shown(await Scene(side, api, mode).ask())


async def switch(api: str, mode: str) -> str:
    manners = Manners(models={"m": ModelManners(limit_s=180.0)})
    async with roadside(playing(APIS[api][3]), hold=True, commit_s=0.0, manners=manners) as side:
        stage = Scene(side, api, mode)
        client = await stage.ask()
        await stage.wait(client)
        side.desk.waited_s, side.desk.loaded_s = 42.0, 40.0
        side.desk.grant()
        return await shown(client)


async def fails_at_load(api: str, mode: str) -> str:
    async with roadside(playing(()), hold=True, commit_s=0.0) as side:
        stage = Scene(side, api, mode)
        client = await stage.ask()
        await stage.wait(client)
        side.desk.news = None
        _, waiter = side.desk.waiting.pop(next(iter(side.desk.waiting)))
        failure = Failure(FailureKind.out_of_memory, "GPU 0 has too little memory", ("a line of its log",))
        waiter.refused(Refusal(Reason.load_failed, ModelName("m"), None, failure))
        return await shown(client)


async def dies_midstream(api: str, mode: str) -> str:
    async with roadside(dying(APIS[api][3])) as side:
        return await shown(await Scene(side, api, mode).ask())


async def cancelled(api: str, mode: str) -> str:
    async with roadside(playing(()), hold=True, commit_s=0.0) as side:
        stage = Scene(side, api, mode)
        client = await stage.ask()
        await stage.wait(client)
        client.leave()
        await side.until(lambda: bool(side.desk.withdrawn))
        return text_of(client)


async def queue_full(api: str, mode: str) -> str:
    async with roadside(playing(())) as side:
        side.desk.refusal = Refusal(Reason.queue_full, ModelName("m"), 7.0)
        return await shown(await Scene(side, api, mode).ask())


async def shown(client: Client) -> str:
    await client.read()
    return text_of(client)


def text_of(client: Client) -> str:
    """Status, type and body, without what differs from run to run."""
    if not client.replies:
        return "nothing\n"
    reply = client.replies[0]
    body = reply.body.decode()
    body = re.sub(r'"created(_at)?":(?:\d+|"[^"]+")', r'"created\1":0', body)
    body = re.sub(r'("\w+_duration"):\d+', r"\1:0", body)
    return f"{reply.status} {reply.header('content-type')}\n{body}"


OUTCOMES = (warm, switch, fails_at_load, dies_midstream, cancelled, queue_full)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("api", APIS)
async def test_transcript(api: str, mode: str, rewrite_transcripts: bool) -> None:
    parts = [f"=== {outcome.__name__}\n{await outcome(api, mode)}\n" for outcome in OUTCOMES]
    said = "".join(parts).replace("\u2063\u2061", "«").replace("\u2064\u2062", "»")
    path = FOLDER / f"{api}.{mode}.txt"
    if rewrite_transcripts:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(said)
    assert said == path.read_text()
