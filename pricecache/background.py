"""Tasks that go on for as long as the daemon does: named, watched, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_ASK_AGAIN_SECONDS = 1.0


class BackgroundTasks:
    """What goes on beside the requests and the jobs. Loop-only.

    A task that ends before it is told to is a fault: it is logged, and shows in `checks` for good.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._states: dict[str, str] = {}
        self._ending = False

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work`, which ends only when it is cancelled. Each name is used once."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        self._states[name] = "ok"
        task.add_done_callback(self._ended)

    def checks(self) -> Mapping[str, str]:
        """Every task by its name: `ok`, or how it died."""
        return self._states

    async def end(self) -> None:
        """Cancel all, and return when they have ended."""
        self._ending = True
        await cancelled(list(self._tasks.values()))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._ending:
            return
        error = None if task.cancelled() else task.exception()
        self._states[task.get_name()] = f"died: {type(error).__name__}" if error else "ended"
        log.error("a background task died", task=task.get_name(), exc_info=error)


async def cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` until all are over: the driver may swallow a cancellation that meets it at the end of an
    operation."""
    while waiting := [task for task in tasks if not task.done()]:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=_ASK_AGAIN_SECONDS)
