"""Prices on every day, and what may never change the numbers: splits, flows, other accounts, how much is computed."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pricecache.core import valuation
from pricecache.core.actions import Action
from pricecache.core.grid import lay_out
from pricecache.core.history import PORTFOLIO, History, history, instruments_of
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.rows import rounded, rows
from pricecache.core.valuation import (
    CASH,
    COST,
    COVERAGE,
    FIELDS,
    GAIN,
    INDEX,
    NET_FLOW,
    REALIZED,
    UNREALIZED,
    VALUE,
)  # fmt: skip
from tests.ledgers import FIRST, LAST, ledgers, markets

A, B, E = Instrument("AAA"), Instrument("BBB"), Instrument("EEE", "DE")


def column(closes: dict[int, float], due: Any = None) -> Column:
    days = np.array(sorted(closes), np.int64)
    return Column(days, np.array([closes[int(d)] for d in days]), np.array(days if due is None else due, np.int64))


def prices(closes: dict[int, float], *actions: Action, due: Any = None, currency: str = "USD") -> PriceColumn:
    return PriceColumn(column(closes, due), currency, actions)


def computed(rows_: list[Transaction], market: MarketData, end: int, **rules: Any) -> History:
    found = history(Ledger.of(rows_, Rules(**rules)), market, end)
    assert found is not None
    return found


def buy(day: int, quantity: int, price: int, instrument: Instrument = A, **more: Any) -> Transaction:
    return Transaction(day, "buy", instrument, D(quantity), D(price), **more)


def test_a_week_end_carries_and_a_missing_session_is_estimated() -> None:
    got = computed([buy(0, 1, 10)], MarketData({A: prices({0: 10.0, 3: 12.0}, due=[0, 2, 3])}), 4)
    assert got.of(VALUE).tolist() == [10, 10, 10, 12, 12]
    assert got.estimated[0].tolist() == [False, False, True, False, False]
    assert got.of(COVERAGE).tolist() == [1, 1, 0, 1, 1]


def test_coverage_is_the_share_of_the_value_of_what_is_due() -> None:
    data = MarketData({A: prices({0: 30.0}, due=[0, 1]), B: prices({0: 10.0, 1: 10.0}, due=[0, 1])})
    got = computed([buy(0, 1, 30), buy(0, 1, 10, B)], data, 2)
    assert got.of(COVERAGE).tolist() == [1, 0.25, 1]


def test_before_the_first_listing_there_is_no_price_and_no_return() -> None:
    data = MarketData({A: prices({3: 20.0, 5: 22.0}), B: prices({0: 100.0})})
    got = computed([buy(0, 1, 10)], data, 5)
    assert np.isnan(got.of(VALUE)[:3]).all()
    assert got.of(COST).tolist() == [10] * 6
    assert got.of(UNREALIZED).tolist() == [0, 0, 0, 10, 10, 12]
    assert got.of(COVERAGE)[:3].tolist() == [0, 0, 0]
    assert got.of(INDEX).tolist() == pytest.approx([1, 1, 1, 1, 1, 1.1])
    both = computed([buy(0, 1, 10), buy(0, 1, 100, B)], data, 5)
    assert both.of(VALUE)[:4].tolist() == [100, 100, 100, 120]
    assert both.of(INDEX).tolist() == pytest.approx([1, 1, 1, 1, 1, 122 / 120])


def test_a_price_carried_over_a_split_is_brought_to_new_units() -> None:
    data = MarketData({A: prices({0: 40.0, 5: 11.0}, Action(3, "split", 4.0), due=[0, 3, 5])})
    assert computed([buy(0, 10, 40)], data, 5).of(VALUE).tolist() == [400, 400, 400, 400, 400, 440]


def test_no_rate_is_never_one() -> None:
    data = MarketData({E: prices({0: 10.0}, currency="EUR")}, {"EUR": column({2: 1.5})})
    got = computed([buy(0, 1, 10, E)], data, 3)
    assert np.isnan(got.of(VALUE)).tolist() == [True, True, False, False]
    assert np.isnan(got.of(COST)).all()
    assert got.of(VALUE)[2:].tolist() == [15, 15]
    assert rows(got)[0]["reasons"]["total_cost"] == "rate_unknown"
    assert rows(got)[0]["reasons"]["total_value"] == "no_price_or_rate"


def test_pence_are_hundredths() -> None:
    pence = Instrument("PPP", "L")
    data = MarketData({pence: prices({0: 250.0}, currency="GBp")}, {"GBP": column({0: 1.2})})
    got = computed([buy(0, 100, 250, pence)], data, 0)
    assert got.of(VALUE).tolist() == pytest.approx([300])
    assert got.of(COST).tolist() == pytest.approx([300])


def test_cash_counts_when_it_is_kept_and_only_deposits_are_flows() -> None:
    rows_ = [Transaction(0, "deposit", amount=D(100)), buy(1, 10, 8), Transaction(2, "dividend", A, amount=D(5))]
    data = MarketData({A: prices({1: 8.0, 3: 9.0})})
    got = computed(rows_, data, 3, cash_tracking=True)
    assert got.of(CASH).tolist() == [100, 20, 25, 25]
    assert got.of(VALUE).tolist() == [100, 100, 105, 115]
    assert got.of(NET_FLOW).tolist() == [100, 0, 0, 0]
    assert got.of(INDEX).tolist() == pytest.approx([1, 1, 1.05, 1.15])
    without = computed(rows_, data, 3)
    assert np.isnan(without.of(CASH)).all()
    assert without.of(NET_FLOW).tolist() == [0, 80, -5, 0]
    assert rows(without)[1]["reasons"] == {"cash": "cash_not_tracked"}


def test_an_internal_transfer_is_a_flow_of_accounts_only() -> None:
    rows_ = [buy(0, 10, 10, account="a"), Transaction(1, "transfer_out", A, D(4), account="a", to_account="b")]
    got = computed(rows_, MarketData({A: prices({0: 10.0, 1: 11.0, 2: 12.0})}), 2)
    assert got.of(NET_FLOW)[1] == 0
    assert got.of(NET_FLOW, ("a", None))[1] == -44
    assert got.of(NET_FLOW, ("b", None))[1] == 44
    assert got.of(INDEX)[2] == pytest.approx(1.2)
    assert got.of(INDEX, ("b", None))[2] == pytest.approx(12 / 11)


def test_adding_an_account_never_moves_another() -> None:
    data = MarketData({A: prices({d: 10.0 + d for d in range(9)})})
    one = [buy(0, 3, 10, account="a"), Transaction(5, "sell", A, D(1), D(15), account="a")]
    alone = computed(one, data, 8)
    beside = computed([*one, buy(2, 50, 12, account="b")], data, 8)
    assert np.array_equal(
        alone.values[:, alone.scopes.index(("a", None))],
        beside.values[:, beside.scopes.index(("a", None))],
        equal_nan=True,
    )


def test_returns_do_not_depend_on_flows() -> None:
    closes = {d: 10.0 + (d * 7) % 5 for d in range(9)}
    data = MarketData({A: prices(closes)})
    still = computed([buy(0, 10, 10)], data, 8)
    moving = [buy(d, 5, int(closes[d - 1]), fx_rate=None) for d in (2, 4)]
    moved = computed([buy(0, 10, 10), *moving], MarketData({A: prices(closes)}), 8)
    inflow_at_open = np.array(
        [moved.of(VALUE)[d] / (moved.of(VALUE)[d - 1] + moved.of(NET_FLOW)[d]) for d in range(1, 9)]
    )
    assert moved.of(INDEX)[1:] / moved.of(INDEX)[:-1] == pytest.approx(inflow_at_open)
    assert moved.of(INDEX)[[1, 3, 8]] == pytest.approx(still.of(INDEX)[[1, 3, 8]])


def test_a_split_changes_nothing_but_the_quantity() -> None:
    closes = {d: 100.0 + d for d in range(10)}
    split = {d: close / (4 if d >= 5 else 1) for d, close in closes.items()}
    plain = computed([buy(0, 4, 100), Transaction(7, "sell", A, D(1), D(100))], MarketData({A: prices(closes)}), 9)
    after = [buy(0, 4, 100), Transaction(7, "sell", A, D(4), D(25))]
    halved = computed(after, MarketData({A: prices(split, Action(5, "split", 4.0))}), 9)
    assert np.allclose(plain.values, halved.values, equal_nan=True)


@pytest.mark.parametrize("by", ["position", "instrument"])
def test_positions_add_up_to_the_portfolio(by: Any) -> None:
    rows_ = [
        buy(0, 10, 10, account="a"),
        buy(0, 5, 20, B, account="a"),
        Transaction(1, "transfer_out", A, D(4), account="a", to_account="b"),
        Transaction(2, "sell", B, D(2), D(22), account="a"),
    ]
    data = MarketData({A: prices({0: 10.0, 2: 12.0}), B: prices({0: 20.0, 2: 22.0})})
    whole = history(Ledger.of(rows_), data, 3)
    parts = history(Ledger.of(rows_), data, 3, by=by)
    assert whole is not None
    assert parts is not None
    assert np.allclose(parts.values[:, 0], whole.values[:, 0], equal_nan=True)
    assert np.allclose(parts.values[VALUE, 1:].sum(axis=0), whole.of(VALUE))
    scope = ("a", B) if by == "position" else (None, B)
    assert parts.of(REALIZED, scope)[-1] == 4


def test_a_grid_laid_out_for_more_gives_the_same() -> None:
    data = MarketData({A: prices({0: 10.0, 2: 12.0}, due=[0, 1, 2]), B: prices({0: 20.0, 2: 22.0})})
    ledger = Ledger.of([buy(1, 10, 10)])
    grid = lay_out([A, B], data, "USD", -5, 40)
    mine, other = history(ledger, data, 6), history(ledger, data, 6, grid=grid)
    assert mine is not None
    assert other is not None
    assert np.array_equal(mine.values, other.values, equal_nan=True)
    assert np.array_equal(mine.estimated, other.estimated)
    assert instruments_of(ledger) == [A]


def test_nothing_is_no_history() -> None:
    assert history(Ledger.of([]), MarketData(), 10) is None
    assert history(Ledger.of([buy(11, 1, 1)]), MarketData(), 10) is None


@given(ledgers(), markets())
@settings(max_examples=40, deadline=None)
def test_row_by_row_and_as_a_matrix_are_the_same_bits(ledger: Ledger, market: MarketData) -> None:
    first = history(ledger, market, LAST)
    usual = valuation._ROWS_FROM
    try:
        valuation._ROWS_FROM = 0
        second = history(ledger, market, LAST)
    finally:
        valuation._ROWS_FROM = usual
    assert first is not None
    assert second is not None
    assert np.array_equal(first.values, second.values, equal_nan=True)


@given(ledgers(), markets())
@settings(max_examples=40, deadline=None)
def test_what_is_shown_adds_up_and_is_never_nan(ledger: Ledger, market: MarketData) -> None:
    got = history(ledger, market, LAST)
    assert got is not None
    shown = rounded(got)
    assert np.allclose(shown[GAIN], shown[REALIZED] + shown[UNREALIZED], atol=1e-6, equal_nan=True)
    known = ~np.isnan(shown[VALUE, 0])
    assert np.allclose(shown[VALUE, 0][known], np.nansum(shown[VALUE, 1:], axis=0)[known], atol=1e-6)
    for row in rows(got, PORTFOLIO, shown):
        for name in FIELDS:
            assert row[name] is None or np.isfinite(row[name])
            why = row["reasons"].get(name)
            assert (row[name] is None) == (why not in (None, "overdrawn", "some_values_unknown"))


@given(ledgers(), markets())
@settings(max_examples=40, deadline=None)
def test_walking_back_from_the_end_arrives_at_nothing(ledger: Ledger, market: MarketData) -> None:
    """Forward and backward replay agree: what is held at the end less all that happened since is what began."""
    plain = [row for row in ledger.transactions if row.type != "split" and row.adjusted_as_of is None]
    if not plain:
        return
    got = history(Ledger.of(plain, ledger.rules), market, LAST, checkpoints=[LAST])
    assert got is not None
    refused = {fault["row"] for fault in got.faults if fault["code"] == "over_transfer"}
    if refused:
        return
    held = {(h.account, h.instrument): h.quantity for h in got.checkpoints[LAST].book.positions}
    splits = [(a.ex_date, i, D(str(a.value))) for i, c in market.prices.items() for a in c.actions]
    for day in range(LAST, FIRST - 1, -1):
        for row in reversed([row for row in plain if row.day == day]):
            _undo(held, row)
        for on, instrument, ratio in splits:
            if on == day:
                held = {key: q / ratio if key[1] == instrument else q for key, q in held.items()}
    assert all(abs(quantity) < D("1e-6") for quantity in held.values())


def _undo(held: dict[Any, D], row: Transaction) -> None:
    if row.instrument is None or row.quantity is None:
        return
    goes_out = row.type in ("sell", "transfer_out")
    signed = -row.quantity if goes_out else row.quantity
    held[row.account, row.instrument] -= signed
    if row.to_account is not None:
        held[row.to_account, row.instrument] += signed
