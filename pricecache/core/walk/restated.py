"""Rows that a broker told in shares of after a split: found by their prices, and put back into those of their day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import NamedTuple

from pricecache.core.broker.data import BrokerData, BrokerTransaction
from pricecache.core.currencies import major, unit
from pricecache.core.instruments import Instrument
from pricecache.core.lots import scaled
from pricecache.core.marketdata import MarketData, PriceColumn
from pricecache.core.walk.findings import Finding
from pricecache.core.walk.row import Key

_SHOWS = Fraction(3, 2)
"""A split that moves a price by less than this, up or down, is not told from a day's ups and downs."""
_APART = 0.10
"""A price of a day is within so much of its close."""
_STALE_DAYS = 7


class Restated(NamedTuple):
    """The row at `place` of the data, of `key`, is in the shares of after the splits of `days`: `ratio` for one."""

    place: int
    key: Key
    ratio: Fraction
    days: tuple[int, ...]


class _Level(NamedTuple):
    ratio: Fraction
    days: tuple[int, ...]


_AS_TOLD = _Level(Fraction(1), ())


def restated_rows(
    data: BrokerData, instruments: Mapping[str, Instrument], accounts: Mapping[str, str], market: MarketData
) -> list[Restated]:
    """The rows of `data` whose own price is that of their day in later shares; of those whose price does not tell, the
    ones beside such a row: the nearest one that does tell, of the same account, before the same split. Pure."""
    splits = {one: of_one for one in set(instruments.values()) if (of_one := _splits(market, one, data))}
    if not splits:
        return []
    rows: dict[Key, list[tuple[int, BrokerTransaction]]] = defaultdict(list)
    for place, row in enumerate(data.transactions):
        instrument = instruments.get(row.security) if row.security is not None else None
        if row.quantity and instrument in splits and instrument is not None:
            rows[accounts[row.account], instrument].append((place, row))
    found: list[Restated] = []
    for key, members in rows.items():
        found += _of_one(key, members, splits[key[1]], market.prices[key[1]])
    return found


def in_units_of_their_day(data: BrokerData, found: Collection[Restated]) -> BrokerData:
    """`data` with the rows of `found` put back; quantity × price stays. Pure."""
    if not found:
        return data
    rows = list(data.transactions)
    for one in found:
        row = rows[one.place]
        price = None if row.price is None else row.price * one.ratio.numerator / one.ratio.denominator
        rows[one.place] = replace(row, quantity=scaled(row.quantity, 1 / one.ratio), price=price)
    return replace(data, transactions=tuple(rows))


def told(data: BrokerData, found: Collection[Restated]) -> Iterator[Finding]:
    """A finding for each account, instrument and split."""
    names: dict[tuple[Key, int], list[str]] = defaultdict(list)
    for one in found:
        for day in one.days:
            names[one.key, day].append(data.transactions[one.place].id)
    for ((account, instrument), day), ids in names.items():
        detail = "Rows of before this split were told in shares of after it; they count in those of their day."
        yield Finding("rows_restated", day, account, detail, instrument, rows=tuple(ids))


def _splits(market: MarketData, instrument: Instrument, data: BrokerData) -> list[tuple[int, Fraction]]:
    """Those that rows can be on both sides of, none where no price would show them."""
    found = market.splits(instrument, data.first_day, data.day)
    return found if any(_is_shown(ratio) for _, ratio in found) else []


def _is_shown(ratio: Fraction) -> bool:
    return not 1 / _SHOWS < ratio < _SHOWS


def _of_one(
    key: Key,
    members: Sequence[tuple[int, BrokerTransaction]],
    splits: Sequence[tuple[int, Fraction]],
    column: PriceColumn,
) -> Iterator[Restated]:
    levels = {place: list(_levels(row.day, splits)) for place, row in members}
    shown = {place: _shown(row, levels[place], column) for place, row in members if len(levels[place]) > 1}
    if not any(level is not None and level.days for level in shown.values()):
        return
    evidence = [(row.day, level.days) for place, row in members if (level := shown.get(place)) is not None]
    for place, row in members:
        level = shown.get(place)
        if level is None:
            level = _beside(row.day, levels[place], evidence)
        if level.days:
            yield Restated(place, key, level.ratio, level.days)


def _levels(day: int, splits: Sequence[tuple[int, Fraction]]) -> Iterator[_Level]:
    """In the shares of which times a row of `day` may be. Small splits do not show: they go with the one before."""
    later = [one for one in splits if day < one[0]]
    yield _AS_TOLD
    for at in range(len(later)):
        is_last = at + 1 == len(later) or _is_shown(later[at + 1][1])
        passed = later[: at + 1]
        if is_last and any(_is_shown(one) for _, one in passed):
            yield _Level(prod((one for _, one in passed), start=Fraction(1)), tuple(then for then, _ in passed))


def _shown(row: BrokerTransaction, levels: Sequence[_Level], column: PriceColumn) -> _Level | None:
    """The one at which the price of `row` is that of its day; None where none is, or more than one."""
    if not row.price or row.price < 0 or major(row.currency) != major(column.currency):
        return None
    close = column.price_on(row.day)
    if close is None or row.day - close[0] > _STALE_DAYS:
        return None
    own = float(row.price * unit(row.currency) / unit(column.currency))
    fitting = [one for one in levels if abs(own * float(one.ratio) / close[1] - 1) <= _APART]
    return fitting[0] if len(fitting) == 1 else None


def _beside(day: int, levels: Sequence[_Level], evidence: Sequence[tuple[int, tuple[int, ...]]]) -> _Level:
    """What the nearest row shows, of those before the first split that concerns it, else of those before the last."""
    if len(levels) == 1:
        return _AS_TOLD
    first, last = levels[1].days[0], levels[-1].days[-1]
    near = [one for one in evidence if one[0] < first] or [one for one in evidence if one[0] < last]
    if not near:
        return _AS_TOLD
    _, days = min(near, key=lambda one: (abs(one[0] - day), one))
    return next((one for one in reversed(levels) if one.days and days and one.days[-1] <= days[-1]), _AS_TOLD)
