"""Portfolios over HTTP: ledgers that keep every digit, changes that are whole, and histories recomputed by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_of
from pricecache.core.instruments import Instrument
from pricecache.stores.bars import Change
from pricecache.stores.ledger import LedgerMoved, LedgerStore
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon

KEYS = ("operator:ops:ops-key",)
ANN, BOB = ({"X-API-Key": "ops-key", "X-User-Id": user} for user in ("ann", "bob"))
BUY = {"date": "2026-11-02", "type": "buy", "symbol": "AAPL", "quantity": 10, "price": 100}


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def made(daemon: ApiDaemon, **facts: Any) -> str:
    status, portfolio = await daemon.call("POST", "/api/portfolios", json={"name": "Own", **facts}, headers=ANN)
    assert status == 201, portfolio
    return str(portfolio["id"])


async def add(daemon: ApiDaemon, portfolio: str, *rows: dict[str, Any]) -> tuple[int, Any]:
    target = f"/api/portfolios/{portfolio}/transactions"
    return await daemon.call("POST", target, json={"transactions": rows}, headers=ANN)


async def listed(daemon: ApiDaemon, portfolio: str, query: str = "") -> list[dict[str, Any]]:
    status, answer = await daemon.get(f"/api/portfolios/{portfolio}/transactions{query}", headers=ANN)
    assert status == 200, answer
    return list(answer["transactions"])


async def priced(daemon: ApiDaemon, instrument: Instrument, closes: dict[int, float], *actions: Action) -> None:
    """Closes by session: days since 1970-01-01."""
    (entry,) = await daemon.services.instruments.add(
        [instrument], wanted_from=min(closes), tracked=True, by="test", now=daemon.clock.time()
    )
    bars = Bars(np.array(list(closes), np.int64), np.tile(np.array(list(closes.values())), (5, 1)))
    await daemon.services.bars.commit([Change(entry, bars, "scripted", daemon.clock.time(), actions=actions)])


# Portfolios and accounts


async def test_a_portfolio_is_made_read_changed_archived_and_deleted(daemon: ApiDaemon) -> None:
    status, one = await daemon.call("POST", "/api/portfolios", json={"name": "Own"}, headers=ANN)
    assert (status, one["baseCurrency"], one["costBasis"], one["cashTracking"]) == (201, "USD", "fifo", False)
    target = f"/api/portfolios/{one['id']}"
    assert await daemon.get(target, headers=ANN) == (200, one)
    status, changed = await daemon.call(
        "PATCH", target, json={"name": "Ours", "costBasis": "average", "isArchived": True}, headers=ANN
    )
    assert (status, changed["name"], changed["costBasis"], changed["isArchived"]) == (200, "Ours", "average", True)
    assert (await daemon.get("/api/portfolios", headers=ANN))[1]["portfolios"] == [changed]
    assert await daemon.call("DELETE", target, headers=ANN) == (200, {"deleted": one["id"]})
    assert (await daemon.get(target, headers=ANN))[1]["code"] == "unknown_portfolio"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing"),
        ({"name": ""}, "invalid_value"),
        ({"name": "a", "baseCurrency": "GBp"}, "bad_currency"),
        ({"name": "a", "costBasis": "best"}, "invalid_value"),
        ({"name": "a", "timeZone": "Mars/Olympus"}, "unknown_time_zone"),
        ({"name": "a", "colour": "red"}, "unknown_field"),
    ],
)
async def test_a_bad_portfolio_is_not_made(daemon: ApiDaemon, body: dict[str, Any], code: str) -> None:
    status, problem = await daemon.call("POST", "/api/portfolios", json=body, headers=ANN)
    assert (status, problem["code"]) == (422, code)


async def test_what_belongs_to_another_is_not_there(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    _, account = await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json={"name": "IRA"}, headers=ANN)
    _, added = await add(daemon, portfolio, BUY)
    one = f"/api/portfolios/{portfolio}"
    row, inner = f"{one}/transactions/{added['ids'][0]}", f"{one}/accounts/{account['id']}"
    for method, target, body in (
        ("GET", one, None), ("PATCH", one, {"name": "x"}), ("DELETE", one, None),
        ("GET", f"{one}/accounts", None), ("POST", f"{one}/accounts", {"name": "x"}),
        ("PATCH", inner, {"name": "x"}), ("DELETE", inner, None),
        ("GET", f"{one}/transactions", None), ("POST", f"{one}/transactions", BUY),
        ("GET", row, None), ("PUT", row, BUY), ("DELETE", row, None), ("GET", f"{one}/holdings", None),
        ("GET", f"/api/portfolio/history?portfolioId={portfolio}", None),
        ("GET", f"/api/portfolio/history-data/1Y?portfolioId={portfolio}", None),
        ("GET", f"/api/portfolio/performance?portfolioId={portfolio}", None),
        ("GET", f"/api/portfolio/summary?portfolioId={portfolio}", None),
    ):  # fmt: skip
        options = {} if body is None else {"json": body}
        status, problem = await daemon.call(method, target, headers=BOB, **options)
        assert (status, problem["code"]) == (404, "unknown_portfolio"), (method, target)
    assert (await daemon.get("/api/portfolios", headers=BOB))[1] == {"portfolios": []}
    assert len(await listed(daemon, portfolio)) == 1


async def test_an_account_goes_only_when_nothing_names_it(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    target = f"/api/portfolios/{portfolio}/accounts"
    body = {"name": "Retirement", "institution": "Bank", "kind": "401k"}
    status, account = await daemon.call("POST", target, json=body, headers=ANN)
    assert (status, account["institution"], account["kind"]) == (201, "Bank", "401k")
    _, added = await add(daemon, portfolio, {**BUY, "accountId": account["id"]})
    status, problem = await daemon.call("DELETE", f"{target}/{account['id']}", headers=ANN)
    assert (status, problem["code"]) == (409, "account_in_use")
    await daemon.call("DELETE", f"/api/portfolios/{portfolio}/transactions/{added['ids'][0]}", headers=ANN)
    assert (await daemon.call("DELETE", f"{target}/{account['id']}", headers=ANN))[0] == 200
    assert (await daemon.get(target, headers=ANN))[1] == {"accounts": []}
    status, problem = await add(daemon, portfolio, {**BUY, "accountId": account["id"]})
    assert (status, problem["code"]) == (422, "unknown_account")


async def test_nothing_of_a_deleted_portfolio_is_left(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json={"name": "IRA"}, headers=ANN)
    await add(daemon, portfolio, BUY)
    await daemon.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN)
    for name in ("portfolios", "accounts", "transactions", "ledger_state"):
        assert await database[name].count_documents({}) == 0, name


# Transactions


async def test_what_came_in_comes_out_with_every_digit(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    row = {**BUY, "quantity": "0.123456789012", "price": "123456789012.123456", "fees": 0.1, "note": "ä"}
    _, added = await add(daemon, portfolio, row)
    target = f"/api/portfolios/{portfolio}/transactions/{added['ids'][0]}"
    async with daemon.session.get(daemon.base + target, headers=ANN) as response:
        text = await response.text()
        assert response.headers["ETag"] == '"1"'
    assert '"quantity":0.123456789012,"price":123456789012.123456,' in text
    assert '"fees":0.1,' in text
    assert '"note":"ä"' in text


async def test_a_single_object_is_one_transaction(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    status, added = await daemon.call("POST", f"/api/portfolios/{portfolio}/transactions", json=BUY, headers=ANN)
    assert (status, added["created"], len(added["ids"])) == (201, 1, 1)


async def test_the_same_rows_once_more_change_nothing(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    rows = [{**BUY, "externalId": f"x{number}"} for number in range(3)]
    _, first = await add(daemon, portfolio, *rows)
    assert (first["created"], first["updated"], first["unchanged"]) == (3, 0, 0)
    before = await database["ledger_state"].find_one({"_id": portfolio})
    _, second = await add(daemon, portfolio, *rows)
    assert (second["created"], second["updated"], second["unchanged"], second["ids"]) == (0, 0, 3, first["ids"])
    assert await database["ledger_state"].find_one({"_id": portfolio}) == before
    _, third = await add(daemon, portfolio, rows[0], {**rows[1], "price": "100.00"}, {**rows[2], "price": 101})
    assert (third["created"], third["updated"], third["unchanged"], third["ids"]) == (0, 1, 2, first["ids"])


async def test_every_bad_row_is_told_and_nothing_is_stored(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    status, problem = await add(
        daemon,
        portfolio,
        BUY,
        {"date": "2026-02-30", "type": "buy", "symbol": "AAPL", "quantity": "many", "price": 1},
        {"date": "2026-11-02", "type": "sell", "symbol": "AAPL", "quantity": -1},
        {"date": "2026-11-02", "type": "gift"},
        {"date": "2027-01-01", "type": "deposit", "amount": 5},
        {**BUY, "externalId": "a"},
        {**BUY, "externalId": "a"},
        {**BUY, "accountId": "nope"},
        {**BUY, "symbol": "!!"},
    )
    assert (status, problem["code"]) == (422, "transactions_refused")
    assert [(row["row"], row["code"]) for row in problem["errors"]] == [
        (1, "bad_date"),
        (1, "invalid_value"),
        (2, "quantity_not_positive"),
        (2, "price_required"),
        (3, "invalid_value"),
        (4, "date_in_the_future"),
        (6, "duplicate_external_id"),
        (7, "unknown_account"),
        (8, "invalid_symbol"),
    ]
    assert await listed(daemon, portfolio) == []


async def test_more_cannot_be_sold_than_is_held(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    sale = {**BUY, "date": "2026-11-10", "type": "sell", "quantity": 10.5}
    status, problem = await add(daemon, portfolio, BUY, sale)
    assert (status, problem["code"]) == (422, "over_sale")
    assert problem["errors"][0]["row"] == 1
    assert await listed(daemon, portfolio) == []
    _, added = await add(daemon, portfolio, BUY, {**sale, "quantity": 10})
    bought = f"/api/portfolios/{portfolio}/transactions/{added['ids'][0]}"
    status, problem = await daemon.call("PUT", bought, json={**BUY, "date": "2026-11-11"}, headers=ANN)
    assert (status, problem["code"], problem["errors"][0]["id"]) == (422, "over_sale", added["ids"][1])
    assert (await daemon.call("DELETE", bought, headers=ANN))[0] == 422
    await daemon.call("PATCH", f"/api/portfolios/{portfolio}", json={"allowShort": True}, headers=ANN)
    assert (await daemon.call("DELETE", bought, headers=ANN))[0] == 200
    status, problem = await daemon.call(
        "PATCH", f"/api/portfolios/{portfolio}", json={"allowShort": False}, headers=ANN
    )
    assert (status, problem["code"]) == (422, "over_sale")


async def test_a_split_that_is_not_known_yet_is_waited_for(daemon: ApiDaemon) -> None:
    """The shares of before a split are four times as many after it, as soon as the provider has said so."""
    daemon.truth(AAPL, 30, [Action(TODAY - 8, "split", 4.0, source="scripted")])
    portfolio = await made(daemon)
    status, answer = await add(
        daemon, portfolio, {**BUY, "date": "2026-11-03"}, {**BUY, "date": "2026-11-18", "type": "sell", "quantity": 40}
    )
    assert status == 201, answer


async def test_changes_move_the_ledger_on_and_say_from_which_day(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)

    async def state() -> tuple[int, int | None]:
        document = await database["ledger_state"].find_one({"_id": portfolio})
        found = document["generation"], document.get("dirtyFrom")
        await database["ledger_state"].update_one({"_id": portfolio}, {"$unset": {"dirtyFrom": 1}})
        return found

    assert await state() == (0, None)
    _, added = await add(daemon, portfolio, {**BUY, "date": "2026-11-10"})
    ten = TODAY - 10
    assert await state() == (1, ten)
    row = f"/api/portfolios/{portfolio}/transactions/{added['ids'][0]}"
    for day, expected in (("2026-11-05", ten - 5), ("2026-11-12", ten - 5)):
        assert (await daemon.call("PUT", row, json={**BUY, "date": day}, headers=ANN))[0] == 200
        assert (await state())[1] == expected, day
    assert (await daemon.call("DELETE", row, headers=ANN))[0] == 200
    assert await state() == (4, ten + 2)
    await daemon.call("PATCH", f"/api/portfolios/{portfolio}", json={"name": "Other"}, headers=ANN)
    assert await state() == (4, None)
    await daemon.call("PATCH", f"/api/portfolios/{portfolio}", json={"costBasis": "lifo"}, headers=ANN)
    assert await state() == (5, -719162)


async def test_who_is_late_is_told(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    _, account = await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json={"name": "IRA"}, headers=ANN)
    _, added = await add(daemon, portfolio, BUY)
    for target, method, body in (
        (f"/api/portfolios/{portfolio}", "PATCH", {"name": "New"}),
        (f"/api/portfolios/{portfolio}/accounts/{account['id']}", "PATCH", {"name": "New"}),
        (f"/api/portfolios/{portfolio}/transactions/{added['ids'][0]}", "PUT", {**BUY, "price": 101}),
    ):
        first = {**ANN, "If-Match": '"1"'}
        assert (await daemon.call(method, target, json=body, headers=first))[0] == 200
        for late in ("DELETE", method):
            options = {"json": {**body, "note": "x"} if late == "PUT" else body} if late == method else {}
            status, problem = await daemon.call(late, target, headers=first, **options)
            assert (status, problem["code"]) == (412, "version_mismatch"), (late, target)
        status, problem = await daemon.call("DELETE", target, headers={**ANN, "If-Match": "x"})
        assert (status, problem["code"]) == (422, "bad_if_match")
    assert (await listed(daemon, portfolio))[0]["version"] == 2


async def test_writers_at_once_lose_nothing(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    answers = await asyncio.gather(
        *(add(daemon, portfolio, {**BUY, "externalId": f"w{n}"}, {**BUY, "externalId": "shared"}) for n in range(8))
    )
    assert {status for status, _ in answers} == {201}
    assert sum(answer["created"] for _, answer in answers) == 9
    rows = await listed(daemon, portfolio)
    assert len(rows) == 9
    state = await database["ledger_state"].find_one({"_id": portfolio})
    assert (state["generation"], state["places"]) == (8, 9)


@pytest.mark.parametrize("is_stored", [True, False])
async def test_an_outcome_that_is_not_known_is_found_out(
    daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch, is_stored: bool
) -> None:
    """The connection breaks in the commit: the rows are there once, whether it was before the end of it or after."""
    portfolio, commit, broken = await made(daemon), LedgerStore.commit, []

    async def breaking(self: LedgerStore, *given: Any) -> Any:
        state = await commit(self, *given) if is_stored or broken else None
        if not broken:
            broken.append(given)
            raise LedgerMoved
        return state

    monkeypatch.setattr(LedgerStore, "commit", breaking)
    status, added = await add(daemon, portfolio, BUY, {**BUY, "externalId": "x"})
    assert (status, added["created"], len(broken)) == (201, 2, 1)
    assert [row["id"] for row in await listed(daemon, portfolio)] == added["ids"]


async def test_a_change_of_unknown_outcome_is_told_as_done(daemon: ApiDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the commit: the second attempt finds the row changed, or gone, as it was to be."""
    portfolio, commit = await made(daemon), LedgerStore.commit
    _, added = await add(daemon, portfolio, BUY)
    target, broken = f"/api/portfolios/{portfolio}/transactions/{added['ids'][0]}", []

    async def breaking(self: LedgerStore, *given: Any) -> Any:
        state = await commit(self, *given)
        if not broken:
            broken.append(given)
            raise LedgerMoved
        return state

    monkeypatch.setattr(LedgerStore, "commit", breaking)
    status, row = await daemon.call("PUT", target, json={**BUY, "quantity": 7}, headers={**ANN, "If-Match": '"1"'})
    assert (status, row["quantity"], row["version"]) == (200, 7, 2)
    broken.clear()
    assert (await daemon.call("DELETE", target, headers=ANN))[0] == 200
    assert await listed(daemon, portfolio) == []


