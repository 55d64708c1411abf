"""Which splits take effect for whom and when: the market's by themselves, the ledger's in their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import SPLIT_SESSIONS
from pricecache.core.lots import ratio_of
from pricecache.core.marketdata import MarketData, PriceColumn

SAME = Fraction(1)


@dataclass(frozen=True, slots=True)
class LedgerSplit:
    """A split that the ledger states, for one account or, with "", for each that has none of its own."""

    day: int
    instrument: Instrument
    account: str
    ratio: Fraction


class SplitEvent(NamedTuple):
    """What happens at the start of `day` to the positions of an instrument: in `account`, or in all but `others`.

    `ratio`: new shares for one old, 1 where quantities stay. `factor`: what the valuation multiplies quantities by
    changes by so much: prices and quantities are in different units between a ledger's split and the market's.
    """

    day: int
    instrument: Instrument
    ratio: Fraction
    factor: Fraction = SAME
    account: str | None = None
    others: frozenset[str] = frozenset()

    def concerns(self, account: str) -> bool:
        return account == self.account if self.account is not None else account not in self.others


def events(
    stated: Iterable[LedgerSplit], instruments: Iterable[Instrument], market: MarketData, after: int, end: int
) -> list[SplitEvent]:
    """Every event of `instruments` with `after` < day <= `end`, in order of day.

    `stated` has to reach back at least `SPLIT_DAYS` before `after`. A split of the market's after `end` may still be
    replaced by one of the ledger's before.
    """
    by_instrument: dict[Instrument, list[LedgerSplit]] = {}
    for row in stated:
        by_instrument.setdefault(row.instrument, []).append(row)
    found: list[SplitEvent] = []
    for instrument in sorted([one for one in instruments if one in by_instrument or _acts(market, one, after)]):
        found += _of_instrument(instrument, by_instrument.get(instrument, []), market.prices.get(instrument))
    return sorted([event for event in found if after < event.day <= end], key=attrgetter("day"))


def _acts(market: MarketData, instrument: Instrument, after: int) -> bool:
    column = market.prices.get(instrument)
    return column is not None and bool(column.actions) and column.actions[-1].ex_date > after


def factor_between(found: Sequence[SplitEvent], instrument: Instrument, account: str, day: int, as_of: int) -> Fraction:
    """The product of the splits that `account` sees after `day` and up to `as_of`."""
    product = Fraction(1)
    for event in found:
        if event.instrument == instrument and day < event.day <= as_of and event.concerns(account):
            product *= event.ratio
    return product


def _of_instrument(instrument: Instrument, own: list[LedgerSplit], column: PriceColumn | None) -> list[SplitEvent]:
    market = {a.ex_date: ratio_of(a.value) for a in (column.actions if column else ()) if a.kind == "split"}
    if not own:
        return [SplitEvent(day, instrument, ratio) for day, ratio in market.items()]
    calendar = column.closes.due if column is not None and len(column.closes.due) else None
    replaced: dict[int, dict[str, LedgerSplit]] = {}
    found = []
    for row in sorted(own, key=lambda row: (row.day, row.account)):
        near = _replaced_by(row, market, replaced, calendar)
        if near is None:
            found.append(_unmatched(row, own))
        else:
            replaced.setdefault(near, {})[row.account] = row
    for day, ratio in market.items():
        found += _replacing(instrument, day, ratio, replaced.get(day, {}))
    return found


def _unmatched(row: LedgerSplit, own: list[LedgerSplit]) -> SplitEvent:
    if row.account:
        return SplitEvent(row.day, row.instrument, row.ratio, account=row.account)
    named = {other.account for other in own if abs(other.day - row.day) <= SPLIT_SESSIONS} - {""}
    return SplitEvent(row.day, row.instrument, row.ratio, others=frozenset(named))


def _replaced_by(
    row: LedgerSplit,
    market: Mapping[int, Fraction],
    replaced: Mapping[int, Mapping[str, LedgerSplit]],
    calendar: NDArray[np.int64] | None,
) -> int | None:
    free = [day for day in market if row.account not in replaced.get(day, {})]
    near = [day for day in free if sessions_between(day, row.day, calendar) <= SPLIT_SESSIONS]
    return min(near, key=lambda day: (abs(day - row.day), day), default=None)


def sessions_between(a: int, b: int, calendar: NDArray[np.int64] | None) -> int:
    """How many of the sessions in `calendar` lie between two days; calendar days where there is none, or far off."""
    if calendar is None or abs(a - b) > 4 * SPLIT_SESSIONS:
        return abs(a - b)
    low, high = calendar.searchsorted([min(a, b), max(a, b)])
    return int(high - low)


def _replacing(
    instrument: Instrument, day: int, ratio: Fraction, rows: Mapping[str, LedgerSplit]
) -> Iterable[SplitEvent]:
    named = frozenset(rows) - {""}
    if "" not in rows:
        yield SplitEvent(day, instrument, ratio, others=named)
    for account, row in rows.items():
        scope = (account or None, frozenset[str]() if account else named)
        if row.day == day:
            yield SplitEvent(day, instrument, row.ratio, Fraction(1), *scope)
        elif row.day > day:
            yield SplitEvent(day, instrument, Fraction(1), ratio, *scope)
            yield SplitEvent(row.day, instrument, row.ratio, 1 / ratio, *scope)
        else:
            yield SplitEvent(row.day, instrument, row.ratio, 1 / ratio, *scope)
            yield SplitEvent(day, instrument, Fraction(1), ratio, *scope)
