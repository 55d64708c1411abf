"""Prices that a broker states of its securities, by day: which counts where several are stated, and which differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from pricecache.core.broker.data import ZERO, BrokerData, BrokerHolding
from pricecache.core.instruments import Instrument
from pricecache.core.lots import fitted
from pricecache.core.marketdata import MarketData

NO_MARKET = MarketData()
_ROUNDED = Decimal("0.00001")
_CENT = Decimal("0.01")
_PRICELESS = frozenset({"dividend", "split"})
_ROW, _BALANCE, _HOLDING = range(3)


class StatedPrice(NamedTuple):
    """`price` of one unit in `currency`, as stated, made on day `made`, of `quantity` units (of a row 0) in
    `account`, an id of the broker's. `kind`: of what is held now, of an earlier balance, or of a row."""

    price: Decimal
    currency: str
    made: int
    quantity: Decimal
    account: str
    kind: int

    @property
    def order(self) -> tuple[int, int, Decimal, str]:
        """Of several of one day the first counts: what is held counts most, then the latest, then that of most units,
        then that of the lower account."""
        return -self.kind, -self.made, -abs(self.quantity), self.account


Stated = Mapping[int, Sequence[StatedPrice]]
"""By day, the one that counts first."""


class PriceConflict(NamedTuple):
    """Two accounts that state two prices of `instrument` of one day: `counts` does, `other` does not."""

    instrument: Instrument
    day: int
    counts: StatedPrice
    other: StatedPrice


class Conversion:
    """Of prices into the currencies of the instruments that they are of: `currencies`, those of `market` where one is
    not named, by the rates of `market` to `base`. `missing`: prices whose rate nobody knows. For one thread."""

    def __init__(self, currencies: Mapping[Instrument, str], market: MarketData = NO_MARKET, base: str = "USD") -> None:
        self._currencies, self._market, self._base = currencies, market, base
        self.missing: list[tuple[Instrument, int, StatedPrice]] = []

    def is_needed(self, data: BrokerData, instruments: Mapping[str, Instrument]) -> bool:
        """Whether a price of `data` is in another currency than its instrument."""
        return any(
            price.currency != self._of(instruments[security])
            for security, _, price in _stated(data, _own(instruments).keys())
        )

    def into(self, instrument: Instrument, day: int, stated: StatedPrice) -> Decimal | None:
        own = self._of(instrument)
        if stated.currency == own or not stated.price:
            return stated.price
        rates = [self._market.rate(one, self._base, day) for one in (stated.currency, own)]
        if any(one.is_nan() or not one for one in rates):
            self.missing.append((instrument, day, stated))
            return None
        return fitted(stated.price * rates[0] / rates[1])

    def _of(self, instrument: Instrument) -> str:
        return self._currencies.get(instrument) or self._market.currency_of(instrument)


def own_prices(
    data: BrokerData, instruments: Mapping[str, Instrument], conversion: Conversion | None = None
) -> tuple[dict[Instrument, dict[int, Decimal]], list[PriceConflict]]:
    """Of those of `instruments` (by the broker's security) that no provider prices: prices by day in the currency of
    the instrument (without a `conversion`: the security's), and of each the latest conflict that is more than a
    rounding. What cannot be converted is noted in `conversion`.

    The price of a holding is that of today, too, where the broker made it earlier: it is what all of it is worth now,
    whatever was paid since. A balance at 0 is worth nothing; a row at 0 has no price. Pure.
    """
    own = _own(instruments)
    into = conversion or Conversion(
        {one: data.securities[name].currency for name, one in own.items() if name in data.securities}
    )
    found: dict[Instrument, dict[int, list[StatedPrice]]] = defaultdict(lambda: defaultdict(list))
    for security, day, price in _stated(data, own.keys()):
        found[own[security]][day].append(price)
    ordered = {instrument: _ordered(days) for instrument, days in found.items()}
    conflicts = [one for instrument in sorted(ordered) if (one := _conflict(instrument, ordered[instrument]))]
    converted = {one: _first_known(one, days, into) for one, days in ordered.items()}
    return {one: prices for one, prices in converted.items() if prices}, conflicts


def _own(instruments: Mapping[str, Instrument]) -> dict[str, Instrument]:
    return {name: one for name, one in instruments.items() if not one.place.has_provider}


def _first_known(instrument: Instrument, days: Stated, into: Conversion) -> dict[int, Decimal]:
    found = {}
    for day, several in days.items():
        known = (price for one in several if (price := into.into(instrument, day, one)) is not None)
        if (price := next(known, None)) is not None:
            found[day] = price
    return found


def latest_prices(data: BrokerData) -> dict[str, tuple[int, Decimal]]:
    """By the broker's security: the last price above 0 in its currency, with its day. Pure."""
    found: dict[str, tuple[int, Decimal]] = {}

    def note(security: str | None, currency: str, day: int, price: Decimal | None) -> None:
        one = data.securities.get(security) if price and security is not None else None
        if one is not None and price and one.currency == currency:
            before = found.get(one.id)
            if before is None or before[0] <= day:
                found[one.id] = day, price

    for row in data.transactions:
        if row.action not in _PRICELESS:
            note(row.security, row.currency, row.day, row.price)
    for point in data.waypoints:
        note(point.security, point.currency, point.day, point.price)
    for held in sorted(data.holdings, key=lambda one: _of_holding(data, one).order, reverse=True):
        note(held.security, held.currency, data.day, held.price)
    return found


def _stated(data: BrokerData, wanted: Collection[str]) -> Iterator[tuple[str, int, StatedPrice]]:
    for row in reversed(data.transactions):  # of two in one account the later counts
        if row.security is not None and row.security in wanted and row.price and row.action not in _PRICELESS:
            yield row.security, row.day, StatedPrice(row.price, row.currency, row.day, ZERO, row.account, _ROW)
    for point in data.waypoints:
        if point.security is not None and point.security in wanted and point.price is not None:
            price = StatedPrice(point.price, point.currency, point.day, point.quantity, point.account, _BALANCE)
            yield point.security, point.day, price
    for held in data.holdings:
        if held.security in wanted and held.price is not None:
            price = _of_holding(data, held)
            for day in {price.made, data.day}:
                yield held.security, day, price


def _of_holding(data: BrokerData, held: BrokerHolding) -> StatedPrice:
    made = data.day if held.price_day is None else held.price_day
    return StatedPrice(held.price or ZERO, held.currency, made, held.quantity, held.account, _HOLDING)


def _ordered(days: Mapping[int, Iterable[StatedPrice]]) -> dict[int, list[StatedPrice]]:
    return {day: sorted(several, key=lambda one: one.order) for day, several in days.items()}


def _conflict(instrument: Instrument, stated: Stated) -> PriceConflict | None:
    for day in sorted(stated, reverse=True):
        counts, *others = stated[day]
        if counts.kind != _ROW:
            for other in others:
                is_same = other.kind == counts.kind and other.currency == counts.currency
                if is_same and other.account != counts.account and _differ(counts, other):
                    return PriceConflict(instrument, day, counts, other)
    return None


def _differ(one: StatedPrice, other: StatedPrice) -> bool:
    """By more than a hundred-thousandth, and than a cent of what either is of: prices are made of rounded values."""
    apart = abs(one.price - other.price)
    least = min(abs(one.quantity), abs(other.quantity))
    return apart > _ROUNDED * max(one.price, other.price) and apart * least > _CENT
