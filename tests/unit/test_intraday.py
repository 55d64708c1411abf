"""Intraday bars: made of samples in any order, counted from the open, never with a price that was not there."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.bars import CLOSE, HIGH, LOW, OPEN, VOLUME
from pricecache.core.intraday import (
    INTERVALS,
    IntradayBars,
    Samples,
    expected_bars,
    intraday_bars,
    sampled,
)
from pricecache.core.sessions import SessionCalendar, every_day
from tests.fakes.calendars import calendar_of

NYSE = calendar_of("XNYS")
ALWAYS = every_day("24/7", 20_000, 21_000)
NAN = float("nan")


def at(text: str) -> int:
    """An instant in UTC, as ms since 1970."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def made(*rows: tuple[str, float, float]) -> Samples:
    return Samples(
        np.array([at(text) for text, _, _ in rows], np.int64),
        np.array([price for _, price, _ in rows]),
        np.array([volume for _, _, volume in rows], float),
    )


def times(bars: IntradayBars) -> list[str]:
    return [str(start)[:16] for start in bars.starts.view("datetime64[ms]")]


def equal(a: IntradayBars, b: IntradayBars) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name in ("values", "counted"))
        for name in ("starts", "ends", "sessions", "values", "counted")
    )


@st.composite
def days_of_samples(draw: st.DrawFn) -> Samples:
    """Around four sessions in New York, one of them half a day, with prices and counts of every kind."""
    first = at("2026-11-24T12:00:00")
    n = draw(st.integers(0, 60))
    offsets = draw(st.lists(st.integers(0, 4 * 86400 * 1000), min_size=n, max_size=n, unique=True))
    prices = draw(st.lists(st.one_of(st.floats(0.01, 1e6), st.just(NAN), st.just(0.0)), min_size=n, max_size=n))
    counts = draw(st.lists(st.one_of(st.floats(0, 1e9), st.just(NAN), st.just(-1.0)), min_size=n, max_size=n))
    return Samples(np.array(offsets, np.int64) + first, np.array(prices, float), np.array(counts, float))


