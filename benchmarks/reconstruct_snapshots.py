"""What the close of a day costs for 100,000 portfolios, beside the bare sparse product and the bare bulk write."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import InsertOne
from pymongo.asynchronous.database import AsyncDatabase
from scipy.sparse import csr_array

from benchmarks.databases import on_a_mongod
from benchmarks.measure import Row, row
from pricecache import garbage, logs
from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.clock import SystemClock
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook, every_day
from pricecache.core.snapshot_blocks import SIZE, Block, Member, price_code
from pricecache.portfolio.market import Markets
from pricecache.portfolio.snapshot_capture import LOOKED_THROUGH_ON, SNAPSHOT_JOB, SnapshotCapture
from pricecache.portfolio.snapshot_market import SKEW_SECONDS, SnapshotMarket
from pricecache.portfolio.snapshot_members import MemberBuilder
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.client import connect
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.runs import Run, RunHandle
from pricecache.stores.snapshots import Counts, DayRecord, Examined, SnapshotStore, StoredBlock

PORTFOLIOS, SYMBOLS, POSITIONS = 100_000, 2_000, 25
DAY = 20_776
"""A Thursday. Everything is held since the day before."""
ROUNDS = (*("usual", "cold", "usual", "unread") * 3, "usual", *("friday", "usual") * 3)
"""How each of the days that are captured goes."""


class Morning(SystemClock):
    """04:00 in New York of the day after `day`, for ever."""

    day = DAY - 1

    def time(self) -> float:
        return (self.day + 1) * 86400.0 + 9 * 3600.0


class NothingChanged(MemberBuilder):
    """Nobody's history has to be asked for."""

    def __init__(self) -> None:
        pass

    async def build(self, ids: Any, days: Any, **options: Any) -> Any:
        assert not ids, f"{len(ids)} portfolios would be computed from their ledgers"
        return {}, []


def rows() -> list[Row]:
    return on_a_mongod(run)


async def run(database: AsyncDatabase[dict[str, Any]], uri: str) -> list[Row]:
    logs.configure("warning")
    world = await World(database).open()
    garbage.exempt_what_is_there()  # as the daemon does when it has started
    found: dict[str, list[tuple[float, float]]] = {"product": []}
    stalls = []
    for number, kind in enumerate(ROUNDS):
        is_friday = await world.trade(friday=kind == "friday")
        assert is_friday == (kind == "friday")
        if kind != "cold":
            await world.warm()
        if kind == "unread":
            world.forget_blocks()
        idle = await longest_stall(asyncio.sleep(1.0))
        counts: dict[str, int] = {}
        began = time.perf_counter()
        stall = await longest_stall(world.capture(counts))
        took = time.perf_counter() - began
        assert (counts["captured"], counts["provisional"]) == (PORTFOLIOS, 0), counts
        product, write = await world.bare(number)
        found.setdefault(kind, []).append((took * 1e3, (product + write) * 1e3))
        found["product"].append((product * 1e3, write * 1e3))
        stalls.append((stall * 1e3, idle * 1e3))
    await world.trade()
    before, most = await resident(uri, world.clock.day)
    held, idle = (statistics.median(one) for one in zip(*stalls, strict=True))
    return [
        row(f"{PORTFOLIOS:,} x {POSITIONS}: capture; product + bulk write", found["usual"], "ms", most=10),
        row("  with Friday's close, when every ledger is looked at; the same", found["friday"], "ms"),
        row("  with no block in memory; the same", found["unread"], "ms"),
        row("  with no price of the day in memory; the same", found["cold"], "ms"),
        row("  of the reference: the product; the write", found["product"], "ms"),
        Row("  longest stall of the loop in a capture; idle", held, idle, "ms", held / idle, "under 30 ms", held < 30),
        Row("  most memory of a process that captures; before", most, before, "MB", most / before, "", None),
    ]


async def longest_stall(work: Awaitable[object]) -> float:
    """Seconds that the loop was held at most while `work` was done."""
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - due)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        await work
    finally:
        watching.cancel()
    return worst


async def resident(uri: str, day: int) -> tuple[float, float]:
    """MB that a new process has in memory before it captures `day` of what stands at `uri`, and at most until then."""
    code = f"from {__name__} import in_a_process; in_a_process({uri!r}, {day})"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    before, most = (float(one) for one in said.split())
    return before, most


def in_a_process(uri: str, day: int) -> None:
    logs.configure("warning")

    async def captured() -> None:
        client = connect(uri)
        world = World(client["bench"])
        await world.load(day)
        await world.warm()
        begin_peak()
        before = memory("VmRSS")
        counts: dict[str, int] = {}
        await world.capture(counts)
        assert counts["captured"] == PORTFOLIOS, counts
        print(before, memory("VmHWM"))
        await client.close()

    asyncio.run(captured())


def begin_peak() -> None:
    """Have the kernel's figure of the most memory begin with now."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> float:
    """MB that the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


