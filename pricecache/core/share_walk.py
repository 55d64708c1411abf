"""Shares of a broker's accounts walked backwards, and what that makes of them: openings, splits, corrections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from operator import attrgetter
from typing import Any

from pricecache.core.backward import Correction, Move, Task, Walked, walk
from pricecache.core.broker import BrokerData
from pricecache.core.broker_entries import Names
from pricecache.core.broker_in_lieu import Delay, FractionsPaid
from pricecache.core.broker_pairs import Pairs, SplitRows
from pricecache.core.broker_prices import BrokerPrices, fitted
from pricecache.core.broker_row import BrokerRow, Key
from pricecache.core.broker_splits import beside_the_market
from pricecache.core.findings import REASONS, Finding
from pricecache.core.forward_lots import ForwardLots
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, CostBasis, Transaction
from pricecache.core.lots import ratio_of
from pricecache.core.marketdata import MarketData
from pricecache.core.opening_costs import Basis, OpeningCost, solve, worth_on
from pricecache.core.short_evidence import ShortEvidence
from pricecache.core.splits import LedgerSplit, events

_ONE = Decimal(1)
_LEAST_PAID = Decimal("0.000001")
"""Nobody pays for less of a share: it is what lots are rounded to."""
_OTHER_RATIO = Fraction(1, 100)
"""Fractions that were paid out make less of a difference between a broker's ratio and the market's."""
_CLOSING = frozenset({"expiry", "exercise"})
_OUTWARD = frozenset({"sell", "transfer_out"})
_INWARD = frozenset({"buy", "transfer_in", "opening"})


@dataclass(frozen=True, slots=True)
class Given:
    """What a walk is given: `instruments` and `accounts` by the broker's ids; the market; how to name rows. `base`,
    `cost_basis`: of the portfolio."""

    data: BrokerData
    instruments: Mapping[str, Instrument]
    accounts: Mapping[str, str]
    market: MarketData
    prices: BrokerPrices
    names: Names
    base: str
    cost_basis: CostBasis


@dataclass(slots=True)
class SharesWalked:
    """`rows` with `sources`: all of the ledger so far, the place of the broker's row that each is of, or -1. `delays`:
    of money that is paid later than it counts."""

    rows: list[Transaction] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    walks: dict[Key, Walked] = field(default_factory=dict)
    costs: dict[Key, OpeningCost] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    delays: list[Delay] = field(default_factory=list)


class ShareWalk:
    """Walks every account and instrument of `given`. `twins`: places of rows that are said twice and may be left out.
    For one thread."""

    def __init__(
        self, given: Given, rows: Sequence[BrokerRow], pairs: Pairs, twins: frozenset[int] = frozenset()
    ) -> None:
        self._given, self._rows, self._pairs, self._twins = given, rows, pairs, twins
        self._found = SharesWalked()
        self._today: dict[Key, Decimal] = defaultdict(lambda: ZERO)
        self._bases: dict[Key, Basis | None] = {}
        self._waypoints: dict[Key, dict[int, Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
        self._late: dict[Key, dict[int, list[tuple[int, Decimal]]]] = defaultdict(lambda: defaultdict(list))
        self._moves: dict[Key, list[Move]] = defaultdict(list)
        self._contracts: dict[Instrument, int | None] = {}
        self._sold_short: dict[Key, set[int]] = defaultdict(set)
        self._bought_back: dict[Key, set[int]] = defaultdict(set)
        self._cash_in_lieu: dict[tuple[str, Instrument, int], SplitRows] = {}
        alone = [(i, one) for i, one in enumerate(rows) if i not in pairs.taken and i not in twins]
        self._fractions = FractionsPaid(alone, given.prices)
        self._openings: dict[Instrument, dict[str, str]] = defaultdict(dict)
        self._opened: list[int] = []

    @property
    def _opening_day(self) -> int:
        return self._given.data.first_day - 1

    def run(self, rows: Sequence[Transaction], sources: Sequence[int]) -> SharesWalked:
        """`rows`: what the broker's rows are in a ledger, with the place of each."""
        self._holdings()
        self._evidence()
        self._gather(rows, sources)
        for key in sorted({*self._today, *self._moves, *self._waypoints, *self._pairs.splits}):
            self._walk(key)
        for row, source in zip(rows, sources, strict=True):
            if source not in self._found.left_out:
                self._found.rows.append(row)
                self._found.sources.append(source)
        self._put_down()
        self._move_apart()
        self._go_short()
        self._forwards()
        self._pay_fractions()
        return self._found

    # what is given

    def _holdings(self) -> None:
        given = self._given
        for one in given.data.holdings:
            key = given.accounts[one.account], given.instruments[one.security]
            self._today[key] += fitted(one.quantity)
            basis = Basis(one.cost_basis, one.currency) if one.cost_basis is not None else None
            self._bases[key] = _added(self._bases[key], basis) if key in self._bases else basis
        for point in given.data.waypoints:
            if point.security is not None:
                key = given.accounts[point.account], given.instruments[point.security]
                self._waypoints[key][point.day] += fitted(point.quantity)
                self._late[key][point.day] += point.late

    def _evidence(self) -> None:
        """Of short positions: what may be written, and rows that say that they sell short or buy back."""
        securities = self._given.data.securities
        for name, instrument in self._given.instruments.items():
            security = securities.get(name)
            if security is not None and security.is_contract:
                self._contracts[instrument] = security.option.expires if security.option is not None else None
        for source, one in enumerate(self._rows):
            if one.instrument is None:
                continue
            key, action = (one.account, one.instrument), one.row.action
            if action == "short":
                self._sold_short[key].add(source)
            elif action == "cover" or (action in _CLOSING and one.quantity > 0 and one.instrument in self._contracts):
                self._bought_back[key].add(source)

    def _shorts(self, key: Key) -> ShortEvidence | None:
        """None where there is none."""
        is_contract = key[1] in self._contracts
        points = self._waypoints[key].values() if key in self._waypoints else ()
        is_owed = self._today.get(key, ZERO) < 0 or any(quantity < 0 for quantity in points)
        if not (is_contract or is_owed or key in self._sold_short or key in self._bought_back):
            return None
        return ShortEvidence(
            frozenset(self._sold_short.get(key, ())),
            frozenset(self._bought_back.get(key, ())),
            is_contract,
            self._contracts.get(key[1]),
        )

    def _gather(self, rows: Sequence[Transaction], sources: Sequence[int]) -> None:
        moves = self._moves
        for row, source in zip(rows, sources, strict=True):
            quantity, instrument = row.quantity, row.instrument
            if quantity is None or instrument is None:
                continue
            if row.to_account is not None:
                moves[row.account, instrument].append(Move(row.day, -quantity, 2, source))
                moves[row.to_account, instrument].append(Move(row.day, quantity, 2, source))
            elif row.type in _INWARD:
                moves[row.account, instrument].append(Move(row.day, quantity, 1, source))
            elif row.type in _OUTWARD:
                moves[row.account, instrument].append(Move(row.day, -quantity, 3, source))
            elif row.type == "adjustment":
                moves[row.account, instrument].append(Move(row.day, quantity, 1 if quantity > 0 else 3, source))

    # backwards

    def _walk(self, key: Key) -> None:
        data, moves = self._given.data, self._moves.get(key, [])
        market = _market_splits(self._given.market, key[1])
        column = self._given.market.prices.get(key[1])
        calendar = column.closes.due if column is not None and len(column.closes.due) else None
        said = sorted(self._pairs.splits.get(key, ()), key=attrgetter("day"))
        split_rows = beside_the_market(said, market, calendar, data.first_day, data.day) if said else []
        twins = [one for one in moves if one.source in self._twins] if self._twins else []
        walked = walk(
            Task(
                self._today.get(key, ZERO), data.day, data.first_day, moves, market, split_rows,
                sorted(self._waypoints[key].items()) if key in self._waypoints else (), twins,
                shorts=self._shorts(key), late=self._late.get(key, {}),
            )
        )  # fmt: skip
        self._found.walks[key] = walked
        self._found.left_out.update(walked.left_out)

    # what it makes of them

    def _put_down(self) -> None:
        for key, walked in self._found.walks.items():
            for one in walked.decided:
                self._put_down_split(key, one)
            for correction in walked.corrections:
                self._correct(key, correction)
            if walked.opening:
                self._open(key, walked.opening)

    def _put_down_split(self, key: Key, decided: Any) -> None:
        rows = decided.row.rows
        ids = tuple(self._rows[source].row.id for source in rows.sources)
        account, instrument = key
        if decided.code == "split_differs":
            detail = "the shares that came with a split are not what its ratio makes"
            self._tell("split_differs", key, decided.day, detail, quantity=rows.quantity, rows=ids)
        if self._is_not_in_market(instrument, decided):
            detail = "the market's data has no such split: its prices before it may be in other units"
            self._tell("split_not_in_market", key, decided.day, detail, rows=ids)
        if decided.ratio is not None:
            note = self._rows[rows.sources[0]].row.note
            self._add(
                Transaction(
                    decided.day, "split", instrument, ratio=decided.ratio, account=account, note=note,
                    external_id=self._given.names.name("s", ids[0]),
                )
            )  # fmt: skip
        elif not rows.quantity:
            self._tell("split_without_ratio", key, decided.day, "nobody says the ratio of this split", rows=ids)
        if rows.cash:
            self._cash_in_lieu[account, instrument, decided.day] = rows

    def _is_not_in_market(self, instrument: Instrument, decided: Any) -> bool:
        if decided.ratio in (None, _ONE):
            return False
        if decided.row.is_used(decided.day) and abs(ratio_of(decided.ratio) / decided.row.market[1] - 1) < _OTHER_RATIO:
            return False
        return instrument.place.has_provider and instrument in self._given.market.prices

    def _open(self, key: Key, quantity: Decimal) -> None:
        account, instrument = key
        name = self._given.names.name("o", account, instrument)
        self._openings[instrument][name] = account
        self._opened.append(len(self._found.rows))
        self._add(
            Transaction(
                self._opening_day, "opening" if quantity > 0 else "sell", instrument, abs(quantity), ZERO,
                account=account, external_id=name,
            )
        )  # fmt: skip

    def _add(self, row: Transaction, source: int = -1) -> None:
        self._found.rows.append(row)
        self._found.sources.append(source)

    def _correct(self, key: Key, correction: Correction) -> Transaction:
        row = self._correction(key, correction)
        if correction.code == "expiry_missing":
            quantity = correction.quantity
            row = replace(row, type="sell" if quantity < 0 else "buy", quantity=abs(quantity), price=ZERO)
        self._add(row)
        return row

    def _correction(self, key: Key, correction: Correction) -> Transaction:
        account, instrument = key
        day, quantity = correction.day, correction.quantity
        worth = self._given.prices.on(instrument, day)
        ids = (self._rows[correction.source].row.id,) if correction.source >= 0 else ()
        detail = REASONS[correction.code] + (f" (row {ids[0]})" if ids else "")
        name = self._given.names.name("c", account, instrument, day, correction.code)
        self._tell(correction.code, key, day, detail, quantity=quantity, rows=ids, external_id=name)
        return Transaction(
            day, "adjustment", instrument, quantity, worth.price, currency=worth.currency, account=account,
            external_id=name, note=detail,
        )  # fmt: skip

    def _tell(self, code: str, key: Key, day: int, detail: str, **facts: Any) -> None:
        self._found.findings.append(Finding(code, day, key[0], detail, key[1], **facts))

    # what the engine would not take as it is

    def _move_apart(self) -> None:
        """Internal transfers of more than there is before the day's other transfers are two external ones."""
        found = self._found
        held: dict[tuple[Key, int], Decimal] = {}
        for row in found.rows:
            if row.to_account is not None and row.instrument is not None:
                held.setdefault(((row.account, row.instrument), row.day), ZERO)
        if not held:
            return
        for row in found.rows:
            self._count_down(row, held)
        for key, day in held:
            held[key, day] += found.walks[key].end_of(day)
        for place, row in enumerate(list(found.rows)):
            if row.to_account is None or row.instrument is None:
                continue
            if held[(row.account, row.instrument), row.day] < 0:
                self._apart(place, row)

    def _count_down(self, row: Transaction, held: dict[tuple[Key, int], Decimal]) -> None:
        """Leave in `held` what there is at the end of a day, without what came from other accounts, and with what went
        out behind the transfers."""
        if row.instrument is None or row.quantity is None:
            return
        key = (row.account, row.instrument), row.day
        if row.to_account is not None:
            into = (row.to_account, row.instrument), row.day
            if into in held:
                held[into] -= row.quantity
        elif key in held and (row.type in _OUTWARD or (row.type == "adjustment" and row.quantity < 0)):
            held[key] += abs(row.quantity)

    def _apart(self, place: int, row: Transaction) -> None:
        assert row.instrument is not None
        found, worth = self._found, self._given.prices.on(row.instrument, row.day)
        found.rows[place] = replace(row, to_account=None)
        name = self._given.names.name("i", row.external_id)
        into = replace(
            row, type="transfer_in", account=row.to_account or "", to_account=None, price=worth.price,
            currency=worth.currency, external_id=name,
        )  # fmt: skip
        self._add(into, found.sources[place])

    def _go_short(self) -> None:
        """What leaves an account that owes shares is a sale, whose money leaves with it: the engine moves no debts."""
        found = self._found
        for place, row in enumerate(list(found.rows)):
            if row.instrument is None or row.to_account is not None or row.quantity is None:
                continue
            is_out = row.type == "transfer_out" or (row.type == "adjustment" and row.quantity < 0)
            if is_out and found.walks[row.account, row.instrument].end_of(row.day) < 0:
                self._short(place, row)

    def _short(self, place: int, row: Transaction) -> None:
        assert row.instrument is not None
        assert row.quantity is not None
        found, worth = self._found, self._given.prices.on(row.instrument, row.day)
        quantity, (price, currency, _) = abs(row.quantity), worth
        found.rows[place] = replace(row, type="sell", quantity=quantity, price=price, currency=currency)
        value = fitted(quantity * price)
        if row.type == "adjustment":
            found.findings = [
                replace(one, code="short_moved", detail=f"{REASONS['short_moved']}; {one.detail}", external_id=None)
                if one.external_id == row.external_id
                else one
                for one in found.findings
            ]
        if value:
            self._give_away(row, value, currency, found.sources[place])

    def _give_away(self, row: Transaction, value: Decimal, currency: str, source: int) -> None:
        assert row.instrument is not None
        name = self._given.names.name("m", row.external_id)
        detail = REASONS["short_moved"]
        self._add(
            Transaction(
                row.day, "adjustment", amount=-value, currency=currency, account=row.account, external_id=name,
                note=detail,
            ),
            source,
        )  # fmt: skip
        self._tell(
            "short_moved", (row.account, row.instrument), row.day, detail, amount=-value, currency=currency,
            external_id=name,
        )  # fmt: skip

    # forwards

    def _forwards(self) -> None:
        walks: dict[Instrument, dict[str, Walked]] = defaultdict(dict)
        for (account, instrument), walked in self._found.walks.items():
            walks[instrument][account] = walked
        wanted = {
            instrument
            for instrument, by_account in walks.items()
            if instrument in self._openings or any(one.targets for one in by_account.values())
        }
        rows: dict[Instrument, list[Transaction]] = defaultdict(list)
        for row in sorted(self._found.rows, key=attrgetter("order")):
            if row.instrument in wanted:
                rows[row.instrument].append(row)
        for instrument in sorted(wanted):
            self._forward(instrument, rows[instrument], walks[instrument])
        for (account, instrument, day), said in self._cash_in_lieu.items():
            self._pay(account, instrument, day, said)
        self._price()

    def _forward(self, instrument: Instrument, rows: Sequence[Transaction], walks: Mapping[str, Walked]) -> None:
        given = self._given
        openings = self._openings.get(instrument, {})
        bases = {account: basis for account in walks if (basis := self._bases.get((account, instrument))) is not None}
        currency = next((basis.currency for basis in bases.values()), given.market.currency_of(instrument))
        stated = [
            LedgerSplit(row.day, instrument, row.account, ratio_of(row.ratio))
            for row in rows
            if row.type == "split" and row.ratio is not None
        ]
        splits = events(stated, [instrument], given.market, self._opening_day, given.data.day)
        forward = ForwardLots(given.market, given.base, currency, frozenset(openings), given.cost_basis)
        targets = {account: walked.targets for account, walked in walks.items() if walked.targets}
        forward.run(rows, splits, targets, lambda *facts: self._fix(instrument, *facts))
        for row in forward.fixes:
            self._add(row)
        self._cost(instrument, openings, forward, bases, currency)

    def _fix(
        self, instrument: Instrument, account: str, day: int, missing: Decimal, held: Decimal
    ) -> Sequence[Transaction]:
        key, code = (account, instrument), "fractional_shares" if abs(missing) < _ONE else "balance_differs"
        is_short = self._found.walks[key].end_of(day) < 0
        paid = self._cash_in_lieu.get((account, instrument, day))
        if missing <= -_LEAST_PAID and paid is not None and paid.cash > 0:
            del self._cash_in_lieu[account, instrument, day]
            return [self._paid(key, day, -missing, paid)]
        if code == "fractional_shares" and missing <= -_LEAST_PAID and not is_short:
            sold = self._fractions.sale(key, day, -missing, self._given.names.name("f", account, instrument, day))
            if sold is not None:
                return [sold]
        row = self._correction(key, Correction(day, missing, code))
        if missing > 0 or not is_short:
            return [row]
        return [replace(row, type="sell", quantity=-missing, price=ZERO)]

    def _pay_fractions(self) -> None:
        """What a row paid for a fraction is the money of its sale, and no income."""
        found, used = self._found, self._fractions.used
        found.delays = [*self._pairs.delays, *self._fractions.delays]
        if used:
            kept = [pair for pair in zip(found.rows, found.sources, strict=True) if pair[1] not in used]
            found.rows, found.sources = [row for row, _ in kept], [source for _, source in kept]

    def _paid(self, key: Key, day: int, quantity: Decimal, paid: SplitRows) -> Transaction:
        price = fitted(paid.cash / quantity)
        name = self._given.names.name("f", self._rows[paid.sources[0]].row.id)
        return Transaction(
            day, "sell", key[1], quantity, price, currency=paid.currency, account=key[0], external_id=name,
            note="the fraction that a split left",
        )  # fmt: skip

    def _pay(self, account: str, instrument: Instrument, day: int, said: SplitRows) -> None:
        name = self._given.names.name("f", self._rows[said.sources[0]].row.id)
        self._add(
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
        worth = worth_on(self._given.prices, instrument, self._opening_day)
        walks = self._found.walks
        sizes = {name: abs(walks[account, instrument].opening) for name, account in openings.items()}
        for name, cost in solve(sizes, forward.lots, same, worth).items():
            key = openings[name], instrument
            self._found.costs[key] = cost
            if cost.source is None:
                self._tell("no_price", key, self._opening_day, "Nobody knows what it was worth; it counts as 0.")

    def _price(self) -> None:
        """Put the price into each opening: what it was worth, or what it has to have cost."""
        for place in self._opened:
            row = self._found.rows[place]
            assert row.instrument is not None
            price, currency, source = self._found.costs[row.account, row.instrument]
            self._found.rows[place] = Transaction(
                row.day, row.type, row.instrument, row.quantity, price, currency=currency, account=row.account,
                external_id=row.external_id, note=_COSTS[source],
            )  # fmt: skip


_COSTS = {
    "broker": "held before the first row; at the cost that the broker's cost basis of today leaves for it",
    "close": "held before the first row; at the close of the day",
    "broker_price": "held before the first row; at a price of the broker's",
    None: "held before the first row; nobody knows at what price",
}


def _added(one: Basis | None, other: Basis | None) -> Basis | None:
    if one is None or other is None or one.currency != other.currency:
        return None
    return Basis(one.cost + other.cost, one.currency)


def _market_splits(market: MarketData, instrument: Instrument) -> list[tuple[int, Fraction]]:
    column = market.prices.get(instrument)
    actions = column.actions if column is not None else ()
    return sorted((one.ex_date, ratio_of(one.value)) for one in actions if one.kind == "split")
