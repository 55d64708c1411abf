"""The queue of those who write one series, and their attempts until none was overtaken by another process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.catalog import Entry
from pricecache.errors import Corrupt, Unavailable
from pricecache.stores.commits import RACE_ATTEMPTS, YEAR_BASE, Overtaken, pause
from pricecache.stores.heads import HEAD_READINGS, Heads
from pricecache.stores.reading import RecordReader

Outcome = TypeVar("Outcome")


class Turns:
    """Gives writers their turns. Loop-only; others may write the same series from any number of processes."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], heads: Heads, reader: RecordReader) -> None:
        self._revisions = database["revisions"]
        self._heads = heads
        self._reader = reader
        self._turns: dict[int, asyncio.Lock] = {}

    def of(self, series_id: int) -> asyncio.Lock:
        """What whoever writes one series in this process holds."""
        return self._turns.setdefault(series_id, asyncio.Lock())

    async def until_done(
        self, entries: Sequence[Entry], attempt: Callable[[], Awaitable[Outcome]], *, doubted: bool = True
    ) -> Outcome:
        """Make attempts, each from what is committed by then, until one was not overtaken by another writer.

        `doubted`: refresh those first that are doubted, and raise `Corrupt` when it is no writer that is in the way.
        """
        async with AsyncExitStack() as turn:
            # writers of this process queue for a series; only those of others are found out by being overtaken
            for series_id in sorted({entry.id for entry in entries}):
                await turn.enter_async_context(self.of(series_id))
            behind = [entry for entry in entries if doubted and not entry.current]
            if behind:
                await self._heads.refresh(behind)
            for number in range(RACE_ATTEMPTS):
                before = [entry.head.rev for entry in entries]
                try:
                    return await attempt()
                except Overtaken:
                    await (self._heads.refresh if doubted else self._heads.follow)(entries)
                    await pause(number)
                stuck = [entry for entry, rev in zip(entries, before, strict=True) if entry.head.rev == rev]
                if doubted and number >= HEAD_READINGS and stuck:
                    await self._refuse_corrupt(stuck)
        raise Unavailable("The database is too busy to commit.", code="commit_conflict", retry_after=2.0)

    async def _refuse_corrupt(self, entries: Sequence[Entry]) -> None:
        """Raises `Corrupt` when what is stored of one of `entries` contradicts its head, which nobody moves on."""
        for entry in entries:
            base = entry.head
            after = await self._revisions.find_one({"_id": {"s": entry.id, "rev": base.rev + 1}}, {"_id": 1})
            stored = {document["_id"] % YEAR_BASE: document.get("r") for document in await self._reader.year_ids(entry)}
            await self._heads.refresh([entry])
            if entry.head.rev == base.rev and (after is not None or stored != base.years):
                detail = f"{entry.instrument}: Its packed years or its head are not those last committed. "
                raise Corrupt(detail + "Run `pricecache doctor --verify --rebuild`.", series=entry.id)