async def test_only_one_of_two_sells_the_same_shares(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    await add(daemon, portfolio, BUY)
    sale = {**BUY, "date": "2026-11-10", "type": "sell", "quantity": 8}
    answers = await asyncio.gather(*(add(daemon, portfolio, sale) for _ in range(2)))
    assert sorted(status for status, _ in answers) == [201, 422]


async def test_thousands_of_rows_go_in_at_once(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    rows = [{**BUY, "quantity": f"{n}.5", "externalId": f"r{n}"} for n in range(1, 3001)]
    status, added = await add(daemon, portfolio, *rows)
    assert (status, added["created"]) == (201, 3000)
    assert len(await listed(daemon, portfolio, "?limit=10&offset=2995")) == 5


async def test_transactions_are_filtered(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    await add(
        daemon,
        portfolio,
        BUY,
        {**BUY, "date": "2026-11-05", "symbol": "MSFT", "externalId": "m"},
        {"date": "2026-11-04", "type": "deposit", "amount": 5},
    )
    assert [row["date"] for row in await listed(daemon, portfolio)] == ["2026-11-02", "2026-11-04", "2026-11-05"]
    for query, days in (
        ("?symbol=MSFT", [5]), ("?type=deposit", [4]), ("?start=2026-11-04", [4, 5]), ("?end=2026-11-04", [2, 4]),
        ("?externalId=m", [5]), ("?limit=1&offset=1", [4]), ("?market=US", [2, 5]),
    ):  # fmt: skip
        assert [int(row["date"][-2:]) for row in await listed(daemon, portfolio, query)] == days, query


async def test_what_a_ledger_names_is_kept_from_before_its_first_use(daemon: ApiDaemon) -> None:
    daemon.truth(AAPL)
    portfolio = await made(daemon, baseCurrency="EUR")
    await add(
        daemon,
        portfolio,
        {**BUY, "date": "2025-01-15"},
        {**BUY, "symbol": "FUND", "market": "CUSTOM", "currency": "CHF", "date": "2026-10-01"},
    )
    catalog = daemon.services.catalog
    first = TODAY - 674
    assert day_of(first).isoformat() == "2025-01-15"
    for symbol, market in (("AAPL", "US"), ("USDEUR=X", "FX")):
        entry = catalog.require(Instrument(symbol, market))
        assert (entry.tracked, entry.state.wanted_from) == (True, first - 10), symbol
    fund, pair = catalog.require(Instrument("FUND", "CUSTOM")), catalog.require(Instrument("CHFEUR=X", "FX"))
    assert (fund.tracked, fund.currency, pair.tracked) == (False, "CHF", True)


# Values


async def test_a_small_ledger_is_what_it_is_by_hand(daemon: ApiDaemon) -> None:
    """Monday the 9th to Friday the 13th of November, and the Saturday after; Thursday has no price."""
    monday = TODAY - 11
    await priced(daemon, AAPL, dict(zip(range(monday, monday + 5), (100.0, 102.0, 104.0, 101.0, 110.0), strict=True)))
    portfolio = await made(daemon)
    account = (await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json={"name": "IRA"}, headers=ANN))[
        1
    ]["id"]
    await add(
        daemon,
        portfolio,
        {**BUY, "date": "2026-11-09", "quantity": 10, "price": 99, "fees": 10, "accountId": account},
        {**BUY, "date": "2026-11-10", "quantity": 5, "price": 103},
        {**BUY, "date": "2026-11-11", "type": "sell", "quantity": 4, "price": 105, "taxes": 2, "accountId": account},
        {"date": "2026-11-12", "type": "dividend", "symbol": "AAPL", "amount": 3},
    )
    query = f"?portfolioId={portfolio}&end=2026-11-14"
    status, answer = await daemon.get(f"/api/portfolio/history{query}", headers=ANN)
    assert status == 200, answer
    assert (answer["source"], answer["start"], answer["end"]) == ("computed", "2026-11-09", "2026-11-14")
    assert answer["reasons"] == {"cash": "cash_not_tracked"}
    columns = {name: [row[name] for row in answer["history"]] for name in answer["history"][0]}
    # bought 10 for 990 + 10; 5 for 515; sold 4 of the first ten: cost 400, proceeds 420 - 2
    assert columns["totalValue"] == [1000, 1530, 1144, 1111, 1210, 1210]
    assert columns["totalCost"] == [1000, 1515, 1115, 1115, 1115, 1115]
    assert columns["totalSaleProceeds"] == [0, 0, 418, 418, 418, 418]
    assert columns["totalOriginalCost"] == [0, 0, 400, 400, 400, 400]
    assert columns["totalRealizedGainLoss"] == [0, 0, 18, 18, 18, 18]
    assert columns["totalUnrealizedGainLoss"] == [0, 15, 29, -4, 95, 95]
    assert columns["totalGainLoss"] == [0, 15, 47, 14, 113, 113]
    assert columns["totalDividends"] == [0, 0, 0, 3, 3, 3]
    assert columns["netFlow"] == [1000, 515, -418, -3, 0, 0]
    assert columns["cash"] == [None] * 6
    assert columns["coverage"] == [1] * 6
    assert columns["estimated"] == [False] * 6
    links = [1000 / 1000, 1530 / 1515, (1144 + 418) / 1530, (1111 + 3) / 1144, 1210 / 1111, 1]
    assert columns["returnIndex"] == pytest.approx(np.cumprod(links).tolist())
    _, own = await daemon.get(f"/api/portfolio/history{query}&accountId={account}", headers=ANN)
    assert [row["totalValue"] for row in own["history"]] == [1000, 1020, 624, 606, 660, 660]
    _, found = await daemon.get(f"/api/portfolios/{portfolio}/holdings?date=2026-11-14&explain=true", headers=ANN)
    assert (found["date"], found["totalValue"], found["totalCost"]) == ("2026-11-14", 1210, 1115)
    rows = {row["accountId"]: row for row in found["holdings"]}
    one = rows[account]
    assert (one["quantity"], one["averageCost"], one["cost"], one["price"]) == (6, 100, 600, 110)
    assert (one["priceDate"], one["value"], one["unrealizedGainLoss"]) == ("2026-11-13", 660, 60)
    assert one["lots"] == [
        {"quantity": 6, "cost": 600, "acquiredOn": "2026-11-09", "transactionId": one["lots"][0]["transactionId"]}
    ]
    assert rows[None]["dividends"] == 3
    _, returned = await daemon.get(f"/api/portfolio/performance{query}", headers=ANN)
    assert returned["twr"] == pytest.approx(np.prod(links) - 1)
    assert (returned["startValue"], returned["endValue"], returned["netFlow"]) == (1000, 1210, 94)
    assert (returned["gain"], returned["twrAnnualized"]) == (116, None)
    assert returned["reasons"] == {"twrAnnualized": "under_a_year"}


async def test_money_in_another_currency_is_turned_at_the_rate_of_the_day(daemon: ApiDaemon) -> None:
    """A rate that was recorded stands before the market's; without any there is no value, and no rate of 1."""
    monday = TODAY - 11
    await priced(daemon, AAPL, {monday: 100.0, monday + 1: 110.0})
    portfolio = await made(daemon, baseCurrency="EUR")
    row = {**BUY, "date": "2026-11-09", "quantity": 2, "price": 100, "fxRate": "0.9"}
    await add(daemon, portfolio, row)
    target = f"/api/portfolios/{portfolio}/holdings?date=2026-11-10"
    _, found = await daemon.get(target, headers=ANN)
    (one,) = found["holdings"]
    assert (one["cost"], one["value"], one["fxRate"]) == (180, None, None)
    assert one["reasons"]["value"] == "rate_unknown"
    assert (found["totalValue"], found["reasons"]["totalValue"]) == (None, "no_price_or_rate")
    await priced(daemon, Instrument("USDEUR=X", "FX"), {monday: 0.8, monday + 1: 0.85})
    _, found = await daemon.get(target, headers=ANN)
    (one,) = found["holdings"]
    assert (one["cost"], one["value"], one["fxRate"], one["unrealizedGainLoss"]) == (180, 187, 0.85, 7)


async def test_what_has_no_rate_yet_is_nobodys_loss(daemon: ApiDaemon) -> None:
    """A value that lacks something says so, and no gain is told from it."""
    monday = TODAY - 11
    await priced(daemon, AAPL, {monday: 100.0, monday + 1: 110.0})
    portfolio = await made(daemon)
    await add(
        daemon,
        portfolio,
        {**BUY, "date": "2026-11-09", "quantity": 10, "price": 100},
        {**BUY, "date": "2026-11-10", "symbol": "FUND", "market": "CUSTOM", "quantity": 20, "price": 50,
         "currency": "CHF", "fxRate": 1},
    )  # fmt: skip
    query = f"?portfolioId={portfolio}&end=2026-11-10"
    _, answer = await daemon.get(f"/api/portfolio/history{query}", headers=ANN)
    row = answer["history"][-1]
    assert (row["totalValue"], row["totalCost"]) == (1100, 2000)
    assert row["coverage"] < 1
    assert row["reasons"] == {"totalValue": "some_values_unknown"}
    _, returned = await daemon.get(f"/api/portfolio/performance{query}", headers=ANN)
    assert (returned["gain"], returned["irr"], returned["endValue"]) == (None, None, 1100)
    assert {returned["reasons"][name] for name in ("gain", "irr", "endValue")} == {"some_values_unknown"}
    alone = await made(daemon)
    await add(daemon, alone, {**BUY, "date": "2026-11-02", "symbol": "LATE"})
    _, answer = await daemon.get(f"/api/portfolio/history?portfolioId={alone}&end=2026-11-02", headers=ANN)
    row = answer["history"][0]
    assert (row["totalValue"], row["totalUnrealizedGainLoss"], row["totalGainLoss"]) == (None, None, None)
    unknown = ("totalValue", "totalUnrealizedGainLoss", "totalGainLoss")
    assert {name: row["reasons"][name] for name in unknown} == dict.fromkeys(unknown, "no_price_or_rate")
    _, found = await daemon.get(f"/api/portfolios/{alone}/holdings?date=2026-11-02", headers=ANN)
    assert (found["totalValue"], found["reasons"]["totalValue"]) == (None, "no_price_or_rate")


async def test_a_correction_of_a_price_is_seen_at_once(daemon: ApiDaemon) -> None:
    monday = TODAY - 11
    await priced(daemon, AAPL, {monday: 100.0, monday + 1: 110.0})
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "date": "2026-11-09"})
    target = f"/api/portfolio/history?portfolioId={portfolio}&start=2026-11-10&end=2026-11-10"
    assert (await daemon.get(target, headers=ANN))[1]["history"][0]["totalValue"] == 1100
    await priced(daemon, AAPL, {monday + 1: 111.0})
    assert (await daemon.get(target, headers=ANN))[1]["history"][0]["totalValue"] == 1110


