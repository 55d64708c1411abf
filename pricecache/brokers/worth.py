"""Prices of one unit, whatever a broker quotes in: bonds in percent, fees within the amount or beside it."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

CENT = Decimal("0.01")

_FINEST = Decimal(1).scaleb(-12)


def unit_price(quantity: Decimal, price: Decimal | None, worth: Decimal | None) -> Decimal | None:
    """Such that quantity × price is `worth`: the stated one if it is, to the cent; else made of `worth`. None when
    there is nothing to make it of."""
    if not quantity or worth is None:
        return None if price is None else abs(price)
    if price is not None and abs(abs(quantity * price) - abs(worth)) <= CENT / 2:
        return abs(price)
    return abs(worth / quantity).quantize(_FINEST, ROUND_HALF_EVEN).normalize()


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
