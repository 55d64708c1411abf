"""What a provider adjusted for splits comes back as it was traded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.actions import Action, adjusted
from pricecache.core.bars import Bars, same_values
from pricecache.core.basis import as_declared, as_traded, explained
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
    assert as_traded(answered, [Action(20_001, "dividend", 0.5)]) is answered


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
    values = [action.value for action in as_declared(answered, splits)]
    assert values == pytest.approx([2.65, 3.29, 7.0, 4.0], rel=1e-9)


def test_a_dividend_after_the_last_split_is_left_alone() -> None:
    answered = (Action(20_020, "dividend", 0.25),)
    assert as_declared(answered, [Action(20_010, "split", 4.0)]) == answered


def test_a_constant_ratio_over_the_whole_overlap_is_refused() -> None:
    held = bars([100.0, 101.0, 99.0, 98.0])
    with pytest.raises(ProviderAnswerBad) as refused:
        explained(bars([50.0, 50.5, 49.5, 49.0, 48.0]), held)
    assert refused.value.code == "basis_unexplained"
    assert refused.value.facts["ratio"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "answered",
    [
        pytest.param([100.0, 101.0, 99.0, 98.0], id="equal"),
        pytest.param([100.05, 101.05, 99.05, 98.05], id="within a thousandth"),
        pytest.param([100.0, 105.0, 99.0, 98.0], id="one correction"),
        pytest.param([101.0, 103.0, 96.0, 99.0], id="many corrections"),
    ],
)
def test_agreement_and_corrections_pass(answered: list[float]) -> None:
    explained(bars(answered), bars([100.0, 101.0, 99.0, 98.0]))


def test_without_overlap_there_is_nothing_to_compare() -> None:
    explained(bars([50.0], first=20_000), bars([100.0], first=20_001))
    explained(Bars.empty(), bars([100.0]))


def test_one_session_alone_is_a_correction_unless_it_is_far_off() -> None:
    explained(bars([103.0]), bars([100.0]))
    with pytest.raises(ProviderAnswerBad):
        explained(bars([50.0]), bars([100.0]))
