"""Portfolios by account over HTTP: shares, changes, groups, days, several together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.core.instruments import Instrument
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolios import ANN, BOB, BUY, KEYS, add, made, priced
from tests.shapes import DOCUMENT, faults

HOUR = 3600
MSFT, EUROS = Instrument("MSFT"), Instrument("EURUSD=X", "FX")
TARGET = "/api/portfolio/account-breakdown"


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """It is Friday, 10:00 UTC: New York opens at 14:30."""
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def breakdown(daemon: ApiDaemon, query: str = "") -> dict[str, Any]:
    status, answer = await daemon.get(f"{TARGET}?{query}", headers=ANN)
    assert status == 200, answer
    return dict(answer)


async def got(daemon: ApiDaemon, what: str, query: str) -> dict[str, Any]:
    status, answer = await daemon.get(f"/api/portfolio/{what}?{query}", headers=ANN)
    assert status == 200, answer
    return dict(answer)


async def account(daemon: ApiDaemon, portfolio: str, **facts: Any) -> str:
    status, one = await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json=facts, headers=ANN)
    assert status == 201, one
    return str(one["id"])


async def with_two_accounts(daemon: ApiDaemon, **rules: Any) -> tuple[str, str, str]:
    """Six shares in an IRA and four in a 401k since the 2nd; Wednesday closed at 100, Thursday at 110."""
    await priced(daemon, AAPL, {TODAY - 18: 90.0, TODAY - 2: 100.0, TODAY - 1: 110.0})
    portfolio = await made(daemon, **rules)
    ira = await account(daemon, portfolio, name="IRA", institution="Fidelity", kind="ira")
    plan = await account(daemon, portfolio, name="Plan", institution="Vanguard", kind="401k")
    for one, quantity in ((ira, 6), (plan, 4)):
        status, _ = await add(daemon, portfolio, {**BUY, "price": 90, "quantity": quantity, "accountId": one})
        assert status == 201
    return portfolio, ira, plan


async def test_each_account_has_its_value_share_and_change(daemon: ApiDaemon) -> None:
    portfolio, ira, plan = await with_two_accounts(daemon)
    found = await breakdown(daemon)
    assert (found["portfolioId"], found["date"], found["asOf"]) == (portfolio, "2026-11-20", "2026-11-20T10:00:00Z")
    assert (found["totalValue"], found["totalCost"], found["dayChange"], found["baseCurrency"]) == (
        1100,
        900,
        100,
        "USD",
    )
    assert (found["cash"], found["reasons"]) == (None, {"cash": "cash_not_tracked"})
    first, second = found["accounts"]
    assert first == {
        "accountId": ira, "name": "IRA", "institution": "Fidelity", "kind": "ira", "isArchived": False, "value": 660,
        "share": 0.6, "cost": 540, "unrealizedGainLoss": 120, "realizedGainLoss": 0, "dividends": 0, "cash": None,
        "previousValue": 600, "dayFlow": 0, "dayChange": 60, "dayChangePercent": pytest.approx(10), "estimated": False,
    }  # fmt: skip
    assert (second["accountId"], second["value"], second["share"], second["dayChange"]) == (plan, 440, 0.4, 40)
    assert [(one["institution"], one["accountCount"], one["value"]) for one in found["institutions"]] == [
        ("Fidelity", 1, 660),
        ("Vanguard", 1, 440),
    ]
    assert [(one["kind"], one["share"]) for one in found["kinds"]] == [("ira", 0.6), ("401k", 0.4)]


async def test_every_shape_of_it_is_documented(daemon: ApiDaemon) -> None:
    portfolio, ira, _ = await with_two_accounts(daemon)
    queries = ["", f"portfolioId={portfolio}&accountId={ira}", "date=2026-11-19", "history=true"]
    queries.append("history=true&format=columns")
    for query in queries:
        assert faults(TARGET, await breakdown(daemon, query)) == [], query
    await made(daemon)
    for query in ("", "history=true", "history=true&format=columns"):
        answer = await breakdown(daemon, query)
        assert answer.keys() == {"portfolios", "total"}
        assert faults(TARGET, answer) == [], query
    content = DOCUMENT["paths"][TARGET]["get"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "text/csv"}


@pytest.mark.parametrize("several", [False, True])
async def test_every_shape_of_histories_returns_and_summaries_is_documented(daemon: ApiDaemon, several: bool) -> None:
    await with_two_accounts(daemon, cashTracking=True)
    if several:
        await made(daemon)
    for what, query in (
        ("history", ""),
        ("history", "format=columns"),
        ("performance", "explain=true&by=account&benchmark=AAPL"),
        ("performance", "by=position"),
        ("summary", "by=account"),
    ):
        answer = await got(daemon, what, query)
        assert ("portfolios" in answer) is several
        assert faults(f"/api/portfolio/{what}", answer) == [], (what, query)
    answer = await got(daemon, "history-data/1M", "")
    assert faults("/api/portfolio/history-data/{period}", answer) == []


async def test_now_it_says_what_the_summary_says_of_each_account(daemon: ApiDaemon) -> None:
    portfolio, ira, _ = await with_two_accounts(daemon)
    await add(
        daemon, portfolio, {**BUY, "date": "2026-11-20", "type": "sell", "quantity": 2, "price": 120, "accountId": ira}
    )
    daemon.clock.advance(6 * HOUR)
    daemon.quoted(AAPL, 121.0, session=TODAY, open=112.0)
    found, whole = await breakdown(daemon), await got(daemon, "summary", "")
    for one in found["accounts"]:
        own = await got(daemon, "summary", f"portfolioId={portfolio}&accountId={one['accountId']}")
        assert (one["value"], one["dayChange"], one["dayFlow"]) == (own["totalValue"], own["dayChange"], own["dayFlow"])
        assert (one["dayChangePercent"], one["cost"]) == (own["dayChangePercent"], own["totalCost"])
        assert one["realizedGainLoss"] == own["totalRealizedGainLoss"]
    for name in ("totalValue", "totalCost", "dayChange", "dayChangePercent", "previousValue", "dayFlow"):
        assert found[name] == whole[name], name


async def test_of_a_day_it_says_what_the_history_says_of_it(daemon: ApiDaemon) -> None:
    portfolio, ira, plan = await with_two_accounts(daemon)
    await add(daemon, portfolio, {**BUY, "date": "2026-11-19", "quantity": 1, "price": 108, "accountId": ira})
    found = await breakdown(daemon, "date=2026-11-19")
    assert (found["date"], found["asOf"], found["provisional"]) == ("2026-11-19", None, False)
    (row,) = (await got(daemon, "history", "start=2026-11-19&end=2026-11-19"))["history"]
    for name in ("totalValue", "totalCost", "totalUnrealizedGainLoss", "totalRealizedGainLoss", "totalDividends"):
        assert found[name] == row[name], name
    first, second = found["accounts"]
    # 6 shares from 100 to 110, and one bought at 108
    assert (first["value"], first["dayFlow"], first["dayChange"]) == (770, 108, 62)
    assert first["dayChangePercent"] == pytest.approx(100 * 62 / 708)
    assert (second["accountId"], second["value"], second["dayChange"]) == (plan, 440, 40)
    today = await breakdown(daemon, "date=2027-01-01")
    assert (today["date"], today["provisional"], today["dayChange"]) == ("2026-11-20", True, 0)
    before = await breakdown(daemon, "date=2026-10-01")
    assert (before["totalValue"], before["dayChange"]) == (0, 0)
    assert [(one["value"], one["share"], one["reasons"]["share"]) for one in before["accounts"]] == [
        (0, None, "no_capital")
    ] * 2


async def test_the_days_of_each_account_are_those_of_its_history(daemon: ApiDaemon) -> None:
    portfolio, ira, _ = await with_two_accounts(daemon)
    found = await breakdown(daemon, "history=true")
    assert (found["start"], found["end"]) == ("2026-11-02", "2026-11-20")
    own = await got(daemon, "history", f"portfolioId={portfolio}&accountId={ira}")
    days = found["accounts"][0]["history"]
    assert [(one["date"], one["totalValue"]) for one in days] == [
        (one["date"], one["totalValue"]) for one in own["history"]
    ]
    assert days[-1] == {"date": "2026-11-20", "totalValue": 660, "share": 0.6}
    columns = await breakdown(daemon, "start=2026-11-18&end=2026-11-19&format=columns")
    assert (columns["start"], columns["dates"]) == ("2026-11-18", ["2026-11-18", "2026-11-19"])
    assert columns["accounts"][1]["history"] == {"totalValue": [400, 440], "share": [0.4, 0.4], "reasons": {}}


async def test_both_ways_give_the_same(daemon: ApiDaemon) -> None:
    await with_two_accounts(daemon)
    query = "date=2026-11-19&history=true"
    assert await breakdown(daemon, query) == await breakdown(daemon, query + "&useMaterialized=false")


async def test_rows_without_an_account_are_one_of_their_own(daemon: ApiDaemon) -> None:
    portfolio, *_ = await with_two_accounts(daemon)
    await add(daemon, portfolio, {**BUY, "price": 90, "quantity": 10})
    await account(daemon, portfolio, name="Empty")
    found = await breakdown(daemon, "history=true")
    *_, empty, without = found["accounts"]
    assert (empty["name"], empty["value"], empty["share"]) == ("Empty", 0, 0)
    assert {(day["totalValue"], day["share"]) for day in empty["history"]} == {(0, 0)}
    assert (without["accountId"], without["name"], without["value"], without["share"]) == (None, None, 1100, 0.5)
    assert [(one["institution"], one["accountCount"], one["value"]) for one in found["institutions"]] == [
        (None, 2, 1100),
        ("Fidelity", 1, 660),
        ("Vanguard", 1, 440),
    ]


async def test_one_account_by_itself_keeps_its_share_of_the_whole(daemon: ApiDaemon) -> None:
    portfolio, ira, _ = await with_two_accounts(daemon)
    found = await breakdown(daemon, f"portfolioId={portfolio}&accountId={ira}")
    assert [(one["accountId"], one["share"]) for one in found["accounts"]] == [(ira, 0.6)]
    assert found["totalValue"] == 1100
    status, problem = await daemon.get(f"{TARGET}?accountId=nobody", headers=ANN)
    assert (status, problem["code"]) == (404, "unknown_account")


async def test_a_transfer_is_a_flow_of_accounts_and_no_change_of_any(daemon: ApiDaemon) -> None:
    portfolio, ira, plan = await with_two_accounts(daemon)
    moved = {"date": "2026-11-19", "type": "transfer_out", "symbol": "AAPL", "quantity": 2, "accountId": ira}
    status, answer = await add(daemon, portfolio, {**moved, "toAccountId": plan})
    assert status == 201, answer
    for query in ("", "date=2026-11-19"):
        found = await breakdown(daemon, query)
        assert [(one["value"], one["dayFlow"], one["dayChange"]) for one in found["accounts"]] == [
            (440, -220, 60),
            (660, 220, 40),
        ]
        assert (found["dayFlow"], found["dayChange"]) == (0, 100)
        assert found["dayChangePercent"] == pytest.approx(10)


async def test_cash_is_in_its_account(daemon: ApiDaemon) -> None:
    await priced(daemon, EUROS, {TODAY - 18: 1.0, TODAY - 1: 1.0, TODAY: 1.1})
    portfolio = await made(daemon, cashTracking=True)
    euros, dollars = [await account(daemon, portfolio, name=name) for name in ("Euros", "Dollars")]
    deposit = {"date": "2026-11-02", "type": "deposit", "amount": 100}
    taken = {**deposit, "type": "withdrawal", "amount": 150, "accountId": dollars}
    await add(
        daemon, portfolio, {**deposit, "currency": "EUR", "accountId": euros}, {**deposit, "accountId": dollars}, taken
    )
    found = await breakdown(daemon)
    first, second = found["accounts"]
    assert (first["cash"], first["value"], first["dayChange"]) == (110, 110, 10)
    assert (second["cash"], second["value"], second["reasons"]["cash"]) == (-50, -50, "overdrawn")
    assert (found["cash"], found["totalValue"], found["dayChange"]) == (60, 60, 10)
    assert [one["share"] for one in found["accounts"]] == [pytest.approx(110 / 60), pytest.approx(-50 / 60)]
    on = await breakdown(daemon, "date=2026-11-20")
    assert [on[name] for name in ("cash", "totalValue", "dayChange")] == [60, 60, 10]


async def test_a_whole_that_is_owed_has_no_shares(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon, cashTracking=True)
    one = await account(daemon, portfolio, name="Margin")
    await add(daemon, portfolio, {"date": "2026-11-02", "type": "fee", "amount": 5, "accountId": one})
    found = await breakdown(daemon, "start=2026-11-20")
    (margin,) = found["accounts"]
    assert (margin["value"], margin["share"], margin["reasons"]["share"]) == (-5, None, "no_capital")
    assert margin["history"] == [
        {"date": "2026-11-20", "totalValue": -5, "share": None, "reasons": {"share": "no_capital"}}
    ]


async def test_what_has_no_price_says_so(daemon: ApiDaemon) -> None:
    portfolio, ira, _ = await with_two_accounts(daemon)
    other = await account(daemon, portfolio, name="Own")
    own = {**BUY, "symbol": "OWN", "market": "CUSTOM", "currency": "USD"}
    await add(daemon, portfolio, {**own, "accountId": other}, {**own, "accountId": ira})
    for query in ("", "date=2026-11-20"):
        found = await breakdown(daemon, query + "&history=true")
        first, _, third = found["accounts"]
        assert (third["value"], third["share"], third["dayChange"]) == (None, None, None)
        assert third["reasons"]["value"] == third["reasons"]["share"] == "no_price_or_rate"
        assert (first["value"], first["reasons"]["value"]) == (660, "some_values_unknown")
        assert (found["totalValue"], found["reasons"]["totalValue"]) == (1100, "some_values_unknown")
        last = third["history"][-1]
        assert (last["totalValue"], last["reasons"]["totalValue"]) == (None, "no_price_or_rate")


async def test_a_stale_price_makes_its_account_an_estimate(daemon: ApiDaemon) -> None:
    portfolio, _, plan = await with_two_accounts(daemon)
    await priced(daemon, MSFT, {TODAY - 18: 50.0, TODAY - 3: 50.0})
    await add(daemon, portfolio, {**BUY, "symbol": "MSFT", "price": 50, "accountId": plan})
    found = await breakdown(daemon)
    assert [one["estimated"] for one in found["accounts"]] == [False, True]
    assert found["estimated"]


async def test_several_stand_beside_their_total(daemon: ApiDaemon) -> None:
    first, ira, plan = await with_two_accounts(daemon)
    euros, archived = await made(daemon, baseCurrency="EUR"), await made(daemon)
    await priced(daemon, Instrument("USDEUR=X", "FX"), {TODAY - 18: 0.5, TODAY - 1: 0.5})
    await priced(daemon, EUROS, {TODAY - 18: 2.0, TODAY - 1: 2.0})
    depot = await account(daemon, euros, name="Depot", institution="Fidelity")
    await add(daemon, euros, {**BUY, "price": 90, "accountId": depot})
    await add(daemon, archived, {**BUY, "price": 90})
    await daemon.call("PATCH", f"/api/portfolios/{archived}", json={"isArchived": True}, headers=ANN)
    found = await breakdown(daemon, "history=true")
    assert [one["portfolioId"] for one in found["portfolios"]] == [first, euros, archived]
    assert [one["totalValue"] for one in found["portfolios"]] == [1100, 550, 1100]
    total = found["total"]
    assert (total["baseCurrency"], total["totalValue"], total["dayChange"]) == ("USD", 2200, 200)
    assert total["dayChangePercent"] == pytest.approx(10)
    assert [(one["portfolioId"], one["accountId"], one["value"], one["share"]) for one in total["accounts"]] == [
        (first, ira, 660, 0.3),
        (first, plan, 440, 0.2),
        (euros, depot, 1100, 0.5),
    ]
    assert [(one["institution"], one["value"]) for one in total["institutions"]] == [
        ("Fidelity", 1760),
        ("Vanguard", 440),
    ]
    assert total["accounts"][2]["history"][-1] == {"date": "2026-11-20", "totalValue": 1100, "share": 0.5}
    both = await breakdown(daemon, "currency=EUR&includeArchived=true&date=2026-11-19")
    assert (both["total"]["totalValue"], both["total"]["dayChange"]) == (1650, 150)


async def test_it_is_there_as_csv(daemon: ApiDaemon) -> None:
    portfolio, ira, plan = await with_two_accounts(daemon)
    status, text = await daemon.get(f"{TARGET}?format=csv", headers=ANN)
    head, first, _ = text.splitlines()
    assert (status, head.split(",")[:7]) == (
        200,
        ["accountId", "name", "institution", "kind", "isArchived", "value", "share"],
    )
    assert first.startswith(f"{ira},IRA,Fidelity,ira,false,660.0,0.6,")
    _, days = await daemon.get(f"{TARGET}?format=csv&start=2026-11-19", headers=ANN)
    assert days.splitlines() == [
        "accountId,date,totalValue,share",
        f"{ira},2026-11-19,660.0,0.6",
        f"{ira},2026-11-20,660.0,0.6",
        f"{plan},2026-11-19,440.0,0.4",
        f"{plan},2026-11-20,440.0,0.4",
    ]
    await made(daemon)
    _, several = await daemon.get(f"{TARGET}?format=csv&end=2026-11-02", headers=ANN)
    assert several.splitlines()[:2] == [
        "portfolioId,accountId,date,totalValue,share",
        f"{portfolio},{ira},2026-11-02,540.0,0.6",
    ]


async def test_nothing_yet_is_worth_nothing(daemon: ApiDaemon) -> None:
    assert (await daemon.get(TARGET, headers=ANN))[1]["code"] == "unknown_portfolio"
    await made(daemon)
    found = await breakdown(daemon, "history=true")
    assert (found["totalValue"], found["accounts"], found["institutions"], found["start"]) == (0, [], [], None)


async def test_another_user_sees_nothing(daemon: ApiDaemon) -> None:
    portfolio, *_ = await with_two_accounts(daemon)
    status, problem = await daemon.get(f"{TARGET}?portfolioId={portfolio}", headers=BOB)
    assert (status, problem["code"]) == (404, "unknown_portfolio")


async def test_its_tag_stays_until_it_says_something_else(daemon: ApiDaemon) -> None:
    portfolio, ira, _ = await with_two_accounts(daemon)

    async def tag(**headers: str) -> tuple[int, str]:
        async with daemon.session.get(
            f"{daemon.base}{TARGET}?date=2026-11-19&history=true", headers=ANN | headers
        ) as answer:
            return answer.status, answer.headers["ETag"]

    status, first = await tag()
    assert (status, await tag(**{"If-None-Match": first})) == (200, (304, first))
    await daemon.call("PATCH", f"/api/portfolios/{portfolio}/accounts/{ira}", json={"name": "Roth"}, headers=ANN)
    status, second = await tag(**{"If-None-Match": first})
    assert (status, second == first) == (200, False)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("start=2026-11-20&end=2026-11-19", "start_after_end"),
        ("format=xml", "invalid_value"),
        ("by=kind", "unknown_parameter"),
        ("date=yesterday", "bad_date"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(daemon: ApiDaemon, query: str, code: str) -> None:
    status, problem = await daemon.get(f"{TARGET}?{query}", headers=ANN)
    assert (status, problem["code"]) == (422, code)
