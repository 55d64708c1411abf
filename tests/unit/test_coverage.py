"""Each session not held has one class, and the vectorised way says what a plain loop would."""

from __future__ import annotations

from datetime import date
from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.bars import day_number
from pricecache.core.coverage import (
    ASK_SPACING,
    AUDIT_SECONDS,
    EXCUSED,
    Absence,
    Hole,
    SyncState,
    Withheld,
    contains,
    coverage,
)
from pricecache.core.sessions import SessionCalendar, every_day

FIRST = day_number(date(2026, 1, 5))
CALENDAR = every_day("24/5", FIRST, FIRST + 100, weekdays_only=True)
SESSIONS = CALENDAR.sessions
LAG = 1800.0
NOW = (int(SESSIONS[50]) + 1) * 86400.0 + LAG  # the fifty-first session has just fallen due


def plainly(session: int, state: SyncState, now: float, *, is_empty: bool) -> Absence:
    if (session + 1) * 86400 + LAG > now:
        return "not_due"
    if state.listed_on is not None and session < state.listed_on:
        return "before_listing"
    if state.delisted_after is not None and session > state.delisted_after:
        return "after_delisting"
    if session in state.absent and not is_empty:
        return "confirmed_absent"
    if session < state.wanted_from:
        return "not_requested"
    if session in state.parked:
        return "failing"
    return "failing" if state.attempts else "pending"


states = st.builds(
    SyncState,
    wanted_from=st.integers(FIRST - 10, FIRST + 90),
    listed_on=st.none() | st.integers(FIRST - 10, FIRST + 90),
    delisted_after=st.none() | st.integers(FIRST - 10, FIRST + 90),
    absent=st.dictionaries(st.sampled_from(SESSIONS.tolist()), st.just(1.0), max_size=8),
    attempts=st.integers(0, 2),
    reason=st.none() | st.just("it said no"),
    next_retry=st.none() | st.just(5.0),
)


@given(
    state=states,
    held=st.sets(st.integers(FIRST - 3, FIRST + 100)).map(lambda days: np.array(sorted(days), np.int64)),
    start=st.integers(FIRST - 5, FIRST + 60),
    length=st.integers(0, 60),
    now=st.sampled_from([0.0, NOW - 1, NOW, NOW + 90 * 86400.0]),
)
def test_stretches_and_counts_are_those_of_a_plain_loop(
    state: SyncState, held: np.ndarray, start: int, length: int, now: float
) -> None:
    end = start + length
    answer = coverage(held, CALENDAR, state, start, end, now, LAG)
    sessions = [s for s in SESSIONS.tolist() if start <= s <= end]
    missing = [s for s in sessions if s not in set(held.tolist())]
    classes = {s: plainly(s, state, now, is_empty=not len(held)) for s in missing}
    assert answer.present == len(sessions) - len(missing)
    assert answer.expected == len(sessions) - sum(absence in EXCUSED for absence in classes.values())
    expected = [
        [(s, absence) for s, absence in run]
        for absence, run in groupby(((s, classes.get(s)) for s in sessions), key=lambda pair: pair[1])
        if absence is not None
    ]
    known = [x for x in answer.missing if x.count]
    assert len(answer.missing) - len(known) == (start < SESSIONS[0])
    assert [(x.first, x.last, x.count, x.absence) for x in known] == [
        (run[0][0], run[-1][0], len(run), run[0][1]) for run in expected
    ]
    for stretch in answer.missing:
        waits = stretch.absence in ("failing", "pending")
        assert stretch.next_retry == (state.next_retry if waits else None)
        assert stretch.reason
        assert (stretch.reason == "it said no") == (waits and state.reason is not None)


def test_a_stretch_runs_over_week_ends_and_ends_where_the_class_changes() -> None:
    state = SyncState(int(SESSIONS[3]))
    answer = coverage(SESSIONS[10:], CALENDAR, state, FIRST, FIRST + 30, NOW, LAG)
    assert [(x.count, x.absence) for x in answer.missing] == [(3, "not_requested"), (7, "pending")]
    assert not answer.complete


