"""What portfolios are worth now over HTTP: live quotes, sessions, what is stale, several together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.core.actions import Action
from pricecache.core.instruments import Instrument
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolios import ANN, BOB, BUY, KEYS, add, made, priced

HOUR = 3600
MSFT, BITCOIN = Instrument("MSFT"), Instrument("BTC-USD", "CRYPTO")


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    """It is Friday, 10:00 UTC: New York opens at 14:30."""
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def summary(daemon: ApiDaemon, query: str = "") -> dict[str, Any]:
    status, answer = await daemon.get(f"/api/portfolio/summary?{query}", headers=ANN)
    assert status == 200, answer
    return dict(answer)


async def holding_ten(daemon: ApiDaemon, closes: dict[int, float] | None = None, *actions: Action) -> str:
    """Ten shares from the 2nd on; Wednesday closed at 100, Thursday at 110."""
    await priced(daemon, AAPL, closes or {TODAY - 18: 90.0, TODAY - 2: 100.0, TODAY - 1: 110.0}, *actions)
    portfolio = await made(daemon)
    await add(daemon, portfolio, {**BUY, "price": 90})
    return portfolio


async def test_before_the_open_it_shows_the_last_session(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    got = await summary(daemon)
    assert (got["portfolioId"], got["asOf"], got["baseCurrency"]) == (portfolio, "2026-11-20T10:00:00Z", "USD")
    assert (got["totalValue"], got["totalCost"], got["totalGainLoss"]) == (1100, 900, 200)
    assert (got["previousValue"], got["dayChange"], got["dayFlow"]) == (1000, 100, 0)
    assert got["dayChangePercent"] == pytest.approx(10)
    assert (got["stale"], got["oldestPriceTime"]) == (False, "2026-11-19T21:00:00Z")
    assert (got["dayHigh"], got["dayLow"], got["dayRangeSince"]) == (1100, 1100, "2026-11-20T10:00:00Z")
    assert (got["cash"], got["reasons"]) == (None, {"cash": "cash_not_tracked"})
    (one,) = got["positions"]
    assert (one["symbol"], one["quantity"], one["price"], one["priceDate"]) == ("AAPL", 10, 110, "2026-11-19")
    assert (one["session"], one["previousSession"], one["source"]) == ("2026-11-19", "2026-11-18", None)
    assert (one["value"], one["dayChange"], one["weight"], one["unrealizedGainLoss"]) == (1100, 100, 1, 200)


async def test_a_session_that_runs_has_its_quote(daemon: ApiDaemon) -> None:
    await holding_ten(daemon)
    daemon.clock.advance(6 * HOUR)
    daemon.quoted(AAPL, 121.0, session=TODAY, open=112.0, previous_close=110.0)
    got = await summary(daemon)
    assert (got["totalValue"], got["dayChange"], got["changeFromOpen"]) == (1210, 110, 90)
    assert got["changeFromOpenPercent"] == pytest.approx(100 * 90 / 1120)
    (one,) = got["positions"]
    assert (one["price"], one["source"], one["session"], one["stale"]) == (121, "scripted", "2026-11-20", False)
    assert (one["priceTime"], one["dayChangePercent"]) == ("2026-11-20T15:59:50Z", pytest.approx(10))


async def test_an_open_market_without_a_fresh_quote_is_stale_and_has_not_changed(daemon: ApiDaemon) -> None:
    await holding_ten(daemon)
    daemon.clock.advance(6 * HOUR)
    got = await summary(daemon)
    assert (got["stale"], got["totalValue"], got["dayChange"]) == (True, 1100, 0)
    assert (got["changeFromOpen"], got["reasons"]["changeFromOpen"]) == (None, "some_values_unknown")
    assert got["positions"][0]["reasons"] == {"changeFromOpen": "no_open", "changeFromOpenPercent": "no_open"}


async def test_a_session_without_its_bar_yet_takes_the_close_that_the_quote_tells(daemon: ApiDaemon) -> None:
    await holding_ten(daemon, {TODAY - 18: 90.0, TODAY - 2: 100.0})
    daemon.clock.advance(6 * HOUR)
    daemon.quoted(AAPL, 121.0, session=TODAY, previous_close=110.0)
    got = await summary(daemon)
    assert (got["previousValue"], got["dayChange"]) == (1100, 110)


async def test_a_split_of_today_divides_the_close_of_before(daemon: ApiDaemon) -> None:
    closes = {TODAY - 18: 90.0, TODAY - 2: 100.0, TODAY - 1: 110.0}
    await holding_ten(daemon, closes, Action(TODAY, "split", 10.0, source="scripted"))
    daemon.clock.advance(6 * HOUR)
    daemon.quoted(AAPL, 12.1, session=TODAY, open=11.2, previous_close=11.0)
    got = await summary(daemon)
    assert (got["totalValue"], got["dayChange"], got["changeFromOpen"]) == (1210, 110, 90)
    assert got["positions"][0]["quantity"] == 100


async def test_on_a_week_end_shares_stand_still_and_coins_go_on(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon, {TODAY - 18: 90.0, TODAY - 1: 100.0, TODAY: 110.0})
    await priced(daemon, BITCOIN, {TODAY - 18: 1.0, TODAY - 1: 2.0, TODAY: 3.0})
    await add(daemon, portfolio, {**BUY, "symbol": "BTC-USD", "market": "CRYPTO", "price": 1})
    daemon.clock.advance(26 * HOUR)
    daemon.quoted(BITCOIN, 5.0, session=TODAY + 1, open=3.0)
    got = await summary(daemon)
    shares, coin = got["positions"]
    assert (shares["session"], shares["dayChange"], coin["session"], coin["dayChange"]) == (
        "2026-11-20",
        100,
        "2026-11-21",
        20,
    )
    assert (got["dayChange"], got["previousValue"], got["totalValue"], got["stale"]) == (120, 1030, 1150, False)


async def test_what_was_traded_today_counts_from_its_price(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    await priced(daemon, MSFT, {TODAY - 18: 50.0, TODAY - 1: 50.0})
    daemon.clock.advance(6 * HOUR)
    daemon.quoted(AAPL, 121.0, session=TODAY, open=112.0)
    daemon.quoted(MSFT, 55.0, session=TODAY, open=51.0)
    await add(daemon, portfolio, {**BUY, "date": "2026-11-20", "symbol": "MSFT", "quantity": 2, "price": 52},
              {**BUY, "date": "2026-11-20", "type": "sell", "quantity": 10, "price": 120})  # fmt: skip
    got = await summary(daemon)
    sold, bought = got["positions"]
    assert (sold["quantity"], sold["value"], sold["dayChange"], sold["changeFromOpen"]) == (0, 0, 100, 80)
    assert (bought["dayChange"], bought["changeFromOpen"], bought["previousValue"]) == (6, 6, 0)
    assert (got["dayChange"], got["dayFlow"], got["totalValue"]) == (106, 104 - 1200, 110)
    assert got["totalRealizedGainLoss"] == 300


async def test_cash_its_rates_and_the_rest_stand_apart(daemon: ApiDaemon) -> None:
    await priced(daemon, Instrument("EURUSD=X", "FX"), {TODAY - 18: 1.0, TODAY - 1: 1.0, TODAY: 1.1})
    portfolio = await made(daemon, cashTracking=True)
    await add(daemon, portfolio, {"date": "2026-11-02", "type": "deposit", "amount": 100, "currency": "EUR"},
              {"date": "2026-11-20", "type": "interest", "amount": 2})  # fmt: skip
    got = await summary(daemon)
    assert (got["totalValue"], got["cash"], got["dayChange"]) == (112, 112, 12)
    assert got["dayChangeParts"] == {"positions": 0, "cash": 10, "other": 2}
    assert [(one["currency"], one["value"]) for one in got["cashBalances"]] == [("EUR", 110), ("USD", 2)]


async def test_accounts_are_told_apart_and_one_by_itself(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    _, account = await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json={"name": "IRA"}, headers=ANN)
    await add(daemon, portfolio, {**BUY, "quantity": 5, "price": 90, "accountId": account["id"]})
    (one,) = (await summary(daemon, "by=account"))["positions"]
    assert [(part["accountId"], part["value"], part["dayChange"]) for part in one["accounts"]] == [
        (None, 1100, 100),
        (account["id"], 550, 50),
    ]
    assert (one["value"], one["dayChange"]) == (1650, 150)
    own = await summary(daemon, f"portfolioId={portfolio}&accountId={account['id']}")
    assert (own["accountId"], own["totalValue"], own["dayChange"]) == (account["id"], 550, 50)
    assert "accounts" not in own["positions"][0]


async def test_several_stand_beside_their_total(daemon: ApiDaemon) -> None:
    first = await holding_ten(daemon)
    euros = await made(daemon, baseCurrency="EUR")
    archived = await made(daemon)
    await priced(daemon, Instrument("USDEUR=X", "FX"), {TODAY - 18: 0.5, TODAY - 1: 0.5})
    await priced(daemon, Instrument("EURUSD=X", "FX"), {TODAY - 18: 2.0, TODAY - 1: 2.0})
    for portfolio in (euros, archived):
        await add(daemon, portfolio, {**BUY, "price": 90})
    await daemon.call("PATCH", f"/api/portfolios/{archived}", json={"isArchived": True}, headers=ANN)
    got = await summary(daemon)
    assert [one["portfolioId"] for one in got["portfolios"]] == [first, euros, archived]
    assert [one["totalValue"] for one in got["portfolios"]] == [1100, 550, 1100]
    total = got["total"]
    assert (total["baseCurrency"], total["totalValue"], total["dayChange"]) == ("USD", 2200, 200)
    assert total["dayChangePercent"] == pytest.approx(10)
    both = await summary(daemon, "currency=EUR&includeArchived=true")
    assert (both["total"]["totalValue"], both["total"]["totalCost"]) == (1650, 1350)


async def test_nothing_yet_is_worth_nothing(daemon: ApiDaemon) -> None:
    assert (await daemon.get("/api/portfolio/summary", headers=ANN))[1]["code"] == "unknown_portfolio"
    await made(daemon)
    got = await summary(daemon)
    assert (got["totalValue"], got["dayChange"], got["positions"], got["stale"]) == (0, 0, [], False)
    assert (got["dayChangePercent"], got["oldestPriceTime"]) == (None, None)
    assert got["reasons"]["dayChangePercent"] == "no_capital"


async def test_what_has_no_price_says_so(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    row = {**BUY, "symbol": "OWN", "market": "CUSTOM", "currency": "USD"}
    await add(daemon, portfolio, row)
    got = await summary(daemon)
    own = got["positions"][1]
    assert (own["price"], own["value"], own["dayChange"], own["weight"]) == (None, None, None, None)
    assert set(own["reasons"].values()) == {"no_price"}
    assert (got["totalValue"], got["reasons"]["totalValue"], got["stale"]) == (1100, "some_values_unknown", True)


async def test_another_user_sees_nothing(daemon: ApiDaemon) -> None:
    portfolio = await holding_ten(daemon)
    status, problem = await daemon.get(f"/api/portfolio/summary?portfolioId={portfolio}", headers=BOB)
    assert (status, problem["code"]) == (404, "unknown_portfolio")


async def test_a_change_of_the_ledger_or_of_a_price_is_in_the_next_answer(daemon: ApiDaemon) -> None:
    """Old rows are kept as a book: it has to go with them."""
    await priced(daemon, AAPL, {TODAY - 100: 80.0, TODAY - 2: 100.0, TODAY - 1: 110.0})
    portfolio = await made(daemon)
    old = {**BUY, "date": "2026-08-12", "price": 80, "externalId": "x"}
    await add(daemon, portfolio, old)
    assert (await summary(daemon))["totalCost"] == 800
    await add(daemon, portfolio, {**old, "price": 85})
    assert (await summary(daemon))["totalCost"] == 850
    await priced(daemon, AAPL, {TODAY - 1: 111.0}, Action(TODAY - 60, "split", 2.0, source="scripted"))
    got = await summary(daemon)
    assert (got["totalCost"], got["positions"][0]["quantity"], got["totalValue"]) == (850, 20, 2220)


async def test_fifty_positions_are_all_told(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    for number in range(50):
        instrument = Instrument(f"S{number}")
        await priced(daemon, instrument, {TODAY - 200 + day: 50.0 + day for day in range(200)})
    await add(
        daemon, portfolio, *({**BUY, "date": "2026-06-01", "symbol": f"S{n % 50}", "price": 50} for n in range(500))
    )
    told = await summary(daemon)
    assert {one["symbol"] for one in told["positions"]} == {f"S{n}" for n in range(50)}
    assert sum(one["quantity"] for one in told["positions"]) == 5000
