"""What holds for every ledger and market: sums, flows, splits, neighbours, the way back, no NaN at the edge."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from decimal import Decimal as D
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.benchmarks import compared
from pricecache.core.book import Book
from pricecache.core.daychange import Session
from pricecache.core.history import PORTFOLIO, History, book_at, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.return_inputs import inputs_of
from pricecache.core.returns import as_shown, performance
from pricecache.core.rows import rounded, rows
from pricecache.core.scopes import Scope
from pricecache.core.summary import summary
from pricecache.core.valuation import CASH, COVERAGE, FIELDS, GAIN, INDEX, NET_FLOW, REALIZED, UNREALIZED, VALUE
from tests.ledgers import ACCOUNTS, DOLLARS, FIRST, INSTRUMENTS, LAST, ledgers, markets, weekdays
from tests.ledgers import rows as transactions

MONEY = [field for field in range(len(FIELDS)) if field not in (INDEX, COVERAGE)]
MORE = settings(max_examples=100, deadline=None)


def made(ledger: Ledger, market: MarketData) -> History:
    found = history(ledger, market, LAST)
    assume(found is not None)
    assert found is not None
    return found


def of_scope(found: History, scope: Scope) -> np.ndarray:
    return found.values[:, found.scopes.index(scope)]


# Sums


@MORE
@given(ledgers(), markets())
def test_accounts_add_up_to_the_portfolio_to_the_cent(ledger: Ledger, market: MarketData) -> None:
    """A total gain of accounts of which one has no value is what its own parts, realised and unrealised, come to."""
    shown = rounded(made(ledger, market))
    gain = np.round(shown[REALIZED] + shown[UNREALIZED], 2)
    assert np.array_equal(shown[GAIN], gain, equal_nan=True)
    for field in MONEY:
        total, parts = shown[field, 0], shown[field, 1:]
        known = ~np.isnan(total)
        if field == GAIN:
            known &= ~np.isnan(parts).any(axis=0)
        assert np.array_equal(total[known], np.round(np.nansum(parts, axis=0), 2)[known])


@MORE
@given(ledgers(), markets(), st.sampled_from(["position", "instrument"]))
def test_positions_return_what_the_portfolio_gained(ledger: Ledger, market: MarketData, by: Any) -> None:
    ledger = Ledger.of(ledger.transactions, replace(ledger.rules, cash_tracking=False))
    whole, parts = made(ledger, market), history(ledger, market, LAST, by=by)
    assert parts is not None
    gains = [performance(parts, scope, parts.start - 1).gain for scope in parts.scopes[1:]]
    own = performance(whole, PORTFOLIO, whole.start - 1).gain
    if own is not None and None not in gains:
        assert math.isclose(sum(gain for gain in gains if gain is not None), own, abs_tol=1e-6)


@MORE
@given(ledgers(), markets(), st.integers(FIRST - 1, LAST), st.integers(0, 20))
def test_the_money_of_a_return_is_that_of_the_rows(ledger: Ledger, market: MarketData, start: int, days: int) -> None:
    found = made(ledger, market)
    start = max(start, found.start - 1)
    own = as_shown(performance(found, PORTFOLIO, start, start + days), found)
    shown = {row["day"]: row for row in rows(found)}
    within = [row["net_flow"] for day, row in shown.items() if own.start < day <= own.end]
    before = shown[own.start]["total_value"] if own.start in shown else 0.0
    assert own.start_value == before
    if own.end in shown:
        assert own.end_value == shown[own.end]["total_value"]
    if None not in within:
        assert own.net_flow == round(sum(within), 2)
    if own.gain is not None:
        assert own.gain == round((own.end_value or 0) - (own.start_value or 0) - (own.net_flow or 0), 2)


# Flows

PRICES = st.lists(st.integers(500, 2000).map(lambda cents: cents / 100), min_size=10, max_size=10)
SIZES = st.lists(st.tuples(st.integers(1, 8), st.integers(-90, 300)), max_size=5)


def one_instrument(prices: list[float]) -> MarketData:
    days = np.arange(FIRST, FIRST + len(prices), dtype=np.int64)
    return MarketData({DOLLARS: PriceColumn(Column(days, np.array(prices), days), "USD")})


def trade(day: int, percent: int, held: D, prices: list[float]) -> tuple[Transaction, D]:
    """So many percent of what is held sold at the day's close, or bought at the close before: an inflow counts from the
    start of its day, an outflow from the end."""
    price = D(str(prices[day] if percent < 0 else prices[day - 1]))
    quantity = abs(held * percent / 100)
    kind: Any = "sell" if percent < 0 else "buy"
    return Transaction(FIRST + day, kind, DOLLARS, quantity, price), held * (100 + percent) / 100


@MORE
@given(PRICES, SIZES, st.booleans())
def test_a_time_weighted_return_is_that_of_the_price_whatever_flows(
    prices: list[float], sizes: list[tuple[int, int]], tracks: bool
) -> None:
    """With cash kept, each purchase is paid in and each sale paid out on its day."""
    market, held = one_instrument(prices), D(100)
    found = [Transaction(FIRST, "buy", DOLLARS, held, D(str(prices[0])))]
    for day, percent in sorted(dict(sizes).items()):
        if percent:
            one, held = trade(day, percent, held, prices)
            found.append(one)
    if tracks:
        kinds: dict[str, Any] = {"buy": "deposit", "sell": "withdrawal"}
        found += [Transaction(r.day, kinds[r.type], amount=(r.quantity or D(0)) * (r.price or D(0))) for r in found]
    got = history(Ledger.of(found, Rules(cash_tracking=tracks)), market, FIRST + len(prices) - 1)
    assert got is not None
    np.testing.assert_allclose(got.of(INDEX), np.array(prices) / prices[0], rtol=1e-9)


@MORE
@given(ledgers(), markets(), st.lists(st.tuples(st.integers(FIRST, LAST), st.integers(1, 10**6)), max_size=4))
def test_without_cash_deposits_and_withdrawals_are_no_flows(
    ledger: Ledger, market: MarketData, paid: list[tuple[int, int]]
) -> None:
    ledger = Ledger.of(ledger.transactions, replace(ledger.rules, cash_tracking=False))
    kinds: tuple[Any, ...] = ("deposit", "withdrawal")
    more = [Transaction(day, kinds[amount % 2], amount=D(amount)) for day, amount in paid if day >= ledger.first_day]  # type: ignore[operator]
    before, after = made(ledger, market), made(Ledger.of([*ledger.transactions, *more], ledger.rules), market)
    for field in range(len(FIELDS)):
        assert np.array_equal(before.of(field), after.of(field), equal_nan=True)


# Neighbours


@MORE
@given(ledgers(), st.lists(transactions(), min_size=1, max_size=4), markets())
def test_another_account_never_moves_what_is_there(
    ledger: Ledger, drawn: list[list[Transaction]], market: MarketData
) -> None:
    """Not one bit of an account's rows, but for average costs, which are pooled (and weigh what has no price)."""
    more = [
        replace(row, account="three", link=None)
        for group in drawn
        for row in group
        if row.type != "split" and row.to_account is None
    ]
    before, after = made(ledger, market), made(Ledger.of([*ledger.transactions, *more], ledger.rules), market)
    late = before.start - after.start
    pooled = ledger.rules.cost_basis == "average"
    alone = [VALUE, CASH, NET_FLOW, INDEX] if pooled else range(len(FIELDS))
    for scope in before.scopes[1:]:
        for field in alone:
            mine, now = of_scope(before, scope)[field], of_scope(after, scope)[field, late:]
            assert np.array_equal(mine, now, equal_nan=True), (scope, FIELDS[field])
        start = before.start
        assert performance(before, scope, start) == performance(after, scope, start)


