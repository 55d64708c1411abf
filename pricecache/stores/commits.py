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
from pymongo.errors import OperationFailure, PyMongoError

from pricecache.clock import Clock
from pricecache.core.actions import Action
from pricecache.core.bars import Bars, Provenance, checksum, pack_bars, pack_provenance, years_of
from pricecache.core.catalog import Entry, SeriesHead
from pricecache.core.events import BarsChanged
from pricecache.errors import Unavailable
from pricecache.stores.announcing import Announcer
from pricecache.stores.client import DUPLICATE_KEY, WRITE_CONFLICT
from pricecache.stores.journal import Journal
from pricecache.stores.revisions import Changed, changed_fields
from pricecache.stores.series import action_items, head_fields, tail_field

RACE_ATTEMPTS = 40
"""How often something is tried again that other writers keep overtaking: with `pause` some 15 seconds."""
YEAR_BASE = 10_000
"""A packed year's `_id` is series id × 10,000 + year, so that the years of a series are one range of the index."""


class Overtaken(Exception):
    """Another writer moved a series on between reading it and committing: plan anew from what it is now."""


@dataclass(frozen=True, slots=True)
class Restatement:
    """What one series becomes, if it is still at `base`, which is what it was when this was planned.

    `years`: the packed years that change, whole; one without bars is removed. `rows`: what the journal is given.
    `actions`: all of the series' actions afterwards; written again when `head` says so. `at`: when it was fetched or
    asked for, ms since 1970 UTC. `first_changed`: the first session of which readers now get something else, or None.
    `changed`: which sessions these are, None where nobody can tell.
    """

    entry: Entry
    base: SeriesHead
    head: SeriesHead
    years: dict[int, tuple[Bars, Provenance]]
    rows: Bars
    actions: tuple[Action, ...]
    source: str
    at: int
    flags: int
    first_changed: int | None
    changed: Changed | None
    batch: ObjectId = field(default_factory=ObjectId)

    @property
    def writes_actions(self) -> bool:
        return self.head.actions_rev == self.head.rev

    def event(self) -> BarsChanged:
        """What there is to tell of it once it is durable."""
        actions_changed = self.writes_actions
        facts = (actions_changed, self.first_changed, self.source)
        if self.changed is None:
            return BarsChanged(self.entry, self.head.rev, None, None, None, *facts)
        parts = (self.changed.added, self.changed.replaced, self.changed.removed)
        return BarsChanged(self.entry, self.head.rev, *parts, *facts)

    @property
    def tail(self) -> Bars:
        """The provisional bars that are left: those of sessions for which no final one comes now."""
        tail = self.entry.tail
        left = ~np.isin(tail.sessions, self.rows.sessions)
        return tail if left.all() else Bars(tail.sessions[left], tail.values[:, left])


