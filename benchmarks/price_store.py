"""Reads and ingest of daily bars against plain pymongo on the same server and the same rows."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pymongo import MongoClient
from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.measure import Row, in_turn_async, row
from pricecache.cache.columns import ColumnCache
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.instruments import InstrumentStore

SERIES, SESSIONS = 500, 1260
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def walk(seed: int, sessions: int = SESSIONS) -> Bars:
    """A made-up series of weekdays."""
    random = np.random.default_rng(seed)
    days = np.arange(18_000, 18_000 + sessions * 2, dtype=np.int64)
    days = days[(days + 3) % 7 < 5][:sessions]
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, sessions)))
    spread = close * 0.01
    return Bars(
        days, np.array([close - spread / 2, close + spread, close - spread, close, random.integers(1e5, 1e7, sessions)])
    )


def plain_rows(symbol: str, bars: Bars) -> list[dict[str, Any]]:
    """The rows as anybody would put them into a time-series collection."""
    return [
        {
            "ts": EPOCH + timedelta(days=day),
            "meta": {"symbol": symbol},
            "open": o,
            "high": h,
            "low": low,
            "close": c,
            "volume": v,
        }
        for day, o, h, low, c, v in zip(bars.sessions.tolist(), *bars.values.tolist(), strict=True)
    ]


async def opened(database: AsyncDatabase[dict[str, Any]], names: list[str]) -> tuple[BarStore, list[Entry]]:
    catalog = Catalog()
    instruments = InstrumentStore(database, catalog)
    await instruments.load_all()
    entries = await instruments.add([Instrument(n) for n in names], wanted_from=0, tracked=True, by="bench", now=0.0)
    return BarStore(database), entries


async def run(database: AsyncDatabase[dict[str, Any]], uri: str) -> list[Row]:
    names = [f"S{i:03}" for i in range(SERIES)]
    series = {name: walk(i) for i, name in enumerate(names)}
    rows = await ingest(database, uri, names, series)
    rows += await reads(database, uri, names)
    rows += await new_symbol(database)
    return rows


async def ingest(
    database: AsyncDatabase[dict[str, Any]], uri: str, names: list[str], series: dict[str, Bars]
) -> list[Row]:
    """500 × 1,260 bars in five portions, each stored by us and by a bare `insert_many`, in turn."""
    with MongoClient(uri, w="majority", journal=True, tz_aware=True) as client:
        plain = client[database.name].create_collection(
            "plain", timeseries={"timeField": "ts", "metaField": "meta", "granularity": "hours"}
        )
        store, entries = await opened(database, names)
        by_name = {entry.instrument.symbol: entry for entry in entries}
        pairs = []
        for first in range(0, SERIES, 50):
            portion = names[first : first + 50]
            begin = time.perf_counter()
            await store.commit([Change(by_name[n], series[n], "bench", 1.0) for n in portion])
            ours = time.perf_counter() - begin
            documents = [plain_rows(n, series[n]) for n in portion]
            begin = time.perf_counter()
            for rows in documents:
                plain.insert_many(rows, ordered=False)
            pairs.append((50 * SESSIONS / ours, 50 * SESSIONS / (time.perf_counter() - begin)))
        again = time.perf_counter()
        outcomes = await store.commit([Change(by_name[n], series[n], "bench", 2.0) for n in names])
        again = SERIES * SESSIONS / (time.perf_counter() - again)
        assert not any(outcome.changed for outcome in outcomes)
        plain.create_index([("meta.symbol", 1), ("ts", 1)])
    first = row("ingest 500 x 1,260 bars, journal and packed", pairs, "rows/s", least=0.5, rate=True)
    reference = first.reference
    return [first, Row("the same again (nothing to store)", again, reference, "rows/s", again / reference, "", None)]


async def reads(database: AsyncDatabase[dict[str, Any]], uri: str, names: list[str]) -> list[Row]:
    store, entries = await opened(database, names)
    with MongoClient(uri, tz_aware=True) as client:
        plain = client[database.name]["plain"]

        async def ours_one() -> object:
            return await store.read(entries[next(turn) % SERIES])

        async def plain_one() -> object:
            return list(plain.find({"meta.symbol": names[next(turn) % SERIES]}).sort("ts", 1))

        async def ours_fifty() -> object:
            return await store.read_many(entries[(first := next(turn) % 450) : first + 50])

        async def plain_fifty() -> object:
            first = next(turn) % 450
            return list(plain.find({"meta.symbol": {"$in": names[first : first + 50]}}).sort("ts", 1))

        turn = iter(range(10**9))
        rows = [
            row("cold read, 1 symbol, 1,260 bars", await in_turn_async(ours_one, plain_one, 300), "ms", most=0.25),
            row("cold read, 50 symbols", await in_turn_async(ours_fifty, plain_fifty, 15), "ms", most=0.05),
        ]
    columns = ColumnCache(store, 512 << 20)
    bare = {entry.id: await columns.get(entry) for entry in entries}
    entry = entries[7]
    whole = bare[entry.id]
    low, high = int(whole.sessions[400]), int(whole.sessions[900])

    async def warm() -> object:
        for _ in range(1000):
            (await columns.get(entry)).between(low, high)
        return None

    async def sliced() -> object:
        for _ in range(1000):
            block = bare[entry.id]
            i, j = block.sessions.searchsorted(low), block.sessions.searchsorted(high, side="right")
            _ = (block.sessions[i:j], *(block.values[k, i:j] for k in range(5)))
        return None

    return [*rows, row("warm columns, a range of one symbol", await in_turn_async(warm, sliced, 50), "us", most=3.0)]


async def new_symbol(database: AsyncDatabase[dict[str, Any]]) -> list[Row]:
    """251 bars of a symbol that was not known, and the round trip that a ping takes as the yardstick."""
    store, entries = await opened(database, [f"N{i}" for i in range(40)])
    bars = walk(9, 251)
    turn = iter(entries)

    async def ours() -> object:
        return await store.commit([Change(next(turn), bars, "bench", 1.0)])

    async def ping() -> object:
        return await database.client.admin.command("ping")

    measured = row("251 bars of a new symbol (goal: under 20 ms); a ping", await in_turn_async(ours, ping, 40), "ms")
    return [
        Row(measured.what, measured.ours, measured.reference, "ms", measured.ratio, "under 20 ms", measured.ours < 20)
    ]
