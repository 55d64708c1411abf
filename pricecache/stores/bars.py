"""Daily bars and actions of every series: read, laid over each other without loss, taken back, checked by replay.

The one door to them: what each of these takes is in `reading`, `commits`, `turns` and `verifying`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock, SystemClock
from pricecache.core.bars import MANUAL, RETRACTED, Bars, years_of
from pricecache.core.catalog import Entry
from pricecache.core.coverage import contains
from pricecache.stores.announcing import Announcer, Listener
from pricecache.stores.commits import YEAR_BASE, Committer, Overtaken, Restatement
from pricecache.stores.corrections import Corrections, corrections
from pricecache.stores.heads import Heads
from pricecache.stores.journal import Journal, Replayed, elsewhere_if_long
from pricecache.stores.reading import Record, RecordReader
from pricecache.stores.restating import (
    NONE,
    Change,
    Committed,
    PackedYear,
    Verdict,
    planned,
    restated,
    without_actions,
)
from pricecache.stores.revisions import Changed
from pricecache.stores.series import tail_field
from pricecache.stores.turns import Turns
from pricecache.stores.verifying import Healer

SERIES_AT_ONCE = 50
"""Series in one transaction: 0.13 ms a series instead of 2 ms alone, and the transaction still short."""

ROWS_AT_ONCE = 20_000

FAR_FUTURE = 2**31 - 1
"""Later than any session, days since 1970-01-01: what the journal's labels are bounded by."""


