"""The accounts of the providers on a real mongod: what two daemons share, and what a restart and an outage leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from pricecache.core.asking import Pace
from pricecache.core.instruments import Instrument
from pricecache.core.provider_accounts import Account
from pricecache.errors import BudgetSpent, ProviderError, ProviderPaused, ProviderUnavailable, RateLimited
from pricecache.providers.pool import ProviderPool
from pricecache.stores.client import Database
from pricecache.stores.provider_accounts import (
    AWAY_SECONDS,
    KEPT_LATER,
    ProviderAccounts,
    SharedAccount,
    account_document,
    account_from,
)
from tests.clock import ManualClock
from tests.fakes.provider import ScriptedProvider

AAPL = Instrument("AAPL")
PACE = Pace(per_second=100, burst=100, concurrency=4, timeout=5, per_day=100, price=0.01)


class Broken:
    """The collection, with a database behind it that can be away or whose answers can get lost."""

    def __init__(self, documents: Any) -> None:
        self._documents = documents
        self.away = False
        self.loses_answers = False
        self.operations = 0

    async def find_one(self, *arguments: Any) -> Any:
        return await self._do(self._documents.find_one, *arguments)

    async def replace_one(self, *arguments: Any, **options: Any) -> Any:
        return await self._do(self._documents.replace_one, *arguments, **options)

    async def _do(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.operations += 1
        if self.away:
            raise AutoReconnect("away")
        answer = await operation(*arguments, **options)
        if self.loses_answers:
            raise AutoReconnect("the answer was lost")
        return answer


class World:
    """Any number of daemons on one database, each with one provider of the same name."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.clock = clock
        self.pools: list[ProviderPool] = []

    async def daemon(self, pace: Pace = PACE, provider: ScriptedProvider | None = None) -> ProviderPool:
        accounts = ProviderAccounts(self.clock)
        keeper = accounts.account("scripted", pace)
        await accounts.open(self.database)
        pool = ProviderPool(provider or ScriptedProvider(), self.clock, pace=pace, keeper=keeper)
        pool.provider.truth[AAPL] = None  # type: ignore[attr-defined]
        self.pools.append(pool)
        return pool

    async def stored(self) -> Account:
        document = await self.database["provider_accounts"].find_one({"_id": "scripted"})
        assert document is not None
        return account_from(document)


def shared(pool: ProviderPool) -> SharedAccount:
    assert isinstance(pool.keeper, SharedAccount)
    return pool.keeper


def broken(pool: ProviderPool) -> Broken:
    keeper = shared(pool)
    keeper._documents = Broken(keeper._documents)  # type: ignore[assignment]
    return keeper._documents  # type: ignore[return-value]


async def settled(pool: ProviderPool) -> None:
    """Everything noted is stored."""
    saving = shared(pool)._saving
    if saving is not None:
        await asyncio.wait([saving])
    await shared(pool).save()


async def fails(pool: ProviderPool, error: ProviderError) -> None:
    provider: Any = pool.provider
    provider.script(AAPL, error)
    with pytest.raises(type(error)):
        await pool.history(AAPL, 0, 1)


async def ask(pool: ProviderPool, count: int = 1, lane: Any = "live") -> int:
    """How many of `count` calls reached the provider."""
    provider: Any = pool.provider
    before = len(provider.calls)
    provider.script(AAPL, *[ProviderError("said to fail")] * count)
    await asyncio.gather(*(pool.history(AAPL, 0, 1, lane=lane) for _ in range(count)), return_exceptions=True)
    provider._scripts.clear()
    return len(provider.calls) - before


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    made = World(database, ManualClock())
    yield made
    for pool in made.pools:
        await pool.close()
        await shared(pool).close()


async def test_two_daemons_spend_one_budget(world: World) -> None:
    one, other = await world.daemon(), await world.daemon()
    reached = await asyncio.gather(*(ask(pool, 70) for pool in (one, other)))
    assert sum(reached) == 100
    for pool in (one, other):
        with pytest.raises(BudgetSpent):
            await pool.history(AAPL, 0, 1)
    stored = await world.stored()
    assert (stored.requests, round(stored.dollars, 6)) == (100, 1.0)


async def test_two_daemons_keep_one_rate(world: World) -> None:
    pace = Pace(per_second=1, burst=6, concurrency=4, timeout=5)
    pools = [await world.daemon(pace), await world.daemon(pace)]
    calls = [asyncio.create_task(ask(pool, 10)) for pool in pools]
    await world.clock.until_sleeping(2)
    assert sum(len(pool.provider.calls) for pool in pools) == 6  # type: ignore[attr-defined]
    seconds = 0
    while not all(call.done() for call in calls):
        seconds += 1
        world.clock.advance(1.0)
        while not all(call.done() for call in calls) and world.clock.sleeping < sum(not c.done() for c in calls):
            await asyncio.sleep(0.001)
        assert sum(len(pool.provider.calls) for pool in pools) <= 6 + seconds  # type: ignore[attr-defined]
    assert seconds == 14
    assert sum(call.result() for call in calls) == 20


