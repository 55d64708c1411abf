"""Daily bars and actions of every series: read as packed years, laid over each other without loss, checked by replay.

What a reader gets carries, year by year, the revision that the series' head names, else it is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.bars import MANUAL, RETRACTED, Bars, checksum, unpack_blocks, unpack_provenance, years_of
from pricecache.core.catalog import Entry
from pricecache.core.coverage import contains
from pricecache.errors import Corrupt, Unavailable
from pricecache.stores.commits import ATTEMPTS, YEAR_BASE, Committer, Overtaken, Restatement, pause
from pricecache.stores.journal import Journal, Replayed
from pricecache.stores.restating import (
    NONE,
    Change,
    Committed,
    PackedYear,
    differences,
    fault,
    joined,
    nothing,
    planned,
    rebuilt,
    restated,
    without_actions,
)
from pricecache.stores.series import apply_head, tail_field

log = structlog.get_logger(__name__)

SERIES_AT_ONCE = 50
"""Series in one transaction: 0.13 ms a series instead of 2 ms alone, and the transaction still short."""

ROWS_AT_ONCE = 20_000

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Record:
    """The bars of one series as they stood at one revision."""

    rev: int
    bars: Bars


class BarStore:
    """The bars and actions of all series. Loop-only; any number of processes may write the same series."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._series = database["series"]
        self._years = database["bar_years"]
        self._actions = database["actions"]
        self.journal = Journal(database)
        self._committer = Committer(database, self.journal)
        self._told_broken: set[int] = set()
        self._turns: dict[int, asyncio.Lock] = {}

    async def read(self, entry: Entry) -> Bars:
        """The bars in the packed record of one series."""
        return (await self.read_many([entry]))[entry.id].bars

    async def read_many(self, entries: Sequence[Entry]) -> dict[int, Record]:
        """The packed records of several series by id, in one query. Each is one committed state of its series.

        Raises `Corrupt` for a single one that cannot be read; of several, such a one is left out and logged.
        """
        found: dict[int, Record] = {}
        waiting = list(entries)
        for attempt in range(ATTEMPTS):
            blocks, broken = await self._blocks(waiting)
            for entry in waiting:
                stored = blocks.get(entry.id, {})
                if entry.id not in broken and {year: rev for year, (rev, _) in stored.items()} == entry.head.years:
                    bars = unpack_blocks([block for _, block in stored.values()])
                    # a copy of the sessions: a view would keep the whole block in memory for as long as the entry
                    found[entry.id], entry.sessions = Record(entry.head.rev, bars), bars.sessions.copy()
            self._tell_broken(waiting, broken, alone=len(entries) == 1)
            waiting = [entry for entry in waiting if entry.id not in found and entry.id not in broken]
            if not waiting:
                return found
            await self.refresh(waiting)
            await pause(attempt)
        self._tell_broken(
            waiting, {e.id: "Its packed years do not match its head." for e in waiting}, alone=len(entries) == 1
        )
        return found

    def _tell_broken(self, entries: Sequence[Entry], broken: Mapping[int, str], *, alone: bool) -> None:
        for entry in entries:
            if entry.id in broken:
                detail = f"{entry.instrument}: {broken[entry.id]} Run `pricecache doctor --verify --rebuild`."
                if alone:
                    raise Corrupt(detail, series=entry.id)
                tell = log.debug if entry.id in self._told_broken else log.error
                self._told_broken.add(entry.id)
                tell("a series is corrupt", symbol=str(entry.instrument), detail=detail)

    async def _blocks(self, entries: Sequence[Entry]) -> tuple[dict[int, dict[int, tuple[int, bytes]]], dict[int, str]]:
        """Revision and block of every packed year by series and year, and what is wrong with which series."""
        if len(entries) == 1:
            low = entries[0].id * YEAR_BASE
            query: dict[str, Any] = {"_id": {"$gte": low, "$lt": low + YEAR_BASE}}
        else:
            ids = [entry.id * YEAR_BASE + year for entry in entries for year in entry.head.years]
            query = {"_id": {"$in": ids}}
        blocks: dict[int, dict[int, tuple[int, bytes]]] = {}
        broken: dict[int, str] = {}
        for document in await self._years.find(query, {"b": 1, "r": 1, "k": 1}).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            if not _is_whole(document.get("b"), document.get("k")):
                broken[series_id] = f"Year {year} fails its checksum."
            else:
                blocks.setdefault(series_id, {})[year] = (document["r"], document["b"])
        return blocks, broken

    async def held(self, entry: Entry) -> NDArray[np.int64]:
        """The sessions in the packed record of `entry`: int64, ascending."""
        if entry.sessions is None:
            await self.read(entry)
        assert entry.sessions is not None
        return entry.sessions

    async def refresh(self, entries: Sequence[Entry]) -> None:
        """Bring the heads, tails and actions of `entries` up to what is committed now."""
        by_id = {entry.id: entry for entry in entries}
        query = {"_id": {"$in": list(by_id)}}
        heads = await self._series.find(query).to_list()
        actions = {document["_id"]: document for document in await self._actions.find(query).to_list()}
        for document in heads:
            apply_head(by_id[document["_id"]], document, actions.get(document["_id"]))

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

        return await self._until_done([change.entry for change in changes], attempt)

    async def _until_done(self, entries: Sequence[Entry], attempt: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Make attempts, each from what is committed by then, until one was not overtaken by another writer."""
        async with AsyncExitStack() as turn:
            # writers of this process queue for a series; only those of others are found out by being overtaken
            for series_id in sorted({entry.id for entry in entries}):
                await turn.enter_async_context(self._turns.setdefault(series_id, asyncio.Lock()))
            doubted = [entry for entry in entries if not entry.current]
            if doubted:
                await self.refresh(doubted)
            for number in range(ATTEMPTS):
                try:
                    return await attempt()
                except Overtaken:
                    await self.refresh(entries)
                    await pause(number)
        raise Unavailable("The database is too busy to commit.", code="commit_conflict", retry_after=2.0)

    async def _plan(self, changes: Sequence[Change]) -> list[tuple[Restatement | None, Committed]]:
        which = [
            change.entry.id * YEAR_BASE + year
            for change in changes
            for year in np.unique(years_of(change.bars.sessions)).tolist()
        ]
        stored = await self._packed({"_id": {"$in": which}})
        return [planned(change, stored.get(change.entry.id, {})) for change in changes]

    async def _packed(self, query: dict[str, Any]) -> dict[int, dict[int, PackedYear]]:
        found: dict[int, dict[int, PackedYear]] = {}
        for document in await self._years.find(query).sort("_id", 1).to_list():
            series_id, year = divmod(document["_id"], YEAR_BASE)
            if not (
                _is_whole(document.get("b"), document.get("k")) and _is_whole(document.get("p"), document.get("kp"))
            ):
                raise Corrupt(
                    f"Year {year} of series {series_id} fails its checksum. "
                    "Run `pricecache doctor --verify --rebuild`.",
                    series=series_id,
                )
            found.setdefault(series_id, {})[year] = PackedYear(
                document["r"], unpack_blocks([document["b"]]), unpack_provenance(document["p"], document["src"])
            )
        return found

    async def packed(self, entry: Entry) -> dict[int, PackedYear]:
        """Every packed year of one series with its provenance, checksums verified."""
        low = entry.id * YEAR_BASE
        return (await self._packed({"_id": {"$gte": low, "$lt": low + YEAR_BASE}})).get(entry.id, {})

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
        return await self._until_done([entry], lambda: self._retract(entry, np.asarray(sessions, np.int64), now))

    async def _retract(self, entry: Entry, sessions: NDArray[np.int64], now: float) -> Committed:
        base = entry.head
        held = await self._whole(entry)
        manual = held.bars.sessions[(held.provenance.flags & MANUAL) != 0]
        gone = np.intersect1d(manual, sessions)
        if not len(gone):
            return Committed(entry, base.rev, NONE, NONE, NONE)
        after = await self.journal.replay(entry.id, retracting=gone)
        if entry.head is not base:
            raise Overtaken
        rows = Bars(gone, np.full((5, len(gone)), np.nan))
        restatement = restated(
            entry,
            after,
            changed=gone,
            rows=rows,
            actions=entry.actions,
            source="manual",
            at=int(now * 1000),
            flags=RETRACTED,
        )
        await self._committer.write([restatement])
        back = np.intersect1d(gone, after.bars.sessions)
        return Committed(entry, restatement.head.rev, NONE, back, np.setdiff1d(gone, back))

    async def retract_actions(self, entry: Entry, keys: Sequence[tuple[int, str]], now: float) -> Committed:
        """Take back manual actions, named by `(ex-date, kind)`; a provider's of the same name shows again."""

        async def attempt() -> Committed:
            restatement = without_actions(entry, keys, int(now * 1000))
            if restatement is None:
                return Committed(entry, entry.head.rev, NONE, NONE, NONE)
            await self._committer.write([restatement])
            return Committed(entry, restatement.head.rev, NONE, NONE, NONE, actions_changed=True)

        return await self._until_done([entry], attempt)

    async def verify(self, entry: Entry, *, rebuild_at: float | None = None) -> list[dict[str, Any]]:
        """Hold the packed record of one series against its journal's replay: one fact for every difference found.

        Bit for bit: sessions, values, source, flags and time of every bar, checksums, and the head's figures. With
        `rebuild_at` (seconds since 1970 UTC) what the journal says is then written as a new revision.
        """

        async def attempt() -> list[dict[str, Any]]:
            await self.refresh([entry])
            base = entry.head
            problems, held = await self._problems(entry)
            replayed = await self.journal.replay(entry.id)
            problems += differences(entry, held, replayed)
            await self.refresh([entry])
            if entry.head.rev != base.rev:
                raise Overtaken
            if problems and rebuild_at is not None:
                stored = {document["_id"] % YEAR_BASE for document in await self._year_ids(entry)}
                await self._committer.write([rebuilt(entry, replayed, stored, int(rebuild_at * 1000))])
                self._told_broken.discard(entry.id)
            return problems

        return await self._until_done([entry], attempt)

    async def drain(self) -> None:
        """Return when no commit is under way."""
        await self._committer.drain()

    async def _year_ids(self, entry: Entry) -> list[dict[str, Any]]:
        low = entry.id * YEAR_BASE
        return await self._years.find({"_id": {"$gte": low, "$lt": low + YEAR_BASE}}, {"_id": 1}).to_list()

    async def _problems(self, entry: Entry) -> tuple[list[dict[str, Any]], Replayed]:
        """Faults of the packed years in themselves, and what they hold where they can be read."""
        try:
            years = await self.packed(entry)
        except Corrupt as exc:
            return [fault(entry, "packed_unreadable", exc.detail)], nothing()
        problems = []
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            problems.append(fault(entry, "head_mismatch", "The packed years are not those the head names."))
        return problems, joined(years)

    async def _whole(self, entry: Entry) -> Replayed:
        years = await self.packed(entry)
        if {year: packed.rev for year, packed in years.items()} != entry.head.years:
            raise Overtaken
        return joined(years)


def _is_whole(block: object, expected: object) -> bool:
    return isinstance(block, bytes) and len(block) > 0 and checksum(block) == expected


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
