"""Whatever a broker says: forward replay of the ledger made of it gives today's holdings exactly, and tells gaps."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pricecache.core.broker.data import BrokerData, BrokerHolding, BrokerTransaction, Cancellation, Waypoint
from pricecache.core.broker.merge import merged
from pricecache.core.currencies import major, unit
from pricecache.core.history import book_at
from pricecache.core.ledger import CostBasis, Ledger, Rules, Transaction, faults
from pricecache.core.lots import exact, ratio_of, scaled
from pricecache.core.marketdata import MarketData
from pricecache.core.replay import replay
from pricecache.core.walk.backward import LATE_DAYS, SPECK
from pricecache.core.walk.findings import CODES, REASONS
from pricecache.core.walk.money_walk import effects
from pricecache.core.walk.reconstruction import Reconstruction, reconstruct
from tests.broker_worlds import ACCOUNTS, FIRST, INSTRUMENTS, LAST, B, markets, true_worlds, worlds

MORE = settings(max_examples=100, deadline=None)


def made(data: BrokerData, market: MarketData, rules: Rules | None = None) -> Reconstruction:
    return reconstruct(data, INSTRUMENTS, ACCOUNTS, market, "c1", rules=rules or Rules())


def held_today(data: BrokerData) -> dict[Any, D]:
    found: dict[Any, D] = defaultdict(D)
    for one in data.holdings:
        found[ACCOUNTS[one.account], INSTRUMENTS[one.security]] += one.quantity
    return {key: quantity for key, quantity in found.items() if quantity}


@MORE
@given(worlds(), markets())
def test_forward_replay_gives_todays_holdings_exactly_and_money_to_the_cent(
    data: BrokerData, market: MarketData
) -> None:
    found = made(data, market)
    rules = Rules("USD", cash_tracking=True, allow_short=found.needs_short)
    replayed = replay(Ledger.of(found.transactions, rules), market, LAST, books=[LAST])
    assert not replayed.faults
    book = replayed.books[LAST]
    shares = {(p.account, p.instrument): p.quantity for p in book.positions if p.instrument and p.quantity}
    assert shares == held_today(data)
    cash = {(one.account, one.currency): one.amount for one in book.cash}
    for (account, currency), amount in data.money.items():
        assert abs(cash.get((ACCOUNTS[account], major(currency)), D(0)) - amount) <= D("0.005")


@MORE
@given(worlds(), markets())
def test_every_adjustment_is_explained_by_one_finding_of_its_size(data: BrokerData, market: MarketData) -> None:
    found = made(data, market)
    assert {one.code for one in found.findings} <= CODES
    told = {one.external_id: one for one in found.findings if one.external_id is not None}
    assert len(told) == sum(one.external_id is not None for one in found.findings)
    rows = {row.external_id: row for row in found.transactions}
    assert {name for name, row in rows.items() if row.type == "adjustment"} <= told.keys() <= rows.keys()
    for name, one in told.items():
        row = rows[name]
        assert one.code in REASONS
        if row.type == "adjustment":
            assert (row.quantity, row.amount) == (one.quantity, one.amount)
            assert row.note


@MORE
@given(worlds(), markets())
def test_rows_are_such_as_a_ledger_takes_and_the_same_in_every_run(data: BrokerData, market: MarketData) -> None:
    found = made(data, market)
    assert not faults(found.transactions)
    names = [row.external_id or "" for row in found.transactions]
    assert len(set(names)) == len(names)
    assert all(name.startswith("c1/") and len(name) <= 200 for name in names)
    assert all(row.day == data.first_day - 1 for row in found.transactions if row.type == "opening")
    again = made(data, market)
    assert again == found


@pytest.mark.parametrize("method", ["lifo", "hifo", "average"])
@settings(max_examples=50, deadline=None)
@given(data=worlds(), market=markets())
def test_holdings_are_exact_by_other_cost_bases_too(method: Any, data: BrokerData, market: MarketData) -> None:
    found = made(data, market, rules=Rules(cost_basis=method))
    rules = Rules("USD", method, cash_tracking=True, allow_short=found.needs_short)
    book = book_at(Ledger.of(found.transactions, rules), market, LAST)
    assert {(p.account, p.instrument): p.quantity for p in book.positions if p.instrument and p.quantity} == held_today(
        data
    )


@MORE
@given(true_worlds())
def test_what_a_broker_says_rightly_needs_no_adjustment_and_leads_back_to_what_was_held(world: Any) -> None:
    data, market, held, cash = world
    found = made(data, market)
    assert [one for one in found.findings if one.external_id is not None] == []
    openings = [row for row in found.transactions if row.type == "opening"]
    assert {(r.account, r.instrument): r.quantity for r in openings if r.instrument} == {
        key: quantity for key, quantity in held.items() if quantity
    }
    assert {r.account: r.amount for r in openings if not r.instrument} == {a: c for a, c in cash.items() if c}
    assert not found.needs_short


@MORE
@given(worlds(), markets())
def test_walking_again_from_what_was_produced_finds_nothing_to_adjust(data: BrokerData, market: MarketData) -> None:
    """But for the last digit of what a split of three for one leaves of each lot."""
    first = made(data, market)
    second = made(said_by_a_broker(data, first, market), market)
    odd = [one for one in second.findings if one.code in ("quantity_unexplained", "balance_differs", "rounding")]
    assert [one for one in odd if abs(one.quantity or 0) > D("1E-9")] == []
    before, after = opened(first), opened(second)
    assert all(abs(before[key] - after[key]) < D("1E-9") for key in before.keys() | after.keys())


def opened(found: Reconstruction) -> dict[Any, D]:
    shares = [one for one in found.positions if one.opening]
    return defaultdict(D, {(one.account, one.instrument): one.opening for one in shares})


@MORE
@given(true_worlds(), st.integers(0, 40))
def test_a_trade_said_twice_is_left_out_when_an_earlier_balance_is_known(world: Any, at: int) -> None:
    data, market, held, _ = world
    balances = [Waypoint(FIRST - 1, a, held[ACCOUNTS[a], INSTRUMENTS[s]], s) for a in "xy" for s in ("a", "b", "p")]
    data = replace(data, waypoints=tuple(balances))
    trades = [one for one in data.transactions if one.action in ("buy", "sell") and one.day > FIRST + LATE_DAYS]
    assume(trades)
    one = trades[at % len(trades)]
    of_it = [row for row in data.transactions if (row.account, row.security) == (one.account, one.security)]
    assume(abs(one.quantity) > 100 * SPECK and all(row.day > FIRST + LATE_DAYS for row in of_it))
    others = [replace(row, id="", place=0) for row in of_it if row.quantity == one.quantity and row.day != one.day]
    assume(all(others.count(row) == 1 for row in others))  # else nobody knows which of them is told twice
    twice = [row for row in data.transactions for row in ([row, replace(row, id="twin")] if row is one else [row])]
    found = made(replace(data, transactions=tuple(twice)), market)
    assert [finding.code for finding in found.findings if finding.code != "no_price"] == ["duplicate_row"]
    assert without_ids(found) == without_ids(made(data, market))


@MORE
@given(true_worlds(), st.integers(FIRST, LAST), st.booleans(), st.booleans())
def test_a_row_that_a_later_payload_cancels_leaves_nothing_behind(
    world: Any, day: int, is_held: bool, is_named: bool
) -> None:
    data, market, held, cash = world
    assume(not any(action.ex_date > LAST for column in market.prices.values() for action in column.actions))
    slip = BrokerTransaction("slip", "x", day, "buy", "b", D("77.5"), None, D("-155.31"), place=1000)
    split = math.prod(int(one.value) for one in market.prices[B].actions if day < one.ex_date)
    more = {("x", "b"): slip.quantity * split} if is_held else {}
    holdings = {(one.account, one.security): one.quantity for one in data.holdings}
    before = replace(
        data,
        transactions=tuple(sorted([*data.transactions, slip], key=lambda row: row.day)),
        holdings=tuple(
            BrokerHolding(*key, holdings.get(key, D(0)) + more.get(key, D(0))) for key in {**holdings, **more}
        ),
        money={key: amount + (slip.cash if is_held and key[0] == "x" else 0) for key, amount in data.money.items()},
    )
    word = Cancellation("word", "x", LAST + 1, "slip" if is_named else None, "b", -slip.quantity, -slip.cash)
    after = replace(data, day=LAST + 1, first_day=LAST + 1, transactions=(), waypoints=(), cancellations=(word,))
    found = made(merged(before, after), market)
    assert [one for one in found.findings if one.external_id is not None] == []
    assert opened(found) == {key: quantity for key, quantity in held.items() if quantity}
    openings = [row for row in found.transactions if row.type == "opening"]
    assert {r.account: r.amount for r in openings if not r.instrument} == {a: c for a, c in cash.items() if c}


@MORE
@given(true_worlds(), st.sampled_from(["a", "b", "p"]))
def test_rows_that_a_broker_restated_are_walked_as_those_of_their_day(world: Any, security: str) -> None:
    data, market, _, _ = world
    column, instrument = market.prices[INSTRUMENTS[security]], INSTRUMENTS[security]
    assume(column.closes.first < FIRST)
    splits = [one for one in column.actions if FIRST < one.ex_date <= LAST]
    rows, names = [], set()
    for row in data.transactions:
        if row.security == security and row.quantity:
            close = exact(column.price_on(row.day)[1])
            row = replace(row, price=close, currency=column.currency, cash=D(0), action="transfer")
            ratio = math.prod(int(one.value) for one in splits if row.day < one.ex_date)
            names.update({row.id} if ratio > 1 else ())
            rows.append((row, replace(row, quantity=row.quantity * ratio, price=close / ratio)))
        else:
            rows.append((row, row))
    as_they_were, restated = (replace(data, transactions=tuple(pair[i] for pair in rows)) for i in (0, 1))
    found, wanted = made(restated, market), made(as_they_were, market)
    assert found.transactions == wanted.transactions
    assert found.positions == wanted.positions
    told = [one for one in found.findings if one.code == "rows_restated"]
    assert {one.instrument for one in told} == ({instrument} if names else set())
    assert {name for one in told for name in one.rows} == names
    assert [one for one in found.findings if one.code != "rows_restated"] == list(wanted.findings)


def without_ids(found: Reconstruction) -> list[Transaction]:
    """Of rows that say the same, as chance makes them, too, none is the first."""
    return sorted((replace(row, external_id=None) for row in found.transactions), key=repr)


ACTIONS: dict[str, Any] = {
    "deposit": "cash",
    "withdrawal": "cash",
    "transfer_in": "transfer",
    "transfer_out": "transfer",
}
ACTIONS |= {"opening": "transfer", "adjustment": "adjustment"}


def said_by_a_broker(data: BrokerData, found: Reconstruction, market: MarketData) -> BrokerData:
    """The same holdings, with the rows that were made as the broker's own: one for each side of a transfer, what came
    with a split counted, and what was owed before the first row."""
    accounts = {ours: theirs for theirs, ours in ACCOUNTS.items()}
    names = {instrument: name for name, instrument in INSTRUMENTS.items() if name != "a-old"}
    rules = Rules("USD", cash_tracking=True, allow_short=found.needs_short)
    ledger = Ledger.of(found.transactions, rules)
    books = replay(ledger, market, LAST, books=range(data.first_day - 1, LAST)).books
    rows: list[BrokerTransaction] = []
    for row in found.transactions:
        sides = [(row.account, -1 if row.order % 4 in (2, 3) and row.type != "adjustment" else 1)]
        sides += [(row.to_account, 1)] if row.to_account is not None else []
        for account, sign in sides if row.day >= data.first_day else []:
            cash = next((amount for a, _, amount in effects(row) if a == account), D(0))
            quantity = sign * (row.quantity or D(0))
            if row.type == "split":
                key = (account, row.instrument)
                held = next(
                    (p.quantity for p in books[row.day - 1].positions if (p.account, p.instrument) == key), D(0)
                )
                quantity = scaled(held, ratio_of(row.ratio or D(1))) - held
            rows.append(
                BrokerTransaction(
                    f"{len(rows)}", accounts[account], row.day, ACTIONS.get(row.type, row.type),
                    None if row.instrument is None else names[row.instrument], quantity, row.price, cash,
                    currency=row.currency or "USD", ratio=row.ratio, place=len(rows),
                )
            )  # fmt: skip
    shortable = {name: replace(one, kind="derivative") for name, one in data.securities.items()}
    securities = shortable if found.needs_short else data.securities
    owed = [
        Waypoint(data.first_day - 1, accounts[account], opening, names[instrument])
        for (account, instrument), opening in opened(found).items()
        if opening < 0
    ]
    return replace(data, securities=securities, transactions=tuple(rows), waypoints=tuple(owed))


METHODS: tuple[CostBasis, ...] = ("fifo", "lifo", "hifo", "average")


def costs_of(found: Reconstruction, data: BrokerData, market: MarketData, rules: Rules) -> dict[Any, tuple[D, D]]:
    """What the engine says today's holdings cost, beside the broker's cost basis, by account and instrument."""
    rules = replace(rules, cash_tracking=True, allow_short=found.needs_short)
    positions = book_at(Ledger.of(found.transactions, rules), market, LAST).positions
    ours = {(p.account, p.instrument): p.basis for p in positions if p.instrument}
    theirs: dict[Any, list[BrokerHolding]] = defaultdict(list)
    for one in data.holdings:
        theirs[ACCOUNTS[one.account], INSTRUMENTS[one.security]].append(one)
    beside = {}
    for key, several in theirs.items():
        if any(one.cost_basis is None for one in several):
            continue
        base, local = ours.get(key, (D(0), D(0)))
        cost = base if several[0].currency == rules.currency else local * unit(market.currency_of(key[1]))
        basis = sum((one.cost_basis or D(0) for one in several), D(0))
        beside[key] = cost, -abs(basis) if sum(one.quantity for one in several) < 0 else basis
    return beside


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(data=worlds(), market=markets(), fees_in_cost=st.booleans())
def test_a_cost_basis_that_is_not_met_is_told_with_the_difference(
    method: CostBasis, data: BrokerData, market: MarketData, fees_in_cost: bool
) -> None:
    rules = Rules("USD", method, fees_in_cost=fees_in_cost)
    found = made(data, market, rules)
    told = {(one.account, one.instrument): one.amount for one in found.findings if one.code == "cost_differs"}
    beside = costs_of(found, data, market, rules)
    assert told.keys() <= beside.keys()
    for key, (ours, theirs) in beside.items():
        if key in told:
            assert abs(ours - theirs - (told[key] or 0)) <= D("0.01")
        else:
            assert abs(ours - theirs) <= D("0.01") * (1 + sum(one.security is not None for one in data.transactions))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(world=true_worlds(), prices=st.lists(st.integers(1, 30_000).map(lambda n: D(n) / 100), min_size=6, max_size=6))
def test_a_cost_basis_by_the_portfolios_own_method_is_met(method: CostBasis, world: Any, prices: list[D]) -> None:
    """Of a ledger whose openings cost this or that, every holding's cost is told; the walk finds openings by which the
    engine says the same."""
    data, market, held, _ = world
    rules = Rules("USD", method)
    keys = sorted(held)
    paid = dict(zip(keys, prices, strict=True))
    rows = [
        replace(row, price=paid[row.account, row.instrument], currency=None)
        if row.type == "opening" and row.instrument
        else row
        for row in made(data, market, rules).transactions
    ]
    book = book_at(Ledger.of(rows, replace(rules, cash_tracking=True)), market, LAST)
    basis = {
        (p.account, p.instrument): p.basis[1] * unit(market.currency_of(p.instrument))
        for p in book.positions
        if p.instrument
    }
    holdings = tuple(
        replace(
            one,
            cost_basis=basis[ACCOUNTS[one.account], INSTRUMENTS[one.security]],
            currency=major(market.currency_of(INSTRUMENTS[one.security])),
        )
        for one in data.holdings
    )
    found = made(replace(data, holdings=holdings), market, rules)
    assert [one for one in found.findings if one.code == "cost_differs"] == []
    again = book_at(Ledger.of(found.transactions, replace(rules, cash_tracking=True)), market, LAST)
    for one in again.positions:
        if one.instrument and one.quantity:
            cost = one.basis[1] * unit(market.currency_of(one.instrument))
            assert abs(cost - basis[one.account, one.instrument]) < D("1E-8")
