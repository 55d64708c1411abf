"""What it costs to map 1,000 securities: from what is kept of the user, and for a user who is new to them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.databases import on_a_mongod
from benchmarks.measure import Row, in_turn_async, row
from pricecache.cache.columns import ColumnCache
from pricecache.clock import SystemClock
from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.catalog import Catalog
from pricecache.portfolio.candidates import Assessor
from pricecache.portfolio.mapping import Mapper
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.searches import SearchStore
from pricecache.stores.symbol_mappings import SymbolMappingStore
from pricecache.sync.searching import ProviderSearch

SECURITIES, ROUNDS, USERS, AIM = 1_000, 15, 8, 100.0
WORDS = ("Northern", "General", "Pacific", "United", "First", "American", "National", "Atlantic", "Central", "Allied")


def rows() -> list[Row]:
    """Times beside a bare read of the same documents, and beside the aim of 100 ms."""
    return on_a_mongod(_measured)


async def _measured(database: AsyncDatabase[dict[str, Any]], uri: str) -> list[Row]:
    mapper, securities = _mapper(database), _securities()
    await mapper.map(securities, user="first")

    async def mapped() -> None:
        await mapper.map(securities, user="first")

    async def read() -> None:
        assert len(await database["user_mappings"].find({"user": "first"}).to_list()) == SECURITIES

    known = await mapper.map(securities, user="first")

    async def looked_up() -> None:
        assert len([known[one.id] for one in securities]) == SECURITIES

    pairs = await in_turn_async(mapped, read, ROUNDS)
    beside = await in_turn_async(mapped, looked_up, ROUNDS)
    ours = median(pair[0] for pair in pairs)
    new = median([await _timed(lambda n=n: mapper.map(securities, user=f"user {n}")) for n in range(USERS)])
    return [
        row("1,000 securities mapped from what is kept; a bare read of the user's documents", pairs, "ms"),
        row("the same; as many look-ups in a dictionary", beside, "ms"),
        Row("the same; the aim", ours, AIM, "ms", ours / AIM, "the aim", ours <= AIM),
        Row("1,000 known to others, for a new user; the aim", new, AIM, "ms", new / AIM, "", None),
    ]


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await call()
    return (time.perf_counter() - begin) * 1e3


def _mapper(database: AsyncDatabase[dict[str, Any]]) -> Mapper:
    clock, catalog = SystemClock(), Catalog()
    columns = ColumnCache(BarStore(database), 1 << 20)
    search = ProviderSearch(None, SearchStore(database, clock))
    assessor = Assessor(catalog, columns, search, lambda: False)
    store = SymbolMappingStore(database, clock)
    return Mapper(store, catalog, InstrumentStore(database, catalog), assessor, clock)


def _securities() -> list[BrokerSecurity]:
    return [
        BrokerSecurity(
            f"security-{number:06}",
            "equity",
            f"{WORDS[number % 10]} {WORDS[number // 10 % 10]} {number} Inc.",
            f"S{number}",
            "XNAS",
            currency="USD",
            scope="plaid",
        )
        for number in range(SECURITIES)
    ]
