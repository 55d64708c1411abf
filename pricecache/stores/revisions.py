"""One committed batch of a series as it stands in `revisions`: whose it is, when it came, and what it changed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from bson import Binary, ObjectId
from numpy.typing import NDArray
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.actions import Action
from pricecache.errors import Corrupt
from pricecache.stores.series import actions_from

_PARTS = ("added", "replaced", "removed")
REVISIONS_READ = 2000
"""Revisions that are decoded before the event loop gets its turn."""
NO_SESSION = 1 << 40
"""Later than any session."""


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """The sessions that a batch added, replaced and removed: int64, ascending."""

    added: NDArray[np.int64]
    replaced: NDArray[np.int64]
    removed: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Revision:
    """One committed batch of a series. `at`: when it was fetched, ms since 1970 UTC; `first`: the first session it
    changed, or None; `actions`: all of the series' actions since then, or None where it did not change them.

    `committed_at`: when it became part of the record, ms since 1970 UTC; of batches from before this was kept, `at`.
    `changed`: None where it was not kept, or where nobody can tell.
    """

    rev: int
    batch: ObjectId
    source: str
    at: int
    flags: int
    first: int | None
    actions: tuple[Action, ...] | None
    committed_at: int = 0
    changed: Changed | None = None


def changed_fields(changed: Changed | None) -> dict[str, Binary] | None:
    """What stands in a revision of the sessions it changed; ten years of them take a few hundred bytes."""
    if changed is None:
        return None
    parts = {name: getattr(changed, name) for name in _PARTS}
    return {name: Binary(pack_sessions(sessions)) for name, sessions in parts.items() if len(sessions)}


def revision_from(document: Mapping[str, Any]) -> Revision:
    """The revision a document tells of. Raises `Corrupt` when what it says of sessions cannot be read."""
    return Revision(
        document["_id"]["rev"],
        document["batch"],
        document["src"],
        document["at"],
        document["flags"],
        document["from"],
        None if document["actions"] is None else actions_from({"items": document["actions"]}),
        document.get("committedAt", document["at"]),
        changed_from(document),
    )


def changed_from(document: Mapping[str, Any]) -> Changed | None:
    """The sessions a revision's document says it changed, or None. Raises `Corrupt`."""
    fields = document.get("changed")
    return None if fields is None else Changed(*(unpack_sessions(fields.get(name, b"")) for name in _PARTS))


async def revisions_between(
    database: AsyncDatabase[dict[str, Any]], series_id: int, after: int, up_to: int
) -> list[Revision]:
    """The revisions of a series from `after`, without it, to `up_to`, in order."""
    low, high = {"s": series_id, "rev": after}, {"s": series_id, "rev": up_to}
    found = database["revisions"].find({"_id": {"$gt": low, "$lte": high}}).sort("_id", 1)
    return [revision_from(document) for document in await found.to_list()]


async def first_changed(
    database: AsyncDatabase[dict[str, Any]], spans: Mapping[int, tuple[int, int]], up_to: int = NO_SESSION
) -> dict[int, int | None]:
    """For each series the first session that had another bar after a revision of its span `(after, up_to]` than before
    it; None where nobody can tell, `NO_SESSION` where none had. With one query for all of them. `up_to`: what comes
    after that session is as good as none."""
    clauses = [
        {"_id": {"$gt": {"s": series, "rev": after}, "$lte": {"s": series, "rev": until}}}
        for series, (after, until) in spans.items()
    ]
    if not clauses:
        return {}
    counts = dict.fromkeys(spans, 0)
    first: dict[int, int | None] = dict.fromkeys(spans, NO_SESSION)
    for document in await database["revisions"].find({"$or": clauses}, {"from": 1, "changed": 1}).to_list():
        series = document["_id"]["s"]
        counts[series] += 1
        is_late = document["from"] is not None and document["from"] > up_to
        day, known = NO_SESSION if is_late else _first_of(document), first[series]
        first[series] = None if day is None or known is None else min(day, known)
    return {
        series: first[series] if counts[series] == until - after else None for series, (after, until) in spans.items()
    }


async def firsts_since(database: AsyncDatabase[dict[str, Any]], at: float) -> dict[tuple[int, int], int | None]:
    """By series and revision, of those made since instant `at` (by their writers' clocks, so perhaps not all): the
    first session that each may have changed; None where it is not kept. With one query."""
    key = {"batch": {"$gte": ObjectId.from_datetime(datetime.fromtimestamp(max(at, 0.0), UTC))}}
    found = await database["revisions"].find(key, {"from": 1}).batch_size(REVISIONS_READ).to_list()
    return {(one["_id"]["s"], one["_id"]["rev"]): one["from"] for one in found}


def _first_of(document: Mapping[str, Any]) -> int | None:
    changed = changed_from(document)
    if changed is None:  # of before this was kept, or of a rebuilding
        day: int | None = document["from"]
        return day
    firsts = [int(sessions[0]) for sessions in (changed.added, changed.replaced, changed.removed) if len(sessions)]
    return min(firsts, default=NO_SESSION)


def pack_sessions(sessions: NDArray[np.int64]) -> bytes:
    """Ascending sessions as compressed first differences (little-endian int32): runs cost next to nothing."""
    return zlib.compress(np.diff(sessions, prepend=0).astype("<i4").tobytes()) if len(sessions) else b""


def unpack_sessions(block: bytes) -> NDArray[np.int64]:
    """The inverse of `pack_sessions`. Raises `Corrupt`."""
    if not block:
        return np.empty(0, np.int64)
    try:
        return np.cumsum(np.frombuffer(zlib.decompress(block), "<i4"), dtype=np.int64)
    except (zlib.error, ValueError) as exc:
        raise Corrupt from exc
