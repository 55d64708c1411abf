"""Calendars are built once, kept in the database, read from there, and made longer before they run out."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any

import pytest

from pricecache.calendars import DAYS_AHEAD, LEAST_DAYS_AHEAD, RETRY_SECONDS, CalendarLoader
from pricecache.core.bars import day_number
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Unavailable
from tests.clock import ManualClock

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
TODAY = day_number(NOW.date())
DAY = 86400.0


def loader_on(database: Any, clock: ManualClock) -> tuple[CalendarLoader, CalendarBook]:
    book = CalendarBook()
    return CalendarLoader(clock, database["calendars"], book), book


async def test_a_calendar_is_built_when_first_needed_and_read_after_a_restart(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(NOW)
    loader, book = loader_on(database, clock)
    await loader.load()
    assert "24/7" in book
    assert "24/5" in book
    assert "XNYS" not in book
    await asyncio.gather(loader.ensure(["XNYS", "24/7"]), loader.get("XNYS"))
    built = book.get("XNYS")
    assert TODAY + DAYS_AHEAD - 7 < built.sessions[-1] <= TODAY + DAYS_AHEAD

    async def nothing(*_: object) -> None:
        raise AssertionError("nothing is to be built")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", nothing)
    loader, book = loader_on(database, clock)
    await loader.load()
    await loader.extend()
    stored = book.get("XNYS")
    for column in ("sessions", "opens", "closes"):
        assert (getattr(stored, column) == getattr(built, column)).all()


async def test_calendars_are_extended_before_they_run_out(database: Any) -> None:
    clock = ManualClock(NOW)
    loader, book = loader_on(database, clock)
    await loader.load()
    await loader.ensure(["XNYS"])
    maintaining = asyncio.create_task(loader.maintain())
    await clock.until_sleeping()
    ends = {name: book.get(name).sessions[-1] for name in ("XNYS", "24/7", "24/5")}
    clock.advance((DAYS_AHEAD - LEAST_DAYS_AHEAD + 8) * DAY)
    await asyncio.sleep(0)
    await clock.until_sleeping()
    maintaining.cancel()
    for name, end in ends.items():
        assert book.get(name).sessions[-1] > end + 200


async def test_a_calendar_of_another_library_version_is_built_anew(database: Any) -> None:
    clock = ManualClock(NOW)
    loader, _ = loader_on(database, clock)
    await loader.ensure(["XNYS"])
    await database["calendars"].update_one({"_id": "XNYS"}, {"$set": {"version": "0.1", "closes": b"\0" * 76512}})
    loader, book = loader_on(database, clock)
    await loader.load()
    await loader.extend()
    half_day = book.get("XNYS").close_of(day_number(date(2025, 11, 28)))
    assert half_day == datetime(2025, 11, 28, 18, tzinfo=UTC).timestamp()


async def test_one_that_cannot_be_built_is_unavailable_and_tried_again_after_a_while(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(NOW)
    loader, _ = loader_on(database, clock)
    started = []
    start = asyncio.create_subprocess_exec

    async def counted(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        started.append(arguments[-1])
        return await start(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            await loader.get("NOWHERE")
        assert refused.value.code == "calendar_loading"
    assert started == ["NOWHERE"]
    clock.advance(RETRY_SECONDS)
    with pytest.raises(Unavailable):
        await loader.get("NOWHERE")
    assert started == ["NOWHERE", "NOWHERE"]
