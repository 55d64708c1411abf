"""Shares of one instrument walked forwards under average cost: pooled over accounts, shared out by quantity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import scaled
from pricecache.core.splits import SplitEvent
from pricecache.core.walk.forward_pass import ForwardPass, PassFacts
from pricecache.core.walk.opening_costs import CostParts


class _Cost(NamedTuple):
    """In the currency of the pass: `known`, and of each opening in `units` so many times the price of one."""

    known: Decimal
    units: dict[str, Decimal]

    def plus(self, other: _Cost) -> _Cost:
        units = self.units
        if other.units:
            units = {**units, **{name: one + units.get(name, ZERO) for name, one in other.units.items()}}
        return _Cost(self.known + other.known, units)

    def times(self, share: Decimal) -> _Cost:
        return _Cost(self.known * share, {name: one * share for name, one in self.units.items()})


_NOTHING = _Cost(ZERO, {})


class ForwardPools(ForwardPass):
    """What is owed is a pool of its own. `acquired`: how many rows the pool of what is held, and that of what is owed,
    came by since there was none of it."""

    def __init__(self, facts: PassFacts) -> None:
        super().__init__(facts)
        self._costs: dict[str, _Cost] = defaultdict(lambda: _NOTHING)
        self._acquired = {True: 0, False: 0}
        self._restated: list[SplitEvent] = []

    def cost(self, account: str) -> CostParts:
        held = self.held.get(account, ZERO)
        if not held:
            return CostParts(ZERO, {}, 0)
        cost = self._costs[account]
        return CostParts(cost.known, cost.units, self._acquired[held > 0])

    def together(self) -> Iterable[Sequence[str]]:
        return [members for is_long in (True, False) if (members := self._members(is_long))]

    def _members(self, is_long: bool) -> list[str]:
        return [account for account, held in self.held.items() if held and (held > 0) == is_long]

    def _divide(self, event: SplitEvent) -> None:
        if event.factor != 1:
            self._restated.append(event)
        if event.ratio != 1:
            for account, held in self.held.items():
                if held and event.concerns(account):
                    self.held[account] = scaled(held, event.ratio)
        for is_long in (True, False):
            self._share_out(is_long)

    def _arrive(self, row: Transaction, quantity: Decimal) -> None:
        self._put(row.account, quantity, self._cost(row, quantity))

    def _move(self, account: str, into: str, quantity: Decimal) -> None:
        self._put(into, quantity, self._take(account, quantity))

    def _leave(self, account: str, quantity: Decimal) -> None:
        self._take(account, quantity)

    def _go_short(self, row: Transaction, quantity: Decimal) -> None:
        whole = abs(row.quantity or ZERO)
        self._open(row.account, -quantity, self._cost(row, whole).times(-quantity / whole))

    def _cost(self, row: Transaction, quantity: Decimal) -> _Cost:
        if self._is_opening(row):
            return _Cost(ZERO, {row.external_id or "": quantity})
        return _Cost(self._local(row, self._amount(row, quantity)), {})

    def _put(self, account: str, quantity: Decimal, cost: _Cost) -> None:
        held = self.held[account]
        if held < 0:
            covered = min(quantity, -held)
            self._take(account, -covered)
            if covered == quantity:
                return
            quantity, cost = quantity - covered, cost.times((quantity - covered) / quantity)
        self._open(account, quantity, cost)

    def _open(self, account: str, quantity: Decimal, cost: _Cost) -> None:
        self.held[account] += quantity
        self._costs[account] = self._costs[account].plus(cost)
        self._acquired[quantity > 0] += 1
        self._share_out(quantity > 0)

    def _take(self, account: str, quantity: Decimal) -> _Cost:
        held, cost = self.held[account], self._costs[account]
        self.held[account] = held - quantity
        if quantity != held:
            taken = cost.times(quantity / held)
            self._costs[account] = cost.plus(taken.times(Decimal(-1)))
            return taken
        self._costs[account] = _NOTHING
        if not self._members(held > 0):
            self._acquired[held > 0] = 0
        return cost

    def _share_out(self, is_long: bool) -> None:
        members = self._members(is_long)
        if len(members) <= 1:
            return
        weights = [_weight(self.held[one], self._units(one)) for one in members]
        whole, pool = sum(weights, ZERO), _NOTHING
        for one in members:
            pool = pool.plus(self._costs[one])
        for one, weight in zip(members, weights, strict=True):
            self._costs[one] = pool.times(weight / whole)

    def _units(self, account: str) -> Fraction:
        """What a quantity is to be multiplied by to be in units of the market's prices."""
        product = Fraction(1)
        for event in self._restated:
            if event.concerns(account):
                product *= event.factor
        return product


def _weight(held: Decimal, units: Fraction) -> Decimal:
    return held * units.numerator / units.denominator
