"""Rows of shares walked forwards as the engine will: what splits round is put right, and openings get their price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from operator import attrgetter

from pricecache.core.backward import Correction, Walked
from pricecache.core.broker_pairs import Key, SplitRows
from pricecache.core.broker_prices import fitted
from pricecache.core.forward_lots import ForwardLots
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction
from pricecache.core.lots import ratio_of
from pricecache.core.opening_costs import Basis, solve, worth_on
from pricecache.core.share_draft import Given, SharesWalked
from pricecache.core.splits import LedgerSplit, events

_ONE = Decimal(1)
_LEAST_PAID = Decimal("0.000001")
"""Nobody pays for less of a share: it is what lots are rounded to."""

_COSTS = {
    "broker": "held before the first row; at the cost that the broker's cost basis of today leaves for it",
    "close": "held before the first row; at the close of the day",
    "broker_price": "held before the first row; at a price of the broker's",
    None: "held before the first row; nobody knows at what price",
}


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
        wanted = {
            instrument
            for instrument, by_account in walks.items()
            if instrument in self._found.openings or any(one.targets for one in by_account.values())
        }
        rows: dict[Instrument, list[Transaction]] = defaultdict(list)
        for row in sorted(self._found.rows, key=attrgetter("order")):
            if row.instrument in wanted:
                rows[row.instrument].append(row)
        for instrument in sorted(wanted):
            self._forward(instrument, rows[instrument], walks[instrument])
        for (account, instrument, day), said in self._found.cash_in_lieu.items():
            self._pay(account, instrument, day, said)
        self._price()

    def _forward(self, instrument: Instrument, rows: Sequence[Transaction], walks: Mapping[str, Walked]) -> None:
        given = self._given
        openings = self._found.openings.get(instrument, {})
        bases = {account: basis for account in walks if (basis := self._bases.get((account, instrument))) is not None}
        currency = next((basis.currency for basis in bases.values()), given.market.currency_of(instrument))
        stated = [
            LedgerSplit(row.day, instrument, row.account, ratio_of(row.ratio))
            for row in rows
            if row.type == "split" and row.ratio is not None
        ]
        splits = events(stated, [instrument], given.market, given.opening_day, given.data.day)
        forward = ForwardLots(given.market, given.base, currency, frozenset(openings), given.cost_basis)
        targets = {account: walked.targets for account, walked in walks.items() if walked.targets}
        forward.run(rows, splits, targets, lambda *facts: self._fix(instrument, *facts))
        for row in forward.fixes:
            self._found.add(row)
        self._cost(instrument, openings, forward, bases, currency)

    def _fix(
        self, instrument: Instrument, account: str, day: int, missing: Decimal, held: Decimal
    ) -> Sequence[Transaction]:
        key, code = (account, instrument), "fractional_shares" if abs(missing) < _ONE else "balance_differs"
        is_short = self._found.walks[key].end_of(day) < 0
        paid = self._found.cash_in_lieu.get((account, instrument, day))
        if missing <= -_LEAST_PAID and paid is not None and paid.cash > 0:
            del self._found.cash_in_lieu[account, instrument, day]
            return [self._paid(key, day, -missing, paid)]
        row = self._found.correction(key, Correction(day, missing, code))
        if missing > 0 or not is_short:
            return [row]
        return [replace(row, type="sell", quantity=-missing, price=ZERO)]

    def _paid(self, key: Key, day: int, quantity: Decimal, paid: SplitRows) -> Transaction:
        price = fitted(paid.cash / quantity)
        name = self._given.names.name("f", self._found.said[paid.sources[0]].row.id)
        return Transaction(
            day, "sell", key[1], quantity, price, currency=paid.currency, account=key[0], external_id=name,
            note="the fraction that a split left",
        )  # fmt: skip

    def _pay(self, account: str, instrument: Instrument, day: int, said: SplitRows) -> None:
        name = self._given.names.name("f", self._found.said[said.sources[0]].row.id)
        self._found.add(
            Transaction(
                day, "dividend" if said.cash > 0 else "fee", instrument, amount=abs(said.cash),
                currency=said.currency, account=account, external_id=name, note="money of a split",
            ),
            said.sources[0],
        )  # fmt: skip

    def _cost(
        self,
        instrument: Instrument,
        openings: Mapping[str, str],
        forward: ForwardLots,
        bases: Mapping[str, Basis],
        currency: str,
    ) -> None:
        same = {account: basis for account, basis in bases.items() if basis.currency == currency}
        worth = worth_on(self._given.prices, instrument, self._given.opening_day)
        walks = self._found.walks
        sizes = {name: abs(walks[account, instrument].opening) for name, account in openings.items()}
        for name, cost in solve(sizes, forward.lots, same, worth).items():
            key = openings[name], instrument
            self._found.costs[key] = cost
            if cost.source is None:
                self._found.tell(
                    "no_price", key, self._given.opening_day, "Nobody knows what it was worth; it counts as 0."
                )

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
