"""What of a broker's data names and prices are needed for, and the prices that it says itself. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pricecache.core.broker.data import BrokerData, BrokerSecurity
from pricecache.core.broker.stated_prices import latest_prices

_ROUNDED = Decimal("0.00001")
"""What brokers round quantities to leaves."""


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """`securities`: those that something is held of or was, money aside. `latest`: what the broker said last that one
    of each was worth, with its day, by its id; `first_uses`: the day that each is needed from: of its first row, or, of
    those of `since_before`, which were there before that, the opening day. `currencies`: of money, rows, holdings and
    securities. `opening_day`: the day before the first one that there are rows of. Days are days since 1970-01-01."""

    securities: tuple[BrokerSecurity, ...]
    latest: Mapping[str, tuple[int, Decimal]]
    first_uses: Mapping[str, int]
    since_before: frozenset[str]
    currencies: frozenset[str]
    opening_day: int

    @classmethod
    def of(cls, data: BrokerData) -> BrokerFacts:
        used = {one.security for part in (data.holdings, data.transactions, data.waypoints) for one in part}
        securities = tuple(one for one in data.securities.values() if one.id in used and not one.is_money)
        currencies = {
            *(currency for _, currency in data.money),
            *(row.currency for row in data.transactions),
            *(one.currency for one in data.holdings),
            *(one.currency for one in data.waypoints),
            *(one.currency for one in securities),
        }
        opening, before = data.first_day - 1, _since_before(data)
        uses = {**_first_rows(data), **dict.fromkeys(before, opening)}
        return cls(securities, latest_prices(data), uses, before, frozenset(currencies), opening)


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
