"""From an adapter and a job to a process that runs, is proved and is ended, as the router would do it.

What the supervisor does with a ``Launch`` (files, links, a session of its own, the farewell) is done here in its
plainest form, so that an adapter and its engine can be tried without the rest of the router.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
import psutil

from fakes.running import Running, running
from llm_router.core.words import Failure
from llm_router.engines.engine import Answer, Engine, Farewell, Job, Launch, Question, Step
from llm_router.host.crew.probe import Limits, Proof, prove


def lay_out(launch: Launch) -> None:
    """Write the files and links that a launch wants."""
    for file in launch.files:
        path = Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(0o600 if file.secret else 0o644)
    for place, target in launch.links:
        with contextlib.suppress(FileExistsError):
            Path(place).symlink_to(target)


@dataclass
class Cold:
    """A started engine and what was seen of it."""

    engine: Engine
    job: Job
    run: Running
    #: Every phase with the percent that was told of it.
    news: list[tuple[str, float | None]] = field(default_factory=list)

    async def proved(
        self, total_s: float = 20.0, job: Job | None = None, patience_s: float | None = None
    ) -> Proof | Failure:
        """Walk the steps of ``job``; no question waits longer than ``patience_s``."""

        def told(phase: str, percent: float | None, _left: float | None) -> None:
            self.news.append((phase, percent))

        eyes = replace(self.run.eyes(), stream=self.stream, log=self._lines)
        steps = [_hurried(step, patience_s) for step in self.engine.steps(job or self.job)]
        return await prove(self.engine, job or self.job, eyes, limits=Limits(total_s=total_s), news=told, steps=steps)

    async def proof(self, total_s: float = 20.0) -> Proof:
        result = await self.proved(total_s)
        assert isinstance(result, Proof), (result, self.run.lines[-20:])
        return result

    async def failure(self, total_s: float = 20.0, job: Job | None = None, patience_s: float | None = None) -> Failure:
        result = await self.proved(total_s, job, patience_s)
        assert isinstance(result, Failure), result
        assert result.cause.startswith("cannot "), result.cause
        assert "{" not in result.cause, result.cause
        return result

    async def ask(self, question: Question) -> Answer:
        return await self.run.ask(self.job.host, self.job.port, question)

    async def chat(self, **fields: object) -> httpx2.Response:
        return await self.run.client.post(
            self.url("/v1/chat/completions"), json=self.body(**fields), headers=self.headers
        )

    @asynccontextmanager
    async def streaming(self, **fields: object) -> AsyncIterator[httpx2.Response]:
        body = self.body(stream=True, **fields)
        url = self.url("/v1/chat/completions")
        async with self.run.client.stream("POST", url, json=body, headers=self.headers, timeout=20) as response:
            yield response

    def body(self, **fields: object) -> dict[str, object]:
        name = self.engine.dialect(self.job).model_name or self.job.model
        return {"model": name, "messages": [{"role": "user", "content": "hi"}], **fields}

    def url(self, path: str) -> str:
        return f"http://{self.job.host}:{self.job.port}{path}"

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.engine.dialect(self.job).headers)

    def children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.run.process.pid).children(recursive=True)
        return []

    async def end(self, speed: float = 1.0) -> int:
        """Say farewell as the adapter wants it; the exit code, -9 if it had to be killed."""
        farewell: Farewell = self.engine.farewell(self.job)
        for question in farewell.first:
            await self.ask(question)
        self.run.process.terminate()
        try:
            async with asyncio.timeout(farewell.grace_s / speed):
                return await self.run.process.wait()
        except TimeoutError:
            os.killpg(self.run.process.pid, signal.SIGKILL)
            return await self.run.process.wait()

    def _lines(self) -> list[str]:
        """New lines with a bar's redraws as lines of their own, as the router's log reader has it."""
        return [part for line in self.run.new_lines() for part in line.split("\r") if part.strip()]

    async def stream(self, host: str, port: int, question: Question) -> AsyncGenerator[Answer, None]:
        """The answer again and again as it grows, the complete one last."""
        url, headers = f"http://{host}:{port}{question.path}", list(question.headers)
        body = b""
        try:
            async with self.run.client.stream(
                question.method, url, content=question.body, headers=headers, timeout=question.timeout_s
            ) as response:
                async for piece in response.aiter_bytes():
                    body += piece
                    yield Answer(response.status_code, dict(response.headers), body, complete=False)
                yield Answer(response.status_code, dict(response.headers), body)
        except httpx2.HTTPError as error:
            yield Answer(0, body=type(error).__name__.encode())


def _hurried(step: Step, patience_s: float | None) -> Step:
    if patience_s is None:
        return step
    return replace(step, question=replace(step.question, timeout_s=min(step.question.timeout_s, patience_s)))


@asynccontextmanager
async def cold(engine: Engine, job: Job, folder: Path, **env: str) -> AsyncIterator[Cold]:
    """Start the engine of the job; whatever happens, its whole process group is dead afterwards."""
    launch = engine.launch(job)
    lay_out(launch)
    async with running(launch, folder, **env) as run:
        try:
            yield Cold(engine, job, run)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)


@contextmanager
def occupied(port: int) -> Iterator[None]:
    """Somebody else listens there."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


async def gone(processes: list[psutil.Process], within_s: float = 3.0) -> bool:
    """Whether all of these end; a zombie that nobody reaps has ended."""
    for _ in range(int(within_s / 0.01)):
        if not any(_lives(process) for process in processes):
            return True
        await asyncio.sleep(0.01)
    return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
