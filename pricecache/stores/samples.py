"""Prices as they came in, kept for a while: the samples that intraday bars are made of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Any

import numpy as np
import pymongo
import structlog
from bson import CodecOptions, Int64
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError

from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.intraday import Samples
from pricecache.core.quotes import Quote
from pricecache.errors import TooMuch

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 3.0
FLUSH_ROWS = 500
"""Rows written in one go: 5 ms of the event loop."""
MOST_PENDING = 50_000
"""Rows kept in RAM while the database is away, about 10 MB; then the oldest are dropped, and counted."""
MOST_READ = 300_000
"""Samples that one read may bring: under two seconds."""
_BATCH = 2000  # decoding happens on the event loop; so many rows take it 4 ms
_CLOSE_SECONDS = 2.0
_FOREVER = 10**10
_UNAUTHORIZED = 13


@dataclass(frozen=True, slots=True)
class _Row:
    series: int
    at: int
    price: float
    volume: float | None
    source: str

    def document(self) -> dict[str, Any]:
        at = datetime.fromtimestamp(self.at // 1000, UTC).replace(microsecond=self.at % 1000 * 1000)
        row = {"ts": at, "meta": {"s": Int64(self.series)}, "p": self.price, "src": self.source}
        return row if self.volume is None else row | {"v": self.volume}


class SampleStore:
    """The time-series collection `samples`: a row a price, gone after `keep_days`; 0 keeps none. Loop-only.

    `record` never waits: rows gather in RAM and `run` writes them every few seconds, sooner when there are many. A
    kill loses at most what has gathered. Rows are read together with those not written yet. A row that was written
    twice, because the answer to the first time was lost, changes no bar.

    `shared`: other daemons write too. `pending` rows wait; `stored` and `dropped` count the others since the start.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        catalog: Catalog,
        clock: Clock,
        *,
        keep_days: float,
        shared: bool = False,
    ) -> None:
        self._database = database
        self._collection = database["samples"]
        self._naive: AsyncCollection[dict[str, Any]] = database["samples"].with_options(
            CodecOptions(tz_aware=False)
        )  # NumPy takes no others
        self._catalog = catalog
        self._clock = clock
        self.keep_days = keep_days
        self.shared = shared
        self._waiting: deque[_Row] = deque()
        self._sending: list[_Row] = []
        self._latest: dict[int, tuple[float, int, float]] = {}
        self._versions: dict[int, int] = {}
        self._many = asyncio.Event()
        self._failing = False
        self._dropped_before = 0
        self.stored = 0
        self.dropped = 0

    @property
    def pending(self) -> int:
        return len(self._waiting) + len(self._sending)

    def version(self, entry: Entry) -> int:
        """Grows with every sample of this series that came here."""
        return self._versions.get(entry.id, 0)

    # ---- recording

    def remember(self, quotes: Iterable[Quote]) -> None:
        """These were recorded before, by a daemon that ran here."""
        for quote in quotes:
            entry = self._entry_of(quote)
            if entry is not None:
                self._latest[entry.id] = (quote.as_of, _milliseconds(quote.as_of), quote.price)

    def record(self, quotes: Sequence[Quote]) -> None:
        """Keep those whose time or price is another than the last recorded of their instrument. Does not wait."""
        if not self.keep_days:
            return
        for quote in quotes:
            entry = self._entry_of(quote)
            if entry is not None:
                self._record(entry, quote)

    def _entry_of(self, quote: Quote) -> Entry | None:
        return self._catalog.get(quote.instrument) if quote.series is None else self._catalog.by_id(quote.series)

    def _record(self, entry: Entry, quote: Quote) -> None:
        at, latest = _milliseconds(quote.as_of), self._latest.get(entry.id)
        if latest is not None:
            as_of, latest_at, price = latest
            if quote.as_of < as_of or (quote.as_of == as_of and quote.price == price):
                return
            at = max(at, latest_at + 1)  # of two prices made in one millisecond the later one stays the later one
        self._latest[entry.id] = (quote.as_of, at, quote.price)
        self._versions[entry.id] = self.version(entry) + 1
        self._waiting.append(_Row(entry.id, at, quote.price, quote.volume, quote.source))
        self._drop_too_many()
        if len(self._waiting) >= FLUSH_ROWS:
            self._many.set()

    def _drop_too_many(self) -> None:
        while len(self._waiting) > MOST_PENDING:
            self._waiting.popleft()
            self.dropped += 1

    # ---- writing

    async def run(self) -> None:
        """Set the retention, then write what gathers for as long as the task lives."""
        retained = False
        while True:
            if not retained:
                retained = await self._retained()
            await self.flush()
            await self._pause()

    async def _pause(self) -> None:
        self._many.clear()
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._clock.sleep(FLUSH_SECONDS))]
        if not self._failing:  # else it is too early to try again, however many there are
            waits.append(asyncio.ensure_future(self._many.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def close(self) -> None:
        """Write what has gathered, unless the database is away."""
        with pymongo.timeout(_CLOSE_SECONDS):
            await self.flush()
        if self.pending:
            log.warning("samples lost", rows=self.pending)

    async def flush(self) -> None:
        """Write all that has gathered. What cannot be written now stays."""
        while self._waiting and not self._sending:
            self._sending = [self._waiting.popleft() for _ in range(min(FLUSH_ROWS, len(self._waiting)))]
            try:
                await self._collection.insert_many([row.document() for row in self._sending], ordered=False)
            except PyMongoError as exc:
                self._take_back()
                self._tell(exc)
                return
            except BaseException:
                self._take_back()
                raise
            self.stored += len(self._sending)
            self._sending = []
            self._tell(None)

    def _take_back(self) -> None:
        self._waiting.extendleft(reversed(self._sending))
        self._sending = []
        self._drop_too_many()

    def _tell(self, error: PyMongoError | None) -> None:
        if error is not None and not self._failing:
            self._dropped_before = self.dropped
            log.warning("samples are not being stored", error=f"{type(error).__name__}: {error}"[:300])
        elif error is None and self._failing:
            log.info("samples are being stored again", dropped=self.dropped - self._dropped_before)
        self._failing = error is not None

    async def _retained(self) -> bool:
        """Bring the collection's retention to the setting; False when the database is away."""
        # expireAfterSeconds has to be positive; a second keeps none as well
        seconds = max(1, min(_FOREVER, round(self.keep_days * DAY_SECONDS)))
        try:
            found = await (await self._database.list_collections(filter={"name": "samples"})).to_list()
            if found and found[0]["options"].get("expireAfterSeconds") != seconds:
                await self._database.command("collMod", "samples", expireAfterSeconds=seconds)
        except OperationFailure as exc:
            if exc.code != _UNAUTHORIZED:
                log.warning("retention of samples not set", error=str(exc)[:300])
                return True
            log.warning("retention of samples not set", error="the user needs the role dbAdmin for this")
        except PyMongoError as exc:
            self._tell(exc)
            return False
        return True

    # ---- reading

    async def read(self, entry: Entry, start: int, end: int) -> Samples:
        """The samples from `start` to `end`, both included (ms since 1970 UTC), in no order.

        Raises `TooMuch` with code `too_many_samples`.
        """
        parts = [_samples([(row.at, row.price, row.volume, row.source) for row in self._unwritten(entry, start, end)])]
        query = {"meta.s": entry.id, "ts": {"$gte": _datetime(start), "$lte": _datetime(end)}}
        found = 0
        async with self._naive.find(query, {"_id": 0, "meta": 0}, batch_size=_BATCH) as cursor:
            while rows := await cursor.to_list(_BATCH):
                parts.append(_samples([(row["ts"], row["p"], row.get("v"), row["src"]) for row in rows]))
                found += len(rows)
                if found > MOST_READ:
                    raise TooMuch(
                        f"More than {MOST_READ} samples were made in this time. Ask for less of it.",
                        code="too_many_samples",
                    )
        return _together(parts)

    async def first(self, entry: Entry, start: int = 0) -> int | None:
        """When the first sample from `start` on was made (ms since 1970 UTC); None when there is none."""
        return await self._outermost(entry, {"$gte": _datetime(start)}, 1, self._unwritten(entry, start, _LAST))

    async def last(self, entry: Entry, end: int) -> int | None:
        """When the last sample up to `end` was made."""
        return await self._outermost(entry, {"$lte": _datetime(end)}, -1, self._unwritten(entry, 0, end))

    async def _outermost(
        self, entry: Entry, bound: dict[str, Any], direction: int, pending: Sequence[_Row]
    ) -> int | None:
        query, fields = {"meta.s": entry.id, "ts": bound}, {"_id": 0, "ts": 1}
        rows = await self._collection.find(query, fields).sort("ts", direction).limit(1).to_list()
        found = [_milliseconds(row["ts"].timestamp()) for row in rows] + [row.at for row in pending]
        if not found:
            return None
        return min(found) if direction > 0 else max(found)

    def _unwritten(self, entry: Entry, start: int, end: int) -> list[_Row]:
        if not self.pending:
            return []
        return [
            row
            for rows in (self._sending, self._waiting)
            for row in rows
            if row.series == entry.id and start <= row.at <= end
        ]


_LAST = 4102444800000
"""2100-01-01. MongoDB 6.0 finds nothing in a time-series collection for a bound beyond 2106, where the seconds of an
ObjectId end."""


def _samples(rows: Sequence[tuple[Any, float, float | None, str]]) -> Samples:
    """`rows`: instant (ms since 1970, or naive), price, volume, source."""
    return Samples(
        np.array([row[0] for row in rows], "datetime64[ms]").astype(np.int64),
        np.array([row[1] for row in rows], np.float64),
        np.array([nan if row[2] is None else row[2] for row in rows], np.float64),
        tuple({row[3] for row in rows}),
    )


def _together(parts: Sequence[Samples]) -> Samples:
    """The first part had not been written yet when the others were begun to be read."""
    pending, *written = parts
    if len(pending) and written:
        new = ~np.isin(pending.instants, written[-1].instants)
        pending = Samples(pending.instants[new], pending.prices[new], pending.volumes[new], pending.sources)
    parts = [*written, pending]
    return Samples(
        np.concatenate([part.instants for part in parts]),
        np.concatenate([part.prices for part in parts]),
        np.concatenate([part.volumes for part in parts]),
        tuple(sorted({source for part in parts for source in part.sources})),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _datetime(milliseconds: int) -> datetime:
    bounded = min(max(milliseconds, 0), _LAST)
    return datetime.fromtimestamp(bounded // 1000, UTC).replace(microsecond=bounded % 1000 * 1000)