class World:
    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self.database, self.clock, self.random = database, Morning(), np.random.default_rng(7)

    async def open(self) -> World:
        """An empty database gets prices, portfolios and all that a capture of the day before left."""
        self._attach(Catalog())
        names = [Instrument(f"S{number:04}") for number in range(SYMBOLS)]
        self.entries = await self.instruments.add(names, wanted_from=DAY - 60, tracked=True, by="bench", now=0.0)
        self.price = np.round(self.random.uniform(20, 400, SYMBOLS), 2)
        await self._commit(np.arange(DAY - 300, DAY, dtype=np.int64))
        await self._hold()
        before = await self.store.examined()
        market = SnapshotMarket(
            self.markets, self.catalog, self.book, self.bars.journal, self.clock, [DAY - 1], before, DAY
        )  # fmt: skip
        series = np.array([entry.id for entry in self.entries], np.int64)
        await market.learn(self.codes, series)
        await self.store.examine(Examined.of(before.version, market.looked_at, time.time()))
        await self.store.record(DayRecord(DAY - 1, Counts(), True))
        return self

    async def load(self, day: int) -> None:
        """What stands in the database already, on the morning after `day`."""
        self._attach(Catalog())
        self.clock.day = day
        await self.instruments.load_all()
        self.entries = list(self.catalog)

    def _attach(self, catalog: Catalog) -> None:
        self.book = CalendarBook({"XNYS": every_day("XNYS", DAY - 400, DAY + 400, weekdays_only=True)})
        self.catalog, self.instruments = catalog, InstrumentStore(self.database, catalog)
        self.bars = BarStore(self.database, self.clock)
        columns = ColumnCache(self.bars, 512 << 20)
        self.markets = Markets(catalog, columns, self.book, LiveCache(), self.clock, 0.0)
        self.forget_blocks()

    def forget_blocks(self) -> None:
        """Have none of them in memory."""
        self.store = SnapshotStore(self.database)
        self.capturer = SnapshotCapture(
            self.store, NothingChanged(), self.markets, self.catalog, self.book, self.clock, self.bars.journal
        )  # fmt: skip

    async def _commit(self, sessions: NDArray[np.int64]) -> None:
        sessions = sessions[(sessions + 3) % 7 < 5]
        changes = [self._change(entry, price, sessions) for entry, price in zip(self.entries, self.price, strict=True)]
        for low in range(0, SYMBOLS, 100):
            await self.bars.commit(changes[low : low + 100])

    def _change(self, entry: Entry, price: float, sessions: NDArray[np.int64]) -> Change:
        return Change(entry, Bars(sessions, np.full((5, len(sessions)), price)), "bench", self.clock.time())

    async def _hold(self) -> None:
        """Every portfolio holds its own choice, the popular ones more often, in two accounts."""
        popular = 1.0 / np.arange(1, SYMBOLS + 1) ** 0.8
        ids = sorted(str(ObjectId()) for _ in range(PORTFOLIOS))
        codes = np.array([price_code(entry.id, "USD") for entry in self.entries], np.int64)
        series = np.array([entry.id for entry in self.entries], np.int64)
        self.codes = np.sort(codes)
        draws = self.random.choice(SYMBOLS, (PORTFOLIOS, POSITIONS), p=popular / popular.sum())
        amounts = self.random.integers(1, 20_000, (PORTFOLIOS, POSITIONS)) / 100
        self.matrix = csr_array(
            (amounts.ravel(), draws.astype(np.int32).ravel(), np.arange(PORTFOLIOS + 1, dtype=np.int32) * POSITIONS),
            shape=(PORTFOLIOS, SYMBOLS),
        )
        members = [
            _member(name, codes[drawn], series[drawn], held)
            for name, drawn, held in zip(ids, draws, amounts, strict=True)
        ]
        blocks = {low // SIZE: Block.of(members[low : low + SIZE]) for low in range(0, PORTFOLIOS, SIZE)}
        for low in range(0, len(blocks), 32):
            some = {
                number: StoredBlock(1, 1, blocks[number], blocks[number].ids) for number in list(blocks)[low : low + 32]
            }
            await self.store.write_blocks(some)
        states = [{"_id": name, "generation": 3, "places": POSITIONS} for name in ids]
        await self.database["ledger_state"].insert_many(states, ordered=False)

    async def trade(self, *, friday: bool = False) -> bool:
        """A session of every symbol, the next one or that of a Friday; whether it is one. Revisions are numbered by the
        real clock, so captures have to be too."""
        at = {"$set": {"at": time.time() + SKEW_SECONDS}}
        await self.database["snapshot_blocks"].update_one({"_id": "market"}, at)
        self.clock.day += 1
        while (weekday := (self.clock.day + 3) % 7) >= 5 or friday != (weekday == LOOKED_THROUGH_ON):
            self.clock.day += 1
        self.price = np.round(self.price * (1 + 0.01 * self.random.standard_normal(SYMBOLS)), 2)
        await self._commit(np.array([self.clock.day], np.int64))
        await self.store.record(DayRecord(self.clock.day - 1, Counts(), True))  # of what was skipped nothing is due
        return weekday == LOOKED_THROUGH_ON

    async def warm(self) -> None:
        """Have the new prices in memory, as when anybody has looked at a portfolio since they came."""
        await self.markets.closes(self.entries, (), "USD")

    async def capture(self, counts: dict[str, int]) -> None:
        """`counts`: gets what the run counts."""
        handle = RunHandle(Run("x", SNAPSHOT_JOB, "running", "bench", {}, 0.0))
        await self.capturer.run_job(handle)
        counts.update(handle.run.counts)

    async def bare(self, number: int) -> tuple[float, float]:
        """Seconds of one product, and of one bulk write of the very documents that were captured."""
        key = {"_id.d": self.clock.day}
        documents = [one async for one in self.database["snapshots"].find(key).batch_size(8)]
        begin = time.perf_counter()
        self.matrix @ self.price
        multiplied = time.perf_counter()
        await self.database[f"bare_{number}"].bulk_write([InsertOne(one) for one in documents], ordered=False)
        return multiplied - begin, time.perf_counter() - multiplied


def _member(name: str, codes: NDArray[np.int64], series: NDArray[np.int64], held: NDArray[np.float64]) -> Member:
    counts = np.array([POSITIONS // 2, 0, POSITIONS - POSITIONS // 2, 0], np.int64)
    return Member(
        name, 3, DAY - 1, "USD", "America/New_York", False, ("", "a" * 24), np.array([3000.0, 1000.0, 2000.0]), counts,
        codes, held, np.unique(series),
    )  # fmt: skip
