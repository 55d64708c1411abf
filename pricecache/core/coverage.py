"""Which sessions of a series are held, and for each that is not, the one reason why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.sessions import SessionCalendar

Absence = Literal[
    "not_requested", "before_listing", "after_delisting", "not_due", "pending", "failing", "confirmed_absent"
]
EXCUSED: frozenset[Absence] = frozenset({"before_listing", "after_delisting", "not_due", "confirmed_absent"})
"""Classes of sessions that nobody can expect to be held."""
ASK_SPACING = 20 * 3600.0
"""Seconds until a session that a provider answered without, or with a bar that awaits review, is asked for again."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A due session that a provider answered without: how often, and when first and last (seconds since 1970 UTC)."""

    asks: int
    first_ask: float
    last_ask: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a provider and what is held part: said, never acted on. Instants are seconds since 1970 UTC.

    `first`, `last`: the sessions concerned, days since 1970-01-01, or None; `count`: how many of them; `since`,
    `last_seen`: when it was first and last noticed.
    """

    provider: str
    detail: str
    since: float
    last_seen: float
    count: int = 0
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class SyncState:
    """What healing remembers of one series. Sessions are days since 1970-01-01, instants seconds since 1970 UTC.

    `wanted_from`: history is kept from here on. `last_update`: when it was last examined with success.
    `answered_from`, `answered_to`: the range a provider has answered for, with bars or without. `listed_on`: the
    first session the provider has at all; `delisted_after`: the last one. `holes`: due sessions answered without a
    bar; `absent`: sessions accepted as never traded, with the instant they were last confirmed so. `attempts`,
    `failing_since`, `next_retry`, `code`, `reason`: of provider calls failing in a row; `refusals`: how many of those
    attempts spoke against the symbol itself. `audited_at`: the last full comparison. `not_found`: answers in a row that
    no provider knows the symbol; `not_found_days`: the UTC days these came on, days since 1970-01-01, the last ten;
    `quarantined_at`: since when it counts as dead and is asked for once a week only. `divergences`: by kind. `parked`:
    sessions whose bar awaits review, with the instant it was last asked for.
    """

    wanted_from: int
    last_update: float | None = None
    answered_from: int | None = None
    answered_to: int | None = None
    listed_on: int | None = None
    delisted_after: int | None = None
    holes: Mapping[int, Hole] = field(default_factory=dict)
    absent: Mapping[int, float] = field(default_factory=dict)
    attempts: int = 0
    failing_since: float | None = None
    next_retry: float | None = None
    code: str | None = None
    reason: str | None = None
    audited_at: float | None = None
    refusals: int = 0
    not_found: int = 0
    not_found_days: tuple[int, ...] = ()
    quarantined_at: float | None = None
    divergences: Mapping[str, Divergence] = field(default_factory=dict)
    parked: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive expected sessions, all missing for the same reason. `first` and `last` are included."""

    first: int
    last: int
    count: int
    absence: Absence
    reason: str
    next_retry: float | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of a range of sessions: `expected` (due and not excused), `present` among them, and every stretch not held."""

    expected: int
    present: int
    missing: tuple[Stretch, ...]

    @property
    def complete(self) -> bool:
        return self.present == self.expected and not any(s.absence == "not_requested" for s in self.missing)

    @property
    def ratio(self) -> float | None:
        """Present ÷ expected as a fraction; None when nothing was expected."""
        return self.present / self.expected if self.expected else None


_REASONS: dict[Absence, str] = {
    "not_requested": "nobody asks for it: before the depth this symbol is kept from, or priced by hand only",
    "before_listing": "the provider's history begins later",
    "after_delisting": "the instrument no longer traded",
    "not_due": "the session is not over, or its final bar not due yet",
    "pending": "due, to be asked for at the next sync",
    "failing": "the provider failed",
    "confirmed_absent": "asked for repeatedly over days, never there",
}
_ABSENCES: tuple[Absence, ...] = tuple(_REASONS)
_PARKED = len(_ABSENCES)
_PARKED_REASON = "its bar awaits review: see GET /cache/quarantine"
_EXCUSED_CODES = [code for code, absence in enumerate(_ABSENCES) if absence in EXCUSED]


def classify(
    missing: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, now: float, lag: float
) -> list[Absence]:
    """The class of each of `missing`, sessions of `calendar` that are not held. `lag`: seconds after a close until
    its bar is final at the provider."""
    return [_absence(code) for code in _codes(missing, calendar, state, now, lag).tolist()]


def coverage(
    held: NDArray[np.int64],
    calendar: SessionCalendar,
    state: SyncState,
    start: int,
    end: int,
    now: float,
    lag: float,
) -> Coverage:
    """Coverage of the days `start` to `end`, both included, by the sessions `held` (int64, ascending).

    A held session outside the calendar (a manual bar on a holiday) counts neither way.
    """
    sessions = calendar.between(start, end)
    positions = np.flatnonzero(~contains(held, sessions))
    codes = _codes(sessions[positions], calendar, state, now, lag)
    excused = np.isin(codes, _EXCUSED_CODES).sum()
    missing = _stretches(sessions, positions, codes, state)
    if len(calendar.sessions) and start < calendar.sessions[0]:
        missing = (_before_all(start, int(calendar.sessions[0])), *missing)
    return Coverage(len(sessions) - int(excused), len(sessions) - len(positions), missing)


def is_quarantined(state: SyncState, now: float) -> bool:
    """Whether a symbol counts as dead and its weekly look is not due: then nobody asks for it unless forced to.

    `now`: seconds since 1970 UTC.
    """
    return state.quarantined_at is not None and (state.next_retry is None or now < state.next_retry)


def contains(held: NDArray[np.int64], sessions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each of `sessions` whether it is in `held`; both int64 and ascending."""
    if not len(held):
        return np.zeros(len(sessions), bool)
    at = held.searchsorted(sessions)
    at[at == len(held)] = 0
    return np.asarray(held[at] == sessions)


