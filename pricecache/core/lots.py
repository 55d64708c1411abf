"""Lots: what was bought (or sold short) at once and is still held, and in which order it goes."""

from __future__ import annotations

from bisect import insort_left, insort_right
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from pricecache.core.ledger import ZERO, CostBasis

FINEST = Decimal("1E-12")
"""What quantities are rounded to where a ratio leaves more digits; a ledger takes no finer amounts."""
_LARGEST_DENOMINATOR = 10_000


class Lot(NamedTuple):
    """`quantity` of one acquisition that is still there, negative in a short sale.

    `cost`: in base currency at the rate of that day, NaN where no rate was known, negative (the proceeds) of a short
    sale. `local`: the same in the instrument's currency. `day`: of acquisition, days since 1970-01-01.
    `transaction`: the id of the row it came by.
    """

    quantity: Decimal
    cost: Decimal
    local: Decimal
    day: int
    transaction: str = ""

    @property
    def unit_cost(self) -> Decimal:
        """Cost of one unit; 0 where it is unknown, so that such a lot goes last under HIFO."""
        unit = self.cost / self.quantity
        return ZERO if unit.is_nan() else unit

    def part(self, quantity: Decimal) -> tuple[Lot, Lot]:
        """`quantity` of it (of its sign), and the rest."""
        whole, cost, local, day, transaction = self
        part = cost * quantity / whole
        local_part = part if local is cost else local * quantity / whole
        rest = cost - part
        local_rest = rest if local is cost else local - local_part
        return (
            make(Lot, (quantity, part, local_part, day, transaction)),
            make(Lot, (whole - quantity, rest, local_rest, day, transaction)),
        )


make = tuple.__new__
"""`make(Lot, (...))` is `Lot(...)` at a third of the price, for where it counts."""


def add(lots: list[Lot], lot: Lot, method: CostBasis) -> None:
    """Put `lot` where `method` looks for it: HIFO keeps the dearest last, of equal ones the oldest; the others keep
    the order of acquisition."""
    if method == "hifo":
        insort_left(lots, lot, key=attrgetter("unit_cost"))
    elif not lots or lots[-1].day <= lot.day:
        lots.append(lot)
    else:
        insort_right(lots, lot, key=attrgetter("day"))


def take(lots: list[Lot], quantity: Decimal, method: CostBasis) -> list[Lot]:
    """Remove `quantity` (of the lots' sign) and return it as the lots it came from, in the order they went.

    FIFO takes the first acquired, LIFO the last, HIFO the dearest. There has to be enough.
    """
    at = 0 if method == "fifo" else -1
    is_long = quantity > 0
    taken: list[Lot] = []
    while quantity:
        lot = lots[at]
        held = lot[0]
        if held <= quantity if is_long else held >= quantity:
            taken.append(lot)
            del lots[at]
            quantity -= held
        else:
            part, lots[at] = lot.part(quantity)
            taken.append(part)
            break
    return taken


def exact(price: float) -> Decimal:
    """A float as a ledger takes it."""
    return fitted(Decimal(repr(price)))


def fitted(amount: Decimal) -> Decimal:
    """`amount` with no more decimals than a ledger takes."""
    fine = amount.quantize(FINEST)
    return amount if fine == amount else fine


@lru_cache(4096)
def ratio_of(value: float | Decimal) -> Fraction:
    """The ratio of small whole numbers that `value` stands for (0.3333333333 is 1/3), else `value` itself."""
    given = Fraction(str(value))
    near = given.limit_denominator(_LARGEST_DENOMINATOR)
    return near if abs(near - given) <= given * Fraction(1, 10**8) else given


def scaled(quantity: Decimal, ratio: Fraction) -> Decimal:
    """`quantity` × `ratio`, to twelve decimals, so that sums of quantities stay exact."""
    product = quantity * ratio.numerator
    return product if ratio.denominator == 1 else (product / ratio.denominator).quantize(FINEST)


def split(lots: list[Lot], ratio: Fraction) -> None:
    """Every lot after a split of `ratio` new shares for an old one: the quantity changes, the cost does not."""
    if ratio.denominator == 1:
        times = Decimal(ratio.numerator)
        lots[:] = [make(Lot, (held * times, cost, local, day, row)) for held, cost, local, day, row in lots]
    else:
        lots[:] = [lot._replace(quantity=scaled(lot.quantity, ratio)) for lot in lots]
        lots[:] = [lot for lot in lots if lot.quantity]
