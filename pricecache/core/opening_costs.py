"""What openings cost: so that today's lots cost what the broker says, where it does."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from pricecache.core.broker_prices import BrokerPrices, fitted
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import Lot

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


def solve(
    openings: Mapping[str, Decimal],
    lots: Mapping[str, list[Lot]],
    bases: Mapping[str, Basis],
    worth: OpeningCost,
) -> dict[str, OpeningCost]:
    """The price of each of `openings` (by name: its quantity, never negative) from `lots`, what is left of it by
    account, in the currency of `bases`; where the lots do not tell, or tell what cannot be, `worth`."""
    solved: dict[str, OpeningCost] = {}
    open_equations = [_equation(lots.get(account, []), basis, openings) for account, basis in bases.items()]
    progress = True
    while progress:
        progress = False
        for fixed, units, basis in open_equations:
            unknown = [name for name in units if name not in solved]
            if len(unknown) == 1 and units[unknown[0]]:
                rest = fixed + sum((units[name] * solved[name].price for name in units if name in solved), ZERO)
                solved[unknown[0]] = _told(basis, rest, units[unknown[0]], openings[unknown[0]], worth)
                progress = True
    return {name: solved.get(name, worth) for name in openings}


def _equation(
    lots: list[Lot], basis: Basis, openings: Mapping[str, Decimal]
) -> tuple[Decimal, dict[str, Decimal], Basis]:
    fixed, units = ZERO, dict[str, Decimal]()
    for lot in lots:
        if lot.transaction in openings:
            units[lot.transaction] = units.get(lot.transaction, ZERO) + lot.local
        else:
            fixed += lot.local
    if any(one < 0 for one in units.values()):
        basis = basis._replace(cost=-abs(basis.cost))
    return fixed, units, basis


def _told(basis: Basis, rest: Decimal, units: Decimal, opening: Decimal, worth: OpeningCost) -> OpeningCost:
    if abs(units) < opening * _LEAST_SHARE:
        return worth
    price = (basis.cost - rest) / units
    if price.is_nan() or not 0 <= price < _MOST:
        return worth
    if worth.price and worth.currency == basis.currency and price > worth.price * _DEAREST:
        return worth
    return OpeningCost(fitted(price), basis.currency, "broker")


def worth_on(prices: BrokerPrices, instrument: Instrument, day: int) -> OpeningCost:
    """What one was worth on `day`."""
    return OpeningCost(*prices.on(instrument, day))