def _codes(
    missing: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, now: float, lag: float
) -> NDArray[np.int64]:
    last_due = calendar.last_closed(now, lag)
    never = np.zeros(len(missing), bool)
    absent = np.fromiter(state.absent, np.int64, len(state.absent))
    parked = np.fromiter(state.parked, np.int64, len(state.parked))
    awaits_review = np.isin(missing, parked) if len(parked) else never
    conditions: dict[Absence, NDArray[np.bool_]] = {
        "not_due": ~never if last_due is None else missing > last_due,
        "before_listing": never if state.listed_on is None else missing < state.listed_on,
        "after_delisting": never if state.delisted_after is None else missing > state.delisted_after,
        "confirmed_absent": np.isin(missing, absent) if len(absent) else never,
        "not_requested": missing < state.wanted_from,
        "failing" if state.attempts else "pending": ~never,
    }
    codes = np.select(list(conditions.values()), [_ABSENCES.index(name) for name in conditions])
    asked_for = codes == _ABSENCES.index("failing" if state.attempts else "pending")
    return np.where(asked_for & awaits_review, _PARKED, codes)


def _stretches(
    sessions: NDArray[np.int64], positions: NDArray[np.intp], codes: NDArray[np.int64], state: SyncState
) -> tuple[Stretch, ...]:
    if not len(positions):
        return ()
    breaks = np.flatnonzero((np.diff(positions) != 1) | (np.diff(codes) != 0)) + 1
    first, last = np.append(0, breaks), np.append(breaks, len(positions)) - 1
    return tuple(
        _stretch(int(sessions[positions[i]]), int(sessions[positions[j]]), j - i + 1, int(codes[i]), state)
        for i, j in zip(first.tolist(), last.tolist(), strict=True)
    )


def _before_all(start: int, first_session: int) -> Stretch:
    """Days of which it is not even known whether they were sessions."""
    return Stretch(start, first_session - 1, 0, "not_requested", "before the first session that is known here")


def _stretch(first: int, last: int, count: int, code: int, state: SyncState) -> Stretch:
    absence = _absence(code)
    if code == _PARKED:
        asked_at = max(at for session, at in state.parked.items() if first <= session <= last)
        return Stretch(first, last, count, absence, _PARKED_REASON, asked_at + ASK_SPACING)
    failing = absence == "failing"
    reason = (failing and state.reason) or _REASONS[absence]
    return Stretch(first, last, count, absence, reason, state.next_retry if failing else None)


def _absence(code: int) -> Absence:
    return "failing" if code == _PARKED else _ABSENCES[code]
