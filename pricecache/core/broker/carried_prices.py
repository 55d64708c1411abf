"""Prices of what only a broker prices, carried through splits: the last one before a split is one of old units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from pricecache.core.broker.data import BrokerData
from pricecache.core.broker.stated_splits import one_by_one
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import SPLIT_SESSIONS, Transaction
from pricecache.core.lots import exact, fitted
from pricecache.core.marketdata import MarketData


def divided(rows: Iterable[Transaction], market: MarketData) -> dict[Instrument, dict[int, Decimal]]:
    """By instrument and day, in the currency of the instrument: the last price before each split that `rows` state, in
    new units, on its day; of instruments without a provider's prices, where that day has no price of its own. Pure."""
    splits = {one: dict(told) for one, told in _splits(rows, market).items()}
    found = {one: _of_one(one, days, market) for one, days in splits.items()}
    return {one: prices for one, prices in found.items() if prices}


def _splits(rows: Iterable[Transaction], market: MarketData) -> dict[Instrument, list[tuple[int, Decimal]]]:
    """Those that `market` has not: what it has, prices are carried through by themselves."""
    return {
        one: one_by_one([row for row in told if not _has_one_near(market, one, row.day)])
        for one, told in _split_rows(rows).items()
    }


def _split_rows(rows: Iterable[Transaction]) -> dict[Instrument, list[Transaction]]:
    """Of what only brokers price."""
    told: dict[Instrument, list[Transaction]] = {}
    for row in rows:
        if row.type == "split" and row.instrument is not None and row.ratio and not row.instrument.place.has_provider:
            told.setdefault(row.instrument, []).append(row)
    return told


def _has_one_near(market: MarketData, instrument: Instrument, day: int) -> bool:
    return bool(market.splits(instrument, day - SPLIT_SESSIONS - 1, day + SPLIT_SESSIONS))


def _of_one(instrument: Instrument, splits: dict[int, Decimal], market: MarketData) -> dict[int, Decimal]:
    column = market.prices.get(instrument)
    found: dict[int, Decimal] = {}
    for day in sorted(splits):
        last = column.closes.at(day) if column is not None else None
        if last is None or last[0] == day:
            continue
        earlier = [one for one in found if one > last[0]]
        price = found[max(earlier)] if earlier else exact(last[1])
        found[day] = fitted(price / splits[day])
    return found


def in_units_of_their_day(
    data: BrokerData, instruments: Mapping[str, Instrument], rows: Iterable[Transaction], market: MarketData
) -> dict[Instrument, dict[int, Decimal]]:
    """Prices that the broker stated with a balance in shares of before a split, in `rows`, though on its day or within
    `SPLIT_SESSIONS` days: by instrument and day, in shares of after it. Such a price is nearer to the last one before
    the split than to what that is in new units. Pure."""
    splits = {one: one_by_one(several) for one, several in _split_rows(rows).items()}
    found: dict[Instrument, dict[int, Decimal]] = {}
    for instrument, day in _balances(data, instruments) if splits else ():
        column = market.prices.get(instrument)
        stated = column.closes.at(day) if column is not None else None
        if column is None or stated is None or stated[0] != day:
            continue
        for then, ratio in splits.get(instrument, ()):
            before = column.closes.at(then - 1)
            if before is None or not 0 <= day - then <= SPLIT_SESSIONS:
                continue
            price, last = exact(stated[1]), exact(before[1])
            if price > 0 and last > 0 and _is_old(price, last, ratio):
                found.setdefault(instrument, {})[day] = fitted(price / ratio)
    return found


def _balances(data: BrokerData, instruments: Mapping[str, Instrument]) -> set[tuple[Instrument, int]]:
    said = {(one.security, one.day) for one in data.waypoints if one.security is not None and one.price is not None}
    said |= {(one.security, data.day) for one in data.holdings if one.price is not None}
    return {(instruments[name], day) for name, day in said}


def _is_old(price: Decimal, last: Decimal, ratio: Decimal) -> bool:
    new = last / ratio
    return max(price, last) / min(price, last) < max(price, new) / min(price, new)
