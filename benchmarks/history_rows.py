"""What kept rows of histories cost on a real mongod: reading them cold, going on after a change, making many."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.history import FIRST, LAST, Case, case
from benchmarks.measure import Row, in_turn_async, row
from pricecache import logs
from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.clock import SystemClock
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog
from pricecache.core.ledger import Transaction
from pricecache.core.portfolios import Portfolio
from pricecache.core.sessions import CalendarBook, every_day
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.materialiser import Materialiser
from pricecache.portfolio.wholes import Wholes
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.history import HistoryStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.ledger import LedgerStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.runs import Run, RunHandle
from pricecache.sync.backfill import Tracker

PORTFOLIOS = 300
RULES = {
    "baseCurrency": "USD",
    "costBasis": "fifo",
    "cashTracking": False,
    "feesInCost": True,
    "allowShort": False,
    "quantityBasis": "asTraded",
    "timeZone": "UTC",
    "isArchived": False,
}


class DayAfter(SystemClock):
    """The morning after the last day of the case, for ever."""

    def time(self) -> float:
        return (LAST + 1) * 86400.0 + 6 * 3600.0


class Service:
    """The parts that histories are made by, over one database, with nothing in memory but the catalog."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self.database = database

    async def open(self) -> Service:
        database, clock = self.database, DayAfter()
        book = CalendarBook({"XNYS": every_day("XNYS", FIRST - 400, LAST + 400, weekdays_only=True)})
        self.catalog = Catalog()
        self.instruments = InstrumentStore(database, self.catalog)
        await self.instruments.load_all()
        self.bars = BarStore(database, clock)
        self.heads = PortfolioHeads()
        self.portfolios = PortfolioStore(database, self.heads)
        self.ledger_store = LedgerStore(database, self.heads)
        markets = Markets(self.catalog, ColumnCache(self.bars, 256 << 20), book, LiveCache(), clock, 0.0)
        tracker = Tracker(
            self.catalog, self.instruments, clock, depth_days=3000, max_symbols=10_000, start_run=_nothing_to_fill
        )
        self.ledgers = Ledgers(
            self.ledger_store, self.portfolios, self.catalog, self.instruments, tracker, markets, clock
        )
        self.store = HistoryStore(database)
        self.wholes = Wholes(self.ledgers, markets, self.heads, self.store, clock, 512 << 20)
        self.materialiser = Materialiser(
            self.wholes, self.store, self.portfolios, self.ledger_store, self.ledgers, markets, self.heads, clock
        )
        return self

    async def filled(self, c: Case) -> None:
        names = list(c.market.prices)
        entries = await self.instruments.add(names, wanted_from=FIRST - 60, tracked=True, by="bench", now=0.0)
        changes = []
        for entry in entries:
            column = c.market.prices[entry.instrument]
            values = np.tile(column.closes.values, (5, 1))
            changes.append(Change(entry, Bars(column.closes.sessions, values), "bench", 1.0, actions=column.actions))
        await self.bars.commit(changes)

    async def made(self, c: Case, name: str) -> Portfolio:
        """With all rows of the case, in portions."""
        portfolio = await self.portfolios.create("bench", {"name": name, **RULES}, 0.0)
        rows = [replace(one, account="") for one in c.ledger.transactions]
        for low in range(0, len(rows), 5000):
            await self.ledgers.add(portfolio, rows[low : low + 5000], (), "bench")
        return portfolio


async def _nothing_to_fill(job: str, parameters: dict[str, Any], by: str) -> None:
    raise AssertionError(f"{job} {parameters}: everything was there")


async def run(database: AsyncDatabase[dict[str, Any]], uri: str) -> list[Row]:
    logs.configure("warning")
    c = case()
    service = await Service(database).open()
    await service.filled(c)
    portfolio = await service.made(c, "large")
    rows = await cold(service, portfolio)
    rows += await changes(service, portfolio, c)
    rows += await sizes(service)
    return rows + await many(service)


async def cold(service: Service, portfolio: Portfolio) -> list[Row]:
    """With nothing in memory but the catalog: from the ledger, and from what is stored; the raw reads of either."""
    database = service.database

    async def opened() -> Service:
        return await Service(database).open()

    async def documents(name: str, key: dict[str, Any]) -> list[dict[str, Any]]:
        return await database[name].find(key).to_list()

    async def of_ledger() -> None:
        await asyncio.gather(
            documents("ledger_state", {"_id": portfolio.id}),
            documents("transactions", {"portfolio": portfolio.id}),
            documents("bar_years", {}),
        )

    async def of_rows() -> None:
        stored = {"_id": {"$gte": {"p": portfolio.id, "c": -(1 << 40)}, "$lte": {"p": portfolio.id, "c": 1 << 40}}}
        await asyncio.gather(
            of_ledger(), documents("history_heads", {"_id": portfolio.id}), documents("history", stored)
        )

    async def raw_ledger() -> None:
        await asyncio.gather(
            documents("ledger_state", {"_id": portfolio.id}), documents("transactions", {"portfolio": portfolio.id})
        )

    async def ledger(fresh: Service, one: Portfolio) -> object:
        return await fresh.ledgers.read(one)

    async def computed(fresh: Service, one: Portfolio) -> object:
        return await fresh.wholes.of(one, use_materialized=False)

    async def stored(fresh: Service, one: Portfolio) -> object:
        return await fresh.wholes.of(one)

    async def timed(ours_of: Any, raw: Any) -> list[tuple[float, float]]:
        pairs = []
        for _ in range(15):
            fresh = await opened()
            one = await fresh.portfolios.get("bench", portfolio.id)
            begin = time.perf_counter()
            await ours_of(fresh, one)
            ours = time.perf_counter() - begin
            begin = time.perf_counter()
            await raw()
            pairs.append((ours * 1e3, (time.perf_counter() - begin) * 1e3))
        return pairs

    rows = [
        row("cold, computed; its raw reads into dicts", await timed(computed, of_ledger), "ms", most=1.3),
        row("  of it the ledger as exact values; its raw reads", await timed(ledger, raw_ledger), "ms"),
    ]
    await service.materialiser.materialise(portfolio)
    what = "cold, stored rows; the raw reads of ledger, prices, rows"
    return [*rows, row(what, await timed(stored, of_rows), "ms", most=1.3)]


