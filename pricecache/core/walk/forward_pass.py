"""Shares of one instrument walked forwards as the engine does: what splits leave, and what is held has cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter

from pricecache.core.currencies import major, unit
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Rules, Transaction
from pricecache.core.marketdata import MarketData
from pricecache.core.splits import SplitEvent
from pricecache.core.walk.opening_costs import CostParts

Fix = Callable[[str, int, Decimal, Decimal], Sequence[Transaction]]
"""Given account, day, what is missing there (negative: too much) right after its splits, and what is held: rows that
put it right."""
_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class PassFacts:
    """What a pass is told: costs are in `currency`; `rules` of the portfolio; `openings`: external ids of rows whose
    price is to be found."""

    instrument: Instrument
    market: MarketData
    rules: Rules
    currency: str
    openings: frozenset[str]


class ForwardPass(ABC):
    """What each account holds (`held`) after `run`, and what that has cost (`cost`). For one thread."""

    def __init__(self, facts: PassFacts) -> None:
        self._facts = facts
        self._own = facts.market.currency_of(facts.instrument)
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
        if not splits and not targets:
            for row in rows:
                self._row(row)
            return
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

    @abstractmethod
    def cost(self, account: str) -> CostParts:
        """Of what `account` holds."""

    @abstractmethod
    def together(self) -> Iterable[Sequence[str]]:
        """Accounts whose costs are told by one basis, each with those it shares one with."""

    @abstractmethod
    def _divide(self, event: SplitEvent) -> None: ...

    @abstractmethod
    def _arrive(self, row: Transaction, quantity: Decimal) -> None: ...

    @abstractmethod
    def _move(self, account: str, into: str, quantity: Decimal) -> None: ...

    @abstractmethod
    def _leave(self, account: str, quantity: Decimal) -> None: ...

    @abstractmethod
    def _go_short(self, row: Transaction, quantity: Decimal) -> None:
        """Owe `quantity` more, a part of what `row` sells."""

    def _split(
        self, day: int, events: Sequence[SplitEvent], targets: Mapping[str, Mapping[int, Decimal]], fix: Fix
    ) -> Iterator[Transaction]:
        for event in events:
            self._divide(event)
        for account, wanted in targets.items():
            if day in wanted and (missing := wanted[day] - self.held[account]):
                yield from fix(account, day, missing, self.held[account])

    def _row(self, row: Transaction) -> None:
        quantity = row.quantity
        if quantity is None:
            return
        if row.comes_in:
            self._arrive(row, quantity)
        elif row.to_account is not None:
            self._move(row.account, row.to_account, quantity)
        elif row.goes_out:
            self._out(row, abs(quantity))

    def _out(self, row: Transaction, quantity: Decimal) -> None:
        held = max(self.held[row.account], ZERO)
        if held:
            self._leave(row.account, min(held, quantity))
        if quantity > held and row.type == "sell":
            self._go_short(row, quantity - held)

    def _is_opening(self, row: Transaction) -> bool:
        return row.external_id is not None and row.external_id in self._facts.openings

    def _amount(self, row: Transaction, quantity: Decimal) -> Decimal:
        """What a row costs, or brings, in its currency."""
        amount = quantity * (row.price or ZERO)
        if self._facts.rules.fees_in_cost and (row.fees or row.taxes):
            if row.type == "buy":
                amount += row.fees + row.taxes
            elif row.type == "sell":
                amount -= row.fees + row.taxes
        return amount

    def _local(self, row: Transaction, amount: Decimal) -> Decimal:
        currency = row.currency or self._own
        return amount if currency == self._facts.currency else amount * self.turned(currency, row.day)

    def turned(self, currency: str, day: int) -> Decimal:
        """What one of `currency` is in the currency of the pass."""
        own, market, base = self._facts.currency, self._facts.market, self._facts.rules.currency
        if major(currency) == major(own):
            return _ONE if currency == own else unit(currency) / unit(own)
        return market.rate(currency, base, day) / market.rate(own, base, day)


def _days(
    rows: Sequence[Transaction], splits: Mapping[int, Sequence[SplitEvent]]
) -> Iterator[tuple[int, list[Transaction]]]:
    of_day: dict[int, list[Transaction]] = {day: [] for day in splits}
    for row in rows:
        of_day.setdefault(row.day, []).append(row)
    for day in sorted(of_day):
        yield day, of_day[day]
