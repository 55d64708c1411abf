"""Files of transactions over HTTP: taken whole or not at all, looked through without a trace, given back exactly."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from pymongo.errors import PyMongoError

from pricecache.api import routes
from pricecache.core.actions import Action
from pricecache.stores import ledger as ledger_store
from pricecache.stores.ledger_batches import LedgerBatches
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolios import ANN, BOB, KEYS, add, listed, made, priced

FILE = """Date,Action,Ticker,Shares,Price,Commission,Note
2026-11-02,Buy,AAPL,10,100,1.5,"first, and best"
2026-11-03,Buy,AAPL,5,101,,
2026-11-03,Buy,AAPL,5,101,,
2026-11-10,Sell,AAPL,4,104,,
"""
SPLIT = Action(TODAY - 8, "split", 4.0, source="scripted")
"""2026-11-12; the closes before it are about 400, those since about 100."""


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def sent(
    daemon: ApiDaemon, portfolio: str, content: Any, query: str = "", kind: str = "text/csv"
) -> tuple[int, Any]:
    target = f"/api/portfolios/{portfolio}/transactions/import{query}"
    return await daemon.call("POST", target, data=content, headers={**ANN, "Content-Type": kind})


async def exported(daemon: ApiDaemon, portfolio: str, query: str = "") -> str:
    url = f"{daemon.base}/api/portfolios/{portfolio}/transactions/export{query}"
    async with daemon.session.get(url, headers=ANN) as response:
        assert response.status == 200
        return await response.text()


def counts(answer: Any) -> tuple[int, int, int]:
    return answer["created"], answer["updated"], answer["unchanged"]


async def state_of(database: Any, portfolio: str) -> Any:
    return await database["ledger_state"].find_one({"_id": portfolio})


# taken in


async def test_a_file_is_taken_and_once_more_changes_nothing(daemon: ApiDaemon, database: Any) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    status, first = await sent(daemon, portfolio, FILE)
    assert (status, counts(first), first["affectsFrom"]) == (201, (4, 0, 0), "2026-11-02")
    rows = await listed(daemon, portfolio)
    assert [row["id"] for row in rows] == first["ids"]
    assert (rows[0]["fees"], rows[0]["note"], rows[3]["type"]) == (1.5, "first, and best", "sell")
    before = await state_of(database, portfolio)
    _, second = await sent(daemon, portfolio, FILE)
    assert (counts(second), second["ids"], second["affectsFrom"]) == ((0, 0, 4), first["ids"], None)
    assert await state_of(database, portfolio) == before
    _, third = await sent(daemon, portfolio, FILE + "2026-11-11,Buy,AAPL,5,101,,\n")
    assert counts(third) == (1, 0, 4)


async def test_files_that_overlap_double_nothing(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    lines = FILE.splitlines(keepends=True)
    for part in (lines[:4], lines[:1] + lines[2:], lines[:1] + lines[:0:-1], lines):
        assert (await sent(daemon, portfolio, "".join(part)))[0] == 201
    assert len(await listed(daemon, portfolio)) == 4


@pytest.mark.parametrize(
    ("name", "kind"), [("x.csv", "text/csv"), ("x.csv", "application/vnd.ms-excel"), ("x.JSON", "application/x-thing")]
)
async def test_a_form_with_a_file_is_taken_too(daemon: ApiDaemon, name: str, kind: str) -> None:
    await daemon.stored()
    portfolio, form = await made(daemon), aiohttp.FormData()
    row = '[{"date": "2026-11-02", "type": "deposit", "amount": 1}]'
    form.add_field("file", row if name.endswith("JSON") else FILE, filename=name, content_type=kind)
    target = f"/api/portfolios/{portfolio}/transactions/import"
    status, answer = await daemon.call("POST", target, data=form, headers=ANN)
    assert (status, answer["created"]) == (201, 1 if name.endswith("JSON") else 4)


async def test_a_form_of_anything_else_is_refused(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    target = f"/api/portfolios/{portfolio}/transactions/import"
    for fields, status, code in (
        ([("other", "x")], 422, "unknown_field"),
        ([("file", FILE), ("file", FILE)], 422, "unknown_field"),
        ([("file", "")], 400, "missing_body"),
    ):
        form = aiohttp.FormData()
        for name, content in fields:
            form.add_field(name, content, filename="x.csv")
        found, problem = await daemon.call("POST", target, data=form, headers=ANN)
        assert (found, problem["code"]) == (status, code)
    for kind, body, status, code in (
        ("multipart/form-data", b"x", 400, "malformed"),
        ("multipart/form-data; boundary=a", b"--b\r\n", 400, "malformed"),
        ("application/x-www-form-urlencoded", FILE, 415, "unsupported_media_type"),
        ("text/csv", b"", 400, "missing_body"),
    ):
        found, problem = await sent(daemon, portfolio, body, kind=kind)
        assert (found, problem["code"]) == (status, code), kind


async def test_a_file_that_is_too_long_is_refused(database: Any) -> None:
    table = [replace(one, max_body_bytes=100) if one.path.endswith("/import") else one for one in routes.ROUTES]
    async with api_daemon(database, keys=KEYS, routes=table) as daemon:
        portfolio = await made(daemon)
        status, problem = await sent(daemon, portfolio, FILE)
        assert (status, problem["code"]) == (413, "body_too_large")

        async def pieces() -> AsyncIterator[bytes]:
            yield FILE.encode()

        status, problem = await sent(daemon, portfolio, pieces())
        assert (status, problem["code"]) == (413, "body_too_large")


async def test_every_fault_is_told_where_it_is_and_nothing_is_stored(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    bad = FILE + '2026-11-11,Buy,AAPL,"1,000",1,,\n2026-11-11,Buy,AAPL,1,-2,,\n2026-13-01,gift,,,,,\n'
    for query in ("", "?dryRun=true"):
        status, answer = await sent(daemon, portfolio, bad, query)
        assert status == (200 if query else 422)
        assert [(e["row"], e["line"], e["column"], e["code"]) for e in answer["errors"]] == [
            (4, 6, "Shares", "ambiguous_number"),
            (5, 7, "Price", "price_not_positive"),
            (6, 8, "Date", "bad_date"),
            (6, 8, "Action", "invalid_value"),
        ]
    status, problem = await sent(daemon, portfolio, FILE.replace("Sell,AAPL,4", "Sell,AAPL,40"))
    assert (status, problem["code"]) == (422, "over_sale")
    assert (problem["errors"][0]["row"], problem["errors"][0]["line"]) == (3, 5)
    assert await listed(daemon, portfolio) == []


async def test_rows_go_to_the_account_that_is_named(daemon: ApiDaemon) -> None:
    portfolio, other = await made(daemon), await made(daemon)
    base = f"/api/portfolios/{portfolio}/accounts"
    _, ira = await daemon.call("POST", base, json={"name": "IRA"}, headers=ANN)
    _, foreign = await daemon.call("POST", f"/api/portfolios/{other}/accounts", json={"name": "IRA"}, headers=ANN)
    text = "date,type,amount,account\n2026-11-02,deposit,1,IRA\n2026-11-02,deposit,1,\n"
    await sent(daemon, portfolio, text)
    assert [row["accountId"] for row in await listed(daemon, portfolio)] == [ira["id"], None]
    _, answer = await sent(daemon, portfolio, text, f"?accountId={ira['id']}")
    assert counts(answer) == (1, 0, 1)
    status, problem = await sent(daemon, portfolio, text, f"?accountId={foreign['id']}")
    assert (status, problem["code"]) == (404, "unknown_account")
    status, problem = await sent(daemon, portfolio, text.replace("IRA", "Roth"))
    assert (status, problem["code"], problem["errors"][0]["column"]) == (422, "unknown_account", "account")


async def test_it_is_for_the_owner_only(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    target = f"/api/portfolios/{portfolio}/transactions"
    for method, path, options in (
        ("GET", f"{target}/export", {}),
        ("POST", f"{target}/import", {"data": FILE}),
        ("POST", f"{target}/import?dryRun=true", {"data": FILE}),
    ):
        headers = {**BOB, "Content-Type": "text/csv"}
        status, problem = await daemon.call(method, path, headers=headers, **options)
        assert (status, problem["code"]) == (404, "unknown_portfolio")


# looked through


async def test_a_dry_run_says_what_would_change_and_leaves_no_trace(daemon: ApiDaemon, database: Any) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    await sent(daemon, portfolio, FILE)
    held = [await state_of(database, portfolio), await listed(daemon, portfolio), len(daemon.services.catalog)]
    changed = FILE.replace('"first, and best"', "other") + "2026-10-20,Buy,NEWONE,3,7.50,,\n"
    status, answer = await sent(daemon, portfolio, changed, "?dryRun=true")
    assert (status, answer["dryRun"], answer["accepted"], answer["errors"]) == (200, True, True, [])
    assert (counts(answer), answer["affectsFrom"]) == ((1, 1, 3), "2026-10-20")
    assert [row["action"] for row in answer["rows"]] == ["update", "unchanged", "unchanged", "unchanged", "create"]
    update = answer["rows"][0]
    assert (update["line"], update["id"]) == (2, held[1][0]["id"])
    assert (update["before"], update["after"]) == ({"note": "first, and best"}, {"note": "other"})
    assert answer["holdings"] == [
        {"symbol": "NEWONE", "market": "US", "accountId": None, "before": 0, "after": 3}
    ]  # fmt: skip
    assert answer["rows"][4]["units"] == {"verdict": "ambiguous", "reason": "not_known_yet"}
    assert [await state_of(database, portfolio), await listed(daemon, portfolio), len(daemon.services.catalog)] == held
    status, answer = await sent(daemon, portfolio, FILE.replace("Sell,AAPL,4", "Sell,AAPL,40"), "?dryRun=true")
    assert (status, answer["accepted"], answer["errors"][0]["code"]) == (200, False, "over_sale")


# units


async def split_prices(daemon: ApiDaemon) -> None:
    days = daemon.services.calendars.get("XNYS").between(TODAY - 30, TODAY - 1).tolist()
    await priced(daemon, AAPL, {day: 400.0 if day < SPLIT.ex_date else 100.0 for day in days}, SPLIT)


RESTATED = """date,type,symbol,quantity,price
2026-11-02,buy,AAPL,40,100
2026-11-03,buy,AAPL,10,400
2026-11-16,sell,AAPL,20,100
"""


async def test_rows_that_look_restated_are_questioned_not_guessed(daemon: ApiDaemon) -> None:
    await split_prices(daemon)
    portfolio = await made(daemon)
    status, problem = await sent(daemon, portfolio, RESTATED)
    assert (status, problem["code"], problem["total"]) == (422, "units_questioned", 1)
    (question,) = problem["errors"]
    assert (question["row"], question["line"], question["field"]) == (0, 2, "quantityBasis")
    assert question["units"] == {
        "verdict": "adjusted", "reason": "in_adjusted_range", "splits": [{"date": "2026-11-12", "ratio": 4.0}],
        "factor": 4.0, "session": "2026-11-02", "low": 400.0, "high": 400.0,
    }  # fmt: skip
    assert await listed(daemon, portfolio) == []
    _, preview = await sent(daemon, portfolio, RESTATED, "?dryRun=true")
    assert (preview["accepted"], preview["errors"][0]["code"]) == (False, "units_questioned")
    assert [row["units"]["verdict"] for row in preview["rows"]] == ["adjusted", "traded", "traded"]
    assert preview["units"] == {"traded": 2, "adjusted": 1, "ambiguous": 0, "notJudged": 0}


@pytest.mark.parametrize(("basis", "questioned", "held"), [("asTraded", 0, 180), ("adjusted", 1, 30)])
async def test_an_answer_is_taken_at_its_word_and_what_contradicts_it_is_told(
    daemon: ApiDaemon, basis: str, questioned: int, held: int
) -> None:
    await split_prices(daemon)
    portfolio = await made(daemon)
    status, answer = await sent(daemon, portfolio, RESTATED, f"?quantityBasis={basis}")
    assert (status, answer["created"], answer["questionsTotal"]) == (201, 3, 1)
    assert (answer["questions"][0]["row"], answer["questions"][0]["isSaid"]) == (questioned, True)
    assert {row["quantityBasis"] for row in await listed(daemon, portfolio)} == {basis}
    _, holdings = await daemon.get(f"/api/portfolios/{portfolio}/holdings", headers=ANN)
    assert holdings["holdings"][0]["quantity"] == held
    status, again = await sent(daemon, portfolio, RESTATED.replace("40,100", "40,100.5"), f"?quantityBasis={basis}")
    assert counts(again) == (1, 0, 2)


async def test_another_answer_changes_the_rows_and_doubles_none(daemon: ApiDaemon) -> None:
    await split_prices(daemon)
    portfolio = await made(daemon)
    await sent(daemon, portfolio, RESTATED, "?quantityBasis=asTraded")
    _, answer = await sent(daemon, portfolio, RESTATED, "?quantityBasis=adjusted&dryRun=true")
    assert counts(answer) == (0, 3, 0)
    assert answer["rows"][0]["before"]["quantityBasis"] == "asTraded"
    assert answer["rows"][0]["after"] == {"quantityBasis": "adjusted", "adjustedAsOf": "2026-11-20"}
    assert answer["holdings"][0] | {"symbol": ""} == {
        "symbol": "", "market": "US", "accountId": None, "before": 180, "after": 30,
    }  # fmt: skip


async def test_what_was_answered_once_is_not_asked_again(daemon: ApiDaemon) -> None:
    await split_prices(daemon)
    portfolio = await made(daemon)
    await sent(daemon, portfolio, RESTATED, "?quantityBasis=adjusted")
    for query, status in (("?dryRun=true", 200), ("", 201)):
        found, answer = await sent(daemon, portfolio, RESTATED, query)
        assert (found, counts(answer), answer["questions"][: bool(query)]) == (status, (0, 0, 3), answer["questions"])
    status, problem = await sent(daemon, portfolio, RESTATED + "2026-11-04,buy,AAPL,8,100\n")
    assert (problem["code"], [row["row"] for row in problem["errors"]]) == ("units_questioned", [3])


async def test_a_row_may_answer_for_itself(daemon: ApiDaemon) -> None:
    await split_prices(daemon)
    portfolio = await made(daemon)
    lines = RESTATED.splitlines()
    text = "\n".join([f"{lines[0]},quantityBasis", f"{lines[1]},Adjusted", *(f"{line}," for line in lines[2:])])
    status, answer = await sent(daemon, portfolio, text)
    assert (status, answer["questions"]) == (201, [])
    assert [row["quantityBasis"] for row in await listed(daemon, portfolio)] == ["adjusted", "asTraded", "asTraded"]


async def test_what_a_portfolio_takes_rows_to_be_in_is_questioned_too(daemon: ApiDaemon) -> None:
    await split_prices(daemon)
    portfolio = await made(daemon, quantityBasis="adjusted")
    status, problem = await sent(daemon, portfolio, RESTATED)
    assert (status, problem["code"], [row["row"] for row in problem["errors"]]) == (422, "units_questioned", [1])


async def test_the_splits_of_a_new_symbol_are_waited_for(daemon: ApiDaemon) -> None:
    daemon.truth(AAPL, 30, [Action(TODAY - 8, "split", 4.0, source="scripted")])
    portfolio = await made(daemon)
    text = "date,type,symbol,quantity,price\n2026-11-03,buy,AAPL,40,58.5\n"
    status, problem = await sent(daemon, portfolio, text)
    assert (status, problem["code"]) == (422, "units_questioned"), problem
    assert await listed(daemon, portfolio) == []
    assert daemon.services.catalog.require(AAPL).tracked


# given back


async def test_an_export_changes_nothing_here_and_makes_the_same_ledger_elsewhere(daemon: ApiDaemon) -> None:
    await split_prices(daemon)
    portfolio, empty = await made(daemon, cashTracking=True), await made(daemon, cashTracking=True)
    accounts = {}
    for one in (portfolio, empty):
        for name in ("Müller; Söhne", "IRA"):
            target = f"/api/portfolios/{one}/accounts"
            _, account = await daemon.call("POST", target, json={"name": name}, headers=ANN)
            accounts[one, name] = account["id"]
    first, second = accounts[portfolio, "Müller; Söhne"], accounts[portfolio, "IRA"]
    buy = {"date": "2026-11-02", "type": "buy", "symbol": "AAPL", "quantity": "40.123456789012", "price": "100.10"}
    moved = {"type": "transfer_out", "symbol": "AAPL", "accountId": first, "toAccountId": second}
    status, added = await add(
        daemon,
        portfolio,
        {**buy, "accountId": first, "quantityBasis": "adjusted", "externalId": "a1", "fees": "0.30",
         "note": '"x"\r\ny'},
        {**buy, "accountId": first, "price": 400, "fxRate": "1.000000000001", "currency": "USD"},
        {**moved, "date": "2026-11-05", "quantity": 1},
        {"date": "2026-11-06", "type": "dividend", "symbol": "AAPL", "amount": "3.33", "exDate": "2026-11-05",
         "link": "r"},
        {"date": "2026-11-06", "type": "deposit", "amount": 100000, "note": " padded "},
        {"date": "2026-11-07", "type": "opening", "symbol": "FUND:CUSTOM", "quantity": 1, "price": 5,
         "acquiredOn": "2020-01-02"},
        {"date": "2026-11-11", "type": "split", "symbol": "AAPL", "ratio": 4},
    )  # fmt: skip
    assert status == 201, added
    said = ("date", "type", "symbol", "market", "quantity", "price", "amount", "fees", "taxes", "currency", "fxRate",
            "ratio", "exDate", "acquiredOn", "quantityBasis", "link", "note")  # fmt: skip
    for kind in ("csv", "json"):
        text = await exported(daemon, portfolio, f"?format={kind}")
        media = {"csv": "text/csv", "json": "application/json"}[kind]
        _, answer = await sent(daemon, portfolio, text.encode(), kind=media)
        assert counts(answer) == (0, 0, 7), kind
        status, answer = await sent(daemon, empty, text.encode(), kind=media)
        assert (status, counts(answer)) == (201, (7, 0, 0) if kind == "csv" else (0, 0, 7)), answer
        here, there = await listed(daemon, portfolio), await listed(daemon, empty)
        assert [[row[name] for name in said] for row in here] == [[row[name] for name in said] for row in there]
        names = {account_id: name for (_, name), account_id in accounts.items()}
        assert [names.get(row["accountId"]) for row in here] == [names.get(row["accountId"]) for row in there]
        assert names[there[2]["toAccountId"]] == "IRA"
    text = (await exported(daemon, portfolio)).replace("IRA", "Gone")
    status, problem = await sent(daemon, empty, text.encode())
    assert (status, problem["code"]) == (422, "unknown_account")
    again = [(await exported(daemon, one)).replace(one, "") for one in (portfolio, empty)]
    assert "40.123456789012,100.10" in again[0]
    assert "1.000000000001" in again[1]


async def test_the_day_of_restating_goes_with_an_export(daemon: ApiDaemon) -> None:
    """A split after it would otherwise be taken to be in the quantity already."""
    days = daemon.services.calendars.get("XNYS").between(TODAY - 30, TODAY - 1).tolist()
    await priced(daemon, AAPL, dict.fromkeys(days, 100.0))
    portfolio, empty = await made(daemon), await made(daemon)
    buy = {"date": "2026-11-02", "type": "buy", "symbol": "AAPL", "quantity": 10, "price": 100}
    await add(daemon, portfolio, {**buy, "quantityBasis": "adjusted"})
    daemon.clock.advance(5 * 86400)
    await priced(daemon, AAPL, {TODAY + 4: 25.0}, Action(TODAY + 4, "split", 4.0))
    await sent(daemon, empty, await exported(daemon, portfolio))
    for one in (portfolio, empty):
        _, answer = await daemon.get(f"/api/portfolios/{one}/holdings", headers=ANN)
        assert answer["holdings"][0]["quantity"] == 40
    changed = (await exported(daemon, portfolio)).replace("2026-11-20,", "2026-11-25,")
    _, answer = await sent(daemon, portfolio, changed)
    assert counts(answer) == (0, 1, 0)


async def test_an_export_is_filtered_and_named(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    await sent(daemon, portfolio, FILE)
    text = await exported(daemon, portfolio, "?type=sell&start=2026-11-05")
    assert [line.split(",")[1:4] for line in text.splitlines()[1:]] == [["2026-11-10", "sell", "AAPL"]]
    url = f"{daemon.base}/api/portfolios/{portfolio}/transactions/export?format=json"
    async with daemon.session.get(url, headers=ANN) as response:
        assert response.headers["Content-Disposition"] == f'attachment; filename="transactions-{portfolio}.json"'
        assert [row["type"] for row in (await response.json())["transactions"]] == ["buy", "buy", "buy", "sell"]


async def test_a_row_is_what_its_id_says_and_no_two_are_the_same(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    deposit = {"date": "2026-11-02", "type": "deposit", "amount": 5}
    _, added = await add(daemon, portfolio, deposit, {**deposit, "externalId": "x"})
    one, other = added["ids"]
    head = "date,type,amount,id,externalId\n"
    _, answer = await sent(daemon, portfolio, f"{head}2026-11-03,deposit,6,{one},\n")
    assert (counts(answer), answer["affectsFrom"]) == ((0, 1, 0), "2026-11-02")
    for text, code in (
        (f"2026-11-03,deposit,7,{one},\n2026-11-03,deposit,8,{one},\n", "duplicate_id"),
        (f"2026-11-03,deposit,7,{one},x\n", "duplicate_external_id"),
        (f"2026-11-03,deposit,7,{other},\n2026-11-03,deposit,8,,x\n", "duplicate_id"),
        ("2026-11-03,deposit,7,,y\n2026-11-03,deposit,8,,y\n", "duplicate_external_id"),
    ):
        status, problem = await sent(daemon, portfolio, head + text)
        assert (status, problem["code"]) == (422, code)


# long ones


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_store, "PACKED_FROM", 3)


@pytest.mark.usefixtures("packed")
async def test_a_change_of_many_rows_counts_from_its_commit_on(
    daemon: ApiDaemon, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is cut off between the commit and putting the rows in their places."""
    await daemon.stored()
    portfolio = await made(daemon)
    _, account = await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json={"name": "a"}, headers=ANN)
    place, cut = LedgerBatches.place, [False]

    async def broken(self: LedgerBatches, portfolio: str) -> None:
        if cut[0]:
            raise PyMongoError("cut off")
        cut[0] = True

    monkeypatch.setattr(LedgerBatches, "place", broken)
    status, answer = await sent(daemon, portfolio, FILE, f"?accountId={account['id']}")
    assert (status, counts(answer)) == (201, (4, 0, 0))
    assert await database["transactions"].count_documents({}) == 0
    daemon.services.ledgers._kept.clear()
    assert [row["id"] for row in await listed(daemon, portfolio)] == answer["ids"]
    monkeypatch.setattr(LedgerBatches, "place", place)
    _, again = await sent(daemon, portfolio, FILE, f"?accountId={account['id']}")
    assert counts(again) == (0, 0, 4)
    target = f"/api/portfolios/{portfolio}/accounts/{account['id']}"
    assert (await daemon.call("DELETE", target, headers=ANN))[1]["code"] == "account_in_use"
    assert await database["ledger_batches"].count_documents({}) == 0
    assert await database["transactions"].count_documents({"portfolio": portfolio}) == 4
    daemon.services.ledgers._kept.clear()
    assert [row["id"] for row in await listed(daemon, portfolio)] == answer["ids"]


