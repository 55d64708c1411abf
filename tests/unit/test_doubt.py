"""What is rarely true is parked, the rest of the answer is stored, and only what is accepted is measured by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pricecache.core.actions import Action
from pricecache.core.bars import CLOSE, VOLUME, Bars, concatenate
from pricecache.core.doubt import Judged, judge

FIRST = 20_000


def bars(closes: list[float], volume: float | list[float] = 50_000.0, first: int = FIRST) -> Bars:
    close = np.array(closes)
    volumes = np.full(len(close), volume) + (np.arange(len(close)) if isinstance(volume, float) else 0.0)
    return Bars(np.arange(first, first + len(close)), np.stack([close, close * 1.01, close * 0.99, close, volumes]))


def codes(judged: Judged) -> dict[int, str]:
    assert judged.parked.sessions.tolist() == [doubt.session for doubt in judged.doubts]
    assert all(doubt.detail for doubt in judged.doubts)
    return {doubt.session - FIRST: doubt.code for doubt in judged.doubts}


def level(around: float, count: int) -> list[float]:
    return [around * (1 + 0.01 * (i % 3)) for i in range(count)]


NOTHING = Bars.empty()


def test_a_clean_answer_is_good_as_a_whole() -> None:
    answered = bars(level(100.0, 30))
    judged = judge(answered, NOTHING, ())
    assert codes(judged) == {}
    assert (judged.good.values == answered.values).all()


@pytest.mark.parametrize("factor", [100.0, 0.01, 101.5])
def test_from_a_flip_of_the_unit_on_every_row_is_parked(factor: float) -> None:
    held = bars(level(100.0, 20))
    answered = bars([*level(100.0, 5), *level(100.0 * factor, 9)], first=FIRST + 15)
    assert codes(judge(answered, held, ())) == dict.fromkeys(range(20, 29), "unit_flip")


def test_rows_after_a_unit_flip_that_are_right_again_are_stored() -> None:
    answered = bars([*level(100.0, 10), *level(10_000.0, 3), *level(100.0, 5)])
    assert codes(judge(answered, NOTHING, ())) == dict.fromkeys((10, 11, 12), "unit_flip")


def test_with_nothing_held_the_present_unit_is_the_right_one() -> None:
    answered = bars([*level(1.0, 30), *level(100.0, 20)])
    assert codes(judge(answered, NOTHING, ())) == dict.fromkeys(range(30), "unit_flip")


def test_a_flip_on_the_last_days_of_a_first_answer_is_measured_by_what_lasted() -> None:
    assert codes(judge(bars([*level(100.0, 40), 10_000.0, 10_100.0]), NOTHING, ())) == {
        40: "unit_flip",
        41: "unit_flip",
    }


@pytest.mark.parametrize("after", range(1, 8))
def test_a_jump_is_parked_until_five_later_sessions_confirm_it(after: int) -> None:
    answered = bars([*level(100.0, 20), *level(12.0, after)])
    parked = codes(judge(answered, NOTHING, ()))
    assert parked == (dict.fromkeys(range(20, 20 + after), "jump") if after <= 5 else {})


def test_a_jump_against_what_is_held_is_parked_and_confirmed_alike() -> None:
    held = bars(level(100.0, 20))
    days = [bars([*level(100.0, 5), *level(12.0, n)], first=FIRST + 15) for n in range(1, 7)]
    assert [len(judge(day, held, ()).parked) for day in days] == [1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize(
    "action", [Action(FIRST + 20, "split", 8.0), Action(FIRST + 20, "dividend", 80.0), Action(FIRST + 20, "split", 0.1)]
)
def test_a_jump_on_the_day_of_an_action_is_none(action: Action) -> None:
    to = 100.0 / action.value if action.kind == "split" else 12.0
    assert codes(judge(bars([*level(100.0, 20), to]), NOTHING, [action])) == {}


@pytest.mark.parametrize("close", [30.0, 300.0, 900.0, 11.0])
def test_a_single_row_that_leaves_and_comes_back_is_a_spike(close: float) -> None:
    answered = bars([*level(100.0, 10), close, *level(101.0, 10)])
    assert codes(judge(answered, NOTHING, ())) == {10: "spike"}


@pytest.mark.parametrize("close", [55.0, 180.0])
def test_what_a_day_can_do_is_no_spike(close: float) -> None:
    assert codes(judge(bars([*level(100.0, 10), close, *level(100.0, 10)]), NOTHING, ())) == {}


def test_a_crash_that_lasts_is_history() -> None:
    assert codes(judge(bars([*level(100.0, 10), *level(3.0, 30)]), NOTHING, ())) == {}


def test_a_bar_that_a_person_approved_is_what_the_next_are_measured_by() -> None:
    held = bars([*level(100.0, 20), 12.0])
    assert codes(judge(bars(level(12.0, 3), first=FIRST + 21), held, ())) == {}


def test_a_correction_that_is_a_flip_of_the_unit_is_parked_and_one_back_is_not() -> None:
    held = bars(level(100.0, 10))
    wrong = bars([100.0, 10_000.0, 100.0], first=FIRST + 3)
    assert codes(judge(wrong, held, ())) == {4: "unit_flip"}
    spoiled = held.values.copy()
    spoiled[:VOLUME, 4] *= 100
    right = bars(level(100.0, 10)).between(FIRST + 3, FIRST + 5)
    assert codes(judge(right, Bars(held.sessions, spoiled), ())) == {}


def test_a_bar_that_repeats_itself_is_stuck_from_the_third_repetition_on() -> None:
    values = np.repeat(np.array([[10.0], [11.0], [9.0], [10.0], [700.0]]), 6, axis=1)
    answered = concatenate([bars(level(10.0, 5)), Bars(np.arange(FIRST + 5, FIRST + 11), values)])
    assert codes(judge(answered, NOTHING, ())) == {8: "stuck", 9: "stuck", 10: "stuck"}
    assert codes(judge(answered, NOTHING, (), may_stand_still=True)) == {}


@pytest.mark.parametrize("volume", [0.0, np.nan])
def test_a_halt_without_volume_is_not_stuck(volume: float) -> None:
    answered = bars([*level(10.0, 20), *[10.0] * 7], volume=[*[90_000.0] * 20, *[volume] * 7])
    assert codes(judge(answered, NOTHING, ())) == {}


def test_a_collapse_over_several_days_is_history_once_a_level_lasts() -> None:
    collapse = [60.0, 30.0, 17.0, 1.1, 0.1, *level(0.0003, 7)]
    assert codes(judge(bars([*level(80.0, 30), *collapse]), NOTHING, ())) == {}
    held = bars(level(80.0, 30))
    assert codes(judge(bars(collapse, first=FIRST + 30), held, ())) == {}
    assert codes(judge(bars([0.1, 1.1, 17.0, *level(80.0, 7)], first=FIRST + 30), bars(level(0.0003, 30)), ())) == {}


def test_what_lies_beside_the_way_from_one_level_to_the_next_is_no_part_of_it() -> None:
    answered = bars([*level(80.0, 30), 9.0, 900.0, *level(0.5, 7)])
    assert codes(judge(answered, NOTHING, ())) == {31: "jump"}


def test_the_first_bars_of_a_series_are_history_though_the_next_are_far_off() -> None:
    assert codes(judge(bars([17.0, *level(90.0, 3)]), NOTHING, ())) == {}
    assert codes(judge(bars([17.0, *level(90.0, 9)]), NOTHING, ())) == {}
    assert codes(judge(bars([0.9, *level(90.0, 9)]), NOTHING, ())) == {0: "unit_flip"}


def test_a_price_that_moves_by_a_tick_or_two_does_not_jump() -> None:
    ticks = [0.0001 * (1 + 2 * (i % 7 == 3)) for i in range(60)]
    assert codes(judge(bars(ticks), NOTHING, ())) == {}
    assert codes(judge(bars([close + 0.00001234 for close in ticks]), NOTHING, ())) != {}
    assert codes(judge(bars([1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0]), NOTHING, ())) == {3: "spike"}


def test_what_rarely_trades_may_stand_still() -> None:
    always = Bars(
        np.arange(FIRST, FIRST + 30), np.repeat(np.array([[10.0], [11.0], [9.0], [10.0], [700.0]]), 30, axis=1)
    )
    assert codes(judge(always, NOTHING, ())) == {}
    assert codes(judge(always.between(FIRST + 20, None), always.between(None, FIRST + 24), ())) == {}
    assert codes(judge(bars([10.0] * 30, volume=[0.0] * 30), NOTHING, ())) == {}
    assert codes(judge(bars([10.0] * 30, volume=[5.0, 0.0] * 15), NOTHING, ())) == {}


def test_day_by_day_the_same_bars_are_stuck_as_all_at_once() -> None:
    values = np.repeat(np.array([[10.0], [11.0], [9.0], [10.0], [700.0]]), 6, axis=1)
    held, parked = bars(level(10.0, 5)), []
    for day in range(5, 11):
        answered = Bars(np.arange(FIRST + 5, FIRST + day + 1), values[:, : day - 4])
        judged = judge(answered, held, ())
        held = Bars.of(
            np.concatenate([held.sessions, judged.good.sessions]),
            np.concatenate([held.values, judged.good.values], axis=1),
        )
        parked = judged.parked.sessions.tolist()
    assert parked == [FIRST + 8, FIRST + 9, FIRST + 10]


steps = st.lists(
    st.sampled_from([1.0, 1.01, 0.99, 100.0, 0.01, 5.0, 0.2, 3.0, 1 / 3, 20.0]), min_size=1, max_size=40
).map(lambda factors: (100 * np.cumprod(factors)).clip(1e-6, 1e9))


@given(closes=steps, held=st.sets(st.integers(0, 39)), seed=st.integers(0, 99))
def test_every_row_is_good_or_parked_equal_ones_are_good_and_their_order_does_not_matter(
    closes: NDArray[np.float64], held: set[int], seed: int
) -> None:
    answered = bars(closes.tolist())
    here = np.array(sorted(i for i in held if i < len(closes)), np.int64)
    record = Bars(answered.sessions[here], answered.values[:, here])
    judged = judge(answered, record, ())
    assert np.union1d(judged.good.sessions, judged.parked.sessions).tolist() == answered.sessions.tolist()
    assert not len(np.intersect1d(judged.good.sessions, judged.parked.sessions))
    assert not len(np.intersect1d(judged.parked.sessions, record.sessions))
    order = np.random.default_rng(seed).permutation(len(answered))
    shuffled = judge(Bars.of(answered.sessions[order], answered.values[:, order]), record, ())
    assert shuffled.parked.sessions.tolist() == judged.parked.sessions.tolist()
    assert np.isfinite(judged.good.values[CLOSE]).all()


@given(closes=steps)
def test_what_was_stored_is_judged_good_again(closes: NDArray[np.float64]) -> None:
    answered = bars(closes.tolist())
    first = judge(answered, NOTHING, ())
    assert len(first.good)
    again = judge(first.good, first.good, ())
    assert len(again.parked) == 0
