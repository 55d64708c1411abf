"""Takes the snapshots of a day: block by block, what only holds by one product, what changed by its history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import structlog

from pricecache.background import cancelled
from pricecache.clock import Clock
from pricecache.core.bars import day_number, day_of
from pricecache.core.catalog import Catalog
from pricecache.core.sessions import CalendarBook
from pricecache.core.snapshot_blocks import SIZE, Ids, names_of
from pricecache.core.snapshot_values import Gathered
from pricecache.errors import Unavailable
from pricecache.portfolio.market import FOR_EVER, Markets
from pricecache.portfolio.snapshot_days import LEFT_UNTIL, SnapshotDays
from pricecache.portfolio.snapshot_group import Group, Pass, Read, Wanted
from pricecache.portfolio.snapshot_market import SnapshotMarket
from pricecache.portfolio.snapshot_members import MemberBuilder
from pricecache.stores.journal import Journal
from pricecache.stores.runs import RunHandle
from pricecache.stores.snapshots import (
    BlockHead,
    BlocksMoved,
    Counts,
    DayRecord,
    DayRows,
    Examined,
    SnapshotStore,
)

log = structlog.get_logger(__name__)

SNAPSHOT_JOB = "eod_snapshot"
GROUP = 128
"""Blocks that are valued at once: 32,768 portfolios."""
LOOKED_THROUGH_ON = 4
"""The weekday (Friday) with whose close every ledger is looked at, whether it says that it changed or not."""
CALENDAR_TRIES = 10


class SnapshotCapture:
    """Loop-only. Every write is of one block, or of one block and day, and finds what it is to replace or leaves it be:
    so that it may be killed at any moment, and run on several daemons at once.

    `extend`: is called when something was captured: the histories go on by as many days.
    """

    def __init__(
        self,
        store: SnapshotStore,
        builder: MemberBuilder,
        markets: Markets,
        catalog: Catalog,
        calendars: CalendarBook,
        clock: Clock,
        journal: Journal,
        extend: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._store, self._builder, self._markets = store, builder, markets
        self._catalog, self._calendars, self._clock = catalog, calendars, clock
        self._journal, self._extend = journal, extend
        self.days = SnapshotDays(store, catalog, calendars, clock)

    async def run_job(self, run: RunHandle) -> None:
        """Parameters: `date` for one day again, else every day that closed and is not captured, and those lately
        captured that are not final; what is due at four in the morning is not for a run of the schedule before."""
        asked = run.parameters.get("date")
        days = await self._due(run) if asked is None else tuple(self.days.closed([_day(asked)]))
        run.count("days", 0)
        if not days:
            what = "that is not captured" if asked is None else f"on {asked}, by now"
            run.progress(0, 0, f"No session closed {what}.")
            return
        await self._capture(run, days, asked is not None)
        counts = run.run.counts
        if asked is not None and not run.stopping and not (counts.get("captured") or counts.get("provisional")):
            run.progress(0, 0, f"No portfolio had anything on {asked} that closed.")
        if run.run.counts.get("captured") and self._extend is not None and not run.stopping:
            await self._extend()

    async def _due(self, run: RunHandle) -> tuple[int, ...]:
        return await self.days.due(LEFT_UNTIL if run.run.requested_by == "schedule" else timedelta())

    # all blocks

    async def _capture(self, run: RunHandle, days: tuple[int, ...], is_again: bool) -> None:
        store = self._store
        heads, gone, examined, records = await asyncio.gather(
            store.heads(), store.gone(), store.examined(), store.days(days[0], days[-1])
        )
        is_all = is_again or not heads or day_of(days[-1]).weekday() == LOOKED_THROUGH_ON
        moved = await (store.everybody() if is_all else store.changed())
        ids = await store.ids(heads) if heads and (is_all or moved) else {}
        if is_all:
            gone += await asyncio.to_thread(_missing, ids, moved)
        latest = max((head.latest for head in heads), default=-FOR_EVER)
        market = SnapshotMarket(
            self._markets, self._catalog, self._calendars, self._journal, self._clock, days, examined, latest
        )  # fmt: skip
        counts = {day: Counts() for day in days}
        now, missing = self._clock.time(), frozenset(gone)
        begun = frozenset(one.day for one in records)
        capture = Pass(run, days, is_again, now, moved, missing, market, counts, examined, begun)
        run.count("days", len(days))
        wanted = await asyncio.to_thread(_wanted, capture, heads, ids)
        capture.total = sum((one.head.size if one.head else 0) + len(one.more) for one in wanted)
        await self._begin(capture)
        run.progress(0, capture.total)
        if not await self._all_groups(capture, wanted):
            return
        await store.forget(sorted(gone))
        if capture.is_whole:
            is_complete = not is_again or await self._all_before_captured(days[0])
            for day in days:
                await store.record(DayRecord(day, capture.counts[day], is_complete))
            await store.examine(market.examined(capture.examined, capture.named))
        run.progress(capture.total, capture.total)

    async def _all_before_captured(self, day: int) -> bool:
        """Else it would be forgotten if `day` were complete."""
        return await self.days.new(day - 1) == []

    async def _begin(self, capture: Pass) -> None:
        """A day that was begun and never ended shows as one that misses everything."""
        for day in capture.days:
            if day not in capture.begun:
                await self._store.record(DayRecord(day, Counts(capture.total, 0, capture.total), False))

    async def _all_groups(self, capture: Pass, wanted: Sequence[Wanted]) -> bool:
        """While one group is valued the next is read and the one before is written. False when it was stopped."""
        groups = [wanted[low : low + GROUP] for low in range(0, len(wanted), GROUP)]
        reading, writing = [asyncio.create_task(self._read(capture, group)) for group in groups[:1]], list[Any]()
        try:
            for following in range(1, len(groups) + 1):
                if capture.run.stopping:
                    break
                read = await reading.pop()
                reading += [asyncio.create_task(self._read(capture, one)) for one in groups[following : following + 1]]
                group = await self._valued(capture, read)
                while writing:
                    await writing.pop()
                if capture.run.stopping:  # what was computed is kept, so that the next run need not
                    await self._write_blocks(capture, group)
                    break
                writing.append(asyncio.create_task(self._write(capture, group)))
            while writing:
                await writing.pop()
        finally:
            await cancelled([*reading, *writing])
        return not capture.run.stopping

    # some of them

    async def _read(self, capture: Pass, wanted: Sequence[Wanted]) -> Read:
        begun = [day for day in capture.days if day in capture.begun]  # of the others there is nothing yet
        heads = await self._store.day_heads([one.number for one in wanted], begun) if begun else {}
        stored = await self._store.blocks([one.head for one in wanted if one.head is not None])
        return Read(wanted, stored, heads)

    async def _valued(self, capture: Pass, read: Read) -> Group:
        """The group with all that it takes to write it; with some of it when it was stopped."""
        group = await asyncio.to_thread(Group, capture, read)
        await self._learn(capture, group.gathered)
        ask = await asyncio.to_thread(group.to_build)
        built, failures = await self._builder.build(ask, capture.days, go_on=lambda done: self._goes_on(capture, done))
        for failure in failures:
            capture.run.fail_portfolio(failure.portfolio, failure.code, failure.detail)
        if await asyncio.to_thread(group.take, built, {one.portfolio for one in failures}):
            await self._learn(capture, group.gathered)
        return group

    def _goes_on(self, capture: Pass, done: int) -> bool:
        capture.run.progress(min(capture.done + done, capture.total), capture.total)
        return not capture.run.stopping

    async def _write_blocks(self, capture: Pass, group: Group) -> bool:
        """Whether they are what is stored now. Series that are new are known before a block names them."""
        try:
            await self._examine(capture, group)
            await self._store.write_blocks(group.changed)
        except BlocksMoved:
            capture.is_whole = False  # another daemon is at it
            log.debug("blocks of snapshots were changed by another daemon", blocks=list(group.changed))
            return False
        await self._store.seen({name: one.member.generation for name, one in group.built.items()})
        return True

    async def _write(self, capture: Pass, group: Group) -> None:
        if not await self._write_blocks(capture, group):
            return
        old = await self._store.day_rows(group.to_merge)
        rosters = await self._store.rosters(group.to_align(old.values()))
        rows = await asyncio.to_thread(group.rows, old, rosters)
        written = await self._store.write_rows(rows)
        capture.is_whole &= written == len(rows)
        self._count(capture, group, rows, written)

    async def _examine(self, capture: Pass, group: Group) -> None:
        known, new = capture.examined.facts, dict[int, tuple[int, int]]()
        for one in group.built.values():
            for series, facts in one.facts.items():
                if series not in known:
                    new[series] = min(facts, new.get(series, facts))
        if new:
            after = Examined.of(capture.examined.version, known | new, capture.examined.at)
            if not await self._store.examine(after):
                raise BlocksMoved
            capture.examined = replace(after, version=after.version + 1)

    async def _learn(self, capture: Pass, gathered: Gathered) -> None:
        for attempt in range(1, CALENDAR_TRIES + 1):
            try:
                await self._learn_once(capture.market, gathered)
            except Unavailable as exc:  # a calendar is being built
                if attempt == CALENDAR_TRIES:
                    raise
                await self._clock.sleep(exc.retry_after or 1.0)
            else:
                break
        signs = capture.market.signs
        capture.named.update(signs.ids[await asyncio.to_thread(gathered.named, signs.numbering)].tolist())

    async def _learn_once(self, market: SnapshotMarket, gathered: Gathered) -> None:
        series = await asyncio.to_thread(gathered.series_beside, market.signs.numbering)
        codes = await asyncio.to_thread(gathered.codes_beside, market.prices.numbering)
        await market.learn(codes, series)

    def _count(self, capture: Pass, group: Group, rows: Sequence[DayRows], written: int) -> None:
        counts = {key: head.counts for key, head in group.heads.items()}
        counts |= {(one.block, one.day): one.counts for one in rows}
        for (_, day), one in counts.items():
            capture.counts[day] += one
        capture.run.count("captured", sum(one.counts.captured for one in rows))
        capture.run.count("provisional", sum(one.counts.open for one in rows))
        capture.run.count("documents", written)
        capture.run.count("recomputed", group.recomputed)
        capture.done += group.size
        capture.run.progress(min(capture.done, capture.total), capture.total)


def _day(asked: Any) -> int:
    return day_number(date.fromisoformat(str(asked)))


def _missing(ids: Mapping[int, Ids], there: Mapping[str, int]) -> list[str]:
    return [name for some in ids.values() for name in names_of(some) if name not in there]


def _wanted(capture: Pass, heads: Sequence[BlockHead], ids: Mapping[int, Ids]) -> list[Wanted]:
    """Every block with what comes into it: the last one takes what it has room for, new ones the rest."""
    known = {name for some in ids.values() for name in names_of(some)} if capture.moved else set()
    new = sorted(capture.moved.keys() - known)
    found = []
    for place, head in enumerate(heads):
        room = max(SIZE - head.size, 0) if place == len(heads) - 1 else 0
        found.append(Wanted(head.number, head, tuple(new[:room])))
        new = new[room:]
    number = heads[-1].number + 1 if heads else 0
    for low in range(0, len(new), SIZE):
        found.append(Wanted(number + low // SIZE, None, tuple(new[low : low + SIZE])))
    return found
