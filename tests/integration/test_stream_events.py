"""Events of portfolios: written with the change they tell of, numbered without a gap, read again exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from pricecache.core.actions import Action
from pricecache.core.stream_events import StreamEvent
from pricecache.stores.stream_events import StreamEventStore
from pricecache.stores.watch import ChangeWatcher
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolios import ANN, BUY, KEYS, add, made, priced

SELL = {**BUY, "date": "2026-11-10", "type": "sell"}


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def asked(daemon: ApiDaemon, portfolio: str, query: str = "") -> dict[str, Any]:
    status, answer = await daemon.get(f"/api/portfolios/{portfolio}/events{query}", headers=ANN)
    assert status == 200, answer
    return dict(answer)


async def told(daemon: ApiDaemon, portfolio: str, since: int = 0) -> list[tuple[str, Any]]:
    events = (await asked(daemon, portfolio, f"?since={since}"))["events"]
    return [(one["type"], one.get("id", one.get("transactionId"))) for one in events]


# What is told


async def test_trades_are_told_when_they_come_change_and_go(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    _, added = await add(daemon, portfolio, BUY, {"date": "2026-11-02", "type": "deposit", "amount": 5}, BUY)
    first, deposit, second = added["ids"]
    row = f"/api/portfolios/{portfolio}/transactions/{first}"
    await daemon.call("PUT", row, json={**BUY, "price": "101.5"}, headers=ANN)
    await daemon.call("DELETE", row, headers=ANN)
    await daemon.call("DELETE", f"/api/portfolios/{portfolio}/transactions/{deposit}", headers=ANN)
    assert await told(daemon, portfolio) == [
        ("trade:executed", first), ("trade:executed", second), ("trade:corrected", first), ("trade:cancelled", first),
    ]  # fmt: skip
    corrected = (await asked(daemon, portfolio, "?since=2"))["events"][0]
    assert corrected == {
        "seq": 3, "type": "trade:corrected", "at": "2026-11-20T10:00:00Z", "id": first, "date": "2026-11-02",
        "side": "buy", "symbol": "AAPL", "market": "US", "quantity": 10, "price": 101.5, "fees": 0, "taxes": 0,
        "currency": None, "accountId": None, "externalId": None,
    }  # fmt: skip


async def test_a_row_that_turns_into_a_trade_or_out_of_one_is_told_as_such(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    _, added = await add(daemon, portfolio, BUY)
    row = f"/api/portfolios/{portfolio}/transactions/{added['ids'][0]}"
    await daemon.call("PUT", row, json={"date": "2026-11-02", "type": "fee", "amount": 1}, headers=ANN)
    await daemon.call("PUT", row, json=BUY, headers=ANN)
    kinds = [kind for kind, _ in await told(daemon, portfolio)]
    assert kinds == ["trade:executed", "trade:cancelled", "position:closed", "trade:executed"]


async def test_more_than_a_hundred_trades_are_told_as_one_import(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "symbol": "MSFT", "externalId": "r0"})
    rows = [{**BUY, "externalId": f"r{n}", "date": f"2026-11-{2 + n % 9:02}"} for n in range(101)]
    await add(daemon, portfolio, *rows)
    events = (await asked(daemon, portfolio, "?since=1"))["events"]
    (imported, closed) = events
    assert (imported["type"], imported["created"], imported["updated"]) == ("trades:imported", 100, 1)
    assert (imported["deleted"], imported["from"], imported["to"]) == (0, "2026-11-02", "2026-11-10")
    assert (closed["type"], closed["symbol"], closed["transactionId"]) == ("position:closed", "MSFT", None)


@pytest.mark.parametrize("splits", [[], [Action(TODAY - 8, "split", 4.0)], [Action(TODAY - 8, "split", 3.0)]])
async def test_a_position_is_closed_by_what_takes_the_last_share(daemon: ApiDaemon, splits: Sequence[Action]) -> None:
    """Bought before a split and sold after it: as many as the split made of them are all there is."""
    await priced(daemon, AAPL, {TODAY - n: 100.0 for n in (1, 10, 18)}, *splits)
    portfolio = await made(daemon)
    ratio = int(splits[0].value) if splits else 1
    await add(daemon, portfolio, BUY)
    sale = {**SELL, "date": "2026-11-18", "quantity": 10 * ratio - 1}
    await add(daemon, portfolio, sale)
    _, added = await add(daemon, portfolio, {**sale, "quantity": 1})
    assert (await told(daemon, portfolio))[-2:] == [
        ("trade:executed", added["ids"][0]), ("position:closed", added["ids"][0]),
    ]  # fmt: skip
    closed = (await asked(daemon, portfolio, "?since=3&channels=positions"))["events"]
    assert [(one["symbol"], one["market"], one["date"]) for one in closed] == [("AAPL", "US", "2026-11-18")]


async def test_a_short_position_is_closed_by_buying_back(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon, allowShort=True)
    await add(daemon, portfolio, {**SELL, "date": "2026-11-02"})
    _, added = await add(daemon, portfolio, {**BUY, "date": "2026-11-10"})
    assert (await told(daemon, portfolio))[-1] == ("position:closed", added["ids"][0])


async def test_a_position_that_another_account_still_has_is_not_closed(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    target = f"/api/portfolios/{portfolio}/accounts"
    account = (await daemon.call("POST", target, json={"name": "IRA"}, headers=ANN))[1]["id"]
    await add(daemon, portfolio, BUY, {**BUY, "accountId": account, "quantity": 3})
    await add(daemon, portfolio, SELL)
    moved = {"date": "2026-11-11", "type": "transfer_out", "symbol": "AAPL", "quantity": 3, "toAccountId": None}
    assert [kind for kind, _ in await told(daemon, portfolio)] == ["trade:executed"] * 3
    _, added = await add(daemon, portfolio, {**moved, "accountId": account})
    assert (await told(daemon, portfolio, 3)) == [("position:closed", added["ids"][0])]


async def test_what_was_bought_and_sold_at_once_was_never_open(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    await add(daemon, portfolio, BUY, SELL)
    assert [kind for kind, _ in await told(daemon, portfolio)] == ["trade:executed"] * 2


async def test_a_sale_entered_late_closes_what_a_later_row_left(daemon: ApiDaemon) -> None:
    """The row that takes the last share is the last by date, not the one that came last."""
    await daemon.stored()
    portfolio = await made(daemon)
    _, first = await add(daemon, portfolio, BUY, {**SELL, "date": "2026-11-12", "quantity": 4})
    await add(daemon, portfolio, {**SELL, "quantity": 6})
    assert (await told(daemon, portfolio))[-1] == ("position:closed", first["ids"][1])


# Numbers


async def test_numbers_have_no_gap_however_many_write_at_once(daemon: ApiDaemon, database: Any) -> None:
    portfolio, other_portfolio = await made(daemon), await made(daemon)
    heard: list[tuple[str, int]] = []

    def hear(portfolio_id: str, events: Sequence[StreamEvent]) -> None:
        heard.extend((portfolio_id, one.seq) for one in events)

    async with api_daemon(database, keys=KEYS) as other:
        for one in (daemon, other):
            one.services.ledgers.on_events = hear
        writes = [
            add(one, target, {**BUY, "externalId": f"w{n}"}, {**BUY, "externalId": f"v{n}"})
            for n, target in enumerate([portfolio] * 10 + [other_portfolio] * 4)
            for one in (daemon, other)
        ]
        report = {"status": "new", "side": "buy", "symbol": "AAPL", "quantity": 1}
        orders = [
            one.call("PUT", f"/api/portfolios/{portfolio}/orders/o{n}", json=report, headers=ANN)
            for n in range(6)
            for one in (daemon, other)
        ]
        answers = await asyncio.gather(*writes, *orders)
    assert {status for status, _ in answers} <= {200, 201}
    for target, count in ((portfolio, 26), (other_portfolio, 8)):
        page = await asked(daemon, target, "?since=0")
        assert [one["seq"] for one in page["events"]] == list(range(1, count + 1))
        assert (page["seq"], page["complete"], page["resync"]) == (count, True, False)
        assert sorted(seq for name, seq in heard if name == target) == list(range(1, count + 1))


async def test_who_asks_again_and_again_gets_every_event_once(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    start = await asked(daemon, portfolio)
    assert (start["seq"], start["oldest"], start["complete"], start["events"]) == (0, 1, True, [])
    await add(daemon, portfolio, *[{**BUY, "externalId": f"a{n}"} for n in range(7)])
    await add(daemon, portfolio, {**BUY, "externalId": "b"})
    seen, since, pages = list[int](), start["seq"], 0
    while True:
        page = await asked(daemon, portfolio, f"?since={since}&epoch={start['epoch']}&limit=3")
        seen += [one["seq"] for one in page["events"]]
        since, pages = page["seq"], pages + 1
        if page["complete"]:
            break
    assert (seen, pages) == (list(range(1, 9)), 3)
    assert (await asked(daemon, portfolio, f"?since={since}"))["events"] == []
    only = await asked(daemon, portfolio, "?since=0&channels=orders,positions")
    assert (only["events"], only["seq"]) == ([], 8)


async def test_who_cannot_be_resumed_is_told(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    for n in range(3):
        await add(daemon, portfolio, {**BUY, "externalId": f"a{n}"})
    assert (await asked(daemon, portfolio, "?since=4"))["resync"]
    assert (await asked(daemon, portfolio, "?since=1&epoch=another"))["resync"]
    await database["stream_events"].delete_one({"portfolio": portfolio, "first": 1})
    gone = await asked(daemon, portfolio, "?since=0")
    assert (gone["resync"], gone["events"], gone["seq"], gone["oldest"]) == (True, [], 3, 2)
    kept = await asked(daemon, portfolio, "?since=1")
    assert (kept["resync"], [one["seq"] for one in kept["events"]]) == (False, [2, 3])
    await add(daemon, portfolio, {**BUY, "externalId": "later"})
    await database["stream_events"].delete_one({"portfolio": portfolio, "first": 3})
    hole = await asked(daemon, portfolio, "?since=1")  # out of turn: the setting was another one meanwhile
    assert (hole["resync"], hole["events"], hole["oldest"]) == (True, [], 4)
    await database["stream_events"].delete_many({})
    assert (await asked(daemon, portfolio, "?since=3"))["resync"]
    assert not (await asked(daemon, portfolio, "?since=4"))["resync"]


async def test_events_are_kept_for_as_long_as_the_setting_says(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    await add(daemon, portfolio, BUY)
    document = await database["stream_events"].find_one({})
    assert (document["expiresAt"] - document["at"]).days == 30
    indexes = await database["stream_events"].index_information()
    assert [one["expireAfterSeconds"] for one in indexes.values() if "expireAfterSeconds" in one] == [0]


async def test_daemons_on_one_database_have_one_epoch(daemon: ApiDaemon, database: Any) -> None:
    stores = [StreamEventStore(database) for _ in range(8)]
    epochs = await asyncio.gather(*(store.epoch() for store in stores))
    assert len(set(epochs)) == 1
    portfolio = await made(daemon)
    assert (await asked(daemon, portfolio))["epoch"] == epochs[0]


@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?channels=news", "?limit=0", "?limit=1001"])
async def test_a_question_that_means_nothing_is_refused(daemon: ApiDaemon, query: str) -> None:
    portfolio = await made(daemon)
    status, _ = await daemon.get(f"/api/portfolios/{portfolio}/events{query}", headers=ANN)
    assert status == 422


# Whoever listens


async def test_a_listener_that_fails_costs_the_writer_nothing(daemon: ApiDaemon) -> None:
    def fail(*facts: Any) -> None:
        raise RuntimeError("deaf")

    daemon.services.ledgers.on_events = daemon.services.ledgers.on_changed = fail
    portfolio = await made(daemon)
    assert (await add(daemon, portfolio, BUY))[0] == 201


async def test_every_change_of_a_ledger_or_of_its_rules_is_told(daemon: ApiDaemon) -> None:
    heard: list[str] = []
    daemon.services.ledgers.on_changed = heard.append
    portfolio = await made(daemon)
    target = f"/api/portfolios/{portfolio}"
    _, added = await add(daemon, portfolio, BUY)
    await add(daemon, portfolio, {"date": "2026-11-02", "type": "deposit", "amount": 5})
    await daemon.call("PATCH", target, json={"costBasis": "lifo"}, headers=ANN)
    await daemon.call("DELETE", f"{target}/transactions/{added['ids'][0]}", headers=ANN)
    report = {"status": "new", "side": "buy", "symbol": "AAPL", "quantity": 1}
    await daemon.call("PUT", f"{target}/orders/o1", json=report, headers=ANN)
    assert heard == [portfolio] * 4


@asynccontextmanager
async def watched(daemon: ApiDaemon) -> AsyncIterator[ChangeWatcher]:
    watcher, following = daemon.parts.prices.watcher, asyncio.Event()
    watcher.on_reopened = following.set
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(10):
        await following.wait()
    yield watcher
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_daemons_hear_of_events_and_of_changed_portfolios(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    heard: asyncio.Queue[tuple[str, StreamEvent]] = asyncio.Queue()
    changed: list[str] = []
    async with api_daemon(database, keys=KEYS) as other, watched(daemon) as watcher:
        watcher.on_stream_events = lambda name, events: [heard.put_nowait((name, one)) for one in events]
        watcher.on_portfolio = changed.append
        report = {"status": "new", "side": "buy", "symbol": "AAPL", "quantity": 1}
        await add(daemon, portfolio, {**BUY, "externalId": "own"})
        await other.call("PUT", f"/api/portfolios/{portfolio}/orders/o1", json=report, headers=ANN)
        await add(other, portfolio, BUY)
        async with asyncio.timeout(10):
            found = [await heard.get() for _ in range(2)]
    assert [(name, one.seq, one.type) for name, one in found] == [
        (portfolio, 2, "order:updated"), (portfolio, 3, "trade:executed"),
    ]  # fmt: skip
    assert found[1][1].at == datetime(2026, 11, 20, 10, tzinfo=UTC).timestamp()
    assert changed == [portfolio] * 2  # the order left the ledger as it was
