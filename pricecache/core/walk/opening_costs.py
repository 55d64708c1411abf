"""What openings cost: so that today's cost is what the broker says, where it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import fitted
from pricecache.core.walk.prices import BrokerPrices

_DEAREST = 1000
"""A cost of so many times what it was worth is no cost: what is left of the opening is too little to tell by."""
_LEAST_SHARE = Decimal("0.000001")
"""Of an opening of which so little is left, the basis of today says nothing of the whole."""
_MOST = Decimal(10) ** 14


class OpeningCost(NamedTuple):
    """`source`: `broker` (its cost basis), `close`, `broker_price`, or None where nobody knows."""

    price: Decimal
    currency: str
    source: str | None


class Basis(NamedTuple):
    """What the broker says all that an account holds of an instrument has cost."""

    cost: Decimal
    currency: str


class CostParts(NamedTuple):
    """A cost of today: `known`, NaN where a rate is not, and of each opening in `units` so many times the price of one.
    Negative of what is owed. `acquired`: of how many acquisitions it is made up."""

    known: Decimal
    units: Mapping[str, Decimal]
    acquired: int

    def at(self, prices: Mapping[str, Decimal]) -> Decimal:
        return self.known + sum((units * prices[name] for name, units in self.units.items()), ZERO)


class Equation(NamedTuple):
    """`parts` have to come to `total`."""

    parts: CostParts
    total: Decimal


def solve(
    openings: Mapping[str, Decimal], equations: Sequence[Equation], settled: Mapping[str, Decimal], worth: Decimal
) -> dict[str, Decimal]:
    """The price of each of `openings` (by name: its quantity, never negative) by which all of `equations` hold that can
    hold together. Those that these leave open cost the same for one. What no equation tells, or tells as what cannot be
    a price, is left out, and counts as `worth`, NaN where that is unknown; so does what is `settled` as its price. All
    prices are in one currency. Pure.
    """
    fixed = dict(settled)
    for name, quantity in openings.items():
        if not any(abs(one.parts.units.get(name, ZERO)) > quantity * _LEAST_SHARE for one in equations):
            fixed.setdefault(name, worth)
    while True:
        prices = _System(openings, worth).solved(equations, fixed)
        impossible = [name for name, price in prices.items() if not _can_be(price, worth)]
        if not impossible:
            return {name: abs(fitted(price)) for name, price in prices.items()}
        fixed.update(dict.fromkeys(impossible, worth))


def _can_be(price: Decimal, worth: Decimal) -> bool:
    if price.is_nan() or not 0 <= fitted(price) < _MOST:
        return False
    return worth.is_nan() or not worth or price <= worth * _DEAREST


class _System:
    """Linear equations, each solved for one opening (`told`) as soon as it is added: `rest` less the others, which no
    equation is solved for."""

    def __init__(self, openings: Mapping[str, Decimal], worth: Decimal) -> None:
        self._openings, self._worth = openings, worth
        self._told: dict[str, tuple[dict[str, Decimal], Decimal]] = {}

    def solved(self, equations: Sequence[Equation], fixed: Mapping[str, Decimal]) -> dict[str, Decimal]:
        for one in sorted(equations, key=_rank):
            units, rest = self._unknown(one, fixed)
            if not rest.is_nan():
                self._add(units, rest)
        self._level()
        return {name: rest for name, (_, rest) in self._told.items()}

    def _unknown(self, one: Equation, fixed: Mapping[str, Decimal]) -> tuple[dict[str, Decimal], Decimal]:
        units = {name: units for name, units in one.parts.units.items() if name not in fixed}
        known = sum((fixed[name] * units for name, units in one.parts.units.items() if name in fixed), one.parts.known)
        return units, one.total - known

    def _add(self, units: Mapping[str, Decimal], rest: Decimal) -> bool:
        """Whether it told anything new."""
        left = dict[str, Decimal]()
        for one_name, factor in units.items():
            others, value = self._told.get(one_name, ({one_name: Decimal(-1)}, ZERO))
            rest -= factor * value
            for other, one in others.items():
                left[other] = left.get(other, ZERO) - factor * one
        shares = {name: abs(one) / self._openings[name] for name, one in left.items()}
        name = max(sorted(shares), key=shares.__getitem__, default=None)
        if name is None or shares[name] <= _LEAST_SHARE:
            return False
        factor = left.pop(name)
        self._tell(name, {other: one / factor for other, one in left.items() if one}, rest / factor)
        return True

    def _tell(self, name: str, others: dict[str, Decimal], rest: Decimal) -> None:
        for told, (those, value) in self._told.items():
            if name in those:
                factor = those.pop(name)
                for other, one in others.items():
                    those[other] = those.get(other, ZERO) - factor * one
                self._told[told] = those, value - factor * rest
        self._told[name] = others, rest

    def _level(self) -> None:
        while (pair := self._open_pair()) is not None:
            name, other = pair
            size = max(self._openings[name], self._openings[other])
            if not self._add({name: size, other: -size}, ZERO):
                self._add({other: size}, self._worth * size)

    def _open_pair(self) -> tuple[str, str] | None:
        for name in sorted(self._told):
            if others := self._told[name][0]:
                return name, min(others)
        return None


def _rank(one: Equation) -> tuple[int, Decimal]:
    """Of equations that contradict each other one of fewer openings counts, then one of more shares."""
    units = one.parts.units.values()
    return len(units), -sum(map(abs, units), ZERO)


def worth_on(prices: BrokerPrices, instrument: Instrument, day: int) -> OpeningCost:
    """What one was worth on `day`."""
    return OpeningCost(*prices.on(instrument, day))
