"""Returns by hand, beside a benchmark, explained; and None with a reason where there is no number."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.bars import day_number
from pricecache.core.benchmarks import compared
from pricecache.core.history import History, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Rules, Transaction
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.return_inputs import inputs_of
from pricecache.core.returns import annualized, held_within, performance, xirr
from pricecache.core.valuation import INDEX

A = Instrument("AAA")


def market(closes: dict[int, float], due: range | None = None) -> MarketData:
    days = np.array(sorted(closes), np.int64)
    values = np.array([closes[int(day)] for day in days])
    return MarketData({A: PriceColumn(Column(days, values, np.array(due or days, np.int64)), "USD")})


def computed(rows: list[Transaction], closes: dict[int, float], end: int, **rules: Any) -> History:
    found = history(Ledger.of(rows, Rules(**rules)), market(closes), end)
    assert found is not None
    return found


def test_the_spreadsheet_example_as_a_portfolio() -> None:
    start, end = day_number(date(2008, 1, 1)), day_number(date(2009, 4, 1))
    rows = [Transaction(start, "deposit", amount=D(10_000))]
    for day, amount in (((2008, 3, 1), 2_750), ((2008, 10, 30), 4_250), ((2009, 2, 15), 3_250), ((2009, 4, 1), 2_750)):
        rows.append(Transaction(day_number(date(*day)), "withdrawal", amount=D(amount)))
    rows.append(Transaction(day_number(date(2008, 6, 1)), "interest", amount=D(3_000)))
    got = computed(rows, {0: 1.0}, end, cash_tracking=True)
    assert performance(got, start=start - 1).irr == pytest.approx(0.373362535, abs=2e-3)  # one day more to the year
    assert performance(got).gain == 3_000


def test_returns_are_annualised_from_a_year_on() -> None:
    assert annualized(0.21, 730) == pytest.approx(0.1)
    assert annualized(0.5, 364) is None
    got = computed([Transaction(0, "buy", A, D(1), D(100))], {0: 100.0, 364: 150.0}, 364)
    assert performance(got).twr_annualized is None
    assert performance(got).reasons["twr_annualized"] == "under_a_year"


def test_drawdown_and_volatility_by_hand() -> None:
    closes = {4: 100.0, 5: 110.0, 6: 99.0, 7: 108.9}  # 1970-01-05 was a Monday
    got = performance(computed([Transaction(4, "buy", A, D(1), D(100))], closes, 7))
    assert got.max_drawdown == pytest.approx(-0.1)
    assert got.volatility == pytest.approx(np.std([0.1, -0.1, 0.1], ddof=1) * np.sqrt(252))


def test_the_first_days_inflow_divides_that_day() -> None:
    got = computed([Transaction(4, "buy", A, D(1), D(100))], {4: 105.0, 5: 105.0}, 5)
    assert got.of(INDEX).tolist() == [1.05, 1.05]
    assert performance(got).twr == 0.0  # over (start, end]: the opening row is where it starts
    assert performance(got, start=3).twr == pytest.approx(0.05)
    assert performance(got, start=3).gain == pytest.approx(5.0)


def test_selling_everything_and_coming_back_keeps_the_return() -> None:
    rows = [
        Transaction(0, "buy", A, D(1), D(100)),
        Transaction(2, "sell", A, D(1), D(120)),
        Transaction(9, "buy", A, D(2), D(50)),
    ]
    got = computed(rows, {0: 100.0, 2: 120.0, 9: 50.0, 10: 55.0}, 10)
    assert performance(got).twr == pytest.approx(1.2 * 1.1 - 1)


def test_a_dividend_paid_out_and_one_reinvested_return_the_same() -> None:
    closes = {0: 100.0, 5: 98.0, 9: 98.0}
    out = [Transaction(0, "buy", A, D(1), D(100)), Transaction(5, "dividend", A, amount=D(2))]
    again = [
        *out[:1],
        Transaction(5, "dividend", A, amount=D(2), link="1"),
        Transaction(5, "buy", A, D(2) / 98, D(98), link="1"),
    ]
    results = [performance(computed(rows, closes, 9)) for rows in (out, again)]
    assert results[0].twr == pytest.approx(0.0)
    assert results[1].twr == pytest.approx(0.0)
    assert results[1].net_flow == pytest.approx(0.0)


def test_what_cannot_be_said_is_none_with_a_reason() -> None:
    nothing = history(Ledger.of([Transaction(0, "buy", A, D(1), D(1))]), MarketData(), 9)
    assert nothing is not None
    got = performance(nothing)
    assert (got.end_value, got.irr, got.twr, got.max_drawdown, got.volatility) == (None,) * 5
    assert got.reasons["twr"] == got.reasons["twr_annualized"] == "no_price"
    assert got.reasons["end_value"] == got.reasons["irr"] == got.reasons["gain"] == "no_price"
    assert xirr([(date(2020, 1, 1), -1.0)]) == (None, "no_sign_change")
    one_day = performance(computed([Transaction(0, "buy", A, D(1), D(1))], {0: 1.0}, 0))
    assert one_day.reasons["irr"] == "no_days"
    assert one_day.reasons["volatility"] == "too_few_sessions"


def test_owing_more_than_there_is_has_no_return() -> None:
    rows = [Transaction(0, "sell", A, D(1), D(100))]
    got = performance(computed(rows, {0: 100.0, 1: 110.0}, 3, allow_short=True))
    assert got.twr is None
    assert got.reasons["twr"] == got.reasons["max_drawdown"] == "no_capital"


def test_a_benchmark_is_its_price_with_splits_worked_in() -> None:
    rows = [Transaction(0, "buy", A, D(1), D(100))]
    data = market({0: 100.0, 5: 60.0, 9: 60.0})
    other = Instrument("BBB")
    column = PriceColumn(data.prices[A].closes, "USD", (Action(3, "split", 2.0),))
    both = MarketData({**data.prices, other: column})
    got = history(Ledger.of(rows), both, 9)
    assert got is not None
    own = performance(got)
    result = compared(got, both, other, own)
    assert own.twr == pytest.approx(-0.4)
    assert result.twr == pytest.approx(0.2)
    assert result.excess_return == pytest.approx(-0.6)
    assert compared(got, both, Instrument("NONE"), own).reasons["twr"] == "no_price"


def test_a_benchmark_that_is_worth_nothing_any_more_returned_all_of_it_and_before_nothing_is_told() -> None:
    rows = [Transaction(4, "buy", A, D(1), D(100))]
    data = market({4: 100.0, 5: 110.0, 6: 99.0, 7: 100.0})
    gone = PriceColumn(Column(np.array([0, 6]), np.array([5.0, 0.0])), "USD")
    both = MarketData({**data.prices, (other := Instrument("OWN", "CUSTOM")): gone})
    got = history(Ledger.of(rows), both, 14)
    assert got is not None
    result = compared(got, both, other, performance(got))
    assert (result.twr, result.max_drawdown, result.volatility, result.tracking_error) == (-1.0, -1.0, None, None)
    assert {result.reasons[name] for name in ("volatility", "tracking_error", "correlation")} == {"no_capital"}
    later = compared(got, both, other, performance(got, start=8))
    assert (later.twr, later.reasons["twr"], later.reasons["correlation"]) == (None, "no_capital", "no_capital")


def test_a_benchmark_that_never_moves_is_correlated_with_nothing() -> None:
    rows = [Transaction(4, "buy", A, D(1), D(100))]
    data = market({4: 100.0, 5: 110.0, 6: 99.0, 7: 100.0})
    still = Instrument("BBB")
    both = MarketData({**data.prices, still: PriceColumn(Column(np.array([0]), np.array([5.0])), "USD")})
    got = history(Ledger.of(rows), both, 7)
    assert got is not None
    own = performance(got)
    result = compared(got, both, still, own)
    assert (result.twr, result.correlation, result.reasons["correlation"]) == (0.0, None, "no_variation")
    assert result.tracking_error == pytest.approx(own.volatility)


def test_a_benchmark_beside_no_return_is_told_by_itself() -> None:
    rows = [Transaction(4, "sell", A, D(1), D(100))]
    data = market({4: 100.0, 5: 110.0, 6: 99.0, 7: 100.0})
    got = history(Ledger.of(rows, Rules(allow_short=True)), data, 7)
    assert got is not None
    result = compared(got, data, A, performance(got))
    assert result.twr == pytest.approx(0.0)
    assert (result.excess_return, result.tracking_error) == (None, None)
    assert result.reasons["excess_return"] == result.reasons["tracking_error"] == "no_capital"


def test_the_inputs_of_a_return_are_gross_and_name_the_days_without_a_link() -> None:
    rows = [
        Transaction(4, "buy", A, D(2), D(100)),
        Transaction(5, "sell", A, D(1), D(110)),
        Transaction(5, "buy", A, D(1), D(105)),
        Transaction(6, "sell", A, D(4), D(110)),
    ]
    got = computed(rows, {4: 100.0, 5: 110.0, 6: 110.0}, 8, allow_short=True)
    inputs = inputs_of(got, performance(got))
    assert inputs.flows == ((5, 105.0, 110.0), (6, 0.0, 440.0))
    assert inputs.payments == ((4, -200.0), (5, 5.0), (6, 440.0), (8, -220.0))
    assert inputs.undefined == (7, 8)
    assert inputs_of(replace(got, gross=None), performance(got)).flows is None


def test_a_part_is_told_over_the_days_on_which_it_was() -> None:
    rows = [
        Transaction(0, "buy", A, D(1), D(100), account="old"),
        Transaction(5, "buy", A, D(1), D(100), account="new"),
        Transaction(7, "sell", A, D(1), D(100), account="old"),
    ]
    got = computed(rows, {0: 100.0}, 20)
    assert held_within(got, ("old", None), 0, 20) == (0, 7)
    assert held_within(got, ("new", None), 0, 20) == (4, 20)
    assert held_within(got, ("new", None), 10, 20) == (10, 20)
    assert held_within(got, ("old", None), 7, 20) is None
    assert held_within(got, ("new", None), 0, 3) is None


def test_an_index_beyond_all_numbers_is_no_return() -> None:
    got = computed([Transaction(4, "buy", A, D(1), D(100))], {4: 100.0}, 8)
    values = got.values.copy()
    values[INDEX, 0, 3] = np.inf
    found = performance(replace(got, values=values))
    assert (found.twr, found.max_drawdown, found.reasons["twr"]) == (None, None, "out_of_range")
