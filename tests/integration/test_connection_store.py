"""Connections in the database: one for each user, source and portfolio, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pricecache.errors import Conflict, NotFound
from pricecache.stores.connections import ConnectionStore

NOW = 1_795_000_000.0


async def test_what_is_posted_under_one_name_is_one_connection(database: Any) -> None:
    store = ConnectionStore(database)
    made = await asyncio.gather(*(store.create_posted("ann", "My broker", None, NOW) for _ in range(8)))
    assert len({connection.id for connection in made}) == 1
    assert (made[0].provider, made[0].source, made[0].state, made[0].created_at) == ("posted", "My broker", "new", NOW)
    other = await store.create_posted("ann", "Other", None, NOW)
    of_bob = await store.create_posted("bob", "My broker", None, NOW)
    assert len({made[0].id, other.id, of_bob.id}) == 3
    assert await store.all_of("ann") == [made[0], other]


async def test_a_post_that_names_the_portfolio_made_for_it_finds_its_connection(database: Any) -> None:
    store = ConnectionStore(database)
    first = await store.create_posted("ann", "My broker", None, NOW)
    settled = await store.settle(first, "p1", {"acc.1": "a1", "$2": "a2"})
    assert (settled.portfolio, settled.accounts) == ("p1", {"acc.1": "a1", "$2": "a2"})
    assert await store.create_posted("ann", "My broker", "p1", NOW) == settled
    assert await store.create_posted("ann", "My broker", None, NOW) == settled
    elsewhere = await store.create_posted("ann", "My broker", "p2", NOW)
    assert elsewhere.id != first.id
    assert await store.all_of("ann", "p1") == [settled]


async def test_of_two_who_settle_it_one_is_told_so(database: Any) -> None:
    store = ConnectionStore(database)
    first = await store.create_posted("ann", "My broker", None, NOW)
    await store.settle(first, "p1", {})
    with pytest.raises(Conflict) as raised:
        await store.settle(first, "p2", {})
    assert raised.value.code == "connection_changed"


async def test_anothers_connection_is_not_there(database: Any) -> None:
    store = ConnectionStore(database)
    made = await store.create_posted("ann", "My broker", None, NOW)
    for user, connection in (("bob", made.id), ("ann", "unknown")):
        with pytest.raises(NotFound) as raised:
            await store.get(user, connection)
        assert raised.value.code == "unknown_connection"
    assert await store.get("ann", made.id) == made


async def test_what_came_makes_it_active(database: Any) -> None:
    store = ConnectionStore(database)
    made = await store.create_posted("ann", "My broker", None, NOW)
    await store.received(made.id, NOW + 5, 20_000)
    known = await store.get("ann", made.id)
    assert (known.state, known.fetched_at, known.first_day, known.failure) == ("active", NOW + 5, 20_000, None)
    await store.delete(made.id)
    assert await store.find(made.id) is None
