"""When closes are captured: once a day at four in New York, on the days that clocks change too."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from pricecache.jobs import JobDefinition, trigger_of
from pricecache.portfolio.snapshot_days import SNAPSHOT_CRON, SNAPSHOT_ZONE
from pricecache.stores.runs import RunHandle


async def nothing(run: RunHandle) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("start", "hours"),
    [("2026-03-05", [24, 23, 24]), ("2026-10-29", [24, 25, 24])],
    ids=["clocks go forward", "clocks go back"],
)
def test_the_job_runs_once_a_day_when_clocks_change(start: str, hours: list[int]) -> None:
    trigger = trigger_of(JobDefinition("eod_snapshot", nothing, cron=SNAPSHOT_CRON, time_zone=SNAPSHOT_ZONE))
    moments, now = [], datetime.fromisoformat(f"{start}T12:00:00+00:00")
    for _ in range(4):
        now = trigger.get_next_fire_time(moments[-1] if moments else None, now)
        moments.append(now)
    local = [one.astimezone(ZoneInfo(SNAPSHOT_ZONE)) for one in moments]
    assert {(one.hour, one.minute) for one in local} == {(4, 0)}
    apart = [
        (after.astimezone(UTC) - before.astimezone(UTC)).total_seconds() / 3600 for before, after in pairwise(local)
    ]
    assert apart == hours
