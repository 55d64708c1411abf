"""What the close of a day costs for 100,000 portfolios, beside the bare sparse product and the bare bulk write."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import InsertOne
from pymongo.asynchronous.database import AsyncDatabase
from scipy.sparse import csr_array

from benchmarks.databases import on_a_mongod
from benchmarks.measure import Row, row
from pricecache import logs
from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.clock import SystemClock
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook, every_day
from pricecache.core.snapshot_blocks import SIZE, Block, Member, price_code
from pricecache.portfolio.market import Markets
from pricecache.portfolio.snapshot_capture import SNAPSHOT_JOB, SnapshotCapture
from pricecache.portfolio.snapshot_market import SKEW_SECONDS, SnapshotMarket
from pricecache.portfolio.snapshot_members import MemberBuilder
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.runs import Run, RunHandle
from pricecache.stores.snapshots import Counts, DayRecord, Examined, SnapshotStore, StoredBlock

PORTFOLIOS, SYMBOLS, POSITIONS = 100_000, 2_000, 25
DAY = 20_776
"""A Thursday. Everything is held since the day before."""
ROUNDS = 5


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
    pairs, cold, parts = [], [], []
    for number in range(2 * ROUNDS):
        await world.trade()
        if number % 2:
            await world.warm()
        begin = time.perf_counter()
        counts = await world.capture()
        took = time.perf_counter() - begin
        assert (counts["captured"], counts["provisional"]) == (PORTFOLIOS, 0), counts
        product, write = await world.bare(number)
        (pairs if number % 2 else cold).append((took * 1e3, (product + write) * 1e3))
        parts.append((product * 1e3, write * 1e3))
    return [
        row(f"{PORTFOLIOS:,} x {POSITIONS}: capture; product + bulk write", pairs, "ms", most=10),
        row("  with no price of the day in memory; the same", cold, "ms"),
        row("  of the reference: the product; the write", parts, "ms"),
    ]


class World:
    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self.database, self.clock, self.random = database, Morning(), np.random.default_rng(7)
        self.store = SnapshotStore(database)

    async def open(self) -> World:
        book = CalendarBook({"XNYS": every_day("XNYS", DAY - 400, DAY + 400, weekdays_only=True)})
        catalog = Catalog()
        instruments, self.bars = InstrumentStore(self.database, catalog), BarStore(self.database, self.clock)
        names = [Instrument(f"S{number:04}") for number in range(SYMBOLS)]
        self.entries = await instruments.add(names, wanted_from=DAY - 60, tracked=True, by="bench", now=0.0)
        self.price = np.round(self.random.uniform(20, 400, SYMBOLS), 2)
        await self._commit(np.arange(DAY - 300, DAY, dtype=np.int64))
        markets = Markets(catalog, ColumnCache(self.bars, 512 << 20), book, LiveCache(), self.clock, 0.0)
        self.markets = markets
        self.capturer = SnapshotCapture(
            self.store, NothingChanged(), markets, catalog, book, self.clock, self.bars.journal
        )  # fmt: skip
        await self._hold()
        before = await self.store.examined()
        market = SnapshotMarket(markets, catalog, book, self.bars.journal, self.clock, [DAY - 1], before, DAY)
        series = np.array([entry.id for entry in self.entries], np.int64)
        await market.learn(self.codes, series)
        await self.store.examine(Examined.of(before.version, market.looked_at, time.time()))
        await self.store.record(DayRecord(DAY - 1, Counts(), True))
        return self

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

    async def trade(self) -> None:
        """The next session, of every symbol. Revisions are numbered by the real clock, so captures have to be too."""
        at = {"$set": {"at": time.time() + SKEW_SECONDS}}
        await self.database["snapshot_blocks"].update_one({"_id": "market"}, at)
        self.clock.day += 1
        while (self.clock.day + 3) % 7 >= 5:
            self.clock.day += 1
        self.price = np.round(self.price * (1 + 0.01 * self.random.standard_normal(SYMBOLS)), 2)
        await self._commit(np.array([self.clock.day], np.int64))

    async def warm(self) -> None:
        """Have the new prices in memory, as when anybody has looked at a portfolio since they came."""
        await self.markets.closes(self.entries, (), "USD")

    async def capture(self) -> dict[str, int]:
        handle = RunHandle(Run("x", SNAPSHOT_JOB, "running", "bench", {}, 0.0))
        await self.capturer.run_job(handle)
        return handle.run.counts

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
