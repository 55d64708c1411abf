"""The sessions of every market: built by exchange_calendars in a process of its own, kept in MongoDB, read from there.

`python -m pricecache.calendars NAME...` is that process: pandas never enters the daemon, and building stalls nobody.
The only module that knows exchange_calendars.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import date, datetime, timedelta
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from pymongo import ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS, day_number
from pricecache.core.sessions import CalendarBook, SessionCalendar, every_day
from pricecache.errors import PricecacheError, Unavailable

log = structlog.get_logger(__name__)

FIRST_DAY = date(1990, 1, 1)
DAYS_AHEAD = 400
LEAST_DAYS_AHEAD = 120
MAINTAIN_SECONDS = 6 * 3600.0
RETRY_SECONDS = 600.0
_WITHIN_ALL = date(2026, 2, 2)
"""A day that every calendar of the library can be made for."""
_LIKE_THE_LAST = 10
"""Sessions that show the usual hours, half-days among them."""
WITHOUT_LIBRARY = {"24/7": False, "24/5": True}
"""Calendars whose sessions are UTC days, and whether on weekdays only."""
_LONGEST_LINE = 8 * 1024 * 1024


class CalendarLoader:
    """Keeps a `CalendarBook` filled and long enough. Loop-only; several daemons may keep the same collection."""

    def __init__(self, clock: Clock, collection: AsyncCollection[dict[str, Any]], book: CalendarBook) -> None:
        self._clock = clock
        self._collection = collection
        self._book = book
        self._stored_version: dict[str, str] = {}
        self._failed_at: dict[str, float] = {}
        self._building = asyncio.Lock()
        self._asked_for: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        book.on_missing = self._want

    async def load(self) -> None:
        """Put every calendar the database keeps into the book, in one find, and those that need no library."""
        for name, weekdays_only in WITHOUT_LIBRARY.items():
            self._book.add(every_day(name, day_number(FIRST_DAY), self._today() + DAYS_AHEAD, weekdays_only))
        await self._fetch()

    async def _fetch(self, names: Iterable[str] | None = None) -> None:
        query = {} if names is None else {"_id": {"$in": list(names)}}
        for document in await self._collection.find(query).to_list():
            calendar = _from_document(document)
            self._stored_version[calendar.name] = document["version"]
            self._book.add(calendar)

    async def ensure(self, names: Iterable[str]) -> None:
        """Return when the book has all of `names`; those it lacks are built, a second or two.

        Raises `Unavailable` with code `calendar_loading` when one cannot be built; it is tried again after a while.
        """
        wanted = set(names)
        if any(name not in self._book for name in wanted):
            async with self._building:
                await self._fetch(name for name in wanted if name not in self._book)
                await self._build([name for name in wanted if name not in self._book])
        for name in wanted:
            if name not in self._book:
                raise Unavailable(
                    f"The sessions of {name} cannot be loaded.", code="calendar_loading", retry_after=60.0
                )

    async def get(self, name: str) -> SessionCalendar:
        """The calendar of that name, built first if need be. Raises as `ensure` does."""
        if name not in self._book:
            await self.ensure([name])
        return self._book.get(name)

    def _want(self, name: str) -> None:
        # a reader, or a provider's thread, came upon an instrument whose market nobody here had to do with before
        self._loop.call_soon_threadsafe(self._start_loading, name)

    def _start_loading(self, name: str) -> None:
        if not any(task.get_name() == name for task in self._asked_for):
            task = asyncio.create_task(self._load_wanted(name), name=name)
            self._asked_for.add(task)
            task.add_done_callback(self._asked_for.discard)

    async def _load_wanted(self, name: str) -> None:
        try:
            await self.ensure([name])
        except (PricecacheError, PyMongoError, OSError) as exc:
            log.debug("calendar not loaded", name=name, error=f"{type(exc).__name__}: {exc}"[:300])

    async def close(self) -> None:
        """End what is being loaded."""
        for task in self._asked_for:
            task.cancel()
        if self._asked_for:
            await asyncio.wait(self._asked_for)

    async def maintain(self) -> None:
        """Extend, for as long as the task lives, whatever in the book grows short or comes from another library."""
        while True:
            try:
                await self.extend()
            except (PyMongoError, OSError) as exc:  # what is in the book lasts for months yet
                log.warning("calendars not extended", error=f"{type(exc).__name__}: {exc}"[:300])
            await self._clock.sleep(MAINTAIN_SECONDS)

    async def extend(self) -> None:
        """One round of `maintain`."""
        for name, weekdays_only in WITHOUT_LIBRARY.items():
            if name in self._book and self._days_ahead(name) < LEAST_DAYS_AHEAD:
                self._book.add(every_day(name, day_number(FIRST_DAY), self._today() + DAYS_AHEAD, weekdays_only))
        async with self._building:
            await self._build([name for name in self._stored_version if self._outdated(name)])

    def _outdated(self, name: str) -> bool:
        return self._days_ahead(name) < LEAST_DAYS_AHEAD or self._stored_version[name] != library_version()

    def _days_ahead(self, name: str) -> int:
        return int(self._book.get(name).sessions[-1]) - self._today()

    def _today(self) -> int:
        return int(self._clock.time() // DAY_SECONDS)

    async def _build(self, wanted: list[str]) -> None:
        now = self._clock.time()
        names = sorted(n for n in wanted if now - self._failed_at.get(n, -RETRY_SECONDS) >= RETRY_SECONDS)
        if not names:
            return
        built = [calendar async for calendar in build(names, self._clock.now().date() + timedelta(days=DAYS_AHEAD))]
        self._failed_at |= dict.fromkeys(set(names) - {calendar.name for calendar in built}, now)
        for calendar in built:
            self._failed_at.pop(calendar.name, None)
            self._book.add(calendar)
            self._stored_version[calendar.name] = library_version()
        if built:
            documents = [_to_document(calendar, self._clock.now()) for calendar in built]
            await self._collection.bulk_write(
                [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents], ordered=False
            )
            log.info("calendars built", names=[calendar.name for calendar in built], version=library_version())


@cache
def library_version() -> str:
    """The installed exchange_calendars, without importing it."""
    return version("exchange_calendars")


async def build(names: list[str], last: date) -> AsyncIterator[SessionCalendar]:
    """Each of `names` from 1990, or where the library begins, up to `last` or where it ends; built in a process.

    One that cannot be built is left out and logged.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pricecache.calendars", f"--last={last.isoformat()}", *names),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            document = json.loads(line)
            if "error" in document:
                log.warning("calendar not built", name=document["name"], error=document["error"])
            else:
                yield _from_packed(document["name"], [base64.b64decode(document[key]) for key in _COLUMNS])
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


