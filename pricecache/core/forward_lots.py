"""Shares of one instrument walked forwards as the engine does, lot by lot: what splits round, what openings cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from operator import attrgetter

from pricecache.core import lots as lot_rules
from pricecache.core.currencies import major, unit
from pricecache.core.ledger import ZERO, CostBasis, Transaction
from pricecache.core.lots import Lot, scaled
from pricecache.core.marketdata import MarketData
from pricecache.core.splits import SplitEvent

Fix = Callable[[str, int, Decimal, Decimal], Sequence[Transaction]]
"""Given account, day, what is missing there (negative: too much) right after its splits, and what is held: rows that
put it right."""


class ForwardLots:
    """Lots by account after `run`. `local` of a lot is its cost in `currency`, NaN where no rate is known; of one that
    came by a row of `openings` (its `transaction`) the quantity in units of that row, whose price is to be found.

    For one thread."""

    def __init__(
        self, market: MarketData, base: str, currency: str, openings: frozenset[str], method: CostBasis = "fifo"
    ) -> None:
        self._market, self._base, self._currency, self._method = market, base, currency, method
        self._openings = openings
        self.lots: dict[str, list[Lot]] = defaultdict(list)
        self.held: dict[str, Decimal] = defaultdict(lambda: ZERO)
        self.fixes: list[Transaction] = []

    def run(
        self,
        rows: Sequence[Transaction],
        splits: Sequence[SplitEvent],
        targets: Mapping[str, Mapping[int, Decimal]],
        fix: Fix,
    ) -> None:
        """All of `rows`, in the ledger's order, through `splits`. `targets`: by account and day what has to be there
        right after the splits of the day."""
        of_day: dict[int, list[SplitEvent]] = defaultdict(list)
        for event in splits:
            of_day[event.day].append(event)
        for day, found in _days(rows, of_day):
            if day in of_day:
                added = list(self._split(day, of_day[day], targets, fix))
                if added:
                    self.fixes += added
                    found = sorted([*found, *added], key=attrgetter("order"))
            for row in found:
                self._row(row)

    def _split(
        self, day: int, events: Sequence[SplitEvent], targets: Mapping[str, Mapping[int, Decimal]], fix: Fix
    ) -> Iterator[Transaction]:
        for event in events:
            for account in [one for one, held in self.held.items() if held and event.concerns(one)]:
                self._divide(account, event.ratio)
        for account, wanted in targets.items():
            if day in wanted and (missing := wanted[day] - self.held[account]):
                yield from fix(account, day, missing, self.held[account])

    def _divide(self, account: str, ratio: Fraction) -> None:
        if ratio == 1:
            return
        lots, before = self.lots[account], self.held[account]
        lot_rules.split(lots, ratio)
        self.held[account] = sum((lot.quantity for lot in lots), ZERO)
        if self._method == "average" and (apart := scaled(before, ratio) - self.held[account]):
            lots[-1:] = [lots[-1]._replace(quantity=lots[-1].quantity + apart)] if lots else []
            self.held[account] += apart

    def _row(self, row: Transaction) -> None:
        if row.type in ("buy", "transfer_in", "opening") or (row.type == "adjustment" and (row.quantity or ZERO) > 0):
            self._arrive(row.account, self._lot(row))
        elif row.to_account is not None:
            for lot in self._take(row.account, row.quantity or ZERO):
                self._arrive(row.to_account, lot)
        elif row.type in ("sell", "transfer_out", "adjustment"):
            self._leave(row)

    def _lot(self, row: Transaction) -> Lot:
        quantity = row.quantity or ZERO
        local = quantity if row.type == "opening" else self._cost(row, quantity)
        return Lot(quantity, local, local, row.day, self._tag(row))

    def _tag(self, row: Transaction) -> str:
        return row.external_id if row.external_id is not None and row.external_id in self._openings else ""

    def _cost(self, row: Transaction, quantity: Decimal) -> Decimal:
        cost = quantity * (row.price or ZERO)
        if row.type == "buy":
            cost += row.fees + row.taxes
        elif row.type == "sell":
            cost -= row.fees + row.taxes
        return cost * self._turned(row)

    def _turned(self, row: Transaction) -> Decimal:
        currency = row.currency or self._currency
        if major(currency) == major(self._currency):
            return unit(currency) / unit(self._currency)
        into = self._market.rate(self._currency, self._base, row.day)
        return self._market.rate(currency, self._base, row.day) / into

    def _arrive(self, account: str, lot: Lot) -> None:
        if self.held[account] < 0:
            covered = min(lot.quantity, -self.held[account])
            self._take(account, -covered)
            if covered == lot.quantity:
                return
            _, lot = lot.part(covered)
        lot_rules.add(self.lots[account], lot, self._method)
        self.held[account] += lot.quantity

    def _take(self, account: str, quantity: Decimal) -> list[Lot]:
        self.held[account] -= quantity
        return lot_rules.take(self.lots[account], quantity, self._method)

    def _leave(self, row: Transaction) -> None:
        quantity = abs(row.quantity or ZERO)
        held = max(self.held[row.account], ZERO)
        if held:
            self._take(row.account, min(held, quantity))
        if quantity > held and row.type == "sell":
            short = quantity - held
            tag = self._tag(row)
            local = short if tag else self._cost(row, quantity) * short / quantity
            lot_rules.add(self.lots[row.account], Lot(-short, -local, -local, row.day, tag), self._method)
            self.held[row.account] -= short


def _days(
    rows: Sequence[Transaction], splits: Mapping[int, Sequence[SplitEvent]]
) -> Iterator[tuple[int, list[Transaction]]]:
    of_day: dict[int, list[Transaction]] = {day: [] for day in splits}
    for row in rows:
        of_day.setdefault(row.day, []).append(row)
    for day in sorted(of_day):
        yield day, of_day[day]
