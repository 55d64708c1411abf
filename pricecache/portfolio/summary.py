"""What portfolios are worth now: the latest prices of what they hold, each with the session it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
from cachetools import LRUCache

from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.bars import day_number
from pricecache.core.book import Book
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.daychange import Session, known
from pricecache.core.history import book_at
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.present import SummaryNow
from pricecache.core.quotes import Quote
from pricecache.core.running import running_session
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.core.summaries import Turned
from pricecache.core.summary import summary
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.stores.portfolios import Portfolio

DAYS_BACK = 30
"""The session before the latest one lies within so many days on every exchange, holidays included."""
LOTS_KEPT = 100_000
"""Positions and lots of all books together that are kept in memory."""
ROWS_IN_THREAD_FROM = 300


@dataclass(frozen=True, slots=True, eq=False)
class Summarised:
    """One portfolio now. `sessions`: of every instrument of its ledger, `market` what it was computed from, `at` when:
    seconds since 1970 UTC."""

    portfolio: Portfolio
    at: float
    summary: SummaryNow
    sessions: Mapping[Instrument, Session]
    market: MarketData


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A book of some weeks ago, with everything it depends on."""

    ledger: Ledger
    versions: tuple[tuple[int, int], ...]
    book: Book

    @property
    def size(self) -> int:
        return 1 + sum(1 + len(held.lots) for held in self.book.positions)


class Summaries:
    """Answers what portfolios are worth now. Loop-only. Never calls a provider.

    What happened more than `DAYS_BACK` days ago is kept as a book for as long as neither the ledger nor anything it
    names has changed, so that an answer costs what happened since. `lag`: seconds after a close until its bar is final.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        markets: Markets,
        catalog: Catalog,
        columns: ColumnCache,
        calendars: CalendarBook,
        live: LiveCache,
        clock: Clock,
        lag: float,
    ) -> None:
        self._ledgers = ledgers
        self._markets = markets
        self._catalog = catalog
        self._columns = columns
        self._calendars = calendars
        self._live = live
        self._clock = clock
        self._lag = lag
        self._kept: LRUCache[str, _Kept] = LRUCache(LOTS_KEPT, getsizeof=lambda kept: kept.size)

    async def of(self, portfolio: Portfolio, account: str | None = None) -> Summarised:
        """Of the portfolio, or one account of it. Raises `Unavailable` while a calendar is built."""
        ledger = (await self._ledgers.read(portfolio)).ledger
        market, now = await self._markets.of(ledger), self._clock.time()
        entries = {i: entry for i in ledger.instruments() if (entry := self._catalog.find(i)) is not None}
        opened = {i: await self._opened(entry, market.prices[i], now) for i, entry in entries.items()}
        today = self._today(portfolio, now)
        end = max([today, *(one.day for one in opened.values())])
        sessions = {i: opened.get(i, Session(end, end - 1, stale=True)) for i in ledger.instruments()}
        market = MarketData({i: self._with_previous(i, column, sessions[i]) for i, column in market.prices.items()},
                            market.rates)  # fmt: skip
        since = await self._book(portfolio, ledger, market, end - DAYS_BACK)
        return Summarised(
            portfolio, now, summary(ledger, market, sessions, end, since=since, account=account), sessions, market
        )

    async def turned(self, summaries: Sequence[Summarised], currency: str) -> list[Turned]:
        """Each with the rates of its base currency into the whole `currency`."""
        market = await self._markets.rates({one.portfolio.rules.currency for one in summaries}, currency)

        def rate(base: str, day: int) -> float | None:
            return known(float(market.rate(base, currency, day)))

        return [
            Turned(one, rate(one.currency, one.end), rate(one.currency, one.previous))
            for one in (summarised.summary for summarised in summaries)
        ]

    def _today(self, portfolio: Portfolio, now: float) -> int:
        return day_number(datetime.fromtimestamp(now, ZoneInfo(portfolio.time_zone)).date())

    async def _book(self, portfolio: Portfolio, ledger: Ledger, market: MarketData, day: int) -> Book | None:
        if ledger.first_day is None or ledger.first_day > day:
            return None
        versions = tuple(sorted((entry.id, entry.version) for entry in self._markets.entries(ledger)))
        kept = self._kept.get(portfolio.id)
        if kept is None or kept.ledger is not ledger or kept.versions != versions or kept.book.day != day:
            if len(ledger.transactions) >= ROWS_IN_THREAD_FROM:
                book = await asyncio.to_thread(book_at, ledger, market, day)
            else:
                book = book_at(ledger, market, day)
            kept = _Kept(ledger, versions, book)
            if kept.size < LOTS_KEPT:
                self._kept[portfolio.id] = kept
        return kept.book

    # the latest session of an instrument

    async def _opened(self, entry: Entry, column: PriceColumn, now: float) -> Session:
        calendar = self._calendars.get(entry.instrument.place.calendar)
        lag, quote = entry.lag(self._lag), self._live.get(entry.instrument.key)
        held = column.closes.sessions
        last = int(held[-1]) if len(held) else None
        day = _latest(entry, calendar, last, now, lag)
        at, source = _made(quote, entry, calendar, column, now, lag)
        return Session(
            day,
            _before(calendar, day),
            await self._open(entry, quote, day),
            at,
            source,
            _is_stale(entry, calendar, quote, last, now, lag),
        )

    async def _open(self, entry: Entry, quote: Quote | None, day: int) -> float | None:
        if quote is not None and quote.session == day and quote.open is not None and quote.currency == entry.currency:
            return quote.open
        for bars in (entry.tail, await self._columns.get(entry)):
            at = int(bars.sessions.searchsorted(day))
            if at < len(bars) and bars.sessions[at] == day:
                opened = float(bars.open[at])
                return opened if opened == opened else None
        return None

    def _with_previous(self, instrument: Instrument, column: PriceColumn, session: Session) -> PriceColumn:
        """With the quote's own previous close where the record has none of that session yet."""
        quote, closes = self._live.get(instrument.key), column.closes
        if quote is None or quote.previous_close is None or quote.session != session.day:
            return column
        at = int(closes.sessions.searchsorted(session.previous))
        is_there = at < len(closes.sessions) and closes.sessions[at] == session.previous
        if is_there or not len(closes.sessions) or at < len(closes.sessions) - 1 or quote.currency != column.currency:
            return column
        ratio = 1.0
        for action in column.actions:
            if action.kind != "dividend" and session.previous < action.ex_date <= session.day:
                ratio *= action.value
        added = Column(
            np.insert(closes.sessions, at, session.previous),
            np.insert(closes.values, at, quote.previous_close * ratio),
            closes.due,
        )
        return replace(column, closes=added)


