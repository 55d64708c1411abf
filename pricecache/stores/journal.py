"""The append-only record of every daily bar ever accepted, and its replay.

Rows go into the time-series collection `bars_1d` before anything else and are never changed. A row counts only if its
batch stands in `revisions`, because a commit may fail after its rows were written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import numpy as np
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from numpy.typing import NDArray
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, Provenance
from pricecache.stores import revisions
from pricecache.stores.journal_rows import Rows, journal_rows, rows_from, together
from pricecache.stores.layers import layered
from pricecache.stores.revisions import NO_SESSION, Revision, changed_from, revision_from

ROWS_AT_ONCE = 500
"""Rows of one insert (at most twice as many): encoding more at a time would hold the event loop over 10 ms."""

READ_AT_ONCE = 2000

ROWS_ON_LOOP = 30_000
"""Rows that are laid over each other on the event loop: under 5 ms of it."""

P = ParamSpec("P")
T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the journal says a series is. Same shapes as `Bars` and `Provenance`.

    `committed_at`: when the last batch of it was committed, ms since 1970 UTC; None before the first.
    """

    bars: Bars
    provenance: Provenance
    orphans: int
    actions: tuple[Action, ...] = ()
    committed_at: int | None = None

    def where(self, mask: NDArray[np.bool_]) -> tuple[Bars, Provenance]:
        return Bars(self.bars.sessions[mask], self.bars.values[:, mask]), self.provenance.where(mask)

    def equals(self, other: Replayed) -> bool:
        """Bit for bit the same bars from the same hands at the same times."""
        mine, theirs = self.provenance, other.provenance
        return (
            np.array_equal(self.bars.sessions, other.bars.sessions)
            and np.array_equal(self.bars.values, other.bars.values, equal_nan=True)
            and np.array_equal(mine.names(), theirs.names())
            and np.array_equal(mine.flags, theirs.flags)
            and np.array_equal(mine.fetched_at, theirs.fetched_at)
        )


class Journal:
    """Writes and replays rows of `bars_1d` with `revisions`. Loop-only."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._database = database
        self._rows = database["bars_1d"]
        self._revisions = database["revisions"]

    async def append(self, batches: Iterable[tuple[int, ObjectId, Bars]]) -> None:
        """Write the rows of each `(series id, batch, bars)`. Acknowledged by a majority when it returns."""
        waiting: list[RawBSONDocument] = []
        for series_id, batch, bars in batches:
            for first in range(0, len(bars), ROWS_AT_ONCE):
                part = slice(first, first + ROWS_AT_ONCE)
                waiting += journal_rows(series_id, batch, Bars(bars.sessions[part], bars.values[:, part]))
                if len(waiting) >= ROWS_AT_ONCE:
                    await self._rows.insert_many(waiting, ordered=False)
                    waiting = []
        if waiting:
            await self._rows.insert_many(waiting, ordered=False)

    async def revisions(self, series_id: int, up_to: float | None = None) -> list[Revision]:
        """The committed batches of a series in order, without the sessions they changed.

        `up_to`: only those that were committed by that instant (seconds since 1970 UTC). A batch counts as committed
        no earlier than the one before it, whatever the clocks of two daemons said.
        """
        query = {"_id": {"$gte": {"s": series_id, "rev": 0}, "$lt": {"s": series_id + 1, "rev": 0}}}
        found = self._revisions.find(query, {"changed": 0}, batch_size=READ_AT_ONCE // 4).sort("_id", 1)
        revisions = [revision_from(document) async for document in found]
        return revisions if up_to is None else revisions[: known_by(revisions, up_to)]

    async def committed_sessions(self, series_id: int) -> NDArray[np.int64]:
        """The sessions (int64, ascending) a series has by what its batches said they added and removed; of batches from
        before that was kept nothing is known, so there may be more."""
        query = {"_id": {"$gte": {"s": series_id, "rev": 0}, "$lt": {"s": series_id + 1, "rev": 0}}}
        found = self._revisions.find(query, {"actions": 0}, batch_size=READ_AT_ONCE // 4).sort("_id", 1)
        sessions: set[int] = set()
        async for document in found:
            if (changed := changed_from(document)) is not None:
                sessions = (sessions | set(changed.added.tolist())) - set(changed.removed.tolist())
        return np.array(sorted(sessions), np.int64)

    async def first_changed(
        self, spans: Mapping[int, tuple[int, int]], up_to: int = NO_SESSION
    ) -> dict[int, int | None]:
        """`revisions.first_changed` of this database."""
        return await revisions.first_changed(self._database, spans, up_to)

    async def firsts_since(self, at: float) -> dict[tuple[int, int], int | None]:
        """`revisions.firsts_since` of this database."""
        return await revisions.firsts_since(self._database, at)

    async def rows(self, series_id: int, start: int | None = None, end: int | None = None) -> Rows:
        """Every row of a series, those of no committed batch included; of the sessions `start` to `end` only, if given,
        both included."""
        query: dict[str, Any] = {"meta.s": series_id}
        if start is not None or end is not None:
            bounds = {"$gte": start, "$lte": end}
            query["ts"] = {name: _midnight(day) for name, day in bounds.items() if day is not None}
        found: Any = self._rows.find_raw_batches(query, {"_id": 0, "meta": 0}, batch_size=READ_AT_ONCE)
        return together([rows_from(batch) async for batch in found])

    async def replay(
        self, series_id: int, *, up_to: float | None = None, retracting: NDArray[np.int64] | None = None
    ) -> Replayed:
        """Rebuild a series from its rows.

        `up_to`: as it was known at that instant (seconds since 1970 UTC). `retracting`: as it would be without the
        manual bars of these sessions.
        """
        revisions = await self.revisions(series_id, up_to)
        rows = await self.rows(series_id)
        return await elsewhere_if_long(len(rows), replayed, revisions, rows, retracting)


async def elsewhere_if_long(count: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` comes to; on a thread when it has `count` rows to go through, and these would hold the loop."""
    if count <= ROWS_ON_LOOP:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def known_by(revisions: Sequence[Revision], instant: float) -> int:
    """How many of `revisions`, which are in order, were committed by `instant` (seconds since 1970 UTC)."""
    committed = np.maximum.accumulate(np.array([revision.committed_at for revision in revisions], np.int64))
    return int(committed.searchsorted(round(instant * 1000), side="right"))


def replayed(revisions: Sequence[Revision], rows: Rows, retracting: NDArray[np.int64] | None = None) -> Replayed:
    """What `rows` make of a series when laid over each other in the order of their revisions."""
    layers = layered(revisions, rows)
    last = layers.last
    shown = layers.shown[last]
    if retracting is not None:
        shown = np.where(np.isin(layers.sessions[last], retracting), layers.below[last], shown)
    bars, provenance = layers.bars(shown[shown >= 0])
    spoken = [revision.actions for revision in revisions if revision.actions is not None]
    at = max((revision.committed_at for revision in revisions), default=None)
    return Replayed(bars, provenance, layers.orphans, spoken[-1] if spoken else (), at)


def _midnight(session: int) -> datetime:
    return _EPOCH + timedelta(days=session)