_COLUMNS = ("sessions", "opens", "closes")


def _from_packed(name: str, blocks: list[bytes]) -> SessionCalendar:
    sessions, opens, closes = (np.frombuffer(block, "<i8").astype(np.int64, copy=False) for block in blocks)
    return SessionCalendar(name, sessions, opens, closes)


def _from_document(document: dict[str, Any]) -> SessionCalendar:
    return _from_packed(document["_id"], [document[key] for key in _COLUMNS])


def _to_document(calendar: SessionCalendar, built_at: datetime) -> dict[str, Any]:
    return {
        "_id": calendar.name,
        **{key: getattr(calendar, key).astype("<i8").tobytes() for key in _COLUMNS},
        "built_at": built_at,
        "version": library_version(),
    }


def main(arguments: list[str]) -> int:
    """Print one line of JSON for each calendar named: its arrays as base64, or the error."""
    last = date.fromisoformat(arguments[0].removeprefix("--last="))
    for name in arguments[1:]:
        print(json.dumps({"name": name, **_described(name, last)}), flush=True)
    return 0


def _described(name: str, last: date) -> dict[str, str]:
    try:
        parts = list(_parts(name, last))
        columns = np.concatenate([*map(_computed, parts), _assumed(parts[-1], last)], axis=1)
    except Exception as exc:  # whatever the library raises for one calendar must not cost the others
        return {"error": f"{type(exc).__name__}: {exc}"[:500]}
    return {
        key: base64.b64encode(block.astype("<i8").tobytes()).decode()
        for key, block in zip(_COLUMNS, columns, strict=True)
    }


def _parts(name: str, last: date) -> Iterator[Any]:
    """The library's calendars that together cover the span, in order; nearly always one."""
    from exchange_calendars import get_calendar

    # some know their holidays for a few years only, and refuse to be made for later ones
    kind = type(get_calendar(name, start=_WITHIN_ALL, end=_WITHIN_ALL + timedelta(days=30)))
    first = max(FIRST_DAY, bound.date()) if (bound := kind.bound_min()) is not None else FIRST_DAY
    last = min(last, bound.date()) if (bound := kind.bound_max()) is not None else last
    try:
        yield kind(start=first, end=last)
    except ValueError:
        yield from _by_weekmask(kind, first, last)


def _by_weekmask(kind: Any, first: date, last: date) -> Iterator[Any]:
    """One calendar for each stretch of equal trading weekdays.

    Under pandas 3 the library (4.13) ignores that weekdays changed (Tel Aviv traded Sunday to Thursday before
    2026-01-05), then refuses its own list of Sundays with an early close.
    """
    for _, until, weekmask in kind.__new__(kind).special_weekmasks:
        if until is None or until.date() < first:
            continue
        former = type(kind.__name__, (kind,), {"weekmask": weekmask, "special_weekmasks": []})
        yield former(start=first, end=min(until.date(), last))
        first = until.date() + timedelta(days=1)
    if first < last:
        yield kind(start=first, end=last)


def _assumed(calendar: Any, last: date) -> NDArray[np.int64]:
    """Behind the last day whose holidays the library knows: weekdays, with the hours of the last sessions.

    Without them nothing would be asked for from that day on; a day that turns out to be a holiday is asked for in vain
    and accepted as one. Empty for a calendar without such a last day.
    """
    bound = type(calendar).bound_max()
    if bound is None or bound.date() >= last:
        return np.empty((3, 0), np.int64)
    days = [bound.date() + timedelta(days=i) for i in range(1, (last - bound.date()).days + 1)]
    sessions = [day for day in days if day.weekday() < 5]
    hours = [min(calendar.opens[-_LIKE_THE_LAST:].dt.tz_convert(calendar.tz).dt.time)]
    hours += [max(calendar.closes[-_LIKE_THE_LAST:].dt.tz_convert(calendar.tz).dt.time)]
    instants = [[datetime.combine(day, at, calendar.tz).timestamp() for day in sessions] for at in hours]
    return np.array([[day_number(day) for day in sessions], *instants]).astype(np.int64)


def _computed(calendar: Any) -> NDArray[np.int64]:
    sessions = calendar.sessions.to_numpy().astype("datetime64[D]").astype(np.int64)
    opens, closes = (
        times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
        for times in (calendar.opens, calendar.closes)
    )
    return np.stack([sessions, opens, closes])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
