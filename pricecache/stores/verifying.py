"""Holds the packed record of a series against its journal, and rebuilds it from there where it is damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.bars import Bars
from pricecache.core.catalog import Entry, SeriesHead
from pricecache.errors import Corrupt
from pricecache.stores.commits import YEAR_BASE, Committer, Overtaken
from pricecache.stores.heads import Heads
from pricecache.stores.journal import Journal, Replayed
from pricecache.stores.reading import RecordReader
from pricecache.stores.restating import (
    Fault,
    Loss,
    Verdict,
    completed,
    differences,
    fault,
    joined,
    nothing,
    rebuilt,
)
from pricecache.stores.series import head_fields, head_from, tail_field
from pricecache.stores.turns import Turns


class Healer:
    """Finds faults of records, and mends them. Loop-only; safe beside any number of readers and writers."""

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        heads: Heads,
        reader: RecordReader,
        turns: Turns,
        journal: Journal,
        committer: Committer,
    ) -> None:
        self._series = database["series"]
        self._revisions = database["revisions"]
        self._heads = heads
        self._reader = reader
        self._turns = turns
        self._journal = journal
        self._committer = committer

    async def verify(self, entry: Entry, *, rebuild_at: float | None = None, shorten: bool = True) -> Verdict:
        """Hold the packed record of one series against its journal's replay: one fault for every difference found.

        Bit for bit: sessions, values, source, flags and time of every bar, checksums, and the head's figures. With
        `rebuild_at` (seconds since 1970 UTC) what the journal says is then written as a new revision; without
        `shorten` with the packed years that are sound where the journal itself lacks bars, and only where the record
        cannot be read as it is.
        """

        async def attempt() -> Verdict:
            problems = await self._lost(entry, mend=rebuild_at is not None)
            base = entry.head
            more, held = await self._problems(entry)
            replayed = await self._journal.replay(entry.id)
            damage = problems + more
            problems = damage + differences(entry, held, replayed)
            await self._heads.follow([entry])
            if entry.head.rev != base.rev:
                raise Overtaken
            lost, may_write = None, rebuild_at is not None and bool(problems)
            if problems and not shorten:
                expected, committed = await self._committed(entry)
                if len(replayed.bars) < expected:
                    problems.append(_journal_lacks(entry, replayed, expected))
                    replayed = completed(replayed, await self._reader.sound_years(entry))
                    lost, may_write = _loss(replayed, expected, committed), may_write and bool(damage)
            if may_write and rebuild_at is not None:
                stored = {document["_id"] % YEAR_BASE for document in await self._reader.year_ids(entry)}
                await self._committer.write([rebuilt(entry, replayed, stored, int(rebuild_at * 1000))])
                self._reader.sound_again(entry)
                entry.current = True
            return Verdict(tuple(problems), may_write, lost if may_write else None)

        return await self._turns.until_done([entry], attempt, doubted=False)

    async def _lost(self, entry: Entry, *, mend: bool) -> list[Fault]:
        """Refresh; what is wrong with the head and its actions. `mend`: give a lost head its revision back."""
        newest = await self._revisions.find_one(
            {"_id": {"$gte": {"s": entry.id, "rev": 0}, "$lt": {"s": entry.id + 1, "rev": 0}}},
            {"_id": 1},
            sort=[("_id", -1)],
        )
        # read after the revisions: of a sound series it is then at least where they are
        head = await self._series.find_one({"_id": entry.id})
        committed = 0 if newest is None else newest["_id"]["rev"]
        if committed > (0 if head is None else head["rev"]):
            if mend:
                await self._give_head(entry, committed)
            return [fault(entry, "head_lost", f"The head is gone or older than revision {committed}.")]
        if await self._heads.follow([entry]):
            assert head is not None
            if mend:  # what the rebuilding has to start from; the entry stays doubted until then
                entry.head, entry.sessions, entry.manual = head_from(head), None, None
            return [fault(entry, "actions_lost", "The splits and dividends are not those the head names.")]
        return []

    async def _committed(self, entry: Entry) -> tuple[int, NDArray[np.int64]]:
        """How many bars were committed, and of which sessions, as far as anybody can tell."""
        sessions = await self._journal.committed_sessions(entry.id)
        # of a head that was lost the count is, too
        return (len(sessions) if entry.head.actions_rev < 0 else entry.head.count), sessions

    async def _give_head(self, entry: Entry, rev: int) -> None:
        """A head at `rev` that fits no packed year, so that all readers wait until it is rebuilt."""
        years = {document["_id"] % YEAR_BASE for document in await self._reader.year_ids(entry)} | set(entry.head.years)
        head = SeriesHead(rev, dict.fromkeys(years or {YEAR_BASE - 1}, 0), None, None, 0, -1)
        fields = {**head_fields(head), "tail": tail_field(Bars.empty())}
        await self._series.update_one({"_id": entry.id}, {"$setOnInsert": {"rev": 0}}, upsert=True)
        await self._series.update_one({"_id": entry.id, "rev": {"$lt": rev}}, {"$set": fields})
        entry.head, entry.sessions, entry.manual = head, None, None
        entry.doubt()

    async def _problems(self, entry: Entry) -> tuple[list[Fault], Replayed]:
        """Faults of the packed years in themselves, and what they hold where they can be read."""
        try:
            years = await self._reader.packed(entry)
        except Corrupt as exc:
            return [fault(entry, "packed_unreadable", exc.detail)], nothing()
        problems = []
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            problems.append(fault(entry, "head_mismatch", "The packed years are not those the head names."))
        return problems, joined(years)


def _journal_lacks(entry: Entry, replayed: Replayed, expected: int) -> Fault:
    return fault(entry, "journal_lacks", f"The journal has {len(replayed.bars)} of {expected} bars.")


def _loss(left: Replayed, expected: int, committed: NDArray[np.int64]) -> Loss | None:
    count = expected - len(left.bars)
    if count <= 0:
        return None
    gone = np.setdiff1d(committed, left.bars.sessions)
    return Loss(count, int(gone[0]), int(gone[-1])) if len(gone) else Loss(count)
