"""Prices that rows of a ledger are made at, of what only a broker prices, where the broker says none of that day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from pricecache.core.broker.data import BrokerData
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Transaction
from pricecache.core.lots import exact, fitted
from pricecache.core.marketdata import MarketData
from pricecache.core.walk.prices import BrokerPrices

_PRICED = frozenset({"buy", "sell", "transfer_in"})
_ROUNDED = Decimal("0.00001")


def made_prices(
    rows: Iterable[Transaction],
    data: BrokerData,
    instruments: Mapping[str, Instrument],
    market: MarketData,
    base: str,
) -> dict[Instrument, dict[int, Decimal]]:
    """By instrument and day, in the currency of the instrument: what `rows`, in the ledger's order, are made at on days
    without a price, if that is not the last one; of an opening without one the broker's price nearest to it, else its
    own. Pure."""
    prices = BrokerPrices(data, instruments, market, base)
    found: dict[Instrument, dict[int, Decimal]] = {}
    for row in rows:
        price = _made(row, market, prices)
        if price is not None and row.instrument is not None and price > 0:
            found.setdefault(row.instrument, {}).setdefault(row.day, price)
    return found


def _made(row: Transaction, market: MarketData, prices: BrokerPrices) -> Decimal | None:
    instrument = row.instrument
    if instrument is None or instrument.place.has_provider or not row.quantity:
        return None
    column = market.prices.get(instrument)
    last = column.price_on(row.day) if column is not None else None
    if row.type == "opening":
        if last is not None:
            return None
        price, currency, source = prices.on(instrument, row.day)
        if source is None and row.price:  # what it was exchanged for later tells
            price, currency = row.price, row.currency or currency
    elif row.type in _PRICED and row.price:
        if last is not None and last[0] == row.day:
            return None
        price, currency = row.price, row.currency or market.currency_of(instrument)
    else:
        return None
    price = fitted(prices.converted(price, currency, market.currency_of(instrument), row.day))
    if last is not None and abs(price - exact(last[1])) <= _ROUNDED * price:
        return None
    return price
