"""The store of bars on a real mongod: whole, once each, as the journal says, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.core.actions import Action, in_effect
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.instruments import InstrumentStore
from tests.clock import ManualClock

Database = AsyncDatabase[dict[str, Any]]
DAY0 = 19_000  # 2022-01-08
NOW = 1_800_000_000.0


def bars(sessions: list[int], price: float = 100.0) -> Bars:
    days = np.array(sessions, np.int64)
    close = price + days % 97 / 7
    return Bars(days, np.array([close - 0.5, close + 1, close - 1, close, days * 10.0]))


async def opened(database: Database, *symbols: str, clock: ManualClock | None = None) -> tuple[BarStore, list[Entry]]:
    """A store and catalog of its own, as one more daemon on the same database has them; its clock stands at `NOW`."""
    catalog = Catalog()
    instruments = InstrumentStore(database, catalog)
    await instruments.load_all()
    named = [Instrument(symbol) for symbol in symbols or ("AAPL",)]
    entries = await instruments.add(named, wanted_from=DAY0, tracked=True, by="test", now=NOW)
    return BarStore(database, clock or ManualClock(NOW)), entries


def same(a: Bars, b: Bars) -> bool:
    return np.array_equal(a.sessions, b.sessions) and np.array_equal(a.values, b.values, equal_nan=True)


async def test_what_is_committed_is_read_back(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 800, 2)))
    [outcome] = await store.commit([Change(entry, given, "test", NOW)])
    assert outcome.added.tolist() == given.sessions.tolist()
    other, [same_entry] = await opened(database)
    assert same(await other.read(same_entry), given)
    assert (same_entry.head.count, same_entry.head.first, same_entry.head.last) == (400, DAY0, DAY0 + 798)
    assert (await store.verify(entry)).faults == ()


async def test_equal_data_commits_nothing(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 300)))
    await store.commit([Change(entry, given, "test", NOW)])
    shaken = Bars(given.sessions[::-1], (given.values * (1 + 1e-8))[:, ::-1])
    [outcome] = await store.commit([Change(entry, shaken, "test", NOW + 1)])
    assert not outcome.changed
    assert outcome.rev == 1
    assert await database["bars_1d"].count_documents({}) == 300
    assert same(await store.read(entry), given)


async def test_a_correction_replaces_one_bar_and_the_journal_keeps_both(database: Database) -> None:
    store, [entry] = await opened(database, clock=(clock := ManualClock(NOW)))
    given = bars(list(range(DAY0, DAY0 + 20)))
    await store.commit([Change(entry, given, "test", NOW)])
    corrected = Bars(given.sessions[7:8], given.values[:, 7:8] * 1.01)
    clock.advance(5)
    [outcome] = await store.commit([Change(entry, corrected, "other", NOW + 5)])
    assert outcome.replaced.tolist() == [DAY0 + 7]
    read = await store.read(entry)
    assert read.close[7] == pytest.approx(given.close[7] * 1.01)
    before = await store.journal.replay(entry.id, up_to=NOW + 1)
    assert same(before.bars, given)
    assert (await store.verify(entry)).faults == ()


async def test_less_never_takes_away(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 20)))
    await store.commit([Change(entry, given, "test", NOW)])
    less = Bars(given.sessions[:5], given.values[:, :5].copy())
    less.values[4] = np.nan
    [outcome] = await store.commit([Change(entry, less, "test", NOW + 1)])
    assert not outcome.changed
    assert same(await store.read(entry), given)


async def test_a_manual_bar_beats_a_providers_until_it_is_taken_back(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 5)))
    await store.commit([Change(entry, given, "test", NOW)])
    mine = Bars(np.array([DAY0 + 2, DAY0 + 9]), np.array([[np.nan] * 2] * 3 + [[50.0, 51.0]] + [[np.nan] * 2]))
    await store.commit([Change(entry, mine, "manual", NOW + 1, manual=True)])
    await store.commit([Change(entry, bars(list(range(DAY0, DAY0 + 5)), 200.0), "test", NOW + 2)])
    read = await store.read(entry)
    assert read.close[2] == 50.0
    assert read.close[5] == 51.0
    assert read.close[1] > 190
    outcome = await store.retract(entry, [DAY0 + 2, DAY0 + 3, DAY0 + 9], NOW + 3)
    assert outcome.replaced.tolist() == [DAY0 + 2]
    assert outcome.removed.tolist() == [DAY0 + 9]
    read = await store.read(entry)
    assert read.close[2] == given.close[2]
    assert read.sessions.tolist() == given.sessions.tolist()
    assert entry.sessions is not None
    assert entry.sessions.tolist() == given.sessions.tolist()
    assert (await store.verify(entry)).faults == ()


async def test_retracting_the_only_bar_of_a_year_leaves_no_year(database: Database) -> None:
    store, [entry] = await opened(database)
    mine = Bars(np.array([DAY0, DAY0 + 400]), np.full((5, 2), 7.0))
    await store.commit([Change(entry, mine, "manual", NOW, manual=True)])
    await store.retract(entry, [DAY0 + 400], NOW + 1)
    assert (await store.read(entry)).sessions.tolist() == [DAY0]
    assert list(entry.head.years) == [2022]
    assert (await store.verify(entry)).faults == ()


async def test_actions_are_committed_with_bars_and_taken_back_when_manual(database: Database) -> None:
    store, [entry] = await opened(database)
    split = Action(DAY0 + 3, "split", 4.0, source="test")
    await store.commit([Change(entry, bars([DAY0, DAY0 + 3]), "test", NOW, actions=(split,))])
    mine = Action(DAY0 + 5, "dividend", 0.5, "USD", "manual", True)
    [outcome] = await store.commit([Change(entry, Bars.empty(), "manual", NOW + 1, manual=True, actions=(mine,))])
    assert outcome.actions_changed
    other, [same_entry] = await opened(database)
    assert same_entry.actions == (split, mine)
    await store.retract_actions(entry, [split.key, mine.key], NOW + 2)
    await other.refresh([same_entry])
    assert same_entry.actions == (split,)
    assert same_entry.head.rev == 3
    assert (await store.verify(entry)).faults == ()


async def test_a_manual_action_covers_a_providers_and_taking_it_back_uncovers_it(database: Database) -> None:
    store, [entry] = await opened(database)
    split = Action(DAY0 + 3, "split", 4.0, source="test")
    mine = Action(DAY0 + 3, "split", 2.0, None, "manual", True)
    await store.commit([Change(entry, bars([DAY0, DAY0 + 3]), "test", NOW, actions=(split,))])
    await store.commit([Change(entry, Bars.empty(), "manual", NOW + 1, manual=True, actions=(mine,))])
    assert in_effect(entry.actions, DAY0 + 9) == (mine,)
    [outcome] = await store.commit([Change(entry, Bars.empty(), "test", NOW + 2, actions=(split,))])
    assert not outcome.changed
    await store.retract_actions(entry, [mine.key], NOW + 3)
    assert in_effect(entry.actions, DAY0 + 9) == (split,)


async def test_doctor_sees_and_restores_actions_that_were_tampered_with(database: Database) -> None:
    store, [entry] = await opened(database)
    split = Action(DAY0 + 3, "split", 4.0, source="test")
    await store.commit([Change(entry, bars([DAY0, DAY0 + 3]), "test", NOW, actions=(split,))])
    await database["actions"].delete_one({"_id": entry.id})
    assert [p.code for p in (await store.verify(entry)).faults] == ["actions_lost"]
    await store.verify(entry, rebuild_at=NOW + 1)
    assert (await store.verify(entry)).faults == ()
    assert entry.actions == (split,)


async def test_doctor_mends_a_document_of_the_wrong_type_and_a_forged_year(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars([DAY0, DAY0 + 1])
    await store.commit([Change(entry, given, "test", NOW)])
    await database["bar_years"].update_one({"_id": entry.id * 10_000 + 2022}, {"$set": {"b": "hello"}})
    await database["bar_years"].insert_one({"_id": entry.id * 10_000 + 1999, "r": 1})
    assert (await store.verify(entry, rebuild_at=NOW + 1)).rebuilt
    assert (await store.verify(entry)).faults == ()
    assert same(await store.read(entry), given)


async def test_many_series_commit_in_few_transactions(database: Database) -> None:
    names = [f"S{i}" for i in range(120)]
    store, entries = await opened(database, *names)
    outcomes = await store.commit([Change(e, bars([DAY0, DAY0 + 1]), "test", NOW) for e in entries])
    assert all(len(outcome.added) == 2 for outcome in outcomes)
    read = await store.read_many(entries)
    assert all(len(read[entry.id].bars) == 2 for entry in entries)


async def test_writers_of_several_daemons_lose_nothing_and_readers_see_no_torn_series(database: Database) -> None:
    """Each writer adds its own sessions and moves all prices of the series at once; readers check every read."""
    daemons = [await opened(database, "A", "B") for _ in range(4)]
    whole = list(range(DAY0, DAY0 + 800))
    store, entries = daemons[0]
    await store.commit([Change(entry, bars(whole, 100.0), "test", NOW) for entry in entries])
    stop = asyncio.Event()
    torn: list[Any] = []
    reads = 0

    async def write(number: int, store: BarStore, entries: list[Entry]) -> None:
        for round_number in range(12):
            price = 1000.0 * (number + 1) + round_number
            extra = DAY0 + 1000 + number * 100 + round_number
            chosen = entries[(number + round_number) % 2]
            await store.commit([Change(chosen, bars([*whole, extra], price), f"w{number}", NOW + round_number)])

    async def read(store: BarStore, entries: list[Entry]) -> None:
        nonlocal reads
        while not stop.is_set():
            for entry in entries:
                got = (await store.read(entry)).between(whole[0], whole[-1])
                levels = np.unique(np.round(got.close - got.sessions % 97 / 7))
                reads += 1
                if len(got) != 800 or len(levels) != 1:
                    torn.append(levels)

    reader_store, reader_entries = await opened(database, "A", "B")
    readers = [asyncio.create_task(read(reader_store, reader_entries)) for _ in range(2)]
    await asyncio.gather(*(write(i, s, e) for i, (s, e) in enumerate(daemons)))
    stop.set()
    await asyncio.gather(*readers)
    assert not torn
    assert reads > 20
    final, final_entries = await opened(database, "A", "B")
    extras = {s for e in final_entries for s in (await final.read(e)).sessions.tolist() if s >= DAY0 + 1000}
    assert len(extras) == 48
    for entry in final_entries:
        assert (await final.verify(entry)).faults == ()


async def test_doctor_sees_and_mends_a_packed_year_that_was_tampered_with(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 700)))
    await store.commit([Change(entry, given, "test", NOW)])
    ids = [document["_id"] async for document in database["bar_years"].find({}, {"_id": 1})]
    await database["bar_years"].update_one({"_id": ids[0]}, {"$set": {"k": 1}})
    assert [p.code for p in (await store.verify(entry)).faults][:1] == ["packed_unreadable"]
    await database["bar_years"].delete_one({"_id": ids[1]})
    assert (await store.verify(entry, rebuild_at=NOW + 9)).rebuilt
    assert (await store.verify(entry)).faults == ()
    assert same(await store.read(entry), given)


async def test_rows_of_a_batch_that_never_committed_count_for_nothing(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 10)))
    await store.commit([Change(entry, given, "test", NOW)])
    from bson import ObjectId

    await store.journal.append([(entry.id, ObjectId(), bars([DAY0 + 50], 1.0))])
    replayed = await store.journal.replay(entry.id)
    assert same(replayed.bars, given)
    assert replayed.orphans == 1
    assert (await store.verify(entry)).faults == ()


async def test_any_order_of_the_same_rows_gives_the_same_series(database: Database) -> None:
    random_rows = random.Random(5)
    names = [f"R{i}" for i in range(4)]
    store, entries = await opened(database, *names)
    given = bars(list(range(DAY0, DAY0 + 500)))
    for entry in entries:
        order = list(range(500))
        random_rows.shuffle(order)
        for part in (order[:200], order[150:], order[:1]):
            await store.commit([Change(entry, Bars(given.sessions[part], given.values[:, part]), "test", NOW)])
    for record in (await store.read_many(entries)).values():
        assert same(record.bars, given)


async def test_an_answer_lost_after_the_commit_stores_once(
    database: Database, lose_answer: Callable[[Database], Awaitable[None]]
) -> None:
    """The server commits and the answer is lost: the batch is found in the record and not stored again."""
    store, [entry] = await opened(database)
    await store.commit([Change(entry, bars([DAY0]), "test", NOW)])
    await lose_answer(database)
    [outcome] = await store.commit([Change(entry, bars([DAY0, DAY0 + 1]), "test", NOW)])
    assert outcome.added.tolist() == [DAY0 + 1]
    assert (await store.read(entry)).sessions.tolist() == [DAY0, DAY0 + 1]
    assert (await store.verify(entry)).faults == ()


@pytest.fixture
def lose_answer() -> Callable[[Database], Awaitable[None]]:
    async def arm(database: Database) -> None:
        await database.client.admin.command(
            {
                "configureFailPoint": "failCommand",
                "mode": {"times": 2},
                "data": {
                    "failCommands": ["commitTransaction"],
                    "writeConcernError": {"code": 91, "errmsg": "the primary steps down"},
                },
            }
        )

    return arm
