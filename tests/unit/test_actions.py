"""Actions are facts; what they do to prices is worked out when these are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.actions import (
    Action,
    adjusted,
    dividend_factors,
    merge_actions,
    preferred,
    split_factors,
    withdrawn,
)
from pricecache.core.bars import Bars

DAY = 20_000


def bars(closes: list[float], volume: float = 1000.0) -> Bars:
    close = np.array(closes)
    return Bars(np.arange(DAY, DAY + len(close)), np.stack([close, close, close, close, np.full(len(close), volume)]))


def test_a_split_divides_earlier_prices_and_multiplies_earlier_volumes() -> None:
    seen = adjusted(bars([400.0, 404.0, 101.0]), [Action(DAY + 2, "split", 4.0)], "splits")
    assert seen.close.tolist() == [100.0, 101.0, 101.0]
    assert seen.volume.tolist() == [4000.0, 4000.0, 1000.0]


def test_as_traded_is_left_as_it_was() -> None:
    traded = bars([400.0, 101.0])
    assert adjusted(traded, [Action(DAY + 1, "split", 4.0)], "none") is traded
    assert adjusted(traded, [], "all") is traded


def test_a_rebase_changes_prices_only() -> None:
    seen = adjusted(bars([150.0, 100.0]), [Action(DAY + 1, "rebase", 1.5)], "splits")
    assert seen.close.tolist() == [100.0, 100.0]
    assert seen.volume.tolist() == [1000.0, 1000.0]


def test_a_dividend_takes_its_share_off_earlier_prices_only_when_all_is_asked_for() -> None:
    traded, dividend = bars([100.0, 100.0, 98.0]), [Action(DAY + 2, "dividend", 2.0, "USD")]
    assert adjusted(traded, dividend, "splits") is traded
    assert adjusted(traded, dividend, "all").close.tolist() == pytest.approx([98.0, 98.0, 98.0])


def test_a_dividend_is_measured_by_the_last_close_as_traded_before_it() -> None:
    actions = [Action(DAY + 1, "dividend", 40.0), Action(DAY + 2, "split", 4.0)]
    factors = dividend_factors(bars([400.0, 360.0, 90.0]), actions)
    assert factors.tolist() == pytest.approx([0.9, 1.0, 1.0])


def test_a_dividend_on_the_day_of_a_split_is_cash_for_the_new_shares() -> None:
    actions = [Action(DAY + 1, "dividend", 1.0), Action(DAY + 1, "split", 2.0)]
    assert dividend_factors(bars([100.0, 49.0]), actions).tolist() == pytest.approx([0.98, 1.0])
    assert adjusted(bars([100.0, 49.0]), actions, "all").close.tolist() == pytest.approx([49.0, 49.0])


def test_a_split_on_a_day_without_a_bar_before_a_dividend_counts_as_well() -> None:
    sessions, close = np.array([DAY, DAY + 3]), np.array([100.0, 49.0])
    gapped = Bars(sessions, np.stack([close] * 5))
    actions = [Action(DAY + 1, "split", 2.0), Action(DAY + 3, "dividend", 1.0), Action(DAY + 9, "split", 5.0)]
    assert dividend_factors(gapped, actions).tolist() == pytest.approx([0.98, 1.0])


@pytest.mark.parametrize(("hundredth", "unit"), [("GBp", "GBP"), ("ZAc", "ZAR"), ("ILA", "ILS")])
def test_a_dividend_in_units_counts_a_hundredfold_in_hundredths(hundredth: str, unit: str) -> None:
    traded = bars([400.0, 300.0])
    one = [Action(DAY + 1, "dividend", 1.0, unit)]
    assert adjusted(traded, one, "all", hundredth).close.tolist() == pytest.approx([300.0, 300.0])
    hundred = [Action(DAY + 1, "dividend", 100.0, hundredth)]
    assert adjusted(traded, hundred, "all", unit).close.tolist() == pytest.approx([399.0, 300.0])
    assert adjusted(traded, hundred, "all", hundredth).close.tolist() == pytest.approx([300.0, 300.0])


def test_a_dividend_in_a_currency_without_a_fixed_rate_is_left_out() -> None:
    traded, dollars = bars([100.0, 98.0]), [Action(DAY + 1, "dividend", 2.0, "USD")]
    assert adjusted(traded, dollars, "all", "GBp") is traded
    assert adjusted(traded, dollars, "all").close[0] == pytest.approx(98.0)
    assert adjusted(traded, [Action(DAY + 1, "dividend", 2.0)], "all", "GBp").close[0] == pytest.approx(98.0)


@pytest.mark.parametrize("dividend", [Action(DAY, "dividend", 1.0), Action(DAY + 1, "dividend", 100.0)])
def test_a_dividend_that_cannot_be_measured_is_left_out(dividend: Action) -> None:
    assert dividend_factors(bars([100.0, 100.0]), [dividend]).tolist() == [1.0, 1.0]


def test_splits_of_days_without_a_bar_count_for_all_before_them() -> None:
    sessions = np.array([DAY, DAY + 3])
    assert split_factors(sessions, [Action(DAY + 2, "split", 2.0), Action(DAY + 9, "split", 3.0)]).tolist() == [6, 3]


@given(
    closes=st.lists(st.floats(1, 1000), min_size=2, max_size=30),
    splits=st.dictionaries(st.integers(DAY - 2, DAY + 40), st.floats(0.05, 20), max_size=4),
)
def test_a_split_leaves_the_value_of_a_holding_and_its_turnover_unchanged(
    closes: list[float], splits: dict[int, float]
) -> None:
    actions = [Action(day, "split", ratio) for day, ratio in splits.items()]
    traded = bars(closes)
    seen = adjusted(traded, actions, "splits")
    assert seen.close * seen.volume == pytest.approx(traded.close * traded.volume)
    later = [ratio for day, ratio in splits.items() if day > DAY]
    assert traded.close[0] == pytest.approx(seen.close[0] * np.prod(later))


@given(
    closes=st.lists(st.floats(10, 1000), min_size=3, max_size=30),
    cut=st.integers(0, 29),
    splits=st.dictionaries(st.integers(DAY, DAY + 40), st.floats(0.1, 10), max_size=3),
)
def test_a_part_of_a_series_is_split_adjusted_as_within_the_whole(
    closes: list[float], cut: int, splits: dict[int, float]
) -> None:
    actions = [Action(day, "split", ratio) for day, ratio in splits.items()]
    traded = bars(closes)
    part = adjusted(traded.between(None, DAY + cut), actions, "splits")
    whole = adjusted(traded, actions, "splits").between(None, DAY + cut)
    assert part.values == pytest.approx(whole.values)


def test_merging_adds_replaces_and_keeps_in_order() -> None:
    held = (Action(DAY, "dividend", 1.0), Action(DAY + 5, "split", 2.0))
    new = [Action(DAY + 2, "dividend", 3.0), Action(DAY + 5, "split", 4.0)]
    merged = merge_actions(held, new)
    assert [(a.ex_date - DAY, a.kind, a.value) for a in merged] == [
        (0, "dividend", 1.0),
        (2, "dividend", 3.0),
        (5, "split", 4.0),
    ]


def test_an_equal_action_changes_nothing_not_even_by_rounding() -> None:
    held = (Action(DAY, "dividend", 0.77, "USD", source="a"),)
    assert merge_actions(held, [Action(DAY, "dividend", 0.77 * (1 + 1e-9), "USD", source="b")]) == held


def test_a_manual_action_covers_a_providers_and_both_are_kept() -> None:
    held = (Action(DAY, "split", 3.0, manual=True),)
    both = merge_actions(held, [Action(DAY, "split", 2.0)])
    assert [action.value for action in both] == [2.0, 3.0]
    assert preferred(both) == held
    assert [action.value for action in preferred(both, by_hand=False)] == [2.0]
    assert merge_actions(held, [Action(DAY, "split", 2.0, manual=True)])[0].value == 2.0


def test_what_a_provider_lists_no_more_in_the_range_it_answers_for_is_withdrawn() -> None:
    dividend, split = Action(DAY + 1, "dividend", 1.0, source="a"), Action(DAY + 2, "split", 2.0, source="a")
    mine = Action(DAY + 3, "dividend", 1.0, source="manual", manual=True)
    other = Action(DAY + 4, "dividend", 2.0, source="b")
    held = (dividend, split, mine, other)
    assert withdrawn(held, [split], DAY, DAY + 9, "a") == (dividend,)
    assert withdrawn(held, [split], DAY, DAY + 9, "b") == (other,)
    assert withdrawn(held, [], DAY + 2, DAY + 3, "a") == (split,)
    # another value is a correction, no withdrawal; another kind on that day is another action
    assert withdrawn((dividend,), [Action(DAY + 1, "dividend", 1.5)], DAY, DAY + 9, "a") == ()
    assert withdrawn((dividend,), [Action(DAY + 1, "split", 1.5)], DAY, DAY + 9, "a") == (dividend,)
