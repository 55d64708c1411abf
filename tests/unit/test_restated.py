"""The units of a row are judged by its price, as far as anything speaks for one or the other, and never guessed."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_number, day_of
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Transaction
from pricecache.core.restated import OLDEST_DAYS, TradedRange, judge

AAPL = Instrument("AAPL")
SEVEN, FOUR = (
    Action(day_number(day_of(day)), "split", ratio)
    for day, ratio in ((16_230, 7.0), (18_505, 4.0))  # 2014-06-09, 2020-08-31
)
CLOSES = {16_227: 645.57, 16_230: 93.70, 18_502: 499.23, 18_505: 129.04}


def traded(closes: dict[int, float] = CLOSES, *actions: Action, **facts: Any) -> TradedRange:
    close = np.array(list(closes.values()))
    values = np.array([close, close * 1.01, close * 0.99, close, np.full(len(close), 1e6)])
    bars = Bars(np.array(list(closes), np.int64), values)
    return TradedRange.of(bars, "USD", actions or (SEVEN, FOUR), **facts)


def buy(day: int, price: float | str, **facts: Any) -> Transaction:
    return Transaction(day, facts.pop("type", "buy"), AAPL, Decimal(10), Decimal(str(price)), **facts)


@pytest.mark.parametrize(
    ("day", "price", "verdict", "reason", "factor"),
    [
        (16_227, 645.57, "traded", "in_range", 28),
        (16_227, "23.05607", "adjusted", "in_adjusted_range", 28),
        (16_227, 645.57 / 7, "ambiguous", "neither_fits", 28),
        (16_230, 93.70, "traded", "in_range", 4),
        (16_230, 93.70 / 4, "adjusted", "in_adjusted_range", 4),
        (18_502, 499.23, "traded", "in_range", 4),
        (18_502, "124.81", "adjusted", "in_adjusted_range", 4),
        (18_502, 12.48, "ambiguous", "neither_fits", 4),
        (18_505, 129.04, "traded", "no_split_since", 1),
        (18_505, 3.5, "traded", "no_split_since", 1),
    ],
)
def test_a_price_is_held_against_the_range_of_its_day(
    day: int, price: float, verdict: str, reason: str, factor: int
) -> None:
    units = judge(buy(day, price), traded())
    assert units is not None
    assert (units.verdict, units.reason, units.factor) == (verdict, reason, factor)


def test_the_evidence_is_told() -> None:
    units = judge(buy(18_502, 125), traded())
    assert units is not None
    assert units.splits == ((18_505, Fraction(4)),)
    assert (units.session, units.low, units.high) == (
        18_502,
        pytest.approx(494.24, abs=0.01),
        pytest.approx(504.22, abs=0.01),
    )


def test_a_day_without_a_bar_is_held_against_the_session_before() -> None:
    sunday = 18_504
    for price, verdict in ((450, "traded"), (115, "adjusted"), (380, "ambiguous")):
        units = judge(buy(sunday, price), traded())
        assert units is not None
        assert (units.verdict, units.session) == (verdict, 18_502)


def test_a_split_between_the_bar_and_the_day_is_counted_once() -> None:
    """The bar before it is turned into the units of the day; only what comes later can have been worked in."""
    units = judge(buy(16_231, 92), traded({16_227: 645.57}))
    assert units is not None
    assert (units.verdict, units.factor, units.low) == ("traded", 4, pytest.approx(645.57 * 0.99 / 7))
    restated = judge(buy(16_231, 23), traded({16_227: 645.57}))
    assert restated is not None
    assert restated.verdict == "adjusted"


def test_a_small_split_fits_both_and_stays_open() -> None:
    units = judge(buy(18_502, 500), traded(CLOSES, Action(18_505, "split", 1.02)))
    assert units is not None
    assert (units.verdict, units.reason) == ("ambiguous", "both_fit")
    assert not units.contradicts(True)
    assert not units.contradicts(False)


def test_a_reverse_split_is_seen_too() -> None:
    units = judge(buy(18_502, 4992), traded(CLOSES, Action(18_505, "split", 0.1)))
    assert units is not None
    assert units.verdict == "adjusted"


def test_without_a_price_of_about_that_day_nothing_is_said() -> None:
    for day in (16_000, 18_502 - 40, 16_230 + OLDEST_DAYS + 1):
        units = judge(buy(day, 100), traded())
        assert units is not None
        assert (units.verdict, units.reason) == ("ambiguous", "no_price")


def test_hundredths_are_turned_and_other_currencies_are_not() -> None:
    pence = TradedRange(np.array([18_502]), np.array([490.0]), np.array([500.0]), "GBp", (FOUR,))
    for currency, price, verdict, reason in (
        ("GBP", 4.95, "traded", "in_range"),
        ("GBp", 495, "traded", "in_range"),
        ("GBP", 1.24, "adjusted", "in_adjusted_range"),
        ("USD", 6, "ambiguous", "other_currency"),
    ):
        units = judge(buy(18_502, price, currency=currency), pence)
        assert units is not None
        assert (units.verdict, units.reason) == (verdict, reason), currency


def test_what_is_not_known_yet_is_said_to_be_so() -> None:
    for nothing in (None, traded(is_known=False)):
        units = judge(buy(18_502, 500), nothing)
        assert units is not None
        assert (units.verdict, units.reason) == ("ambiguous", "not_known_yet")
    own = Transaction(18_502, "buy", Instrument("FUND", "CUSTOM"), Decimal(1), Decimal(5))
    units = judge(own, None)
    assert units is not None
    assert units.reason == "no_split_since"


@pytest.mark.parametrize("kind", ["transfer_in", "opening", "dividend", "deposit"])
def test_prices_that_need_not_be_of_their_day_are_not_judged(kind: str) -> None:
    assert judge(buy(18_502, 500, type=kind), traded()) is None


@given(
    ratios=st.lists(st.sampled_from([2.0, 3.0, 4.0, 7.0, 1.5, 0.1, 0.05]), min_size=1, max_size=3),
    close=st.floats(0.5, 5000),
    inside=st.floats(-0.009, 0.009),
)
def test_a_traded_price_is_never_taken_for_a_restated_one(ratios: list[float], close: float, inside: float) -> None:
    """As traded and restated are two answers for every product of splits that is not near 1, and never one for both."""
    splits = [Action(18_503 + place, "split", ratio) for place, ratio in enumerate(ratios)]
    known, factor = traded({18_502: close}, *splits), float(np.prod(ratios))
    price = close * (1 + inside)
    as_traded, restated = judge(buy(18_502, f"{price:.9f}"), known), judge(buy(18_502, f"{price / factor:.9f}"), known)
    assert as_traded is not None
    assert restated is not None
    assert not as_traded.contradicts(False)
    assert not restated.contradicts(True)
    if abs(np.log(factor)) > 0.1:
        assert (as_traded.verdict, restated.verdict) == ("traded", "adjusted")
        assert as_traded.contradicts(True)
        assert restated.contradicts(False)


@given(price=st.floats(0.01, 10_000), day=st.integers(16_200, 18_520))
def test_it_always_comes_to_one_of_three_verdicts(price: float, day: int) -> None:
    units = judge(buy(day, f"{price:.4f}"), traded())
    assert units is not None
    assert units.verdict in ("traded", "adjusted", "ambiguous")
    assert (units.factor == 1) == (not units.splits)
    assert units.contradicts(False) == (units.verdict == "adjusted")
