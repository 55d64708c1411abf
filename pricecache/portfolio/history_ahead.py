"""A history computed while its rows are being stored: the database is at work then, and the processor is not."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import structlog

from pricecache.background import cancelled
from pricecache.core.portfolios import Portfolio
from pricecache.portfolio.materialiser import Materialiser
from pricecache.portfolio.planning import LedgerView
from pricecache.portfolio.wholes import Whole

log = structlog.get_logger(__name__)


class HistoryAhead:
    """Of the last change that was begun; at the end of its block nothing of it goes on. `materialiser` None: does
    nothing. Loop-only."""

    def __init__(self, materialiser: Materialiser | None) -> None:
        self._materialiser = materialiser
        self._tasks: list[asyncio.Task[Whole | None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancelled(self._tasks)

    def begin(self, portfolio: Portfolio, view: LedgerView) -> None:
        """Compute that of the ledger as `view`; what was begun before is of no use any more."""
        for task in self._tasks:
            task.cancel()
        if self._materialiser is not None:
            ahead = self._materialiser.ahead(portfolio, view)
            self._tasks.append(asyncio.create_task(ahead, name="history-ahead"))

    async def taken(self) -> Whole | None:
        """What was computed; None where nothing was. What went wrong is for who computes it again to tell."""
        if not self._tasks:
            return None
        await asyncio.wait(self._tasks)
        last = self._tasks[-1]
        if last.cancelled() or (error := last.exception()) is None:
            return None if last.cancelled() else last.result()
        log.debug("a history could not be computed ahead", error=repr(error))
        return None