async def test_a_breaker_that_opens_stops_every_daemon(world: World) -> None:
    one, other = await world.daemon(), await world.daemon()
    for pool in (one, other, one, other, one):
        await fails(pool, ProviderUnavailable())
        await settled(pool)
    for pool in (one, other):
        with pytest.raises(ProviderPaused):
            await pool.history(AAPL, 0, 1)
    await other.reset()
    world.clock.advance(2)  # what was seen a moment ago is not looked at again
    assert await ask(one) == 1


async def test_the_word_of_a_429_holds_for_every_daemon(world: World) -> None:
    one, other = await world.daemon(), await world.daemon()
    assert await ask(other) == 1
    await fails(one, RateLimited(retry_after=300))
    await settled(one)
    with pytest.raises(RateLimited) as told:
        await other.history(AAPL, 0, 1)
    assert told.value.retry_after == pytest.approx(300, abs=1)
    world.clock.advance(299)
    assert await ask(other) == 0
    world.clock.advance(1)
    assert await ask(other) == 1


async def test_a_restart_keeps_budget_breaker_cool_down_and_errors(world: World) -> None:
    before = await world.daemon()
    await ask(before, 30)
    for _ in range(5):
        await fails(before, ProviderUnavailable())
    await fails_limited(before)
    await before.close()
    await shared(before).close()
    after = await world.daemon()
    assert account_document(after.account) == account_document(before.account)
    assert after.state == "paused"
    assert (after.calls_24h, after.errors_24h) == (35, 35)
    assert after.account.remaining(PACE, "live", world.clock.time()) == 65


async def fails_limited(pool: ProviderPool) -> None:
    """Refused by its breaker: nothing of it may be counted."""
    with pytest.raises(ProviderPaused):
        await pool.history(AAPL, 0, 1)


async def test_a_kill_loses_no_request_that_was_made(world: World) -> None:
    """The request is stored before it is made; only what became of the last calls may be missing."""
    killed = await world.daemon()
    await ask(killed, 12)
    shared(killed)._pending.clear()
    after = await world.daemon()
    assert after.account.requests == 12


async def test_a_call_costs_one_operation(world: World) -> None:
    pool = await world.daemon()
    await ask(pool)
    documents = broken(pool)
    for _ in range(10):
        await ask(pool)
    assert documents.operations == 10


async def test_a_local_provider_asks_the_database_for_nothing_and_is_stored_now_and_then(world: World) -> None:
    pool = await world.daemon(Pace(per_second=1000, burst=1000, concurrency=4, timeout=5, local=True))
    keeper, documents = shared(pool), broken(pool)
    await keeper.maintain()
    await ask(pool, 50)
    assert documents.operations == 0
    await keeper.maintain()
    operations = documents.operations
    assert (await world.stored()).requests == 50
    await ask(pool, 50)
    world.clock.advance(KEPT_LATER - 1)
    await keeper.maintain()
    assert documents.operations == operations
    world.clock.advance(1)
    await keeper.maintain()
    assert (await world.stored()).requests == 100


async def test_calls_go_on_while_the_database_is_away_and_are_counted_when_it_is_back(world: World) -> None:
    one, other = await world.daemon(), await world.daemon()
    await ask(one, 5)
    documents = broken(one)
    documents.away = True
    assert await ask(one, 10) == 10
    assert documents.operations < 3  # it is not asked again at every call
    assert await ask(other, 20) == 20
    documents.away = False
    world.clock.advance(AWAY_SECONDS)
    assert await ask(one) == 1
    await settled(one)
    await settled(other)
    stored = await world.stored()
    assert (stored.requests, stored.of_last_day(world.clock.time())[0]) == (36, 36)


async def test_a_write_whose_answer_was_lost_is_counted_once(world: World) -> None:
    pool = await world.daemon()
    await ask(pool, 3)
    documents = broken(pool)
    documents.loses_answers = True
    assert await ask(pool, 2) == 2
    documents.loses_answers = False
    world.clock.advance(AWAY_SECONDS)
    assert await ask(pool) == 1
    await settled(pool)
    assert (await world.stored()).requests == 6
    assert pool.account.requests == 6


async def test_an_account_comes_back_as_it_was_stored() -> None:
    account = Account().answered(1e9).failed(1e9 + 1, "provider_unavailable").limited(1e9 + 2, "rate_limited", 5.0)
    account, _ = account.reset().admit(PACE, "heal", 2, 2, 1e9 + 10)
    assert account_from(account_document(account)) == account
