"""The exact state of a portfolio at the end of a day, which the ledger pass goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import Lot
from pricecache.core.splits import LedgerSplit


@dataclass(frozen=True, slots=True)
class Held:
    """One instrument in one account, closed positions included; `instrument` None is what concerns the account alone.

    Totals are cumulative, in base currency. `cost` and `local` (in the instrument's currency) are set under average
    cost only; else they are those of the `lots`. `factor`: what the valuation multiplies the quantity by.
    """

    account: str
    instrument: Instrument | None
    quantity: Decimal
    lots: tuple[Lot, ...]
    cost: Decimal
    local: Decimal
    factor: float
    proceeds: Decimal
    original: Decimal
    dividends: Decimal
    fees: Decimal
    interest: Decimal

    @property
    def basis(self) -> tuple[Decimal, Decimal]:
        """Cost of what is held, in base currency and in the instrument's."""
        if not self.lots:
            return self.cost, self.local
        return sum((lot.cost for lot in self.lots), ZERO), sum((lot.local for lot in self.lots), ZERO)

    @property
    def known_cost(self) -> tuple[float, bool]:
        """In base currency as far as it is known, and whether some is not."""
        costs = [lot.cost for lot in self.lots] or [self.cost]
        known = [cost for cost in costs if not cost.is_nan()]
        return float(sum(known, ZERO)), len(known) < len(costs)


@dataclass(frozen=True, slots=True)
class CashBalance:
    account: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Factor:
    """Quantities of `instrument` (in `account`, or in all but `others`) are valued × `value` until a split is over."""

    instrument: Instrument
    account: str | None
    others: frozenset[str]
    value: Fraction

    def concerns(self, account: str) -> bool:
        return account == self.account if self.account is not None else account not in self.others


@dataclass(frozen=True, slots=True)
class Book:
    """Everything at the end of `day`. `pools`: (instrument, long or short, cost, local cost) under average cost.
    `splits`: those the ledger stated lately, which may yet replace one of the market's. `doubts`: by place those of
    `positions` with an amount that was unknown at some time."""

    day: int
    positions: tuple[Held, ...] = ()
    pools: tuple[tuple[Instrument, bool, Decimal, Decimal], ...] = ()
    cash: tuple[CashBalance, ...] = ()
    factors: tuple[Factor, ...] = ()
    splits: tuple[LedgerSplit, ...] = ()
    doubts: tuple[int, ...] = ()
