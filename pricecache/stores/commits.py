"""How a series moves on: rows to the journal, then one transaction that all of its readers see whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bson import Binary, ObjectId
from pymongo import DeleteMany, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, Provenance, checksum, pack_bars, pack_provenance
from pricecache.core.catalog import Entry, SeriesHead
from pricecache.errors import Unavailable
from pricecache.stores.journal import Journal
from pricecache.stores.series import action_items, head_fields, tail_field

ATTEMPTS = 40
YEAR_BASE = 10_000
"""A packed year's `_id` is series id × 10,000 + year, so that the years of a series are one range of the index."""


class Overtaken(Exception):
    """Another writer moved a series on between reading it and committing: plan anew from what it is now."""


@dataclass(frozen=True, slots=True)
class Restatement:
    """What one series becomes, if it is still at revision `entry.head.rev`.

    `years`: the packed years that change, whole; one without bars is removed. `rows`: what the journal is given.
    `actions`: all of the series' actions afterwards. `at`: ms since 1970 UTC. `first_changed`: the first session of
    which readers now get something else, or None.
    """

    entry: Entry
    head: SeriesHead
    years: dict[int, tuple[Bars, Provenance]]
    rows: Bars
    actions: tuple[Action, ...]
    source: str
    at: int
    flags: int
    first_changed: int | None
    batch: ObjectId = field(default_factory=ObjectId)


class Committer:
    """Writes restatements. Loop-only; safe against any number of other writers in any process."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], journal: Journal) -> None:
        self._client = database.client
        self._series = database["series"]
        self._years = database["bar_years"]
        self._revisions = database["revisions"]
        self._actions = database["actions"]
        self._journal = journal

    async def write(self, restatements: Sequence[Restatement]) -> None:
        """Make all of them durable in one transaction, and bring their entries up to it.

        Raises `Overtaken` when one of the series moved on meanwhile (none is stored then), `Unavailable` when the
        database stays away.
        """
        await self.ensure_series([r.entry.id for r in restatements if r.entry.head.rev == 0])
        await self._journal.append((r.entry.id, r.batch, r.rows) for r in restatements)
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                await self._apply(session, restatements)
        except PyMongoError as exc:
            if not await self._is_committed(restatements[0].batch, exc):
                raise Overtaken from exc
        for restatement in restatements:
            _bring_up(restatement)

    async def ensure_series(self, series_ids: Sequence[int]) -> None:
        """Give every series its head document, so that the compare-and-set of the first commit has one to match."""
        if series_ids:
            empty = {**head_fields(SeriesHead()), "tail": tail_field(Bars.empty())}
            await self._series.bulk_write(
                [UpdateOne({"_id": s}, {"$setOnInsert": empty}, upsert=True) for s in series_ids], ordered=False
            )

    async def _apply(self, session: AsyncClientSession, restatements: Sequence[Restatement]) -> None:
        heads = await self._series.bulk_write([_head_update(r) for r in restatements], session=session)
        if heads.matched_count != len(restatements):
            raise Overtaken
        if years := [operation for r in restatements for operation in _year_operations(r)]:
            await self._years.bulk_write(years, session=session, ordered=False)
        if actions := [_actions_update(r) for r in restatements if r.actions != r.entry.actions]:
            await self._actions.bulk_write(actions, session=session, ordered=False)
        await self._revisions.bulk_write([_revision_insert(r) for r in restatements], session=session, ordered=False)

    async def _is_committed(self, batch: ObjectId, cause: PyMongoError) -> bool:
        """Whether a batch whose commit ended in an error is in the record after all.

        If not, a commit still on its way can only land before our next one, which then fails its compare-and-set and
        is planned anew from what it finds.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await self._revisions.find_one({"batch": batch}, {"_id": 1}) is not None
            except PyMongoError:
                await pause(attempt)
        raise Unavailable("The database does not answer.", code="database_unavailable", retry_after=5.0) from cause


async def pause(attempt: int) -> None:
    """Wait a random while before the next attempt: up to 1 ms doubling to 1 s."""
    await asyncio.sleep(random.random() * min(1.0, 0.001 * 2**attempt))


def _head_update(restatement: Restatement) -> UpdateOne:
    entry = restatement.entry
    fields = {**head_fields(restatement.head), "tail": tail_field(_tail_left(restatement))}
    return UpdateOne({"_id": entry.id, "rev": entry.head.rev}, {"$set": fields})


def _tail_left(restatement: Restatement) -> Bars:
    last = restatement.head.last
    return restatement.entry.tail if last is None else restatement.entry.tail.between(last + 1, None)


def _year_operations(restatement: Restatement) -> list[ReplaceOne[dict[str, Any]] | DeleteMany]:
    operations: list[ReplaceOne[dict[str, Any]] | DeleteMany] = []
    for year, (bars, provenance) in restatement.years.items():
        key = {"_id": restatement.entry.id * YEAR_BASE + year}
        if len(bars):
            document = {**key, **_year_fields(restatement.head.rev, bars, provenance)}
            operations.append(ReplaceOne(key, document, upsert=True))
        else:
            operations.append(DeleteMany(key))
    return operations


def _year_fields(rev: int, bars: Bars, provenance: Provenance) -> dict[str, Any]:
    block, origin = pack_bars(bars), pack_provenance(provenance)
    return {
        "r": rev,
        "n": len(bars),
        "b": Binary(block),
        "p": Binary(origin),
        "src": list(provenance.sources),
        "k": checksum(block),
        "kp": checksum(origin),
    }


def _actions_update(restatement: Restatement) -> ReplaceOne[dict[str, Any]]:
    key = {"_id": restatement.entry.id}
    return ReplaceOne(key, {**key, "items": action_items(restatement.actions)}, upsert=True)


def _revision_insert(restatement: Restatement) -> InsertOne[dict[str, Any]]:
    held = set(restatement.entry.actions)
    return InsertOne(
        {
            "_id": {"s": restatement.entry.id, "rev": restatement.head.rev},
            "batch": restatement.batch,
            "src": restatement.source,
            "at": restatement.at,
            "flags": restatement.flags,
            "from": restatement.first_changed,
            "actions": action_items(action for action in restatement.actions if action not in held),
        }
    )


def _bring_up(restatement: Restatement) -> None:
    entry = restatement.entry
    if entry.sessions is not None and restatement.years:
        kept = np.concatenate([bars.sessions for bars, _ in restatement.years.values()])
        years = np.array(list(restatement.years))
        untouched = ~np.isin(entry.sessions.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970, years)
        entry.sessions = np.sort(np.concatenate([entry.sessions[untouched], kept]))
    entry.tail = _tail_left(restatement)
    entry.actions = restatement.actions
    entry.head = restatement.head
    entry.touch()
