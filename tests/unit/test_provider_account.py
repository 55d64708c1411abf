"""The account of a provider: bucket, budget by lanes, breaker, cool-down, and the hours it remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.asking import LANES, Lane, Pace
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.provider_accounts import (
    FAILURES_TO_OPEN,
    SEARCHES_PERCENT,
    Account,
    Admission,
    next_day,
    reserve,
)
from pricecache.errors import BudgetSpent, ProviderError, ProviderPaused, RateLimited

NOON = 20_000 * DAY_SECONDS + 43_200.0
PACE = Pace(per_second=2, burst=5, concurrency=4, timeout=30)
BOUNDED = replace(PACE, per_second=1000, burst=1000, per_day=100)
lanes = st.sampled_from(LANES)


def admitted(account: Account, pace: Pace, lane: Lane, cost: int, now: float) -> tuple[Account, Admission | None]:
    """The account after a call asked to be let in, and how, or None when it was refused."""
    try:
        return account.admit(pace, lane, cost, cost, now)
    except ProviderError:
        return account, None


def refusal(account: Account, pace: Pace = PACE, lane: Lane = "live", now: float = NOON) -> ProviderError | None:
    return account.refusal(pace, lane, 1, now)


def failed(times: int, now: float = NOON) -> Account:
    account = Account()
    for _ in range(times):
        account = account.failed(now, "provider_unavailable")
    return account


# ---- the bucket


@given(
    st.floats(0.1, 50),
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 4), st.booleans()), max_size=60),
)
def test_no_more_is_let_in_than_the_rate_and_a_burst(
    rate: float, burst: int, calls: list[tuple[float, int, bool]]
) -> None:
    """In any stretch of time: requests let in since any moment stay within rate × time + burst."""
    pace = Pace(per_second=rate, burst=burst, concurrency=1, timeout=1)
    account, now = Account(), NOON
    taken: list[tuple[float, int]] = []
    for pause, cost, gives_back in calls:
        now += pause
        account, admission = admitted(account, pace, "live", cost, now)
        if admission is not None and not admission.wait:
            if gives_back:
                account = account.returned(pace, admission)
            else:
                taken.append((now, min(cost, burst)))
    for i, (since, _) in enumerate(taken):
        for j in range(i, len(taken)):
            assert sum(cost for _, cost in taken[i : j + 1]) <= rate * (taken[j][0] - since) + burst + 1e-3


@given(lanes, st.integers(1, 6), st.integers(0, 12), st.floats(0, 3 * DAY_SECONDS))
def test_a_call_put_right_is_as_one_that_was_charged_what_it_made(
    lane: Lane, cost: int, made: int, later: float
) -> None:
    """Of days gone by nothing is spent any more."""
    pace = replace(BOUNDED, per_day=1000, price=0.5)
    before, _ = admitted(Account(), pace, lane, 5, NOON)
    account, admission = admitted(before, pace, lane, cost, NOON)
    assert admission is not None
    other, _ = admitted(account, pace, "live", 1, NOON + later)
    settled = other.settled(pace, admission, made)
    assert (settled.requests, settled.dollars) == (6 + made, (6 + made) / 2)
    today = 1 + (5 + made if int((NOON + later) // DAY_SECONDS) == int(NOON // DAY_SECONDS) else 0)
    assert sum(settled.spent_by_lane(NOON + later).values()) == today


@given(st.floats(0.1, 50), st.integers(1, 20), st.integers(1, 40), st.integers(1, 30))
def test_whoever_waits_as_long_as_told_is_let_in(rate: float, burst: int, cost: int, before: int) -> None:
    pace = Pace(per_second=rate, burst=burst, concurrency=1, timeout=1)
    account, now = Account(), NOON
    for _ in range(before):
        account, _ = account.admit(pace, "live", 1, 1, now)
    account, admission = account.admit(pace, "live", cost, cost, now)
    if admission.wait:
        assert account.admit(pace, "live", cost, cost, now + admission.wait + 1e-6)[1].wait == 0


def test_a_clock_set_back_stops_nobody_for_long() -> None:
    account = Account()
    for _ in range(5):
        account, _ = account.admit(PACE, "live", 1, 1, NOON)
    account, admission = account.admit(PACE, "live", 1, 1, NOON - 7200)
    assert admission.wait == pytest.approx(0.5)
    assert account.admit(PACE, "live", 1, 1, NOON - 7199)[1].wait == 0
    cooling = Account().limited(NOON, "rate_limited", None)
    assert refusal(cooling, now=NOON - 7200) is None


def test_tokens_noted_late_have_flowed_in_again() -> None:
    """What was done while the database was away weighs on the budget, and not on the rate of now."""
    elsewhere, _ = Account().admit(PACE, "live", 1, 1, NOON)
    for _ in range(100):
        elsewhere = elsewhere.entered(PACE, Admission("live", 1, NOON - 60), late=True)
    assert elsewhere.admit(PACE, "live", 1, 1, NOON)[1].wait == 0
    assert elsewhere.spent_by_lane(NOON)["live"] == 101


# ---- the day's budget


@given(st.integers(1, 60), st.lists(st.tuples(lanes, st.integers(1, 3), st.booleans()), max_size=150))
def test_a_budget_is_never_overspent_and_reserves_stay_for_their_lanes(
    per_day: int, calls: list[tuple[Lane, int, bool]]
) -> None:
    """Whatever the lanes do in whatever order: the day's sum holds, and whoever spends leaves the more urgent lanes
    what is kept for them and not spent yet. Quotes are refused only when there is nothing left at all."""
    pace = replace(BOUNDED, per_day=per_day)
    account = Account()
    spent = dict.fromkeys(LANES, 0)
    for lane, cost, gives_back in calls:
        account, admission = admitted(account, pace, lane, cost, NOON)
        left = per_day - sum(spent.values()) - cost
        more_urgent = LANES[: LANES.index(lane)]
        kept = sum(max(0, reserve(per_day, urgent) - spent[urgent]) for urgent in more_urgent)
        within = lane != "search" or spent[lane] + cost <= max(1, per_day * SEARCHES_PERCENT // 100)
        assert (admission is not None) == (left >= kept and within)
        if admission is None:
            continue
        if gives_back:
            account = account.returned(pace, admission)
        else:
            spent[lane] += cost
    assert account.spent_by_lane(NOON) == spent
    assert sum(spent.values()) <= per_day


def test_deep_backfill_cannot_starve_quotes() -> None:
    account, deep, live = Account(), 0, 0
    while True:
        account, admission = admitted(account, BOUNDED, "deep", 1, NOON)
        if admission is None:
            break
        deep += 1
    while True:
        account, admission = admitted(account, BOUNDED, "live", 1, NOON)
        if admission is None:
            break
        live += 1
    assert (deep, live) == (20, 80)


@pytest.mark.parametrize(("lane", "most"), [("live", 100), ("user", 60), ("heal", 40), ("deep", 20), ("search", 5)])
def test_a_lane_alone_may_spend_what_is_kept_for_nobody_more_urgent(lane: Lane, most: int) -> None:
    assert Account().remaining(BOUNDED, lane, NOON) == most


def test_what_a_lane_has_spent_of_its_reserve_is_kept_no_longer() -> None:
    account = Account()
    for _ in range(40):
        account, _ = account.admit(BOUNDED, "live", 1, 1, NOON)
    assert account.remaining(BOUNDED, "deep", NOON) == 20
    assert account.remaining(BOUNDED, "live", NOON) == 60


def test_a_spent_day_is_refused_until_the_next_one_in_utc() -> None:
    account = replace(Account(), day=20_000, spent={"live": 100})
    told = refusal(account, BOUNDED)
    assert isinstance(told, BudgetSpent)
    assert (told.code, told.retry_after) == ("budget_spent", 43_200.0)
    assert refusal(account, BOUNDED, now=next_day(NOON)) is None
    assert account.remaining(BOUNDED, "live", next_day(NOON)) == 100
    assert account.remaining(PACE, "live", NOON) is None


def test_a_call_costs_its_requests_and_their_price() -> None:
    pace = replace(BOUNDED, price=0.01)
    account, _ = Account().admit(pace, "heal", 3, 1, NOON)
    account, _ = account.admit(pace, "heal", 3, 1, next_day(NOON))
    assert (account.requests, round(account.dollars, 6)) == (6, 0.06)
    assert account.spent_by_lane(next_day(NOON))["heal"] == 3


def test_yesterdays_requests_noted_late_are_not_todays() -> None:
    today, _ = Account().admit(BOUNDED, "live", 1, 1, next_day(NOON))
    late = today.entered(BOUNDED, Admission("live", 5, NOON), late=True)
    assert (late.requests, late.spent_by_lane(next_day(NOON))["live"]) == (6, 1)


# ---- the breaker


def test_it_opens_after_five_failures_in_a_row() -> None:
    assert failed(FAILURES_TO_OPEN - 1).breaker(NOON) == "closed"
    interrupted = failed(FAILURES_TO_OPEN - 1).answered(NOON).failed(NOON, "provider_unavailable")
    assert interrupted.breaker(NOON) == "closed"
    opened = failed(FAILURES_TO_OPEN)
    assert opened.breaker(NOON) == "open"
    told = refusal(opened, now=NOON + 59)
    assert isinstance(told, ProviderPaused)
    assert (told.code, told.retry_after) == ("provider_paused", 1.0)
    assert opened.breaker(NOON + 60) == "half_open"


def test_unknown_symbols_and_bad_answers_neither_open_it_nor_count_as_success() -> None:
    account = failed(FAILURES_TO_OPEN - 1)
    for code in ("symbol_not_found", "provider_answer_bad") * 10:
        account = account.refused(NOON, code)
    assert account.breaker(NOON) == "closed"
    assert account.failed(NOON, "provider_unavailable").breaker(NOON) == "open"


def test_half_open_one_is_let_in_and_the_others_wait_for_its_answer() -> None:
    account, admission = failed(FAILURES_TO_OPEN).admit(PACE, "heal", 1, 1, NOON + 60)
    assert admission.trial
    assert isinstance(refusal(account, now=NOON + 61), ProviderPaused)
    closed = account.answered(NOON + 62, trial=True)
    assert (closed.breaker(NOON + 62), closed.failures, refusal(closed, now=NOON + 62)) == ("closed", 0, None)


def test_a_trial_of_a_daemon_that_died_is_not_waited_for_for_ever() -> None:
    account, _ = failed(FAILURES_TO_OPEN).admit(PACE, "heal", 1, 1, NOON + 60)
    assert account.admit(PACE, "heal", 1, 1, NOON + 60 + PACE.timeout + 31)[1].trial


def test_each_failed_trial_doubles_the_pause_up_to_a_quarter_of_an_hour() -> None:
    account, now, pauses = failed(FAILURES_TO_OPEN), NOON, []
    for _ in range(6):
        pauses.append(account.paused_until - now)
        now = account.paused_until
        account, admission = account.admit(PACE, "heal", 1, 1, now)
        assert admission.trial
        account = account.failed(now, "provider_unavailable", trial=True)
    assert pauses == [60, 120, 240, 480, 900, 900]
    assert account.opened_at == NOON
    account = account.reset()
    assert account.breaker(now) == "closed"
    again = account
    for _ in range(FAILURES_TO_OPEN):
        again = again.failed(now, "provider_unavailable")
    assert again.paused_until == now + 60


def test_late_answers_of_calls_begun_before_do_not_move_an_open_breaker() -> None:
    opened = failed(FAILURES_TO_OPEN)
    assert opened.failed(NOON + 5, "provider_unavailable").paused_until == opened.paused_until
    assert opened.answered(NOON + 5).breaker(NOON + 5) == "open"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"code": "symbol_not_found"}, "closed"),
        ({"code": "provider_answer_bad"}, "half_open"),
    ],
)
def test_a_trial_that_is_no_control_symbol_closes_it_when_the_provider_knows_what_it_misses(
    change: dict[str, Any], state: str
) -> None:
    account, _ = failed(FAILURES_TO_OPEN).admit(PACE, "heal", 1, 1, NOON + 60)
    account = account.refused(NOON + 61, trial=True, **change)
    assert account.breaker(NOON + 61) == state
    assert refusal(account, now=NOON + 61) is None


# ---- the cool-down


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, 120), (7.0, 7), (0.0, 1), (86400.0, 900)])
def test_a_429_stops_calls_for_as_long_as_it_says(retry_after: float | None, seconds: float) -> None:
    account = Account().limited(NOON, "rate_limited", retry_after)
    told = refusal(account, now=NOON + seconds - 0.5)
    assert isinstance(told, RateLimited)
    assert told.retry_after == pytest.approx(0.5)
    assert refusal(account, now=NOON + seconds) is None


def test_without_a_word_the_cool_down_doubles_until_a_success() -> None:
    account, now, lengths = Account(), NOON, []
    for _ in range(5):
        account = account.limited(now, "rate_limited", None)
        assert account.limited(now + 1, "rate_limited", None).cool_until == account.cool_until
        lengths.append(account.cooling_down_for(now))
        now += 900
    assert lengths == [120, 240, 480, 900, 900]
    account = account.answered(now).limited(now, "rate_limited", None)
    assert account.cooling_down_for(now) == 120


def test_a_429_does_not_open_the_breaker_and_leaves_a_trial_to_the_next() -> None:
    account = Account()
    for _ in range(10):
        account = account.limited(NOON, "rate_limited", 1.0)
    assert account.breaker(NOON) == "closed"
    account, _ = failed(FAILURES_TO_OPEN).admit(PACE, "heal", 1, 1, NOON + 60)
    account = account.limited(NOON + 61, "rate_limited", 5.0, trial=True)
    assert account.admit(PACE, "heal", 1, 1, NOON + 70)[1].trial


# ---- what it remembers


def test_calls_and_errors_are_remembered_for_a_day_by_the_hour() -> None:
    account = Account().answered(NOON).failed(NOON, "provider_unavailable").refused(NOON + 3600, "symbol_not_found")
    assert account.of_last_day(NOON + 3600) == (3, {"provider_unavailable": 1, "symbol_not_found": 1})
    assert account.of_last_day(NOON + 24 * 3600) == (1, {"symbol_not_found": 1})
    for hour in range(100):
        account = account.answered(NOON + hour * 3600)
    assert len(account.hours) == 24
    assert (account.last_success_at, account.last_error_at) == (NOON + 99 * 3600, NOON + 3600)
    assert account.last_error_code == "symbol_not_found"


def test_a_reset_gives_a_fresh_start_and_leaves_the_budget_alone_unless_told() -> None:
    account = failed(FAILURES_TO_OPEN).limited(NOON, "rate_limited", None)
    account = replace(account, day=20_000, spent={"live": 7})
    assert refusal(account.reset()) is None
    assert account.reset().spent_by_lane(NOON)["live"] == 7
    assert account.reset(budget=True).spent_by_lane(NOON)["live"] == 0
    assert account.reset().of_last_day(NOON) == account.of_last_day(NOON)


def test_who_is_refused_while_the_breaker_is_open_is_told_the_last_failure() -> None:
    account = Account()
    for number in range(FAILURES_TO_OPEN):
        account = account.failed(NOON, "provider_unavailable", detail=f"Status 50{number}.")
    told = refusal(account)
    assert told is not None
    assert told.detail == "The provider failed repeatedly and is not asked for a while. The last failure: Status 504."
    assert account.reset().cause == ""
