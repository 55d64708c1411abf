"""What to ask a provider for so that a series becomes whole, and what its answer or failure leaves to remember.

Everything is derived from what is held and from `SyncState`, so a kill at any moment is healed by the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pricecache.core.coverage import ASK_SPACING, Hole, SyncState, contains, is_quarantined
from pricecache.core.sessions import SessionCalendar
from pricecache.core.text import plain_text
from pricecache.errors import ProviderAnswerBad, ProviderError, RateLimited, SymbolNotFound

Noted = TypeVar("Noted")
Why = Literal["first", "new", "depth", "hole", "retry", "audit", "again"]

OVERLAP = 5
"""Held sessions asked for again on either side of what is missing, so that a restatement shows."""
ASKS = 3
"""Answers without a session, on different days, after which it is accepted that it never traded."""
LATE_DAYS = 4
LATE_SPACING = 2 * 3600.0
"""A session that is missing at the end of the record is asked for every two hours for so long: vendors bring the last
bars late, and a hole there is a hole in what everybody reads first."""
NEARLY = 0.9
"""Of an interval: a series is examined some time after the tick of a schedule, which the next tick must not miss."""
AUDIT_SECONDS = 30 * 86400.0
"""How often a whole history is asked for again, and a session accepted as never traded."""
AUDIT_REST_SECONDS = 5 * 86400.0
"""Not sooner after a history was last compared as a whole: each series has its own day of the month."""
BACKOFF_SECONDS = 15 * 60.0
LONGEST_BACKOFF_SECONDS = 24 * 3600.0
PASSING_RETRY_SECONDS = 60.0
LONGEST_PASSING_RETRY_SECONDS = 15 * 60.0
DEAD_AFTER_DAYS = 3
DEAD_AFTER_TIMES = 5
"""A symbol counts as dead once no provider knew it so many times, on so many different UTC days."""
DEAD_RETRY_SECONDS = 7 * 86400.0
DAYS_NOTED = 10


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of a provider: sessions `start` to `end`, both included (days since 1970-01-01), and what for.

    `turn`: how often a provider has answered without what this is for, so that another one is asked first.
    """

    start: int
    end: int
    why: Why
    turn: int = 0

    def covers(self, other: Ask) -> bool:
        return self.start <= other.start and other.end <= self.end


def examination_due(
    held: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, now: float, lag: float, interval: float
) -> bool:
    """Whether a series is to be examined: never was, not for about `interval` seconds, or it has any hole."""
    if is_quarantined(state, now):
        return False
    if state.last_update is None or now - state.last_update >= NEARLY * interval:
        return True
    last_due = _last_due(calendar, state, now, lag)
    return last_due is not None and bool(len(_missing(held, calendar, state, state.wanted_from, last_due)))


def audit_due(state: SyncState, series_id: int, now: float) -> bool:
    """Whether the whole history is to be asked for again: once in 30 days, each series at a time of its own, so that
    they do not all come on one day. `now`: seconds since 1970 UTC."""
    if state.audited_at is None or state.delisted_after is not None or state.quarantined_at is not None:
        return False
    own_time = series_id * 2654435761 % 2**32 / 2**32 * AUDIT_SECONDS  # Knuth's multiplicative hash
    earliest = state.audited_at + AUDIT_REST_SECONDS
    return now >= own_time + ceil((earliest - own_time) / AUDIT_SECONDS) * AUDIT_SECONDS


