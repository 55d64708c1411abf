"""What to ask a provider for so that a series becomes whole, and what its answer or failure leaves to remember.

Everything is derived from what is held and from `SyncState`, so a kill at any moment is healed by the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import DAY_SECONDS
from pricecache.core.coverage import (
    ASK_SPACING,
    ASKS,
    AUDIT_SECONDS,
    LATE_SPACING,
    Hole,
    SyncState,
    Withheld,
    contains,
    is_quarantined,
    late_from,
)
from pricecache.core.sessions import SessionCalendar
from pricecache.core.text import plain_text
from pricecache.errors import NotAsked, ProviderAnswerBad, ProviderError, RateLimited, SymbolNotFound

Noted = TypeVar("Noted")
Why = Literal["first", "new", "depth", "hole", "retry", "audit", "again"]

OVERLAP = 5
"""Held sessions asked for again on either side of what is missing, so that a restatement shows."""
NEARLY = 0.9
"""Of an interval: a series is examined some time after the tick of a schedule, which the next tick must not miss."""
AUDIT_REST_SECONDS = 5.0 * DAY_SECONDS
"""Not sooner after a history was last compared as a whole: each series has its own day of the month."""
BACKOFF_SECONDS = 15 * 60.0
LONGEST_BACKOFF_SECONDS = 24 * 3600.0
PASSING_RETRY_SECONDS = 60.0
LONGEST_PASSING_RETRY_SECONDS = 15 * 60.0
DEAD_AFTER_DAYS = 3
DEAD_AFTER_TIMES = 5
"""A symbol counts as dead once no provider knew it so many times, on so many different UTC days."""
DEAD_RETRY_SECONDS = 7.0 * DAY_SECONDS
DAYS_NOTED = 10
SAME_CLOSE_RTOL = 1e-4
"""Closes of one session by one provider that differ by less than this share are the same: rounding, and splits."""
NO_DATA = "no_data"
NO_DATA_REASON = "the provider answered without any bar"


@dataclass(frozen=True, slots=True)
class Unstored:
    """A row of an answer that was not stored: `reason` in words, its `source`, and its close as traded if known."""

    reason: str
    source: str = ""
    close: float | None = None


NOTHING_UNSTORED: Mapping[int, Unstored] = {}


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
    if not force and state.next_retry is not None and now < state.next_retry:
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
    refused: Mapping[int, Unstored] = NOTHING_UNSTORED,
    parked: Mapping[int, Unstored] = NOTHING_UNSTORED,
    source: str = "",
    is_first: bool = False,
) -> SyncState:
    """What to remember after an answer. `answered`: the sessions it had bars of; `held_after`: those in the record by
    now; both int64, ascending. `refused`: by session, rows that cannot be true; `parked`: bars that await review;
    `source`: whose answer it is; `is_first`: nothing was held before it.

    An answer without any bar is neutral: it neither raises nor resets the count of failures and is no evidence about
    any session. Where something is held, in the range asked for or beside it, it contradicts that; where nothing is
    held the series is asked for again after a while that grows from two hours to 20, and to a week after a month.
    """
    if not len(answered) and not parked:
        is_audit = ask.why == "audit" and ask.start <= state.wanted_from
        if is_audit and len(held_after):
            return replace(state, audited_at=now)
        return state if len(held_after) else _nothing_yet(state, now)
    listed_on = _earliest(state.listed_on, first_available)
    if is_first or state.empty_since is not None:  # what was noted before the first bars was no evidence
        state = replace(state, holes={}, absent={})
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
        empty_since=None,
        parked=_withheld_after(state.parked, ask, parked, {*answered.tolist(), *refused}, source, held_after, now),
        refused=_withheld_after(state.refused, ask, refused, {*answered.tolist(), *parked}, source, held_after, now),
    )
    return _noted(state, ask, held_after, calendar, now)


def seen_after(before: Withheld | None, row: Unstored, now: float) -> int:
    """On how many different days one provider has come with the close of `row`, this answer included."""
    if before is None or not _is_same(before, row):
        return 1
    return before.seen + (now - before.seen_at >= ASK_SPACING)


def is_near(a: float | None, b: float | None, share: float) -> bool:
    """Whether two closes are known and differ by no more than `share` of the second."""
    return a is not None and b is not None and abs(a - b) <= share * abs(b)


def after_nothing_due(state: SyncState, now: float) -> SyncState:
    """What to remember of an examination that found nothing to ask for: a series that is failing, or waits until its
    providers can be asked, stays as it was."""
    if state.attempts or (state.next_retry is not None and now < state.next_retry):
        return state
    return replace(state, last_update=now, next_retry=None, code=None, reason=None)


def after_failure(
    state: SyncState, error: ProviderError, now: float, jitter: float, *, control_works: bool = True
) -> SyncState:
    """What to remember of a call that failed. `jitter`: a random number in [0, 1).

    A failure that speaks against the symbol (not found, a bad answer) backs off from 15 minutes, doubling up to a
    day, with full jitter (the wait is a random share of that). One that speaks against the provider is tried again
    at the next sync, or when the provider said so, in at most 15 minutes; it never lengthens the symbol's backoff.
    `control_works`: whether the provider knows what it always has; a symbol that it then does not know, time after
    time on several days, counts as dead: asked for once a week. Without that a symbol not found counts for nothing.
    Where no provider was asked (`NotAsked`), no call failed: it only waits.
    """
    if isinstance(error, NotAsked):
        return _not_asked(state, error, now)
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


def _not_asked(state: SyncState, error: NotAsked, now: float) -> SyncState:
    state = replace(state, next_retry=now + min(max(error.retry_after, 0.0), LONGEST_PASSING_RETRY_SECONDS))
    if state.attempts:  # what it fails of says more
        return state
    return replace(state, code=error.code, reason=plain_text(error.detail))


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
    """The state once a person has decided about the row of `session` that was not stored."""
    return replace(
        state,
        parked={s: row for s, row in state.parked.items() if s != session},
        refused={s: row for s, row in state.refused.items() if s != session},
    )


def _counted_not_found(state: SyncState, now: float, jitter: float) -> SyncState:
    today = int(now // DAY_SECONDS)
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
    late = late_from(held, last_due) if state.last_update is None or now - state.last_update >= LATE_SPACING else None
    late = last_due if late is None else late
    if not len(held):
        state = replace(state, absent={})  # answers without anything were no evidence
    due = [s for s in missing.tolist() if force or _is_due(s, state, now, late=s > late)]
    never_asked_for = [session for session in due if not _turn(session, state)]
    return due if force or not never_asked_for else never_asked_for


def _turn(session: int, state: SyncState) -> int:
    asked = state.parked.get(session) or state.refused.get(session) or state.holes.get(session)
    return 0 if asked is None else asked.asks


def _missing(
    held: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, start: int, end: int
) -> NDArray[np.int64]:
    if state.listed_on is not None:
        start = max(start, state.listed_on)
    if state.delisted_after is not None:
        end = min(end, state.delisted_after)
    expected = calendar.between(start, end)
    return expected[~contains(held, expected)]


def _is_due(session: int, state: SyncState, now: float, *, late: bool) -> bool:
    confirmed_at = state.absent.get(session)
    if confirmed_at is not None:
        return now - confirmed_at >= AUDIT_SECONDS
    if (row := state.parked.get(session) or state.refused.get(session)) is not None:
        return now >= row.next_ask
    hole = state.holes.get(session)
    return hole is None or late or now - hole.last_ask >= ASK_SPACING


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
) -> SyncState:
    lacking = _missing(held, calendar, state, ask.start, ask.end)
    if state.parked or state.refused:  # a provider has them, though not as they can be
        lacking = np.setdiff1d(lacking, np.array([*state.parked, *state.refused], np.int64))
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


def _nothing_yet(state: SyncState, now: float) -> SyncState:
    since = now if state.empty_since is None else state.empty_since
    wait = min(max(now - since, LATE_SPACING), ASK_SPACING) if now - since < AUDIT_SECONDS else DEAD_RETRY_SECONDS
    state = replace(state, empty_since=since, next_retry=now + wait)
    # what it fails of, if it does, says more
    return state if state.attempts else replace(state, code=NO_DATA, reason=NO_DATA_REASON)


def _withheld_after(
    before: Mapping[int, Withheld],
    ask: Ask,
    rows: Mapping[int, Unstored],
    settled: AbstractSet[int],
    source: str,
    held: NDArray[np.int64],
    now: float,
) -> dict[int, Withheld]:
    """`settled`: sessions that this answer says something else of."""
    after: dict[int, Withheld] = {}
    for session, row in before.items():
        if not ask.start <= session <= ask.end:
            after[session] = row
        elif session not in rows and session not in settled and row.source != source:
            after[session] = _counted(row, ask, now)  # that this provider has none says nothing about another's
    after |= {session: _seen_again(before.get(session), row, ask, now) for session, row in rows.items()}
    return _without_held(after, held)


def _seen_again(before: Withheld | None, row: Unstored, ask: Ask, now: float) -> Withheld:
    seen = seen_after(before, row, now)
    if before is None:
        return Withheld(row.reason, now, 1, row.source, row.close, seen, now)
    is_today = _is_same(before, row) and seen == before.seen
    counted = _counted(before, ask, now)
    return replace(
        counted,
        reason=row.reason,
        source=row.source,
        close=row.close,
        seen=seen,
        seen_at=before.seen_at if is_today else now,
    )


def _counted(row: Withheld, ask: Ask, now: float) -> Withheld:
    if not ask.turn:  # beside newer sessions; it still waits for the call in which another provider is asked first
        return row
    return replace(row, asks=row.asks + (now - row.last_ask >= ASK_SPACING), last_ask=now)


def _is_same(before: Withheld, row: Unstored) -> bool:
    return before.source == row.source and is_near(before.close, row.close, SAME_CLOSE_RTOL)


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
