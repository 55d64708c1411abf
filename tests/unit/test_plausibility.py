"""Every bad row is refused with its reason, and no good row with it."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.bars import CLOSE, Bars, day_number
from pricecache.core.plausibility import check, check_manual
from pricecache.core.sessions import every_day

FIRST = day_number(date(2026, 1, 5))
CALENDAR = every_day("24/5", FIRST, FIRST + 100, weekdays_only=True)
LAG = 1800.0
NOW = (FIRST + 30) * 86400.0
NAN, INF = math.nan, math.inf
GOOD = (10.0, 11.0, 9.0, 10.5, 1000.0)


def rows(*given: tuple[int, tuple[float, ...]]) -> Bars:
    return Bars.of([FIRST + day for day, _ in given], np.array([row for _, row in given]).T)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ((10.0, 11.0, 9.0, NAN, 1.0), "bad_close"),
        ((10.0, 11.0, 9.0, INF, 1.0), "bad_close"),
        ((10.0, 11.0, 9.0, 0.0, 1.0), "bad_close"),
        ((10.0, 11.0, 9.0, -5.0, 1.0), "bad_close"),
        ((10.0, 11.0, 9.0, 8.99, 1.0), "outside_range"),
        ((0.0, 11.0, 9.0, 12.0, 1.0), "outside_range"),
        ((10.0, 9.0, 11.0, 12.0, 1.0), "high_below_low"),
    ],
)
def test_a_bad_row_is_refused_and_its_neighbours_are_kept(row: tuple[float, ...], code: str) -> None:
    checked = check(rows((0, GOOD), (1, row), (2, GOOD)), CALENDAR, NOW, LAG)
    assert checked.good.sessions.tolist() == [FIRST, FIRST + 2]
    assert [(r.session, r.code) for r in checked.rejections] == [(FIRST + 1, code)]
    assert checked.rejections[0].detail
    assert checked.fields == ()


@pytest.mark.parametrize(
    ("row", "left", "code"),
    [
        ((10.0, INF, 9.0, 10.0, 1.0), (10.0, NAN, 9.0, 10.0, 1.0), "bad_price"),
        ((0.0, 11.0, 9.0, 10.0, 1.0), (NAN, 11.0, 9.0, 10.0, 1.0), "bad_price"),
        ((0.0, 0.0, 0.0, 10.0, 0.0), (NAN, NAN, NAN, 10.0, 0.0), "bad_price"),
        ((10.0, 11.0, -9.0, 10.0, 1.0), (10.0, 11.0, NAN, 10.0, 1.0), "bad_price"),
        ((10.0, 9.0, 11.0, 10.0, 1.0), (10.0, NAN, NAN, 10.0, 1.0), "high_below_low"),
        ((12.0, 11.0, 9.0, 10.0, 1.0), (NAN, 11.0, 9.0, 10.0, 1.0), "outside_range"),
        ((10.0, 11.0, 9.0, 10.0, -1.0), (10.0, 11.0, 9.0, 10.0, NAN), "bad_volume"),
        ((10.0, 11.0, 9.0, 10.0, INF), (10.0, 11.0, 9.0, 10.0, NAN), "bad_volume"),
    ],
)
def test_of_a_row_with_a_good_close_only_what_is_impossible_becomes_unknown(
    row: tuple[float, ...], left: tuple[float, ...], code: str
) -> None:
    checked = check(rows((0, GOOD), (1, row)), CALENDAR, NOW, LAG)
    assert np.array_equal(checked.good.values, np.array([GOOD, left]).T, equal_nan=True)
    assert checked.rejections == ()
    assert [(r.session, r.code) for r in checked.fields] == [(FIRST + 1, code)]
    assert "the close is stored, without" in checked.fields[0].detail


@pytest.mark.parametrize(
    "row",
    [
        (NAN, NAN, NAN, 10.0, NAN),
        (10.0, 11.0, 9.0, 11.0005, 0.0),  # Yahoo rounds the four apart
        (10.0, 10.0, 10.0 * (1 + 1e-12), 10.0, 5.0),
        (NAN, 11.0, NAN, 10.0, 5.0),
    ],
)
def test_unknown_values_and_roundings_are_no_fault(row: tuple[float, ...]) -> None:
    checked = check(rows((0, row)), CALENDAR, NOW, LAG)
    assert (len(checked.good), checked.rejections, checked.fields) == (1, (), ())


def test_a_provider_has_no_bar_of_a_day_without_session_nor_of_one_not_due() -> None:
    rejections = check(rows((5, GOOD), (29, GOOD), (60, GOOD)), CALENDAR, NOW + LAG - 1, LAG).rejections
    assert [r.code for r in rejections] == ["not_a_session", "not_due", "not_due"]
    assert len(check(rows((29, GOOD)), CALENDAR, NOW + LAG, LAG).good) == 1


def test_a_person_may_price_any_day_that_has_begun_somewhere() -> None:
    good, rejections = check_manual(rows((5, GOOD), (30, GOOD), (31, GOOD)), NOW)
    assert good.sessions.tolist() == [FIRST + 5, FIRST + 30]
    assert [r.code for r in rejections] == ["in_the_future"]


def test_nothing_is_a_price_of_what_may_be_worthless_alone() -> None:
    nothing = rows((5, (0.0, 0.0, 0.0, 0.0, 1.0)))
    nothing.values[:3] = np.nan
    assert [one.code for one in check_manual(nothing, NOW)[1]] == ["bad_close"]
    assert check_manual(nothing, NOW, may_be_worthless=True)[0].close.tolist() == [0.0]
    nothing.values[CLOSE] = -1.0
    assert [one.code for one in check_manual(nothing, NOW, may_be_worthless=True)[1]] == ["bad_close"]


def test_a_clean_answer_comes_back_as_it_is() -> None:
    answered = rows((0, GOOD), (1, GOOD))
    checked = check(answered, CALENDAR, NOW, LAG)
    assert checked.good is answered
    assert (checked.rejections, checked.fields) == ((), ())


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(9, 11)


@given(st.lists(st.tuples(*[numbers] * 5), max_size=6))
def test_what_is_kept_and_what_is_refused_make_up_the_whole_and_what_is_kept_is_sound(
    given_rows: list[tuple[float, ...]],
) -> None:
    answered = rows(*enumerate(given_rows)) if given_rows else Bars.empty()
    checked = check(answered, CALENDAR, NOW, LAG)
    good, refused = checked.good, [r.session for r in checked.rejections]
    assert sorted([*good.sessions.tolist(), *refused]) == answered.sessions.tolist()
    assert {r.session for r in checked.fields} <= set(good.sessions.tolist())
    kept = np.isin(answered.sessions, good.sessions)
    assert ((good.values == answered.values[:, kept]) | np.isnan(good.values)).all()
    assert np.isfinite(good.close).all()
    assert (good.close > 0).all()
    assert not (good.high < good.low * (1 - 1e-9)).any()
    assert not np.isinf(good.values).any()
