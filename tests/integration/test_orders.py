"""Orders over HTTP: taken once, never back, and a fill with its transaction and its events or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.stores.ledger import LedgerMoved, LedgerStore
from tests.integration.api_daemon import ApiDaemon, api_daemon
from tests.integration.test_portfolios import ANN, BOB, BUY, KEYS, add, listed, made

NEW = {"status": "new", "side": "buy", "symbol": "AAPL", "type": "limit", "quantity": 10, "limitPrice": 100}
FILLED = {
    **NEW,
    "status": "filled",
    "averagePrice": "99.5",
    "fees": "1.25",
    "filledAt": "2026-11-18T15:30:00Z",
}


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def put(
    daemon: ApiDaemon, portfolio: str, order: str, body: dict[str, Any], headers: dict[str, str] = ANN
) -> tuple[int, Any]:
    return await daemon.call("PUT", f"/api/portfolios/{portfolio}/orders/{order}", json=body, headers=headers)


async def told(daemon: ApiDaemon, portfolio: str, query: str = "?since=0") -> list[dict[str, Any]]:
    status, answer = await daemon.get(f"/api/portfolios/{portfolio}/events{query}", headers=ANN)
    assert status == 200, answer
    return list(answer["events"])


async def test_an_order_goes_its_way_and_its_fill_becomes_one_transaction(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    status, order = await put(daemon, portfolio, "o1", NEW)
    assert (status, order["status"], order["filledQuantity"], order["version"]) == (201, "new", 0, 1)
    status, order = await put(
        daemon, portfolio, "o1", {**NEW, "status": "partially_filled", "filledQuantity": 4, "averagePrice": 99}
    )
    assert (status, order["filledQuantity"], order["transactionId"]) == (200, 4, None)
    assert await listed(daemon, portfolio) == []
    status, order = await put(daemon, portfolio, "o1", FILLED)
    assert (status, order["status"], order["filledQuantity"], order["version"]) == (200, "filled", 10, 3)
    (row,) = await listed(daemon, portfolio)
    assert (row["id"], row["externalId"], row["date"]) == (order["transactionId"], "order:o1", "2026-11-18")
    assert (row["type"], row["quantity"], row["price"], row["fees"]) == ("buy", 10, 99.5, 1.25)
    events = await told(daemon, portfolio)
    assert [(one["seq"], one["type"]) for one in events] == [
        (1, "order:updated"), (2, "order:updated"), (3, "order:updated"), (4, "trade:executed"),
    ]  # fmt: skip
    assert (events[2]["orderType"], events[2]["transactionId"]) == ("limit", row["id"])
    assert (events[3]["id"], events[3]["side"], events[3]["price"]) == (row["id"], "buy", 99.5)


async def test_the_same_report_once_more_changes_nothing(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    _, first = await put(daemon, portfolio, "o1", FILLED)
    before = await database["ledger_state"].find_one({"_id": portfolio})
    assert await put(daemon, portfolio, "o1", {**FILLED, "quantity": "10.0", "symbol": "aapl:US"}) == (200, first)
    assert await database["ledger_state"].find_one({"_id": portfolio}) == before
    assert len(await told(daemon, portfolio)) == 2


async def test_a_row_that_somebody_deleted_does_not_come_back(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    _, order = await put(daemon, portfolio, "o1", FILLED)
    row = f"/api/portfolios/{portfolio}/transactions/{order['transactionId']}"
    assert (await daemon.call("DELETE", row, headers=ANN))[0] == 200
    assert await put(daemon, portfolio, "o1", FILLED) == (200, order)
    assert await listed(daemon, portfolio) == []
    kinds = [one["type"] for one in await told(daemon, portfolio)]
    assert kinds == ["order:updated", "trade:executed", "trade:cancelled", "position:closed"]


async def test_what_was_filled_of_a_cancelled_order_is_a_transaction(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    body = {**NEW, "status": "cancelled", "filledQuantity": "2.5", "averagePrice": 98, "reason": "by hand"}
    _, order = await put(daemon, portfolio, "o1", body)
    (row,) = await listed(daemon, portfolio)
    assert (row["quantity"], row["date"]) == (2.5, "2026-11-20")
    _, none = await put(daemon, portfolio, "o2", {**NEW, "status": "expired"})
    assert (order["reason"], none["transactionId"], len(await listed(daemon, portfolio))) == ("by hand", None, 1)


async def test_the_date_of_a_fill_is_that_of_the_portfolios_time_zone(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon, timeZone="Asia/Tokyo")
    await put(daemon, portfolio, "o1", {**FILLED, "filledAt": "2026-11-18T18:30:00-01:00"})
    assert (await listed(daemon, portfolio))[0]["date"] == "2026-11-19"


async def test_an_order_without_a_fill_leaves_the_ledger_as_it_is(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    await add(daemon, portfolio, BUY)
    before = await database["ledger_state"].find_one({"_id": portfolio})
    await put(daemon, portfolio, "o1", NEW)
    after = await database["ledger_state"].find_one({"_id": portfolio})
    assert after == {**before, "events": before["events"] + 1}


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ({"quantity": 0}, ["quantity_not_positive"]),
        ({"limitPrice": -1}, ["price_not_positive"]),
        ({"status": "filled"}, ["average_price_required"]),
        ({"filledQuantity": 3}, ["filled_quantity_mismatch", "average_price_required"]),
        ({"status": "partially_filled", "averagePrice": 1}, ["filled_quantity_mismatch"]),
        ({"status": "partially_filled", "averagePrice": 1, "filledQuantity": 10}, ["filled_quantity_mismatch"]),
        ({"status": "filled", "averagePrice": 1, "filledQuantity": 9}, ["filled_quantity_mismatch"]),
        ({"status": "cancelled", "averagePrice": 1, "filledQuantity": 11}, ["filled_quantity_mismatch"]),
        ({"status": "filled", "averagePrice": 1, "filledAt": "2026-11-20"}, ["bad_instant"]),
        ({"status": "filled", "averagePrice": 1, "filledAt": "9999-12-31T23:59:59Z"}, ["bad_instant"]),
        ({"status": "filled", "averagePrice": 1, "filledAt": "2027-11-20T00:00:00Z"}, ["date_in_the_future"]),
        ({"status": "done", "colour": "red"}, ["invalid_value", "unknown_field"]),
        ({"accountId": "nope"}, ["unknown_account"]),
        ({"status": "filled", "averagePrice": 1, "accountId": "nope"}, ["unknown_account"]),
        ({"symbol": "!!"}, ["invalid_symbol"]),
        ({"side": "sell", "status": "filled", "averagePrice": 1}, ["over_sale"]),
    ],
)
async def test_a_bad_report_is_told_with_all_its_faults_and_nothing_is_stored(
    daemon: ApiDaemon, database: Any, body: dict[str, Any], codes: list[str]
) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    status, problem = await put(daemon, portfolio, "o1", {**NEW, **body})
    assert (status, [row["code"] for row in problem["errors"]]) == (422, codes), problem
    for name in ("orders", "stream_events", "transactions"):
        assert await database[name].count_documents({}) == 0


@pytest.mark.parametrize(
    ("body", "status", "codes"),
    [
        ({"status": "accepted"}, 409, ["order_status_goes_back", "filled_quantity_shrinks"]),
        ({"filledQuantity": 3}, 409, ["filled_quantity_shrinks"]),
        ({"side": "sell", "symbol": "MSFT"}, 409, ["order_of_another", "order_of_another"]),
        ({"quantity": 3, "side": "sell"}, 422, ["filled_quantity_mismatch", "order_of_another"]),
    ],
)
async def test_a_report_that_cannot_follow_is_refused(
    daemon: ApiDaemon, body: dict[str, Any], status: int, codes: list[str]
) -> None:
    portfolio = await made(daemon)
    partial = {**NEW, "status": "partially_filled", "filledQuantity": 4, "averagePrice": 99}
    _, order = await put(daemon, portfolio, "o1", partial)
    given = {**partial, **body}
    if body.get("status") == "accepted":
        given["filledQuantity"] = 0
    answered, problem = await put(daemon, portfolio, "o1", given)
    assert (answered, [row["code"] for row in problem["errors"]]) == (status, codes), problem
    assert await daemon.get(f"/api/portfolios/{portfolio}/orders/o1", headers=ANN) == (200, order)
    assert len(await told(daemon, portfolio)) == 1


async def test_an_order_that_is_over_stays_as_it_is(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    await put(daemon, portfolio, "o1", FILLED)
    for body in ({**FILLED, "note": "x"}, {**FILLED, "status": "cancelled"}, NEW, {**FILLED, "averagePrice": 98}):
        status, problem = await put(daemon, portfolio, "o1", body)
        assert (status, problem["code"]) == (409, "order_final")
    assert len(await listed(daemon, portfolio)) == 1


async def test_who_is_late_is_told_of_an_order_too(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    late = {**ANN, "If-Match": '"1"'}
    assert (await put(daemon, portfolio, "o1", NEW, late))[0] == 412
    await put(daemon, portfolio, "o1", NEW)
    assert (await put(daemon, portfolio, "o1", {**NEW, "status": "accepted"}, late))[0] == 200
    status, problem = await put(daemon, portfolio, "o1", {**NEW, "status": "cancelled"}, late)
    assert (status, problem["code"]) == (412, "version_mismatch")


async def test_orders_are_listed_a_page_at_a_time(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    target = f"/api/portfolios/{portfolio}/orders"
    for number in range(5):
        await put(daemon, portfolio, f"o{number}", {**NEW, "status": "rejected"} if number == 1 else NEW)
    status, first = await daemon.get(f"{target}?limit=3", headers=ANN)
    assert (status, [one["orderId"] for one in first["orders"]]) == (200, ["o4", "o3", "o2"])
    _, second = await daemon.get(f"{target}?limit=3&cursor={first['nextCursor']}", headers=ANN)
    assert ([one["orderId"] for one in second["orders"]], second["nextCursor"]) == (["o1", "o0"], None)
    _, still_open = await daemon.get(f"{target}?status=open", headers=ANN)
    assert [one["orderId"] for one in still_open["orders"]] == ["o4", "o3", "o2", "o0"]
    status, problem = await daemon.get(f"{target}/none", headers=ANN)
    assert (status, problem["code"]) == (404, "unknown_order")
    status, problem = await put(daemon, portfolio, "o" * 129, NEW)
    assert (status, problem["code"]) == (422, "order_id_too_long")


async def test_orders_and_events_of_another_are_not_there(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    await put(daemon, portfolio, "o1", NEW)
    one = f"/api/portfolios/{portfolio}"
    assert (await put(daemon, portfolio, "o1", NEW, BOB))[1]["code"] == "unknown_portfolio"
    for target in (f"{one}/orders", f"{one}/orders/o1", f"{one}/events?since=0"):
        status, problem = await daemon.get(target, headers=BOB)
        assert (status, problem["code"]) == (404, "unknown_portfolio"), target


async def test_orders_and_events_go_with_their_portfolio(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    await put(daemon, portfolio, "o1", FILLED)
    await daemon.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN)
    for name in ("orders", "stream_events", "transactions"):
        assert await database[name].count_documents({}) == 0, name


async def test_reports_at_once_by_two_daemons_are_taken_once(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    async with api_daemon(database, keys=KEYS) as other:
        answers = await asyncio.gather(
            *(put(one, portfolio, f"o{n}", FILLED) for n in range(3) for one in (daemon, other) for _ in range(4))
        )
    assert sorted(status for status, _ in answers) == [200] * 21 + [201] * 3
    assert len({order["transactionId"] for _, order in answers}) == 3
    assert len(await listed(daemon, portfolio)) == 3
    events = await told(daemon, portfolio)
    assert [one["seq"] for one in events] == [1, 2, 3, 4, 5, 6]
    assert [one["type"] for one in events] == ["order:updated", "trade:executed"] * 3


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("body", [NEW, FILLED])
async def test_a_report_of_unknown_outcome_is_taken_and_told_once(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch, is_stored: bool, body: dict[str, Any]
) -> None:
    """The connection breaks in the commit, before the end of it or after."""
    portfolio, broken, heard = await made(daemon), list[str](), list[int]()
    daemon.services.ledgers.on_events = lambda portfolio_id, events: heard.extend(one.seq for one in events)
    for name in ("commit", "commit_beside"):
        commit = getattr(LedgerStore, name)

        async def breaking(self: LedgerStore, *given: Any, commit: Any = commit) -> Any:
            done = await commit(self, *given) if is_stored or broken else None
            if not broken:
                broken.append("once")
                raise LedgerMoved
            return done

        monkeypatch.setattr(LedgerStore, name, breaking)
    status, order = await put(daemon, portfolio, "o1", body)
    assert (status, order["version"], len(broken)) == (201, 1, 1)
    events = await told(daemon, portfolio)
    assert [one["seq"] for one in events] == heard == ([1, 2] if body is FILLED else [1])
    assert len(await listed(daemon, portfolio)) == (1 if body is FILLED else 0)


async def test_a_fill_closes_the_position(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "quantity": 10})
    _, order = await put(daemon, portfolio, "o1", {**FILLED, "side": "sell"})
    events = await told(daemon, portfolio, "?since=1")
    assert [one["type"] for one in events] == ["order:updated", "trade:executed", "position:closed"]
    assert events[-1]["transactionId"] == order["transactionId"]


async def test_a_row_with_the_external_id_of_the_order_is_its_transaction(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    _, added = await add(daemon, portfolio, {**BUY, "externalId": "order:o1"})
    _, order = await put(daemon, portfolio, "o1", FILLED)
    assert order["transactionId"] == added["ids"][0]
    assert [row["price"] for row in await listed(daemon, portfolio)] == [99.5]


@pytest.mark.parametrize(
    "other",
    [
        {"date": "2026-11-17", "type": "deposit", "amount": 50, "currency": "USD"},
        {"date": "2026-11-17", "type": "dividend", "symbol": "AAPL", "amount": 5},
        {**BUY, "symbol": "MSFT"},
    ],
)
async def test_a_fill_never_overwrites_what_is_something_else(daemon: ApiDaemon, other: dict[str, Any]) -> None:
    portfolio = await made(daemon)
    _, added = await add(daemon, portfolio, BUY, {**other, "externalId": "order:o1"})
    before = await listed(daemon, portfolio)
    status, problem = await put(daemon, portfolio, "o1", FILLED)
    assert (status, problem["code"], problem["transactionId"]) == (409, "order_row_taken", added["ids"][1])
    assert await listed(daemon, portfolio) == before
    assert (await daemon.get(f"/api/portfolios/{portfolio}/orders/o1", headers=ANN))[0] == 404