def _latest(entry: Entry, calendar: SessionCalendar, last: int | None, now: float, lag: float) -> int:
    """The last session its market has opened; of a fund, which is priced once a day, the last one it has a price for
    or should have."""
    opened = calendar.current(now)
    if entry.kind == "fund":
        due = calendar.last_closed(now, lag)
        known = [day for day in (due, last) if day is not None and (opened is None or day <= opened)]
        opened = max(known, default=opened)
    return int(now // 86400) if opened is None else opened


def _before(calendar: SessionCalendar, day: int) -> int:
    at = int(calendar.sessions.searchsorted(day))
    return int(calendar.sessions[at - 1]) if at else day - 1


def _made(
    quote: Quote | None, entry: Entry, calendar: SessionCalendar, column: PriceColumn, now: float, lag: float
) -> tuple[float | None, str | None]:
    """When the price that counts was made, and whose quote it is."""
    closes = column.closes
    if not len(closes.sessions):
        return None, None
    last = int(closes.sessions[-1])
    is_of_it = quote is not None and quote.price == closes.values[-1]
    if is_of_it and quote is not None and running_session(quote, calendar, entry.currency, now, lag) == last:
        return quote.as_of, quote.source
    close = calendar.close_of(last)
    return min(now, (last + 1) * 86400.0 if close is None else close), None


def _is_stale(
    entry: Entry, calendar: SessionCalendar, quote: Quote | None, last: int | None, now: float, lag: float
) -> bool:
    """Whether a newer price should be here: its market is open and its quote is not fresh, or the last session that is
    over has no price. What only has prices by hand is never stale."""
    if not entry.instrument.place.has_provider:
        return last is None
    if entry.kind != "fund" and calendar.is_open(now):
        return quote is None or now >= quote.stale_at
    due = calendar.last_closed(now, lag)
    return last is None or (due is not None and last < due)
