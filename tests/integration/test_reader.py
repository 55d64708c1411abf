"""Reading history: from RAM, adjusted, with its coverage, following what is written by this daemon and by others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.cache.columns import ColumnCache
from pricecache.cache.reader import Reader
from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.catalog import FUND_LAG, Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch
from pricecache.core.sessions import CalendarBook, every_day
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.quotes import QuoteStore
from pricecache.stores.watch import ChangeWatcher
from tests.clock import ManualClock

Database = AsyncDatabase[dict[str, Any]]
FIRST = 19_700
COIN = Instrument("COIN-USD", "CRYPTO")


class Parts:
    """Store, columns and reader of one daemon, with a market that trades every day."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.catalog = Catalog()
        self.clock = clock
        self.bars = BarStore(database)
        self.instruments = InstrumentStore(database, self.catalog)
        self.columns = ColumnCache(self.bars, 1 << 20)
        book = CalendarBook({"24/7": every_day("24/7", 0, 30_000)})
        self.reader = Reader(self.catalog, self.columns, book, clock, 600.0)

    async def entry(self) -> Entry:
        await self.instruments.load_all()
        [entry] = await self.instruments.add([COIN], wanted_from=FIRST, tracked=True, by="t", now=self.clock.time())
        return entry


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock((FIRST + 100) * 86400 + 3600.0)


@pytest.fixture
def parts(database: Database, clock: ManualClock) -> Parts:
    return Parts(database, clock)


def days(first: int, last: int, price: float = 10.0) -> Bars:
    sessions = np.arange(first, last + 1)
    return Bars(sessions, np.tile(np.full(len(sessions), price), (5, 1)))


async def test_a_whole_range_is_a_hit_and_a_hole_is_not(parts: Parts) -> None:
    entry = await parts.entry()
    await parts.bars.commit([Change(entry, days(FIRST, FIRST + 99), "t", 1.0)])
    answer = await parts.reader.history(entry)
    assert (answer.start, answer.end) == (FIRST, FIRST + 100)
    assert (answer.coverage.present, answer.coverage.expected) == (100, 100)
    assert [s.absence for s in answer.coverage.missing] == ["not_due"]
    later = await parts.reader.history(entry, FIRST - 10, FIRST + 5)
    assert [s.absence for s in later.coverage.missing] == ["not_requested"]
    assert (parts.reader.hits, parts.reader.misses) == (1, 1)


async def test_an_answer_holds_until_the_next_session_is_due_or_the_day_ends(parts: Parts, clock: ManualClock) -> None:
    entry = await parts.entry()
    answer = await parts.reader.history(entry)
    assert answer.valid_until == (FIRST + 101) * 86400.0
    assert answer.valid_until > clock.time()


async def test_the_price_of_a_fund_is_missed_once_it_is_due_for_a_fund(parts: Parts, clock: ManualClock) -> None:
    entry = await parts.entry()
    await parts.instruments.set_facts(entry, kind="fund")
    await parts.bars.commit([Change(entry, days(FIRST, FIRST + 98), "t", 1.0)])
    answer = await parts.reader.history(entry)
    due = (FIRST + 100) * 86400.0 + 600.0 + FUND_LAG
    assert [(s.first, s.absence) for s in answer.coverage.missing] == [(FIRST + 99, "not_due")]
    assert (answer.coverage.complete, answer.valid_until) == (True, due)
    assert (await parts.reader.coverage(entry)).complete
    clock.set(due)
    assert not (await parts.reader.coverage(entry)).complete


async def test_reads_follow_commits_and_come_from_ram_in_between(parts: Parts) -> None:
    entry = await parts.entry()
    await parts.bars.commit([Change(entry, days(FIRST, FIRST + 50), "t", 1.0)])
    assert len((await parts.reader.history(entry)).bars) == 51
    misses = parts.columns.misses
    await asyncio.gather(*(parts.reader.history(entry) for _ in range(20)))
    assert parts.columns.misses == misses
    await parts.bars.commit([Change(entry, days(FIRST + 51, FIRST + 60), "t", 1.0)])
    assert len((await parts.reader.history(entry)).bars) == 61


async def test_many_who_wait_for_one_series_read_it_once(parts: Parts) -> None:
    entry = await parts.entry()
    await parts.bars.commit([Change(entry, days(FIRST, FIRST + 50), "t", 1.0)])
    reads = 0
    original = parts.bars.read_many

    async def counted(entries: Any) -> Any:
        nonlocal reads
        reads += 1
        return await original(entries)

    parts.bars.read_many = counted  # type: ignore[method-assign]
    await asyncio.gather(*(parts.columns.get(entry, mode) for mode in ("none", "splits", "all") for _ in range(10)))
    assert reads == 1


