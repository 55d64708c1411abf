"""What a new user costs from what they post to the history that is stored, prices there before: stage by stage."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from statistics import median
from typing import Any

import numpy as np
from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.broker_users import Listed, listed, payload
from benchmarks.databases import on_a_mongod
from benchmarks.measure import Row
from pricecache import garbage, logs
from pricecache.api.broker_payloads import read_request
from pricecache.api.imports import LONG_FILE
from pricecache.api.uploads import Upload
from pricecache.app import SWITCH_SECONDS
from pricecache.background import BackgroundTasks, cancelled
from pricecache.clock import SystemClock
from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.broker.data import BrokerData
from pricecache.core.history import history
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook, every_day
from pricecache.metrics import Metrics
from pricecache.parts.whole import Parts
from pricecache.portfolio.threads import let_go
from pricecache.providers.chain import ProviderChain
from pricecache.settings import Settings
from pricecache.stores.bars import Change
from pricecache.stores.reconstructions import ReconstructionRecord

TODAY = 20_776
"""A Thursday, in the evening in New York."""
SIZES = {30: (9, 250.0), 100: (5, 1000.0)}
"""By number of securities: how many users are measured, and the milliseconds that are aimed at."""
WARM, LONG, LONG_ROWS = 2, 30, 100_000
PARTS_OF_IT = {
    "read": "the posted bytes read and checked; json.loads of them",
    "keep": "kept, its portfolio and accounts made, asked for",
    "wait": "taken from the queue",
    "reading": "what was kept read again",
    "mapping": "securities mapped",
    "prices": "prices seen to, the broker's own stored",
    "walking": "walked back; a dictionary's walk of the same rows",
    "storing": "stored; insert_many of the same documents in a transaction",
    "materialising": "history computed and stored; one pass of the engine",
    "ending": "counted and told",
}
"""By stage, with what stands beside it."""


class Evening(SystemClock):
    """For ever the evening of `TODAY`: the last session has closed."""

    def time(self) -> float:
        return (TODAY + 1) * 86400.0


@dataclass
class Taken:
    """Milliseconds of one user by stage, and of what stands beside it."""

    rows: int
    stages: dict[str, float]
    processor: float
    beside: dict[str, float] = field(default_factory=dict)

    @property
    def whole(self) -> float:
        return sum(self.stages.values())


def rows() -> list[Row]:
    return on_a_mongod(_measured)


async def _measured(database: AsyncDatabase[dict[str, Any]], uri: str) -> list[Row]:
    logs.configure("warning")
    found: list[Row] = []
    sys.setswitchinterval(SWITCH_SECONDS)
    async with Daemon(database).running() as daemon:
        await daemon.user(0, daemon.market.count)  # so that everything is mapped for somebody
        for securities, (users, aim) in SIZES.items():
            taken = [await daemon.user(n, securities) for n in range(WARM + users)][WARM:]
            found += _told(securities, taken, aim)
        found += _told(LONG, [await daemon.user(0, LONG, LONG_ROWS)], None)
    return found


def _told(securities: int, taken: Sequence[Taken], aim: float | None) -> list[Row]:
    whole, beside = [one.whole for one in taken], [sum(one.beside.values()) for one in taken]
    size = f"{securities} securities, {median(one.rows for one in taken):,.0f} rows"
    ours, theirs = median(whole), median(beside)
    ratio = median(one / other for one, other in zip(whole, beside, strict=True))
    found = [] if aim is None else [Row(f"{size}; the aim", ours, aim, "ms", ours / aim, "the aim", ours <= aim)]
    found += [
        Row(f"{size}; all that stands beside its stages", ours, theirs, "ms", ratio, "", None),
        Row("  processor time of it, the database's aside", median(one.processor for one in taken), ours, "ms",
            median(one.processor / one.whole for one in taken), "", None),
    ]  # fmt: skip
    for name, what in PARTS_OF_IT.items():
        mine, other = [one.stages[name] for one in taken], [one.beside.get(name, np.nan) for one in taken]
        pairs = zip(mine, other, strict=True)
        found.append(Row(f"  {what}", median(mine), median(other), "ms", median(a / b for a, b in pairs), "", None))
    return found


class Daemon:
    """The parts of a daemon without providers, with prices of 130 securities."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self.database, self.clock = database, Evening()
        book = CalendarBook({
            "XNYS": every_day("XNYS", TODAY - 3000, TODAY + 400, weekdays_only=True),
            "24/7": every_day("24/7", TODAY - 3000, TODAY + 400),
            "24/5": every_day("24/5", TODAY - 3000, TODAY + 400, weekdays_only=True),
        })  # fmt: skip
        settings = Settings(_env_file=None, backfill_days=900, max_symbols=10_000)  # type: ignore[call-arg]
        self.parts = Parts(settings, database, self.clock, book, ProviderChain([]), Metrics("0"), BackgroundTasks())
        self.market: Listed = listed(130, TODAY)
        self.bare = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Daemon]:
        await self._fill()
        garbage.exempt_what_is_there()  # as the daemon does
        queue = self.parts.reconstructions.queue
        task = asyncio.create_task(queue.run(), name="queue")
        yield self
        await queue.stop()
        await cancelled([task])

    async def _fill(self) -> None:
        parts, market = self.parts, self.market
        names = [Instrument(market.symbol(number)) for number in range(market.count)]
        first = int(market.sessions[0])
        entries = await parts.prices.instruments.add(names, wanted_from=first, tracked=True, by="bench", now=0.0)
        split = (Action(market.split_day, "split", 2.0),)
        await parts.prices.bars.commit([
            Change(entry, Bars(market.sessions, np.tile(closes, (5, 1))), "bench", self.clock.time(),
                   actions=() if number else split)
            for number, (entry, closes) in enumerate(zip(entries, market.closes, strict=True))
        ])  # fmt: skip
        for entry in entries:
            entry.state = replace(entry.state, last_update=self.clock.time())  # so that nobody asks a provider

    async def user(self, number: int, securities: int, rows: int | None = None) -> Taken:
        """One who is new, from their post to their history, with what stands beside each stage right afterwards."""
        name = f"user-{securities}-{rows or 0}-{number}"
        body = json.dumps(payload(name, number, self.market, TODAY, securities, rows)).encode()
        stages = Stages(self.parts.reconstructions.queue)
        processor = time.process_time()
        begin = time.perf_counter()
        with garbage.young_only() if len(body) >= LONG_FILE else contextlib.nullcontext():  # as the door does
            given = await asyncio.to_thread(read_request, Upload(body, "json"), self.clock.time())
            read = time.perf_counter()
            assert given.posted is not None
            taken = await self.parts.reconstructions.intake.post(name, given.posted, "bench")
        record = await stages.ended(taken.connection.id)
        processor = time.process_time() - processor
        assert (record.state, record.result is not None) == ("done", True), record
        found = {"read": (read - begin) * 1e3, **stages.of(record, read)}
        await self._check(record, given.posted.data)
        beside = await self._beside(name, body, given.posted.data, record)
        return Taken(len(given.posted.data.transactions), found, processor * 1e3, beside)

    async def posted(self, name: str, body: bytes) -> ReconstructionRecord:
        """The same of any body, without a look at its stages."""
        stages = Stages(self.parts.reconstructions.queue)
        with garbage.young_only() if len(body) >= LONG_FILE else contextlib.nullcontext():
            given = await asyncio.to_thread(read_request, Upload(body, "json"), self.clock.time())
            assert given.posted is not None
            taken = await self.parts.reconstructions.intake.post(name, given.posted, "bench")
            rows = list(given.posted.data.transactions)
            del given
            await let_go(rows)  # as the door does, too
        return await stages.ended(taken.connection.id)

    async def _check(self, record: ReconstructionRecord, data: BrokerData) -> None:
        result = record.result or {}
        count = await self.database["transactions"].count_documents({"portfolio": record.portfolio})
        stored = await self.database["history_heads"].find_one({"_id": record.portfolio})
        assert count == result["transactions"] >= len(data.transactions), (count, result)
        assert result["adjustments"] == 0, result
        assert stored is not None, "the history is not stored"

    async def _beside(self, user: str, body: bytes, data: BrokerData, record: ReconstructionRecord) -> dict[str, float]:
        portfolio = await self.parts.portfolio.store.get(user, record.portfolio or "")
        view = await self.parts.portfolio.ledgers.read(portfolio)
        market = (await self.parts.portfolio.markets.view(view.ledger)).market
        times = {
            "read": _timed(lambda: json.loads(body)),
            "walking": _timed(lambda: bare_walk(data)),
            "materialising": _timed(lambda: history(view.ledger, market, TODAY)),
        }
        documents = await self.database["transactions"].find({"portfolio": portfolio.id}).to_list()
        return {**times, "storing": await self._inserted(documents)}

    async def _inserted(self, documents: Sequence[dict[str, Any]]) -> float:
        """In transactions of as many rows as one can hold."""
        self.bare += 1
        collection = self.database[f"bare_{self.bare}"]
        await self.database.create_collection(collection.name)
        begin = time.perf_counter()
        for low in range(0, len(documents), 20_000):
            async with self.database.client.start_session() as session, await session.start_transaction():
                await collection.insert_many(documents[low : low + 20_000], ordered=False, session=session)
        took = (time.perf_counter() - begin) * 1e3
        await collection.drop()
        return took


