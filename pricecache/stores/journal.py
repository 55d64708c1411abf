"""The append-only record of every daily bar ever accepted, and its replay.

Rows go into the time-series collection `bars_1d` before anything else and are never changed. A row counts only if its
batch stands in `revisions`, because a commit may fail after its rows were written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.bars import MANUAL, RETRACTED, Bars, Provenance, years_of

ROWS_AT_ONCE = 1000
"""Rows of one insert: encoding more of them at a time would hold the event loop over 10 ms."""

_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Revision:
    """One committed batch of a series. `at`: ms since 1970 UTC; `first`: the first session it changed, or None."""

    rev: int
    batch: ObjectId
    source: str
    at: int
    flags: int
    first: int | None
    action_items: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the journal says a series is. Same shapes as `Bars` and `Provenance`."""

    bars: Bars
    provenance: Provenance
    orphans: int

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
        self._rows = database["bars_1d"]
        self._revisions = database["revisions"]

    async def append(self, batches: Iterable[tuple[int, ObjectId, Bars]]) -> None:
        """Write the rows of each `(series id, batch, bars)`. Acknowledged by a majority when it returns."""
        waiting: list[dict[str, Any]] = []
        for series_id, batch, bars in batches:
            waiting.extend(journal_rows(series_id, batch, bars))
            while len(waiting) >= ROWS_AT_ONCE:
                await self._rows.insert_many(waiting[:ROWS_AT_ONCE], ordered=False)
                del waiting[:ROWS_AT_ONCE]
        if waiting:
            await self._rows.insert_many(waiting, ordered=False)

    async def revisions(self, series_id: int, up_to: float | None = None) -> list[Revision]:
        """The committed batches of a series in order; `up_to` leaves out what was committed after that instant."""
        found = self._revisions.find(
            {"_id": {"$gte": {"s": series_id, "rev": 0}, "$lt": {"s": series_id + 1, "rev": 0}}}
        )
        revisions = [
            Revision(
                document["_id"]["rev"],
                document["batch"],
                document["src"],
                document["at"],
                document["flags"],
                document["from"],
                document["actions"],
            )
            async for document in found.sort("_id", 1)
        ]
        return [r for r in revisions if up_to is None or r.at <= up_to * 1000]

    async def replay(
        self, series_id: int, *, up_to: float | None = None, retracting: NDArray[np.int64] | None = None
    ) -> Replayed:
        """Rebuild a series from its rows.

        `up_to`: as it was known at that instant (seconds since 1970 UTC). `retracting`: as it would be without the
        manual bars of these sessions.
        """
        revisions = await self.revisions(series_id, up_to)
        by_batch: dict[ObjectId, list[dict[str, Any]]] = {}
        async for row in self._rows.find({"meta.s": series_id}, {"_id": 0, "meta": 0}, batch_size=ROWS_AT_ONCE):
            by_batch.setdefault(row["b"], []).append(row)
        gone = () if retracting is None else retracting.tolist()
        return replay_rows(revisions, by_batch, retracting=gone)


def journal_rows(series_id: int, batch: ObjectId, bars: Bars) -> list[dict[str, Any]]:
    """One document a bar: `ts` (session at 00:00 UTC, a label), `meta` (series and year), `b`, `o h l c v`."""
    stamps = (bars.sessions * _DAY_MS).astype("datetime64[ms]").tolist()
    years = years_of(bars.sessions).tolist()
    metas = {year: {"s": series_id, "y": year} for year in set(years)}
    return [
        {"ts": ts, "meta": metas[year], "b": batch, "o": o, "h": h, "l": low, "c": c, "v": v}
        for ts, year, o, h, low, c, v in zip(stamps, years, *bars.values.tolist(), strict=True)
    ]


def replay_rows(
    revisions: list[Revision], by_batch: dict[ObjectId, list[dict[str, Any]]], retracting: Iterable[int] = ()
) -> Replayed:
    """Lay the batches over each other in the order of their revisions.

    A manual bar covers a provider's until it is retracted; then the provider's last one shows again, if there was one.
    """
    layers: dict[int, list[tuple[list[float], Revision] | None]] = {}
    known: set[ObjectId] = set()
    for revision in revisions:
        known.add(revision.batch)
        for row in by_batch.get(revision.batch, ()):
            session = (row["ts"] - _EPOCH).days
            layer = layers.setdefault(session, [None, None])
            if revision.flags & RETRACTED:
                layer[1] = None
            else:
                layer[1 if revision.flags & MANUAL else 0] = ([row[f] for f in "ohlcv"], revision)
    for session in retracting:
        layers.setdefault(session, [None, None])[1] = None
    effective = {session: shown for session, (below, above) in layers.items() if (shown := above or below)}
    orphans = sum(len(rows) for batch, rows in by_batch.items() if batch not in known)
    return Replayed(*_columns(effective), orphans)


def _columns(effective: dict[int, tuple[list[float], Revision]]) -> tuple[Bars, Provenance]:
    sessions = sorted(effective)
    rows = [effective[session] for session in sessions]
    sources = tuple(dict.fromkeys(revision.source for _, revision in rows))
    values: NDArray[np.float64] = np.array([value for value, _ in rows], np.float64).reshape(len(rows), 5).T
    return (
        Bars(np.array(sessions, np.int64), np.ascontiguousarray(values)),
        Provenance(
            np.array([sources.index(r.source) for _, r in rows], np.uint8),
            np.array([r.flags for _, r in rows], np.uint8),
            np.array([r.at for _, r in rows], np.int64),
            sources,
        ),
    )