# Splits


def divided(column: PriceColumn, day: int, ratio: int) -> PriceColumn:
    closes = column.closes
    values = np.where(closes.sessions >= day, closes.values / ratio, closes.values)
    return PriceColumn(
        Column(closes.sessions, values, closes.due), column.currency, (Action(day, "split", float(ratio)),)
    )


def in_new_units(row: Transaction, day: int, ratio: int) -> Transaction:
    if row.instrument != DOLLARS or row.day < day or row.quantity is None:
        return row
    return replace(row, quantity=row.quantity * ratio, price=None if row.price is None else row.price / ratio)


def without_splits(rows: Iterable[Transaction]) -> list[Transaction]:
    return [replace(row, adjusted_as_of=None) for row in rows if row.type != "split"]


@MORE
@given(ledgers(), markets(), st.sampled_from(weekdays(FIRST, LAST).tolist()), st.sampled_from([2, 4, 10]))
def test_a_split_with_prices_to_match_changes_nothing_but_quantities(
    ledger: Ledger, market: MarketData, day: int, ratio: int
) -> None:
    plain = replace(market.prices[DOLLARS], actions=())
    rows = without_splits(ledger.transactions)
    assume(rows)
    before = made(Ledger.of(rows, ledger.rules), MarketData({**market.prices, DOLLARS: plain}, market.rates))
    after = made(
        Ledger.of([in_new_units(row, day, ratio) for row in rows], ledger.rules),
        MarketData({**market.prices, DOLLARS: divided(plain, day, ratio)}, market.rates),
    )
    np.testing.assert_allclose(before.values, after.values, rtol=1e-9, atol=1e-6)
    assert np.array_equal(before.estimated, after.estimated)


# The way back


