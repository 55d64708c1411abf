"""Prices for rows that have none: the close of the day, else what the broker said nearest to it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from math import prod
from typing import NamedTuple

from pricecache.core.broker.data import BrokerData
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import exact, fitted
from pricecache.core.marketdata import MarketData

_NEAR_DAYS = 7


class Worth(NamedTuple):
    """Of one unit, in `currency`. `source`: `close`, `broker_price`, or None where nobody knows and `price` is 0."""

    price: Decimal
    currency: str
    source: str | None


class BrokerPrices:
    """Prices of a broker's instruments by day, in the units of the day. `base`: of the market's rates. For one
    thread."""

    def __init__(self, data: BrokerData, instruments: Mapping[str, Instrument], market: MarketData, base: str) -> None:
        self._data, self._instruments, self._market, self._base = data, instruments, market, base
        self._said: dict[Instrument, list[tuple[int, Decimal, str]]] | None = None
        self._known: dict[tuple[Instrument, int], Worth] = {}

    def on(self, instrument: Instrument, day: int) -> Worth:
        """The last close up to `day`, else the broker's price of the day nearest to it. What was worthless later says
        nothing of earlier."""
        found = self._known.get((instrument, day))
        if found is None:
            found = self._known[instrument, day] = self._close(instrument, day) or self._broker(instrument, day)
        return found

    def is_of(self, instrument: Instrument, day: int) -> bool:
        """Whether what `on` says is a close, or a broker's price of at most `_NEAR_DAYS` days before or after."""
        if self._close(instrument, day) is not None:
            return True
        return any(
            price and abs(then - day) <= _NEAR_DAYS for then, price, _ in self._prices_said().get(instrument, ())
        )

    def tell(self, instrument: Instrument, day: int, price: Decimal, currency: str) -> None:
        """A price that follows from what the broker says; where there is a close it counts for nothing."""
        said = self._prices_said().setdefault(instrument, [])
        if price > 0 and (day, price, currency) not in said:
            said.append((day, price, currency))
            self._known = {key: worth for key, worth in self._known.items() if key[0] != instrument}

    def converted(self, amount: Decimal, currency: str, into: str, day: int) -> Decimal:
        """0 where nobody knows the rate."""
        if currency == into or not amount:
            return amount
        rates = [self._market.rate(one, self._base, day) for one in (currency, into)]
        return ZERO if any(one.is_nan() or not one for one in rates) else fitted(amount * rates[0] / rates[1])

    def is_split(self, instrument: Instrument, after: int, until: int) -> bool:
        """Whether the units of its quantities change after day `after` and up to day `until`."""
        return bool(self._market.splits(instrument, after, until))

    def split_ratio(self, instrument: Instrument, after: int, until: int) -> Fraction:
        """New units for one old of the market's splits after day `after` and up to day `until`, 1 without any."""
        return prod((ratio for _, ratio in self._market.splits(instrument, after, until)), start=Fraction(1))

    def _close(self, instrument: Instrument, day: int) -> Worth | None:
        column = self._market.prices.get(instrument)
        found = column.price_on(day) if column is not None else None
        if column is None or found is None:
            return None
        return Worth(exact(found[1]), column.currency, "close")

    def _broker(self, instrument: Instrument, day: int) -> Worth:
        said = [one for one in self._prices_said().get(instrument, ()) if one[1] or one[0] <= day]
        if not said:
            return Worth(ZERO, self._market.currency_of(instrument), None)
        then, price, currency = min(said, key=lambda one: (abs(one[0] - day), one))
        column = self._market.prices.get(instrument)
        if column is not None and then != day:
            ratio = exact(column.ratio(min(then, day), max(then, day)))
            price = price * ratio if day < then else price / ratio
        return Worth(fitted(price), currency, "broker_price")

    def _prices_said(self) -> dict[Instrument, list[tuple[int, Decimal, str]]]:
        if self._said is None:
            self._said = {}
            for one in self._data.holdings:
                self._say(one.security, one.price_day or self._data.day, one.price, one.currency)
            for point in self._data.waypoints:
                self._say(point.security, point.day, point.price, point.currency)
            for row in self._data.transactions:
                self._say(row.security, row.day, row.price or None, row.currency)
        return self._said

    def _say(self, security: str | None, day: int, price: Decimal | None, currency: str) -> None:
        instrument = self._instruments.get(security) if security is not None else None
        if instrument is not None and price is not None and self._said is not None:
            self._said.setdefault(instrument, []).append((day, price, currency))
