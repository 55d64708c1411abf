"""What to ask a provider for so that a series becomes whole, and what its answer or failure leaves to remember.

Everything is derived from what is held and from `SyncState`, so a kill at any moment is healed by the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pricecache.core.coverage import Hole, SyncState, contains
from pricecache.core.sessions import SessionCalendar
from pricecache.core.text import plain_text
from pricecache.errors import ProviderAnswerBad, ProviderError, RateLimited, SymbolNotFound

Noted = TypeVar("Noted")
Why = Literal["first", "new", "depth", "hole", "retry", "audit", "again"]

OVERLAP = 5
"""Held sessions asked for again on either side of what is missing, so that a restatement shows."""
ASKS = 3
"""Answers without a session, on different days, after which it is accepted that it never traded."""
ASK_SPACING = 20 * 3600.0
LATE_DAYS = 4
LATE_SPACING = 2 * 3600.0
"""A session that is missing at the end of the record is asked for every two hours for so long: vendors bring the last
bars late, and a hole there is a hole in what everybody reads first."""
NEARLY = 0.9
"""Of an interval: a series is examined some time after the tick of a schedule, which the next tick must not miss."""
AUDIT_SECONDS = 30 * 86400.0
BACKOFF_SECONDS = 15 * 60.0
LONGEST_BACKOFF_SECONDS = 24 * 3600.0
PASSING_RETRY_SECONDS = 60.0
LONGEST_PASSING_RETRY_SECONDS = 15 * 60.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of a provider: sessions `start` to `end`, both included (days since 1970-01-01), and what for."""

    start: int
    end: int
    why: Why

    def covers(self, other: Ask) -> bool:
        return self.start <= other.start and other.end <= self.end


def examination_due(
    held: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, now: float, lag: float, interval: float
) -> bool:
    """Whether a series is to be examined: never was, not for about `interval` seconds, or it has any hole."""
    if state.last_update is None or now - state.last_update >= NEARLY * interval:
        return True
    last_due = calendar.last_closed(now, lag)
    return last_due is not None and bool(len(_missing(held, calendar, state, state.wanted_from, last_due)))


def plan(
    held: NDArray[np.int64],
    calendar: SessionCalendar,
    state: SyncState,
    now: float,
    lag: float,
    *,
    force: bool = False,
    again_from: int | None = None,
) -> Ask | None:
    """The smallest single range that covers every session due to be asked for, or None when there is none.

    `held`: sessions in the record, int64, ascending. `lag`: seconds after a close until its bar is final. Never
    outside `wanted_from` and the last due session. `force` asks although a retry or the next look at a hole is not
    due yet. `again_from`: everything from that session on is asked for, held or not.
    """
    last_due = calendar.last_closed(now, lag)
    if last_due is None or last_due < state.wanted_from:
        return None
    if not force and state.attempts and state.next_retry is not None and now < state.next_retry:
        return None
    missing = _missing(held, calendar, state, state.wanted_from, last_due)
    late = last_due
    if len(held) and (state.last_update is None or now - state.last_update >= LATE_SPACING):
        late = max(last_due - LATE_DAYS, int(held[-1]))
    due = [s for s in missing.tolist() if _is_due(s, state, now, force or s > late)]
    first, last = (due[0], due[-1]) if due else (None, None)
    if again_from is not None:
        sessions = calendar.between(max(again_from, state.wanted_from), last_due)
        if len(sessions):
            first, last = min(int(sessions[0]), due[0] if due else last_due), last_due
    if first is None or last is None:
        return None
    start, end = _widened(held, first, last)
    why: Why = "again" if again_from is not None else _reason(due, state)
    return Ask(max(start, state.wanted_from), min(end, last_due), why)


def after_answer(
    state: SyncState,
    ask: Ask,
    held_after: NDArray[np.int64],
    calendar: SessionCalendar,
    first_available: int | None,
    now: float,
    *,
    answered: NDArray[np.int64],
    refused: NDArray[np.int64] | None = None,
) -> SyncState:
    """What to remember after an answer. `answered`: the sessions it had bars of; `held_after`: those in the record by
    now; `refused`: those it had bars of that cannot be believed; all int64, ascending.

    An answer without any bar is neutral: it neither raises nor resets the count of failures, and where sessions of
    the range asked for are held it contradicts them, so it is no evidence about the others either.
    """
    if not len(answered):
        return state if _any_between(held_after, ask) else _noted(state, ask, held_after, calendar, now, refused)
    listed_on = _earliest(state.listed_on, first_available)
    state = replace(
        state,
        listed_on=None if listed_on is None else min(listed_on, int(answered[0])),
        attempts=0,
        refusals=0,
        failing_since=None,
        next_retry=None,
        code=None,
        reason=None,
        last_update=now,
    )
    return _noted(state, ask, held_after, calendar, now, refused)