async def test_a_session_that_runs_is_worth_its_latest_quote(daemon: ApiDaemon) -> None:
    daemon.clock.advance(6 * 3600)
    await daemon.stored()
    portfolio = await made(daemon)
    await add(daemon, portfolio, BUY)
    daemon.quoted(AAPL, 200.0)
    _, answer = await daemon.get(f"/api/portfolio/history?portfolioId={portfolio}&start=2026-11-19", headers=ANN)
    assert [row["totalValue"] for row in answer["history"]][-1] == 2000
    assert answer["provisional"] == ["2026-11-20"]


async def test_a_period_ends_today_and_begins_with_the_first_transaction(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    await add(daemon, portfolio, BUY)
    for period, start in (("1W", "2026-11-13"), ("1y", "2026-11-02"), ("YTD", "2026-11-02"), ("MAX", "2026-11-02")):
        status, answer = await daemon.get(f"/api/portfolio/history-data/{period}", headers=ANN)
        assert (status, answer["start"], answer["end"]) == (200, start, "2026-11-20"), period
        assert answer["history"][0]["date"] == start
    assert (await daemon.get("/api/portfolio/history-data/7Q", headers=ANN))[1]["code"] == "unknown_period"


async def test_a_portfolio_without_transactions_has_no_history(daemon: ApiDaemon) -> None:
    assert (await daemon.get("/api/portfolio/history", headers=ANN))[1]["code"] == "unknown_portfolio"
    portfolio = await made(daemon)
    _, answer = await daemon.get("/api/portfolio/history", headers=ANN)
    assert (answer["portfolioId"], answer["history"], answer["start"]) == (portfolio, [], None)
    _, found = await daemon.get(f"/api/portfolios/{portfolio}/holdings", headers=ANN)
    assert (found["holdings"], found["totalValue"]) == ([], 0)
    status, returned = await daemon.get("/api/portfolio/performance", headers=ANN)
    assert (status, returned["twr"], returned["reasons"]["twr"]) == (200, None, "no_days")


async def test_several_portfolios_stand_beside_their_total(daemon: ApiDaemon) -> None:
    """One in dollars, one in euros, and one that is archived and so left out of the total unless it is asked for."""
    monday = TODAY - 11
    await priced(daemon, AAPL, {monday: 100.0, monday + 1: 110.0})
    await priced(daemon, Instrument("USDEUR=X", "FX"), {monday: 0.5, monday + 1: 0.5})
    await priced(daemon, Instrument("EURUSD=X", "FX"), {monday: 2.0, monday + 1: 2.0})
    ids = [await made(daemon, baseCurrency=currency) for currency in ("USD", "EUR", "USD")]
    for portfolio, quantity in zip(ids, (1, 2, 4), strict=True):
        await add(daemon, portfolio, {**BUY, "date": "2026-11-09", "quantity": quantity})
    await daemon.call("PATCH", f"/api/portfolios/{ids[2]}", json={"isArchived": True}, headers=ANN)
    target = "/api/portfolio/history?start=2026-11-10&end=2026-11-10"
    _, answer = await daemon.get(target, headers=ANN)
    assert [one["portfolioId"] for one in answer["portfolios"]] == ids
    assert [one["history"][0]["totalValue"] for one in answer["portfolios"]] == [110, 110, 440]
    (row,) = answer["total"]["history"]
    assert (answer["total"]["baseCurrency"], row["totalValue"], row["totalCost"]) == ("USD", 330, 300)
    assert row["returnIndex"] == pytest.approx(1.1)
    _, answer = await daemon.get(target + "&includeArchived=true&currency=EUR", headers=ANN)
    assert answer["total"]["history"][0]["totalValue"] == 385
    two = f"portfolioId={ids[0]}&portfolioId={ids[1]}"
    _, answer = await daemon.get(f"{target}&{two}", headers=ANN)
    assert answer["total"]["history"][0]["totalValue"] == 330
    _, answer = await daemon.get(f"/api/portfolio/performance?{two}&end=2026-11-10", headers=ANN)
    assert answer["total"]["twr"] == pytest.approx(0.1)
    assert (answer["total"]["startValue"], answer["total"]["gain"]) == (300, 30)
    _, answer = await daemon.get(f"{target}&{two}&accountId=x", headers=ANN)
    assert answer["code"] == "portfolio_needed"


async def test_a_renamed_instrument_stays_one_position(daemon: ApiDaemon) -> None:
    await daemon.stored(Instrument("OLD"))
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "symbol": "OLD"})
    body = {"to": "NEW", "on": "2026-11-10"}
    status, _ = await daemon.call("POST", "/cache/symbols/OLD/rename", json=body, headers=ANN)
    assert status == 200
    status, answer = await add(daemon, portfolio, {**BUY, "symbol": "NEW", "date": "2026-11-12", "type": "sell"})
    assert status == 201, answer
    assert {row["symbol"] for row in await listed(daemon, portfolio)} == {"NEW"}