def plan(
    held: NDArray[np.int64],
    calendar: SessionCalendar,
    state: SyncState,
    now: float,
    lag: float,
    *,
    force: bool = False,
    again_from: int | None = None,
    audit: bool = False,
) -> Ask | None:
    """The smallest single range that covers every session due to be asked for, or None when there is none.

    `held`: sessions in the record, int64, ascending. `lag`: seconds after a close until its bar is final. Never
    outside `wanted_from` and the last due session. `force` asks although a retry or the next look at a hole is not
    due yet. `again_from`: everything from that session on is asked for, held or not. `audit`: everything is.
    Sessions that a provider was asked for already wait for a call of their own, in which another one may be first; so
    it may be after an answer that could not be taken.
    """
    last_due = _last_due(calendar, state, now, lag)
    if last_due is None or last_due < state.wanted_from:
        return None
    if not force and state.attempts and state.next_retry is not None and now < state.next_retry:
        return None
    due = _due(held, calendar, state, now, last_due, force=force)
    turn = state.refusals + min((_turn(session, state) for session in due), default=0)
    first, last = (due[0], due[-1]) if due else (None, None)
    if again_from is not None or audit:
        turn = 0
        sessions = calendar.between(max(again_from or 0, state.wanted_from), last_due)
        if len(sessions):
            first, last = min(int(sessions[0]), due[0] if due else last_due), last_due
    if first is None or last is None:
        return None
    start, end = _widened(held, first, last)
    why: Why = "again" if again_from is not None else "audit" if audit else _reason(due, state)
    return Ask(max(start, state.wanted_from), min(end, last_due), why, turn)


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
    parked: NDArray[np.int64] | None = None,
) -> SyncState:
    """What to remember after an answer. `answered`: the sessions it had bars of; `held_after`: those in the record by
    now; `refused`: those it had bars of that cannot be believed; `parked`: those whose bars await review; all int64,
    ascending.

    An answer without any bar is neutral: it neither raises nor resets the count of failures, and where sessions of
    the range asked for are held it contradicts them, so it is no evidence about the others either.
    """
    parked = np.empty(0, np.int64) if parked is None else parked
    refused = parked if refused is None else np.union1d(refused, parked)
    if not len(answered) and not len(parked):
        if _any_between(held_after, ask):
            is_audit = ask.why == "audit" and ask.start <= state.wanted_from
            return replace(state, audited_at=now) if is_audit else state
        return _noted(state, ask, held_after, calendar, now, refused)
    listed_on = _earliest(state.listed_on, first_available)
    state = replace(
        state,
        listed_on=None if listed_on is None else min([listed_on, *answered[:1].tolist()]),
        attempts=0,
        refusals=0,
        failing_since=None,
        next_retry=None,
        code=None,
        reason=None,
        last_update=now,
        not_found=0,
        not_found_days=(),
        quarantined_at=None,
        parked=_parked_after(state, ask, parked, now),
    )
    return _noted(state, ask, held_after, calendar, now, refused)


def after_nothing_due(state: SyncState, now: float) -> SyncState:
    """What to remember of an examination that found nothing to ask for: a failing series stays as it was."""
    return state if state.attempts else replace(state, last_update=now)


def after_failure(
    state: SyncState, error: ProviderError, now: float, jitter: float, *, control_works: bool = True
) -> SyncState:
    """What to remember of a call that failed. `jitter`: a random number in [0, 1).

    A failure that speaks against the symbol (not found, a bad answer) backs off from 15 minutes, doubling up to a
    day, with full jitter (the wait is a random share of that). One that speaks against the provider is tried again
    at the next sync, or when the provider said so, in at most 15 minutes; it never lengthens the symbol's backoff.
    `control_works`: whether the provider knows what it always has; a symbol that it then does not know, time after
    time on several days, counts as dead: asked for once a week. Without that a symbol not found counts for nothing.
    """
    not_found = isinstance(error, SymbolNotFound) and control_works
    refused = not_found or isinstance(error, ProviderAnswerBad)
    if refused:
        longest = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(state.refusals, 16))
        wait = jitter * longest
    else:
        said = error.retry_after if isinstance(error, RateLimited) else None
        wait = min(PASSING_RETRY_SECONDS if said is None else max(said, 0.0), LONGEST_PASSING_RETRY_SECONDS)
    state = replace(
        state,
        attempts=state.attempts + 1,
        refusals=state.refusals + refused,
        failing_since=now if state.failing_since is None else state.failing_since,
        next_retry=now + wait,
        code=error.code if state.quarantined_at is None else state.code,
        reason=plain_text(error.detail) if state.quarantined_at is None else state.reason,
    )
    return _counted_not_found(state, now, jitter) if not_found else state


