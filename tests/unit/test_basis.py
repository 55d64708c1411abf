"""What a provider adjusted for splits comes back as it was traded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.actions import Action, adjusted
from pricecache.core.bars import Bars, same_values
from pricecache.core.basis import (
    as_declared,
    as_traded,
    listed_once,
    require_explained,
    require_worked_in_throughout,
    worked_in,
)
from pricecache.errors import ProviderAnswerBad


def bars(closes: list[float], volume: float = 1000.0, first: int = 20_000) -> Bars:
    close = np.array(closes)
    return Bars(
        np.arange(first, first + len(close)),
        np.stack([close * 0.99, close * 1.02, close * 0.98, close, np.full(len(close), volume)]),
    )


def float32(given: Bars) -> Bars:
    return Bars(given.sessions, given.values.astype(np.float32).astype(np.float64))


def test_prices_before_a_split_are_multiplied_and_volumes_divided() -> None:
    split = Action(20_002, "split", 4.0)
    traded = as_traded(bars([100.0, 110.0, 120.0], volume=4000.0), [split])
    assert traded.close.tolist() == [400.0, 440.0, 120.0]
    assert traded.volume.tolist() == [1000.0, 1000.0, 4000.0]


def test_a_split_after_the_last_bar_is_worked_in_too() -> None:
    assert as_traded(bars([50.0]), [Action(20_400, "split", 2.0)]).close.tolist() == [100.0]


def test_a_reverse_split_and_an_odd_ratio_are_undone() -> None:
    actions = [Action(20_001, "split", 0.1), Action(20_002, "split", 1.5)]
    assert as_traded(bars([300.0, 30.0, 20.0]), actions).close.tolist() == pytest.approx([45.0, 45.0, 20.0])


def test_without_splits_the_very_same_bars_come_back() -> None:
    answered = bars([1.0, 2.0])
    assert as_traded(answered, ()) is answered
    assert worked_in(answered, [Action(20_001, "dividend", 0.5)], Bars.empty()) == ()


@given(
    closes=st.lists(st.floats(0.05, 900_000), min_size=1, max_size=40),
    splits=st.dictionaries(
        st.integers(19_990, 20_050), st.sampled_from([2.0, 4.0, 7.0, 20.0, 1.5, 1.1, 0.1, 0.05]), max_size=3
    ),
)
def test_a_providers_float32_round_trip_comes_back_as_the_same_bars(
    closes: list[float], splits: dict[int, float]
) -> None:
    actions = [Action(day, "split", ratio) for day, ratio in splits.items()]
    truth = bars(closes, volume=123_456.0)
    back = as_traded(float32(adjusted(truth, actions, "splits")), actions)
    assert same_values(truth.values, back.values).all()


def test_dividends_rescaled_by_later_splits_come_back_as_declared() -> None:
    splits = (Action(20_010, "split", 7.0), Action(20_020, "split", 4.0))
    answered = (Action(20_005, "dividend", 2.65 / 28), Action(20_015, "dividend", 3.29 / 4), *splits)
    values = [action.value for action in as_declared(answered, splits, ())]
    assert values == pytest.approx([2.65, 3.29, 7.0, 4.0], rel=1e-9)


def test_a_dividend_after_the_last_split_is_left_alone() -> None:
    answered = (Action(20_020, "dividend", 0.25),)
    assert as_declared(answered, [Action(20_010, "split", 4.0)], ()) == answered


def test_a_dividend_that_differs_by_the_vendors_rounding_is_the_one_held() -> None:
    held = (Action(20_005, "dividend", 2.65),)
    split = (Action(20_010, "split", 7.0),)
    (rounded,) = as_declared([Action(20_005, "dividend", round(2.65 / 7, 6))], split, held)
    assert rounded.value == 2.65
    (corrected,) = as_declared([Action(20_005, "dividend", 2.66 / 7)], split, held)
    assert corrected.value == pytest.approx(2.66)


HELD = [100.0, 101.0, 99.0, 98.0, 100.0]


def refusal(answered: list[float], held: list[float]) -> ProviderAnswerBad:
    with pytest.raises(ProviderAnswerBad) as refused:
        require_explained(bars(answered), bars(held))
    return refused.value


@pytest.mark.parametrize("ratio", [0.5, 100.0, 0.01, 1 / 1.1])
def test_a_constant_ratio_over_the_whole_overlap_is_refused(ratio: float) -> None:
    refused = refusal([close * ratio for close in HELD], HELD)
    assert refused.code == "basis_unexplained"
    assert refused.facts["ratio"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    "answered",
    [
        pytest.param([25.0, 25.25, 24.75, 98.0, 100.0], id="three of five by a split"),
        pytest.param([100.0, 101.0, 99.0, 24.5, 25.0], id="two of five by a split"),
        pytest.param([130.0, 70.0, 99.0, 98.0, 100.0], id="two of five anyhow"),
        pytest.param([25.0, 26.0, 24.0, 25.0, 23.0], id="all by about a split"),
    ],
)
def test_several_sessions_that_are_far_off_by_different_ratios_are_refused(answered: list[float]) -> None:
    assert refusal(answered, HELD).code == "basis_mixed"


@pytest.mark.parametrize(
    "answered",
    [
        pytest.param(HELD, id="equal"),
        pytest.param([close * 1.0005 for close in HELD], id="within a thousandth"),
        pytest.param([100.0, 105.0, 99.0, 98.0, 100.0], id="one correction"),
        pytest.param([100.0, 25.25, 99.0, 98.0, 100.0], id="one correction of any size"),
        pytest.param([101.0, 103.0, 96.0, 99.0, 118.0], id="many corrections"),
    ],
)
def test_agreement_and_corrections_pass(answered: list[float]) -> None:
    require_explained(bars(answered), bars(HELD))


def test_some_rows_in_another_unit_are_no_change_of_basis() -> None:
    require_explained(bars([100.0, 101.0, 99.0, 9800.0, 10_000.0]), bars(HELD))
    assert refusal([100.0, 25.0, 25.0, 9800.0, 10_000.0], HELD).code == "basis_mixed"


def test_without_overlap_there_is_nothing_to_compare() -> None:
    require_explained(bars([50.0], first=20_000), bars([100.0], first=20_001))
    require_explained(Bars.empty(), bars([100.0]))


def test_one_session_alone_is_a_correction_unless_it_is_far_off() -> None:
    require_explained(bars([103.0]), bars([100.0]))
    assert refusal([50.0], [100.0]).code == "basis_unexplained"


AS_TRADED = [400.0, 408.0, 396.0, 101.0, 99.0, 100.0]
SPLIT = Action(20_003, "split", 4.0)


def adjusted_for(split: Action, closes: list[float] = AS_TRADED) -> Bars:
    return adjusted(bars(closes), [split], "splits")


@pytest.mark.parametrize("ratio", [4.0, 1.5, 1.25, 0.1])
def test_a_split_that_shows_as_the_jump_it_was_is_not_worked_in(ratio: float) -> None:
    split = Action(20_003, "split", ratio)
    closes = [100.0 * ratio] * 3 + [101.0, 99.0, 100.0]
    assert worked_in(bars(closes), [split], Bars.empty()) == ()
    assert worked_in(adjusted_for(split, closes), [split], Bars.empty()) == (split,)


def test_of_two_splits_each_is_judged_by_its_own_jump() -> None:
    later = Action(20_005, "split", 2.0)
    closes = [*AS_TRADED[:5], 50.0]
    assert worked_in(adjusted_for(later, closes), [SPLIT, later], Bars.empty()) == (later,)


@pytest.mark.parametrize("ratio", [1.05, 1.2, 0.9])
def test_a_split_that_a_day_can_hide_is_taken_as_worked_in(ratio: float) -> None:
    split = Action(20_001, "split", ratio)
    assert worked_in(bars([100.0, 100.0 / ratio]), [split], Bars.empty()) == (split,)


@pytest.mark.parametrize("ex_date", [20_000, 20_006, 20_400])
def test_a_split_before_or_after_all_bars_is_taken_as_worked_in(ex_date: int) -> None:
    split = Action(ex_date, "split", 4.0)
    assert worked_in(bars(AS_TRADED), [split], Bars.empty()) == (split,)


def test_what_is_held_decides_against_the_jump() -> None:
    """A price that fell to a quarter by itself on the day of a split that is worked in."""
    crash = bars([1600.0, 1600.0, 1600.0, 100.0, 100.0, 100.0])
    answered = adjusted(crash, [SPLIT], "splits")
    assert worked_in(answered, [SPLIT], Bars.empty()) == ()
    assert worked_in(answered, [SPLIT], crash.between(20_001, 20_002)) == (SPLIT,)


def test_what_is_held_after_a_split_leaves_the_jump_to_decide() -> None:
    assert worked_in(bars(AS_TRADED), [SPLIT], bars(AS_TRADED).between(20_003, None)) == ()


@pytest.mark.parametrize("ratio", [4.0, 1.5, 0.1])
def test_a_split_worked_in_twice_shows_as_its_jump_the_other_way_round(ratio: float) -> None:
    split = Action(20_003, "split", ratio)
    closes = [100.0 * ratio] * 3 + [101.0, 99.0, 100.0]
    twice = adjusted(bars(closes), [split, split], "splits")
    assert worked_in(twice, [split], Bars.empty()) == (split, split)
    assert as_traded(twice, [split, split]).close.tolist() == pytest.approx(closes)


def test_a_small_split_and_a_rise_are_told_apart_only_by_what_is_held() -> None:
    split = Action(20_003, "split", 1.3)
    closes = [130.0] * 3 + [101.0, 99.0, 100.0]
    twice = adjusted(bars(closes), [split, split], "splits")
    assert worked_in(twice, [split], Bars.empty()) == (split,)
    assert worked_in(twice, [split], bars(closes).between(None, 20_001)) == (split, split)


def test_without_any_bar_after_it_what_is_held_says_whether_a_split_is_worked_in() -> None:
    split = Action(20_010, "split", 4.0)
    held = bars(AS_TRADED)
    assert worked_in(held, [split], held) == ()
    assert worked_in(adjusted(held, [split], "splits"), [split], held) == (split,)
    earlier = Action(20_003, "split", 4.0)
    both = adjusted(held, [earlier], "splits")
    assert worked_in(both, [earlier, split], held) == (earlier,)


@pytest.mark.parametrize("rows", [[2], [1, 2], [3], [3, 4]])
def test_rows_beside_a_split_that_were_left_out_are_noticed_without_anything_held(rows: list[int]) -> None:
    answered = adjusted_for(SPLIT)
    values = answered.values.copy()
    values[:4, rows] *= 4.0 if rows[0] < 3 else 0.25
    with pytest.raises(ProviderAnswerBad) as refused:
        require_worked_in_throughout(Bars(answered.sessions, values), [SPLIT])
    assert refused.value.code == "basis_mixed"
    require_worked_in_throughout(answered, [SPLIT])
    require_worked_in_throughout(bars(AS_TRADED), [SPLIT])


def test_a_split_listed_twice_is_the_one_held_else_the_one_that_shows_else_the_later() -> None:
    one, other = Action(20_002, "split", 4.0), Action(20_003, "split", 4.0)
    smooth = adjusted_for(other)
    assert listed_once([one, other], (), smooth) == (other,)
    assert listed_once([one, other], [one], smooth) == (one,)
    assert listed_once([one, other], [other], smooth) == (other,)
    early = bars([400.0, 408.0, 99.0, 101.0, 99.0, 100.0])
    assert listed_once([one, other], (), early) == (one,)
    far, unlike = Action(20_030, "split", 4.0), Action(20_004, "split", 2.0)
    assert listed_once([one, far], (), smooth) == (one, far)
    assert listed_once([one, unlike], (), smooth) == (one, unlike)


def test_a_dividend_is_again_only_what_another_source_says_of_it() -> None:
    held = [Action(20_002, "dividend", 0.5, "USD", "one")]
    twin = Action(20_003, "dividend", 0.5, "USD", "other")
    assert listed_once([twin], held, Bars.empty()) == ()
    own = Action(20_003, "dividend", 0.5, "USD", "one")
    assert listed_once([own], held, Bars.empty()) == (own,)


@pytest.mark.parametrize(
    ("ratio", "volume", "suggested"),
    [(0.25, True, 4.0), (10.0, True, 0.1), (2 / 3, True, 1.5), (0.25, False, None), (0.8137, True, None)],
)
def test_a_constant_ratio_with_the_volume_the_other_way_round_suggests_a_split(
    ratio: float, volume: bool, suggested: float | None
) -> None:
    held = bars(HELD)
    values = held.values.copy()
    values[:4] *= ratio
    values[4] /= ratio if volume else 1.0
    with pytest.raises(ProviderAnswerBad) as refused:
        require_explained(Bars(held.sessions, values), held)
    suggestion = refused.value.facts["suggestion"]
    assert suggestion == (None if suggested is None else {"kind": "split", "ratio": pytest.approx(suggested)})
    assert (refused.value.facts["first"], refused.value.facts["last"]) == (20_000, 20_004)


@given(
    closes=st.lists(st.floats(0.05, 900_000), min_size=1, max_size=40),
    splits=st.dictionaries(st.integers(19_990, 20_050), st.sampled_from([2.0, 4.0, 1.5, 0.1]), max_size=3),
)
def test_what_a_holding_is_worth_is_the_same_with_splits_applied_or_not(
    closes: list[float], splits: dict[int, float]
) -> None:
    actions = [Action(day, "split", ratio) for day, ratio in splits.items()]
    traded = bars(closes)
    day_by_day = np.array([np.prod([r for d, r in splits.items() if d <= s]) for s in traded.sessions])
    in_the_end = np.prod(list(splits.values()))
    worth = traded.close * day_by_day
    assert worth == pytest.approx(adjusted(traded, actions, "splits").close * in_the_end, rel=1e-9)
