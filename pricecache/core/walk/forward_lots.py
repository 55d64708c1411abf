"""Shares of one instrument walked forwards lot by lot, as the engine does under every cost basis but the average."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from pricecache.core import lots as lot_rules
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import Lot
from pricecache.core.splits import SplitEvent
from pricecache.core.walk.forward_pass import ForwardPass, PassFacts
from pricecache.core.walk.opening_costs import CostParts, OpeningCost


class ForwardLots(ForwardPass):
    """`local` of a lot is its cost in the currency of the pass, NaN where no rate is known; of one that came by an
    opening (its `transaction`) the quantity in units of that row. `cost` is that in the portfolio's currency under
    HIFO, which looks for the dearest; there openings cost what `openings` says."""

    def __init__(self, facts: PassFacts, openings: Mapping[str, OpeningCost]) -> None:
        super().__init__(facts)
        self._method, self._openings = facts.rules.cost_basis, openings
        self.lots: dict[str, list[Lot]] = defaultdict(list)

    def cost(self, account: str) -> CostParts:
        known, units = ZERO, dict[str, Decimal]()
        lots = self.lots.get(account, [])
        for lot in lots:
            if lot.transaction:
                units[lot.transaction] = units.get(lot.transaction, ZERO) + lot.local
            else:
                known += lot.local
        return CostParts(known, units, len(lots))

    def together(self) -> Iterable[Sequence[str]]:
        return [(account,) for account in self.held]

    def _divide(self, event: SplitEvent) -> None:
        if event.ratio == 1:
            return
        for account, held in self.held.items():
            if held and event.concerns(account):
                lots = self.lots[account]
                lot_rules.split(lots, event.ratio)
                self.held[account] = sum((lot.quantity for lot in lots), ZERO)

    def _arrive(self, row: Transaction, quantity: Decimal) -> None:
        self._put(row.account, self._lot(row, quantity))

    def _move(self, account: str, into: str, quantity: Decimal) -> None:
        for lot in self._take(account, quantity):
            self._put(into, lot)

    def _leave(self, account: str, quantity: Decimal) -> None:
        self._take(account, quantity)

    def _go_short(self, row: Transaction, quantity: Decimal) -> None:
        whole = abs(row.quantity or ZERO)
        lot = self._lot(row, whole)
        short = Lot(-lot.quantity, -lot.cost, -lot.local, lot.day, lot.transaction)
        if quantity != whole:
            _, short = short.part(quantity - whole)
        lot_rules.add(self.lots[row.account], short, self._method)
        self.held[row.account] -= quantity

    def _lot(self, row: Transaction, quantity: Decimal) -> Lot:
        if self._is_opening(row):
            name = row.external_id or ""
            return Lot(quantity, self._rank(row, quantity, self._openings.get(name)), quantity, row.day, name)
        amount = self._amount(row, quantity)
        local = self._local(row, amount)
        return Lot(quantity, local if self._method != "hifo" else self._base(row, amount), local, row.day)

    def _rank(self, row: Transaction, quantity: Decimal, cost: OpeningCost | None) -> Decimal:
        if cost is None or self._method != "hifo":
            return quantity
        market, base = self._facts.market, self._facts.rules.currency
        return quantity * cost.price * market.rate(cost.currency, base, row.day)

    def _base(self, row: Transaction, amount: Decimal) -> Decimal:
        return amount * self._facts.market.rate(row.currency or self._own, self._facts.rules.currency, row.day)

    def _put(self, account: str, lot: Lot) -> None:
        held = self.held[account]
        if held < 0:
            covered = min(lot.quantity, -held)
            self._take(account, -covered)
            if covered == lot.quantity:
                return
            _, lot = lot.part(covered)
        lot_rules.add(self.lots[account], lot, self._method)
        self.held[account] += lot.quantity

    def _take(self, account: str, quantity: Decimal) -> list[Lot]:
        self.held[account] -= quantity
        return lot_rules.take(self.lots[account], quantity, self._method)
