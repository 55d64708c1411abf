"""What of a broker's data names and prices are needed for, and the prices that it says itself. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pricecache.core.broker import BrokerData, BrokerSecurity

_ROUNDED = Decimal("0.00001")
"""What brokers round quantities to leaves."""
_PRICELESS = frozenset({"dividend", "split"})
Prices = Mapping[str, Mapping[int, Decimal]]


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """`securities`: those that something is held of or was, money aside. `prices`: what the broker says that one of
    each was worth in the security's currency, by its id and day, 0 of what is worthless; `latest`: the last above 0;
    `first_uses`: the day that each is needed from: of its first row, or, of those of `since_before`, which were there
    before that, the opening day. `currencies`: of money, rows, holdings and securities. `opening_day`: the day before
    the first one that there are rows of. Days are days since 1970-01-01."""

    securities: tuple[BrokerSecurity, ...]
    prices: Prices
    latest: Mapping[str, tuple[int, Decimal]]
    first_uses: Mapping[str, int]
    since_before: frozenset[str]
    currencies: frozenset[str]
    opening_day: int

    @classmethod
    def of(cls, data: BrokerData) -> BrokerFacts:
        used = {one.security for part in (data.holdings, data.transactions, data.waypoints) for one in part}
        securities = tuple(one for one in data.securities.values() if one.id in used and not one.is_money)
        prices = _prices(data)
        latest = {name: last for name, days in prices.items() if (last := _last(days)) is not None}
        currencies = {
            *(currency for _, currency in data.money),
            *(row.currency for row in data.transactions),
            *(one.currency for one in data.holdings),
            *(one.currency for one in securities),
        }
        opening, before = data.first_day - 1, _since_before(data)
        uses = {**_first_rows(data), **dict.fromkeys(before, opening)}
        return cls(securities, prices, latest, uses, before, frozenset(currencies), opening)


def _first_rows(data: BrokerData) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in data.transactions:
        if row.security is not None:
            found[row.security] = min(row.day, found.get(row.security, row.day))
    return found


def _since_before(data: BrokerData) -> frozenset[str]:
    """Those of which the rows do not make up what is held, in whatever account. One that was split may be among them:
    by which splits is not known yet."""
    left: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for held in data.holdings:
        left[held.account, held.security] += held.quantity
    for row in data.transactions:
        if row.security is not None:
            left[row.account, row.security] -= row.quantity
    return frozenset(security for (_, security), quantity in left.items() if abs(quantity) > _ROUNDED)


def _last(prices: Mapping[int, Decimal]) -> tuple[int, Decimal] | None:
    return max(((day, price) for day, price in prices.items() if price), default=None)


def _prices(data: BrokerData) -> dict[str, dict[int, Decimal]]:
    """What is held now counts most, then earlier balances, then rows. The price of a holding is that of today, too,
    where the broker made it earlier: it is what all of it is worth now, whatever was paid since. A balance at 0 is
    worth nothing; a row at 0 has no price."""
    found: dict[str, dict[int, Decimal]] = {}

    def note(security: str | None, currency: str, day: int, price: Decimal | None) -> None:
        one = None if security is None else data.securities.get(security)
        if one is not None and price is not None and one.currency == currency:
            found.setdefault(one.id, {})[day] = price

    for row in data.transactions:
        if row.price and row.action not in _PRICELESS:
            note(row.security, row.currency, row.day, row.price)
    for point in data.waypoints:
        note(point.security, point.currency, point.day, point.price)
    for held in data.holdings:
        for day in {held.price_day or data.day, data.day}:
            note(held.security, held.currency, day, held.price)
    return found
