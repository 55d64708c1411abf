"""Many tasks on the same series at once, as one daemon has them: nothing acknowledged is lost, RAM stays current."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest
from pymongo.errors import OperationFailure

from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.errors import Corrupt
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.sync_state import SyncStateStore
from tests.clock import ManualClock
from tests.integration.test_bar_store import DAY0, NOW, Database, bars, opened, same


async def fresh(database: Database, entry: Entry, clock: ManualClock | None = None) -> tuple[BarStore, Entry]:
    catalog = Catalog()
    await InstrumentStore(database, catalog).load_all()
    found = catalog.by_id(entry.id)
    assert found is not None
    return BarStore(database, clock or ManualClock(NOW)), found


async def assert_ram_is_the_database(database: Database, store: BarStore, entry: Entry) -> None:
    other, stored = await fresh(database, entry)
    assert (entry.head, entry.actions, entry.current) == (stored.head, stored.actions, True)
    assert same(await store.read(entry), await other.read(stored))
    assert (await store.held(entry)).tolist() == (await other.held(stored)).tolist()
    assert not set(entry.tail.sessions.tolist()) & set((await store.held(entry)).tolist())
    assert (await store.verify(entry)).faults == ()


@pytest.mark.parametrize("seed", range(4))
async def test_any_interleaving_of_writers_of_one_daemon_loses_nothing(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    store, [entry] = await opened(database)
    acknowledged: set[int] = set()
    by_hand: set[int] = set()

    async def provider(first: int) -> None:
        rows = bars(list(range(DAY0 + first, DAY0 + first + chance.randint(1, 40))), chance.choice([100.0, 101.0]))
        await store.commit([Change(entry, rows, "test", NOW)])
        acknowledged.update(rows.sessions.tolist())

    async def manual(session: int) -> None:
        mine = Bars(np.array([DAY0 + session]), np.full((5, 1), 7.0))
        await store.commit([Change(entry, mine, "manual", NOW, manual=True)])
        by_hand.add(DAY0 + session)

    async def back(session: int) -> None:
        await store.retract(entry, [DAY0 + session], NOW)

    async def tail(session: int) -> None:
        await store.set_tails([(entry, bars([DAY0 + session, DAY0 + session + 1]))])

    async def action(session: int) -> None:
        found = Action(DAY0 + session, "split", 2.0, source="test")
        await store.commit([Change(entry, Bars.empty(), "test", NOW, actions=(found,))])

    async def read(_: int) -> None:
        got = await store.read(entry)
        assert (np.diff(got.sessions) > 0).all()

    kinds = [provider, provider, provider, manual, back, tail, action, read]
    for _ in range(6):
        tasks = [asyncio.create_task(chance.choice(kinds)(chance.randint(0, 500))) for _ in range(12)]
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.02)
            chance.choice(tasks).cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
    await store.drain()
    held = set((await store.held(entry)).tolist())
    assert acknowledged <= held
    assert held <= acknowledged | by_hand | set(range(DAY0, DAY0 + 600))
    await assert_ram_is_the_database(database, store, entry)


async def test_a_commit_whose_caller_leaves_is_finished_and_known(database: Database) -> None:
    store, [entry] = await opened(database)
    for moment in (0.0, 0.001, 0.003, 0.006, 0.01, 0.02):
        wanted = bars(list(range(DAY0, DAY0 + 200)), 100.0 + moment * 1000)
        task = asyncio.create_task(store.commit([Change(entry, wanted, "test", NOW)]))
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.wait([task])
        await store.drain()
        await assert_ram_is_the_database(database, store, entry)


async def test_a_writer_without_the_right_to_write_is_told_so_at_once(database: Database) -> None:
    store, [entry] = await opened(database)
    await store.commit([Change(entry, bars([DAY0]), "test", NOW)])
    await database.client.admin.command(
        {
            "configureFailPoint": "failCommand",
            "mode": {"times": 1},
            "data": {"failCommands": ["update"], "errorCode": 13, "namespace": f"{database.name}.series"},
        }
    )
    with pytest.raises(OperationFailure):
        await store.commit([Change(entry, bars([DAY0 + 1]), "test", NOW)])
    assert await database["bars_1d"].count_documents({}) == 2
    await store.commit([Change(entry, bars([DAY0 + 1]), "test", NOW)])
    await assert_ram_is_the_database(database, store, entry)


async def test_one_corrupt_series_leaves_the_others_readable(database: Database) -> None:
    store, entries = await opened(database, "A", "B", "C")
    await store.commit([Change(entry, bars([DAY0, DAY0 + 1]), "test", NOW) for entry in entries])
    await database["bar_years"].update_one({"_id": entries[1].id * 10_000 + 2022}, {"$set": {"k": 7}})
    found = await store.read_many(entries)
    assert sorted(found) == [entries[0].id, entries[2].id]
    with pytest.raises(Corrupt, match="B:US"):
        await store.read(entries[1])
    assert (await store.verify(entries[1], rebuild_at=NOW)).rebuilt
    assert sorted(await store.read_many(entries)) == [entry.id for entry in entries]


async def test_sessions_in_ram_keep_no_block_of_bars_alive(database: Database) -> None:
    store, [entry] = await opened(database)
    await store.commit([Change(entry, bars(list(range(DAY0, DAY0 + 300))), "test", NOW)])
    await store.read(entry)
    assert entry.sessions is not None
    assert entry.sessions.base is None


async def test_a_state_saved_by_another_daemon_is_not_overwritten_blindly(database: Database) -> None:
    from dataclasses import replace

    _, [mine] = await opened(database)
    _, [theirs] = await opened(database)
    ours, others = SyncStateStore(database), SyncStateStore(database)
    await ours.save(mine, replace(mine.state, last_update=1.0))
    await others.save(theirs, replace(theirs.state, wanted_from=DAY0 - 900))
    await ours.save(mine, replace(mine.state, last_update=2.0, attempts=3))
    assert (mine.state.wanted_from, mine.state.last_update, mine.state.attempts) == (DAY0 - 900, 2.0, 3)
    _, again = await fresh(database, mine)
    assert again.state == mine.state
    assert again.state_version == mine.state_version == 3


async def test_an_older_state_that_is_read_late_changes_nothing(database: Database) -> None:
    from dataclasses import replace

    from pricecache.stores.sync_state import take_state

    _, [entry] = await opened(database)
    store = SyncStateStore(database)
    await store.save(entry, replace(entry.state, last_update=1.0))
    old: dict[str, Any] | None = await database["sync_state"].find_one({"_id": entry.id})
    await store.save(entry, replace(entry.state, last_update=2.0))
    take_state(entry, old)
    assert entry.state.last_update == 2.0
