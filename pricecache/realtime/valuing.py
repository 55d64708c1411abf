"""Values followed portfolios: many in one pass where prices alone have changed, one by one where more has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pricecache.clock import Clock
from pricecache.core.extremes import Extremes
from pricecache.core.instruments import Instrument
from pricecache.core.live_figures import Figures
from pricecache.core.live_rows import LiveRow, live_row
from pricecache.core.livebook import LiveBook
from pricecache.core.portfolios import Portfolio
from pricecache.portfolio.market import pair_of
from pricecache.portfolio.summary import Asked, Summaries, Summarised
from pricecache.portfolio.threads import aside
from pricecache.realtime.day_ranges import DayRanges, RangeNow
from pricecache.realtime.followed import Followed, FollowedPortfolios, PresentNow
from pricecache.realtime.shapes import Event, Positions, brought_up, changed, key_of, values_of
from pricecache.realtime.watched_prices import WatchedPrices
from pricecache.stores.portfolios import PortfolioStore

FIGURES_AT_ONCE = 10
"""Portfolios whose listeners are told before the event loop gets its turn."""
NOTED_AT_ONCE = 500
"""New highs and lows that are noted before it does."""

Shape = Callable[[Summarised, RangeNow | None], Mapping[str, Any]]


class Listeners(Protocol):
    """Whom values are told."""

    def publish_values(self, portfolio_id: str, values: Mapping[str, Event]) -> object: ...
    def hold(self, portfolio_id: str, holdings: frozenset[str]) -> object: ...


@dataclass(slots=True)
class Counts:
    """Since the start. `passes`: computations over all that was due; `valued`: portfolios in these; `summed_up`:
    portfolios that were computed alone, from their ledgers; `seconds`: what the last pass took."""

    passes: int = 0
    valued: int = 0
    summed_up: int = 0
    seconds: float = 0.0


class Valuer:
    """Loop-only. `shape`: the fields that a summary is answered with, which is what listeners get first."""

    def __init__(
        self,
        followed: FollowedPortfolios,
        book: LiveBook,
        prices: WatchedPrices,
        ranges: DayRanges,
        portfolios: PortfolioStore,
        summaries: Summaries,
        listeners: Listeners,
        shape: Shape,
        clock: Clock,
    ) -> None:
        self.counts = Counts()
        self._followed = followed
        self._book = book
        self._extremes = Extremes(book)
        self._prices = prices
        self._ranges = ranges
        self._portfolios = portfolios
        self._summaries = summaries
        self._listeners = listeners
        self._shape = shape
        self._clock = clock

    def present(self, found: Followed) -> PresentNow:
        """At this moment: of a row, what the last pass made of it; else what it was summed up to last."""
        value, change = found.value, found.change
        if found.row is not None and not isnan(self._book.change[found.slot]):
            places = found.row.places
            value = round(float(self._book.value[found.slot]), places)
            change = round(float(self._book.change[found.slot]), places)
        portfolio = found.portfolio
        seen = None if portfolio is None else self._ranges.now(portfolio, found.day, value, change)
        return PresentNow(
            found.day,
            found.held,
            value,
            change,
            None if seen is None else seen.high,
            None if seen is None else seen.low,
        )

    def forget(self, found: Followed) -> None:
        """It is followed no more."""
        self._extremes.restart(found.slot)
        self._ranges.forget(found.id)

    def over(self, followed: Iterable[Followed]) -> Iterator[Followed]:
        """Those of them whose day has come from which on their row holds no more, whatever prices do."""
        days: dict[str, int] = {}
        for found in followed:
            row, portfolio = found.row, found.portfolio
            if row is None or portfolio is None:
                continue
            if portfolio.time_zone not in days:
                days[portfolio.time_zone] = self._summaries.today(portfolio)
            if days[portfolio.time_zone] >= row.until:
                yield found

    def rolled(self, slots: NDArray[np.int64]) -> None:
        """These hold something of which a new session has opened: their ranges begin anew if it is the latest."""
        for slot in slots.tolist():
            found = self._followed.at(slot)
            if found is not None and self._latest(found) != found.day:
                found.day = self._latest(found)
                self._extremes.restart(slot)

    def _latest(self, found: Followed) -> int | None:
        days = [day for one in found.held if (day := self._prices.day(one)) is not None]
        return max(days, default=found.day)

    # by prices alone

    async def value(self, due: Sequence[Followed]) -> None:
        """All of `due` in one pass, each with a row. What moves by it and is not due is told when its time comes."""
        if self._book.wants_merge:
            self._book.adopt(await asyncio.to_thread(self._book.layout()))
        started = time.perf_counter()
        self._book.revalue()
        await self._stretch()
        self.counts.passes += 1
        self.counts.valued += len(due)
        self.counts.seconds = time.perf_counter() - started
        listened = [one for one in due if one.is_listened]
        for i in range(0, len(listened), FIGURES_AT_ONCE):
            part = [one for one in listened[i : i + FIGURES_AT_ONCE] if self._is_told(one)]
            if part:
                figures = self._book.figures(np.array([one.slot for one in part], np.int64))
                for at, one in enumerate(part):
                    self._tell(one, figures, at)
            await asyncio.sleep(0)

    def _is_told(self, one: Followed) -> bool:
        """Still, by its row: others may have had it dropped, and its slot used, since the pass."""
        return one.is_listened and one.row is not None and self._followed.at(one.slot) is one

    async def _stretch(self) -> None:
        """Take note of changes that are greater or less than any before them today."""
        for count, slot in enumerate(self._extremes.track().tolist(), 1):
            if not count % NOTED_AT_ONCE:
                await asyncio.sleep(0)
            found, seen = self._followed.at(slot), self._extremes.range(slot)
            if found is not None and found.day is not None and seen is not None and not found.is_doubted:
                for change in seen:
                    self._ranges.note(found.id, found.day, change)

    def _tell(self, found: Followed, figures: Figures, at: int) -> None:
        if not found.values or found.portfolio is None:
            return  # whoever listens has not been told the first values yet
        value, change = float(figures.totals.value[at]), float(figures.totals.change[at])
        prices = [watched.present for watched in found.watched]
        ranged = self._ranges.now(found.portfolio, found.day, value, change)
        news = brought_up(found.values, figures, at, found.positions, prices, ranged, self._clock.time())
        if news:
            found.values |= news
            self._listeners.publish_values(found.id, news)

    def _publish(self, found: Followed, values: dict[str, Event]) -> None:
        news, found.values = changed(found.values, values), values
        if news:
            self._listeners.publish_values(found.id, news)

    # by the ledger

    async def sum_up(self, found: Followed) -> bool:
        """One portfolio from its ledger, and its row for the passes to come; whether that is of the present sessions
        and prices, else it is to be valued once more. Raises `NotFound` when it has gone, `Unavailable` while a
        calendar is built, and what the database raises."""
        found.is_doubted = False  # what is doubted from here on is doubted again
        portfolio = await self._portfolios.find(found.id)
        await self._ranges.load([portfolio.id])
        asked = await self._summaries.asked(portfolio)
        summarised = await self._summaries.computed(asked)
        row = await aside(asked.rows, lambda: _row_of(asked))
        self.counts.summed_up += 1
        if self._followed.at(found.slot) is not found:
            return True  # dropped meanwhile
        ranged = self.noted(summarised)
        found.portfolio = portfolio
        is_present = self._place(found, asked, summarised, row)
        if found.is_listened:
            self._listeners.hold(portfolio.id, frozenset(one.key for one in found.held))
            self._publish(found, values_of(self._shape(summarised, ranged)))
        return is_present

    def noted(self, summarised: Summarised) -> RangeNow | None:
        """How high and low a portfolio was today, with what it is now. None where its change is not known."""
        portfolio, worth = summarised.portfolio, summarised.summary.worth
        day, change = latest_session(summarised), worth.change
        if day is None or change is None or "change" in summarised.summary.incomplete:
            return None
        before = (
            self._change_before(portfolio) if self._ranges.is_corrected(portfolio.id, summarised.corrections) else None
        )
        self._ranges.note(portfolio.id, day, change, summarised.corrections, before)
        return self._ranges.now(portfolio, day, worth.value, change)

    def _change_before(self, portfolio: Portfolio) -> float | None:
        """The day change at this moment of the ledger as it was followed so far, None unknown."""
        found = self._followed.get(portfolio.id)
        if found is None or found.row is None or found.row.base != portfolio.rules.currency:
            return None
        self._book.revalue()
        change = float(self._book.change[found.slot])
        return None if isnan(change) else change

    def _place(self, found: Followed, asked: Asked, summarised: Summarised, row: LiveRow | None) -> bool:
        """Let the passes to come value it by `row`; without one it is summed up each time. Whether nothing can have
        changed since `asked` that it was not told of."""
        now = summarised.summary
        found.positions, found.watched = Positions(), ()
        found.held = frozenset(one.instrument for one in now.positions if one.quantity)
        found.names = frozenset(asked.ledger.instruments())
        found.value, found.change = now.worth.value, now.worth.change
        found.row, found.day = row, latest_session(summarised)
        self._extremes.restart(found.slot)  # what it saw of the row before may have been of no day
        if row is None:
            self._book.drop(found.slot)
            return not self._followed.set_irregular(found, frozenset(one.key for one in _concern(asked)))
        self._followed.set_irregular(found, frozenset())
        new = [name for name in row.names if self._book.columns.find((name, row.base)) is None]
        older = set(self._book.put(found.slot, row).tolist())
        for name in row.names:
            self._prices.watch((name, row.base))
        found.positions = _positions(row, found.held)
        found.watched = tuple(map(self._prices.watched, _instruments(row)))
        if older:
            self._prices.doubt((name, row.base) for name in row.names if self._book.column(name, row.base) in older)
            found.is_doubted = True
        self._prices.doubt((name, row.base) for name in new)
        return not older and not new


def latest_session(summarised: Summarised) -> int | None:
    """The latest session of what a portfolio holds or has sold in it, days since 1970-01-01; None without any."""
    shown = (summarised.sessions[one.instrument].day for one in summarised.summary.positions)
    return max(shown, default=None)


def _instruments(row: LiveRow) -> list[Instrument]:
    return [name for name in row.names if not isinstance(name, str)]


def _positions(row: LiveRow, held: Collection[Instrument]) -> Positions:
    names = _instruments(row)
    currencies = tuple(name for name in row.names if isinstance(name, str))
    return Positions(tuple(map(key_of, names)), tuple(one in held for one in names), currencies, [None] * len(names))


def _row_of(asked: Asked) -> LiveRow | None:
    return live_row(asked.ledger, asked.market, asked.sessions, asked.end, since=asked.since)


def _concern(asked: Asked) -> set[Instrument]:
    """What the worth of a portfolio depends on: what its ledger names, and the rates of its currencies."""
    names, base = asked.ledger.instruments(), asked.ledger.rules.currency
    currencies = {asked.market.prices[one].currency for one in names if one in asked.market.prices}
    pairs = {pair_of(one, base) for one in currencies | asked.ledger.currencies()}
    return {*names, *(pair for pair in pairs if pair is not None)}