async def test_ram_stays_within_its_bound(database: Database, clock: ManualClock) -> None:
    parts = Parts(database, clock)
    parts.columns = ColumnCache(parts.bars, 10_000)
    names = [Instrument(f"C{i}-USD", "CRYPTO") for i in range(10)]
    entries = await parts.instruments.add(names, wanted_from=FIRST, tracked=True, by="t", now=1.0)
    await parts.bars.commit([Change(e, days(FIRST, FIRST + 60), "t", 1.0) for e in entries])
    for entry in entries:
        assert len(await parts.columns.get(entry)) == 61
        assert parts.columns.nbytes <= 10_000


async def test_a_split_is_applied_on_read_and_to_provisional_bars_too(parts: Parts) -> None:
    entry = await parts.entry()
    split = Action(FIRST + 30, "split", 2.0)
    await parts.bars.commit([Change(entry, days(FIRST, FIRST + 29, 20.0), "t", 1.0, actions=(split,))])
    await parts.bars.set_tails([(entry, days(FIRST + 20, FIRST + 31, 10.0))])
    answer = await parts.reader.history(entry)
    assert np.unique(answer.bars.close).tolist() == [10.0]
    assert answer.provisional.tolist() == [False] * 30 + [True] * 2
    traded = await parts.reader.history(entry, adjust="none")
    assert traded.bars.close[0] == 20.0
    assert answer.bars.volume[0] == 40.0


async def test_a_final_bar_takes_the_place_of_a_provisional_one(parts: Parts) -> None:
    entry = await parts.entry()
    await parts.bars.set_tails([(entry, days(FIRST, FIRST + 1, 9.0))])
    await parts.bars.commit([Change(entry, days(FIRST, FIRST, 10.0), "t", 1.0)])
    answer = await parts.reader.history(entry)
    assert answer.bars.close.tolist() == [10.0, 9.0]
    again = Parts(parts.bars.journal._rows.database, parts.clock)
    assert (await again.reader.history(await again.entry())).bars.close.tolist() == [10.0, 9.0]


async def test_what_another_daemon_writes_is_heard(database: Database, clock: ManualClock) -> None:
    mine, theirs = Parts(database, clock), Parts(database, clock)
    heard: list[Quote] = []
    quotes = QuoteStore(database, clock, shared_as="me")
    watcher = ChangeWatcher(
        database, mine.catalog, mine.instruments, mine.bars, quotes, "me", heard.extend, clock, PortfolioHeads()
    )
    following = asyncio.Event()
    task = asyncio.create_task(watcher.run(following.set))
    await asyncio.wait_for(following.wait(), 10)
    entry = await theirs.entry()
    await theirs.bars.commit([Change(entry, days(FIRST, FIRST + 9), "t", 1.0)])
    quote = Quote(COIN, 5.0, "USD", 1.0, 1.0, "t", series=entry.id)
    await QuoteStore(database, clock, shared_as="them").save(QuoteBatch.of([quote]).quotes.values())
    await quotes.save([quote])

    async def arrived() -> None:
        while not heard or (known := mine.catalog.get(COIN)) is None or known.head.count != 10:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(arrived(), 10)
    known = mine.catalog.require(COIN)
    assert len((await mine.reader.history(known)).bars) == 10
    assert heard == [quote]
    task.cancel()
    await asyncio.wait([task])


async def test_an_older_quote_never_replaces_a_newer_stored_one(database: Database, clock: ManualClock) -> None:
    store = QuoteStore(database, clock)
    await store.save([Quote(COIN, 2.0, "USD", 20.0, 20.0, "t", series=1)])
    older, other = Quote(COIN, 1.0, "USD", 10.0, 30.0, "t"), Quote(Instrument("X"), 3.0, "USD", 1.0, 1.0, "$x")
    await store.save([replace(older, series=1), replace(other, series=2)])
    assert {q.instrument.symbol: q.price for q in await store.load()} == {"COIN-USD": 2.0, "X": 3.0}


async def test_while_other_daemons_may_go_unheard_a_read_asks_the_database(
    database: Database, clock: ManualClock
) -> None:
    mine, theirs = Parts(database, clock), Parts(database, clock)
    entry = await mine.entry()
    await mine.reader.history(entry)
    await theirs.bars.commit([Change(await theirs.entry(), days(FIRST, FIRST + 9), "t", 1.0)])
    assert len((await mine.reader.history(entry)).bars) == 0
    mine.catalog.trusted = False
    assert len((await mine.reader.history(entry)).bars) == 10
