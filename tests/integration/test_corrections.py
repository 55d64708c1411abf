"""What was superseded stays readable: corrections, what was known on a day, and who is told of a change."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bson import ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricecache.api import answers
from pricecache.core.actions import Action, adjusted
from pricecache.core.bars import APPROVED, Bars, day_of, years_of
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.events import BarsChanged
from pricecache.errors import Corrupt
from pricecache.stores.bars import BarStore, Change
from pricecache.stores.client import next_id
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.quotes import QuoteStore
from pricecache.stores.watch import ChangeWatcher
from tests.clock import START, ManualClock
from tests.integration.api_daemon import TODAY, ApiDaemon, api_daemon
from tests.integration.test_api_reads import exactly
from tests.integration.test_bar_store import DAY0, NOW, Database, bars, opened, same
from tests.integration.test_bar_store_races import fresh


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as started:
        yield started


def flat(sessions: list[int], price: float) -> Bars:
    return Bars(np.array(sessions, np.int64), np.full((5, len(sessions)), price))


def facts(event: BarsChanged) -> tuple[Any, ...]:
    parts = [None if part is None else part.tolist() for part in (event.added, event.replaced, event.removed)]
    return (event.rev, *parts, event.actions_changed, event.source)


# ---- what was superseded


async def test_every_hand_that_supersedes_a_bar_is_a_correction_and_a_first_fill_is_none(database: Database) -> None:
    clock = ManualClock(NOW)
    store, [entry] = await opened(database, clock=clock)
    days = [DAY0, DAY0 + 1, DAY0 + 2]
    await store.commit([Change(entry, flat(days, 10.0), "one", NOW)])
    assert (await store.corrections(entry, None, None, 100)).total == 0
    clock.advance(11)
    await store.commit([Change(entry, flat(days[:1], 11.0), "two", NOW + 10)])
    await store.commit([Change(entry, flat(days[1:2], 12.0), "one", NOW + 20, approved=True)])
    await store.commit([Change(entry, flat(days[2:], 13.0), "manual", NOW + 30, manual=True)])
    await store.commit([Change(entry, flat(days[2:], 14.0), "one", NOW + 40)])
    await store.commit([Change(entry, flat([DAY0 + 9], 15.0), "manual", NOW + 50, manual=True)])
    await store.retract(entry, [days[2], DAY0 + 9], NOW + 60)
    found = await store.corrections(entry, None, None, 100)
    told = [
        (c.session - DAY0, c.rev, c.kind, c.before.values[3], c.before.source, c.after and c.after.values[3])
        for c in found.bars
    ]
    assert told == [
        (9, 6, "retracted", 15.0, "manual", None),
        (2, 6, "retracted", 13.0, "manual", 10.0),
        (2, 4, "manual", 10.0, "one", 13.0),
        (1, 3, "approved", 10.0, "one", 12.0),
        (0, 2, "replaced", 10.0, "one", 11.0),
    ]
    first = found.bars[-1]
    assert first.after is not None
    assert (first.before.fetched_at, first.after.fetched_at) == (NOW * 1000, (NOW + 10) * 1000)
    assert (first.at, first.after.committed_at, first.after.rev) == ((NOW + 11) * 1000, (NOW + 11) * 1000, 2)
    newest = await store.corrections(entry, DAY0, DAY0 + 2, 1)
    assert [(c.session - DAY0, c.rev) for c in newest.bars] == [(2, 6)]
    assert newest.total == 4


async def test_an_approved_bar_says_so_and_a_later_one_of_a_provider_replaces_it(database: Database) -> None:
    store, [entry] = await opened(database)
    await store.commit([Change(entry, flat([DAY0], 10.0), "one", NOW)])
    await store.commit([Change(entry, flat([DAY0], 20.0), "one", NOW + 1, approved=True)])
    [year] = (await store.packed(entry)).values()
    assert year.provenance.flags.tolist() == [APPROVED]
    assert (await store.verify(entry)).faults == ()
    [outcome] = await store.commit([Change(entry, flat([DAY0], 21.0), "one", NOW + 2)])
    assert outcome.replaced.tolist() == [DAY0]
    assert (await store.manual(entry)).tolist() == []
    await store.commit([Change(entry, flat([DAY0], 22.0), "manual", NOW + 3, manual=True)])
    [outcome] = await store.commit([Change(entry, flat([DAY0], 23.0), "one", NOW + 4, approved=True)])
    assert not outcome.changed
    assert (await store.manual(entry)).tolist() == [DAY0]


async def test_a_changed_or_withdrawn_action_is_a_correction(database: Database) -> None:
    store, [entry] = await opened(database)
    paid = Action(DAY0 + 5, "dividend", 0.24, "USD", "one")
    await store.commit([Change(entry, flat([DAY0], 10.0), "one", NOW, actions=(paid,))])
    await store.commit([Change(entry, Bars.empty(), "one", NOW + 1, actions=(replace(paid, value=0.25),))])
    mine = Action(DAY0 + 5, "dividend", 0.26, "USD", "manual", manual=True)
    await store.commit([Change(entry, Bars.empty(), "manual", NOW + 2, manual=True, actions=(mine,))])
    await store.retract_actions(entry, [mine.key], NOW + 3)
    found = await store.corrections(entry, None, None, 100)
    assert [(c.rev, c.kind, c.before.value, c.after and c.after.value) for c in found.actions] == [
        (4, "retracted", 0.26, 0.25),
        (3, "manual", 0.25, 0.26),
        (2, "replaced", 0.24, 0.25),
    ]
    assert (found.total, found.actions_total) == (0, 3)
    assert (await store.corrections(entry, DAY0 + 6, None, 100)).actions == []


async def test_corrections_over_http_name_old_and_new_with_source_and_time(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=5)
    [*_, last] = (await daemon.services.bars.held(entry)).tolist()
    daemon.clock.advance(3600)
    other = Bars(np.array([last]), np.array([[100.0], [103.0], [99.5], [101.0], [np.nan]]))
    await daemon.services.bars.commit([Change(entry, other, "other", daemon.clock.time())])
    status, found = await daemon.get("/cache/corrections/AAPL?market=US&limit=10")
    assert status == 200
    exactly(answers.CorrectionsOut, found)
    assert found == {
        "symbol": "AAPL", "market": "US", "total": 1, "actionsTotal": 0, "actions": [],
        "corrections": [
            {
                "date": "2026-11-19", "revision": 2, "at": "2026-11-20T11:00:00Z", "kind": "replaced",
                "from": {
                    "open": 100.5, "high": 102.0, "low": 100.0, "close": 101.0, "volume": 1000004,
                    "source": "scripted", "fetchedAt": "2026-11-20T10:00:00Z",
                    "committedAt": "2026-11-20T10:00:00Z", "revision": 1,
                },
                "to": {
                    "open": 100.0, "high": 103.0, "low": 99.5, "close": 101.0, "volume": 1000004,
                    "source": "other", "fetchedAt": "2026-11-20T11:00:00Z",
                    "committedAt": "2026-11-20T11:00:00Z", "revision": 2,
                },
            }
        ],
    }  # fmt: skip
    assert (await daemon.get("/cache/corrections/AAPL?end=2026-11-18"))[1]["total"] == 0
    assert (await daemon.get("/cache/corrections/AAPL?limit=0"))[0] == 422
    assert (await daemon.get("/cache/corrections/NOPE"))[0] == 404


async def test_ten_years_with_many_corrections_are_read_without_holding_the_loop(database: Database) -> None:
    clock = ManualClock(NOW)
    store, [entry] = await opened(database, clock=clock)
    days = list(range(DAY0, DAY0 + 2520))
    for n in range(8):
        clock.set(NOW + n)
        await store.commit([Change(entry, flat(days, 100.0 + n), "test", NOW + n)])
    revisions = await database["revisions"].find({}).to_list()
    assert max(len(str(document["changed"])) for document in revisions) < 2000
    longest, stop = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        while not stop.is_set():
            before = time.thread_time()  # what others on the machine take is not ours
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    gc.collect()
    gc.disable()  # the daemon leaves what was imported out of collections; here one would take longer than all of this
    watching = asyncio.create_task(watch())
    found = await store.corrections(entry, None, None, 100)
    known = await store.as_known_on(entry, NOW + 3)
    stop.set()
    await watching
    gc.enable()
    assert (found.total, len(found.bars)) == (2520 * 7, 100)
    assert same(known.bars, flat(days, 103.0))
    assert longest < 0.03


# ---- as known on


async def test_history_is_answered_as_it_was_known_in_every_format_and_mode(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=10)
    bars_store, first = daemon.services.bars, await daemon.services.bars.read(entry)
    held = first.sessions.tolist()
    daemon.clock.advance(86400)
    split = Action(held[-1], "split", 2.0, source="scripted")
    await bars_store.commit([Change(entry, flat(held[:3], 7.0), "other", daemon.clock.time(), actions=(split,))])
    daemon.clock.advance(86400)
    for query in ("adjust=none", "adjust=splits", "adjust=all", "adjust=splits&fields=close"):
        status, then = await daemon.get(f"/cache/historical/AAPL?{query}&asKnownOn=2026-11-20T10:00:00Z")
        assert status == 200, then
        assert [bar["close"] for bar in then["bars"]] == first.close.tolist()
    exactly(answers.HistoryOut, (await daemon.get("/cache/historical/AAPL?asKnownOn=2026-11-20"))[1])
    assert then["asKnownOn"] == "2026-11-20T10:00:00Z"
    assert then["lastUpdate"] == "2026-11-20T10:00:00Z"
    assert (then["coverage"]["expected"], then["coverage"]["complete"]) == (10, True)
    _, now = await daemon.get("/cache/historical/AAPL?adjust=splits")
    assert [bar["close"] for bar in now["bars"]][:3] == [3.5, 3.5, 3.5]
    assert "asKnownOn" not in now
    _, later = await daemon.get("/cache/historical/AAPL?adjust=splits&asKnownOn=2026-11-21")
    assert later["bars"] == now["bars"]
    assert later["asKnownOn"] == "2026-11-21T23:59:59.999Z"
    _, columns = await daemon.get("/cache/historical/AAPL?asKnownOn=2026-11-20&format=columns&fields=close")
    assert columns["close"] == first.close.tolist()
    _, text = await daemon.get("/cache/historical/AAPL?asKnownOn=2026-11-20&format=csv&fields=close")
    assert [float(line.split(",")[1]) for line in text.split()[1:]] == first.close.tolist()
    _, before = await daemon.get("/cache/historical/AAPL?asKnownOn=2026-11-20T09:59:59.999Z")
    assert before["bars"] == []
    assert before["asKnownOn"] == "2026-11-20T09:59:59.999Z"


async def test_an_answer_of_what_was_known_has_a_tag_and_holds_while_others_are_corrected(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=5)
    target = f"{daemon.base}/cache/historical/AAPL?asKnownOn=2026-11-20T10:00:00Z"
    daemon.clock.advance(60)
    async with daemon.session.get(target) as response:
        tag, body = response.headers["ETag"], await response.read()
    async with daemon.session.get(target, headers={"If-None-Match": tag}) as response:
        assert response.status == 304
    held = (await daemon.services.bars.held(entry)).tolist()
    await daemon.services.bars.commit([Change(entry, flat(held, 1.0), "other", daemon.clock.time())])
    async with daemon.session.get(target, headers={"If-None-Match": tag}) as response:
        assert response.status == 304
    async with daemon.session.get(target) as response:
        assert await response.read() == body
    assert daemon.services.reader.hits + daemon.services.reader.misses == 0


async def test_what_was_known_never_holds_provisional_bars_or_failures_of_now(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=5, last=TODAY - 2)
    await daemon.services.bars.set_tails([(entry, flat([TODAY - 1], 50.0))])
    entry.state = replace(entry.state, attempts=3, code="provider_unavailable", reason="down", next_retry=START + 60)
    entry.touch()
    daemon.clock.advance(60)
    _, then = await daemon.get("/cache/historical/AAPL?asKnownOn=2026-11-20T10:00:30Z")
    assert [bar["date"] for bar in then["bars"]][-1:] == ["2026-11-18"]
    assert then["provisional"] == []
    [gap] = [gap for gap in then["coverage"]["missing"] if gap["class"] != "not_due"]
    assert (gap["from"], gap["class"], gap["reason"]) == ("2026-11-19", "pending", "due by then, not held then")
    assert gap["nextRetry"] is None
    assert not then["coverage"]["complete"]


async def test_what_was_known_at_an_instant_is_the_same_before_and_after_what_was_fetched_by_then_is_committed(
    daemon: ApiDaemon,
) -> None:
    entry = await daemon.stored(count=5)
    fetched_at = daemon.clock.time()
    daemon.clock.advance(60)
    target = "/cache/historical/AAPL?asKnownOn=2026-11-20T10:00:30Z"
    _, before = await daemon.get(target)
    held = (await daemon.services.bars.held(entry)).tolist()
    await daemon.services.bars.commit([Change(entry, flat(held, 1.0), "other", fetched_at)])
    _, after = await daemon.get(target)
    assert after["bars"] == before["bars"]
    _, found = await daemon.get("/cache/corrections/AAPL?limit=1")
    assert found["corrections"][0]["to"]["committedAt"] == "2026-11-20T10:01:00Z"
    assert found["corrections"][0]["to"]["fetchedAt"] == "2026-11-20T10:00:00Z"


async def test_who_asks_what_is_known_by_now_waits_for_the_commit_that_has_its_time_already(
    database: Database,
) -> None:
    store, [entry] = await opened(database, clock=(clock := ManualClock(NOW)))
    await store.commit([Change(entry, flat([DAY0], 10.0), "one", NOW)])
    asked: list[asyncio.Task[Any]] = []
    insert = store._committer._apply

    async def slowly(*given: Any) -> None:
        await insert(*given)
        clock.advance(1)
        asked.append(asyncio.create_task(store.as_known_on(entry, clock.time())))
        await asyncio.sleep(0.05)  # time enough for an answer that does not wait

    store._committer._apply = slowly  # type: ignore[method-assign]
    await store.commit([Change(entry, flat([DAY0], 11.0), "one", NOW)])
    assert (await asked[0]).bars.close.tolist() == [11.0]


async def test_today_means_now(daemon: ApiDaemon) -> None:
    await daemon.stored()
    status, answer = await daemon.get("/cache/historical/AAPL?asKnownOn=2026-11-20")
    assert (status, answer["asKnownOn"]) == (200, "2026-11-20T10:00:00Z")
    assert len(answer["bars"]) == 30


@pytest.mark.parametrize("given", ["2026-11-20T10:00:01Z", "2026-11-21", "2027-01-01"])
async def test_nobody_knows_what_will_be_known(daemon: ApiDaemon, given: str) -> None:
    await daemon.stored()
    status, problem = await daemon.get(f"/cache/historical/AAPL?asKnownOn={given}")
    assert (status, problem["code"]) == (400, "future_instant")


@pytest.mark.parametrize("given", ["yesterday", "2026-13-01", "1h"])
async def test_an_instant_that_is_none_is_refused(daemon: ApiDaemon, given: str) -> None:
    await daemon.stored()
    assert (await daemon.get(f"/cache/historical/AAPL?asKnownOn={given}"))[0] == 422


async def test_bars_by_hand_are_named_in_the_answer(daemon: ApiDaemon) -> None:
    entry = await daemon.stored(count=5)
    held = (await daemon.services.bars.held(entry)).tolist()
    assert (await daemon.get("/cache/historical/AAPL"))[1]["manual"] == []
    await daemon.services.bars.commit([Change(entry, flat(held[1:2], 9.0), "manual", START, manual=True)])
    _, answer = await daemon.get("/cache/historical/AAPL")
    assert answer["manual"] == [day_of(held[1]).isoformat()]
    assert (await daemon.get(f"/cache/historical/AAPL?start={day_of(held[2])}"))[1]["manual"] == []
    daemon.clock.advance(1)
    await daemon.services.bars.retract(entry, held, daemon.clock.time())
    assert (await daemon.get("/cache/historical/AAPL"))[1]["manual"] == []
    _, then = await daemon.get("/cache/historical/AAPL?asKnownOn=2026-11-20T10:00:00Z")
    assert then["manual"] == [day_of(held[1]).isoformat()]


# ---- who is told


async def test_every_commit_announces_the_exact_sessions_after_the_entry_is_brought_up(database: Database) -> None:
    store, [entry] = await opened(database)
    heard: list[tuple[Any, ...]] = []
    revs: list[bool] = []

    def listen(event: BarsChanged) -> None:
        heard.append(facts(event))
        revs.append(event.entry is entry and entry.head.rev == event.rev)

    end = store.subscribe(listen)
    await store.commit([Change(entry, flat([DAY0, DAY0 + 1], 10.0), "one", NOW)])
    await store.commit([Change(entry, flat([DAY0, DAY0 + 1], 10.0), "one", NOW)])
    await store.commit([Change(entry, flat([DAY0 + 1, DAY0 + 2], 11.0), "two", NOW)])
    await store.commit([Change(entry, flat([DAY0 + 2, DAY0 + 9], 12.0), "manual", NOW, manual=True)])
    await store.retract(entry, [DAY0 + 2, DAY0 + 9], NOW)
    split = Action(DAY0 + 1, "split", 2.0, source="one")
    await store.commit([Change(entry, Bars.empty(), "one", NOW, actions=(split,))])
    assert heard == [
        (1, [DAY0, DAY0 + 1], [], [], False, "one"),
        (2, [DAY0 + 2], [DAY0 + 1], [], False, "two"),
        (3, [DAY0 + 9], [DAY0 + 2], [], False, "manual"),
        (4, [], [DAY0 + 2], [DAY0 + 9], False, "manual"),
        (5, [], [], [], True, "one"),
    ]
    assert all(revs)
    end()
    await store.commit([Change(entry, flat([DAY0 + 20], 10.0), "one", NOW)])
    assert len(heard) == 5


async def test_a_listener_that_fails_keeps_nobody_from_hearing(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    store, [entry] = await opened(database)
    heard: list[int] = []

    def broken(event: BarsChanged) -> None:
        raise RuntimeError("no")

    store.subscribe(broken)
    store.subscribe(lambda event: heard.append(event.rev))
    [outcome] = await store.commit([Change(entry, flat([DAY0], 10.0), "one", NOW)])
    assert (outcome.rev, heard) == (1, [1])


async def test_commits_of_another_daemon_are_announced_once_each_and_in_order(database: Database) -> None:
    clock, catalog = ManualClock(), Catalog()
    instruments, store = InstrumentStore(database, catalog), BarStore(database)
    others, [theirs] = await opened(database)
    await others.commit([Change(theirs, flat([DAY0], 10.0), "before", NOW)])
    await instruments.load_all()
    quotes = QuoteStore(database, clock, shared_as="me")
    watcher = ChangeWatcher(
        database, catalog, instruments, store, quotes, "me", lambda _: None, clock, PortfolioHeads()
    )
    heard: list[tuple[Any, ...]] = []
    store.subscribe(lambda event: heard.append(facts(event)))
    following = asyncio.Event()
    task = asyncio.create_task(watcher.run(following.set))
    await asyncio.wait_for(following.wait(), 10)
    mine = catalog.by_id(theirs.id)
    assert mine is not None

    async def heard_of(count: int) -> None:
        while len(heard) < count:
            await asyncio.sleep(0.005)

    await others.commit([Change(theirs, flat([DAY0, DAY0 + 1], 11.0), "them", NOW)])
    await asyncio.wait_for(heard_of(1), 10)
    await store.commit([Change(mine, flat([DAY0 + 2], 12.0), "me", NOW)])
    await others.commit([Change(theirs, flat([DAY0 + 3], 12.0), "them", NOW)])
    await asyncio.wait_for(heard_of(3), 10)
    await store.commit([Change(mine, flat([DAY0 + 4], 12.0), "me", NOW)])
    await store.drain()
    await others.commit([Change(theirs, flat([DAY0 + 5], 12.0), "them", NOW)])
    await asyncio.wait_for(heard_of(5), 10)
    task.cancel()
    await asyncio.wait([task])
    assert heard == [
        (2, [DAY0 + 1], [DAY0], [], False, "them"),
        (3, [DAY0 + 2], [], [], False, "me"),
        (4, [DAY0 + 3], [], [], False, "them"),
        (5, [DAY0 + 4], [], [], False, "me"),
        (6, [DAY0 + 5], [], [], False, "them"),
    ]


async def test_what_was_committed_while_nobody_listened_is_announced_when_the_stream_opens_again(
    database: Database,
) -> None:
    clock, catalog = ManualClock(), Catalog()
    instruments, store = InstrumentStore(database, catalog), BarStore(database)
    others, [theirs] = await opened(database)
    await instruments.load_all()
    quotes = QuoteStore(database, clock, shared_as="me")
    watcher = ChangeWatcher(
        database, catalog, instruments, store, quotes, "me", lambda _: None, clock, PortfolioHeads()
    )
    heard: list[tuple[Any, ...]] = []
    store.subscribe(lambda event: heard.append(facts(event)))
    for _ in range(2):
        following = asyncio.Event()
        task = asyncio.create_task(watcher.run(following.set))
        await asyncio.wait_for(following.wait(), 10)
        task.cancel()
        await asyncio.wait([task])
        count = len(heard)
        await others.commit([Change(theirs, flat([DAY0 + count], 11.0), "them", NOW)])
        await others.commit([Change(theirs, flat([DAY0 + count + 1], 11.0), "them", NOW)])
    assert [(event[0], event[1]) for event in heard] == [(1, [DAY0]), (2, [DAY0 + 1])]


async def test_a_revision_that_is_gone_or_of_before_announces_everything(database: Database) -> None:
    others, [theirs] = await opened(database)
    await others.commit([Change(theirs, flat([DAY0], 10.0), "them", NOW)])
    store, mine = await fresh(database, theirs)
    heard: list[BarsChanged] = []
    store.subscribe(heard.append)
    store.announcer.begin([mine])
    for n in range(3):
        await others.commit([Change(theirs, flat([DAY0 + 1 + n], 10.0), "them", NOW)])
    await database["revisions"].delete_one({"_id": {"s": theirs.id, "rev": 3}})
    await database["revisions"].update_one(
        {"_id": {"s": theirs.id, "rev": 2}}, {"$unset": {"changed": 1, "committedAt": 1}}
    )
    await store.refresh([mine])
    assert [(event.rev, event.added is not None, event.since) for event in heard] == [
        (2, False, DAY0 + 1),
        (4, False, None),
    ]
    assert (await store.as_known_on(mine, NOW)).bars.sessions.tolist() == [DAY0, DAY0 + 1, DAY0 + 3]


async def test_a_commit_overtaken_by_another_daemon_announces_theirs_first(database: Database) -> None:
    others, [theirs] = await opened(database)
    store, mine = await fresh(database, theirs)
    heard: list[tuple[Any, ...]] = []
    store.subscribe(lambda event: heard.append(facts(event)))
    await others.commit([Change(theirs, flat([DAY0], 10.0), "them", NOW)])
    await others.commit([Change(theirs, flat([DAY0 + 1], 10.0), "them", NOW)])
    await store.commit([Change(mine, flat([DAY0 + 2], 10.0), "me", NOW)])
    assert [(event[0], event[1], event[-1]) for event in heard] == [
        (1, [DAY0], "them"),
        (2, [DAY0 + 1], "them"),
        (3, [DAY0 + 2], "me"),
    ]


# ---- healing


async def damage_years(database: Database, entry: Entry, kind: str) -> None:
    key = {"_id": entry.id * 10_000 + 2023}
    document = await database["bar_years"].find_one(key)
    assert document is not None
    block = bytearray(document["b"])
    block[100] ^= 4
    changes: dict[str, dict[str, Any]] = {
        "truncated": {"b": document["b"][:-48]},
        "bit flipped": {"b": bytes(block)},
        "origin cut": {"p": document["p"][:-10]},
        "older": {"r": 0},
    }
    if kind == "deleted":
        await database["bar_years"].delete_one(key)
    elif kind == "all deleted":
        await database["bar_years"].delete_many({})
    else:
        await database["bar_years"].update_one(key, {"$set": changes[kind]})


@pytest.mark.parametrize("kind", ["deleted", "all deleted", "truncated", "bit flipped", "origin cut", "older"])
async def test_a_damaged_year_is_never_read_and_heals_from_the_journal(database: Database, kind: str) -> None:
    writer, [theirs] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 900)))
    split = Action(DAY0 + 3, "split", 4.0, source="test")
    await writer.commit([Change(theirs, given, "test", NOW, actions=(split,))])
    await damage_years(database, theirs, kind)
    for store, entry in ((writer, theirs), await fresh(database, theirs)):
        with pytest.raises(Corrupt):
            await store.read(entry)
        assert await store.read_many([entry, entry]) == {}
        with pytest.raises(Corrupt):
            await store.commit([Change(entry, flat([DAY0 + 400], 1.0), "test", NOW)])
    store, entry = await fresh(database, theirs)
    assert (await store.heal(entry, NOW + 1)).rebuilt
    assert same(await store.read(entry), given)
    assert entry.actions == (split,)
    assert (await store.heal(entry, NOW + 2)).faults == ()
    assert same(await writer.read(theirs), given)
    assert (await store.corrections(entry, None, None, 10)).total == 0


@pytest.mark.parametrize("years_too", [False, True])
async def test_a_lost_head_is_never_taken_for_an_empty_series_and_heals(database: Database, years_too: bool) -> None:
    writer, [theirs] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 900)))
    split = Action(DAY0 + 3, "split", 4.0, source="test")
    await writer.commit([Change(theirs, given, "test", NOW, actions=(split,))])
    await writer.commit([Change(theirs, flat([DAY0 + 2000], 3.0), "test", NOW)])
    whole = await writer.read(theirs)
    await database["series"].delete_one({"_id": theirs.id})
    if years_too:
        await database["bar_years"].delete_many({})
        await database["actions"].delete_many({})
    store, entry = await fresh(database, theirs)
    with pytest.raises(Corrupt):
        await store.read(entry)
    assert await store.read_many([entry, entry]) == {}
    with pytest.raises(Corrupt):
        await store.commit([Change(entry, flat([DAY0 + 400], 1.0), "test", NOW)])
    assert "head_lost" in [problem.code for problem in (await store.heal(entry, NOW + 1)).faults]
    assert same(await store.read(entry), whole)
    assert (entry.actions, entry.current) == ((split,), True)
    assert (await store.heal(entry, NOW + 2)).faults == ()
    [outcome] = await store.commit([Change(entry, flat([DAY0 + 2001], 3.0), "test", NOW)])
    assert outcome.rev == 4
    await writer.refresh([theirs])
    assert len(await writer.read(theirs)) == 902


async def test_the_daemon_that_knew_the_head_heals_it_too(database: Database) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 300)))
    await store.commit([Change(entry, given, "test", NOW)])
    await database["series"].delete_one({"_id": entry.id})
    assert (await store.heal(entry, NOW + 1)).rebuilt
    assert same(await store.read(entry), given)
    assert (await store.heal(entry, NOW + 2)).faults == ()


@pytest.mark.parametrize("head_too", [False, True])
async def test_healing_keeps_all_that_journal_or_sound_years_still_have_and_tells_what_is_lost(
    database: Database, head_too: bool
) -> None:
    store, [entry] = await opened(database)
    given = bars(list(range(DAY0, DAY0 + 900)))
    await store.commit([Change(entry, given.between(None, DAY0 + 500), "test", NOW)])
    await store.commit([Change(entry, given, "test", NOW)])
    # nothing can be deleted from a time-series collection by batch: that it never came stands for that it went
    await database["revisions"].update_one({"_id.rev": 2}, {"$set": {"batch": ObjectId()}})
    await damage_years(database, entry, "bit flipped")
    if head_too:
        await database["series"].delete_many({})
    store, entry = await fresh(database, entry)
    verdict = await store.heal(entry, NOW + 1)
    assert verdict.rebuilt
    assert "journal_lacks" in [problem.code for problem in verdict.faults]
    left = await store.read(entry)
    damaged = years_of(given.sessions) == 2023
    expected = given.sessions[~damaged | (given.sessions <= DAY0 + 500)]
    assert left.sessions.tolist() == expected.tolist()
    gone = np.setdiff1d(given.sessions, expected)
    assert verdict.lost is not None
    assert (verdict.lost.count, verdict.lost.first, verdict.lost.last) == (len(gone), gone[0], gone[-1])
    again = await store.heal(entry, NOW + 2)
    assert (again.rebuilt, again.lost) == (False, None)


async def test_lost_actions_are_never_taken_for_none_and_heal(database: Database) -> None:
    writer, [theirs] = await opened(database)
    split = Action(DAY0 + 3, "split", 4.0, source="test")
    await writer.commit([Change(theirs, flat([DAY0], 8.0), "test", NOW, actions=(split,))])
    await database["actions"].delete_many({})
    store, entry = await fresh(database, theirs)
    assert not entry.current
    with pytest.raises(Corrupt):
        await store.refresh([entry])
    assert (await store.heal(entry, NOW)).faults[0].code == "actions_lost"
    assert (entry.actions, entry.current) == ((split,), True)
    await writer.refresh([theirs])
    assert theirs.actions == (split,)


async def test_healing_beside_writers_loses_nothing(database: Database) -> None:
    store, [entry] = await opened(database)
    await store.commit([Change(entry, bars(list(range(DAY0, DAY0 + 900))), "test", NOW)])
    for n in range(6):
        await damage_years(database, entry, "bit flipped")
        writes = [store.commit([Change(entry, flat([DAY0 + 2000 + n], 1.0), "test", NOW)]), store.heal(entry, NOW)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert not [o for o in outcomes if isinstance(o, BaseException) and not isinstance(o, Corrupt)]
        await store.heal(entry, NOW)
    assert len(await store.read(entry)) == 906
    assert (await store.verify(entry)).faults == ()


async def test_documents_of_before_are_read_and_moved_on(database: Database) -> None:
    """Heads and actions that name no revision of the actions, revisions that tell neither time nor sessions."""
    store, [entry] = await opened(database)
    split = Action(DAY0 + 3, "split", 4.0, source="test")
    await store.commit([Change(entry, flat([DAY0], 8.0), "test", NOW, actions=(split,))])
    await database["series"].update_many({}, {"$unset": {"actionsRev": 1}})
    await database["actions"].update_many({}, {"$unset": {"r": 1}})
    await database["revisions"].update_many({}, {"$unset": {"changed": 1, "committedAt": 1}})
    store, entry = await fresh(database, entry, ManualClock(NOW + 1))
    assert (entry.actions, entry.current) == ((split,), True)
    await store.commit([Change(entry, flat([DAY0, DAY0 + 1], 9.0), "test", NOW + 1)])
    other, theirs = await fresh(database, entry)
    assert (theirs.actions, theirs.current) == ((split,), True)
    later = replace(split, value=5.0)
    await store.commit([Change(entry, Bars.empty(), "test", NOW + 2, actions=(later,))])
    await other.refresh([theirs])
    assert theirs.actions == (later,)
    assert (await other.as_known_on(theirs, NOW)).actions == (split,)
    assert (await other.as_known_on(theirs, NOW)).bars.close.tolist() == [8.0]
    assert (await other.heal(theirs, NOW + 3)).faults == ()


# ---- torn reads


def level_of(bars_read: Bars, actions: tuple[Action, ...]) -> set[float]:
    """The price that every bar has once the splits are applied: one, whatever was committed last."""
    return set(np.round(adjusted(bars_read, actions, "splits").close, 6).tolist())


def restatement(entry: Entry, whole: list[int], n: int) -> Change:
    """All bars in other units, with the split that says so: what is adjusted stays one level, `n` tells which."""
    ratio = 2.0 + n % 3
    split = Action(whole[-1] + 1, "split", ratio, source="test")
    return Change(entry, flat(whole, (100.0 + n) * ratio), "test", NOW + n, actions=(split,))


async def test_no_read_is_torn_while_bars_and_splits_are_restated(database: Database) -> None:
    """Of the store, of the store of another daemon, and as known on: one level each, never one commit's bars with
    another's splits."""
    clock = ManualClock(NOW)
    store, [entry] = await opened(database, clock=clock)
    whole = list(range(DAY0, DAY0 + 500))
    await store.commit([restatement(entry, whole, 0)])
    other, theirs = await fresh(database, entry)
    committed, reads, torn = 0, 0, []
    stop = asyncio.Event()

    async def read(reader: BarStore, which: Entry, *, refreshing: bool) -> None:
        nonlocal reads
        while not stop.is_set():
            if refreshing:
                await reader.refresh([which])
            record = (await reader.read_many([which]))[which.id]
            reads += 1
            levels = level_of(record.bars, record.actions)
            if len(levels) != 1 or len(record.bars) != 500 or which.head.rev != record.rev:
                torn.append((record.rev, levels))

    async def read_known() -> None:
        nonlocal reads
        chance = random.Random(1)
        while not stop.is_set():
            n = chance.randint(0, committed)
            known = await other.as_known_on(theirs, NOW + n)
            reads += 1
            if level_of(known.bars, known.actions) != {100.0 + n}:
                torn.append((n, level_of(known.bars, known.actions)))

    readers = [
        asyncio.create_task(read(store, entry, refreshing=False)),
        asyncio.create_task(read(other, theirs, refreshing=True)),
        asyncio.create_task(read(other, theirs, refreshing=True)),
        asyncio.create_task(read_known()),
    ]
    while reads < 500 or committed < 20:
        clock.set(NOW + committed + 1)
        await store.commit([restatement(entry, whole, committed + 1)])
        committed += 1
    stop.set()
    await asyncio.gather(*readers)
    assert torn == []


