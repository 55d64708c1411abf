"""Latest quotes in the database: the newest wins, and other daemons hear of every batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pricecache.core.catalog import Catalog
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.quotes import QUOTES_AT_ONCE, QuoteStore
from pricecache.stores.watch import ChangeWatcher
from tests.clock import ManualClock


def quotes(price: float, as_of: float, count: int = QUOTES_AT_ONCE + 20) -> list[Quote]:
    return [Quote(Instrument(f"S{i}"), price, "USD", as_of, as_of, "test", series=i + 1) for i in range(count)]


async def test_an_older_quote_never_replaces_a_newer_one(database: Any) -> None:
    store = QuoteStore(database, ManualClock())
    await store.save(quotes(2.0, 20.0))
    await store.save([*quotes(1.0, 10.0), *quotes(3.0, 30.0, count=1)])
    assert sorted(quote.price for quote in await store.load()) == [2.0] * (QUOTES_AT_ONCE + 19) + [3.0]
    assert await database["quote_batches"].count_documents({}) == 0


async def test_other_daemons_hear_of_every_batch_though_only_the_last_is_kept(database: Any) -> None:
    clock, catalog = ManualClock(), Catalog()
    one, other = (QuoteStore(database, clock, shared_as=name) for name in ("one:1:x", "other:1:x"))
    heard: list[float] = []
    started = asyncio.Event()
    watcher = ChangeWatcher(
        database,
        catalog,
        InstrumentStore(database, catalog),
        BarStore(database),
        other,
        "other:1:x",
        lambda batch: heard.extend(quote.price for quote in batch),
        clock,
        PortfolioHeads(),
    )
    watching = asyncio.create_task(watcher.run(started.set))
    await started.wait()
    for number in range(1, 4):
        await one.save(quotes(float(number), float(number)))
        await other.save(quotes(-1.0, float(number)))
    async with asyncio.timeout(10):
        while len(heard) < 3 * (QUOTES_AT_ONCE + 20):
            await asyncio.sleep(0.01)
    assert sorted(heard) == sorted([1.0, 2.0, 3.0] * (QUOTES_AT_ONCE + 20))
    assert await database["quote_batches"].count_documents({}) == 4
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_what_an_earlier_release_stored_by_symbol_gets_its_series_once(database: Any) -> None:
    plain = {"price": 5.0, "currency": "USD", "as_of": 10.0, "received_at": 10.0, "source": "test"}
    await database["quotes"].insert_many(
        [{"_id": f"S{i}:US", **plain} for i in range(3)] + [{"_id": 1, "instrument": "S1:US", **plain, "as_of": 11.0}]
    )
    store = QuoteStore(database, ManualClock())
    ids = {Instrument("S0"): 0, Instrument("S1"): 1}
    await store.adopt(ids.get)
    held = sorted((q.series, q.instrument.symbol, q.as_of) for q in await store.load() if q.series is not None)
    assert held == [(0, "S0", 10.0), (1, "S1", 11.0)]
    assert await database["quotes"].count_documents({}) == 2
    await store.adopt({Instrument("S0"): 7}.get)
    assert {quote.series for quote in await store.load()} == {0, 1}