@pytest.mark.usefixtures("packed")
async def test_a_later_change_of_one_row_stands_before_what_is_packed(
    daemon: ApiDaemon, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    _, answer = await sent(daemon, portfolio, FILE)
    row = f"/api/portfolios/{portfolio}/transactions/{answer['ids'][1]}"
    body = {"date": "2026-11-03", "type": "buy", "symbol": "AAPL", "quantity": 6, "price": 101}
    assert (await daemon.call("PUT", row, json=body, headers=ANN))[0] == 200
    _, answer = await sent(daemon, portfolio, (await exported(daemon, portfolio)).replace(",101,", ",102,"))
    assert counts(answer) == (0, 2, 2)
    daemon.services.ledgers._kept.clear()
    assert sorted(row["quantity"] for row in await listed(daemon, portfolio)) == [4, 5, 6, 10]
    assert (await daemon.call("DELETE", f"/api/portfolios/{portfolio}", headers=ANN))[0] == 200
    for name in ("transactions", "ledger_batches"):
        assert await database[name].count_documents({}) == 0


@pytest.mark.usefixtures("packed")
async def test_imports_at_once_lose_nothing_and_double_nothing(daemon: ApiDaemon, database: Any) -> None:
    await daemon.stored()
    portfolio = await made(daemon)
    others = [FILE.replace("AAPL,10", f"AAPL,1{n}") for n in range(1, 4)]
    answers = await asyncio.gather(*(sent(daemon, portfolio, text) for text in (FILE, *others, FILE)))
    assert [status for status, _ in answers] == [201] * 5
    assert sum(answer["created"] for _, answer in answers) == 7
    assert len(await listed(daemon, portfolio)) == 7
    assert await database["ledger_batches"].count_documents({}) == 0


def raw(port: int, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    connection.request(method, target, body, headers)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


@pytest.mark.slow
async def test_fifty_thousand_rows_come_in_change_nothing_again_and_go_out(daemon: ApiDaemon) -> None:
    await daemon.stored()
    portfolio, empty = await made(daemon), await made(daemon)
    rows = "".join(
        f"2026-10-{1 + n % 28:02},buy,S{n % 40},{n % 97 + 1}.5,{100 + n % 13},row {n}\n" for n in range(50_000)
    )
    body = f"date,type,symbol,quantity,price,note\n{rows}".encode()
    headers = {**ANN, "Content-Type": "text/csv"}

    async def call(method: str, target: str, content: bytes | None = None, of: str = portfolio) -> tuple[int, bytes]:
        path = f"/api/portfolios/{of}/transactions/{target}"
        return await asyncio.to_thread(raw, daemon.door.port, method, path, content, headers)

    for target, status, begin in (
        ("import?dryRun=true", 200, b'{"dryRun":true,"accepted":true,"created":50000,'),
        ("import", 201, b'{"dryRun":false,"created":50000,'),
        ("import", 201, b'{"dryRun":false,"created":0,"updated":0,"unchanged":50000,'),
    ):
        found, answer = await call("POST", target, body)
        assert (found, answer[: len(begin)]) == (status, begin)
    daemon.services.ledgers._kept.clear()
    _, text = await call("GET", "export")
    assert text.count(b"\r\n") == 50_001
    found, answer = await call("POST", "import", text, of=empty)
    assert (found, answer[:32]) == (201, b'{"dryRun":false,"created":50000,')
