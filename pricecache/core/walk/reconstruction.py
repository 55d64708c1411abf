"""Two years of history from what a broker says today: its rows, walked backwards from its holdings, as a ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import pairwise
from operator import attrgetter

from pricecache.core.bars import day_of
from pricecache.core.broker.carried import carried
from pricecache.core.broker.data import BrokerData, BrokerTransaction
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import EXACT, Rules, Transaction
from pricecache.core.lots import fitted
from pricecache.core.marketdata import MarketData
from pricecache.core.walk.entries import Names
from pricecache.core.walk.findings import Finding
from pricecache.core.walk.money_walk import MoneyWalk
from pricecache.core.walk.pairs import pairs_of
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.restated import in_units_of_their_day, restated_rows, told
from pricecache.core.walk.row import BrokerRow, Key
from pricecache.core.walk.rows import entries_of
from pricecache.core.walk.share_draft import Given, SharesWalked
from pricecache.core.walk.shares import shares_of

_MOST_ATTEMPTS = 8
CONTRADICTIONS = frozenset({"quantity_unexplained", "balance_differs", "expiry_missing"})
"""Codes of findings that say that rows and balances do not go together."""


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
    rules: Rules,
) -> Reconstruction:
    """The ledger that leads to what `data` says is held, exactly, and to its money to the cent.

    `instruments`: by broker's security, for every one that is not money. `accounts`: the ledger's account by the
    broker's. `market`: closes as traded, splits, rates to the base currency. `prefix`: external ids begin with it and
    `/`, and are the same in every run. `rules`: of the portfolio. Pure.
    """
    with localcontext(EXACT):
        given = _Given(instruments, accounts, market, prefix, rules)
        return _in_units_of_their_day(carried(data, instruments, market), given).best()


@dataclass(frozen=True, slots=True)
class _Given:
    instruments: Mapping[str, Instrument]
    accounts: Mapping[str, str]
    market: MarketData
    prefix: str
    rules: Rules


def _in_units_of_their_day(data: BrokerData, given: _Given) -> _Attempts:
    """Rows that look as if they were told in later shares are put back, unless their walk is the worse for it: a price
    may fit by accident."""
    found = restated_rows(data, given.instruments, given.accounts, given.market)
    if found:
        as_told = _Attempts(data, given).first().contradictions
        put_back = _Attempts(in_units_of_their_day(data, found), given).first().contradictions
        found = [one for one in found if put_back[one.key] <= as_told[one.key]]
    return _Attempts(in_units_of_their_day(data, found), given, [*told(data, found), *_gaps(data, given.accounts)])


def _gaps(data: BrokerData, accounts: Mapping[str, str]) -> Iterator[Finding]:
    for one in data.accounts.values():
        for before, after in pairwise(one.windows):
            first, last = before.last + 1, after.first - 1
            if first <= last:
                detail = f"Nothing told of the rows from {day_of(first)} to {day_of(last)}; they may be sent yet."
                yield Finding("rows_missing", first, accounts[one.id], detail)


@dataclass(slots=True)
class _Attempt:
    """What one walk found with some rows left out: `left_out`, those that it left out itself among them;
    `moved_by_money`: of these the rows with shares that only the money shows to be there twice."""

    shares: SharesWalked
    money_rows: list[Transaction]
    findings: list[Finding]
    left_out: set[int]
    moved_by_money: set[int]

    @property
    def contradictions(self) -> Counter[Key]:
        """How many there are of the shares of each position."""
        return Counter(
            (one.account, one.instrument)
            for one in self.findings
            if one.code in CONTRADICTIONS and one.instrument is not None
        )


class _Attempts:
    """Walks the same rows again and again, each time without other ones of those that are said twice."""

    def __init__(self, data: BrokerData, given: _Given, findings: Iterable[Finding] = ()) -> None:
        self.data, self.given = data, given
        self.prices = BrokerPrices(data, given.instruments, given.market, given.rules.currency)
        self.findings = list(findings)
        self.rows = self._rows()
        self.twins = self._twins()

    def first(self) -> _Attempt:
        return self._attempt(frozenset(), frozenset())

    def best(self) -> Reconstruction:
        """A row with shares that only the money shows to be there twice is left out for a trial: it is kept when the
        shares contradict then."""
        left_out: frozenset[int] = frozenset()
        kept: frozenset[int] = frozenset()
        found = self.first()
        for number in range(_MOST_ATTEMPTS):
            if not found.moved_by_money:
                break
            tried = frozenset(found.moved_by_money if number == 0 else {min(found.moved_by_money)})
            other = self._attempt(left_out | tried, kept)
            if other.contradictions.total() <= found.contradictions.total():
                left_out, found = left_out | tried, other
            elif len(tried) == 1:
                kept |= tried
                found = self._attempt(left_out, kept)
        if found.moved_by_money:
            found = self._attempt(left_out, self.twins)
        return self._told(found)

    # what is given

    def _rows(self) -> list[BrokerRow]:
        found = []
        for row in sorted(self.data.transactions, key=attrgetter("day", "place")):
            instrument = self.given.instruments.get(row.security) if row.security is not None else None
            one = BrokerRow(row, self.given.accounts[row.account], instrument, fitted(row.quantity), fitted(row.cash))
            if self.data.first_day <= row.day <= self.data.day:
                found.append(one)
            else:
                self.findings.append(self._outside(one))
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

    # one attempt

    def _attempt(self, left_out: frozenset[int], kept: frozenset[int]) -> _Attempt:
        """`kept`: of the rows said twice those that are not left out whatever the balances say."""
        asked = self.given
        names = Names(asked.prefix)
        pairs = pairs_of(self.rows, self.prices, left_out)
        twins = frozenset(one for one in self.twins - left_out - kept if pairs.is_alone(one))
        entries = entries_of(self.rows, left_out, self.data.securities, pairs, self.prices, names)
        given = Given(self.data, asked.instruments, asked.accounts, asked.market, self.prices, names, asked.rules)
        shares = shares_of(given, self.rows, pairs, twins, entries.rows, entries.sources)
        twins -= shares.left_out
        borrowers = frozenset(account for (account, _), walked in shares.walks.items() if walked.is_short)
        money = MoneyWalk(self.data, self.given.accounts, names, twins=twins, borrowers=borrowers, delays=shares.delays)
        walked = money.run(shares.rows, shares.sources)
        moving = {source for row, source in zip(shares.rows, shares.sources, strict=True) if row.quantity is not None}
        found = [*self.findings, *entries.findings, *shares.findings, *walked.findings]
        gone = left_out | shares.left_out | walked.left_out
        return _Attempt(shares, walked.rows, found, set(gone), walked.left_out & moving)

    # the outcome

    def _told(self, found: _Attempt) -> Reconstruction:
        rows = [
            row
            for row, source in zip(found.shares.rows, found.shares.sources, strict=True)
            if source not in found.left_out
        ]
        rows = sorted([*rows, *found.money_rows], key=attrgetter("order"))
        named = {row.external_id for row in rows}
        findings = [one for one in found.findings if one.external_id is None or one.external_id in named]
        findings += [self._twin(source) for source in sorted(found.left_out)]
        return Reconstruction(
            tuple(rows),
            tuple(sorted(findings, key=attrgetter("day"))),
            tuple(self._positions(found)),
            any(walked.is_short for walked in found.shares.walks.values()),
        )

    def _twin(self, source: int) -> Finding:
        one = self.rows[source]
        row = one.row
        detail = "There is another row that says the same, and the balances have room for one."
        return Finding(
            "duplicate_row", row.day, one.account, detail, one.instrument, one.quantity or None, one.cash or None,
            row.currency, (row.id,),
        )  # fmt: skip

    def _positions(self, found: _Attempt) -> list[WalkedPosition]:
        ids: dict[Key, set[str]] = defaultdict(set)
        days: dict[Key, list[int]] = defaultdict(list)
        for one in self.data.holdings:
            ids[self.given.accounts[one.account], self.given.instruments[one.security]].add(one.security)
        for source, row in enumerate(self.rows):
            if row.instrument is not None and source not in found.left_out:
                ids[row.account, row.instrument].add(row.row.security or "")
                days[row.account, row.instrument].append(row.row.day)
        return [self._position(key, found, ids[key], days[key]) for key in found.shares.walks]

    def _position(self, key: Key, found: _Attempt, ids: set[str], days: Sequence[int]) -> WalkedPosition:
        walked, cost = found.shares.walks[key], found.shares.costs.get(key)
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
