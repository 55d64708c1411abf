"""Which instant a question for what was known then means."""

from __future__ import annotations

from datetime import date, datetime

from pricecache.api.wire import Malformed
from pricecache.core.bars import DAY_SECONDS, day_number


def known_instant(given: date, now: float) -> float:
    """The instant that `asKnownOn` means, in seconds since 1970 UTC: of a date its last millisecond in UTC, of today
    `now`.

    Raises `Malformed` with code `future_instant` for one after `now`, and for a date after today.
    """
    if isinstance(given, datetime):
        at = given.timestamp()
    else:
        is_today = day_number(given) == int(now // DAY_SECONDS)
        at = now if is_today else (day_number(given) + 1) * DAY_SECONDS - 0.001
    if at > now:
        detail = "asKnownOn lies in the future"
        rows = [{"field": "asKnownOn", "code": "future_instant", "detail": detail}]
        raise Malformed(f"{detail}.", code="future_instant", rows=rows)
    return at
