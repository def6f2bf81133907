"""An engine as a process of the test: started as its adapter says, seen by the probe, never left behind."""

import asyncio
import atexit
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import psutil

from llm_router.engines.engine import Answer, Ended, Launch, Question
from llm_router.host.crew.probe import Eyes
from llm_router.host.machine.vitals import vitals_of

FAKE_LLAMA = (sys.executable, str(Path(__file__).with_name("llamacpp.py")))
REAL_LLAMA = (sys.executable, "-m", "llm_router.demo.llama_server")


def free_port() -> int:
    """A port that is ours until the tests end, and refuses until an engine listens on it.

    A bound socket that does not listen keeps everybody else's outgoing connections and searches off the port;
    a server that sets ``SO_REUSEADDR``, as all do, may still take it.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    atexit.register(holder.close)
    return int(holder.getsockname()[1])


class Running:
    """A started engine. ``lines`` is its whole log so far."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, client: httpx2.AsyncClient) -> None:
        self.process = process
        self.client = client
        self._log = log
        self._seen = 0

    @property
    def lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def new_lines(self) -> Sequence[str]:
        lines = self._log.read_text(errors="replace").split("\n")[:-1]
        new, self._seen = lines[self._seen :], len(lines)
        return new

    async def ask(self, host: str, port: int, question: Question) -> Answer:
        try:
            response = await self.client.request(
                question.method,
                f"http://{host}:{port}{question.path}",
                content=question.body,
                headers=list(question.headers),
                timeout=question.timeout_s,
            )
        except httpx2.HTTPError as error:
            return Answer(0, body=type(error).__name__.encode())
        return Answer(response.status_code, dict(response.headers), response.content)

    async def ended(self) -> Ended:
        return Ended(await self.process.wait())

    def owned(self, port: int) -> bool | None:
        """Whether one of the process's listeners is on the port."""
        try:
            own = psutil.Process(self.process.pid)
            sockets = [s for one in (own, *own.children(recursive=True)) for s in one.net_connections("inet")]
        except psutil.Error:
            return None
        return any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets)

    def eyes(self) -> Eyes:
        return Eyes(
            ask=self.ask,
            ended=self.ended,
            log=self.new_lines,
            tail=lambda: self.lines[-200:],
            owned=self.owned,
            vitals=lambda: vitals_of([self.process.pid]),
        )


@asynccontextmanager
async def running(launch: Launch, folder: Path, **env: str) -> AsyncIterator[Running]:
    """Start the engine with ``env`` beside the launch's own; whatever happens, it is dead afterwards."""
    log = folder / f"engine-{len(list(folder.iterdir()))}.log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *launch.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **launch.env, **env},
            cwd=launch.cwd,
            start_new_session=True,
        )
    async with httpx2.AsyncClient() as client:
        try:
            yield Running(process, log, client)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
