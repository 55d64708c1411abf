"""Portfolios by account: the sums are the whole's, whatever is in the ledger, now and on any day."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.core.breakdown import (
    Breakdown,
    Portion,
    account_days,
    account_days_of_all,
    breakdown_now,
    breakdown_on,
    together,
    turned,
)
from pricecache.core.daychange import Session
from pricecache.core.history import history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.rows import rounded
from pricecache.core.summary import summaries_by_account, summary
from pricecache.core.totals import Part
from pricecache.core.valuation import CASH, COST, DIVIDENDS, NET_FLOW, REALIZED, UNREALIZED, VALUE
from tests.ledgers import FIRST, INSTRUMENTS, LAST, ledgers, markets

days = st.integers(FIRST, LAST)
closes = st.tuples(*(st.integers(1, 4) for _ in INSTRUMENTS))
"""How many days ago the close before was, by instrument."""
IN_ROWS = {"value": VALUE, "cost": COST, "realized": REALIZED, "dividends": DIVIDENDS, "cash": CASH}


def same(one: float | None, other: float) -> bool:
    return math.isnan(other) if one is None else one == pytest.approx(other, abs=1e-6)


def sessions_of(end: int, ago: Sequence[int]) -> dict[Instrument, Session]:
    return {one: Session(end - each + 1, end - each, 50.0) for one, each in zip(INSTRUMENTS, ago, strict=True)}


def sum_of(found: Breakdown, name: str) -> float | None:
    amounts = [getattr(one, name) for one in found.accounts.values()]
    return None if None in amounts else round(sum(amounts), 2)


@settings(max_examples=120, deadline=None)
@given(ledgers(), markets(), days, closes)
def test_one_pass_gives_each_account_the_summary_it_has_by_itself(
    ledger: Ledger, market: MarketData, end: int, ago: Sequence[int]
) -> None:
    sessions = sessions_of(end, ago)
    whole, accounts = summaries_by_account(ledger, market, sessions, end)
    assert asdict(whole) == asdict(summary(ledger, market, sessions, end))
    for name, found in accounts.items():
        assert asdict(found) == asdict(summary(ledger, market, sessions, end, account=name))


@settings(max_examples=120, deadline=None)
@given(ledgers(), markets(), days, closes)
def test_the_accounts_of_now_add_up_to_the_summary(
    ledger: Ledger, market: MarketData, end: int, ago: Sequence[int]
) -> None:
    sessions = sessions_of(end, ago)
    whole, accounts = summaries_by_account(ledger, market, sessions, end)
    found = breakdown_now(whole, accounts, frozenset())
    for name in ("value", "change", "before", "flow", "cost", "realized", "dividends"):
        total = getattr(found.whole, name)
        assert sum_of(found, name) in (None, total)
        own = getattr(whole.worth if name in ("value", "change", "before", "flow") else whole.gains, name)
        if sum_of(found, name) is not None and own is not None and not whole.incomplete:
            assert total == pytest.approx(own, abs=0.0051 * (2 * len(accounts) + 2))  # cents of cash, by account
    if whole.worth.value is not None and None not in [one.value for one in found.accounts.values()]:
        assert found.whole.value is not None


@settings(max_examples=150, deadline=None)
@given(ledgers(), markets(), days)
def test_a_day_is_the_row_of_the_history_and_its_change_leads_from_the_day_before(
    ledger: Ledger, market: MarketData, day: int
) -> None:
    whole = history(ledger, market, LAST)
    found = breakdown_on(whole, day, "USD", tracks_cash=ledger.rules.cash_tracking)
    if whole is None or day < whole.start:
        assert found.accounts == {}
        return
    shown, column = rounded(whole), day - whole.start
    for name, field in IN_ROWS.items():
        assert same(getattr(found.whole, name), shown[field, 0, column]), (name, found.whole, shown[field, :, column])
    if not np.isnan(shown[VALUE, 1:, column]).any():
        assert same(found.whole.unrealized, shown[UNREALIZED, 0, column])
    for account, portion in found.accounts.items():
        place = whole.scopes.index((account, None))
        for name, field in IN_ROWS.items():
            assert same(getattr(portion, name), shown[field, place, column]), name
        if portion.change is not None:
            assert portion.value is not None
            assert portion.before is not None
            assert portion.flow is not None
            assert portion.change == pytest.approx(portion.value - portion.before - portion.flow, abs=1e-6)
            before = shown[VALUE, place, column - 1] if column else 0.0
            if not portion.incomplete:
                flow = shown[NET_FLOW, place, column]
                assert portion.change == pytest.approx(portion.value - before - flow, abs=0.011)
    for name in ("value", "before", "flow", "change"):
        assert sum_of(found, name) in (None, getattr(found.whole, name)), name


@settings(max_examples=100, deadline=None)
@given(ledgers(), markets())
def test_the_shares_of_a_day_add_up_to_one(ledger: Ledger, market: MarketData) -> None:
    whole = history(ledger, market, LAST)
    if whole is None:
        return
    found, shown = account_days(whole, whole.start, whole.end), rounded(whole)
    np.testing.assert_array_equal(found.values, shown[VALUE, 1:])
    for column in range(whole.days):
        shares = found.shares[:, column]
        if not shown[VALUE, 0, column] > 0:
            assert np.isnan(shares).all()
        elif not np.isnan(found.values[:, column]).any():
            assert shares.sum() == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(ledgers(), markets(), st.integers(0, 5))
def test_the_days_of_a_portfolio_alone_are_those_of_a_total_of_one(
    ledger: Ledger, market: MarketData, later: int
) -> None:
    whole = history(ledger, market, LAST)
    if whole is None:
        return
    shown = rounded(whole)
    parts = [
        Part(scope[0], whole, np.ones(whole.days), scope, shown[:, place])
        for place, scope in enumerate(whole.scopes)
        if scope[0] is not None
    ]
    got = account_days_of_all(parts, "USD", whole.start + later)
    if not parts or whole.start + later > whole.end:
        assert got is None
        return
    own = account_days(whole, whole.start + later, whole.end)
    assert got is not None
    assert (got.start, got.accounts) == (own.start, own.accounts)
    np.testing.assert_allclose(got.values, own.values)
    np.testing.assert_allclose(got.shares, own.shares)


def test_what_a_rate_did_is_part_of_the_change() -> None:
    one = Portion(value=110.0, before=100.0, change=10.0, base=100.0, cost=80.0)
    found = turned(one, 2.0, 1.5, 2)
    assert (found.value, found.before, found.change, found.flow, found.cost) == (220, 150, 70, 0, 160)
    assert found.percent == pytest.approx(100 * 70 / 150)
    assert turned(one, 1.0, 1.0, 2) == one


def test_without_a_rate_nothing_is_known_of_it() -> None:
    found = turned(Portion(value=110.0), None, 1.0, 2)
    assert (found.value, found.change, found.cost, found.percent) == (None, None, None, None)
    whole = together([found, Portion(value=10.0)], 2, tracks_cash=False)
    assert (whole.value, whole.cost, whole.incomplete) == (10, None, {"value", "change"})


def test_cash_that_nobody_keeps_is_not_nothing() -> None:
    untracked = replace(Portion(), cash=None)
    assert together([untracked, untracked], 2, tracks_cash=False).cash is None
    assert together([untracked, Portion(cash=5.0)], 2, tracks_cash=True).cash == 5
    assert together([], 2, tracks_cash=False).cash is None
    assert together([], 2, tracks_cash=True).cash == 0


@pytest.mark.parametrize(
    ("value", "whole", "share"),
    [
        (50.0, 200.0, 0.25),
        (-5.0, 10.0, -0.5),
        (5.0, 0.0, None),
        (5.0, -1.0, None),
        (None, 10.0, None),
        (5.0, None, None),
    ],
)
def test_a_share_is_of_more_than_nothing(value: float | None, whole: float | None, share: float | None) -> None:
    assert Portion(value=value).share_of(whole) == share
