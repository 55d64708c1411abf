"""Several portfolios as one: sums of what is shown, and a return weighed by capital."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings

from pricecache.core.history import GrossFlows, History, history
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.rows import rounded
from pricecache.core.totals import Part, total
from pricecache.core.valuation import COVERAGE, FIELDS, INDEX, NET_FLOW, VALUE
from tests.ledgers import ACCOUNTS, LAST, ledgers, markets

NOT_MONEY = (INDEX, COVERAGE)


def part(name: str, found: History, rate: float = 1.0) -> Part:
    return Part(name, found, np.full(found.days, rate))


def made(worth: list[float], flows: list[float], index: list[float], start: int = 100) -> History:
    values = np.zeros((len(FIELDS), 1, len(worth)))
    values[VALUE, 0], values[NET_FLOW, 0], values[INDEX, 0], values[COVERAGE, 0] = worth, flows, index, 1.0
    return History("USD", start, ((None, None),), values, np.zeros((1, len(worth)), np.bool_), {}, ())


@settings(max_examples=80, deadline=None)
@given(ledgers(), markets())
def test_the_total_of_one_is_that_one(ledger: Ledger, market: MarketData) -> None:
    found = history(ledger, market, LAST)
    if found is None:
        return
    whole = total([part("a", found)], "USD")
    assert (whole.start, whole.end) == (found.start, found.end)
    for field in range(len(FIELDS)):
        if field not in NOT_MONEY:
            np.testing.assert_array_equal(whole.values[field, 0], found.values[field, 0])
    np.testing.assert_array_equal(whole.of(INDEX), found.of(INDEX))


@settings(max_examples=120, deadline=None)
@given(ledgers(), markets())
def test_a_portfolio_cut_into_its_accounts_has_the_index_it_had_whole(ledger: Ledger, market: MarketData) -> None:
    together = ("split",)  # one that an account states is weighed against what the others say
    rows = [r for r in ledger.transactions if r.to_account is None and r.link is None and r.type not in together]
    whole = history(Ledger.of(rows, ledger.rules), market, LAST)
    if whole is None:
        return
    parts = []
    for account in ACCOUNTS:
        own = [row for row in rows if row.account == account]
        found = history(Ledger.of(own, ledger.rules), market, LAST)
        if found is not None:
            parts.append(part(account or "-", found))
    got = total(parts, "USD")
    assert got.start == whole.start
    np.testing.assert_allclose(got.of(INDEX), whole.of(INDEX), rtol=1e-9)
    np.testing.assert_allclose(got.of(VALUE), whole.of(VALUE), atol=1e-6)


def test_a_day_with_a_purchase_and_a_sale_divides_by_all_that_came_in() -> None:
    """On 100 a purchase of 100 and a sale of 100 at 10 % more: (110 + 100) over (100 + 100), as one portfolio says."""
    own = made([100, 110], [100, 0], [1.0, 1.05])
    flows = np.array([[[100.0, 100.0]], [[0.0, 100.0]]])
    whole = total([part("a", replace(own, gross=GrossFlows(100, *flows)))], "USD")
    np.testing.assert_allclose(whole.of(INDEX), [1.0, 1.05])
    assert whole.gross is not None
    assert whole.gross.inflow[0].tolist() == [100.0, 100.0]


def test_a_part_that_gets_its_first_rate_comes_in_with_its_worth() -> None:
    known, late = made([100, 100], [100, 0], [1.0, 1.0]), made([100, 110], [100, 0], [1.0, 1.1])
    whole = total([part("a", known), Part("b", late, np.array([np.nan, 2.0]))], "USD")
    np.testing.assert_allclose(whole.of(INDEX), [1.0, 320 / 300])


def test_all_together_owing_more_than_they_have_is_no_return() -> None:
    whole = total([part("a", made([100, -20], [100, 0], [1.0, np.nan]))], "USD")
    assert np.isnan(whole.of(INDEX)[1])


@settings(max_examples=80, deadline=None)
@given(ledgers(), ledgers(), markets())
def test_a_total_is_the_sum_of_what_is_shown(one: Ledger, other: Ledger, market: MarketData) -> None:
    found = [h for h in (history(one, market, LAST), history(other, market, LAST)) if h is not None]
    if not found:
        return
    shown = rounded(total([part(str(number), h) for number, h in enumerate(found)], "USD"))
    for field in range(len(FIELDS)):
        if field in NOT_MONEY or np.isnan(shown[field]).any():
            continue
        np.testing.assert_allclose(shown[field, 0], shown[field, 1:].sum(axis=0), atol=0.011)


def test_returns_are_weighed_by_capital() -> None:
    """100 that double beside 300 that stay: a quarter of 100 %."""
    whole = total(
        [
            part("a", made([100, 200], [100, 0], [1.0, 2.0])),
            part("b", made([300, 300], [300, 0], [1.0, 1.0])),
        ],
        "USD",
    )
    np.testing.assert_allclose(whole.of(INDEX), [1.0, 1.25])


def test_money_put_in_later_is_no_return() -> None:
    whole = total(
        [
            part("a", made([100, 110, 110], [100, 0, 0], [1.0, 1.1, 1.1])),
            part("b", made([1000], [1000], [1.0], start=102)),
        ],
        "USD",
    )
    np.testing.assert_allclose(whole.of(VALUE), [100, 110, 1110])
    np.testing.assert_allclose(whole.of(INDEX), [1.0, 1.1, 1.1])


def test_a_currency_that_rises_is_a_return() -> None:
    found = made([100, 100], [100, 0], [1.0, 1.0])
    whole = total([Part("a", found, np.array([1.0, 1.2]))], "USD")
    np.testing.assert_allclose(whole.of(INDEX), [1.0, 1.2])
    np.testing.assert_allclose(whole.of(VALUE), [100, 120])


def test_what_has_no_rate_is_left_out_and_never_taken_as_one() -> None:
    known, unknown = made([100, 110], [100, 0], [1.0, 1.1]), made([500, 500], [500, 0], [1.0, 1.0])
    whole = total([part("a", known), part("b", unknown, np.nan)], "USD")
    np.testing.assert_allclose(whole.of(VALUE), [100, 110])
    np.testing.assert_allclose(whole.of(INDEX), [1.0, 1.1])
    assert np.isnan(whole.of(NET_FLOW)).all()
