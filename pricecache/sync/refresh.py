"""Fetches the latest quotes of everything whose market can have news, and publishes them as one batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import structlog

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch, stale_from
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import ProviderAnswerBad, ProviderError, Unavailable
from pricecache.metrics import Metrics
from pricecache.providers.base import Quotes
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quotes import QuoteStore
from pricecache.sync.examine import Calendars, Handle, PriceSource, currency_is_known, has_provider
from pricecache.sync.historical import is_forced

log = structlog.get_logger(__name__)

FUTURE_SECONDS = 900.0
"""How far a quote's time may lie ahead of our clock before it is refused."""


@dataclass(slots=True)
class RefreshReport:
    """What a refresh came to. `asked`: instruments asked for; `quiet`: left alone because their market has no news;
    `updated`: quotes with a newer or another price than was held; `failures`: why others have none."""

    asked: int = 0
    quiet: int = 0
    updated: int = 0
    failures: dict[Instrument, ProviderError | Unavailable] = field(default_factory=dict)


class LiveRefresher:
    """The job `live_price_update`. Loop-only.

    `interval`: seconds between two runs, which is what freshness is measured by. `lag`: seconds after a close in
    which a price may still come. `always_moving`: the source has news outside market hours too.
    """

    def __init__(
        self,
        catalog: Catalog,
        live: LiveCache,
        quotes: QuoteStore,
        source: PriceSource,
        calendars: Calendars,
        instruments: InstrumentStore,
        clock: Clock,
        *,
        name: str,
        interval: float,
        lag: float,
        always_moving: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self._catalog = catalog
        self._live = live
        self._quotes = quotes
        self._source = source
        self._calendars = calendars
        self._instruments = instruments
        self._clock = clock
        self._name = name
        self._interval = interval
        self._lag = lag
        self._always_moving = always_moving
        self._metrics = metrics
        self._failing = False

    async def run(self, handle: Handle) -> None:
        """Refresh all tracked instruments, or those the parameter `symbols` names (`["AAPL:US", ...]`).

        With names, or with the parameter `force`, the state of the market does not matter. Raises `NotFound` for a
        name not known here.
        """
        named = [Instrument.parse(text) for text in handle.parameters.get("symbols") or ()]
        report = await self.refresh(named or None, force=bool(named) or is_forced(handle))
        for name in ("asked", "quiet", "updated"):
            handle.count(name, getattr(report, name))
        for instrument, error in report.failures.items():
            handle.fail(instrument, error.code, error.detail)
        handle.progress(report.asked, report.asked)

    async def refresh(self, instruments: Sequence[Instrument] | None = None, *, force: bool = False) -> RefreshReport:
        """One call for all that are due, one batch stored, then published. `None`: all that are tracked."""
        chosen = self._catalog.tracked() if instruments is None else [self._catalog.require(i) for i in instruments]
        report = RefreshReport()
        due = await self._due([entry for entry in chosen if has_provider(entry)], force, report)
        report.asked = len(due)
        if due:
            answer = await self._ask([entry.instrument for entry, _ in due])
            report.failures.update(answer.failures)
            await self._publish(due, answer, report)
        self._tell(report)
        return report

    async def _due(
        self, entries: Sequence[Entry], force: bool, report: RefreshReport
    ) -> list[tuple[Entry, SessionCalendar]]:
        due = []
        now = self._clock.time()
        for entry in entries:
            try:
                calendar = await self._calendars.get(entry.instrument.place.calendar)
            except Unavailable as exc:
                report.failures[entry.instrument] = exc
                continue
            if (
                force
                or self._always_moving
                or _has_news(self._live.get(entry.instrument.key), calendar, now, self._lag)
            ):
                due.append((entry, calendar))
            else:
                report.quiet += 1
        return due

    async def _ask(self, instruments: Sequence[Instrument]) -> Quotes:
        try:
            return await self._source.quotes(instruments)
        except ProviderError as exc:
            return Quotes((), dict.fromkeys(instruments, exc))

    async def _publish(
        self, due: Sequence[tuple[Entry, SessionCalendar]], answer: Quotes, report: RefreshReport
    ) -> None:
        now = self._clock.time()
        by_instrument = {quote.instrument: quote for quote in answer.quotes}
        accepted = []
        for entry, calendar in due:
            try:
                if (quote := by_instrument.get(entry.instrument)) is not None:
                    accepted.append(self._completed(await self._checked(quote, entry, now), calendar, now))
                elif entry.instrument not in answer.failures:
                    raise ProviderAnswerBad("The provider left this symbol out of its answer.", code="no_quote")
            except ProviderError as exc:
                report.failures[entry.instrument] = exc
        await self._quotes.save(accepted)
        before = self._live.snapshot()
        taken = self._live.publish(QuoteBatch.of(accepted))
        report.updated = sum(_says_more(quote, before.get(key)) for key, quote in taken.items())
        if self._metrics is not None and report.updated:
            self._metrics.live_updates.labels(self._name).inc(report.updated)

    async def _checked(self, quote: Quote, entry: Entry, now: float) -> Quote:
        if not (isfinite(quote.price) and quote.price > 0 and isfinite(quote.as_of)):
            raise ProviderAnswerBad(f"{quote.price} is no price.", code="bad_quote")
        if quote.as_of > now + FUTURE_SECONDS:
            raise ProviderAnswerBad("The quote is from the future.", code="bad_quote")
        if quote.currency != entry.currency:
            if currency_is_known(entry):
                raise ProviderAnswerBad(
                    f"Prices were in {entry.currency} and came in {quote.currency} now.", code="currency_changed"
                )
            await self._instruments.set_facts(entry, currency=quote.currency)
        return quote

    def _completed(self, quote: Quote, calendar: SessionCalendar, now: float) -> Quote:
        session = calendar.current(quote.as_of) if quote.session is None else quote.session
        stale_at = (
            now + 2 * self._interval
            if self._always_moving
            else stale_from(quote.as_of, now, calendar, self._interval, self._lag)
        )
        known: dict[str, Any] = {name: _finite(getattr(quote, name)) for name in _OPTIONAL}
        return replace(quote, session=session, received_at=now, stale_at=stale_at, **known)

    def _tell(self, report: RefreshReport) -> None:
        if report.failures and not self._failing:
            codes = dict(Counter(error.code for error in report.failures.values()))
            log.warning("live prices failing", symbols=len(report.failures), codes=codes)
        elif self._failing and report.asked and not report.failures:
            log.info("live prices recovered")
        self._failing = bool(report.failures) or (self._failing and not report.asked)


_OPTIONAL = ("previous_close", "open", "day_high", "day_low", "volume")


def _says_more(quote: Quote, held: Quote | None) -> bool:
    return held is None or quote.as_of > held.as_of or quote.price != held.price


def _has_news(quote: Quote | None, calendar: SessionCalendar, now: float, lag: float) -> bool:
    if quote is None or calendar.is_open(now, lag):
        return True
    last = calendar.last_closed(now)
    close = calendar.close_of(last) if last is not None else None
    return close is not None and quote.received_at < close


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