async def test_no_answer_is_torn_while_bars_and_splits_are_restated(daemon: ApiDaemon) -> None:
    """Over HTTP, hundreds of answers: adjusted prices of one commit only, in the present and as known on."""
    entry = await daemon.stored(count=300)
    whole = (await daemon.services.bars.held(entry)).tolist()
    committed, reads, torn = 0, 0, []
    daemon.clock.set(NOW)

    def change(n: int) -> Change:
        ratio = 2.0 + n % 3
        split = Action(whole[-1], "split", ratio, source="scripted")
        prices = np.append(np.full(299, (100.0 + n) * ratio), 100.0 + n)
        return Change(entry, Bars(np.array(whole), np.tile(prices, (5, 1))), "scripted", NOW + n, actions=(split,))

    async def ask(target: str, level: float | None) -> None:
        nonlocal reads
        status, answer = await daemon.get(target)
        if status == 503:  # on a machine so busy that the database does not answer: no answer is not a torn one
            return
        reads += 1
        levels = {round(value, 6) for value in answer["close"]}
        if status != 200 or len(levels) != 1 or len(answer["close"]) != 300 or level not in (None, *levels):
            torn.append((target, status, levels))

    await daemon.services.bars.commit([change(0)])
    chance = random.Random(2)
    now, span = "/cache/historical/AAPL?format=columns&fields=close", f"&start={day_of(whole[0])}"
    instant = "2027-01-15T08:00:{:02}Z"  # NOW and the seconds after it

    async def read() -> None:
        while reads < 600 or committed < 20:
            await ask(f"{now}{span}", None)
            if chance.random() < 0.3:
                n = chance.randint(0, committed)
                await ask(f"{now}{span}&asKnownOn={instant.format(n)}", 100.0 + n)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    while reads < 600 or committed < 20:
        daemon.clock.set(NOW + committed + 1)
        await daemon.services.bars.commit([change(committed + 1)])
        committed += 1  # only now: what is still being committed may or may not be known yet
    await asyncio.gather(*readers)
    assert torn == []
    assert committed < 60


# ---- whatever the order


PRICES = st.sampled_from([10.0, 10.000001, 12.5, 99.0])
ROWS = st.lists(st.tuples(st.integers(0, 30), PRICES), min_size=1, max_size=25, unique_by=lambda row: row[0])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, held=ROWS, data=st.data())
async def test_rows_in_any_order_make_the_same_series(
    database: Database, rows: Any, held: Any, data: st.DataObject
) -> None:
    """`ingest(shuffle(rows)) == ingest(rows)`, over what was held before: the record, its journal and what is told."""
    shuffled = data.draw(st.permutations(rows))
    number = await next_id(database, "example")
    store, (one, two) = await opened(database, f"ONE{number}", f"TWO{number}")
    told: list[tuple[Any, ...]] = []
    store.subscribe(lambda event: told.append(facts(event)))
    for entry, order in ((one, rows), (two, shuffled)):
        for n, batch in enumerate((held, order)):
            sent = Bars.of([DAY0 + day for day, _ in batch], [[price for _, price in batch]] * 5)
            await store.commit([Change(entry, sent, "test", NOW + n)])
    assert same(await store.read(one), await store.read(two))
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    assert [(await store.verify(entry)).faults for entry in (one, two)] == [(), ()]
