"""Closes where sessions end on different days: New York and Tokyo over Thanksgiving, morning by morning."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from pricecache.core.bars import day_number
from pricecache.core.instruments import Instrument
from tests.clock import ManualClock
from tests.fakes.calendars import calendar_of
from tests.integration.api_daemon import AAPL, api_daemon
from tests.integration.test_snapshots import World, iso

TOYOTA, YEN = Instrument("7203", "T"), Instrument("JPYUSD=X", "FX")
FIRST = day_number(date(2026, 11, 19))
EVERYWHERE = ["2026-11-20", "2026-11-24", "2026-11-25", "2026-11-27"]
IN_TOKYO, IN_NEW_YORK = ["2026-11-26"], ["2026-11-23"]
"""Beside these: Tokyo rests on the Monday, New York on the Thursday, and it closes at 13:00 on the Friday."""


async def test_a_day_counts_for_whoever_holds_what_closed_on_it(database: Any) -> None:
    clock = ManualClock(datetime(2026, 11, 19, 9, tzinfo=UTC))
    async with api_daemon(database, keys=("operator:ops:ops-key",), clock=clock) as daemon:
        daemon.services.calendars.add(calendar_of("XTKS", date(2026, 1, 1)))
        world = World(daemon, np.random.default_rng(7))
        held = {"new york": ("AAPL",), "tokyo": ("7203:T",), "both": ("AAPL", "7203:T")}
        made = {}
        await trade_until(world, FIRST - 40, FIRST)
        for name, symbols in held.items():
            made[name] = await world.portfolio()
            for symbol in symbols:
                row = {"date": iso(FIRST - 20), "type": "buy", "symbol": symbol, "quantity": 3, "price": 100}
                await world.add(made[name], **row)
        captured = []
        for morning in range(FIRST + 2, FIRST + 11):
            await trade_until(world, FIRST, morning - 1)
            if iso(morning) == "2026-11-28":
                await half_day(world, morning - 1)
            world.at(morning)
            counts = (await world.capture())["counts"]
            captured.append((iso(morning), counts.get("captured", 0), counts.get("provisional", 0)))
        assert captured == [
            ("2026-11-21", 3, 0), ("2026-11-22", 0, 0), ("2026-11-23", 0, 0), ("2026-11-24", 2, 0),
            ("2026-11-25", 3, 0), ("2026-11-26", 3, 0), ("2026-11-27", 2, 0), ("2026-11-28", 3, 0),
            ("2026-11-29", 0, 0),
        ]  # fmt: skip
        days = {
            "new york": sorted(EVERYWHERE + IN_NEW_YORK),
            "tokyo": sorted(EVERYWHERE + IN_TOKYO),
            "both": sorted(EVERYWHERE + IN_TOKYO + IN_NEW_YORK),
        }
        for name, portfolio in made.items():
            rows = [row for row in await world.agrees(portfolio) if row["date"] > iso(FIRST)]
            assert [row["date"] for row in rows] == days[name], name
            assert all(row["isFinal"] and row["coverage"] == 1.0 for row in rows)
            assert [row["previousDate"] for row in rows[1:]] == days[name][:-1]


async def trade_until(world: World, first: int, last: int) -> None:
    for instrument in (AAPL, TOYOTA, YEN):
        known = world.closes.get(instrument)
        after = first if known is None else max(known) + 1
        if days := world.sessions(instrument, after, last):
            await world.trade(instrument, days[0], days[-1])


async def half_day(world: World, day: int) -> None:
    """On its afternoon it can be asked for, as soon as it closed; it is not over yet."""
    world.at(day, 12, 30)
    assert (await world.capture({"date": iso(day)}))["counts"]["captured"] == 2, "Tokyo's closed already"
    world.at(day, 13, 30)
    counts = (await world.capture({"date": iso(day)}))["counts"]
    assert (counts["captured"], counts["provisional"]) == (3, 3)