async def changes(service: Service, portfolio: Portfolio, c: Case) -> list[Row]:
    """The next read after a transaction of today, and of a year ago; everything computed from the ledger in memory."""
    name = next(iter(c.market.prices))

    async def whole() -> object:
        return await service.wholes.of(portfolio, use_materialized=False)

    async def timed(day: int) -> list[tuple[float, float]]:
        pairs = []
        for number in range(20):
            one = Transaction(day, "buy", name, quantity=Decimal(number + 1), price=Decimal(50))
            await service.ledgers.add(portfolio, [one], (), "bench")
            await service.portfolios.get("bench", portfolio.id)
            begin = time.perf_counter()
            await service.wholes.of(portfolio)
            ours = time.perf_counter() - begin
            begin = time.perf_counter()
            await whole()
            pairs.append((ours * 1e3, (time.perf_counter() - begin) * 1e3))
        return pairs

    portfolio = await service.portfolios.get("bench", portfolio.id)
    await service.wholes.of(portfolio)
    today = row("read after a transaction of today; all computed", await timed(LAST + 1), "ms", most=0.1)
    back = row("read after one of a year ago; all computed", await timed(LAST - 365), "ms")

    async def again() -> object:
        return await service.wholes.of(portfolio)

    await again()
    same = row("read again, nothing changed; all computed", await in_turn_async(again, whole, 30), "ms")
    return [today, back, same]


async def sizes(service: Service) -> list[Row]:
    """Bytes a day and scope of the large portfolio, as it is compressed before MongoDB compresses it again."""
    portfolio = (await service.portfolios.page("", 1))[0]
    await service.materialiser.materialise(portfolio)
    stored = await service.store.load(portfolio.id, False)
    assert stored is not None
    documents = await service.database["history"].find({}).to_list()
    cells = stored.kept.history.days * len(stored.kept.history.scopes)
    whole = sum(len(one["rows"]) + len(one["point"]) for one in documents) / cells
    points = sum(len(one["point"]) for one in documents) / cells
    return [
        against("bytes a day and scope, 50 x 2,000 x 5 years; the aim", whole, 60.0, "bytes", whole <= 60),
        against("  of them for points to go on from; the same", points, 60.0, "bytes"),
    ]


async def many(service: Service) -> list[Row]:
    """Portfolios of 20 positions, 100 transactions and two years, stored by the job one after another."""
    small = case(symbols=20, transactions=100, days=730)
    ids = []
    for number in range(PORTFOLIOS):  # no two alike, or they would compress each other
        shift, times = LAST - FIRST - 729 - number % 60, Decimal(number + 1) / 7
        moved = [
            replace(one, day=one.day + shift, quantity=one.quantity and round(one.quantity * times, 3))
            for one in small.ledger.transactions
            if one.type != "sell"
        ]
        ledger = replace(small.ledger, transactions=tuple(moved))
        ids.append((await service.made(replace(small, ledger=ledger), f"small {number}")).id)
    rates = []
    for _ in range(3):
        fresh = await Service(service.database).open()
        await service.database["history_heads"].delete_many({"_id": {"$in": ids}})
        run = Run("bench", "materialize_history", "running", "bench", {}, 0.0)
        begin = time.perf_counter()
        await fresh.materialiser.run_job(RunHandle(run))
        rates.append(run.counts["stored"] / (time.perf_counter() - begin))
    fresh = await Service(service.database).open()
    run = Run("bench", "materialize_history", "running", "bench", {}, 0.0)
    begin = time.perf_counter()
    await fresh.materialiser.run_job(RunHandle(run))
    idle = run.counts["upToDate"] / (time.perf_counter() - begin)
    rate = statistics.median(rates)
    await service.database.client.admin.command("fsync")
    totals = await service.store.totals(LAST + 1)
    disk = totals.disk_bytes / totals.rows
    return [
        against("portfolios of 20 x 2 years stored a second; the aim", rate, 1000.0, "a second", rate >= 1000),
        against("the same found to be as they should", idle, 1000.0, "a second"),
        against("bytes on disk a day and scope, with indexes; the aim", disk, 60.0, "bytes", disk <= 60),
    ]


def against(what: str, ours: float, aim: float, unit: str, is_met: bool | None = None) -> Row:
    """A figure beside what was aimed at."""
    return Row(what, ours, aim, unit, ours / aim, "" if is_met is None else "the aim", is_met)
