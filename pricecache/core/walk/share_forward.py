"""Rows of shares walked forwards as the engine will: what splits round is put right, and openings get their price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import ratio_of
from pricecache.core.splits import LedgerSplit, SplitEvent, events
from pricecache.core.walk.backward import Walked
from pricecache.core.walk.cost_differences import told_of
from pricecache.core.walk.forward_lots import ForwardLots
from pricecache.core.walk.forward_pass import ForwardPass, PassFacts
from pricecache.core.walk.forward_pools import ForwardPools
from pricecache.core.walk.opening_costs import Basis, CostParts, Equation, OpeningCost, solve, worth_on
from pricecache.core.walk.pairs import SplitRows
from pricecache.core.walk.row import Key
from pricecache.core.walk.share_draft import Given, SharesWalked
from pricecache.core.walk.split_fixes import SplitFixes

_MOST_PASSES = 16
"""Under HIFO, where the price of an opening says which lots go: each pass settles at least one more lot's place."""

_COSTS = {
    "broker": "held before the first row; at the cost that the broker's cost basis of today leaves for it",
    "close": "held before the first row; at the close of the day",
    "broker_price": "held before the first row; at a price of the broker's",
    None: "held before the first row; nobody knows at what price",
}


@dataclass(frozen=True, slots=True)
class _Task:
    """One instrument: `openings`: by external id; `sizes` of them; `bases` and `targets` by account; `worth`: of one on
    the opening day."""

    instrument: Instrument
    rows: Sequence[Transaction]
    splits: Sequence[SplitEvent]
    targets: Mapping[str, Mapping[int, Decimal]]
    openings: Mapping[str, str]
    sizes: Mapping[str, Decimal]
    bases: Mapping[str, Basis]
    worth: OpeningCost

    @property
    def currencies(self) -> list[str]:
        return list(dict.fromkeys(basis.currency for basis in self.bases.values()))


