"""The queue of reconstructions in the database: joined, claimed once, taken over from who is gone, counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.errors import WriteError

from pricecache.stores.leases import new_owner
from pricecache.stores.reconstruction_days import ReconstructionDays
from pricecache.stores.reconstructions import (
    Claim,
    ClaimLost,
    Ended,
    Failure,
    Progress,
    ReconstructionRecord,
    ReconstructionStore,
)
from tests.clock import START
from tests.integration.test_leases import ended_pid


@pytest.fixture
def store(database: Any) -> ReconstructionStore:
    return ReconstructionStore(database)


async def asked(store: ReconstructionStore, name: str, after: float = 0.0, **more: Any) -> ReconstructionRecord:
    """The connection `user/number`."""
    return await store.request(name, name.partition("/")[0], "p", "test", START + after, **more)


async def claimed(store: ReconstructionStore, slot: int = 0, after: float = 60.0, owner: str = "a:1:x") -> Claim:
    claim = await store.claim(slot, owner, START + after)
    assert claim is not None
    return claim


async def test_a_request_is_queued_and_an_equal_one_joins_it_in_its_place(store: ReconstructionStore) -> None:
    first = await asked(store, "ann/1")
    assert (first.state, first.attempts, first.queued_at) == ("queued", 0, START)
    await asked(store, "bob/1", 1)
    again = await asked(store, "ann/1", 2)
    assert (again.queued_at, again.requested_at) == (START, START + 2)
    assert [await store.place(one) for one in (again, await asked(store, "bob/1", 3))] == [1, 2]


async def test_names_that_look_like_expressions_are_names(store: ReconstructionStore) -> None:
    record = await store.request("c", "$user", None, "$by", START)
    assert (record.user, record.requested_by, record.portfolio) == ("$user", "$by", None)
    assert (await claimed(store)).record.user == "$user"


async def test_one_that_was_tried_while_somebody_else_reached_for_it_waits_for_its_time(
    store: ReconstructionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asked(store, "ann/1")
    await store.fail(await claimed(store), Failure("x", "y", START), START + 60)
    claim, reached = ReconstructionStore._claim, asyncio.Event()

    async def slow(self: ReconstructionStore, *given: Any) -> Claim | None:
        if not reached.is_set():
            reached.set()
            await store.fail(await claimed(store, 1, 61), Failure("x", "y", START), START + 200)
        return await claim(self, *given)

    monkeypatch.setattr(ReconstructionStore, "_claim", slow)
    assert await store.claim(0, "b:1:x", START + 61) is None
    record = await store.find("ann/1")
    assert record is not None
    assert (record.state, record.attempts, record.not_before) == ("waiting", 2, START + 200)


async def test_times_and_faults_are_those_of_the_present_attempt_and_the_one_before_stands_apart(
    store: ReconstructionStore,
) -> None:
    away = Failure("x", "y", START + 5)
    await asked(store, "ann/1")
    claim = await claimed(store)
    assert (claim.record.started_at, claim.record.ended_at, claim.record.last) == (START + 60, None, None)
    waiting = await store.fail(claim, away, START + 70)
    assert (waiting.ended_at, waiting.failure, waiting.last) == (away.at, away, None)
    second = await claimed(store, after=70)
    assert (second.record.started_at, second.record.ended_at, second.record.failure) == (START + 70, None, None)
    assert second.record.last == Ended(START + 60, START + 5, away)
    await store.beat(second, Progress(58, "prices", "Processing"))
    done = await store.finish(second, {}, (), START + 80)
    assert (done.started_at, done.ended_at, done.failure) == (START + 70, START + 80, None)
    assert done.last == Ended(START + 60, START + 5, away)
    await asked(store, "ann/1", 90)
    queued = await store.find("ann/1")
    assert queued is not None
    assert (queued.started_at, queued.ended_at, queued.failure, queued.progress) == (None, None, None, Progress())
    assert queued.last == Ended(START + 70, START + 80)
    assert (await claimed(store, after=100)).record.last == queued.last


async def test_requests_at_once_are_one(store: ReconstructionStore, database: Any) -> None:
    await asyncio.gather(*[asked(store, "ann/1", number) for number in range(20)])
    assert await database["reconstructions"].count_documents({}) == 1


async def test_users_take_turns_in_the_order_they_came_and_no_user_is_done_twice_at_once(
    store: ReconstructionStore,
) -> None:
    for number, name in enumerate(("ann/1", "ann/2", "bob/1", "cid/1")):
        await asked(store, name, number)
    claims = [await claimed(store, slot) for slot in (0, 1)]
    assert [one.connection for one in claims] == ["ann/1", "bob/1"]
    assert await store.claim(1, "b:1:x", START + 60) is None  # the slot is taken
    await store.finish(claims[0], {}, (), START + 70)
    assert (await claimed(store, 0)).connection == "ann/2"


async def test_of_many_who_claim_at_once_each_gets_another_users(store: ReconstructionStore, database: Any) -> None:
    for number in range(6):
        await asked(store, f"u{number % 3}/{number}", number)
    got = await asyncio.gather(*[store.claim(slot % 2, f"h:{slot}:x", START + 60) for slot in range(20)])
    claims = [one for one in got if one is not None]
    assert 1 <= len(claims) <= 2
    assert len({one.record.user for one in claims}) == len(claims)
    assert await database["reconstructions"].count_documents({"state": "running"}) == len(claims)


async def test_what_is_asked_for_while_it_runs_is_done_again_unless_it_is_the_same(store: ReconstructionStore) -> None:
    await asked(store, "ann/1", digest="one")
    claim = await claimed(store)
    assert not (await asked(store, "ann/1", 61, digest="one")).is_wanted_again
    assert (await store.finish(claim, {"a": 1}, (), START + 62)).state == "done"
    await asked(store, "ann/1", 63, digest="two")
    claim = await claimed(store)
    assert (await asked(store, "ann/1", 64, digest="three")).is_wanted_again
    record = await store.finish(claim, {"a": 2}, (), START + 65)
    assert (record.state, record.digest, record.result, record.attempts) == ("queued", "three", {"a": 2}, 0)


async def test_a_failed_one_waits_and_then_comes_after_those_that_came_meanwhile(store: ReconstructionStore) -> None:
    await asked(store, "ann/1")
    claim = await claimed(store)
    record = await store.fail(claim, Failure("away", "The database is away.", START + 70), START + 130)
    assert (record.state, record.not_before, record.attempts) == ("waiting", START + 130, 1)
    assert record.failure == Failure("away", "The database is away.", START + 70)
    assert await store.next_due() == START + 130
    assert await store.claim(0, "a:1:x", START + 129) is None
    await asked(store, "bob/1", 80)
    assert [(await claimed(store, slot, 130)).connection for slot in (0, 1)] == ["bob/1", "ann/1"]


async def test_who_asks_for_what_waits_gets_it_at_once(store: ReconstructionStore) -> None:
    await asked(store, "ann/1")
    await store.fail(await claimed(store), Failure("away", "", START), START + 9999)
    record = await asked(store, "ann/1", 70)
    assert (record.state, record.attempts, record.not_before) == ("queued", 0, None)


async def test_what_is_handed_back_counts_no_attempt(store: ReconstructionStore) -> None:
    await asked(store, "ann/1")
    claim = await claimed(store)
    await store.hand_back(claim, START + 61)
    record = await store.find("ann/1")
    assert record is not None
    assert (record.state, record.attempts, record.queued_at) == ("queued", 0, START)
    with pytest.raises(ClaimLost):
        await store.beat(claim)


async def test_what_a_process_that_is_gone_had_begun_is_given_back(store: ReconstructionStore) -> None:
    me = new_owner()
    host = me.split(":")[0]
    await asked(store, "ann/1")
    claim = await claimed(store, owner=f"{host}:{ended_pid()}:x")
    assert await store.reap(me, START + 61, 5) == 1
    assert (await claimed(store)).record.attempts == 2
    with pytest.raises(ClaimLost):
        await store.finish(claim, {}, (), START + 62)


async def test_what_another_machine_is_silent_about_is_given_back_and_given_up_in_the_end(
    store: ReconstructionStore, database: Any
) -> None:
    await asked(store, "ann/1")
    for attempt in (1, 2, 3):
        await claimed(store, owner="elsewhere:1:x")
        assert await store.reap("a:1:x", START + 61, 3) == 0
        silent = {"$subtract": ["$$NOW", 61_000]}
        await database["reconstructions"].update_one({"_id": "ann/1"}, [{"$set": {"heartbeatAt": silent}}])
        assert await store.reap("a:1:x", START + 61, 3) == 1
        record = await store.find("ann/1")
        assert record is not None
        assert (record.state, record.attempts) == ("failed" if attempt == 3 else "queued", attempt)
    assert record.failure is not None
    assert record.failure.code == "reconstruction_abandoned"


async def test_progress_and_findings_are_kept(store: ReconstructionStore) -> None:
    await asked(store, "ann/1")
    claim = await claimed(store)
    progress = Progress(80, "prices", "Processing AAPL", "AAPL", 15, 23, 4.5)
    await store.beat(claim, progress)
    record = await store.find("ann/1")
    assert record is not None
    assert record.progress == progress
    findings = [{"code": "x", "number": number} for number in range(25)]
    await store.finish(claim, {"securities": {"total": 23}}, findings, START + 62)
    assert await store.findings("ann/1", 20, 10) == (25, findings[20:])
    assert await store.findings("ann/2", 0, 10) == (0, [])


async def test_one_is_done_only_together_with_what_it_found(store: ReconstructionStore, database: Any) -> None:
    await asked(store, "ann/1")
    await store.finish(await claimed(store), {"a": 1}, [{"code": "x"}], START + 62)
    await asked(store, "ann/1", 63)
    claim = await claimed(store)
    await database.command("collMod", "reconstruction_findings", validator={"total": {"$lt": 2}})
    with pytest.raises(WriteError):
        await store.finish(claim, {"a": 2}, [{"code": "y"}] * 2, START + 64)
    record = await store.find("ann/1")
    assert record is not None
    assert (record.state, record.result) == ("running", {"a": 1})
    assert await store.findings("ann/1", 0, 10) == (1, [{"code": "x"}])


async def test_what_is_forgotten_is_lost_to_who_does_it(store: ReconstructionStore) -> None:
    await asked(store, "ann/1")
    claim = await claimed(store)
    await store.forget("ann/1")
    with pytest.raises(ClaimLost):
        await store.beat(claim)
    assert await store.counts() == dict.fromkeys(("queued", "running", "waiting", "done", "failed"), 0)


async def test_counts_by_day_add_up(database: Any) -> None:
    days = ReconstructionDays(database)
    assert (await days.totals(START, 30)).success_rate is None
    await days.count(START - 40 * 86400, failed=9)
    await days.count(START - 86400, done=2, seconds=3.0, securities_needed=10, securities_cached=9)
    await asyncio.gather(*[days.count(START, failed=1) for _ in range(2)])
    totals = await days.totals(START, 30)
    assert (totals.success_rate, totals.average_seconds, totals.cache_hit_rate) == (50.0, 1.5, 90.0)
    assert (await days.totals(START, 1)).success_rate == 0.0
