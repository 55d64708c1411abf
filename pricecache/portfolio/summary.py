"""What portfolios are worth now, from the latest prices of what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cachetools import LRUCache

from pricecache.clock import Clock
from pricecache.core.bars import day_number
from pricecache.core.book import Book
from pricecache.core.catalog import Catalog
from pricecache.core.daychange import Session, known
from pricecache.core.history import book_at
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.present import SummaryNow
from pricecache.core.summaries import Turned
from pricecache.core.summary import summary
from pricecache.portfolio.latest import LatestSessions
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
    names has changed, so that an answer costs what happened since.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        markets: Markets,
        catalog: Catalog,
        latest: LatestSessions,
        clock: Clock,
    ) -> None:
        self._ledgers = ledgers
        self._markets = markets
        self._catalog = catalog
        self._latest = latest
        self._clock = clock
        self._kept: LRUCache[str, _Kept] = LRUCache(LOTS_KEPT, getsizeof=lambda kept: kept.size)

    async def of(self, portfolio: Portfolio, account: str | None = None) -> Summarised:
        """Of the portfolio, or one account of it. Raises `Unavailable` while a calendar is built."""
        ledger = (await self._ledgers.read(portfolio)).ledger
        market, now = await self._markets.of(ledger), self._clock.time()
        entries = {i: entry for i in market.prices if (entry := self._catalog.find(i)) is not None}
        opened = await self._latest.of(entries, market.prices, now)
        end = max([self._today(portfolio, now), *(one.day for one in opened.values())])
        sessions = {i: opened.get(i, Session(end, end - 1, stale=True)) for i in ledger.instruments()}
        prices = {i: self._latest.with_previous(i, column, sessions[i]) for i, column in market.prices.items()}
        market = MarketData(prices, market.rates)
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