def after_nothing_due(state: SyncState, now: float) -> SyncState:
    """What to remember of an examination that found nothing to ask for: a failing series stays as it was."""
    return state if state.attempts else replace(state, last_update=now)


def after_failure(state: SyncState, error: ProviderError, now: float, jitter: float) -> SyncState:
    """What to remember of a call that failed. `jitter`: a random number in [0, 1).

    A failure that speaks against the symbol (not found, a bad answer) backs off from 15 minutes, doubling up to a
    day, with full jitter (the wait is a random share of that). One that speaks against the provider is tried again
    at the next sync, or when the provider said so, in at most 15 minutes; it never lengthens the symbol's backoff.
    """
    refused = isinstance(error, SymbolNotFound | ProviderAnswerBad)
    if refused:
        longest = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(state.refusals, 16))
        wait = jitter * longest
    else:
        said = error.retry_after if isinstance(error, RateLimited) else None
        wait = min(PASSING_RETRY_SECONDS if said is None else max(said, 0.0), LONGEST_PASSING_RETRY_SECONDS)
    return replace(
        state,
        attempts=state.attempts + 1,
        refusals=state.refusals + refused,
        failing_since=now if state.failing_since is None else state.failing_since,
        next_retry=now + wait,
        code=error.code,
        reason=plain_text(error.detail),
    )


def _missing(
    held: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, start: int, end: int
) -> NDArray[np.int64]:
    if state.listed_on is not None:
        start = max(start, state.listed_on)
    if state.delisted_after is not None:
        end = min(end, state.delisted_after)
    expected = calendar.between(start, end)
    return expected[~contains(held, expected)]


def _is_due(session: int, state: SyncState, now: float, at_once: bool) -> bool:
    confirmed_at = state.absent.get(session)
    if confirmed_at is not None:
        return now - confirmed_at >= AUDIT_SECONDS
    hole = state.holes.get(session)
    return hole is None or at_once or now - hole.last_ask >= ASK_SPACING


def _widened(held: NDArray[np.int64], first: int, last: int) -> tuple[int, int]:
    before = held[: held.searchsorted(first)][-OVERLAP:]
    after = held[held.searchsorted(last, side="right") :][:OVERLAP]
    return int(before[0]) if len(before) else first, int(after[-1]) if len(after) else last


def _reason(due: list[int], state: SyncState) -> Why:
    if state.attempts:
        return "retry"
    if state.answered_from is None or state.answered_to is None:
        return "first"
    if due[0] < state.answered_from:
        return "depth"
    if due[-1] > state.answered_to:
        return "new"
    return "audit" if all(session in state.absent for session in due) else "hole"


def _noted(
    state: SyncState,
    ask: Ask,
    held: NDArray[np.int64],
    calendar: SessionCalendar,
    now: float,
    refused: NDArray[np.int64] | None = None,
) -> SyncState:
    lacking = _missing(held, calendar, state, ask.start, ask.end)
    if refused is not None:
        lacking = np.setdiff1d(lacking, refused)  # the provider has them, though not as they can be
    holes, absent = _without_held(state.holes, held), _without_held(state.absent, held)
    for session in lacking.tolist():
        if session in absent:
            absent[session] = now
            continue
        hole = _asked_again(holes.get(session), now)
        if hole.asks >= ASKS:
            absent[session] = now
            holes.pop(session, None)
        else:
            holes[session] = hole
    expected = calendar.between(max(state.wanted_from, state.listed_on or state.wanted_from), ask.end)
    whole = ask.end >= (state.answered_to or ask.end) and not (len(expected) and expected[0] < ask.start)
    return replace(
        state,
        holes=holes,
        absent=absent,
        answered_from=_earliest(state.answered_from, ask.start),
        answered_to=ask.end if state.answered_to is None else max(state.answered_to, ask.end),
        audited_at=now if whole else state.audited_at,
    )


def _asked_again(hole: Hole | None, now: float) -> Hole:
    if hole is None:
        return Hole(1, now, now)
    return Hole(hole.asks + 1, hole.first_ask, now) if now - hole.last_ask >= ASK_SPACING else hole


def _without_held(noted: Mapping[int, Noted], held: NDArray[np.int64]) -> dict[int, Noted]:
    if not noted:
        return {}
    sessions = np.array(sorted(noted), np.int64)
    return {session: noted[session] for session in sessions[~contains(held, sessions)].tolist()}


def _any_between(held: NDArray[np.int64], ask: Ask) -> bool:
    return bool(held.searchsorted(ask.end, side="right") > held.searchsorted(ask.start))


def _earliest(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)