@MORE
@given(ledgers(), markets())
def test_walking_back_from_the_end_passes_every_day_exactly(ledger: Ledger, market: MarketData) -> None:
    """From the last quantities, each row taken back and each split divided out, down to nothing."""
    whole = {2.0, 4.0}  # ratios that divide without a rest
    prices = {
        instrument: replace(column, actions=tuple(a for a in column.actions if a.value in whole))
        for instrument, column in market.prices.items()
    }
    plain, data = without_splits(ledger.transactions), MarketData(prices, market.rates)
    assume(plain)
    days = range(FIRST - 1, LAST + 1)
    got = history(Ledger.of(plain, ledger.rules), data, LAST, checkpoints=days)
    assume(got is not None and not any(fault["code"] == "over_transfer" for fault in got.faults))
    assert got is not None
    held = quantities(got.checkpoints[LAST].book)
    for day in range(LAST, got.start - 1, -1):
        assert {key: q for key, q in held.items() if q} == quantities(got.checkpoints[day].book)
        for row in plain:
            if row.day == day:
                take_back(held, row)
        for instrument, column in prices.items():
            for action in column.actions:
                if action.ex_date == day:
                    held = {k: q / D(str(action.value)) if k[1] == instrument else q for k, q in held.items()}
    assert not any(held.values())


def quantities(book: Book) -> dict[tuple[str, Instrument | None], D]:
    return {(one.account, one.instrument): one.quantity for one in book.positions if one.quantity}


def take_back(held: dict[tuple[str, Instrument | None], D], row: Transaction) -> None:
    if row.instrument is None or row.quantity is None:
        return
    signed = -row.quantity if row.type in ("sell", "transfer_out") else row.quantity
    for account, change in ((row.account, -signed), (row.to_account, signed)):
        if account is not None:
            held[account, row.instrument] = held.get((account, row.instrument), D(0)) + change


# Order


@MORE
@given(ledgers(), markets(), st.randoms(use_true_random=False))
def test_the_order_of_a_day_follows_from_what_rows_are(ledger: Ledger, market: MarketData, luck: Any) -> None:
    """Rows of another day or rank may be given in any order: bit for bit the same."""
    by_order: dict[int, list[Transaction]] = {}
    for row in ledger.transactions:
        by_order.setdefault(row.order, []).append(row)
    groups = list(by_order.values())
    luck.shuffle(groups)
    mixed = Ledger.of([row for group in groups for row in group], ledger.rules)
    assert np.array_equal(made(ledger, market).values, made(mixed, market).values, equal_nan=True)


@MORE
@given(ledgers(), markets(), st.randoms(use_true_random=False))
def test_the_order_of_rows_of_one_rank_says_only_which_lots_go(ledger: Ledger, market: MarketData, luck: Any) -> None:
    """Where nothing is taken that is not there, what is held, its value and the flows are the same in any order."""
    mixed = list(ledger.transactions)
    luck.shuffle(mixed)
    other = Ledger.of(mixed, ledger.rules)
    before, after = made(ledger, market), made(other, market)
    assume(not any(fault["code"] == "over_transfer" for fault in (*before.faults, *after.faults)))
    assume(not any(row.type == "split" or row.link is not None for row in mixed))
    assert quantities(book_at(ledger, market, LAST)) == quantities(book_at(other, market, LAST))
    scopes = [after.scopes.index(scope) for scope in before.scopes]
    for field in (VALUE, NET_FLOW, INDEX, CASH):
        np.testing.assert_allclose(before.values[field], after.values[field, scopes], rtol=1e-9, atol=1e-6)


# The edge


def numbers(value: Any) -> Iterable[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)


@MORE
@given(ledgers(), markets(), st.integers(FIRST, LAST), st.sampled_from([*INSTRUMENTS]))
def test_nothing_that_leaves_is_nan_or_infinite_and_what_is_null_says_why(
    ledger: Ledger, market: MarketData, start: int, benchmark: Instrument
) -> None:
    found = made(ledger, market)
    for scope in found.scopes:
        for row in rows(found, scope):
            assert all(map(math.isfinite, numbers(row)))
            assert all(name in row["reasons"] for name in FIELDS if row[name] is None)
        own = performance(found, scope, start)
        beside = compared(found, market, benchmark, own, scope)
        for one in (own, beside):
            facts = asdict(one)
            assert all(map(math.isfinite, numbers(facts)))
            lacking = {name for name, why in one.reasons.items() if why == "some_values_unknown"}
            assert lacking - {"start_value", "end_value"} <= {name for name, fact in facts.items() if fact is None}
            assert {name for name, fact in facts.items() if fact is None} == set(one.reasons) - (
                lacking & {name for name, fact in facts.items() if fact is not None}
            )
        assert all(map(math.isfinite, numbers(asdict(inputs_of(found, own, scope)))))


@MORE
@given(ledgers(), markets(), st.integers(FIRST, LAST), st.sampled_from([*ACCOUNTS, None]))
def test_nothing_in_a_summary_is_nan_or_infinite(
    ledger: Ledger, market: MarketData, end: int, account: str | None
) -> None:
    sessions = {instrument: Session(end, end - 1, 50.0) for instrument in INSTRUMENTS}
    found = summary(ledger, market, sessions, end, account=account)
    assert all(map(math.isfinite, numbers(asdict(found))))
    percents = [one.worth.percent for one in found.positions] + [found.worth.percent, found.worth.percent_from_open]
    assert all(percent is None or math.isfinite(percent) for percent in percents)
