"""Two years of history from what a broker says today: its rows, walked backwards from its holdings, as a ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from operator import attrgetter

from pricecache.core.broker import BrokerData, BrokerTransaction
from pricecache.core.broker_carried import carried
from pricecache.core.broker_pairs import pairs_of
from pricecache.core.broker_prices import BrokerPrices, fitted
from pricecache.core.broker_row import BrokerRow, Key
from pricecache.core.broker_rows import Names, Reader
from pricecache.core.findings import Finding
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import EXACT, CostBasis, Transaction
from pricecache.core.marketdata import MarketData
from pricecache.core.money_walk import MoneyWalk
from pricecache.core.share_walk import Given, SharesWalked, ShareWalk

_MOST_ATTEMPTS = 8
_CONTRADICTIONS = frozenset({"quantity_unexplained", "balance_differs", "expiry_missing"})


@dataclass(frozen=True, slots=True)
class WalkedPosition:
    """One instrument in one account of the ledger. `quantity`: today, as the broker says. `opening`: what was held the
    day before `first_day` of the data, at `opening_price` a unit in `currency`, which is of `opening_source`: `broker`
    (its cost basis), `close`, `broker_price` or None. `rows`: how many rows of the broker's moved it; `first_day`: of
    them, and of the opening. `corrections`: how many adjustments of it there are."""

    account: str
    instrument: Instrument
    securities: tuple[str, ...]
    quantity: Decimal
    opening: Decimal
    opening_price: Decimal | None
    currency: str | None
    opening_source: str | None
    rows: int
    corrections: int
    first_day: int | None


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """`transactions`: in the ledger's order, each with an external id. `findings`: in order of day; each `adjustment`
    among the transactions is explained by the one with its external id. `needs_short`: the ledger is right only with
    `allow_short`."""

    transactions: tuple[Transaction, ...]
    findings: tuple[Finding, ...]
    positions: tuple[WalkedPosition, ...]
    needs_short: bool


def reconstruct(
    data: BrokerData,
    instruments: Mapping[str, Instrument],
    accounts: Mapping[str, str],
    market: MarketData,
    prefix: str,
    *,
    base: str,
    cost_basis: CostBasis = "fifo",
) -> Reconstruction:
    """The ledger that leads to what `data` says is held, exactly, and to its money to the cent.

    `instruments`: by broker's security, for every one that is not money. `accounts`: the ledger's account by the
    broker's. `market`: closes as traded, splits, rates to `base`. `prefix`: external ids begin with it and `/`, and are
    the same in every run. `cost_basis`: of the portfolio; costs of openings are right under `fifo`. Pure.
    """
    with localcontext(EXACT):
        return _Runs(data, instruments, accounts, market, prefix, base, cost_basis).run()


@dataclass(slots=True)
class _Run:
    shares: SharesWalked
    money_rows: list[Transaction]
    findings: list[Finding]
    left_out: set[int]
    moved_by_money: set[int]

    @property
    def contradictions(self) -> int:
        return sum(one.code in _CONTRADICTIONS and one.instrument is not None for one in self.findings)


class _Runs:
    def __init__(
        self,
        data: BrokerData,
        instruments: Mapping[str, Instrument],
        accounts: Mapping[str, str],
        market: MarketData,
        prefix: str,
        base: str,
        cost_basis: CostBasis,
    ) -> None:
        self.data, self.instruments, self.accounts = carried(data, instruments, market), instruments, accounts
        self.market, self.prefix, self.base, self.cost_basis = market, prefix, base, cost_basis
        self.prices = BrokerPrices(self.data, instruments, market, base)
        self.outside: list[Finding] = []
        self.rows = self._rows()
        self.twins = self._twins()

    def run(self) -> Reconstruction:
        """A row with shares that only the money shows to be there twice is left out for a trial: it is kept when the
        shares contradict then."""
        left_out: frozenset[int] = frozenset()
        kept: frozenset[int] = frozenset()
        run = self._run(left_out, kept)
        for attempt in range(_MOST_ATTEMPTS):
            if not run.moved_by_money:
                break
            tried = frozenset(run.moved_by_money if attempt == 0 else {min(run.moved_by_money)})
            other = self._run(left_out | tried, kept)
            if other.contradictions <= run.contradictions:
                left_out, run = left_out | tried, other
            elif len(tried) == 1:
                kept |= tried
                run = self._run(left_out, kept)
        if run.moved_by_money:
            run = self._run(left_out, self.twins)
        return self._told(run)

    # what is given

    def _rows(self) -> list[BrokerRow]:
        found = []
        for row in sorted(self.data.transactions, key=attrgetter("day", "place")):
            instrument = self.instruments.get(row.security) if row.security is not None else None
            one = BrokerRow(row, self.accounts[row.account], instrument, fitted(row.quantity), fitted(row.cash))
            if self.data.first_day <= row.day <= self.data.day:
                found.append(one)
            else:
                self.outside.append(self._outside(one))
        return found

    def _outside(self, one: BrokerRow) -> Finding:
        row = one.row
        if row.day > self.data.day:
            code, detail = "row_after_holdings", "Of a day after the holdings; it counts once these are of its day."
        else:
            code, detail = "row_before_first_day", "Of a day before all rows are known; the opening has it."
        return Finding(code, row.day, one.account, detail, one.instrument, rows=(row.id,))

    def _twins(self) -> frozenset[int]:
        seen: dict[tuple[object, ...], int] = {}
        twins = []
        for source, one in enumerate(self.rows):
            said = _said(one.row)
            if said in seen:
                twins.append(source)
            seen[said] = source
        return frozenset(twins)

    # one run

    def _run(self, left_out: frozenset[int], kept: frozenset[int]) -> _Run:
        names = Names(self.prefix)
        pairs = pairs_of(self.rows, self.prices, left_out)
        twins = frozenset(one for one in self.twins - left_out - kept if pairs.is_alone(one))
        reader = Reader(self.data.securities, pairs, self.prices, names)
        reader.read(self.rows, left_out)
        given = Given(
            self.data, self.instruments, self.accounts, self.market, self.prices, names, self.base, self.cost_basis
        )
        shares = ShareWalk(given, self.rows, pairs, twins).run(reader.rows, reader.sources)
        twins -= shares.left_out
        borrowers = frozenset(account for (account, _), walked in shares.walks.items() if walked.is_short)
        money = MoneyWalk(self.data, self.accounts, names, twins=twins, borrowers=borrowers, delays=shares.delays)
        walked = money.run(shares.rows, shares.sources)
        moving = {source for row, source in zip(shares.rows, shares.sources, strict=True) if row.quantity is not None}
        found = [*self.outside, *reader.findings, *shares.findings, *walked.findings]
        gone = left_out | shares.left_out | walked.left_out
        return _Run(shares, walked.rows, found, set(gone), walked.left_out & moving)

    # the outcome

    def _told(self, run: _Run) -> Reconstruction:
        rows = [
            row for row, source in zip(run.shares.rows, run.shares.sources, strict=True) if source not in run.left_out
        ]
        rows = sorted([*rows, *run.money_rows], key=attrgetter("order"))
        named = {row.external_id for row in rows}
        findings = [one for one in run.findings if one.external_id is None or one.external_id in named]
        findings += [self._twin(source) for source in sorted(run.left_out)]
        return Reconstruction(
            tuple(rows),
            tuple(sorted(findings, key=attrgetter("day"))),
            tuple(self._positions(run)),
            any(walked.is_short for walked in run.shares.walks.values()),
        )

    def _twin(self, source: int) -> Finding:
        one = self.rows[source]
        row = one.row
        detail = "There is another row that says the same, and the balances have room for one."
        return Finding(
            "duplicate_row", row.day, one.account, detail, one.instrument, one.quantity or None, one.cash or None,
            row.currency, (row.id,),
        )  # fmt: skip

    def _positions(self, run: _Run) -> list[WalkedPosition]:
        ids: dict[Key, set[str]] = defaultdict(set)
        days: dict[Key, list[int]] = defaultdict(list)
        for one in self.data.holdings:
            ids[self.accounts[one.account], self.instruments[one.security]].add(one.security)
        for source, row in enumerate(self.rows):
            if row.instrument is not None and source not in run.left_out:
                ids[row.account, row.instrument].add(row.row.security or "")
                days[row.account, row.instrument].append(row.row.day)
        return [self._position(key, run, ids[key], days[key]) for key in run.shares.walks]

    def _position(self, key: Key, run: _Run, ids: set[str], days: Sequence[int]) -> WalkedPosition:
        walked, cost = run.shares.walks[key], run.shares.costs.get(key)
        opened = [self.data.first_day - 1] if walked.opening else []
        return WalkedPosition(
            *key,
            tuple(sorted(ids)),
            walked.quantity,
            walked.opening,
            cost.price if cost is not None else None,
            cost.currency if cost is not None else None,
            cost.source if cost is not None else None,
            len(days),
            len(walked.corrections),
            min([*opened, *days], default=None),
        )


def _said(row: BrokerTransaction) -> tuple[object, ...]:
    """Everything of a row but its id: two fills of one order may say the same too."""
    return row.account, row.security, row.day, row.action, row.quantity, row.cash, row.price, row.currency, row.note
