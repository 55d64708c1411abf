"""Cash for a fraction of a share in a row of its own, weeks after the split or merger that left the fraction."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from decimal import Decimal
from typing import NamedTuple

from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import fitted
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow, Key, Placed

DAYS = 45
"""Fractions of all holders are sold together, and paid within weeks."""
_NEAR = Decimal("1.25")
"""So much may a price move until they are sold."""
_CENT = Decimal("0.01")
_ACTIONS = frozenset({"return_of_capital", "merger", "spin_off"})
_CALLED = re.compile(r"\bin[ -]lieu\b|\bfraction", re.IGNORECASE)


class Delay(NamedTuple):
    """Money that the ledger has from day `since` on, and the broker's account from day `until` on."""

    account: str
    currency: str
    since: int
    until: int
    amount: Decimal


def is_called_so(one: BrokerRow) -> bool:
    """Whether a row of cash alone says that it is for a fraction, or for what a merger left."""
    return _is_cash(one) and (one.row.action == "merger" or bool(_CALLED.search(one.row.note or "")))


def _is_cash(one: BrokerRow) -> bool:
    return one.instrument is not None and one.cash > 0 and not one.quantity


def delay_of(one: BrokerRow, since: int) -> Delay:
    return Delay(one.account, one.row.currency, since, one.row.day, one.cash)


class FractionsPaid:
    """Finds the row that pays for a fraction, each once: `used` has their places. For one thread."""

    def __init__(self, live: Iterable[Placed], prices: BrokerPrices) -> None:
        self._prices = prices
        self._rows: dict[Key, list[Placed]] = defaultdict(list)
        self.used: set[int] = set()
        self.delays: list[Delay] = []
        for place, one in live:
            if one.instrument is not None and _is_cash(one) and (one.row.action in _ACTIONS or is_called_so(one)):
                self._rows[one.account, one.instrument].append((place, one))

    def branch(self) -> FractionsPaid:
        """One that goes on from here by itself."""
        other = copy(self)
        other.used, other.delays = set(self.used), list(self.delays)
        return other

    def sale(self, key: Key, day: int, fraction: Decimal, name: str) -> Transaction | None:
        """`fraction` of a share that a split of `day` left, sold then for what a later row pays for it; None where none
        does."""
        one = self.take(key, day, fraction)
        if one is None:
            return None
        fees, taxes = (fitted(max(amount, ZERO)) for amount in (one.row.fees, one.row.taxes))
        price = fitted((one.cash + fees + taxes) / fraction)
        return Transaction(
            day, "sell", key[1], fraction, price, None, fees, taxes, currency=one.row.currency, account=key[0],
            external_id=name, note="the fraction that a split left, paid later",
        )  # fmt: skip

    def take(self, key: Key, day: int, fraction: Decimal) -> BrokerRow | None:
        """The row that pays for `fraction` of a share, which went on `day`; it is used then."""
        found = self._found(self._rows.get(key, ()), key, day, fraction)
        if found is None:
            return None
        self.used.add(found[0])
        self.delays.append(delay_of(found[1], day))
        return found[1]

    def _found(self, rows: Sequence[Placed], key: Key, day: int, fraction: Decimal) -> Placed | None:
        price, currency, source = self._prices.on(key[1], day)
        for place, one in rows:
            if place in self.used or not day <= one.row.day <= day + DAYS:
                continue
            worth = self._prices.converted(fraction * price, currency, one.row.currency, day)
            paid = one.cash + max(one.row.fees, ZERO) + max(one.row.taxes, ZERO)
            if worth / _NEAR - _CENT <= paid <= worth * _NEAR + _CENT or (source is None and is_called_so(one)):
                return place, one
        return None
