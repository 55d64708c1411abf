"""When a whole history is to be compared once more because of a split: what was assumed of it can be told by then."""

from __future__ import annotations

from collections.abc import Sequence

from pricecache.core.actions import Action
from pricecache.core.coverage import SyncState
from pricecache.core.sessions import SessionCalendar

SESSIONS_AFTER = 2
"""So many sessions after its first one a split is listed and worked in, as a rule, and rows stand on both sides."""
LONGEST_REST_DAYS = 21


def recheck_due(
    state: SyncState,
    splits: Sequence[Action],
    first_held: int | None,
    calendar: SessionCalendar,
    now: float,
    lag: float,
) -> bool:
    """Whether no whole answer has been compared since a split could be told from what it brought.

    `splits`: of any order; `first_held`: the first session held, None for none. `lag`: seconds after a close until its
    bar is final. Once is enough, whatever the answer was.
    """
    if state.audited_at is None or state.delisted_after is not None or state.quarantined_at is not None:
        return False
    seen, last_due = calendar.last_closed(state.audited_at, lag), calendar.last_closed(now, lag)
    if seen is None or last_due is None or first_held is None:
        return False
    return any(
        len(sessions := calendar.between(split.ex_date, split.ex_date + LONGEST_REST_DAYS)) > SESSIONS_AFTER
        and seen < sessions[SESSIONS_AFTER] <= last_due
        for split in splits
        if split.kind == "split" and first_held < split.ex_date <= last_due
    )