def test_nothing_expected_has_no_ratio_and_is_complete() -> None:
    answer = coverage(np.empty(0, np.int64), CALENDAR, SyncState(FIRST), FIRST + 5, FIRST + 6, NOW, LAG)  # a week-end
    assert answer.ratio is None
    assert answer.complete


def test_a_manual_bar_on_a_holiday_counts_neither_way() -> None:
    held = np.sort(np.append(SESSIONS, FIRST + 5))
    answer = coverage(held, CALENDAR, SyncState(FIRST), FIRST, FIRST + 6, NOW, LAG)
    assert (answer.present, answer.expected, answer.missing) == (5, 5, ())


def test_an_empty_calendar_expects_nothing() -> None:
    none = np.empty(0, np.int64)
    answer = coverage(SESSIONS, SessionCalendar("none", none, none, none), SyncState(FIRST), FIRST, FIRST + 9, NOW, LAG)
    assert (answer.present, answer.expected) == (0, 0)


@given(
    held=st.sets(st.integers(0, 30)).map(lambda x: np.array(sorted(x), np.int64)),
    asked=st.sets(st.integers(0, 30)).map(lambda x: np.array(sorted(x), np.int64)),
)
def test_contains_is_membership(held: np.ndarray, asked: np.ndarray) -> None:
    assert contains(held, asked).tolist() == [day in held.tolist() for day in asked.tolist()]


def test_a_row_that_is_not_stored_makes_its_own_session_failing_and_no_other() -> None:
    parked = {int(s): Withheld("a jump", NOW) for s in SESSIONS[20:23]}
    refused = {int(SESSIONS[24]): Withheld("no close", NOW, asks=3)}
    state = SyncState(FIRST, last_update=NOW, parked=parked, refused=refused)
    answer = coverage(np.delete(SESSIONS, [20, 21, 22, 23, 24]), CALENDAR, state, FIRST, FIRST + 60, NOW, LAG)
    said = [(x.absence, x.count, x.attempts, x.next_retry) for x in answer.missing]
    assert said == [
        ("failing", 3, 1, NOW + ASK_SPACING),
        ("pending", 1, 0, None),
        ("failing", 1, 3, NOW + AUDIT_SECONDS),
    ]
    assert "quarantine" in answer.missing[0].reason
    assert "no close" in answer.missing[2].reason
    assert not answer.complete


def test_a_session_asked_for_in_vain_says_how_often_and_when_it_is_asked_for_next() -> None:
    holes = {int(SESSIONS[20]): Hole(2, NOW - 9, NOW - 5), int(SESSIONS[21]): Hole(2, NOW - 9, NOW - 4)}
    held = np.delete(SESSIONS, [20, 21, 22])
    for state in (
        SyncState(FIRST, last_update=NOW, holes=holes),
        SyncState(FIRST, last_update=NOW, holes=holes, attempts=1, reason="it said no", next_retry=NOW + 7),
    ):
        answer = coverage(held, CALENDAR, state, FIRST, FIRST + 60, NOW, LAG)
        asked, never = answer.missing
        assert (asked.absence, asked.count, asked.attempts) == ("pending", 2, 2)
        assert asked.next_retry == NOW - 5 + ASK_SPACING
        assert "without" in asked.reason
        assert (never.absence, never.attempts) == ("failing" if state.attempts else "pending", state.attempts)


def test_where_nothing_is_held_nothing_is_accepted_as_never_traded() -> None:
    state = SyncState(FIRST, absent=dict.fromkeys(SESSIONS[:5].tolist(), NOW))
    for held, absence in ((SESSIONS[9:], "confirmed_absent"), (SESSIONS[:0], "pending")):
        answer = coverage(held, CALENDAR, state, FIRST, int(SESSIONS[4]), NOW, LAG)
        assert [x.absence for x in answer.missing] == [absence]
