"""Fetches the latest quotes of everything whose market can have news and that no stream has brought."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import structlog

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, fund_has_news, has_news
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import PricecacheError, ProviderAnswerBad, ProviderError, SymbolNotFound, Unavailable
from pricecache.providers.base import Quotes
from pricecache.sync.ports import Calendars, Handle, PriceSource, has_provider, is_forced
from pricecache.sync.publish import QuotePublisher

log = structlog.get_logger(__name__)

SERIES_AT_ONCE = 50
"""Of which it is decided whether they are due before the event loop gets its turn."""
FIRST_PAUSE = 900.0
LONGEST_PAUSE = float(DAY_SECONDS)
"""Seconds for which a symbol without a quote is not asked for: after the first time, and at most."""
_EARLY = 0.95
"""Part of a pause after which it counts as over: a run a little before its time must not make it twice as long."""


@dataclass(slots=True)
class RefreshReport:
    """What a refresh came to. `asked`: instruments asked for; `quiet`: left alone because their market has no news;
    `streamed`: because a stream brought them; `backing_off`: because nobody knew them the last times; `updated`:
    quotes with a newer or another price than was held; `failures`: why others have none."""

    asked: int = 0
    quiet: int = 0
    streamed: int = 0
    backing_off: int = 0
    updated: int = 0
    failures: dict[Instrument, PricecacheError] = field(default_factory=dict)


COUNTS = ("asked", "quiet", "streamed", "backing_off", "updated")


class LiveRefresher:
    """The job `live_price_update`. Loop-only.

    `interval`: seconds between two runs. `lag`: seconds after a close in which a price may still come.
    `always_moving`: the source has news outside market hours too. `streamed(key, since)`: whether a stream that goes
    on has brought a quote of `Instrument.key` since that instant (seconds since 1970 UTC).
    """

    def __init__(
        self,
        catalog: Catalog,
        live: LiveCache,
        publisher: QuotePublisher,
        source: PriceSource,
        calendars: Calendars,
        clock: Clock,
        *,
        interval: float,
        lag: float,
        always_moving: bool = False,
        streamed: Callable[[str, float], bool] = lambda key, since: False,
    ) -> None:
        self._catalog = catalog
        self._live = live
        self._publisher = publisher
        self._source = source
        self._calendars = calendars
        self._clock = clock
        self._interval = interval
        self._lag = lag
        self._always_moving = always_moving
        self._streamed = streamed
        self._unknown = _Unknown()
        self._failing = False

    async def run(self, handle: Handle) -> None:
        """Refresh all tracked instruments, or those the parameter `symbols` names (`["AAPL:US", ...]`).

        With names, or with the parameter `force`, neither the state of the market nor a stream matters; with names no
        pause does either. Raises `NotFound` for a name not known here.
        """
        named = [Instrument.parse(text) for text in handle.parameters.get("symbols") or ()]
        report = await self.refresh(named or None, force=bool(named) or is_forced(handle))
        for name in COUNTS:
            handle.count(name, getattr(report, name))
        for instrument, error in report.failures.items():
            handle.fail(instrument, error.code, error.detail)
        handle.progress(report.asked, report.asked)

    async def refresh(
        self, instruments: Sequence[Instrument] | None = None, *, force: bool = False, wanted: bool = True
    ) -> RefreshReport:
        """One call for all that are due, one batch stored, then published. `None`: all that are tracked. `wanted`: by
        somebody who named them, so that no pause matters."""
        chosen = self._catalog.tracked() if instruments is None else [self._catalog.require(i) for i in instruments]
        report = RefreshReport()
        now = self._clock.time()
        named = instruments is not None and wanted
        asked = [e for e in chosen if has_provider(e) and (named or not e.has_ended(now))]
        due = await self._due(asked, now, report, force=force, named=named)
        report.asked = len(due)
        if due:
            answer = await self._ask([entry.instrument for entry in due])
            self._unknown.note(due, answer, now)
            await self._take(due, answer, report)
        self._tell(report)
        return report

    async def _due(
        self, entries: Sequence[Entry], now: float, report: RefreshReport, *, force: bool, named: bool
    ) -> list[Entry]:
        due = []
        for number, entry in enumerate(entries):
            if number % SERIES_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                calendar = await self._calendars.get(entry.instrument.place.calendar)
            except Unavailable as exc:
                report.failures[entry.instrument] = exc
                continue
            held = self._live.get(entry.instrument.key)
            if not named and self._unknown.pausing(entry, now):
                report.backing_off += 1
            elif not force and self._streamed(entry.instrument.key, now - self._interval):
                report.streamed += 1
            elif force or self._always_moving or self._can_have_news(entry, held, calendar, now):
                due.append(entry)
            else:
                report.quiet += 1
        return due

    def _can_have_news(self, entry: Entry, held: Quote | None, calendar: SessionCalendar, now: float) -> bool:
        if entry.kind == "fund":
            return fund_has_news(held, calendar, now)
        return has_news(held, calendar, now, self._lag)

    async def _ask(self, instruments: Sequence[Instrument]) -> Quotes:
        try:
            return await self._source.quotes(instruments, lane="live")
        except ProviderError as exc:
            return Quotes((), dict.fromkeys(instruments, exc))

    async def _take(self, due: Sequence[Entry], answer: Quotes, report: RefreshReport) -> None:
        asked = {entry.instrument for entry in due}
        quotes = {quote.instrument: quote for quote in answer.quotes if quote.instrument in asked}
        report.failures.update(answer.failures)
        for instrument in asked - quotes.keys() - answer.failures.keys():
            report.failures[instrument] = ProviderAnswerBad(
                "The provider left this symbol out of its answer.", code="no_quote"
            )
        published = await self._publisher.publish(quotes.values(), way="poll")
        report.failures.update(published.refused)
        report.updated = len(published.news)

    def _tell(self, report: RefreshReport) -> None:
        if report.failures and not self._failing:
            codes = dict(Counter(error.code for error in report.failures.values()))
            log.warning("live prices failing", symbols=len(report.failures), codes=codes)
        elif self._failing and report.asked and not report.failures:
            log.info("live prices recovered")
        self._failing = bool(report.failures) or (self._failing and not report.asked)


class _Unknown:
    """Symbols that no provider knew: asked for ever more rarely, once a day in the end. Forgotten at a restart."""

    def __init__(self) -> None:
        self._pauses: dict[Instrument, tuple[float, float]] = {}

    def pausing(self, entry: Entry, now: float) -> bool:
        asked_at, pause = self._pauses.get(entry.instrument, (-inf, 0.0))
        if entry.state.quarantined_at is not None:
            pause = LONGEST_PAUSE
            asked_at = max(asked_at, entry.state.quarantined_at)
        return now < asked_at + _EARLY * pause

    def note(self, asked: Sequence[Entry], answer: Quotes, now: float) -> None:
        for instrument, error in answer.failures.items():
            if isinstance(error, SymbolNotFound):
                _, pause = self._pauses.get(instrument, (now, 0.0))
                self._pauses[instrument] = (now, min(LONGEST_PAUSE, 2 * pause or FIRST_PAUSE))
        for entry in asked:
            if entry.instrument not in answer.failures:
                self._pauses.pop(entry.instrument, None)
            elif entry.instrument not in self._pauses and entry.state.quarantined_at is not None:
                self._pauses[entry.instrument] = (now, FIRST_PAUSE)