class Committer:
    """Writes restatements. Loop-only; safe against any number of other writers in any process."""

    def __init__(
        self, database: AsyncDatabase[dict[str, Any]], journal: Journal, announcer: Announcer, clock: Clock
    ) -> None:
        self._announcer = announcer
        self._clock = clock
        self._client = database.client
        self._series = database["series"]
        self._years = database["bar_years"]
        self._revisions = database["revisions"]
        self._actions = database["actions"]
        self._journal = journal
        self._writing: set[asyncio.Task[None]] = set()

    async def write(self, restatements: Sequence[Restatement]) -> None:
        """Make all of them durable in one transaction, bring their entries up to it, and announce it.

        Goes on to its end when the caller is cancelled, so that the entries never fall behind what was committed.
        Raises `Overtaken` when one of the series moved on meanwhile (none is stored then), `Unavailable` when the
        database stays away (the entries are then doubted), and what the server refuses for good.
        """
        task = asyncio.create_task(self._write(restatements), name="commit")
        self._writing.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    async def drain(self) -> None:
        """Return when no commit is under way."""
        while self._writing:
            await asyncio.wait(self._writing)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # the caller has it, unless he left

    async def _write(self, restatements: Sequence[Restatement]) -> None:
        new = [r.entry.id for r in restatements if r.base.rev == 0]
        rows = ((r.entry.id, r.batch, r.rows) for r in restatements)
        for failure in await asyncio.gather(
            self.ensure_series(new), self._journal.append(rows), return_exceptions=True
        ):
            if failure is not None:
                raise failure
        if any(r.entry.head is not r.base for r in restatements):
            raise Overtaken  # another task of this process was faster
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                await self._apply(session, restatements)
        except PyMongoError as exc:
            if not await self._is_committed(restatements, exc):
                if _is_final(exc):
                    raise
                raise Overtaken from exc
        for restatement in restatements:
            _bring_up(restatement)
        self._announcer.committed([restatement.event() for restatement in restatements])

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
        if actions := [_actions_update(r) for r in restatements if r.writes_actions]:
            await self._actions.bulk_write(actions, session=session, ordered=False)
        # last, so that who asks what was known by now is not told something else once this is durable
        at = int(self._clock.time() * 1000)
        await self._revisions.bulk_write(
            [_revision_insert(r, at) for r in restatements], session=session, ordered=False
        )

    async def _is_committed(self, restatements: Sequence[Restatement], cause: PyMongoError) -> bool:
        """Whether a batch whose commit ended in an error is in the record after all.

        If not, a commit still on its way can only land before our next one, which then fails its compare-and-set and
        is planned anew from what it finds.
        """
        for attempt in range(RACE_ATTEMPTS):
            try:
                batch = {"batch": restatements[0].batch}  # all of them are one transaction
                return await self._revisions.find_one(batch, {"_id": 1}) is not None
            except PyMongoError:
                await pause(attempt)
        for restatement in restatements:
            restatement.entry.doubt()
        raise Unavailable("The database does not answer.", code="database_unavailable", retry_after=5.0) from cause


async def pause(attempt: int) -> None:
    """Wait a random while before the next attempt: up to 1 ms doubling to 1 s."""
    await asyncio.sleep(random.random() * min(1.0, 0.001 * 2**attempt))


def _is_final(error: PyMongoError) -> bool:
    """Whether the server refused for a reason that trying again will not change: no right to write, a full disk.

    A write conflict and a duplicate `revisions._id` say that somebody else was faster.
    """
    if not isinstance(error, OperationFailure) or error.has_error_label("TransientTransactionError"):
        return False
    if error.has_error_label("UnknownTransactionCommitResult") or error.has_error_label("RetryableWriteError"):
        return False
    codes = {error.code} | {fault["code"] for fault in (error.details or {}).get("writeErrors", ())}
    return not codes & {DUPLICATE_KEY, WRITE_CONFLICT}


def _head_update(restatement: Restatement) -> UpdateOne:
    fields = {**head_fields(restatement.head), "tail": tail_field(restatement.tail)}
    return UpdateOne({"_id": restatement.entry.id, "rev": restatement.base.rev}, {"$set": fields})


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
    document = {**key, "r": restatement.head.rev, "items": action_items(restatement.actions)}
    return ReplaceOne(key, document, upsert=True)


def _revision_insert(restatement: Restatement, committed_at: int) -> InsertOne[dict[str, Any]]:
    return InsertOne(
        {
            "_id": {"s": restatement.entry.id, "rev": restatement.head.rev},
            "batch": restatement.batch,
            "src": restatement.source,
            "at": restatement.at,
            "committedAt": committed_at,
            "flags": restatement.flags,
            "from": restatement.first_changed,
            "changed": changed_fields(restatement.changed),
            "actions": action_items(restatement.actions) if restatement.writes_actions else None,
        }
    )


def _bring_up(restatement: Restatement) -> None:
    entry = restatement.entry
    if entry.sessions is not None and restatement.years:
        kept = np.concatenate([bars.sessions for bars, _ in restatement.years.values()])
        untouched = ~np.isin(years_of(entry.sessions), list(restatement.years))
        entry.sessions = np.sort(np.concatenate([entry.sessions[untouched], kept]))
    if entry.manual is not None and restatement.years:
        by_hand = [bars.sessions[origin.by_hand] for bars, origin in restatement.years.values()]
        untouched = ~np.isin(years_of(entry.manual), list(restatement.years))
        entry.manual = np.sort(np.concatenate([entry.manual[untouched], *by_hand]))
    entry.tail = restatement.tail
    entry.actions = restatement.actions
    entry.head = restatement.head
    entry.touch()