@given(days_of_samples(), st.randoms(use_true_random=False), st.sampled_from(list(INTERVALS.values())))
def test_the_order_in_which_samples_come_does_not_matter(samples: Samples, random: object, seconds: int) -> None:
    order = list(range(len(samples)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = Samples(samples.instants[order], samples.prices[order], samples.volumes[order])
    assert equal(intraday_bars(shuffled, NYSE, seconds), intraday_bars(samples, NYSE, seconds))


@given(days_of_samples(), st.sampled_from(list(INTERVALS.values())), st.sampled_from([NYSE, ALWAYS]))
def test_every_bar_is_one_that_could_have_been(samples: Samples, seconds: int, calendar: SessionCalendar) -> None:
    bars = intraday_bars(samples, calendar, seconds)
    open_, high, low, close, volume = bars.values
    assert np.isfinite(bars.values[:4]).all()
    assert (high >= np.maximum(open_, close)).all()
    assert (low <= np.minimum(open_, close)).all()
    assert not (volume < 0).any()
    assert (np.diff(bars.starts) > 0).all()
    assert (bars.ends > bars.starts).all()
    assert (bars.ends[:-1] <= bars.starts[1:]).all()


@given(days_of_samples(), st.sampled_from(list(INTERVALS.values())))
def test_as_many_bars_are_expected_as_could_be_there(samples: Samples, seconds: int) -> None:
    bars = intraday_bars(samples, ALWAYS, seconds)
    if len(bars):
        first, last = int(bars.starts[0]), int(bars.starts[-1])
        assert expected_bars(ALWAYS, first, last, seconds) == (last - first) // (seconds * 1000) + 1


def test_an_hour_in_new_york_begins_at_half_past() -> None:
    bars = intraday_bars(
        made(
            ("2026-11-20T14:30:00", 10, 100),
            ("2026-11-20T15:29:59", 12, 300),
            ("2026-11-20T15:30:00", 11, 350),
            ("2026-11-20T20:59:00", 9, 900),
        ),
        NYSE,
        3600,
    )
    assert times(bars) == ["2026-11-20T14:30", "2026-11-20T15:30", "2026-11-20T20:30"]
    assert bars.values[[OPEN, HIGH, LOW, CLOSE]].T.tolist() == [[10, 12, 10, 12], [11, 11, 11, 11], [9, 9, 9, 9]]
    assert bars.values[VOLUME].tolist() == [300, 50, 550]
    assert str(bars.ends[-1:].view("datetime64[ms]")[0])[:16] == "2026-11-20T21:00"


def test_bars_follow_summer_time_and_half_days() -> None:
    summer = made(("2026-07-01T13:31:00", 1, NAN))
    assert times(intraday_bars(summer, NYSE, 300)) == ["2026-07-01T13:30"]
    half = made(("2026-11-27T17:59:00", 1, NAN), ("2026-11-27T18:00:30", 2, NAN), ("2026-11-27T18:30:00", 3, NAN))
    bars = intraday_bars(half, NYSE, 3600)
    assert times(bars) == ["2026-11-27T17:30"]
    assert bars.values[CLOSE].tolist() == [2.0]
    assert expected_bars(NYSE, at("2026-11-27T00:00:00"), at("2026-11-27T23:00:00"), 3600) == 4


def test_a_market_that_never_closes_is_counted_from_midnight_utc() -> None:
    bars = intraday_bars(made(("2026-11-21T23:59:59", 1, 5), ("2026-11-22T00:00:00", 2, 1)), ALWAYS, 900)
    assert times(bars) == ["2026-11-21T23:45", "2026-11-22T00:00"]
    assert bars.values[VOLUME, 1] == 1


def test_prices_outside_sessions_are_left_out_but_for_the_closing_auction() -> None:
    before, after, weekend = ("2026-11-20T14:00:00", 1, 1), ("2026-11-20T21:02:00", 2, 1), ("2026-11-21T15:00:00", 3, 1)
    assert not len(intraday_bars(made(before, after, weekend), NYSE, 60))
    assert times(intraday_bars(made(("2026-11-20T21:00:20", 2, 1)), NYSE, 60)) == ["2026-11-20T20:59"]
    london = calendar_of("XLON")
    assert times(intraday_bars(made(("2026-11-20T16:35:20", 2, 1)), london, 900)) == ["2026-11-20T16:15"]


def test_the_volume_of_a_bar_that_nobody_saw_begin_is_unknown() -> None:
    bars = intraday_bars(
        made(("2026-11-20T16:00:00", 1, 5e6), ("2026-11-20T16:05:00", 1, 5.1e6), ("2026-11-20T16:10:00", 1, NAN)),
        NYSE,
        300,
    )
    assert np.isnan(bars.values[VOLUME, 0])
    assert bars.values[VOLUME, 1:].tolist() == [100_000.0, 0.0]


@pytest.mark.parametrize(
    ("counts", "volumes"),
    [
        ([100, 90, 120], [100, 0, 20]),
        ([9e6, 100, 250], [0, 100, 150]),
        ([9e6, 9.1e6, 50, 9.2e6], [9e6, 1e5, 0, 1e5]),
        ([NAN, NAN, NAN], [NAN, NAN, NAN]),
    ],
    ids=["taken back", "of the session before", "a glitch at noon", "unknown"],
)
def test_a_count_never_shrinks(counts: list[float], volumes: list[float]) -> None:
    hours = ["14:30", "14:50", "16:00", "16:30"][: len(counts)]
    rows = [(f"2026-11-20T{hour}:00", 10.0, count) for hour, count in zip(hours, counts, strict=True)]
    bars = intraday_bars(made(*rows), NYSE, 900)
    assert np.array_equal(bars.values[VOLUME], volumes, equal_nan=True)


def test_a_session_so_far_has_an_open_only_if_somebody_saw_it() -> None:
    day = 20777
    early = made(("2026-11-20T14:31:00", 10, 1), ("2026-11-20T16:00:00", 12, 1), ("2026-11-20T13:00:00", 99, 1))
    late = made(("2026-11-20T16:00:00", 12, 1), ("2026-11-20T16:10:00", 9, 1))
    first, second = sampled(early, NYSE, day), sampled(late, NYSE, day)
    assert first is not None
    assert second is not None
    assert (first.open, first.high, first.low) == (10.0, 12.0, 10.0)
    assert (second.open, second.high, second.low) == (None, 12.0, 9.0)
    assert sampled(late, NYSE, day - 1) is None
    assert sampled(Samples.empty(), NYSE, day) is None