class BarStore:
    """The bars and actions of all series. Loop-only; any number of processes may write the same series."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], clock: Clock | None = None) -> None:
        self._series = database["series"]
        self.journal = Journal(database)
        self.announcer = Announcer(database)
        self._committer = Committer(database, self.journal, self.announcer, clock or SystemClock())
        self._heads = Heads(database, self.announcer)
        self._reader = RecordReader(database, self._heads)
        self._turns = Turns(database, self._heads, self._reader)
        self._healer = Healer(database, self._heads, self._reader, self._turns, self.journal, self._committer)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called on the loop with a `BarsChanged` after every durable commit: each of this process, in
        order, once its entry is brought up to it, and those of others as they are heard of. It must neither raise nor
        block. What is given back ends it.
        """
        return self.announcer.subscribe(listener)

    async def read(self, entry: Entry) -> Bars:
        """The bars in the packed record of one series."""
        return (await self.read_many([entry]))[entry.id].bars

    async def read_many(self, entries: Sequence[Entry]) -> dict[int, Record]:
        """The packed records of several series by id, in one query. Each is one committed state of its series.

        Raises `Corrupt` for a single one that cannot be read; of several, such a one is left out and logged.
        """
        return await self._reader.read_many(entries)

    async def held(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry`: int64, ascending."""
        return await self._reader.held(entry)

    async def manual(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry` whose bars were put in by hand: int64, ascending."""
        return await self._reader.manual(entry)

    async def years_of(self, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], PackedYear]:
        """Packed years by series and year, with provenance, in one query, checksums verified. Raises `Corrupt`."""
        ids = [series * YEAR_BASE + year for series, year in wanted]
        found = await self._reader.packed_years({"_id": {"$in": ids}}) if ids else {}
        return {(series, year): packed for series, years in found.items() for year, packed in years.items()}

    async def packed(self, entry: Entry) -> dict[int, PackedYear]:
        """Every packed year of one series with its provenance, checksums verified."""
        return await self._reader.packed(entry)

    async def refresh(self, entries: Sequence[Entry]) -> None:
        """Bring the heads, tails and actions of `entries` up to what is committed now.

        Raises `Corrupt` for a single one whose actions are not those its head names; of several, such a one is left
        doubted.
        """
        await self._heads.refresh(entries)

    async def commit(self, changes: Sequence[Change]) -> list[Committed]:
        """Lay every change over its series; return when all are durable. One outcome a change, in order.

        Atomic for each series, idempotent: what is stored already commits nothing. At most one change a series in a
        call. Raises `Unavailable` when the database stays away: then nothing, or all, of a series was stored, and the
        same call may simply be made again.
        """
        return [committed for group in _groups(changes) for committed in await self._commit_group(group)]

    async def _commit_group(self, changes: Sequence[Change]) -> list[Committed]:
        async def attempt() -> list[Committed]:
            plans = await self._plan(changes)
            restatements = [restatement for restatement, _ in plans if restatement is not None]
            if restatements:
                await self._committer.write(restatements)
            return [committed for _, committed in plans]

        return await self._turns.until_done([change.entry for change in changes], attempt)

    async def _plan(self, changes: Sequence[Change]) -> list[tuple[Restatement | None, Committed]]:
        which = [
            change.entry.id * YEAR_BASE + year
            for change in changes
            for year in np.unique(years_of(change.bars.sessions)).tolist()
        ]
        stored = await self._reader.packed_years({"_id": {"$in": which}})
        return [planned(change, stored.get(change.entry.id, {})) for change in changes]

    async def set_tails(self, tails: Sequence[tuple[Entry, Bars]]) -> None:
        """Keep provisional bars beside the record: those of sessions that are not in it."""
        pairs = [(entry, entry.head, await self._without_final(entry, bars)) for entry, bars in tails]
        if not pairs:
            return
        await self._committer.ensure_series([entry.id for entry, base, _ in pairs if base.rev == 0])
        updates = [
            UpdateOne({"_id": entry.id, "rev": base.rev}, {"$set": {"tail": tail_field(bars)}})
            for entry, base, bars in pairs
        ]
        stored = await self._series.bulk_write(updates, ordered=False)
        if stored.matched_count < len(pairs):
            # some moved on meanwhile; their next transfer looks at them again
            await self.refresh([entry for entry, _, _ in pairs])
            return
        for entry, base, bars in pairs:
            if entry.head is base:
                entry.tail = bars
                entry.touch()
            else:
                await self.refresh([entry])

    async def _without_final(self, entry: Entry, bars: Bars) -> Bars:
        left = ~contains(await self.held(entry), bars.sessions)
        return Bars(bars.sessions[left], bars.values[:, left])

    async def retract(self, entry: Entry, sessions: Sequence[int], now: float) -> Committed:
        """Take back the manual bars of `sessions`; what a provider had last said of them shows again, if anything.

        Sessions without a manual bar are left alone.
        """
        return await self._turns.until_done([entry], lambda: self._retract(entry, np.asarray(sessions, np.int64), now))

    async def _retract(self, entry: Entry, sessions: NDArray[np.int64], now: float) -> Committed:
        base = entry.head
        held = await self._reader.whole(entry)
        manual = held.bars.sessions[(held.provenance.flags & MANUAL) != 0]
        gone = np.intersect1d(manual, sessions)
        if not len(gone):
            return Committed(entry, base.rev, NONE, NONE, NONE)
        after = await self.journal.replay(entry.id, retracting=gone)
        if entry.head is not base:
            raise Overtaken
        back = np.intersect1d(gone, after.bars.sessions)
        removed = np.setdiff1d(gone, back)
        rows = Bars(gone, np.full((5, len(gone)), np.nan))
        restatement = restated(
            entry,
            after,
            years=np.unique(years_of(gone)).tolist(),
            first_changed=int(gone[0]),
            rows=rows,
            actions=entry.actions,
            source="manual",
            at=int(now * 1000),
            flags=RETRACTED,
            known=Changed(NONE, back, removed),
        )
        await self._committer.write([restatement])
        return Committed(entry, restatement.head.rev, NONE, back, removed)

    async def retract_actions(self, entry: Entry, keys: Sequence[tuple[int, str]], now: float) -> Committed:
        """Take back manual actions, named by `(ex-date, kind)`; a provider's of the same name shows again."""

        async def attempt() -> Committed:
            restatement = without_actions(entry, keys, int(now * 1000))
            if restatement is None:
                return Committed(entry, entry.head.rev, NONE, NONE, NONE)
            await self._committer.write([restatement])
            return Committed(entry, restatement.head.rev, NONE, NONE, NONE, actions_changed=True)

        return await self._turns.until_done([entry], attempt)

    async def verify(self, entry: Entry, *, rebuild_at: float | None = None, shorten: bool = True) -> Verdict:
        """Hold the packed record of one series against its journal's replay: one fault for every difference found.

        Bit for bit: sessions, values, source, flags and time of every bar, checksums, and the head's figures. With
        `rebuild_at` (seconds since 1970 UTC) what the journal says is then written as a new revision; without
        `shorten` with the packed years that are sound where the journal itself lacks bars, and only where the record
        cannot be read as it is.
        """
        return await self._healer.verify(entry, rebuild_at=rebuild_at, shorten=shorten)

    async def heal(self, entry: Entry, now: float) -> Verdict:
        """Rebuild the record of one series from its journal where it is corrupt or incomplete: years deleted, cut short
        or altered, its head or its actions lost. Without faults, and nothing is written, when it is sound.

        `now`: seconds since 1970 UTC. Safe beside any number of readers and writers. Where the journal itself has lost
        rows (fault `journal_lacks`) the packed years that are sound stand, and the verdict says what is lost.
        """
        return await self.verify(entry, rebuild_at=now, shorten=False)

    async def corrections(self, entry: Entry, start: int | None, end: int | None, limit: int) -> Corrections:
        """What was superseded of the sessions `start` to `end` (both included; None: no bound), newest first: bars and
        actions that readers were once given, with what took their place. At most `limit` of each."""
        revisions = await self.journal.revisions(entry.id)
        rows = await self.journal.rows(entry.id, start, end)
        low, high = -FAR_FUTURE if start is None else start, FAR_FUTURE if end is None else end
        return await elsewhere_if_long(len(rows), corrections, revisions, rows, low, high, limit)

    async def as_known_on(self, entry: Entry, instant: float) -> Replayed:
        """Bars and actions of a series as they were known at `instant` (seconds since 1970 UTC): what was committed by
        then, from the journal. Bars and actions of one moment; as traded."""
        async with self._turns.of(entry.id):  # a commit under way may have its time already, and not be readable yet
            return await self.journal.replay(entry.id, up_to=instant)

    async def drain(self) -> None:
        """Return when no commit is under way, and all are announced."""
        await self._committer.drain()
        await self.announcer.drain()


def _groups(changes: Sequence[Change]) -> Iterator[list[Change]]:
    group: list[Change] = []
    rows = 0
    for change in changes:
        if group and (len(group) == SERIES_AT_ONCE or rows + len(change.bars) > ROWS_AT_ONCE):
            yield group
            group, rows = [], 0
        group.append(change)
        rows += len(change.bars)
    if group:
        yield group
