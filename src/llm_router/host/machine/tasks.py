"""Background tasks that have a name, are kept alive and are never lost.

A bare task may be collected while it runs, and its exception is told to nobody until then. This file keeps
tasks; it knows nothing of what they do.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """A family of background tasks. What goes wrong in one is logged with its name and ends only that one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __repr__(self) -> str:
        names = ", ".join(sorted(task.get_name() for task in self._tasks))
        return f"<tasks of {self._name}: {names or 'none'}>"

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def closed(self) -> bool:
        return self._closed

    def spawn(self, name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``coro`` in the background. Its result or exception can be awaited; an exception is logged anyway.

        Raises ``RuntimeError`` after ``aclose``: what begins then would be forgotten.
        """
        if self._closed:
            coro.close()
            raise RuntimeError(f"cannot begin {name!r}: the tasks of {self._name} are closed")
        loop = asyncio.get_running_loop()
        task: asyncio.Task[T] = loop.create_task(coro, name=f"{self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Wait until all tasks have ended by themselves, those included that begin meanwhile. Raises nothing."""
        while others := self._others():
            await asyncio.wait(others)

    async def aclose(self) -> None:
        """Cancel all tasks and wait until each has ended, also those that take their time. May be called twice."""
        self._closed = True
        while others := self._others():
            for task in others:
                task.cancel()
            await asyncio.wait(others)

    def _others(self) -> list[asyncio.Task[Any]]:
        """All but the caller, who cannot wait for itself."""
        return [task for task in self._tasks if task is not asyncio.current_task()]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("cannot go on with %s: %r", task.get_name(), error, exc_info=error)
