"""What the exact pass writes down: events of a dozen kinds, quantities, balances; and a position as it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import Lot
from pricecache.core.marketdata import NEVER

(BOUGHT, CARRIED, PROCEEDS, ORIGINAL, DIVIDEND, FEE, FEE_OFF, INTEREST, SHORT, COVERED, NETTED,
 CASH_IN, CASH_OUT, CASH_MOVED_IN, CASH_MOVED_OUT, UNVALUED_IN, UNVALUED_OUT) = range(17)  # fmt: skip
"""Kinds of events. What each does to cost, totals and flows: `valuation.EFFECTS`."""

DAY_BITS, POSITION_BITS = 22, 20
DAY_OFFSET = 719163
"""A code is kind, position, day: the day as its ordinal, so that it is never negative."""
KIND_SHIFT = DAY_BITS + POSITION_BITS

_SAME = Fraction(1)


@dataclass(slots=True, eq=False)
class Position:
    """One instrument in one account while the pass goes on; `instrument` None is what concerns the account alone.

    `cost`, `local`: only under average cost, the account's share of the pool. `shares`: the quantity as `whole` gives
    it. `plain_from`: the day from which there is nothing special about it.
    """

    index: int
    account: str
    instrument: Instrument | None
    currency: str
    quantity: Decimal = ZERO
    lots: list[Lot] = field(default_factory=list)
    cost: Decimal = ZERO
    local: Decimal = ZERO
    factor: float = 1.0
    units: Fraction = _SAME
    priced_from: int = 0
    plain_from: int = NEVER
    shares: float = 0.0
    code: int = 0

    def __post_init__(self) -> None:
        self.code = (self.index << DAY_BITS) + DAY_OFFSET


@dataclass(slots=True, eq=False)
class Steps:
    """What changed, in order. Parallel lists: `codes` (kind, position, day) with `amounts` in base currency, exact, and
    as `floats`; `quantity_codes` (position, day) with the `quantities` held from then on, in units of the market's
    prices;
    `moved`: (position, day, signed quantity, whether across the portfolio's border) of shares that came or went
    without money; `cash`: (account and currency by number, day, balance from then on); `costs`: (position, day, cost
    from then on as far as it is known, whether some is unknown) of positions that have no price yet or an unknown cost.
    """

    codes: list[int] = field(default_factory=list)
    amounts: list[Decimal] = field(default_factory=list)
    floats: list[float] = field(default_factory=list)
    quantity_codes: list[int] = field(default_factory=list)
    quantities: list[float] = field(default_factory=list)
    moved: list[tuple[int, int, float, bool]] = field(default_factory=list)
    cash: list[tuple[int, int, Decimal]] = field(default_factory=list)
    costs: list[tuple[int, int, float, bool]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The same as arrays: `codes`, `quantity_codes` int64; `amounts`, `quantities` float64, unknown amounts NaN."""

    codes: NDArray[np.int64]
    amounts: NDArray[np.float64]
    quantity_codes: NDArray[np.int64]
    quantities: NDArray[np.float64]

    @classmethod
    def of(cls, steps: Steps) -> Columns:
        return cls(
            np.array(steps.codes, np.int64),
            np.array(steps.floats, np.float64),
            np.array(steps.quantity_codes, np.int64),
            np.array(steps.quantities, np.float64),
        )
