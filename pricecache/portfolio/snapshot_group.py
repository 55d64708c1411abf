"""Some blocks on their way through a capture: as they are stored, as they are to be, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import day_number
from pricecache.core.snapshot_blocks import NEVER, Block, Member, ids_of, names_of
from pricecache.core.snapshot_values import Gathered
from pricecache.portfolio.market import FOR_EVER
from pricecache.portfolio.snapshot_kept import kept_over
from pricecache.portfolio.snapshot_market import SnapshotMarket
from pricecache.portfolio.snapshot_members import Built
from pricecache.stores.runs import RunHandle
from pricecache.stores.snapshots import (
    CLOSED,
    ESTIMATED,
    FINAL,
    KNOWN,
    BlockHead,
    Counts,
    DayHead,
    DayRows,
    Examined,
    Roster,
    StoredBlock,
)

NOT_MOVED = -1
_NOT_STORED = StoredBlock(0, 0, None, ids_of([]))


@dataclass(slots=True, eq=False)
class Pass:
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
class Wanted:
    """A block that is to be looked at, `head` None where it is to be made, and `more` portfolios that come into it."""

    number: int
    head: BlockHead | None
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """Blocks as they are stored, and what there is of the days that are captured."""

    wanted: Sequence[Wanted]
    stored: Mapping[int, StoredBlock]
    heads: Mapping[tuple[int, int], DayHead]


class Group:
    """Some blocks on their way: as stored, as they are to be, and their rows. Its methods may be called in a thread."""

    def __init__(self, capture: Pass, read: Read) -> None:
        self.capture, self.wanted, self.heads = capture, read.wanted, read.heads
        self.stored = {one.number: read.stored.get(one.number, _NOT_STORED) for one in self.wanted}
        self.blocks = {number: one.block or Block.of([]) for number, one in self.stored.items()}
        self.rosters = {number: one.roster for number, one in self.stored.items()}
        self.changed: dict[int, StoredBlock] = {}
        self.gathered = Gathered(list(self.blocks.values()))
        self.todo = {
            (number, day)
            for number in self.blocks
            for day in capture.days
            if capture.is_again or (head := self.heads.get((number, day))) is None or head.counts.open
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
        gathered, capture = self.gathered, self.capture
        since, signs = gathered.since, capture.market.signs
        latest = int(since[since < NEVER].max(initial=-FOR_EVER))
        changed_from = np.where(signs.changed_from > latest, FOR_EVER, signs.changed_from)
        changed = gathered.by_portfolio(changed_from, signs.numbering, np.minimum, FOR_EVER)
        days = dict.fromkeys(self.blocks, FOR_EVER)
        for number, day in self.todo:
            days[number] = min(days[number], day)
        first = np.repeat(np.array(list(days.values())), [len(block) for block in self.blocks.values()])
        found = (changed <= since) | ((since > first) & (first < FOR_EVER))
        if capture.moved or capture.gone:
            names = names_of(np.concatenate([block.ids for block in self.blocks.values()]))
            now = np.fromiter((capture.moved.get(name, NOT_MOVED) for name in names), np.int64, len(names))
            found |= (now != NOT_MOVED) & (now != gathered.generation)
            found[[at for at, name in enumerate(names) if name in capture.gone]] = False
        return np.asarray(found)

    def take(self, built: Mapping[str, Built], failed: set[str]) -> bool:
        """Blocks with what was built in the place of what was, and without what is gone. Whether any is another now."""
        self.built, self.failed = built, failed
        if not built and not self.capture.gone:
            return False
        for one in self.wanted:
            block, gone = self.blocks[one.number], self.capture.gone
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
        capture, prices = self.capture, self.capture.market.prices
        values, flags = self.gathered.valued(prices), self._flags()
        low = scope = 0
        found = []
        for one in self.wanted:
            block = self.blocks[one.number]
            places, scopes = slice(low, low + len(block)), slice(scope, scope + block.scopes)
            self._overlay(block, values[:, :, scopes], flags[:, places])
            for at, day in enumerate(capture.days):
                if (one.number, day) in self.todo:
                    row = DayRows(
                        one.number, day, 0, self.rosters[one.number], values[at][:, scopes], flags[at, places],
                        np.full(len(block), int(capture.now)), sum(name in self.failed for name in one.more),
                    )  # fmt: skip
                    before = old.get((one.number, day))
                    row = row if before is None else self._over_before(row, before, rosters)
                    if before is not None or (row.flags & CLOSED).any():
                        found.append(row)
            low, scope = low + len(block), scope + block.scopes
        return found

    def _flags(self) -> NDArray[np.uint8]:
        """uint8, shape (days, portfolios), of what only holds."""
        gathered, market = self.gathered, self.capture.market
        signs, prices, days = market.signs, market.prices, market.days[:, None]
        estimated, waits = gathered.holding(prices.stale, prices), gathered.holding(prices.awaited, prices)
        closed = gathered.by_portfolio(signs.closed, signs.numbering, np.logical_or, False)
        closed[~gathered.by_portfolio(signs.has_sessions, signs.numbering, np.logical_or, False)] = market.home
        closed[gathered.accounts == 0] = False
        until = np.minimum(signs.settled, days[-1])
        settled = gathered.by_portfolio(until, signs.numbering, np.minimum, FOR_EVER)
        is_known = (gathered.since <= days) & (gathered.accounts > 0)
        is_final = is_known & (np.minimum(settled, self._over()) >= days) & ~waits
        found = np.zeros(estimated.shape, np.uint8)
        for bit, on in (KNOWN, is_known), (CLOSED, closed.T), (FINAL, is_final), (ESTIMATED, is_known & estimated):
            found[on] |= bit
        return found

    def _over(self) -> NDArray[np.int64]:
        """The last day that is over where each portfolio is."""
        zones = {zone for block in self.blocks.values() for zone in block.zones}
        now = {zone: datetime.fromtimestamp(self.capture.now, ZoneInfo(zone)).date() for zone in zones}
        over = {zone: day_number(day) - 1 for zone, day in now.items()}
        each = [
            np.array([over[zone] for zone in block.zones], np.int64)[block.arrays["zone"]]
            for block in self.blocks.values()
        ]
        return np.concatenate(each)

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
                is_final = one.has_row & (np.array(self.capture.days) <= one.settled) & ~one.waits
                flags[:, at] &= CLOSED
                flags[:, at] |= (KNOWN * one.has_row + FINAL * is_final + ESTIMATED * one.estimated).astype(np.uint8)
                flags[~one.has_row, at] = 0  # it had not begun

    def _over_before(self, row: DayRows, before: DayRows, rosters: Mapping[tuple[int, int], Roster]) -> DayRows:
        block = self.blocks[row.block]
        own, roster = Roster(block.portfolios, block.account_ids), rosters.get((before.block, before.roster))
        return kept_over(row, own, before, roster, is_again=self.capture.is_again)
