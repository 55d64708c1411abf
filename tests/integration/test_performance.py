"""Returns over HTTP: by account and position, beside a benchmark, with what they were computed from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.instruments import Instrument
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.integration.test_portfolios import ANN, BUY, KEYS, add, made, priced

MONDAY = TODAY - 11
MSFT, INDEX = Instrument("MSFT"), Instrument("^GSPC")


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS) as started:
        yield started


async def asked(daemon: ApiDaemon, query: str = "") -> dict[str, Any]:
    status, answer = await daemon.get(f"/api/portfolio/performance?{query}", headers=ANN)
    assert status == 200, answer
    return dict(answer)


async def account(daemon: ApiDaemon, portfolio: str, name: str) -> str:
    _, one = await daemon.call("POST", f"/api/portfolios/{portfolio}/accounts", json={"name": name}, headers=ANN)
    return str(one["id"])


async def two_positions(daemon: ApiDaemon) -> tuple[str, str]:
    """From Monday the 9th: 10 AAPL at 100 in an account, half of it sold on Wednesday, 4 MSFT at 50 from Tuesday on."""
    await priced(daemon, AAPL, dict(zip(range(MONDAY, MONDAY + 5), (100.0, 102.0, 104.0, 101.0, 110.0), strict=True)))
    await priced(daemon, MSFT, dict(zip(range(MONDAY, MONDAY + 5), (50.0, 50.0, 60.0, 60.0, 45.0), strict=True)))
    portfolio = await made(daemon)
    own = await account(daemon, portfolio, "IRA")
    await add(
        daemon,
        portfolio,
        {**BUY, "date": "2026-11-09", "accountId": own},
        {**BUY, "date": "2026-11-10", "symbol": "MSFT", "quantity": 4, "price": 50},
        {**BUY, "date": "2026-11-11", "type": "sell", "quantity": 5, "price": 104, "accountId": own},
    )
    return portfolio, own


async def test_rows_for_each_position_add_up_to_the_whole(daemon: ApiDaemon) -> None:
    await two_positions(daemon)
    whole = await asked(daemon, "by=position&end=2026-11-13")
    first, second = whole["positions"]
    assert (first["symbol"], first["start"], first["end"]) == ("AAPL", "2026-11-09", "2026-11-13")
    assert first["twr"] == pytest.approx(0.1)
    assert (first["startValue"], first["endValue"], first["netFlow"], first["gain"]) == (1000, 550, -520, 70)
    # bought on the 10th: it begins with nothing on the evening before
    assert (second["symbol"], second["start"], second["startValue"]) == ("MSFT", "2026-11-09", 0)
    assert second["twr"] == pytest.approx(-0.1)
    assert (second["gain"], second["maxDrawdown"]) == (-20, pytest.approx(-0.25))
    assert whole["gain"] == first["gain"] + second["gain"]
    assert whole["netFlow"] == first["netFlow"] + second["netFlow"]


async def test_rows_for_each_account_and_for_one_position(daemon: ApiDaemon) -> None:
    portfolio, own = await two_positions(daemon)
    whole = await asked(daemon, "by=account&end=2026-11-13")
    assert [row["accountId"] for row in whole["accounts"]] == [None, own]
    assert [row["gain"] for row in whole["accounts"]] == [-20, 70]
    one = await asked(daemon, "symbol=msft&market=US&end=2026-11-13")
    assert (one["symbol"], one["market"], one["gain"], one["startValue"]) == ("MSFT", "US", -20, 0)
    within = await asked(daemon, f"portfolioId={portfolio}&accountId={own}&by=position&end=2026-11-13")
    assert [(row["symbol"], row["accountId"], row["gain"]) for row in within["positions"]] == [("AAPL", own, 70)]
    assert within["gain"] == 70
    split = await asked(daemon, "symbol=AAPL&by=account&end=2026-11-13")
    assert [(row["symbol"], row["accountId"], row["gain"]) for row in split["accounts"]] == [("AAPL", own, 70)]
    status, problem = await daemon.get("/api/portfolio/performance?symbol=NVDA", headers=ANN)
    assert (status, problem["code"]) == (404, "unknown_position")


async def test_what_was_sold_out_ends_on_its_last_day(daemon: ApiDaemon) -> None:
    await two_positions(daemon)
    await add(daemon, (await daemon.get("/api/portfolios", headers=ANN))[1]["portfolios"][0]["id"],
              {**BUY, "date": "2026-11-12", "type": "sell", "symbol": "MSFT", "quantity": 4, "price": 60})  # fmt: skip
    whole = await asked(daemon, "by=position&end=2026-11-13")
    assert (whole["positions"][1]["end"], whole["positions"][1]["gain"]) == ("2026-11-12", 40)
    later = await asked(daemon, "by=position&start=2026-11-12&end=2026-11-13")
    assert [row["symbol"] for row in later["positions"]] == ["AAPL"]


async def test_a_benchmark_over_the_same_days_in_the_same_currency(daemon: ApiDaemon) -> None:
    await two_positions(daemon)
    closes = (1000.0, 1010.0, 1030.0, 1000.0, 1050.0)
    await priced(daemon, INDEX, dict(zip(range(MONDAY, MONDAY + 5), closes, strict=True)))
    whole = await asked(daemon, "benchmark=%5EGSPC&end=2026-11-13&symbol=AAPL")
    beside = whole["benchmark"]
    own, theirs = np.array([100, 102, 104, 101, 110]), np.array(closes)
    mine, other = own[1:] / own[:-1] - 1, theirs[1:] / theirs[:-1] - 1
    assert (beside["symbol"], beside["market"], beside["dividends"]) == ("^GSPC", "US", False)
    assert beside["twr"] == pytest.approx(0.05)
    assert beside["excessReturn"] == pytest.approx(0.05)
    assert beside["trackingError"] == pytest.approx(np.std(mine - other, ddof=1) * np.sqrt(252))
    assert beside["correlation"] == pytest.approx(np.corrcoef(mine, other)[0, 1])
    assert beside["volatility"] == pytest.approx(np.std(other, ddof=1) * np.sqrt(252))
    assert (beside["twrAnnualized"], beside["reasons"]["twrAnnualized"]) == (None, "under_a_year")
    for benchmark, status, code in (("NOPE", 404, "unknown_symbol"), ("!!", 422, "invalid_symbol")):
        answer = await daemon.get(f"/api/portfolio/performance?benchmark={benchmark}", headers=ANN)
        assert (answer[0], answer[1]["code"]) == (status, code)


async def test_a_benchmark_in_another_currency_is_turned_and_never_taken_as_one(daemon: ApiDaemon) -> None:
    await two_positions(daemon)
    fund = Instrument("FUND", "CUSTOM")
    await priced(daemon, fund, {MONDAY: 100.0, MONDAY + 4: 110.0})
    entry = daemon.services.catalog.require(fund)
    await daemon.services.instruments.set_facts(entry, currency="EUR")
    beside = (await asked(daemon, "benchmark=FUND:CUSTOM&end=2026-11-13"))["benchmark"]
    assert (beside["twr"], beside["reasons"]["twr"]) == (None, "rate_unknown")
    await priced(daemon, Instrument("EURUSD=X", "FX"), {MONDAY: 1.0, MONDAY + 4: 1.2})
    beside = (await asked(daemon, "benchmark=FUND:CUSTOM&end=2026-11-13"))["benchmark"]
    assert beside["twr"] == pytest.approx(0.32)
    late = (await asked(daemon, "benchmark=FUND:CUSTOM&end=2026-11-13&currency=EUR"))["benchmark"]
    assert late["twr"] == pytest.approx(0.32)  # one portfolio is told in its own currency


async def test_dividends_of_a_benchmark_count_when_it_is_asked_for(daemon: ApiDaemon) -> None:
    await two_positions(daemon)
    closes = dict(zip(range(MONDAY, MONDAY + 5), (100.0, 100.0, 95.0, 95.0, 95.0), strict=True))
    await priced(daemon, INDEX, closes, Action(MONDAY + 2, "dividend", 5.0, "USD", source="scripted"))
    price = await asked(daemon, "benchmark=%5EGSPC&end=2026-11-13")
    total = await asked(daemon, "benchmark=%5EGSPC&end=2026-11-13&benchmarkDividends=true")
    assert price["benchmark"]["twr"] == pytest.approx(-0.05)
    assert total["benchmark"]["twr"] == pytest.approx(0.0)


async def test_a_return_says_what_it_was_computed_from(daemon: ApiDaemon) -> None:
    await two_positions(daemon)
    said = (await asked(daemon, "explain=true&end=2026-11-14"))["explain"]
    assert said["flows"] == [
        {"date": "2026-11-10", "inflow": 200, "outflow": 0},
        {"date": "2026-11-11", "inflow": 0, "outflow": 520},
    ]
    assert said["payments"] == [
        {"date": "2026-11-09", "amount": -1000},
        {"date": "2026-11-10", "amount": -200},
        {"date": "2026-11-11", "amount": 520},
        {"date": "2026-11-14", "amount": 730},
    ]
    assert (said["undefinedDays"], said["sessions"], said["startValue"], said["endValue"]) == ([], 4, 1000, 730)
    assert "sqrt(252)" in said["formulas"]["volatility"]


async def test_holidays_of_the_market_are_no_sessions(daemon: ApiDaemon) -> None:
    """Labor Day, Monday the 7th of September 2026: four sessions from Friday to Wednesday, less the opening one."""
    friday = TODAY - 77
    await priced(daemon, AAPL, {friday: 100.0, friday + 4: 102.0, friday + 5: 101.0})
    await add(daemon, await made(daemon), {**BUY, "date": "2026-09-04"})
    got = await asked(daemon, "end=2026-09-09&explain=true")
    assert got["explain"]["sessions"] == 2
    assert got["volatility"] == pytest.approx(np.std([0.02, 101 / 102 - 1], ddof=1) * np.sqrt(252))


async def test_a_period_begins_with_the_first_transaction_at_the_earliest(daemon: ApiDaemon) -> None:
    await two_positions(daemon)
    for query in ("", "period=1Y", "period=max", "start=2020-01-01"):
        got = await asked(daemon, query)
        assert (got["start"], got["end"], got["startValue"]) == ("2026-11-09", "2026-11-20", 1000), query
    assert (await asked(daemon, "period=1W&end=2026-11-18"))["start"] == "2026-11-11"
    status, problem = await daemon.get("/api/portfolio/performance?period=1Y&start=2026-01-01", headers=ANN)
    assert (status, problem["code"]) == (422, "period_and_start")
    assert (await daemon.get("/api/portfolio/performance?period=7Q", headers=ANN))[1]["code"] == "unknown_period"
    assert (await daemon.get("/api/portfolio/performance?market=US", headers=ANN))[1]["code"] == "invalid_symbol"


async def test_several_portfolios_return_what_one_of_all_would(daemon: ApiDaemon) -> None:
    """A purchase and a sale on one day in two portfolios, and both in one."""
    await priced(daemon, AAPL, {MONDAY: 100.0, MONDAY + 1: 110.0})
    rows = [
        {**BUY, "date": "2026-11-09", "quantity": 10},
        {**BUY, "date": "2026-11-10", "quantity": 5, "price": 100},
        {**BUY, "date": "2026-11-10", "type": "sell", "quantity": 5, "price": 105},
    ]
    one, other, both = [await made(daemon) for _ in range(3)]
    await add(daemon, one, *rows)
    await add(daemon, other, rows[0])
    await add(daemon, both, *rows, rows[0])
    alone = await asked(daemon, f"portfolioId={both}&end=2026-11-10")
    together = await asked(daemon, f"portfolioId={one}&portfolioId={other}&end=2026-11-10&benchmark=AAPL&explain=true")
    assert together["total"]["twr"] == pytest.approx(alone["twr"], rel=1e-12)
    assert together["total"]["benchmark"]["twr"] == pytest.approx(0.1)
    assert together["total"]["explain"]["flows"] == [{"date": "2026-11-10", "inflow": 500, "outflow": 525}]
    held = await asked(daemon, f"portfolioId={one}&portfolioId={other}&symbol=AAPL&end=2026-11-10")
    assert held["total"]["twr"] == pytest.approx(alone["twr"], rel=1e-12)
    assert (held["total"]["symbol"], held["total"]["gain"]) == ("AAPL", alone["gain"])


async def test_nothing_in_the_range_is_null_with_a_reason(daemon: ApiDaemon) -> None:
    portfolio = await made(daemon)
    await priced(daemon, INDEX, {MONDAY: 100.0})
    got = await asked(daemon, "benchmark=%5EGSPC&by=position&explain=true")
    assert (got["portfolioId"], got["twr"], got["reasons"]["twr"], got["positions"]) == (portfolio, None, "no_days", [])
    assert (got["benchmark"]["twr"], got["benchmark"]["reasons"]["correlation"]) == (None, "no_days")
