"""Snapshots for whoever asks: what a portfolio closed at, beside what its history says of that day now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS, day_of
from pricecache.core.chunks import aligned, between, joined
from pricecache.core.history import History
from pricecache.core.portfolios import Portfolio
from pricecache.core.rows import partly_valued, rounded
from pricecache.core.snapshot_values import TOTAL_VALUE
from pricecache.core.valuation import CASH, COST, COVERAGE, NET_FLOW, VALUE
from pricecache.portfolio.snapshot_days import SnapshotDays
from pricecache.portfolio.wholes import Whole, Wholes
from pricecache.stores.snapshots import CLOSED, ESTIMATED, FINAL, PortfolioRow, SnapshotStore

BEFORE_DAYS = 15
"""The session before a day lies within so many days."""
SATURDAY = 5
_CENT = 0.01
_SHOWN = (VALUE, CASH, COST)


@dataclass(frozen=True, slots=True)
class Figures:
    """One scope at the close of a day: money in base currency, None is unknown. `base`: what the change is part of.

    `coverage`: how much of it has a price of its own, 0 to 1. `incomplete`: "value" where something held counts in
    none, "change" where something did not all the time.
    """

    value: float | None
    cash: float | None
    cost: float | None
    flow: float | None
    change: float | None
    base: float | None
    coverage: float
    incomplete: frozenset[str] = frozenset()

    @property
    def percent(self) -> float | None:
        if self.change is None or self.base is None or self.base < _CENT:
            return None
        return 100 * self.change / self.base


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A portfolio at the close of `day`, as its history has it. `previous`: the day that changes are since.

    `captured`: the value that was captured, at `captured_at` (seconds since 1970 UTC); `is_restated`: something of it
    is another now. `accounts`: by id, "" for the implicit one.
    """

    day: int
    previous: int
    total: Figures
    accounts: dict[str, Figures]
    captured: float | None
    captured_at: int
    is_final: bool
    is_estimated: bool
    is_restated: bool


class Snapshots:
    """Loop-only."""

    def __init__(self, store: SnapshotStore, wholes: Wholes) -> None:
        self._store, self._wholes = store, wholes

    async def of(self, portfolio: Portfolio, start: int, end: int) -> list[Snapshot]:
        """Of each day from `start` to `end` (since 1970-01-01, both included) that was captured, oldest first."""
        rows = await self._store.of_portfolio(portfolio.id, start - BEFORE_DAYS, end)
        shown = [row for row in rows if row.flags & CLOSED]
        if not shown:
            return []
        whole = await self._wholes.of(portfolio)
        previous = {row.day: before.day for before, row in pairwise(shown)}
        return [
            _Shown(whole, row, previous.get(row.day, row.day - 1)).snapshot()
            for row in shown
            if row.day >= start and whole.start is not None and whole.start <= row.day <= whole.today
        ]

    async def latest(self, portfolio: Portfolio, before: int) -> PortfolioRow | None:
        """The last one captured of a day before `before`."""
        rows = await self._store.of_portfolio(portfolio.id, before - BEFORE_DAYS, before - 1)
        return next((row for row in reversed(rows) if row.flags & CLOSED), None)


class SnapshotStats:
    """How the days of late went. Loop-only."""

    def __init__(self, store: SnapshotStore, clock: Clock, days: SnapshotDays) -> None:
        self._store, self._clock, self._days = store, clock, days

    async def success_rate(self, days: int = 30) -> float | None:
        """Portfolios captured, of those that a session closed for, over the last `days` days; in percent, None where
        there was none. A day that was missed is one for as many as the last of its kind. Raises `Unavailable` while a
        calendar is built."""
        today = int(self._clock.time() // DAY_SECONDS)
        missed = [day for day in await self._days.missed() if day >= today - days]
        records = await self._store.days(today - days, today)
        due = sum(one.counts.due for one in records)
        if missed:
            due += await self._due_on(missed)
        return 100 * sum(one.counts.captured for one in records) / due if due else None

    async def _due_on(self, missed: Sequence[int]) -> int:
        """For how many portfolios in all: on a week-end those that hold what trades then."""
        complete = await self._store.last_complete()
        assert complete is not None
        last = {
            _is_weekend(one.day): one.counts.due for one in await self._store.days(complete - BEFORE_DAYS, complete)
        }
        return sum(last.get(_is_weekend(day), 0) for day in missed)


class _Shown:
    """One captured row beside the history."""

    def __init__(self, whole: Whole, row: PortfolioRow, previous: int) -> None:
        self.row, self.previous = row, max(previous, (whole.start or row.day) - 1)
        self.history = _days(whole, max(self.previous, whole.start or row.day), row.day)
        self.values = rounded(self.history)

    def snapshot(self) -> Snapshot:
        row = self.row
        total = self._figures(0)
        accounts = {account or "": self._figures(at) for at, (account, _) in enumerate(self.history.scopes) if at}
        captured = _known(row.values[TOTAL_VALUE, 0])
        return Snapshot(
            row.day, self.previous, total, accounts, captured, row.at, bool(row.flags & FINAL),
            bool(row.flags & ESTIMATED), self._is_restated(),
        )  # fmt: skip

    def _figures(self, place: int) -> Figures:
        has_before = self.history.start == self.previous
        after = 1 if has_before else 0
        last = self.values[:, place, -1]
        before = float(self.values[VALUE, place, 0]) if has_before else 0.0
        assert self.history.gross is not None
        inflow, outflow = self.history.gross.of(place, self.history.start, self.history.days)
        flow = float(self.values[NET_FLOW, place, after:].sum())
        partly = partly_valued(self.values[:, place], self.history.estimated[place])
        if partly.any() and flow == flow:  # what gets its first price comes in at its worth: it is no gain
            flow = float((inflow - outflow)[after:].sum())
        change = float(last[VALUE]) - before - flow
        incomplete = {"value"} if partly[-1] else set()
        incomplete |= {"change"} if partly.any() else set()
        return Figures(
            _known(last[VALUE]), _known(last[CASH]), _known(last[COST]), _known(round(flow, 8)),
            _known(round(change, 8)), _known(before + float(inflow[after:].sum())), float(last[COVERAGE]),
            frozenset(incomplete),
        )  # fmt: skip

    def _is_restated(self) -> bool:
        """Whether any of it is another now than was captured."""
        names = [account or "" for account, _ in self.history.scopes[1:]]
        if list(self.row.accounts) != names:
            return True
        now: NDArray[np.float64] = self.values[list(_SHOWN), :, -1]
        return not np.allclose(now, self.row.values, rtol=0, atol=_CENT / 2, equal_nan=True)


def _is_weekend(day: int) -> bool:
    return day_of(day).weekday() >= SATURDAY


def _days(whole: Whole, first: int, last: int) -> History:
    """The days from `first` to `last`, which the whole has."""
    parts = [part for part in whole.parts if part.start <= last and part.end >= first]
    scopes, tracks = whole.scopes, whole.portfolio.rules.cash_tracking
    cut = [aligned(between(part, max(first, part.start), min(last, part.end)), scopes, tracks) for part in parts]
    if len(cut) == 1:
        return cut[0]
    return joined(cut, tracks)


def _known(amount: float) -> float | None:
    return None if amount != amount else float(amount) + 0.0