class Stages:
    """When each stage of those done began."""

    def __init__(self, queue: Any) -> None:
        self._times: dict[str, dict[str, float]] = {}
        self._ended: dict[str, asyncio.Future[ReconstructionRecord]] = {}
        queue.on_progress = self._told

    def _told(self, record: ReconstructionRecord) -> None:
        times = self._times.setdefault(record.connection, {})
        stage = record.progress.stage if record.state == "running" else record.state
        times.setdefault(stage, time.perf_counter())
        if record.state in ("done", "failed", "waiting"):
            self._future(record.connection).set_result(record)

    def _future(self, connection: str) -> asyncio.Future[ReconstructionRecord]:
        return self._ended.setdefault(connection, asyncio.get_running_loop().create_future())

    async def ended(self, connection: str) -> ReconstructionRecord:
        return await self._future(connection)

    def of(self, record: ReconstructionRecord, begin: float) -> dict[str, float]:
        """Milliseconds of each, from `begin` on."""
        times = self._times[record.connection]
        names = [name for name in PARTS_OF_IT if name in times]
        ends = [*[times[name] for name in names[1:]], times["done"]]
        found = {name: (end - times[name]) * 1e3 for name, end in zip(names, ends, strict=True)}
        waited = {"keep": (times["queued"] - begin) * 1e3, "wait": (times["reading"] - times["queued"]) * 1e3}
        materialised = (record.result or {})["seconds"]["materialising"] * 1e3
        return {**waited, **found, "materialising": materialised, "ending": found["materialising"] - materialised}


def bare_walk(data: BrokerData) -> dict[Any, Decimal]:
    """What a dictionary can tell of the days before: no splits, no doubts, no rows of a ledger."""
    held: dict[Any, Decimal] = {(one.account, one.security): one.quantity for one in data.holdings}
    held |= data.money
    nothing = Decimal(0)
    for row in reversed(data.transactions):
        if row.security is not None:
            held[row.account, row.security] = held.get((row.account, row.security), nothing) - row.quantity
        held[row.account, row.currency] = held.get((row.account, row.currency), nothing) - row.cash
    return held


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3
