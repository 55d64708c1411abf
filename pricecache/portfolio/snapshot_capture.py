"""Takes the snapshots of a day: block by block, what only holds by one product, what changed by its history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import structlog
from numpy.typing import NDArray
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.background import cancelled
from pricecache.clock import Clock
from pricecache.core.bars import day_number, day_of
from pricecache.core.catalog import Catalog
from pricecache.core.sessions import CalendarBook
from pricecache.core.snapshot_blocks import NEVER, SIZE, Block, Ids, Member, ids_of, names_of
from pricecache.core.snapshot_values import FIELDS, Gathered
from pricecache.errors import Unavailable
from pricecache.portfolio.market import FOR_EVER, Markets
from pricecache.portfolio.snapshot_days import SnapshotDays
from pricecache.portfolio.snapshot_market import SnapshotMarket
from pricecache.portfolio.snapshot_members import Built, MemberBuilder
from pricecache.stores.runs import RunHandle
from pricecache.stores.snapshots import (
    CLOSED,
    ESTIMATED,
    FINAL,
    KNOWN,
    BlockHead,
    BlocksMoved,
    Counts,
    DayHead,
    DayRecord,
    DayRows,
    Examined,
    Roster,
    SnapshotStore,
    StoredBlock,
)

log = structlog.get_logger(__name__)

SNAPSHOT_JOB = "eod_snapshot"
GROUP = 128
"""Blocks that are valued at once: 32,768 portfolios."""
LOOKED_THROUGH_ON = 4
"""The weekday (Friday) with whose close every ledger is looked at, whether it says that it changed or not."""
CALENDAR_TRIES = 10
_NOT_STORED = StoredBlock(0, 0, None, ids_of([]))


@dataclass(slots=True, eq=False)
class _Pass:
    """One capture: what it is of, which ledgers `moved` (to which generation) since the last, which portfolios are
    `gone`, and what came of it so far."""

    run: RunHandle
    days: tuple[int, ...]
    is_again: bool
    now: float
    moved: Mapping[str, int]
    gone: frozenset[str]
    market: SnapshotMarket
    counts: dict[int, Counts]
    examined: Examined
    begun: frozenset[int] = frozenset()
    total: int = 0
    named: set[int] = field(default_factory=set)
    is_whole: bool = True
    done: int = 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A block that is to be looked at, `head` None where it is to be made, and `more` portfolios that come into it."""

    number: int
    head: BlockHead | None
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """Blocks as they are stored, and what there is of the days that are captured."""

    wanted: Sequence[_Wanted]
    stored: Mapping[int, StoredBlock]
    heads: Mapping[tuple[int, int], DayHead]


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
        database: AsyncDatabase[dict[str, Any]],
        extend: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._store, self._builder, self._markets = store, builder, markets
        self._catalog, self._calendars, self._clock = catalog, calendars, clock
        self._database = database
        self._extend = extend
        self.days = SnapshotDays(store, catalog, calendars, clock)

    async def run_job(self, run: RunHandle) -> None:
        """Parameters: `date` for one day again, else every day that closed and is not captured, and those lately
        captured that are not final."""
        asked = run.parameters.get("date")
        days = await self.days.due() if asked is None else tuple(self.days.closed([_day(asked)]))
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

    # all blocks

    async def _capture(self, run: RunHandle, days: tuple[int, ...], is_again: bool) -> None:
        store = self._store
        heads, gone, examined = await asyncio.gather(store.heads(), store.gone(), store.examined())
        is_all = is_again or not heads or day_of(days[-1]).weekday() == LOOKED_THROUGH_ON
        moved = await (store.everybody() if is_all else store.changed())
        ids = await store.ids() if heads and (is_all or moved) else {}
        if is_all:
            gone += await asyncio.to_thread(_missing, ids, moved)
        latest = max((head.latest for head in heads), default=-FOR_EVER)
        market = SnapshotMarket(
            self._markets, self._catalog, self._calendars, self._database, self._clock, days, examined, latest
        )  # fmt: skip
        counts = {day: Counts() for day in days}
        now, missing = self._clock.time(), frozenset(gone)
        of = _Pass(run, days, is_again, now, moved, missing, market, counts, examined)
        run.count("days", len(days))
        wanted = await asyncio.to_thread(_wanted, of, heads, ids)
        of.total = sum((one.head.size if one.head else 0) + len(one.more) for one in wanted)
        await self._begin(of)
        run.progress(0, of.total)
        if not await self._all_groups(of, wanted):
            return
        await store.forget(sorted(gone))
        if of.is_whole:
            is_complete = not is_again or await self._is_next(days[0])
            for day in days:
                await store.record(DayRecord(day, of.counts[day], is_complete))
            await store.examine(market.examined(of.examined, of.named))
        run.progress(of.total, of.total)

    async def _is_next(self, day: int) -> bool:
        """Whether all before `day` is captured: else it would be forgotten if `day` were complete."""
        return await self.days.new(day - 1) == []

    async def _begin(self, of: _Pass) -> None:
        """A day that was begun and never ended shows as one that misses everything."""
        of.begun = frozenset(one.day for one in await self._store.days(of.days[0], of.days[-1]))
        for day in of.days:
            if day not in of.begun:
                await self._store.record(DayRecord(day, Counts(of.total, 0, of.total), False))

    async def _all_groups(self, of: _Pass, wanted: Sequence[_Wanted]) -> bool:
        """While one group is valued the next is read and the one before is written. False when it was stopped."""
        groups = [wanted[low : low + GROUP] for low in range(0, len(wanted), GROUP)]
        reading, writing = [asyncio.create_task(self._read(of, group)) for group in groups[:1]], list[Any]()
        try:
            for following in range(1, len(groups) + 1):
                if of.run.stopping:
                    break
                read = await reading.pop()
                reading += [asyncio.create_task(self._read(of, group)) for group in groups[following : following + 1]]
                group = await self._valued(of, read)
                while writing:
                    await writing.pop()
                if of.run.stopping:  # what was computed is kept, so that the next run need not
                    await self._write_blocks(of, group)
                    break
                writing.append(asyncio.create_task(self._write(of, group)))
            while writing:
                await writing.pop()
        finally:
            await cancelled([*reading, *writing])
        return not of.run.stopping

    # some of them

    async def _read(self, of: _Pass, wanted: Sequence[_Wanted]) -> _Read:
        begun = [day for day in of.days if day in of.begun]  # of the others there is nothing yet
        heads = await self._store.day_heads([one.number for one in wanted], begun) if begun else {}
        stored = await self._store.blocks([one.head for one in wanted if one.head is not None])
        return _Read(wanted, stored, heads)

    async def _valued(self, of: _Pass, read: _Read) -> _Group:
        """The group with all that it takes to write it; with some of it when it was stopped."""
        group = await asyncio.to_thread(_Group, of, read)
        await self._learn(of, group.gathered)
        ask = await asyncio.to_thread(group.to_build)
        built, failures = await self._builder.build(ask, of.days, go_on=lambda done: self._goes_on(of, done))
        for failure in failures:
            of.run.fail_portfolio(failure.portfolio, failure.code, failure.detail)
        if await asyncio.to_thread(group.take, built, {one.portfolio for one in failures}):
            await self._learn(of, group.gathered)
        return group

    def _goes_on(self, of: _Pass, done: int) -> bool:
        of.run.progress(min(of.done + done, of.total), of.total)
        return not of.run.stopping

    async def _write_blocks(self, of: _Pass, group: _Group) -> bool:
        """Whether they are what is stored now. Series that are new are known before a block names them."""
        try:
            await self._examine(of, group)
            await self._store.write_blocks(group.changed)
        except BlocksMoved:
            of.is_whole = False  # another daemon is at it
            log.debug("blocks of snapshots were changed by another daemon", blocks=list(group.changed))
            return False
        await self._store.seen({name: one.member.generation for name, one in group.built.items()})
        return True

    async def _write(self, of: _Pass, group: _Group) -> None:
        if not await self._write_blocks(of, group):
            return
        old = await self._store.day_rows(group.to_merge)
        rosters = await self._store.rosters(group.to_align(old.values()))
        rows = await asyncio.to_thread(group.rows, old, rosters)
        written = await self._store.write_rows(rows)
        of.is_whole &= written == len(rows)
        self._count(of, group, rows, written)

    async def _examine(self, of: _Pass, group: _Group) -> None:
        known, new = of.examined.facts, dict[int, tuple[int, int]]()
        for one in group.built.values():
            for series, facts in one.facts.items():
                if series not in known:
                    new[series] = min(facts, new.get(series, facts))
        if new:
            after = Examined.of(of.examined.version, known | new, of.examined.at)
            if not await self._store.examine(after):
                raise BlocksMoved
            of.examined = replace(after, version=after.version + 1)

    async def _learn(self, of: _Pass, gathered: Gathered) -> None:
        for attempt in range(1, CALENDAR_TRIES + 1):
            try:
                await self._learn_once(of.market, gathered)
            except Unavailable as exc:  # a calendar is being built
                if attempt == CALENDAR_TRIES:
                    raise
                await self._clock.sleep(exc.retry_after or 1.0)
            else:
                break
        signs = of.market.signs
        of.named.update(signs.ids[await asyncio.to_thread(gathered.named, signs.numbering)].tolist())

    async def _learn_once(self, market: SnapshotMarket, gathered: Gathered) -> None:
        series = await asyncio.to_thread(gathered.series_beside, market.signs.numbering)
        codes = await asyncio.to_thread(gathered.codes_beside, market.prices.numbering)
        await market.learn(codes, series)

    def _count(self, of: _Pass, group: _Group, rows: Sequence[DayRows], written: int) -> None:
        counts = {key: head.counts for key, head in group.heads.items()}
        counts |= {(one.block, one.day): one.counts for one in rows}
        for (_, day), one in counts.items():
            of.counts[day] += one
        of.run.count("captured", sum(one.counts.captured for one in rows))
        of.run.count("provisional", sum(one.counts.open for one in rows))
        of.run.count("documents", written)
        of.run.count("recomputed", group.recomputed)
        of.done += group.size
        of.run.progress(min(of.done, of.total), of.total)