async def test_a_renamed_instrument_stays_one_position_where_the_history_goes_on(daemon: ApiDaemon) -> None:
    """What is kept of the days before has the former symbol, and a row of today casts no doubt on it."""
    await priced(daemon, Instrument("OLD"), {TODAY - 11: 100.0})
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "symbol": "OLD", "date": "2026-11-09", "quantity": 2})
    target = f"/api/portfolios/{portfolio}/holdings"
    assert [one["symbol"] for one in (await daemon.get(target, headers=ANN))[1]["holdings"]] == ["OLD"]
    body = {"to": "NEW", "on": "2026-11-10"}
    status, _ = await daemon.call("POST", "/cache/symbols/OLD/rename", json=body, headers=ANN)
    assert status == 200
    await add(daemon, portfolio, {**BUY, "symbol": "NEW", "date": "2026-11-20", "quantity": 1})
    held = (await daemon.get(target, headers=ANN))[1]["holdings"]
    assert [(one["symbol"], one["quantity"]) for one in held] == [("NEW", 3)]
    _, history = await daemon.get(f"/api/portfolio/history?portfolioId={portfolio}", headers=ANN)
    _, computed = await daemon.get(f"/api/portfolio/history?portfolioId={portfolio}&useMaterialized=false", headers=ANN)
    assert history["history"] == computed["history"]


