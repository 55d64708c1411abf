"""Which sessions of a series are held, and for each that is not, the one reason why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import DAY_SECONDS
from pricecache.core.sessions import SessionCalendar

Absence = Literal[
    "not_requested", "before_listing", "after_delisting", "not_due", "pending", "failing", "confirmed_absent"
]
EXCUSED: frozenset[Absence] = frozenset({"before_listing", "after_delisting", "not_due", "confirmed_absent"})
"""Classes of sessions that nobody can expect to be held."""
ASK_SPACING = 20 * 3600.0
"""Seconds until a session that a provider answered without, or with a row that was not stored, is asked for again."""
ASKS = 3
"""Answers on different days after which a session without a row is accepted as never traded, and one whose row is not
stored is asked for no more than once a month."""
AUDIT_SECONDS = 30.0 * DAY_SECONDS
"""How often a whole history is asked for again, and a session accepted as never traded."""
LATE_DAYS = 4
LATE_SPACING = 2 * 3600.0
"""A session that is missing at the end of the record is asked for every two hours for so long: vendors bring the last
bars late, and a hole there is a hole in what everybody reads first."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A due session that a provider answered without: how often, and when first and last (seconds since 1970 UTC)."""

    asks: int
    first_ask: float
    last_ask: float


@dataclass(frozen=True, slots=True)
class Withheld:
    """A due session whose row came and was not stored, for `reason`. Instants are seconds since 1970 UTC.

    `asks`, `last_ask`: answers with it, on different days. `source`, `close`: of the row as last seen; `seen`,
    `seen_at`: on how many different days that one provider came with that one close.
    """

    reason: str
    last_ask: float
    asks: int = 1
    source: str = ""
    close: float | None = None
    seen: int = 1
    seen_at: float = 0.0

    @property
    def next_ask(self) -> float:
        return self.last_ask + (ASK_SPACING if self.asks < ASKS else AUDIT_SECONDS)


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
    `failing_since`, `next_retry`, `code`, `reason`: of provider calls failing in a row, the last three also while no
    provider could be asked (`attempts` is 0 then); `refusals`: how many of those attempts spoke against the symbol
    itself. `audited_at`: the last full comparison. `not_found`: answers in a row that no provider knows the symbol;
    `not_found_days`: the UTC days these came on, days since 1970-01-01, the last ten; `quarantined_at`: since when it
    counts as dead and is asked for once a week only. `divergences`: by kind. `parked`: sessions whose bar awaits
    review; `refused`: those whose row cannot be true. `empty_since`: since when providers have answered without any
    bar for a series of which nothing is held, else None.
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
    parked: Mapping[int, Withheld] = field(default_factory=dict)
    refused: Mapping[int, Withheld] = field(default_factory=dict)
    empty_since: float | None = None

    @property
    def withheld(self) -> Mapping[int, Withheld]:
        return {**self.refused, **self.parked}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive expected sessions, all missing for the same reason. `first` and `last` are included.

    `attempts`: how often they were asked for in vain; `next_retry`: when the first of them is asked for next (seconds
    since 1970 UTC), None where that is the next sync, or never.
    """

    first: int
    last: int
    count: int
    absence: Absence
    reason: str
    next_retry: float | None = None
    attempts: int = 0


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
_EXCUSED_CODES = [code for code, absence in enumerate(_ABSENCES) if absence in EXCUSED]
_ANSWERED_WITHOUT = "a provider answered without it"
_AWAITS_REVIEW = "its bar awaits review, see GET /cache/quarantine"
_NOT_BELIEVED = "its row cannot be believed, see GET /cache/quarantine"


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
    last_due = calendar.last_closed(now, lag)
    codes = _codes(sessions[positions], state, last_due, is_empty=not len(held))
    excused = np.isin(codes, _EXCUSED_CODES).sum()
    waits = _waits(sessions[positions], codes, state, now, late_from(held, last_due))
    missing = _stretches(sessions, positions, codes, waits, state)
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


def late_from(held: NDArray[np.int64], last_due: int | None) -> int | None:
    """The session after which what is missing at the end of the record is late; None where nothing is held."""
    return None if last_due is None or not len(held) else max(last_due - LATE_DAYS, int(held[-1]))


@dataclass(frozen=True, slots=True)
class _Wait:
    # of one session that was asked for already
    absence: Absence
    reason: str
    attempts: int
    next_ask: float


def _codes(missing: NDArray[np.int64], state: SyncState, last_due: int | None, *, is_empty: bool) -> NDArray[np.int64]:
    never = np.zeros(len(missing), bool)
    # where nothing is held, answers without anything were no evidence
    absent = np.fromiter(() if is_empty else state.absent, np.int64)
    conditions: dict[Absence, NDArray[np.bool_]] = {
        "not_due": ~never if last_due is None else missing > last_due,
        "before_listing": never if state.listed_on is None else missing < state.listed_on,
        "after_delisting": never if state.delisted_after is None else missing > state.delisted_after,
        "confirmed_absent": np.isin(missing, absent) if len(absent) else never,
        "not_requested": missing < state.wanted_from,
        "failing" if state.attempts else "pending": ~never,
    }
    return np.select(list(conditions.values()), [_ABSENCES.index(name) for name in conditions])


def _waits(
    missing: NDArray[np.int64],
    codes: NDArray[np.int64],
    state: SyncState,
    now: float,
    late: int | None,
) -> dict[int, _Wait]:
    """What is known of single sessions, by their place in `missing`: those asked for already that are not excused."""
    withheld = state.withheld
    asked = np.fromiter({*state.holes, *withheld}, np.int64)
    waiting = [_ABSENCES.index(name) for name in ("failing", "pending")]
    found: dict[int, _Wait] = {}
    for i in np.flatnonzero(np.isin(missing, asked) & np.isin(codes, waiting)).tolist() if len(asked) else ():
        session = int(missing[i])
        if (row := withheld.get(session)) is not None:
            what = _AWAITS_REVIEW if session in state.parked else _NOT_BELIEVED
            found[i] = _Wait("failing", f"{what}: {row.reason}", row.asks, row.next_ask)
            continue
        hole = state.holes[session]
        next_ask = hole.last_ask + ASK_SPACING
        if late is not None and session > late and state.last_update is not None:
            next_ask = min(next_ask, state.last_update + LATE_SPACING)
        if not state.attempts or next_ask > now:  # else it is the failing of the series that it waits for
            found[i] = _Wait("pending", _ANSWERED_WITHOUT, hole.asks, next_ask)
    return found


def _stretches(
    sessions: NDArray[np.int64],
    positions: NDArray[np.intp],
    codes: NDArray[np.int64],
    waits: Mapping[int, _Wait],
    state: SyncState,
) -> tuple[Stretch, ...]:
    if not len(positions):
        return ()
    alike = codes.copy()
    kinds: dict[tuple[str, str, int], int] = {}
    for i, wait in waits.items():
        kind = (wait.absence, wait.reason, wait.attempts)
        alike[i] = kinds.setdefault(kind, len(_ABSENCES) + len(kinds))
    breaks = np.flatnonzero((np.diff(positions) != 1) | (np.diff(alike) != 0)) + 1
    first, last = np.append(0, breaks), np.append(breaks, len(positions)) - 1
    return tuple(
        _stretch(
            int(sessions[positions[i]]),
            int(sessions[positions[j]]),
            j - i + 1,
            _ABSENCES[int(codes[i])],
            [waits[place] for place in range(i, j + 1)] if i in waits else [],
            state,
        )
        for i, j in zip(first.tolist(), last.tolist(), strict=True)
    )


def _before_all(start: int, first_session: int) -> Stretch:
    """Days of which it is not even known whether they were sessions."""
    return Stretch(start, first_session - 1, 0, "not_requested", "before the first session that is known here")


def _stretch(first: int, last: int, count: int, absence: Absence, waits: Sequence[_Wait], state: SyncState) -> Stretch:
    if waits:
        one, next_ask = waits[0], min(wait.next_ask for wait in waits)
        return Stretch(first, last, count, one.absence, one.reason, next_ask, one.attempts)
    if absence not in ("failing", "pending"):
        return Stretch(first, last, count, absence, _REASONS[absence])
    return Stretch(first, last, count, absence, state.reason or _REASONS[absence], state.next_retry, state.attempts)
