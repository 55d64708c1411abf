"""What portfolios close at: captured once, equal to their histories to the cent, whatever changed and whoever died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from bson import ObjectId

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_of
from pricecache.core.instruments import Instrument
from pricecache.portfolio.snapshot_capture import SNAPSHOT_JOB
from pricecache.stores.bars import Change
from pricecache.stores.journal import Journal
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon
from tests.shapes import faults

MSFT, PAIR, GONE = Instrument("MSFT"), Instrument("USDEUR=X", "FX"), Instrument("GONE")
FUND = Instrument("FUND", "CUSTOM")
NEW_YORK = ZoneInfo("America/New_York")
KEY = {"X-API-Key": "ops-key"}
FIRST = TODAY - 60


def iso(day: int) -> str:
    return day_of(day).isoformat()


def user(name: str = "ann") -> dict[str, str]:
    return {**KEY, "X-User-Id": name}


@dataclass
class World:
    """A daemon with two stocks, a rate, and as many portfolios as a test makes."""

    daemon: ApiDaemon
    walk: np.random.Generator
    closes: dict[Instrument, dict[int, float]] = field(default_factory=dict)

    async def send(self, method: str, path: str, body: Any = None, *, name: str = "ann") -> Any:
        options = {} if body is None else {"json": body}
        status, answer = await self.daemon.call(method, path, headers=user(name), **options)
        assert status < 300, answer
        return answer

    async def portfolio(self, name: str = "ann", **facts: Any) -> str:
        made = await self.send("POST", "/api/portfolios", {"name": "Own", **facts}, name=name)
        return str(made["id"])

    async def add(self, portfolio: str, name: str = "ann", **row: Any) -> str:
        answer = await self.send("POST", f"/api/portfolios/{portfolio}/transactions", row, name=name)
        return str(answer["ids"][0])

    async def price(self, instrument: Instrument, closes: dict[int, float], *actions: Action) -> None:
        services = self.daemon.services
        entry = services.catalog.find(instrument)
        if entry is None:
            (entry,) = await services.instruments.add(
                [instrument], wanted_from=min(closes), tracked=True, by="test", now=self.daemon.clock.time()
            )
        self.closes.setdefault(instrument, {}).update(closes)
        bars = Bars(np.array(list(closes), np.int64), np.tile(np.array(list(closes.values())), (5, 1)))
        await services.bars.commit([Change(entry, bars, "scripted", self.daemon.clock.time(), actions=actions)])

    def sessions(self, instrument: Instrument, first: int, last: int) -> list[int]:
        calendar = self.daemon.services.calendars.get(instrument.place.calendar)
        return [int(day) for day in calendar.between(first, last)]

    async def trade(self, instrument: Instrument, first: int, last: int) -> None:
        """A walk on every session from `first` to `last`, from the last close on."""
        known = self.closes.get(instrument)
        last_close = 100.0 if not known else known[max(known)]
        if instrument == PAIR and not known:
            last_close = 0.9
        days = self.sessions(instrument, first, last)
        steps = np.exp(np.cumsum(self.walk.normal(0, 0.01, len(days))))
        digits = 4 if instrument == PAIR else 2
        await self.price(instrument, dict(zip(days, np.round(last_close * steps, digits).tolist(), strict=True)))

    def at(self, day: int, hour: int = 4, minute: int = 0) -> None:
        """Move the clock to that time of `day` in New York."""
        when = datetime.combine(day_of(day), datetime.min.time(), NEW_YORK) + timedelta(hours=hour, minutes=minute)
        self.daemon.clock.set(when.astimezone(UTC))

    async def morning(self, day: int) -> dict[str, Any]:
        """Prices of the day before, and the job of that morning."""
        for instrument in (AAPL, MSFT, PAIR, GONE):
            if instrument in self.closes and (
                days := self.sessions(instrument, max(self.closes[instrument]) + 1, day - 1)
            ):
                await self.trade(instrument, days[0], days[-1])
        self.at(day)
        return await self.capture()

    async def capture(self, body: Any = None) -> dict[str, Any]:
        report = await self.send("POST", "/api/portfolio/daily-snapshots/capture?wait=30", body or {})
        assert report["state"] == "succeeded", report
        return dict(report)

    async def shown(self, portfolio: str, name: str = "ann", start: int = FIRST) -> list[dict[str, Any]]:
        path = f"/api/portfolio/daily-snapshots?portfolioId={portfolio}&start={iso(start)}"
        return list((await self.send("GET", path, name=name))["snapshots"])

    async def agrees(self, portfolio: str, name: str = "ann", *, restated: bool = False) -> list[dict[str, Any]]:
        """What was captured is what the history computed from the ledger says of these days."""
        found = await self.shown(portfolio, name)
        assert found
        path = f"/api/portfolio/history?portfolioId={portfolio}&useMaterialized=false"
        computed = {row["date"]: row for row in (await self.send("GET", path, name=name))["history"]}
        for row in found:
            now = computed[row["date"]]
            assert row["totalValue"] == pytest.approx(now["totalValue"], abs=0.001), row["date"]
            for name in ("cash", "totalCost", "coverage"):
                assert row[name] == now[name], (name, row["date"])
            said, expected = row.get("reasons", {}), now.get("reasons", {})
            assert said.get("totalValue") == expected.get("totalValue"), row["date"]
            assert row["cash"] is None or said.get("cash") == expected.get("cash"), row["date"]
            assert row["isRestated"] is False or restated, row
            if not row["isRestated"]:
                assert row["capturedValue"] == row["totalValue"]
            assert sum(one["totalValue"] for one in row["accounts"]) == pytest.approx(row["totalValue"], abs=0.001)
        return found


@pytest.fixture
async def world(database: Any) -> AsyncIterator[World]:
    async with api_daemon(database, keys=("operator:ops:ops-key",)) as daemon:
        world = World(daemon, np.random.default_rng(5))
        for instrument in (AAPL, MSFT, GONE, PAIR):
            await world.trade(instrument, FIRST - 20, TODAY - 1)
        yield world


async def test_a_close_is_captured_once_and_equals_the_history(world: World) -> None:
    one = await world.portfolio(cashTracking=True)
    await world.add(one, date=iso(FIRST), type="deposit", amount=5000)
    await world.add(one, date=iso(FIRST + 3), type="buy", symbol="AAPL", quantity="3.25", price=100)
    report = await world.capture()
    assert report["counts"] == {"days": 1, "captured": 1, "provisional": 0, "documents": 1, "recomputed": 1}
    (row,) = await world.agrees(one)
    assert (row["date"], row["isFinal"], row["capturedAt"]) == (iso(TODAY - 1), True, "2026-11-20T10:00:00Z")
    assert (await world.capture())["counts"] == {"days": 0}
    assert await world.shown(one) == [row]


async def test_a_portfolio_that_only_holds_is_not_computed_again(world: World) -> None:
    one = await world.portfolio(baseCurrency="EUR", cashTracking=True)
    await world.add(one, date=iso(FIRST), type="deposit", amount=5000)
    await world.add(one, date=iso(FIRST + 3), type="buy", symbol="AAPL", quantity="3.25", price=100, currency="USD")
    await world.capture()
    for day in range(TODAY + 1, TODAY + 6):
        report = await world.morning(day)
        assert report["counts"].get("recomputed", 0) == 0
    rows = await world.agrees(one)
    assert [row["date"] for row in rows] == [iso(day) for day in world.sessions(AAPL, TODAY - 1, TODAY + 4)]
    assert all(row["isFinal"] for row in rows)


ROWS: tuple[dict[str, Any], ...] = (
    {"type": "buy", "symbol": "AAPL", "quantity": "2.5", "price": 101, "currency": "USD"},
    {"type": "buy", "symbol": "MSFT", "quantity": 7, "price": 99, "currency": "USD", "fees": "1.25"},
    {"type": "sell", "symbol": "AAPL", "quantity": "0.75", "price": 98, "currency": "USD"},
    {"type": "dividend", "symbol": "MSFT", "amount": "3.33", "currency": "USD"},
    {"type": "deposit", "amount": 400},
    {"type": "withdrawal", "amount": 35},
    {"type": "transfer_in", "symbol": "GONE", "quantity": 3, "price": 80},
    {"type": "fee", "amount": "4.10"},
)


async def _changed(world: World, portfolio: str, accounts: list[str], day: int) -> None:
    """Something that happens to a ledger, of that day or of before."""
    chance = world.walk
    row = dict(ROWS[int(chance.integers(len(ROWS)))])
    on = day - int(chance.choice([0, 0, 1, 3, 20]))
    if row["type"] == "sell":
        await world.add(portfolio, **{**row, "type": "buy"}, date=iso(FIRST + 1), accountId=accounts[0])
        row["accountId"] = accounts[0]
    else:
        row["accountId"] = accounts[int(chance.integers(len(accounts)))]
    await world.add(portfolio, date=iso(on), **row)


@pytest.mark.parametrize("seed", range(6))
async def test_every_row_is_what_the_history_says_however_ledgers_and_prices_change(world: World, seed: int) -> None:
    """Trades, late rows, corrections of prices and rates, a split: captured rows are the history's, or say not so."""
    world.walk = np.random.default_rng(seed)
    made = []
    for number, (currency, tracks) in enumerate((("USD", True), ("EUR", True), ("EUR", False), ("USD", False))):
        one = await world.portfolio(baseCurrency=currency, cashTracking=tracks, allowShort=True)
        accounts = [
            (await world.send("POST", f"/api/portfolios/{one}/accounts", {"name": name}))["id"] for name in ("a", "b")
        ]
        first = {"type": "buy", "symbol": "AAPL", "quantity": 20 + number, "price": 100, "currency": "USD"}
        await world.add(one, date=iso(FIRST), accountId=accounts[0], **first)
        made.append((one, accounts))
    is_split = False
    for day in range(TODAY + 1, TODAY + 13):
        for one, accounts in made:
            if world.walk.random() < 0.25:
                await _changed(world, one, accounts, day - 1)
        if world.walk.random() < 0.3:
            instrument = (AAPL, MSFT, PAIR)[int(world.walk.integers(3))]
            sessions = world.sessions(instrument, FIRST, day - 3)
            at = sessions[int(world.walk.integers(len(sessions)))]
            await world.price(instrument, {at: world.closes[instrument][at] * 1.03})
        if not is_split and world.walk.random() < 0.2 and (days := world.sessions(AAPL, day - 1, day - 1)):
            await world.price(AAPL, {}, Action(days[0], "split", 2.0))
            is_split = True
        await world.morning(day)
        for one, _ in made:
            # of the day that was captured just now nothing may differ; earlier ones may have become others since
            last = (await world.agrees(one, restated=True))[-1]
            if world.sessions(AAPL, day - 1, day - 1):
                assert (last["date"], last["isRestated"], last["isFinal"]) == (iso(day - 1), False, True)