def _day(asked: Any) -> int:
    return day_number(date.fromisoformat(str(asked)))


def _missing(ids: Mapping[int, Ids], there: Mapping[str, int]) -> list[str]:
    held = np.concatenate([ids_of([]), *ids.values()])
    return list(names_of(held[~np.isin(held, ids_of(list(there)))]))


def _wanted(of: _Pass, heads: Sequence[BlockHead], ids: Mapping[int, Ids]) -> list[_Wanted]:
    """Every block with what comes into it: the last one takes what it has room for, new ones the rest."""
    new = sorted(of.moved)
    if ids and new:
        is_in = np.isin(ids_of(new), np.concatenate([*ids.values()])).tolist()
        new = [name for name, is_known in zip(new, is_in, strict=True) if not is_known]
    found = []
    for place, head in enumerate(heads):
        room = max(SIZE - head.size, 0) if place == len(heads) - 1 else 0
        found.append(_Wanted(head.number, head, tuple(new[:room])))
        new = new[room:]
    number = heads[-1].number + 1 if heads else 0
    for low in range(0, len(new), SIZE):
        found.append(_Wanted(number + low // SIZE, None, tuple(new[low : low + SIZE])))
    return found


class _Group:
    """Some blocks on their way: as stored, as they are to be, and their rows. Its methods may be called in a thread."""

    def __init__(self, of: _Pass, read: _Read) -> None:
        self.of, self.wanted, self.heads = of, read.wanted, read.heads
        self.stored = {one.number: read.stored.get(one.number, _NOT_STORED) for one in self.wanted}
        self.blocks = {number: one.block or Block.of([]) for number, one in self.stored.items()}
        self.rosters = {number: one.roster for number, one in self.stored.items()}
        self.changed: dict[int, StoredBlock] = {}
        self.gathered = Gathered(list(self.blocks.values()))
        self.todo = {
            (number, day)
            for number in self.blocks
            for day in of.days
            if of.is_again or (head := self.heads.get((number, day))) is None or head.counts.open
        }
        self.built: Mapping[str, Built] = {}
        self.failed: set[str] = set()

    @property
    def size(self) -> int:
        return sum(len(block) for block in self.blocks.values())

    @property
    def recomputed(self) -> int:
        return len(self.built)

    @property
    def to_merge(self) -> list[tuple[int, int]]:
        return [key for key in self.todo if key in self.heads]

    def to_build(self) -> list[str]:
        """Whose history has to be asked: what is new, has changed, or has to be computed every time."""
        found: list[str] = []
        low = 0
        is_stale = self._stale()
        for one in self.wanted:
            block = self.blocks[one.number]
            places = np.flatnonzero(is_stale[low : low + len(block)])
            found += names_of(block.ids[places])
            if not len(block):
                found += names_of(self.stored[one.number].ids)  # it could not be read
            found += one.more
            low += len(block)
        return found

    def _stale(self) -> NDArray[np.bool_]:
        """By portfolio; what is gone is not asked for."""
        gathered, of = self.gathered, self.of
        since, signs = gathered.since, of.market.signs
        latest = int(since[since < NEVER].max(initial=-FOR_EVER))
        changed_from = np.where(signs.changed_from > latest, FOR_EVER, signs.changed_from)
        changed = gathered.by_portfolio(changed_from, signs.numbering, np.minimum, FOR_EVER)
        days = {number: min((day for n, day in self.todo if n == number), default=FOR_EVER) for number in self.blocks}
        first = np.repeat(np.array(list(days.values())), [len(block) for block in self.blocks.values()])
        found = (changed <= since) | ((since > first) & (first < FOR_EVER))
        if of.moved or of.gone:
            ids = np.concatenate([block.ids for block in self.blocks.values()])
            for at in np.flatnonzero(np.isin(ids, ids_of([*of.moved, *of.gone]))).tolist():
                name = ids[at].decode()
                found[at] |= of.moved.get(name, gathered.generation[at]) != gathered.generation[at]
                found[at] &= name not in of.gone
        return np.asarray(found)

    def take(self, built: Mapping[str, Built], failed: set[str]) -> bool:
        """Blocks with what was built in the place of what was, and without what is gone. Whether any is another now."""
        self.built, self.failed = built, failed
        if not built and not self.of.gone:
            return False
        for one in self.wanted:
            block, gone = self.blocks[one.number], self.of.gone
            again = [*(block.portfolios if len(block) else names_of(self.stored[one.number].ids)), *one.more]
            if not any(name in built or name in gone for name in again):
                continue
            place = {name: at for at, name in enumerate(block.portfolios)}
            members: list[Member] = []
            for name in again:
                if name in built:
                    members.append(built[name].member)
                elif name in place and name not in gone:
                    members.append(block.member(place[name]))
            self._change(one.number, Block.of(members))
        self.gathered = Gathered(list(self.blocks.values()))
        return True

    def _change(self, number: int, made: Block) -> None:
        before, version = self.stored[number], self.stored[number].version + 1
        is_same = before.block is not None and (made.portfolios, made.account_ids) == (
            before.block.portfolios,
            before.block.account_ids,
        )
        self.rosters[number] = before.roster if is_same else version
        self.changed[number] = StoredBlock(version, self.rosters[number], made, made.ids)
        self.blocks[number] = made

    def to_align(self, old: Iterable[DayRows]) -> list[tuple[int, int]]:
        """Rosters of rows that are of other portfolios or accounts than the block is now."""
        return [(one.block, one.roster) for one in old if one.roster != self.rosters[one.block]]

    def rows(self, old: Mapping[tuple[int, int], DayRows], rosters: Mapping[tuple[int, int], Roster]) -> list[DayRows]:
        """What is to be written, but for days on which nothing closed for anybody of a block."""
        of, prices = self.of, self.of.market.prices
        values, flags = self.gathered.valued(prices), self._flags()
        low = scope = 0
        found = []
        for one in self.wanted:
            block = self.blocks[one.number]
            places, scopes = slice(low, low + len(block)), slice(scope, scope + block.scopes)
            self._overlay(block, values[:, :, scopes], flags[:, places])
            for at, day in enumerate(of.days):
                if (one.number, day) in self.todo:
                    row = DayRows(
                        one.number, day, 0, self.rosters[one.number], values[at][:, scopes], flags[at, places],
                        np.full(len(block), int(of.now)), sum(name in self.failed for name in one.more),
                    )  # fmt: skip
                    before = old.get((one.number, day))
                    row = row if before is None else self._merged(row, before, rosters)
                    if before is not None or (row.flags & CLOSED).any():
                        found.append(row)
            low, scope = low + len(block), scope + block.scopes
        return found

    def _flags(self) -> NDArray[np.uint8]:
        """uint8, shape (days, portfolios), of what only holds."""
        gathered, market = self.gathered, self.of.market
        signs, prices, days = market.signs, market.prices, market.days[:, None]
        estimated, waits = gathered.holding(prices.stale, prices), gathered.holding(prices.awaited, prices)
        closed = gathered.by_portfolio(signs.closed, signs.numbering, np.logical_or, False)
        closed[~gathered.by_portfolio(signs.has_sessions, signs.numbering, np.logical_or, False)] = market.home
        closed[gathered.accounts == 0] = False
        until = np.minimum(signs.settled, days[-1])
        settled = gathered.by_portfolio(until, signs.numbering, np.minimum, FOR_EVER)
        is_known = (gathered.since <= days) & (gathered.accounts > 0)
        is_final = is_known & (np.minimum(settled, self._over()) >= days) & ~waits
        bits = ((KNOWN, is_known), (CLOSED, closed.T), (FINAL, is_final), (ESTIMATED, is_known & estimated))
        return sum((np.where(on, bit, 0) for bit, on in bits), np.zeros(estimated.shape, np.int64)).astype(np.uint8)

    def _over(self) -> NDArray[np.int64]:
        """The last day that is over where each portfolio is."""
        found = []
        for block in self.blocks.values():
            now = [datetime.fromtimestamp(self.of.now, ZoneInfo(zone)).date() for zone in block.zones]
            over = np.array([day_number(one) - 1 for one in now], np.int64)
            found.append(over[block.arrays["zone"]] if len(block) else over[:0])
        return np.concatenate(found)

    def _overlay(self, block: Block, values: NDArray[np.float64], flags: NDArray[np.uint8]) -> None:
        """The rows of what was built just now, and none of what failed."""
        if not self.built and not self.failed:
            return
        scope = 0
        for at, name in enumerate(block.portfolios):
            scopes = slice(scope, scope + len(block.account_ids[at]) + 1)
            scope = scopes.stop
            if name in self.failed:
                flags[:, at] &= CLOSED
            elif (one := self.built.get(name)) is not None:
                values[:, :, scopes] = one.values
                is_final = one.has_row & (np.array(self.of.days) <= one.settled) & ~one.waits
                flags[:, at] &= CLOSED
                flags[:, at] |= (KNOWN * one.has_row + FINAL * is_final + ESTIMATED * one.estimated).astype(np.uint8)
                flags[~one.has_row, at] = 0  # it had not begun

    def _merged(self, row: DayRows, before: DayRows, rosters: Mapping[tuple[int, int], Roster]) -> DayRows:
        """`row` over what was captured before: what is final there stays, unless it is to be captured again and is
        another now."""
        row = replace(row, version=before.version)
        block = self.blocks[row.block]
        own = Roster(block.portfolios, block.account_ids)
        if row.roster != before.roster:
            roster = rosters.get((before.block, before.roster))
            if roster is None:
                return row
            before = _aligned(before, roster, own)
        counts = np.array([len(ids) + 1 for ids in own.accounts], np.int64)
        is_kept = (before.flags & FINAL) > 0
        if self.of.is_again and len(counts):
            same = np.isclose(row.values, before.values, rtol=0, atol=0.005, equal_nan=True).all(axis=0)
            is_kept &= np.logical_and.reduceat(same, np.cumsum(counts) - counts) & ((row.flags & FINAL) > 0)
        values = np.where(is_kept.repeat(counts), before.values, row.values)
        flags, at = np.where(is_kept, before.flags, row.flags), np.where(is_kept, before.at, row.at)
        return replace(row, values=values, flags=flags, at=at)


def _aligned(rows: DayRows, roster: Roster, own: Roster) -> DayRows:
    """Rows of one roster in the order of another; nothing of what has other accounts there, or is not there."""
    counts = [len(ids) + 1 for ids in roster.accounts]
    starts = np.cumsum([0, *counts]).tolist()
    place = {name: at for at, name in enumerate(roster.portfolios)}
    values = np.full((FIELDS, sum(len(ids) + 1 for ids in own.accounts)), np.nan)
    flags, at = np.zeros(len(own.portfolios), np.uint8), np.zeros(len(own.portfolios), np.int64)
    scope = 0
    for number, (name, accounts) in enumerate(zip(own.portfolios, own.accounts, strict=True)):
        old = place.get(name)
        if old is not None and roster.accounts[old] == accounts:
            values[:, scope : scope + counts[old]] = rows.values[:, starts[old] : starts[old + 1]]
            flags[number], at[number] = rows.flags[old], rows.at[old]
        scope += len(accounts) + 1
    return replace(rows, values=values, flags=flags, at=at)
