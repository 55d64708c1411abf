"""The exact state of a portfolio at the end of a day, which the ledger pass goes on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import Lot
from pricecache.core.scopes import Key
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
    `positions` with an amount that was unknown at some time.

    What going on from it needs to know of all positions is worked out once and kept beside it."""

    day: int
    positions: tuple[Held, ...] = ()
    pools: tuple[tuple[Instrument, bool, Decimal, Decimal], ...] = ()
    cash: tuple[CashBalance, ...] = ()
    factors: tuple[Factor, ...] = ()
    splits: tuple[LedgerSplit, ...] = ()
    doubts: tuple[int, ...] = ()
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, name: Any, made: Callable[[], Any]) -> Any:
        """What `made` gives, which must depend on this book and `name` alone. Two threads may both make it."""
        found = self._kept.get(name)
        if found is None:
            found = self._kept[name] = made()
        return found

    def keys(self) -> tuple[Key, ...]:
        """Of the positions."""
        found: tuple[Key, ...] = self.once("keys", self._keys)
        return found

    def places(self) -> dict[Key, int]:
        """Where in `positions` each is."""
        found: dict[Key, int] = self.once("places", self._places)
        return found

    def instruments(self) -> frozenset[Instrument]:
        """Of the positions, and those with a split that is not over, held or not."""
        found: frozenset[Instrument] = self.once("instruments", self._instruments)
        return found

    def quantities(self) -> NDArray[np.float64]:
        """In units of the market's prices, shape (positions,)."""
        found: NDArray[np.float64] = self.once("quantities", self._quantities)
        return found

    def _keys(self) -> tuple[Key, ...]:
        return tuple([(one.account, one.instrument) for one in self.positions])

    def _places(self) -> dict[Key, int]:
        return {key: place for place, key in enumerate(self.keys())}

    def _instruments(self) -> frozenset[Instrument]:
        held = [one for _, one in self.keys() if one is not None]
        return frozenset([*held, *(one.instrument for one in self.factors), *(one.instrument for one in self.splits)])

    def _quantities(self) -> NDArray[np.float64]:
        return np.array([float(one.quantity) * one.factor for one in self.positions], np.float64)
