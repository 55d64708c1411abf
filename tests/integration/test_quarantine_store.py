"""The quarantine: seen again only counts up, decisions stand, and what was only refused goes in the end."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pricecache.core.instruments import Instrument
from pricecache.stores import quarantine
from pricecache.stores.client import prepare
from pricecache.stores.quarantine import KEPT_SECONDS, Observation, QuarantineStore
from tests.clock import START

AAPL = Instrument("AAPL")
BAR = Observation("spike", "far off", "one", "parked", 20_000, (1.0, 2.0, 0.5, 1.5, math.nan))
BAD = Observation("bad_close", "not a number", "one", "rejected", 20_001, (1.0, 2.0, 0.5, math.inf, 5.0))
WHOLE = Observation("basis_unexplained", "off", "one", "parked", ratio=0.25, suggestion={"kind": "split", "ratio": 4.0})


@pytest.fixture
def store(database: Any) -> QuarantineStore:
    return QuarantineStore(database)


async def test_what_is_seen_again_counts_up(store: QuarantineStore) -> None:
    assert await store.observe(1, AAPL, [BAR, BAD, WHOLE], START) == ([BAR, BAD, WHOLE], [])
    assert await store.observe(1, AAPL, [BAR, BAD], START + 60) == ([], [])
    assert store.parked == 2
    items = {item.code: item for item in await store.items(series=1)}
    assert [(items[code].times, items[code].first_seen, items[code].last_seen) for code in ("spike", "bad_close")] == [
        (2, START, START + 60)
    ] * 2
    assert items["spike"].bar is not None
    assert items["spike"].bar[:4] == BAR.bar[:4] if BAR.bar else False
    assert math.isnan(items["spike"].bar[4])
    assert (items["basis_unexplained"].session, items["basis_unexplained"].kind) == (None, "answer")
    assert items["basis_unexplained"].suggestion == {"kind": "split", "ratio": 4.0}
    assert [item.code for item in await store.items(code="spike", market="US")] == ["spike"]
    assert await store.items(series=2) == []


async def test_what_was_dropped_stays_so_until_the_values_change(store: QuarantineStore) -> None:
    await store.observe(1, AAPL, [BAR], START)
    (item,) = await store.items()
    decided = await store.decide(item.id, "dropped", "ann", START + 5)
    assert decided is not None
    assert (decided.state, decided.decided_by, decided.decided_at) == ("dropped", "ann", START + 5)
    assert await store.decide(item.id, "approving", "bob", START + 6) is None
    assert await store.observe(1, AAPL, [BAR], START + 60) == ([], [BAR])
    other = replace(BAR, bar=(1.0, 2.0, 0.5, 1.6, math.nan))
    assert await store.observe(1, AAPL, [other], START + 60) == ([other], [])
    (item,) = await store.items()
    assert (item.state, item.decided_by, item.times, item.first_seen) == ("parked", None, 2, START + 60)


async def test_what_is_being_approved_is_left_alone_until_it_is(store: QuarantineStore) -> None:
    await store.observe(1, AAPL, [BAR], START)
    (item,) = await store.items()
    assert await store.approved(item.id) is None
    begun = await store.decide(item.id, "approving", "ann", START + 5)
    assert begun is not None
    assert await store.decide(item.id, "dropped", "bob", START + 6) is None
    assert await store.observe(1, AAPL, [BAR], START + 7) == ([], [])
    assert await store.resolve(1, START + 8, sessions=[20_000]) == 0
    assert [item.state for item in await store.items()] == ["approving"]
    settled = await store.approved(item.id)
    assert settled is not None
    assert (settled.state, settled.decided_by, settled.decided_at) == ("approved", "ann", START + 5)


async def test_what_the_provider_settles_itself_is_resolved_and_may_come_back(store: QuarantineStore) -> None:
    await store.observe(1, AAPL, [BAR, WHOLE], START)
    await store.observe(2, AAPL, [BAR], START)
    assert await store.resolve(1, START + 60, sessions=[20_000]) == 1
    assert await store.resolve(1, START + 60, answers_of="one") == 1
    assert await store.resolve(1, START + 60) == 0
    assert [item.series for item in await store.items()] == [2]
    assert await store.tally() == [
        ("parked", "spike", 1),
        ("resolved", "basis_unexplained", 1),
        ("resolved", "spike", 1),
    ]
    assert await store.observe(1, AAPL, [BAR], START + 90) == ([BAR], [])
    assert store.parked == 2


async def test_rejected_and_resolved_items_go_after_90_days_and_others_stay(
    store: QuarantineStore, database: Any
) -> None:
    await prepare(database)
    await store.observe(1, AAPL, [BAR, BAD, WHOLE], START)
    await store.resolve(1, START, answers_of="one")
    expiries = {d["code"]: d["expiresAt"] async for d in database["quarantine"].find()}
    assert expiries["spike"] is None
    assert [expiries[code].timestamp() for code in ("bad_close", "basis_unexplained")] == [START + KEPT_SECONDS] * 2
    indexes = [index async for index in await database["quarantine"].list_indexes()]
    assert [index["expireAfterSeconds"] for index in indexes if "expireAfterSeconds" in index] == [0]


async def test_of_what_was_rejected_the_latest_are_kept(
    store: QuarantineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "MOST_REJECTED", 3)
    for day in range(6):
        await store.observe(1, AAPL, [replace(BAD, session=20_000 + day), replace(BAR, session=day)], START + day)
    assert sorted(item.session or 0 for item in await store.items(states=["rejected"])) == [20_003, 20_004, 20_005]
    assert len(await store.items(states=["parked"])) == 6