async def test_what_is_stored_is_exact(daemon: ApiDaemon, database: Any) -> None:
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "quantity": "10.50", "price": 0.1})
    stored = await database["transactions"].find_one({"portfolio": portfolio})
    assert (stored["quantity"], stored["price"]) == ("10.50", "0.1")
    assert Decimal(stored["price"]) * 3 == Decimal("0.3")


async def test_a_holding_tells_where_its_price_and_its_rate_are_from(daemon: ApiDaemon) -> None:
    monday = TODAY - 11
    await priced(daemon, AAPL, {monday: 100.0, monday + 1: 110.0})
    await priced(daemon, Instrument("USDEUR=X", "FX"), {monday: 0.5})
    portfolio = await made(daemon, baseCurrency="EUR")
    await add(daemon, portfolio, {**BUY, "date": "2026-11-09"})
    body = {"currency": "USD", "bars": [{"date": "2026-11-10", "close": 111}]}
    assert (await daemon.call("PUT", "/cache/historical/AAPL", json=body, headers=ANN))[0] == 200
    target = f"/api/portfolios/{portfolio}/holdings?explain=true"
    _, found = await daemon.get(f"{target}&date=2026-11-09", headers=ANN)
    price, rate = (found["holdings"][0]["explain"][name] for name in ("price", "rate"))
    assert (price["source"], price["ageDays"], price["provisional"]) == ("scripted", 0, False)
    assert price["fetchedAt"] == "2026-11-20T10:00:00Z"
    assert (rate["pair"], rate["rate"], rate["source"]) == ("USDEUR=X", 0.5, "scripted")
    _, found = await daemon.get(f"{target}&date=2026-11-12", headers=ANN)
    price, rate = (found["holdings"][0]["explain"][name] for name in ("price", "rate"))
    assert (price["close"], price["source"], price["ageDays"]) == (111, "manual", 2)
    assert (rate["date"], rate["ageDays"]) == ("2026-11-09", 3)
    daemon.clock.advance(6 * 3600)
    daemon.quoted(AAPL, 200.0)
    _, found = await daemon.get(target, headers=ANN)
    price = found["holdings"][0]["explain"]["price"]
    assert (price["close"], price["source"], price["provisional"], price["ageDays"]) == (200, "scripted", True, 0)


async def test_what_is_held_is_worth_what_the_history_says(daemon: ApiDaemon) -> None:
    """To the cent: both add up their rounded accounts, however many positions are rounded on the way."""
    names = [Instrument(f"S{n}") for n in range(9)]
    for name in names:
        await priced(daemon, name, {TODAY - 11: 33.333, TODAY - 10: 33.337})
    portfolio = await made(daemon)
    rows = [{**BUY, "date": "2026-11-09", "symbol": name.symbol, "quantity": 1, "price": 33} for name in names]
    await add(daemon, portfolio, *rows)
    _, found = await daemon.get(f"/api/portfolios/{portfolio}/holdings?date=2026-11-09", headers=ANN)
    _, answer = await daemon.get(f"/api/portfolio/history?portfolioId={portfolio}&end=2026-11-09", headers=ANN)
    assert found["totalValue"] == answer["history"][0]["totalValue"] == 300.0
    assert sum(one["value"] for one in found["holdings"]) == pytest.approx(299.97)
