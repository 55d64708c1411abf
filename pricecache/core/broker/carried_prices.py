"""Prices of what only a broker prices, carried through splits: the last one before a split is one of old units."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Transaction
from pricecache.core.lots import exact, fitted
from pricecache.core.marketdata import MarketData


def divided(rows: Iterable[Transaction], market: MarketData) -> dict[Instrument, dict[int, Decimal]]:
    """By instrument and day, in the currency of the instrument: the last price before each split that `rows` state, in
    new units, on its day; of instruments without a provider's prices, where that day has no price of its own. Pure."""
    splits: dict[Instrument, dict[int, Decimal]] = {}
    for row in rows:
        if row.type == "split" and row.instrument is not None and row.ratio and not row.instrument.place.has_provider:
            splits.setdefault(row.instrument, {}).setdefault(row.day, row.ratio)
    found = {one: _of_one(one, days, market) for one, days in splits.items()}
    return {one: prices for one, prices in found.items() if prices}


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