def after_refused_audit(state: SyncState, now: float) -> SyncState:
    """What to remember of an audit whose answer cannot be made sense of as a whole: what falls due day by day is
    asked for as ever, and the whole again in a month."""
    return replace(state, audited_at=now)


def delisted(state: SyncState, after: int | None) -> SyncState:
    """The state of an instrument that traded for the last time on session `after`; None: it trades on.

    Nothing is asked for beyond it, and what failed or counted as dead because of it no longer does.
    """
    return replace(
        state,
        delisted_after=after,
        attempts=0,
        refusals=0,
        failing_since=None,
        next_retry=None,
        code=None,
        reason=None,
        not_found=0,
        not_found_days=(),
        quarantined_at=None,
    )


def reviewed(state: SyncState, session: int) -> SyncState:
    """The state once a person has decided about the parked bar of `session`."""
    return replace(state, parked={s: at for s, at in state.parked.items() if s != session})


def _counted_not_found(state: SyncState, now: float, jitter: float) -> SyncState:
    today = int(now // 86400)
    days = tuple(sorted({*state.not_found_days, today}))[-DAYS_NOTED:]
    state = replace(state, not_found=state.not_found + 1, not_found_days=days)
    if state.not_found < DEAD_AFTER_TIMES or len(days) < DEAD_AFTER_DAYS:
        return state
    return replace(
        state,
        quarantined_at=now if state.quarantined_at is None else state.quarantined_at,
        next_retry=now + DEAD_RETRY_SECONDS * (1 - 0.1 * jitter),
        code="quarantined",
        reason=f"no provider knew it {state.not_found} times in a row, on {len(days)} days or more; "
        "it is asked for once a week",
    )


def _last_due(calendar: SessionCalendar, state: SyncState, now: float, lag: float) -> int | None:
    last_due = calendar.last_closed(now, lag)
    if last_due is None or state.delisted_after is None:
        return last_due
    return min(last_due, state.delisted_after)


def _due(
    held: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, now: float, last_due: int, *, force: bool
) -> list[int]:
    missing = _missing(held, calendar, state, state.wanted_from, last_due)
    late = last_due
    if len(held) and (state.last_update is None or now - state.last_update >= LATE_SPACING):
        late = max(last_due - LATE_DAYS, int(held[-1]))
    due = [s for s in missing.tolist() if _is_due(s, state, now, force=force, late=s > late)]
    never_asked_for = [session for session in due if not _turn(session, state)]
    return due if force or not never_asked_for else never_asked_for


def _turn(session: int, state: SyncState) -> int:
    if session in state.parked:
        return 1
    hole = state.holes.get(session)
    return 0 if hole is None else hole.asks


def _missing(
    held: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, start: int, end: int
) -> NDArray[np.int64]:
    if state.listed_on is not None:
        start = max(start, state.listed_on)
    if state.delisted_after is not None:
        end = min(end, state.delisted_after)
    expected = calendar.between(start, end)
    return expected[~contains(held, expected)]


def _is_due(session: int, state: SyncState, now: float, *, force: bool, late: bool) -> bool:
    confirmed_at = state.absent.get(session)
    if confirmed_at is not None:
        return now - confirmed_at >= AUDIT_SECONDS
    parked_at = state.parked.get(session)
    if parked_at is not None:
        return force or now - parked_at >= ASK_SPACING
    hole = state.holes.get(session)
    return hole is None or force or late or now - hole.last_ask >= ASK_SPACING


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
        # what was never filled at once, a restored backup say, counts from its first answer
        audited_at=now if whole or state.audited_at is None else state.audited_at,
    )


def _parked_after(state: SyncState, ask: Ask, parked: NDArray[np.int64], now: float) -> dict[int, float]:
    others = {session: at for session, at in state.parked.items() if not ask.start <= session <= ask.end}
    # seen again beside newer sessions it still waits for the call in which another provider is asked first
    again = {} if ask.turn else {s: state.parked[s] for s in parked.tolist() if s in state.parked}
    return others | dict.fromkeys(parked.tolist(), now) | again


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
