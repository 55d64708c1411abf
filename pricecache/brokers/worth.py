"""Prices of one unit, whatever a broker quotes in: lots of a hundred options, bonds in percent, fees in or beside."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from pricecache.core.broker import ZERO, BrokerSecurity

CENT = Decimal("0.01")
OPTIONS_IN_ONE = 100
"""Options in one contract, where a broker counts contracts."""

_FINEST = Decimal(1).scaleb(-12)


def unit_price(quantity: Decimal, price: Decimal | None, worth: Decimal | None) -> Decimal | None:
    """Such that quantity × price is `worth`: the stated one if it is, to the cent; else made of `worth`. None when
    there is nothing to make it of."""
    if not quantity or worth is None:
        return None if price is None else abs(price)
    if price is not None and abs(abs(quantity * price) - abs(worth)) <= CENT / 2:
        return abs(price)
    return abs(worth / quantity).quantize(_FINEST, ROUND_HALF_EVEN).normalize()


def in_units(
    quantity: Decimal,
    price: Decimal | None,
    worth: Decimal | None,
    security: BrokerSecurity,
    fees: Decimal = ZERO,
) -> tuple[Decimal, Decimal | None]:
    """Quantity and price of options in options, where they are in contracts; of anything else as they are. `fees` may
    be within `worth` or not."""
    if security.option is None or price is None or not worth:
        return quantity, price
    contracts = quantity * price * OPTIONS_IN_ONE
    fits = any(agree(contracts, abs(worth) + beside) for beside in (ZERO, fees, -fees))
    return (quantity * OPTIONS_IN_ONE, price) if fits else (quantity, price)


def fee_is_within(quantity: Decimal, price: Decimal | None, cash: Decimal, fees: Decimal) -> bool:
    """Whether `cash` has `fees` in it already, which is so unless it comes nearer to what the shares alone cost."""
    if price is None or not quantity:
        return True
    shares = abs(quantity * price)
    for alone in (shares, shares / 100):  # bonds in percent
        if agree(alone, cash + fees) or agree(alone, cash):
            return abs(alone - abs(cash + fees)) <= abs(alone - abs(cash))
    return True


def agree(one: Decimal, other: Decimal) -> bool:
    """Whether two amounts are the same to the cent, or to a hundred-thousandth: prices are rounded."""
    one, other = abs(one), abs(other)
    return abs(one - other) <= max(CENT, other / 100_000)
