"""Of several daemons that want a piece of work, one has it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from pricecache.stores.client import Database
from pricecache.stores.leases import LeaseStore, is_gone, new_owner


async def run_out(database: Database, name: str) -> None:
    await database["leases"].update_one({"_id": name}, [{"$set": {"until": "$$NOW"}}])


async def owner_of(database: Database, name: str) -> str | None:
    """Who has the lease now."""
    lease = await database["leases"].find_one({"_id": name, "$expr": {"$gt": ["$until", "$$NOW"]}})
    return None if lease is None else lease["owner"]


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_of_two_hundred_who_ask_at_once_one_gets_it(database: Database) -> None:
    stores = [LeaseStore(database, f"host:{number}:x") for number in range(200)]
    epochs = await asyncio.gather(*[store.acquire("sync") for store in stores])
    assert sorted(epoch for epoch in epochs if epoch is not None) == [1]
    winner = next(store for store, epoch in zip(stores, epochs, strict=True) if epoch == 1)
    assert await owner_of(database, "sync") == winner.owner


async def test_each_change_of_owner_has_an_epoch_of_its_own(database: Database) -> None:
    """Who had it last does not ask, so that each round has another owner."""
    stores = [LeaseStore(database, f"host:{number}:x") for number in range(20)]
    seen, last = [], None
    for _ in range(10):
        asking = [store for store in stores if store is not last]
        epochs = await asyncio.gather(*[store.acquire("sync") for store in asking])
        winners = [(store, epoch) for store, epoch in zip(asking, epochs, strict=True) if epoch is not None]
        assert len(winners) == 1
        last, epoch = winners[0]
        seen.append(epoch)
        await run_out(database, "sync")
    assert seen == list(range(1, 11))


async def test_asking_again_keeps_the_epoch(database: Database) -> None:
    store = LeaseStore(database, "a:1:x")
    assert await store.acquire("sync") == 1
    assert await store.acquire("sync") == 1
    assert await LeaseStore(database, "b:1:x").acquire("sync") is None


async def test_it_lasts_as_long_as_it_is_renewed_by_the_servers_clock(database: Database) -> None:
    first, second = LeaseStore(database, "a:1:x", ttl=0.3), LeaseStore(database, "b:1:x", ttl=0.3)
    assert await first.acquire("sync") == 1
    async with asyncio.timeout(10):
        while (epoch := await second.acquire("sync")) is None:
            pass
    assert epoch == 2
    assert not await first.renew("sync", 1)
    assert await second.renew("sync", 2)
    assert await first.acquire("sync") is None


async def test_who_lost_it_gives_back_nothing(database: Database) -> None:
    first, second = LeaseStore(database, "a:1:x"), LeaseStore(database, "b:1:x")
    await first.acquire("sync")
    await run_out(database, "sync")
    await second.acquire("sync")
    await first.release("sync", 1)
    assert await owner_of(database, "sync") == "b:1:x"
    assert not await first.is_released("sync")


async def test_given_back_it_is_free_at_once_with_a_new_epoch(database: Database) -> None:
    store = LeaseStore(database, "a:1:x")
    assert await store.acquire("sync") == 1
    await store.release("sync", 1)
    assert await store.is_released("sync")
    assert await owner_of(database, "sync") is None
    assert await store.acquire("sync") == 2


async def test_leases_are_apart(database: Database) -> None:
    assert await LeaseStore(database, "a:1:x").acquire("sync") == 1
    assert await LeaseStore(database, "b:1:x").acquire("refresh") == 1


async def test_an_owner_may_be_called_anything(database: Database) -> None:
    store = LeaseStore(database, "$host.name:1:x")
    assert await store.acquire("sync") == 1
    assert await store.renew("sync", 1)
    assert await owner_of(database, "sync") == "$host.name:1:x"


async def test_the_until_of_a_lease_is_a_date(database: Database) -> None:
    await LeaseStore(database, "a:1:x").acquire("sync")
    assert await database["leases"].count_documents({"until": {"$type": "date"}}) == 1


async def test_a_dead_process_of_this_machine_keeps_no_lease(database: Database) -> None:
    mine = new_owner()
    host = mine.rsplit(":", 2)[0]
    dead, alive, elsewhere = f"{host}:{ended_pid()}:x", f"{host}:{os.getppid()}:x", f"elsewhere:{ended_pid()}:x"
    for owner in (dead, alive, elsewhere):
        await LeaseStore(database, owner).acquire(owner)
    store = LeaseStore(database, mine)
    assert await store.expire_dead() == 1
    assert await store.acquire(dead) == 2
    assert not await store.is_released(alive)
    assert await store.acquire(alive) is None
    assert await store.acquire(elsewhere) is None


def test_a_former_process_with_this_ones_number_is_gone() -> None:
    mine = new_owner()
    assert is_gone(mine.rsplit(":", 1)[0] + ":another", mine)
    assert not is_gone(mine, mine)
    assert not is_gone("nonsense", mine)
