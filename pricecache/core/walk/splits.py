"""Splits in a broker's rows: on which day, of what ratio, and what was there before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pricecache.core.ledger import SPLIT_DAYS, SPLIT_SESSIONS, ZERO
from pricecache.core.lots import FINEST, ratio_of, scaled
from pricecache.core.splits import sessions_between
from pricecache.core.walk.pairs import SplitRows

_ROUNDED = Decimal("0.001")
_SMALLEST = Fraction(1, 10**6)
_ROUNDED_SHARE = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class SplitRow:
    """A broker's split beside the market's it may be: `market`, `(day, ratio)`. `is_near`: that one is so near that a
    ledger's split replaces it by itself; one farther off is the same only if its ratio is."""

    rows: SplitRows
    market: tuple[int, Fraction] | None = None
    is_near: bool = False
    may_take_its_day: bool = False

    @property
    def days(self) -> tuple[int, ...]:
        """The days on which it may take effect."""
        if self.market is not None and self.may_take_its_day:
            return self.rows.day, self.market[0]
        return (self.rows.day,)

    def is_used(self, day: int) -> bool:
        """Whether it is the market's split, if it takes effect on `day`."""
        return self.market is not None and (self.is_near or day == self.market[0])


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a broker's split: in effect at the start of `day`. `alone`: a split of the market's that is not
    the same one and takes effect by itself. `ratio`: as a ledger states it, None where it did nothing or nothing is
    known. `before`: what was there before. `code`: what to tell of it."""

    row: SplitRow
    day: int
    alone: tuple[int, Fraction] | None = None
    ratio: Decimal | None = None
    before: Decimal | None = None
    code: str | None = None

    def applied(self, after: Decimal) -> tuple[Decided, Fraction | None]:
        """With `after` shares right after it: what it was, and the ratio as the engine reads it."""
        ratio, before, code = _reading(self.row, self.day, after)
        if ratio is None:
            return replace(self, code=code), None
        stated = Decimal(ratio.numerator) / Decimal(ratio.denominator)
        stated = stated.quantize(FINEST, ROUND_HALF_EVEN).normalize() + ZERO
        return replace(self, ratio=stated, before=before, code=code), ratio_of(stated)


def beside_the_market(
    rows: Sequence[SplitRows],
    market: Sequence[tuple[int, Fraction]],
    calendar: NDArray[np.int64] | None,
    first_day: int,
    last_day: int,
) -> list[SplitRow]:
    """Each of `rows`, ascending, with the split of the market's it may be, chosen as the engine chooses."""
    free = dict(market)
    found = []
    for one in rows:
        days = [day for day in free if sessions_between(day, one.day, calendar) <= SPLIT_SESSIONS]
        is_near = bool(days)
        if not days:
            days = [day for day in free if abs(day - one.day) <= SPLIT_DAYS and _may_be(one, free[day])]
        day = min(days, key=lambda day: (abs(day - one.day), day), default=None)
        if day is None:
            found.append(SplitRow(one))
        else:
            found.append(SplitRow(one, (day, free.pop(day)), is_near, first_day <= day <= last_day))
    return found


def _may_be(one: SplitRows, ratio: Fraction) -> bool:
    return bool(one.quantity) if one.ratio is None else ratio_of(one.ratio) == ratio


def by_themselves(rows: Sequence[SplitRow], market: Sequence[tuple[int, Fraction]]) -> dict[int, Fraction]:
    """The market's splits that none of `rows` may be, by day."""
    taken = {row.market[0] for row in rows if row.market is not None and (row.is_near or row.may_take_its_day)}
    return {day: ratio for day, ratio in market if day not in taken}


def decide(row: SplitRow, after: Decimal, moved: Decimal | None) -> Decided:
    """On which of its `days` it takes effect, when there were `after` shares on the later one and `moved` between.

    Trades in between tell: the broker's count of new shares fits what there was on one day only. Without a count they
    are in the units of their day, and those are the market's. A ratio that is not the market's is of its own day.
    """
    if row.market is None or not row.may_take_its_day:
        return Decided(row, row.rows.day)
    day, ratio = row.market
    is_later = row.rows.day >= day
    between = moved if moved is not None else ZERO
    own, its = (after, after - between) if is_later else (after - between, after)
    if not row.is_near:
        same = row.rows.ratio is not None or _fits(row.rows.quantity, its, ratio)
        return Decided(row, day) if same else Decided(row, row.rows.day, alone=row.market)
    is_other = row.rows.ratio is not None and ratio_of(row.rows.ratio) != ratio
    if moved is None or is_other or _fits(row.rows.quantity, own, ratio):
        return Decided(row, row.rows.day)
    return Decided(row, day)


class SplitDays:
    """On which days of a walk backwards splits take effect: on none but `days`. `alone`: those of the market that are
    none of the broker's, by day; where trades have to tell, once they did. For one walk."""

    def __init__(
        self, rows: Sequence[SplitRow], market: Sequence[tuple[int, Fraction]], first_day: int, last_day: int
    ) -> None:
        alone = by_themselves(rows, market)
        self.alone = {day: ratio for day, ratio in alone.items() if first_day <= day <= last_day}
        self.days = {*self.alone, *(day for one in rows for day in one.days)}
        self._open: dict[int, list[SplitRow]] = defaultdict(list)
        self._decided: dict[int, list[Decided]] = defaultdict(list)
        for one in rows:
            self._open[max(one.days)].append(one)

    def decided(self, day: int, after: Decimal, moved: Callable[[int, int], Decimal | None]) -> list[Decided]:
        """The broker's of `day`, with `after` shares right after them. `moved`: what did from a day up to, not
        including, another."""
        for one in self._open.get(day, ()):
            decided = decide(one, after, moved(min(one.days), day))
            self._decided[decided.day].append(decided)
            if decided.alone is not None:
                self.alone[decided.alone[0]] = decided.alone[1]
        return self._decided.pop(day, [])


def _fits(quantity: Decimal, after: Decimal, ratio: Fraction) -> bool:
    """Whether `quantity` new shares make `after` of what was there, but for a fraction."""
    before = after - quantity
    return bool(quantity) and before * after >= 0 and bool(before) and _is_fraction(_apart(before, after, ratio), after)


def _apart(before: Decimal, after: Decimal, ratio: Fraction) -> Decimal:
    return scaled(before, ratio) - after


def _is_fraction(apart: Decimal, after: Decimal) -> bool:
    """Whether so much more or less is what is left of a share, paid out or rounded, and not another ratio."""
    if abs(apart) <= max(_ROUNDED, abs(after) * _ROUNDED_SHARE):
        return True
    return abs(apart) < 1 and after == after.to_integral_value()


def _reading(row: SplitRow, day: int, after: Decimal) -> tuple[Fraction | None, Decimal | None, str | None]:
    """Ratio, what was there before (None: by the ratio), and a code."""
    rows = row.rows
    market = row.market[1] if row.market is not None and row.is_used(day) else None
    said = ratio_of(rows.ratio) if rows.ratio is not None and rows.ratio > 0 else None
    known = [ratio for ratio in (said, market) if ratio]
    before = after - rows.quantity
    if not rows.quantity:
        return (known[0], None, None) if known else (None, None, "split_unexplained" if after else None)
    if before and before * after >= 0:
        for ratio in known:
            if _is_fraction(_apart(before, after, ratio), after):
                return ratio, before, None
        ratio = Fraction(after) / Fraction(before)
        if not known and _SMALLEST < ratio < 1 / _SMALLEST:
            return ratio, before, None
    if known and after:
        return market or known[0], None, "split_differs"  # as the prices did
    return market, None, "split_unexplained"
