"""What portfolios close at: captured once, equal to their histories to the cent, whatever changed and whoever died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from pricecache.core.actions import Action
from pricecache.core.bars import Bars, day_of
from pricecache.core.instruments import Instrument
from pricecache.portfolio.snapshot_capture import SNAPSHOT_JOB
from pricecache.stores.bars import Change
from tests.integration.api_daemon import AAPL, TODAY, ApiDaemon, api_daemon

MSFT, PAIR, GONE = Instrument("MSFT"), Instrument("USDEUR=X", "FX"), Instrument("GONE")
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
            if instrument in self.closes and (days := self.sessions(instrument, max(self.closes[instrument]) + 1, day - 1)):
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
            assert (row["cash"], row["totalCost"]) == (now["cash"], now["totalCost"]), row["date"]
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
