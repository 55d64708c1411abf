"""Named periods reach back to the same date, clipped to the month's end."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.periods import PERIODS, period_start
from pricecache.errors import Invalid


@pytest.mark.parametrize(
    ("period", "end", "start"),
    [
        ("1D", date(2026, 3, 1), date(2026, 2, 28)),
        ("1W", date(2026, 3, 3), date(2026, 2, 24)),
        ("1M", date(2026, 3, 31), date(2026, 2, 28)),
        ("1M", date(2024, 3, 30), date(2024, 2, 29)),
        ("3M", date(2026, 1, 15), date(2025, 10, 15)),
        ("6M", date(2026, 8, 31), date(2026, 2, 28)),
        ("1Y", date(2024, 2, 29), date(2023, 2, 28)),
        ("2Y", date(2026, 11, 20), date(2024, 11, 20)),
        ("5Y", date(2026, 11, 20), date(2021, 11, 20)),
        ("YTD", date(2026, 11, 20), date(2025, 12, 31)),
        ("ytd", date(2026, 1, 1), date(2025, 12, 31)),
        ("MAX", date(2026, 11, 20), None),
    ],
)
def test_period_starts_on_the_same_date_so_far_back(period: str, end: date, start: date | None) -> None:
    assert period_start(period, end) == start


@pytest.mark.parametrize("period", [name for name in PERIODS if name != "MAX"])
def test_no_period_reaches_before_the_first_date_there_is(period: str) -> None:
    for day in (date(1, 1, 1), date(1, 1, 2 if period == "1D" else 7)):
        assert period_start(period, day) == date.min


def test_the_first_date_can_be_reached() -> None:
    assert period_start("1W", date(1, 1, 9)) == date(1, 1, 2)
    assert period_start("1Y", date(2, 3, 1)) == date(1, 3, 1)
    assert period_start("YTD", date(2, 3, 1)) == date(1, 12, 31)


@pytest.mark.parametrize("period", ["", "2D", "7Y", "1 M", "M1", "1M\n", "A" * 9000, "１M"])
def test_unknown_period_is_refused_by_name(period: str) -> None:
    with pytest.raises(Invalid) as caught:
        period_start(period, date(2026, 11, 20))
    assert caught.value.code == "unknown_period"


@given(st.dates(date(1970, 1, 1), date(2100, 1, 1)))
def test_longer_periods_never_start_later(end: date) -> None:
    starts = [period_start(name, end) for name in PERIODS if name not in ("YTD", "MAX")]
    assert starts == sorted(starts, reverse=True)
    assert all(start <= end - timedelta(days=1) for start in starts)