async def test_days_off_are_caught_up_and_days_without_a_session_are_left_out(world: World) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.capture()
    report = await world.morning(TODAY + 8)  # eight days later: a week-end, Thanksgiving and a half-day between
    days = world.sessions(AAPL, TODAY, TODAY + 7)
    assert [iso(day) for day in days] == [
        "2026-11-20", "2026-11-23", "2026-11-24", "2026-11-25", "2026-11-27",
    ]  # fmt: skip
    assert report["counts"]["days"] == len(days)
    rows = await world.agrees(one)
    assert [row["date"] for row in rows] == [iso(TODAY - 1), *map(iso, days)]
    assert rows[-1]["previousDate"] == "2026-11-25"
    for morning in (TODAY + 9, TODAY + 10):  # Sunday's and Monday's
        world.at(morning)
        assert (await world.capture())["counts"] == {"days": 0}


async def test_a_start_before_four_catches_up_and_leaves_the_last_day_to_that_morning(world: World) -> None:
    from pricecache.stores.runs import Run, RunHandle

    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.capture()
    await world.trade(AAPL, TODAY, TODAY + 4)

    async def scheduled(hour: int, minute: int = 0) -> int:
        world.at(TODAY + 5, hour, minute)
        handle = RunHandle(Run("x", SNAPSHOT_JOB, "running", "schedule", {}, world.daemon.clock.time()))
        await world.daemon.parts.portfolio.snapshot_capture.run_job(handle)
        return handle.run.counts["days"]

    days = world.sessions(AAPL, TODAY, TODAY + 4)
    assert [iso(day) for day in days] == ["2026-11-20", "2026-11-23", "2026-11-24"]
    assert await scheduled(1) == 2
    assert [row["date"] for row in await world.agrees(one)] == [iso(TODAY - 1), *map(iso, days[:2])]
    assert await scheduled(3, 29) == 0
    assert await scheduled(4) == 1
    assert [row["date"] for row in await world.agrees(one)] == [iso(TODAY - 1), *map(iso, days)]


