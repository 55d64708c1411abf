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
from bson.raw_bson import RawBSONDocument
from numpy.typing import NDArray
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.actions import Action
from pricecache.core.bars import MANUAL, RETRACTED, Bars, Provenance, years_of
from pricecache.stores.series import actions_from

ROWS_AT_ONCE = 500
"""Rows of one insert (at most twice as many): encoding more at a time would hold the event loop over 10 ms."""

READ_AT_ONCE = 2000

_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# The layout of a row as https://bsonspec.org has it: for each element its type, its name, its value.
_DOUBLE, _DOCUMENT, _OBJECT_ID, _DATE, _INT32 = b"\x01", b"\x03", b"\x07", b"\x09", b"\x10"
_ROW = np.dtype(
    [
        ("size", "<i4"),
        ("ts_head", "V4"),
        ("ts", "<i8"),
        ("meta_head", "V6"),
        ("meta_size", "<i4"),
        ("s_head", "V3"),
        ("meta_s", "<i4"),
        ("y_head", "V3"),
        ("meta_y", "<i4"),
        ("meta_end", "V1"),
        ("b_head", "V3"),
        ("b", "V12"),
        *[field for name in "ohlcv" for field in ((f"{name}_head", "V3"), (name, "<f8"))],
        ("end", "V1"),
    ]
)
_CONSTANTS: dict[str, Any] = {
    "size": _ROW.itemsize,
    "ts_head": np.void(_DATE + b"ts\0"),
    "meta_head": np.void(_DOCUMENT + b"meta\0"),
    "meta_size": 19,
    "s_head": np.void(_INT32 + b"s\0"),
    "y_head": np.void(_INT32 + b"y\0"),
    "b_head": np.void(_OBJECT_ID + b"b\0"),
    **{f"{name}_head": np.void(_DOUBLE + name.encode() + b"\0") for name in "ohlcv"},
}


@dataclass(frozen=True, slots=True)
class Revision:
    """One committed batch of a series. `at`: when it was fetched, ms since 1970 UTC; `first`: the first session it
    changed, or None; `actions`: all of the series' actions since then, or None where it did not change them."""

    rev: int
    batch: ObjectId
    source: str
    at: int
    flags: int
    first: int | None
    actions: tuple[Action, ...] | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the journal says a series is. Same shapes as `Bars` and `Provenance`."""

    bars: Bars
    provenance: Provenance
    orphans: int
    actions: tuple[Action, ...] = ()

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
        """The committed batches of a series in order; `up_to` leaves out what was fetched after that instant."""
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
                None if document["actions"] is None else actions_from({"items": document["actions"]}),
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
        async for row in self._rows.find({"meta.s": series_id}, {"_id": 0, "meta": 0}, batch_size=READ_AT_ONCE):
            by_batch.setdefault(row["b"], []).append(row)
        gone = () if retracting is None else retracting.tolist()
        return replay_rows(revisions, by_batch, retracting=gone)


def journal_rows(series_id: int, batch: ObjectId, bars: Bars) -> list[RawBSONDocument]:
    """One document a bar: `ts` (session at 00:00 UTC, a label), `meta` (series and year), `b`, `o h l c v`.

    All have the same layout, so NumPy writes them in one go, as BSON; the driver's own encoder, with an `_id` for each
    that nobody asks for, took four times as long and held the event loop meanwhile.
    """
    rows = np.zeros(len(bars), _ROW)
    for name, constant in _CONSTANTS.items():
        rows[name] = constant
    rows["ts"] = bars.sessions * _DAY_MS
    rows["meta_s"] = series_id
    rows["meta_y"] = years_of(bars.sessions)
    rows["b"] = np.void(batch.binary)
    for name, values in zip("ohlcv", bars.values, strict=True):
        rows[name] = values
    size, data = _ROW.itemsize, rows.tobytes()
    return [RawBSONDocument(data[at : at + size]) for at in range(0, len(data), size)]


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
    spoken = [revision.actions for revision in revisions if revision.actions is not None]
    return Replayed(*_columns(effective), orphans, spoken[-1] if spoken else ())


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
