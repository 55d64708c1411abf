"""A provider that is gone for a week: every question is still answered, and nobody has to repair anything after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from pricecache.core.bars import Bars, day_number, day_of
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import ProviderUnavailable
from pricecache.providers.base import History, Quotes
from tests.clock import ManualClock
from tests.fakes.provider import ScriptedProvider, Truth
from tests.simulation import Simulation, random_walk, simulation

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NOW = datetime(2026, 11, 20, 22, tzinfo=UTC).timestamp()  # a Friday, an hour after New York closed
TODAY, LAST = day_number(date(2026, 11, 20)), day_number(date(2026, 11, 28))
SYMBOLS = [Instrument(name) for name in ("AAPL", "IBM", "MSFT", "GOOG", "SPY")]
SESSIONS_MISSED = ["2026-11-23", "2026-11-24", "2026-11-25", "2026-11-27"]  # the 26th is Thanksgiving


class MortalProvider(ScriptedProvider):
    """Knows the closes of every minute; answers nothing while `is_gone`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_gone = False
        self.control = SYMBOLS[-1]

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        answer = super().history(instrument, start, end)
        if self.is_gone:
            raise ProviderUnavailable("The connection was refused.")
        now = self.clock.time() if self.clock else NOW
        due = [s for s in answer.bars.sessions.tolist() if s * DAY + 22 * HOUR <= now]
        return replace(answer, bars=answer.bars.between(None, due[-1]) if due else Bars.empty())

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        super().quotes(instruments)
        if self.is_gone:
            raise ProviderUnavailable("The connection was refused.")
        assert self.clock is not None
        now = self.clock.time()
        return Quotes([Quote(i, self._close(i, now), "USD", now - 1, now, self.name) for i in instruments])

    def _close(self, instrument: Instrument, now: float) -> float:
        return float(self.truth[instrument].bars.between(None, int(now // DAY)).close[-1])


@pytest.mark.slow
async def test_a_provider_gone_for_a_week_costs_no_answer_and_heals_when_it_returns(
    database: Any, tmp_path: Path
) -> None:
    clock, provider = ManualClock(NOW), MortalProvider()
    async with simulation(database, clock, [provider], tmp_path, backfill_days=365) as daemon:
        calendar = daemon.book.get("XNYS")
        for seed, instrument in enumerate(SYMBOLS):
            provider.truth[instrument] = Truth(random_walk(seed, calendar, TODAY - 400, LAST))
        await daemon.track(SYMBOLS)
        await daemon.sync()
        await daemon.refresh()
        before = {i: await bars_of(daemon, i) for i in SYMBOLS}
        assert all(len(bars) > 200 for bars in before.values())

        provider.is_gone = True
        made = len(provider.calls)
        for quarter in range(7 * 24 * 4):
            clock.advance(15 * MINUTE)
            await daemon.refresh()
            if quarter % 12 == 0:
                await daemon.sync()
            if quarter % 24 == 0:
                await every_question_is_answered(daemon, before)
        refused = len(provider.calls) - made
        assert refused <= 7 * 24 * 4 + 50, "an outage is looked into now and then, not hammered"
        _, symbols = await daemon.get("/cache/symbols")
        states = {row["state"] for row in symbols["symbols"]}
        assert states <= {"failing", "pending"}, "an outage speaks against no symbol"
        assert any(row["code"] == "provider_paused" for row in symbols["symbols"]), "and its reason is said"

        provider.is_gone = False
        await until_whole(daemon)
        for instrument in SYMBOLS:
            bars = await bars_of(daemon, instrument)
            added = [row for row in bars if row["date"] > day_of(TODAY).isoformat()]
            assert bars[: len(before[instrument])] == before[instrument]
            assert [row["date"] for row in added] == SESSIONS_MISSED


async def bars_of(daemon: Simulation, instrument: Instrument) -> list[dict[str, Any]]:
    status, answer = await daemon.get(f"/cache/historical/{instrument.symbol}?period=MAX")
    assert status == 200
    provisional = set(answer["provisional"])
    return [row for row in answer["bars"] if row["date"] not in provisional]


async def every_question_is_answered(daemon: Simulation, before: dict[Instrument, list[dict[str, Any]]]) -> None:
    for instrument in SYMBOLS:
        assert await bars_of(daemon, instrument) == before[instrument]
    status, live = await daemon.get("/cache/live?symbols=" + ",".join(i.symbol for i in SYMBOLS))
    assert status == 200
    assert len(live["quotes"]) == len(SYMBOLS)
    is_open = daemon.book.get("XNYS").is_open(daemon.clock.time() - HOUR)
    if is_open and daemon.clock.time() > NOW + DAY:
        assert all(quote["stale"] for quote in live["quotes"]), "a price from before the outage was served as fresh"
    status, coverage = await daemon.get("/cache/coverage")
    assert status == 200
    due = sum(day * DAY + 21.5 * HOUR <= daemon.clock.time() for day in map(day_of_text, SESSIONS_MISSED))
    assert coverage["expected"] - coverage["present"] >= (due - 1) * len(SYMBOLS), "what is missing is said"


async def until_whole(daemon: Simulation) -> None:
    """Two cycles at most."""
    for _ in range(2):
        daemon.clock.advance(3 * HOUR)
        await daemon.refresh()
        await daemon.sync()
        _, coverage = await daemon.get("/cache/coverage")
        if coverage["present"] == coverage["expected"]:
            return
    raise AssertionError(coverage)


def day_of_text(text: str) -> int:
    return day_number(date.fromisoformat(text))
