"""What is asked for, when, and what answers and failures leave behind: examples, and properties over many runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pricecache.core.bars import day_number
from pricecache.core.coverage import ASK_SPACING, AUDIT_SECONDS, Hole, SyncState, Withheld, is_quarantined
from pricecache.core.healing import (
    Ask,
    Unstored,
    after_answer,
    after_failure,
    after_nothing_due,
    after_refused_audit,
    audit_due,
    delisted,
    examination_due,
    plan,
    reviewed,
)
from pricecache.core.sessions import every_day
from pricecache.core.text import plain_text
from pricecache.errors import (
    BudgetSpent,
    NotAsked,
    ProviderAnswerBad,
    ProviderPaused,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)

LAG = 1800.0
HOUR, DAY = 3600.0, 86400.0
FIRST = day_number(date(2026, 1, 5))  # a Monday
CALENDAR = every_day("24/5", FIRST - 700, FIRST + 700, weekdays_only=True)
SESSIONS = CALENDAR.between(FIRST, FIRST + 120)
LAST = int(SESSIONS[-1])
NOW = (LAST + 1) * DAY + LAG + 60
NOTHING = np.empty(0, np.int64)


def whole(**fields: object) -> SyncState:
    state = SyncState(FIRST, last_update=NOW - HOUR, answered_from=FIRST, answered_to=LAST)
    return replace(state, **fields)  # type: ignore[arg-type]


def without(*positions: int) -> NDArray[np.int64]:
    return np.delete(SESSIONS, positions)


def answer(
    state: SyncState, ask: Ask, held: NDArray[np.int64], truth: NDArray[np.int64], now: float
) -> tuple[SyncState, NDArray[np.int64]]:
    """The answer of a provider that has exactly `truth` and says where it begins."""
    answered = truth[(truth >= ask.start) & (truth <= ask.end)]
    held = np.union1d(held, answered)
    first = int(truth[0]) if len(truth) and ask.start < truth[0] else None
    return after_answer(state, ask, held, CALENDAR, first, now, answered=answered), held


def test_a_new_series_is_asked_for_from_its_depth_to_the_last_due_session() -> None:
    assert plan(NOTHING, CALENDAR, SyncState(FIRST), NOW, LAG) == Ask(FIRST, LAST, "first")


def test_a_session_is_not_due_before_its_close_and_the_lag() -> None:
    close = (LAST + 1) * DAY
    assert plan(SESSIONS[:-1], CALENDAR, whole(), close + LAG - 1, LAG) is None
    assert plan(SESSIONS[:-1], CALENDAR, whole(answered_to=LAST - 1), close + LAG, LAG) is not None


def test_a_new_session_is_asked_for_with_five_held_ones_before_it() -> None:
    state = whole(answered_to=int(SESSIONS[-2]))
    assert plan(SESSIONS[:-1], CALENDAR, state, NOW, LAG) == Ask(int(SESSIONS[-6]), LAST, "new")


def test_an_interior_hole_is_asked_for_with_five_held_sessions_on_either_side() -> None:
    ask = plan(without(40), CALENDAR, whole(), NOW, LAG)
    assert ask == Ask(int(SESSIONS[35]), int(SESSIONS[45]), "hole")


def test_several_holes_are_covered_by_the_smallest_single_range() -> None:
    ask = plan(without(20, 40, 41), CALENDAR, whole(), NOW, LAG)
    assert ask == Ask(int(SESSIONS[15]), int(SESSIONS[46]), "hole")


def test_a_deeper_wish_asks_for_what_lies_before() -> None:
    deeper = int(CALENDAR.between(FIRST - 30, FIRST)[0])
    ask = plan(SESSIONS, CALENDAR, whole(wanted_from=deeper), NOW, LAG)
    assert ask == Ask(deeper, int(SESSIONS[4]), "depth")


def test_nothing_is_asked_for_before_the_listing_or_after_the_delisting() -> None:
    state = whole(listed_on=int(SESSIONS[10]), delisted_after=int(SESSIONS[50]))
    assert plan(SESSIONS[10:51], CALENDAR, state, NOW, LAG) is None


def test_a_bar_on_a_day_without_session_hides_no_hole() -> None:
    held = np.sort(np.append(without(40), SESSIONS[4] + 1))
    ask = plan(held, CALENDAR, whole(), NOW, LAG)
    assert ask is not None
    assert ask.why == "hole"


def test_a_failing_series_waits_for_its_next_try_unless_forced() -> None:
    state = whole(attempts=3, refusals=3, failing_since=NOW - DAY, next_retry=NOW + 1)
    assert plan(without(40), CALENDAR, state, NOW, LAG) is None
    assert plan(without(40), CALENDAR, state, NOW, LAG, force=True) is not None
    due = plan(without(40), CALENDAR, state, NOW + 1, LAG)
    assert due is not None
    assert due.why == "retry"


def test_a_hole_just_asked_for_waits_most_of_a_day_unless_forced() -> None:
    state = whole(holes={int(SESSIONS[40]): Hole(1, NOW - HOUR, NOW - HOUR)})
    assert plan(without(40), CALENDAR, state, NOW, LAG) is None
    assert plan(without(40), CALENDAR, state, NOW, LAG, force=True) is not None
    assert plan(without(40), CALENDAR, state, NOW + 19 * HOUR, LAG) is not None


def test_forced_looks_on_one_day_count_once() -> None:
    state, held = whole(), without(40)
    truth = without(40)
    for _ in range(5):
        ask = plan(held, CALENDAR, state, NOW, LAG, force=True)
        assert ask is not None
        state, held = answer(state, ask, held, truth, NOW)
    assert state.holes[int(SESSIONS[40])].asks == 1
    assert not state.absent


def test_three_answers_on_three_days_without_a_session_are_accepted_and_audited_after_a_month() -> None:
    state, held, truth = whole(), without(40), without(40)
    now, asked_at = NOW, []
    hole = int(SESSIONS[40])
    calendar = every_day("24/5", FIRST - 700, LAST, weekdays_only=True)  # no session falls due meanwhile
    while now < NOW + 50 * DAY:
        ask = plan(held, calendar, state, now, LAG)
        if ask is not None:
            asked_at.append((now - NOW) / HOUR)
            state, held = answer(state, ask, held, truth, now)
        now += 3 * HOUR
    assert asked_at[:3] == [0, 21, 42]
    assert len(asked_at) == 4
    assert asked_at[3] >= 42 + AUDIT_SECONDS / HOUR
    assert hole in state.absent
    assert state.absent[hole] > NOW + 30 * DAY
    assert not state.holes


def test_an_audit_that_finds_the_session_forgets_its_absence() -> None:
    hole = int(SESSIONS[40])
    state = whole(absent={hole: NOW - 31 * DAY})
    ask = plan(without(40), CALENDAR, state, NOW, LAG)
    assert ask is not None
    assert ask.why == "audit"
    state, held = answer(state, ask, without(40), SESSIONS, NOW)
    assert hole in held
    assert not state.absent


def test_a_provider_whose_history_begins_later_is_not_asked_for_what_was_before() -> None:
    state, held = answer(SyncState(FIRST), Ask(FIRST, LAST, "first"), NOTHING, SESSIONS[30:], NOW)
    assert state.listed_on == SESSIONS[30]
    assert not state.holes
    assert plan(held, CALENDAR, state, NOW, LAG) is None


def test_an_earlier_bar_than_the_listing_moves_the_listing() -> None:
    state = whole(listed_on=int(SESSIONS[30]))
    ask = plan(SESSIONS[30:], CALENDAR, state, NOW, LAG, force=True, again_from=FIRST)
    assert ask == Ask(FIRST, LAST, "again")
    state, _ = answer(state, ask, SESSIONS[30:], SESSIONS[10:], NOW)
    assert state.listed_on == SESSIONS[10]


def test_an_empty_answer_neither_raises_nor_resets_the_count_of_failures() -> None:
    state = whole(attempts=2, refusals=2, failing_since=NOW - DAY, next_retry=NOW, code="symbol_not_found")
    ask = plan(without(40), CALENDAR, state, NOW, LAG)
    assert ask is not None
    after = after_answer(state, ask, without(40), CALENDAR, None, NOW, answered=NOTHING)
    assert after == state


def test_empty_answers_for_a_series_of_which_nothing_is_held_are_no_evidence_and_come_less_and_less_often() -> None:
    state, now, calls = SyncState(FIRST), NOW, list[float]()
    while now < NOW + 60 * DAY:
        ask = plan(NOTHING, CALENDAR, state, now, LAG)
        if ask is not None:
            calls.append(now)
            state = after_answer(state, ask, NOTHING, CALENDAR, None, now, answered=NOTHING)
            assert (state.code, state.attempts, state.last_update) == ("no_data", 0, None)
            assert state.next_retry is not None
            assert state.next_retry > now
        assert not state.holes
        assert not state.absent
        now += 3 * HOUR
    assert len([at for at in calls if at < NOW + DAY]) == 4
    assert len([at for at in calls if NOW + DAY <= at < NOW + 30 * DAY]) <= 35
    assert len([at for at in calls if at >= NOW + 31 * DAY]) <= 5
    state, _ = answer(state, Ask(FIRST, LAST, "first"), NOTHING, SESSIONS, now)
    assert (state.code, state.empty_since, state.next_retry) == (None, None, None)


def test_the_first_bars_forget_what_was_noted_before_them() -> None:
    noted = {int(SESSIONS[3]): NOW}
    state = SyncState(FIRST, absent=noted, holes={int(SESSIONS[4]): Hole(2, NOW, NOW)}, last_update=NOW)
    ask = plan(NOTHING, CALENDAR, state, NOW, LAG)
    assert ask == Ask(FIRST, LAST, "first")  # nothing is held, so they were no evidence
    held = np.delete(SESSIONS, [3, 4])
    after = after_answer(state, ask, held, CALENDAR, None, NOW, answered=held, is_first=True)
    assert {session: hole.asks for session, hole in after.holes.items()} == {SESSIONS[3]: 1, SESSIONS[4]: 1}
    assert not after.absent


def test_who_insists_is_not_put_off_with_an_absence() -> None:
    state = whole(absent={int(SESSIONS[40]): NOW})
    assert plan(without(40), CALENDAR, state, NOW, LAG) is None
    assert plan(without(40), CALENDAR, state, NOW, LAG, force=True) is not None


def test_success_clears_the_failure() -> None:
    state = after_failure(whole(), SymbolNotFound(), NOW, 0.5)
    state, _ = answer(state, Ask(FIRST, LAST, "retry"), SESSIONS, SESSIONS, NOW + DAY)
    assert (state.attempts, state.refusals, state.failing_since, state.next_retry) == (0, 0, None, None)
    assert (state.code, state.reason) == (None, None)
    assert state.last_update == NOW + DAY


def test_looking_without_asking_leaves_a_failure_as_it_is() -> None:
    failing = after_failure(whole(), SymbolNotFound(), NOW, 0.5)
    assert after_nothing_due(failing, NOW + 1) is failing
    assert after_nothing_due(whole(), NOW + 1).last_update == NOW + 1


@pytest.mark.parametrize("error", [SymbolNotFound(), ProviderAnswerBad()])
def test_failures_of_the_symbol_back_off_from_15_minutes_doubling_to_a_day_with_full_jitter(
    error: SymbolNotFound | ProviderAnswerBad,
) -> None:
    state, waits = whole(), []
    for _ in range(10):
        state = after_failure(state, error, NOW, 0.5)
        assert state.next_retry is not None
        waits.append((state.next_retry - NOW) / 60)
    assert waits[:4] == [7.5, 15, 30, 60]
    assert waits[-1] == 720
    assert after_failure(state, error, NOW, 0.0).next_retry == NOW
    assert state.code == error.code
    assert state.failing_since == NOW


@pytest.mark.parametrize(
    ("error", "wait"), [(ProviderPaused(retry_after=40.0), 40.0), (BudgetSpent(retry_after=9e4), 900.0)]
)
def test_who_was_not_asked_did_not_fail_and_the_series_only_waits(error: NotAsked, wait: float) -> None:
    state = after_failure(whole(), error, NOW, 0.5)
    assert (state.attempts, state.refusals, state.failing_since) == (0, 0, None)
    assert (state.next_retry, state.code, state.reason) == (NOW + wait, error.code, plain_text(error.detail))
    assert after_nothing_due(state, NOW + 1) == state
    over = after_nothing_due(state, NOW + wait)
    assert (over.next_retry, over.code, over.reason, over.last_update) == (None, None, None, NOW + wait)
    failing = after_failure(whole(), SymbolNotFound(), NOW, 0.5)
    waiting = after_failure(failing, error, NOW, 0.5)
    assert waiting == replace(failing, next_retry=NOW + wait)


def test_failures_of_the_provider_never_lengthen_the_wait_of_a_symbol() -> None:
    state = whole()
    for _ in range(20):
        state = after_failure(state, ProviderUnavailable(), NOW, 0.9)
        assert state.next_retry is not None
        assert state.next_retry - NOW <= 15 * 60
    assert state.attempts == 20
    refused = after_failure(state, SymbolNotFound(), NOW, 0.5)
    assert refused.next_retry == NOW + 7.5 * 60


@pytest.mark.parametrize(("said", "wait"), [(None, 60), (0, 0), (300, 300), (7200, 900), (-5, 0)])
def test_a_provider_that_says_when_to_come_back_is_believed_up_to_15_minutes(said: float | None, wait: float) -> None:
    assert after_failure(whole(), RateLimited(retry_after=said), NOW, 0.5).next_retry == NOW + wait


def test_examined_when_never_or_long_ago_or_with_any_hole() -> None:
    def due(held: NDArray[np.int64], state: SyncState) -> bool:
        return examination_due(held, CALENDAR, state, NOW, LAG, 3 * HOUR)

    assert due(SESSIONS, whole(last_update=None))
    assert due(SESSIONS, whole(last_update=NOW - 3 * HOUR))
    assert due(without(40), whole())
    assert not due(SESSIONS, whole())


def test_a_series_that_was_examined_some_time_after_its_tick_is_due_at_the_next_tick() -> None:
    state = whole(last_update=NOW - 3 * HOUR + 15 * 60)
    assert examination_due(SESSIONS, CALENDAR, state, NOW, LAG, 3 * HOUR)
    assert not examination_due(SESSIONS, CALENDAR, state, NOW - 15 * 60, LAG, 3 * HOUR)


def test_of_a_vendors_words_so_much_is_kept_as_can_be_shown() -> None:
    state = after_failure(whole(), ProviderAnswerBad("<html>\x00\ud800\r\n" + "broken " * 1000), NOW, 0.5)
    assert state.reason is not None
    assert state.reason.startswith("<html> broken broken")
    assert len(state.reason) <= 300
    assert state.reason.isprintable()


sessions_subset = st.sets(st.integers(0, len(SESSIONS) - 1)).map(lambda gone: np.delete(SESSIONS, sorted(gone)))


@given(held=sessions_subset, truth=sessions_subset, depth=st.integers(0, 60), force=st.booleans())
def test_a_heal_leaves_nothing_to_heal(
    held: NDArray[np.int64], truth: NDArray[np.int64], depth: int, force: bool
) -> None:
    """Whatever was held, and whatever a truthful provider lacks, one answer settles the matter for the day."""
    state = SyncState(FIRST + depth)
    ask = plan(held, CALENDAR, state, NOW, LAG, force=force)
    if ask is not None:
        state, held = answer(state, ask, held, truth, NOW)
    again = plan(held, CALENDAR, state, NOW, LAG)
    contradicted = ask is not None and not len(truth[(truth >= ask.start) & (truth <= ask.end)])
    assert again is None or contradicted


@given(held=sessions_subset)
def test_removed_sessions_come_back_from_a_truthful_provider(held: NDArray[np.int64]) -> None:
    state = whole()
    ask = plan(held, CALENDAR, state, NOW, LAG)
    assert (ask is None) == (len(held) == len(SESSIONS))
    if ask is not None:
        _, held = answer(state, ask, held, SESSIONS, NOW)
    assert held.tolist() == SESSIONS.tolist()


@given(
    held=st.sets(st.integers(-100, 200)).map(lambda days: np.array(sorted(FIRST + d for d in days), np.int64)),
    wanted=st.integers(-50, 150),
    listed=st.none() | st.integers(-50, 150),
    again=st.none() | st.integers(-200, 200),
    after=st.floats(-150, 30),
)
def test_no_ask_leaves_the_wanted_and_due_range(
    held: NDArray[np.int64], wanted: int, listed: int | None, again: int | None, after: float
) -> None:
    now = NOW + after * DAY
    state = SyncState(FIRST + wanted, listed_on=None if listed is None else FIRST + listed)
    ask = plan(held, CALENDAR, state, now, LAG, again_from=None if again is None else FIRST + again)
    if ask is not None:
        last_due = CALENDAR.last_closed(now, LAG)
        assert last_due is not None
        assert state.wanted_from <= ask.start <= ask.end <= last_due


@settings(max_examples=30, deadline=None)
@given(held=sessions_subset, truth=sessions_subset.filter(len), seed=st.integers(0, 2**16))
def test_every_series_ends_whole_or_accepted(held: NDArray[np.int64], truth: NDArray[np.int64], seed: int) -> None:
    """Failures, empty answers and odd hours on the way; in the end each due session is held, excused or accepted."""
    chance = np.random.default_rng(seed)
    state, now = SyncState(FIRST), NOW
    calendar = every_day("24/5", FIRST - 700, LAST, weekdays_only=True)
    held = np.intersect1d(held, truth)
    for _ in range(60):
        now += 3 * HOUR + chance.random() * 24 * HOUR
        ask = plan(held, calendar, state, now, LAG)
        if ask is None:
            continue
        fate = chance.integers(6)
        if fate == 0:
            state = after_failure(state, SymbolNotFound(), now, chance.random())
        elif fate == 1:
            state = after_failure(state, ProviderUnavailable(), now, chance.random())
        else:
            state, held = answer(state, ask, held, truth, now)
    assert set(truth.tolist()) <= set(held.tolist())
    lacking = set(SESSIONS.tolist()) - set(held.tolist())
    assert lacking == {s for s in lacking if s in state.absent or s < (state.listed_on or 0)}


def test_a_session_missing_at_the_end_is_asked_for_at_the_next_sync_and_counted_once_a_day() -> None:
    held = SESSIONS[:-1]
    ask = Ask(int(SESSIONS[-6]), LAST, "new")
    state = after_answer(SyncState(FIRST), ask, held, CALENDAR, None, NOW, answered=held[-5:])
    assert plan(held, CALENDAR, state, NOW + HOUR, LAG) is None
    again = plan(held, CALENDAR, state, NOW + 3 * HOUR, LAG)
    assert again is not None
    assert again.end == LAST
    state = after_answer(state, again, held, CALENDAR, None, NOW + 3 * HOUR, answered=held[-5:])
    assert state.holes[LAST].asks == 1


def test_a_session_asked_for_before_waits_for_a_call_of_its_own_in_which_another_provider_is_first() -> None:
    hole = int(SESSIONS[40])
    state = whole(holes={hole: Hole(1, NOW - DAY, NOW - DAY)}, answered_to=int(SESSIONS[-2]))
    held = np.delete(SESSIONS, [40, len(SESSIONS) - 1])
    assert plan(held, CALENDAR, state, NOW, LAG) == Ask(int(SESSIONS[-6]), LAST, "new", turn=0)
    alone = plan(without(40), CALENDAR, state, NOW, LAG)
    assert alone is not None
    assert (alone.why, alone.turn) == ("hole", 1)
    forced = plan(held, CALENDAR, state, NOW, LAG, force=True)
    assert forced is not None
    assert (forced.start, forced.end, forced.turn) == (int(SESSIONS[35]), LAST, 0)


@pytest.mark.parametrize("kind", ["parked", "refused"])
def test_a_session_whose_row_is_not_stored_is_asked_for_on_three_days_then_monthly_and_never_counted_absent(
    kind: str,
) -> None:
    spoiled, state, held = int(SESSIONS[40]), whole(), without(40)
    calendar = every_day("24/5", FIRST - 700, LAST, weekdays_only=True)
    now, asked_at = NOW, list[float]()
    while now < NOW + 70 * DAY:
        ask = plan(held, calendar, state, now, LAG)
        if ask is not None and ask.start <= spoiled <= ask.end:
            asked_at.append(now)
            assert ask.turn == len(asked_at) - 1
            rows = {spoiled: Unstored("wrong", "one", 5.0 + len(asked_at))}
            answered = without(40)[35:45]
            options = {kind: rows}
            state = after_answer(state, ask, held, CALENDAR, None, now, answered=answered, source="one", **options)  # type: ignore[arg-type]
            assert (state.withheld.keys(), state.holes, state.absent) == ({spoiled}, {}, {})
            assert (state.attempts, state.code, state.next_retry) == (0, None, None)
        now += 3 * HOUR
    assert np.diff(asked_at).tolist() == [21 * HOUR, 21 * HOUR, AUDIT_SECONDS, AUDIT_SECONDS]


def test_a_row_withheld_is_forgotten_when_its_own_provider_comes_without_it_and_not_when_another_does() -> None:
    spoiled = int(SESSIONS[40])
    row = Withheld("wrong", NOW, source="one")
    ask, answered = Ask(int(SESSIONS[35]), int(SESSIONS[45]), "hole", turn=1), without(40)[35:45]
    for source, is_left in (("one", False), ("two", True)):
        state = after_answer(
            whole(refused={spoiled: row}),
            ask,
            without(40),
            CALENDAR,
            None,
            NOW + DAY,
            answered=answered,
            source=source,
        )
        assert (spoiled in state.refused, spoiled in state.holes) == (is_left, not is_left)
        if is_left:
            assert state.refused[spoiled].asks == 2


def test_the_days_on_which_a_provider_says_the_same_are_counted() -> None:
    spoiled = int(SESSIONS[40])
    ask, answered = Ask(int(SESSIONS[35]), int(SESSIONS[45]), "new"), without(40)[35:45]
    state, seen = whole(), list[int]()
    said = [(0, 5.0), (3, 5.0), (20, 5.00001), (30, 5.0), (41, 5.0), (62, 6.0), (83, 6.0)]
    for hours, close in said:
        state = after_answer(
            state,
            ask,
            without(40),
            CALENDAR,
            None,
            NOW + hours * HOUR,
            answered=answered,
            parked={spoiled: Unstored("a jump", "one", close)},
            source="one",
        )
        seen.append(state.parked[spoiled].seen)
    assert seen == [1, 1, 2, 2, 3, 1, 2]
    assert state.parked[spoiled].last_ask == NOW  # beside others it was not asked for by itself
    assert state.parked[spoiled].next_ask == NOW + ASK_SPACING


def test_reviewed_is_withheld_no_more() -> None:
    rows = {1: Withheld("x", NOW), 2: Withheld("y", NOW)}
    after = reviewed(whole(parked=rows, refused=rows), 1)
    assert after.parked.keys() == after.refused.keys() == {2}


def test_audits_come_every_thirty_days_at_a_time_of_each_series_own() -> None:
    days = set()
    for series in range(200):
        state, audits = whole(audited_at=NOW), list[float]()
        for hour in range(100 * 8):
            now = NOW + hour * 3 * HOUR
            if audit_due(state, series, now):
                audits.append(now)
                state = replace(state, audited_at=now)
        assert len(audits) >= 2
        assert 5 * DAY <= audits[0] - NOW <= 35 * DAY + 3 * HOUR
        assert np.abs(np.diff(audits) - AUDIT_SECONDS).max() <= 3 * HOUR
        days.add(int((audits[0] - NOW) // DAY))
    assert len(days) >= 28


def test_nobody_audits_what_was_never_filled_was_delisted_or_is_dead() -> None:
    for state in (whole(), whole(audited_at=0.0, delisted_after=LAST), whole(audited_at=0.0, quarantined_at=NOW)):
        assert not audit_due(state, 1, NOW)


def test_an_audit_asks_for_everything_and_counts_also_when_nothing_came() -> None:
    state = whole(audited_at=NOW - 40 * DAY)
    ask = plan(SESSIONS, CALENDAR, state, NOW, LAG, audit=True)
    assert ask == Ask(FIRST, LAST, "audit")
    assert after_answer(state, ask, SESSIONS, CALENDAR, None, NOW, answered=NOTHING).audited_at == NOW
    assert after_refused_audit(state, NOW).audited_at == NOW


def test_a_symbol_is_dead_after_five_times_on_three_days_and_alive_after_one_answer() -> None:
    state, now = whole(), NOW
    for time in range(5):
        assert state.quarantined_at is None
        state = after_failure(state, SymbolNotFound(), now, 0.5)
        assert state.not_found == time + 1
        now += DAY * 0.6
    assert state.quarantined_at is not None
    assert (state.code, len(state.not_found_days)) == ("quarantined", 3)
    assert is_quarantined(state, now)
    assert state.next_retry is not None
    assert 6 * DAY < state.next_retry - state.quarantined_at < 7 * DAY
    assert not is_quarantined(state, state.next_retry)
    assert plan(NOTHING, CALENDAR, state, now, LAG) is None
    assert plan(NOTHING, CALENDAR, state, now, LAG, force=True) is not None
    assert not examination_due(NOTHING, CALENDAR, state, now, LAG, 3 * HOUR)
    still = after_failure(state, ProviderUnavailable(), now, 0.5)
    assert (still.code, still.quarantined_at) == ("quarantined", state.quarantined_at)
    state, _ = answer(state, Ask(FIRST, LAST, "retry"), NOTHING, SESSIONS, now)
    assert (state.quarantined_at, state.not_found, state.not_found_days) == (None, 0, ())


@pytest.mark.parametrize("apart", [0.0, 0.2])
def test_not_found_many_times_on_a_day_or_two_is_no_death(apart: float) -> None:
    state = whole()
    for time in range(8):
        state = after_failure(state, SymbolNotFound(), NOW + time * apart * DAY, 0.5)
    assert state.quarantined_at is None


def test_not_found_while_the_provider_knows_nothing_else_either_counts_for_nothing() -> None:
    state = whole()
    for day in range(20):
        state = after_failure(state, SymbolNotFound(), NOW + day * DAY, 0.9, control_works=False)
    assert (state.not_found, state.refusals, state.quarantined_at) == (0, 0, None)
    assert state.next_retry == NOW + 19 * DAY + 60


def test_nothing_is_asked_for_after_the_last_session_of_what_was_delisted() -> None:
    dead = whole(attempts=9, quarantined_at=NOW, next_retry=NOW + DAY, code="quarantined", not_found=9)
    state = delisted(dead, int(SESSIONS[50]))
    assert (state.attempts, state.quarantined_at, state.code) == (0, None, None)
    assert plan(SESSIONS[:51], CALENDAR, state, NOW, LAG, force=True) is None
    assert not examination_due(SESSIONS[:51], CALENDAR, state, NOW, LAG, 3 * HOUR)
    again = plan(SESSIONS[:51], CALENDAR, state, NOW, LAG, again_from=FIRST)
    assert again == Ask(FIRST, int(SESSIONS[50]), "again")
    assert delisted(state, None).delisted_after is None
