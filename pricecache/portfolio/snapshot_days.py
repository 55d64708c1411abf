"""Which days there are closes of to capture: what closed, what of it is not captured, what nobody began."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pricecache.clock import Clock
from pricecache.core.bars import day_number
from pricecache.core.catalog import Catalog
from pricecache.core.sessions import CalendarBook
from pricecache.portfolio.snapshot_market import HOME
from pricecache.stores.snapshots import SnapshotStore

SNAPSHOT_CRON, SNAPSHOT_ZONE = "0 4 * * *", "America/New_York"
SNAPSHOT_AFTER_SECONDS = 300.0
"""After the start of a daemon: by then the first sync has brought what closed while there was none."""
LEFT_UNTIL = timedelta(hours=3, minutes=30)
"""After midnight of the job's clock: a run of the schedule before it leaves the last day to the one of that morning."""
OPEN_DAYS = 10
"""For so many days rows that are not final are captured again."""
FIRST_LOOK_BACK = 7
MISSED_AFTER = timedelta(hours=5)
"""After midnight of the job's clock: an hour after it should have begun."""


class SnapshotDays:
    """Days since 1970-01-01. Loop-only. Everything raises `Unavailable` while a calendar is built."""

    def __init__(self, store: SnapshotStore, catalog: Catalog, calendars: CalendarBook, clock: Clock) -> None:
        self._store, self._catalog, self._calendars, self._clock = store, catalog, calendars, clock

    async def due(self, after: timedelta = timedelta()) -> tuple[int, ...]:
        """Ascending: what is not captured, and of late what is not final. The last is yesterday by the job's clock, and
        until so long `after` midnight the day before."""
        last = self._yesterday(after)
        new = await self.new(last)
        if new is None:
            new = self.closed(range(last - FIRST_LOOK_BACK, last + 1))[-1:]
        records = await self._store.days(last - OPEN_DAYS, last)
        still_open = [one.day for one in records if one.counts.open or not one.is_complete]
        return tuple(sorted({*new, *still_open}))

    async def missed(self) -> list[int]:
        """Ascending: those that are due, that no run has begun, and that one should have by now."""
        new = await self.new(self._yesterday(MISSED_AFTER))
        if not new:
            return []
        begun = {one.day for one in await self._store.days(new[0], new[-1])}
        return [day for day in new if day not in begun]

    async def new(self, last: int) -> list[int] | None:
        """What closed up to day `last` after everything that is captured; None as long as nothing ever was."""
        complete = await self._store.last_complete()
        return None if complete is None else self.closed(range(complete + 1, last + 1))

    def closed(self, days: Iterable[int]) -> list[int]:
        """Those of `days` on which a session of anything here, or of the home exchange, has closed."""
        now = self._clock.time()
        names = {one.instrument.place.calendar for one in self._catalog if one.instrument.place.has_sessions} | {HOME}
        return [day for day in days if any(self._has_closed(name, day, now) for name in names)]

    def _has_closed(self, name: str, day: int, now: float) -> bool:
        close = self._calendars.get(name).close_of(day)
        return close is not None and close <= now

    def _yesterday(self, after: timedelta = timedelta()) -> int:
        """Today is not over before this time `after` midnight."""
        now = datetime.fromtimestamp(self._clock.time(), ZoneInfo(SNAPSHOT_ZONE))
        return day_number((now - after).date()) - 1