class ShareForward:
    """Goes through the rows of `found` and adds to it. For one thread."""

    def __init__(self, found: SharesWalked) -> None:
        self._found, self._given = found, found.given
        self._bases = _bases(found.given)

    def run(self) -> None:
        """Leaves a price in each opening."""
        walks: dict[Instrument, dict[str, Walked]] = defaultdict(dict)
        for (account, instrument), walked in self._found.walks.items():
            walks[instrument][account] = walked
        told = {instrument for (_, instrument), basis in self._bases.items() if basis is not None}
        wanted = {
            instrument
            for instrument, by_account in walks.items()
            if instrument in told
            or instrument in self._found.openings
            or any(one.targets for one in by_account.values())
        }
        rows: dict[Instrument, list[Transaction]] = defaultdict(list)
        for row in sorted(self._found.rows, key=attrgetter("order")):
            if row.instrument in wanted:
                rows[row.instrument].append(row)
        for instrument in sorted(wanted):
            self._forward(self._task(instrument, rows[instrument], walks[instrument]))
        for (account, instrument, day), said in self._found.cash_in_lieu.items():
            self._pay(account, instrument, day, said)
        self._price()

    def _task(self, instrument: Instrument, rows: Sequence[Transaction], walks: Mapping[str, Walked]) -> _Task:
        given, found = self._given, self._found
        openings = found.openings.get(instrument, {})
        stated = [
            LedgerSplit(row.day, instrument, row.account, ratio_of(row.ratio))
            for row in rows
            if row.type == "split" and row.ratio is not None
        ]
        return _Task(
            instrument,
            rows,
            events(stated, [instrument], given.market, given.opening_day, given.data.day),
            {account: walked.targets for account, walked in walks.items() if walked.targets},
            openings,
            {name: abs(walks[account].opening) for name, account in openings.items()},
            {account: basis for account in walks if (basis := self._bases.get((account, instrument))) is not None},
            worth_on(given.prices, instrument, given.opening_day),
        )

    def _forward(self, task: _Task) -> None:
        costs = dict.fromkeys(task.openings, task.worth)
        currencies = task.currencies or [self._given.market.currency_of(task.instrument)]
        is_hifo = self._given.rules.cost_basis == "hifo" and bool(task.openings and task.bases)
        fixes = SplitFixes(self._found, task.instrument, self._given.names)
        passes: list[ForwardPass] = []
        for currency in currencies:
            if is_hifo:
                costs = self._ranked(task, currency, costs)
            else:
                passes.append(self._pass(task, currency, costs, fixes if not passes else fixes.trial()))
                costs = self._solved(task, currency, passes[-1], costs)
        if is_hifo:
            passes = [
                self._pass(task, currency, costs, fixes.trial() if number else fixes)
                for number, currency in enumerate(currencies)
            ]
        for row in passes[0].fixes:
            self._found.add(row)
        fixes.keep()
        self._settle(task, costs)
        for currency, forward in zip(currencies, passes, strict=True):
            self._compare(task, currency, forward, costs)

    def _ranked(self, task: _Task, currency: str, costs: Mapping[str, OpeningCost]) -> dict[str, OpeningCost]:
        """Today's cost grows with the price of an opening, ever less as more of it goes: so what the equation of one
        pass gives comes nearer from below until no lot changes its place."""
        known = {name: one for name, one in costs.items() if one.source == "broker"}
        costs = {name: OpeningCost(ZERO, currency, "broker") for name in costs} | known
        for _ in range(_MOST_PASSES):
            forward = self._pass(
                task, currency, costs, SplitFixes(self._found, task.instrument, self._given.names).trial()
            )
            before, costs = costs, self._solved(task, currency, forward, {**dict.fromkeys(costs, task.worth), **known})
            if costs == before:
                break
        return costs

    def _pass(self, task: _Task, currency: str, costs: Mapping[str, OpeningCost], fixes: SplitFixes) -> ForwardPass:
        rules = self._given.rules
        facts = PassFacts(task.instrument, self._given.market, rules, currency, frozenset(task.openings))
        forward = ForwardPools(facts) if rules.cost_basis == "average" else ForwardLots(facts, costs)
        forward.run(task.rows, task.splits, task.targets, fixes)
        return forward

    def _solved(
        self, task: _Task, currency: str, forward: ForwardPass, costs: Mapping[str, OpeningCost]
    ) -> dict[str, OpeningCost]:
        """`costs` with those that the bases in `currency` tell, where no basis told them yet."""
        settled = {name: self._turned(forward, one) for name, one in costs.items() if one.source == "broker"}
        found = solve(task.sizes, list(_equations(task, currency, forward)), settled, self._turned(forward, task.worth))
        return {**costs, **{name: OpeningCost(price, currency, "broker") for name, price in found.items()}}

    def _turned(self, forward: ForwardPass, cost: OpeningCost) -> Decimal:
        return cost.price * forward.turned(cost.currency, self._given.opening_day)

    def _settle(self, task: _Task, costs: Mapping[str, OpeningCost]) -> None:
        for name, cost in costs.items():
            key = task.openings[name], task.instrument
            self._found.costs[key] = cost
            if cost.source is None:
                day = self._given.opening_day
                self._found.tell("no_price", key, day, "Nobody knows what it was worth; it counts as 0.")

    def _compare(self, task: _Task, currency: str, forward: ForwardPass, costs: Mapping[str, OpeningCost]) -> None:
        prices = {name: self._turned(forward, one) for name, one in costs.items()}
        for account, basis in task.bases.items():
            if basis.currency == currency:
                parts, held = forward.cost(account), forward.held[account]
                told = told_of(parts, prices, _signed(basis, held), currency)
                if told is not None:
                    amount, detail = told
                    detail += self._why(parts, costs, len(task.bases))
                    key, day = (account, task.instrument), self._given.data.day
                    self._found.tell("cost_differs", key, day, detail, amount=amount, currency=currency)

    def _why(self, parts: CostParts, costs: Mapping[str, OpeningCost], accounts: int) -> str:
        if any(costs[name].source != "broker" for name in parts.units):
            return " No price of what was held before the first row leads there; it counts as what it was worth."
        if accounts > 1 and self._given.rules.cost_basis == "average":
            return " Average cost is of all accounts together."
        return ""

    def _pay(self, account: str, instrument: Instrument, day: int, said: SplitRows) -> None:
        name = self._given.names.name("f", self._found.said[said.sources[0]].row.id)
        self._found.add(
            Transaction(
                day, "dividend" if said.cash > 0 else "fee", instrument, amount=abs(said.cash),
                currency=said.currency, account=account, external_id=name, note="money of a split",
            ),
            said.sources[0],
        )  # fmt: skip

    def _price(self) -> None:
        """Put the price into each opening: what it was worth, or what it has to have cost."""
        for place in self._found.opened:
            row = self._found.rows[place]
            assert row.instrument is not None
            price, currency, source = self._found.costs[row.account, row.instrument]
            self._found.rows[place] = Transaction(
                row.day, row.type, row.instrument, row.quantity, price, currency=currency, account=row.account,
                external_id=row.external_id, note=_COSTS[source],
            )  # fmt: skip


def _equations(task: _Task, currency: str, forward: ForwardPass) -> Iterable[Equation]:
    for accounts in forward.together():
        told = [one for one in accounts if one in task.bases and task.bases[one].currency == currency]
        if told:
            parts = [forward.cost(one) for one in told]
            total = sum((_signed(task.bases[one], forward.held[one]) for one in told), ZERO)
            yield Equation(_sum(parts), total)


def _sum(parts: Sequence[CostParts]) -> CostParts:
    if len(parts) == 1:
        return parts[0]
    units: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for one in parts:
        for name, amount in one.units.items():
            units[name] += amount
    return CostParts(sum((one.known for one in parts), ZERO), units, max(one.acquired for one in parts))


def _signed(basis: Basis, held: Decimal) -> Decimal:
    return -abs(basis.cost) if held < 0 else basis.cost


def _bases(given: Given) -> dict[Key, Basis | None]:
    """None: the broker does not say all of it, or in several currencies."""
    found: dict[Key, Basis | None] = {}
    for one in given.data.holdings:
        key = given.accounts[one.account], given.instruments[one.security]
        basis = Basis(one.cost_basis, one.currency) if one.cost_basis is not None else None
        found[key] = _added(found[key], basis) if key in found else basis
    return found


def _added(one: Basis | None, other: Basis | None) -> Basis | None:
    if one is None or other is None or one.currency != other.currency:
        return None
    return Basis(one.cost + other.cost, one.currency)