@pytest.mark.parametrize(
    ("before", "after"),
    [("2026-10-30", "2026-11-02"), ("2027-03-12", "2027-03-15")],
    ids=["clocks go back", "clocks go forward"],
)
async def test_the_day_is_right_when_clocks_change(database: Any, before: str, after: str) -> None:
    from tests.clock import ManualClock

    start = datetime.fromisoformat(f"{before}T07:00:00+00:00") + timedelta(days=1)
    async with api_daemon(database, keys=("operator:ops:ops-key",), clock=ManualClock(start)) as daemon:
        world = World(daemon, np.random.default_rng(1))
        first = (datetime.fromisoformat(before) - datetime(1970, 1, 1)).days
        await world.trade(AAPL, first - 30, first)
        one = await world.portfolio()
        await world.add(one, date=iso(first - 20), type="buy", symbol="AAPL", quantity=3, price=100)
        world.at(first + 1)
        await world.capture()
        await world.morning(first + 2)  # a Saturday's morning is over
        await world.morning(first + 4)
        rows = await world.shown(one, start=first)
        assert [row["date"] for row in rows] == [before, after]
        assert [row["isFinal"] for row in rows] == [True, True]


async def test_a_row_is_provisional_until_its_day_is_over_and_its_prices_are_in(world: World) -> None:
    late = await world.portfolio(timeZone="Pacific/Honolulu")
    usual = await world.portfolio()
    missing = await world.portfolio()
    await world.add(late, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.add(usual, date=iso(FIRST), type="buy", symbol="AAPL", quantity=4, price=100)
    await world.add(missing, date=iso(FIRST), type="buy", symbol="MSFT", quantity=5, price=100)
    await world.capture()
    days = world.sessions(AAPL, TODAY, TODAY)
    await world.trade(AAPL, TODAY, TODAY)
    world.at(TODAY + 1)  # 23:00 of the day before in Honolulu, and no price of MSFT
    report = await world.capture()
    assert (report["counts"]["captured"], report["counts"]["provisional"]) == (3, 2)
    assert days == [TODAY]
    last = {one: (await world.shown(one))[-1] for one in (late, usual, missing)}
    assert [last[one]["isFinal"] for one in (late, usual, missing)] == [False, True, False]
    assert [last[one]["estimated"] for one in (late, usual, missing)] == [False, False, True]
    await world.trade(MSFT, TODAY, TODAY)
    world.at(TODAY + 1, 9)
    report = await world.capture()
    assert (report["counts"]["captured"], report["counts"]["provisional"]) == (3, 0)
    again = {one: (await world.agrees(one))[-1] for one in (late, usual, missing)}
    assert all(row["isFinal"] for row in again.values())
    assert again[usual]["capturedAt"] == last[usual]["capturedAt"], "what was final is not captured again"
    assert again[missing]["totalValue"] != last[missing]["totalValue"]


async def test_what_is_priced_by_hand_makes_no_session_and_holds_no_row_open(world: World) -> None:
    """Its last price counts until another comes, on days when an exchange closed."""
    await world.price(FUND, {FIRST: 10.0, TODAY - 1: 11.0})
    alone, mixed, traded = [await world.portfolio() for _ in range(3)]
    for one in (alone, mixed, traded):
        await world.add(one, date=iso(FIRST), type="buy", symbol="FUND:CUSTOM", quantity=30, price=10)
    for one in (mixed, traded):
        await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.capture()
    for day in range(TODAY + 1, TODAY + 16):
        has_closed = bool(world.sessions(AAPL, day - 1, day - 1))
        if has_closed:
            await world.add(traded, date=iso(day - 1), type="buy", symbol="FUND:CUSTOM", quantity=1, price=11)
        counts = (await world.morning(day))["counts"]
        want = {"days": 1, "captured": 3, "provisional": 0, "documents": 1, "recomputed": 1}
        assert counts == (want if has_closed else {"days": 0}), iso(day - 1)
    days = [iso(day) for day in world.sessions(AAPL, TODAY - 1, TODAY + 14)]
    for one in (alone, mixed, traded):
        rows = await world.agrees(one)
        assert [row["date"] for row in rows] == days
        assert {row["isFinal"] for row in rows} == {True}
        assert [row["estimated"] for row in rows] == [False, *(True for _ in days[1:])], "nobody priced it"
    await world.price(FUND, {TODAY: 12.0})
    rows = await world.agrees(mixed, restated=True)
    assert [row["isRestated"] for row in rows] == [False, *(True for _ in days[1:])]


@pytest.mark.parametrize("is_moved", [False, True], ids=["it only holds", "its ledger moved"])
async def test_a_price_or_rate_that_is_to_come_is_awaited_beside_what_is_priced_by_hand(
    world: World, is_moved: bool
) -> None:
    await world.price(FUND, {FIRST: 10.0})
    stock, rate = await world.portfolio(), await world.portfolio(baseCurrency="EUR")
    for one in (stock, rate):
        await world.add(one, date=iso(FIRST), type="buy", symbol="FUND:CUSTOM", quantity=30, price=10, currency="USD")
    await world.add(stock, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    for kind, on in (("buy", FIRST + 1), ("sell", FIRST + 9)):  # of what was sold nobody waits for a price
        await world.add(rate, date=iso(on), type=kind, symbol="GONE", quantity=2, price=100, currency="USD")
    await world.capture()
    if is_moved:
        for one in (stock, rate):
            await world.add(one, date=iso(TODAY), type="buy", symbol="FUND:CUSTOM", quantity=1, price=10)
    world.at(TODAY + 1)
    counts = (await world.capture())["counts"]
    assert (counts["captured"], counts["provisional"]) == (2, 2)
    await world.trade(AAPL, TODAY, TODAY)
    counts = (await world.capture())["counts"]
    assert (counts["captured"], counts["provisional"]) == (2, 1)
    await world.trade(PAIR, TODAY, TODAY)
    assert (await world.capture())["counts"]["provisional"] == 0
    assert (await world.capture())["counts"] == {"days": 0}
    for one in (stock, rate):
        assert [row["isFinal"] for row in await world.agrees(one)] == [True, True]


async def test_what_closed_is_what_the_next_day_is_measured_from(world: World) -> None:
    one = await world.portfolio(cashTracking=True)
    await world.add(one, date=iso(FIRST), type="deposit", amount=5000)
    for symbol, quantity in (("AAPL", 20), ("MSFT", 11)):
        await world.add(one, date=iso(FIRST + 3), type="buy", symbol=symbol, quantity=quantity, price=100)
    await world.capture()
    for day in (TODAY, TODAY + 3):
        (captured, *_) = reversed(await world.shown(one))
        world.at(day, 11)
        for instrument, price in ((AAPL, 171.31), (MSFT, 44.4)):
            world.daemon.quoted(instrument, price, session=day, previous_close=None)
        now = await world.send("GET", f"/api/portfolio/summary?portfolioId={one}")
        assert now["previousValue"] == captured["totalValue"]
        assert now["dayChange"] == pytest.approx(now["totalValue"] - captured["totalValue"], abs=0.001)
        for instrument in (AAPL, MSFT):
            await world.price(instrument, {day: 150.0})
        await world.morning(day + 1)


async def test_what_was_captured_is_kept_when_the_past_becomes_another(world: World) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.capture()
    (before,) = await world.shown(one)
    await world.price(AAPL, {TODAY - 1: 200.0})
    (row,) = await world.agrees(one, restated=True)
    assert (row["isRestated"], row["capturedValue"], row["totalValue"]) == (True, before["totalValue"], 600.0)
    report = await world.capture({"date": iso(TODAY - 1)})  # again, as asked
    assert report["counts"]["captured"] == 1
    (row,) = await world.agrees(one)
    assert (row["isRestated"], row["capturedValue"]) == (False, 600.0)


async def test_portfolios_come_and_go_and_get_accounts(world: World, database: Any) -> None:
    one, two = await world.portfolio(), await world.portfolio()
    for portfolio in (one, two):
        await world.add(portfolio, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    empty = await world.portfolio()
    await world.capture()
    account = (await world.send("POST", f"/api/portfolios/{two}/accounts", {"name": "IRA"}))["id"]
    await world.add(two, date=iso(FIRST), type="buy", symbol="MSFT", quantity=2, price=100, accountId=account)
    three = await world.portfolio()
    await world.add(three, date=iso(FIRST), type="buy", symbol="MSFT", quantity=1, price=100)
    await world.send("DELETE", f"/api/portfolios/{one}")
    await world.morning(TODAY + 1)
    assert [row["date"] for row in await world.agrees(two, restated=True)] == [iso(TODAY - 1), iso(TODAY)]
    assert len(await world.agrees(three)) == 1
    assert await world.shown(empty) == []
    assert await database["snapshot_rosters"].count_documents({"portfolios": one}) == 0
    (first, last) = await world.shown(two)
    assert {len(row["accounts"]) for row in (first, last)} == {2}, "the history has both accounts on every day"
    assert (first["isRestated"], last["isRestated"]) == (True, False)


async def test_what_has_no_price_is_told_of_beside_the_value(world: World) -> None:
    """Its portfolio is captured without it, and says so; with its first price it comes in, which is no gain."""
    one = await world.portfolio(cashTracking=True)
    await world.add(one, date=iso(FIRST), type="deposit", amount=500)
    for symbol in ("AAPL", "NEW"):
        await world.add(one, date=iso(FIRST), type="buy", symbol=symbol, quantity=3, price=100)
    counts = (await world.capture())["counts"]
    assert (counts["captured"], counts["provisional"]) == (1, 0)
    (row,) = await world.agrees(one)
    share = row["coverage"]
    assert (0 < share < 1, row["estimated"]) == (True, False)
    said = {"totalValue": "some_values_unknown", "dayChange": "some_values_unknown", "cash": "overdrawn"}
    assert row["reasons"] == said
    assert row["accounts"][0]["coverage"] == share
    assert row["accounts"][0]["reasons"] == said
    await world.price(Instrument("NEW"), {TODAY: 100.0})
    await world.morning(TODAY + 1)
    first, last = await world.agrees(one)
    assert (first, last["coverage"]) == (row, 1.0)
    assert last["reasons"] == {"dayChange": "some_values_unknown", "cash": "overdrawn"}
    assert last["netFlow"] == 300.0
    assert last["dayChange"] == pytest.approx(3 * (world.closes[AAPL][TODAY] - world.closes[AAPL][TODAY - 1]), abs=0.01)
    two = await world.portfolio()
    await world.add(two, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    total = (await world.send("GET", "/api/portfolio/daily-snapshots"))["total"]["snapshots"]
    assert [(one["coverage"] < 1, one["reasons"]["totalValue"] if one["coverage"] < 1 else None) for one in total] == [
        (True, "some_values_unknown"), (False, None),
    ]  # fmt: skip


async def test_several_portfolios_are_shown_with_their_total(world: World) -> None:
    for currency in ("USD", "EUR"):
        one = await world.portfolio(baseCurrency=currency)
        await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100, currency="USD")
    await world.capture()
    found = await world.send("GET", "/api/portfolio/daily-snapshots?currency=EUR")
    assert faults("/api/portfolio/daily-snapshots", found) == []
    assert faults("/api/portfolio/daily-snapshots", found["portfolios"][0]) == []
    assert [len(one["snapshots"]) for one in found["portfolios"]] == [1, 1]
    (row,) = found["total"]["snapshots"]
    dollars, euros = (one["snapshots"][0]["totalValue"] for one in found["portfolios"])
    rate = world.closes[PAIR][TODAY - 1]
    assert row["totalValue"] == pytest.approx(dollars * rate + euros, abs=0.01)
    assert (row["captured"], row["isFinal"]) == (2, True)
    assert (await world.send("GET", "/api/portfolio/daily-snapshots?portfolioId=" + one, name="ann"))["baseCurrency"]
    status, _ = await world.daemon.get(f"/api/portfolio/daily-snapshots?portfolioId={one}", headers=user("bob"))
    assert status == 404


class Killed(BaseException):
    """What a test ends a run with."""


@pytest.mark.parametrize("where", ["write_blocks", "write_rows", "record", "examine"])
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
async def test_a_run_that_ends_anywhere_is_finished_by_the_next(world: World, where: str, is_done: bool) -> None:
    made = [await world.portfolio(cashTracking=True) for _ in range(3)]
    for one in made:
        await world.add(one, date=iso(FIRST), type="deposit", amount=5000)
        await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.capture()
    await world.add(made[0], date=iso(TODAY - 2), type="buy", symbol="MSFT", quantity=3, price=100)
    await world.price(AAPL, {TODAY - 9: 50.0})
    await world.trade(AAPL, TODAY, TODAY)
    await world.trade(MSFT, TODAY, TODAY)
    world.at(TODAY + 1)
    capture = world.daemon.parts.portfolio.snapshot_capture
    store = capture._store
    method = getattr(type(store), where)

    async def ends(*arguments: Any) -> Any:
        if is_done:
            await method(store, *arguments)
        raise Killed

    from unittest.mock import patch

    from pricecache.stores.runs import Run, RunHandle

    def handle() -> RunHandle:
        return RunHandle(Run("x", SNAPSHOT_JOB, "running", "test", {}, world.daemon.clock.time()))

    with patch.object(type(store), where, lambda self, *arguments: ends(*arguments)), pytest.raises(Killed):
        await capture.run_job(handle())
    await capture.run_job(handle())
    for one in made:
        rows = await world.agrees(one, restated=True)
        assert [row["date"] for row in rows] == [iso(TODAY - 1), iso(TODAY)]
        assert (rows[-1]["isFinal"], rows[-1]["isRestated"]) == (True, False)
    third = handle()
    await capture.run_job(third)
    assert third.run.counts == {"days": 0}
    assert await world.daemon.parts.portfolio.snapshot_stats.success_rate() == 100.0


async def test_daemons_that_capture_at_once_capture_the_same(world: World, database: Any) -> None:
    import asyncio

    made = [await world.portfolio() for _ in range(4)]
    for one in made:
        await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    async with api_daemon(database, keys=("operator:ops:ops-key",), clock=world.daemon.clock) as other:
        await other.parts.load()
        other.parts.prices.catalog.trusted = other.parts.prices.heads.trusted = False
        path = "/api/portfolio/daily-snapshots/capture?wait=30"
        for day in (TODAY, TODAY + 1, TODAY + 4):
            world.at(day, 6)
            if day > TODAY:
                await world.trade(AAPL, max(world.closes[AAPL]) + 1, day - 1)
                await world.add(made[0], date=iso(day - 1), type="buy", symbol="AAPL", quantity=1, price=100)
            reports = await asyncio.gather(
                *(daemon.call("POST", path, headers=KEY, json={}) for daemon in (world.daemon, other))
            )
            assert [report["state"] for _, report in reports] == ["succeeded", "succeeded"]
            for one in made:
                await world.agrees(one, restated=True)
    days = [row["date"] for row in await world.agrees(made[0], restated=True)]
    assert len(days) == len(set(days)) == 3


async def test_a_day_nobody_captured_counts_as_missed_until_it_is(world: World) -> None:
    from pricecache.stores.snapshots import Counts, DayRecord, SnapshotStore

    stats = world.daemon.parts.portfolio.snapshot_stats
    assert await stats.success_rate() is None
    store = SnapshotStore(world.daemon.parts.portfolio.snapshot_capture._store._rows.database)
    await store.record(DayRecord(TODAY - 2, Counts(4, 3, 1), True))
    await store.record(DayRecord(TODAY - 1, Counts(4, 4, 0), True))
    assert await stats.success_rate() == pytest.approx(87.5)
    assert await stats.success_rate(1) == 100.0


async def test_days_that_no_run_began_count_as_missed_until_they_are_caught_up(world: World) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    stats = world.daemon.parts.portfolio.snapshot_stats
    await world.capture()
    world.at(TODAY + 1, 4, 59)  # the job of this morning may be at it
    assert await stats.success_rate() == 100.0
    world.at(TODAY + 1, 5)
    assert await stats.success_rate() == 50.0
    world.at(TODAY + 14, 12)
    sessions = len(world.sessions(AAPL, TODAY, TODAY + 13))
    assert await stats.success_rate() == pytest.approx(100 / (1 + sessions))
    assert await stats.success_rate(7) == 0.0
    metrics = await world.send("GET", "/api/portfolio/reconstruction/metrics")
    assert metrics["daily_snapshot_success_rate"] == pytest.approx(100 / (1 + sessions), abs=1e-5)
    await world.trade(AAPL, TODAY, TODAY + 13)
    assert (await world.capture())["counts"]["captured"] == sessions
    assert await stats.success_rate() == 100.0


@pytest.mark.parametrize(
    ("day", "message"),
    [
        ("2026-11-14", "No session closed on 2026-11-14, by now."),  # a Saturday
        (iso(TODAY), f"No session closed on {iso(TODAY)}, by now."),
        ("1998-11-20", "No portfolio had anything on 1998-11-20 that closed."),
        ("1902-11-20", "No session closed on 1902-11-20, by now."),
    ],
)
async def test_a_day_of_which_there_is_nothing_to_capture_is_told_so(world: World, day: str, message: str) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    report = await world.capture({"date": day})
    assert (report["message"], report["counts"].get("captured", 0), report["failures"]) == (message, 0, [])
    assert await world.shown(one, start=-20_000) == []
    assert (await world.capture())["counts"]["days"] == 1, "it is no day that others are due since"
    assert await world.daemon.parts.portfolio.snapshot_stats.success_rate() == 100.0


async def test_a_day_that_has_not_come_is_refused(world: World) -> None:
    path = "/api/portfolio/daily-snapshots/capture"
    for day in ("2026-11-22", "2031-01-01"):
        status, answer = await world.daemon.call("POST", path, headers=KEY, json={"date": day})
        assert (status, answer["code"]) == (422, "date_in_the_future"), day
    status, _ = await world.daemon.call("POST", path + "?wait=30", headers=KEY, json={"date": iso(TODAY)})
    assert status == 200


async def test_a_day_that_is_asked_for_takes_none_before_it_from_the_days_that_are_due(world: World) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.capture()
    days = world.sessions(AAPL, TODAY, TODAY + 7)
    await world.trade(AAPL, TODAY, TODAY + 7)
    world.at(TODAY + 8)
    assert (await world.capture({"date": iso(days[-1])}))["counts"]["captured"] == 1
    assert (await world.capture())["counts"]["days"] == len(days)
    assert [row["date"] for row in await world.agrees(one)] == [iso(TODAY - 1), *map(iso, days)]
    assert (await world.capture())["counts"] == {"days": 0}


async def test_a_stop_keeps_what_was_computed_and_the_next_run_goes_on_from_it(world: World) -> None:
    from pricecache.portfolio import snapshot_members
    from pricecache.stores.runs import Run, RunHandle

    made = [await world.portfolio() for _ in range(5)]
    for one in made:
        await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    capture = world.daemon.parts.portfolio.snapshot_capture
    first = RunHandle(Run("x", SNAPSHOT_JOB, "running", "test", {}, world.daemon.clock.time()))
    wholes = world.daemon.parts.portfolio.wholes
    asked = wholes.settled

    async def stopping(portfolio: Any, stored: Any = None) -> Any:
        first.stopping = portfolio.id == made[1]
        return await asked(portfolio, stored)

    wholes.settled, together = stopping, snapshot_members.TOGETHER  # type: ignore[method-assign]
    snapshot_members.TOGETHER = 2
    try:
        await capture.run_job(first)
    finally:
        wholes.settled, snapshot_members.TOGETHER = asked, together  # type: ignore[method-assign]
    assert first.stopping
    assert await world.shown(made[0]) == []
    report = await world.capture()
    assert (report["counts"]["captured"], report["counts"]["recomputed"]) == (5, 3)
    for one in made:
        await world.agrees(one)


async def test_one_that_fails_is_told_and_counted_and_tried_again(world: World) -> None:
    made = [await world.portfolio() for _ in range(4)]
    for one in made:
        await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    wholes = world.daemon.parts.portfolio.wholes
    asked = wholes.settled

    async def failing(portfolio: Any, stored: Any = None) -> Any:
        if portfolio.id == made[2]:
            raise RuntimeError("a fault of ours")
        return await asked(portfolio, stored)

    wholes.settled = failing  # type: ignore[method-assign]
    report = await world.capture()
    wholes.settled = asked  # type: ignore[method-assign]
    assert [failure["portfolioId"] for failure in report["failures"]] == [made[2]]
    assert (report["counts"]["captured"], report["counts"]["provisional"]) == (3, 1)
    assert await world.daemon.parts.portfolio.snapshot_stats.success_rate() == 75.0
    assert await world.shown(made[2]) == []
    report = await world.capture()
    assert (report["counts"]["provisional"], report["failures"]) == (0, [])
    assert await world.daemon.parts.portfolio.snapshot_stats.success_rate() == 100.0
    for one in made:
        await world.agrees(one)


async def test_without_kept_histories_closes_are_captured_all_the_same(database: Any) -> None:
    async with api_daemon(database, keys=("operator:ops:ops-key",), use_materialized=False) as daemon:
        world = World(daemon, np.random.default_rng(5))
        await world.trade(AAPL, FIRST - 20, TODAY - 1)
        one = await world.portfolio()
        await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
        await world.capture()
        await world.morning(TODAY + 1)
        rows = await world.agrees(one)
        assert [row["isFinal"] for row in rows] == [True, True]


async def test_more_than_a_block_of_portfolios(world: World, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pricecache.portfolio import snapshot_capture

    monkeypatch.setattr(snapshot_capture, "SIZE", 3)
    monkeypatch.setattr(snapshot_capture, "GROUP", 2)
    made = []
    for number in range(8):
        made.append(await world.portfolio())
        await world.add(made[-1], date=iso(FIRST), type="buy", symbol="AAPL", quantity=number + 1, price=100)
    await world.capture()
    assert await database["snapshot_blocks"].count_documents({"_id": {"$gte": 0}}) == 3
    for _ in range(3):
        made.append(await world.portfolio())
        await world.add(made[-1], date=iso(FIRST), type="buy", symbol="MSFT", quantity=2, price=100)
    report = await world.morning(TODAY + 1)
    assert (report["counts"]["captured"], report["counts"]["recomputed"]) == (11, 3)
    assert await database["snapshot_blocks"].count_documents({"_id": {"$gte": 0}}) == 4
    for one in made:
        await world.agrees(one)


async def test_a_split_makes_what_is_held_another_without_a_session_that_changed(world: World) -> None:
    """A revision that only tells of a split changes no session, and one that is known before its day is none at all."""
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.price(AAPL, {}, Action(TODAY + 3, "split", 3.0))
    await world.capture()
    await world.price(AAPL, {}, Action(TODAY, "split", 2.0), Action(TODAY + 3, "split", 3.0))
    for day in (TODAY + 1, TODAY + 4):
        assert (await world.morning(day))["counts"]["recomputed"] == 1
        assert (await world.agrees(one))[-1]["totalValue"] == pytest.approx(
            (6 if day == TODAY + 1 else 18) * world.closes[AAPL][day - 1], abs=0.01
        )


async def test_the_day_that_a_share_is_delisted_on_closes(world: World) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="GONE", quantity=3, price=100)
    await world.capture()
    services = world.daemon.services
    await services.instruments.set_delisted(services.catalog.require(GONE), TODAY)
    await world.morning(TODAY + 1)
    world.closes.pop(GONE)  # no more of it
    await world.morning(TODAY + 4)
    assert [row["date"] for row in await world.agrees(one)] == [iso(TODAY - 1), iso(TODAY)]


async def test_the_day_before_it_is_held_as_it_is_now_is_computed(world: World) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.add(one, date=iso(TODAY - 1), type="buy", symbol="AAPL", quantity=1, price=100)
    await world.capture()
    counts = (await world.capture({"date": iso(TODAY - 2)}))["counts"]
    assert (counts["captured"], counts["recomputed"]) == (1, 1)
    rows = await world.agrees(one)
    assert [row["totalValue"] for row in rows] == pytest.approx(
        [3 * world.closes[AAPL][TODAY - 2], 4 * world.closes[AAPL][TODAY - 1]], abs=0.01
    )


@pytest.mark.parametrize("minutes", [-5, 5])
async def test_what_daemons_with_another_time_stored_is_not_looked_up_one_by_one(
    world: World, database: Any, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    one = await world.portfolio()
    await world.add(one, date=iso(FIRST), type="buy", symbol="AAPL", quantity=3, price=100)
    await world.capture()
    captured_at = world.daemon.clock.now()
    await world.trade(AAPL, TODAY, TODAY)
    number = world.daemon.services.catalog.require(AAPL).id
    batch = ObjectId.from_datetime(captured_at + timedelta(minutes=minutes))
    newest = {"_id.s": number, "_id.rev": world.daemon.services.catalog.require(AAPL).head.rev}
    assert (await database["revisions"].update_one(newest, {"$set": {"batch": batch}})).modified_count == 1
    looked_up: list[int] = []
    usual = Journal.first_changed

    async def first_changed(journal: Journal, spans: Any, *rest: Any) -> Any:
        looked_up.extend(spans)
        return await usual(journal, spans, *rest)

    monkeypatch.setattr(Journal, "first_changed", first_changed)
    assert (await world.morning(TODAY + 1))["counts"]["captured"] == 1
    assert looked_up == []
    await world.agrees(one)
