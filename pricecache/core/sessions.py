"""The sessions of a market as arrays: which days trade, when they open and close, what is due by now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import DAY_SECONDS
from pricecache.errors import Unavailable


@dataclass(frozen=True, slots=True)
class SessionCalendar:
    """Every session of one calendar, ascending.

    `sessions`: int64, days since 1970-01-01. `opens`, `closes`: int64, seconds since 1970-01-01T00:00Z.
    Pure and immutable, so safe in any thread. The arrays end about a year ahead; `calendars.py` keeps them long enough.
    """

    name: str
    sessions: NDArray[np.int64]
    opens: NDArray[np.int64]
    closes: NDArray[np.int64]

    def between(self, start: int, end: int) -> NDArray[np.int64]:
        """Sessions from day `start` to day `end`, both included."""
        low, high = self.sessions.searchsorted(start), self.sessions.searchsorted(end, side="right")
        return self.sessions[low:high]

    def last_closed(self, at: float, lag: float = 0.0) -> int | None:
        """The last session whose close was at least `lag` seconds before instant `at`; None before the first."""
        i = int(self.closes.searchsorted(at - lag, side="right")) - 1
        return int(self.sessions[i]) if i >= 0 else None

    def next_due(self, at: float, lag: float = 0.0) -> float | None:
        """The instant at which the next session becomes due: its close plus `lag`. None when the arrays end."""
        i = int(self.closes.searchsorted(at - lag, side="right"))
        return float(self.closes[i]) + lag if i < len(self.closes) else None

    def is_open(self, at: float, lag: float = 0.0) -> bool:
        """Whether instant `at` lies in a session, or up to `lag` seconds after its close."""
        i = int(self.opens.searchsorted(at, side="right")) - 1
        return i >= 0 and bool(at < self.closes[i] + lag)

    def current(self, at: float) -> int | None:
        """The last session that had opened by instant `at`."""
        i = int(self.opens.searchsorted(at, side="right")) - 1
        return int(self.sessions[i]) if i >= 0 else None

    def next_open(self, at: float) -> float | None:
        i = int(self.opens.searchsorted(at, side="right"))
        return float(self.opens[i]) if i < len(self.opens) else None

    def opened_after_rest(self, at: float) -> float | None:
        """When the session of instant `at` opened, or None when another one ended at that moment."""
        i = int(self.opens.searchsorted(at, side="right")) - 1
        if i < 0 or (i > 0 and self.closes[i - 1] >= self.opens[i]):
            return None
        return float(self.opens[i])

    def close_of(self, session: int) -> float | None:
        """When `session` closes, or None when it is no session."""
        i = int(self.sessions.searchsorted(session))
        return float(self.closes[i]) if i < len(self.sessions) and self.sessions[i] == session else None


def every_day(name: str, first: int, last: int, weekdays_only: bool = False) -> SessionCalendar:
    """A calendar whose sessions are UTC days, midnight to midnight: `24/7`, or Monday to Friday for `24/5`."""
    days = np.arange(first, last + 1, dtype=np.int64)
    if weekdays_only:
        days = days[(days + 3) % 7 < 5]  # 1970-01-01 was a Thursday
    return SessionCalendar(name, days, days * DAY_SECONDS, (days + 1) * DAY_SECONDS)


class CalendarBook:
    """The calendars known so far, by name. Thread-safe: one dict, replaced entry by entry.

    `on_missing` is told the name of a calendar that somebody asked for in vain, in that caller's thread.
    """

    def __init__(self, calendars: Mapping[str, SessionCalendar] | None = None) -> None:
        self._calendars: dict[str, SessionCalendar] = dict(calendars or {})
        self.on_missing: Callable[[str], object] = lambda name: None

    def __contains__(self, name: str) -> bool:
        return name in self._calendars

    def add(self, calendar: SessionCalendar) -> None:
        self._calendars[calendar.name] = calendar

    def get(self, name: str) -> SessionCalendar:
        """Raises `Unavailable` with code `calendar_loading` while the calendar is being built."""
        try:
            return self._calendars[name]
        except KeyError:
            self.on_missing(name)
            raise Unavailable(
                f"The sessions of {name} are being loaded.", code="calendar_loading", retry_after=2.0
            ) from None
