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


@dataclass(frozen=True, slots=True)
class Hole:
    """A due session that a provider answered without: how often, and when first and last (seconds since 1970 UTC)."""

    asks: int
    first_ask: float
    last_ask: float


@dataclass(frozen=True, slots=True)
class SyncState:
    """What healing remembers of one series. Sessions are days since 1970-01-01, instants seconds since 1970 UTC.

    `wanted_from`: history is kept from here on. `last_update`: when it was last examined with success.
    `answered_from`, `answered_to`: the range a provider has answered for, with bars or without. `listed_on`: the
    first session the provider has at all; `delisted_after`: the last one. `holes`: due sessions answered without a
    bar; `absent`: sessions accepted as never traded, with the instant of acceptance. `attempts`, `failing_since`,
    `next_retry`, `code`, `reason`: of provider calls failing in a row. `audited_at`: the last full comparison.
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
        return self.present == self.expected

    @property
    def ratio(self) -> float | None:
        """Present ÷ expected as a fraction; None when nothing was expected."""
        return self.present / self.expected if self.expected else None


_REASONS: dict[Absence, str] = {
    "not_requested": "before the depth this symbol is kept from",
    "before_listing": "the provider's history begins later",
    "after_delisting": "the instrument no longer traded",
    "not_due": "the session is not over, or its final bar not due yet",
    "pending": "due, to be asked for at the next sync",
    "failing": "the provider failed",
    "confirmed_absent": "asked for repeatedly over days, never there",
}


def classify(
    missing: NDArray[np.int64], calendar: SessionCalendar, state: SyncState, now: float, lag: float
) -> list[Absence]:
    """The class of each of `missing`, sessions of `calendar` that are not held. `lag`: seconds after a close until
    its bar is final at the provider."""
    last_due = calendar.last_closed(now, lag)
    classes: list[Absence] = []
    for session in missing.tolist():
        if last_due is None or session > last_due:
            classes.append("not_due")
        elif state.listed_on is not None and session < state.listed_on:
            classes.append("before_listing")
        elif state.delisted_after is not None and session > state.delisted_after:
            classes.append("after_delisting")
        elif session in state.absent:
            classes.append("confirmed_absent")
        elif session < state.wanted_from:
            classes.append("not_requested")
        else:
            classes.append("failing" if state.attempts else "pending")
    return classes


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
    here = held[held.searchsorted(start) : held.searchsorted(end, side="right")]
    missing = np.setdiff1d(sessions, here, assume_unique=True)
    present = len(sessions) - len(missing)
    classes = classify(missing, calendar, state, now, lag)
    stretches: list[Stretch] = []
    positions = sessions.searchsorted(missing).tolist()
    i = 0
    while i < len(classes):
        j = i
        while j + 1 < len(classes) and classes[j + 1] == classes[i] and positions[j + 1] == positions[j] + 1:
            j += 1
        failing = classes[i] == "failing"
        stretches.append(
            Stretch(
                int(missing[i]),
                int(missing[j]),
                j - i + 1,
                classes[i],
                (state.reason or _REASONS["failing"]) if failing else _REASONS[classes[i]],
                state.next_retry if failing else None,
            )
        )
        i = j + 1
    unexcused = sum(1 for absence in classes if absence not in EXCUSED)
    return Coverage(present + unexcused, present, tuple(stretches))
