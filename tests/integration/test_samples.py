"""Samples of live prices: kept once each, for as long as the setting says, and not lost while the database is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase
from structlog.testing import capture_logs

from pricecache.background import cancelled
from pricecache.cache.sampled import SampledSessions
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import TooMuch
from pricecache.stores import samples as module
from pricecache.stores.client import connect, prepare
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.samples import SampleStore
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.integration.api_daemon import TODAY
from tests.mongod import TestMongod, mongod_or_reason

Database = AsyncDatabase[dict[str, Any]]
AAPL = Instrument("AAPL")
OPEN = datetime(2026, 11, 20, 14, 30, tzinfo=UTC).timestamp()
ALL = (0, 10**13)


async def store_of(database: Database, keep_days: float = 30.0) -> tuple[SampleStore, Entry]:
    catalog, clock = Catalog(), ManualClock(OPEN)
    instruments = InstrumentStore(database, catalog)
    await instruments.load_all()
    [entry] = await instruments.add([AAPL], wanted_from=TODAY, tracked=True, by="test", now=OPEN)
    return SampleStore(database, catalog, clock, keep_days=keep_days), entry


def quote(seconds: float = 0.0, price: float = 100.0, **facts: Any) -> Quote:
    at = OPEN + seconds
    return replace(Quote(AAPL, price, "USD", at, at, "scripted", TODAY, volume=1000.0), **facts)


async def test_a_price_is_kept_once_and_read_before_and_after_it_is_written(database: Database) -> None:
    store, entry = await store_of(database)
    store.record([quote(), quote(), quote(1, 101.0, volume=None), quote(0.5)])
    store.record([quote(1, 101.0)])
    assert store.pending == 2
    for _ in range(2):
        found = await store.read(entry, *ALL)
        assert sorted(zip(found.instants.tolist(), found.prices.tolist(), strict=True)) == [
            (round(OPEN * 1000), 100.0),
            (round(OPEN * 1000) + 1000, 101.0),
        ]
        assert found.sources == ("scripted",)
        assert sorted(str(volume) for volume in found.volumes) == ["1000.0", "nan"]
        await store.flush()
    assert (store.pending, store.stored) == (0, 2)
    assert await store.first(entry, round(OPEN * 1000) + 1) == round(OPEN * 1000) + 1000
    assert await store.last(entry, round(OPEN * 1000) + 999) == round(OPEN * 1000)
    assert await store.first(entry, 10**13) is None


async def test_two_prices_of_one_instant_keep_their_order(database: Database) -> None:
    store, entry = await store_of(database)
    store.record([quote(0, 5.0), quote(0, 9.0), quote(0, 7.0)])
    found = await store.read(entry, *ALL)
    assert found.prices[found.instants.argsort()].tolist() == [5.0, 9.0, 7.0]


async def test_reading_stays_within_its_bounds(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store, entry = await store_of(database)
    store.record([quote(second) for second in range(20)])
    await store.flush()
    assert len(await store.read(entry, round(OPEN * 1000) + 5000, round(OPEN * 1000) + 7000)) == 3
    monkeypatch.setattr(module, "MOST_READ", 10)
    with pytest.raises(TooMuch) as caught:
        await store.read(entry, *ALL)
    assert caught.value.code == "too_many_samples"


async def test_a_restart_goes_on_where_it_ended(database: Database) -> None:
    store, _ = await store_of(database)
    store.record([quote()])
    await store.close()
    again, entry = await store_of(database)
    again.remember([quote()])
    again.record([quote(), quote(60, 102.0)])
    await again.close()
    assert sorted((await again.read(entry, *ALL)).prices.tolist()) == [100.0, 102.0]


async def test_the_task_writes_every_few_seconds_or_many_at_once_and_a_stop_writes_the_rest(database: Database) -> None:
    store, _ = await store_of(database)
    clock: Any = store._clock
    task = asyncio.create_task(store.run())
    await clock.until_sleeping()
    store.record([quote()])
    clock.advance(module.FLUSH_SECONDS)
    await clock.until_sleeping()
    assert await database["samples"].count_documents({}) == 1
    store.record([quote(second) for second in range(10, 10 + module.FLUSH_ROWS)])
    while store.stored <= module.FLUSH_ROWS:  # until then a stop writes them once more, which no bar notices
        await asyncio.sleep(0)
    store.record([quote(1e4, 2.0)])
    await cancelled([task])
    await store.close()
    assert await database["samples"].count_documents({}) == module.FLUSH_ROWS + 2


@pytest.mark.parametrize(("days", "seconds"), [(30.0, 2_592_000), (1.5, 129_600), (0.0, 1)])
async def test_retention_follows_the_setting(database: Database, days: float, seconds: int) -> None:
    store, _ = await store_of(database, days)
    clock: Any = store._clock
    task = asyncio.create_task(store.run())
    await clock.until_sleeping()
    await cancelled([task])
    [found] = await (await database.list_collections(filter={"name": "samples"})).to_list()
    assert found["options"]["expireAfterSeconds"] == seconds
    assert found["options"]["timeseries"]["granularity"] == "minutes"


async def test_nothing_is_kept_when_the_setting_is_nought(database: Database) -> None:
    store, entry = await store_of(database, 0.0)
    store.record([quote()])
    assert store.pending == 0
    assert len(await store.read(entry, *ALL)) == 0


async def test_what_comes_while_the_database_is_away_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, reason = mongod_or_reason()
    if program is None:
        pytest.skip(reason)
    mongod = TestMongod(program, tmp_path / "mongod")
    mongod.start()
    client = connect(mongod.uri, timeout_ms=200)
    try:
        await prepare(client["away"])
        store, entry = await store_of(client["away"])
        mongod.kill()
        monkeypatch.setattr(module, "MOST_PENDING", 3)
        with capture_logs() as lines:
            for second in range(5):
                store.record([quote(second, 100.0 + second)])
                if second % 3 == 0:
                    await store.flush()
            assert (store.pending, store.dropped) == (3, 2)
            mongod.start()
            while store.pending:
                await store.flush()
        assert [line["event"] for line in lines] == [
            "samples are not being stored",
            "samples are being stored again",
        ]
        assert lines[-1]["dropped"] == 2
        assert sorted((await store.read(entry, *ALL)).prices.tolist()) == [102.0, 103.0, 104.0]
    finally:
        await client.close()
        mongod.stop()


async def test_a_session_so_far_is_brought_forward(database: Database) -> None:
    store, entry = await store_of(database)
    sessions = SampledSessions(store, xnys_book())
    assert await sessions.of(entry, TODAY) is None
    store.record([quote(60, 100.0), quote(120, 104.0)])
    await store.flush()
    first = await sessions.of(entry, TODAY)
    store.record([quote(180, 99.0), quote(-3600, 500.0)])
    second = await sessions.of(entry, TODAY)
    assert first is not None
    assert second is not None
    assert (first.open, first.high, first.low) == (100.0, 104.0, 100.0)
    assert (second.open, second.high, second.low) == (100.0, 104.0, 99.0)
