"""What today's shares cost by their rows, beside what the broker says that they cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pricecache.core.currencies import digits
from pricecache.core.walk.opening_costs import CostParts


def tolerance(acquired: int, currency: str) -> Decimal:
    """By how much two costs may differ that are the same: a broker rounds what each of `acquired` lots cost, and their
    sum, to the smallest amount of money, each by half of it at most."""
    return Decimal(1).scaleb(-digits(currency)) * (acquired + 1) / 2


def told_of(
    parts: CostParts, prices: Mapping[str, Decimal], basis: Decimal, currency: str
) -> tuple[Decimal, str] | None:
    """How much more than `basis` it cost, and that in words; None where both are the same, or a rate is unknown.
    `prices`: of openings, in `currency`, which all is in. Pure."""
    cost = parts.at(prices)
    if cost.is_nan() or abs(cost - basis) <= tolerance(parts.acquired, currency):
        return None
    smallest = Decimal(1).scaleb(-digits(currency))
    ours, theirs = cost.quantize(smallest), basis.quantize(smallest)
    return ours - theirs, f"By its rows it cost {ours} {currency}, by the broker's cost basis {theirs}."
