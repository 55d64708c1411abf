"""What portfolios are worth now, from the latest prices of what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pricecache.clock import Clock
from pricecache.core.book import Book
from pricecache.core.catalog import Catalog
from pricecache.core.daychange import Session, known
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.portfolios import LedgerState, Portfolio
from pricecache.core.present import SummaryNow
from pricecache.core.summaries import Turned
from pricecache.core.summary import summaries_by_account, summary
from pricecache.errors import Corrupt
from pricecache.portfolio.latest import LatestSessions
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.threads import aside
from pricecache.portfolio.wholes import Wholes

DAYS_BACK = 30
"""The session before the latest one lies within so many days on every exchange, holidays included."""


@dataclass(frozen=True, slots=True, eq=False)
class Summarised:
    """One portfolio now. `sessions`: of every instrument of its ledger, `market` what it was computed from, `at` when:
    seconds since 1970 UTC; `corrections`: how many its ledger has had."""

    portfolio: Portfolio
    at: float
    summary: SummaryNow
    sessions: Mapping[Instrument, Session]
    market: MarketData
    corrections: int


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a summary is computed from, as `core.summary` takes it; `state`: where the ledger stands."""

    portfolio: Portfolio
    at: float
    state: LedgerState
    ledger: Ledger
    market: MarketData
    sessions: Mapping[Instrument, Session]
    end: int
    since: Book | None

    @property
    def rows(self) -> int:
        """Transactions that are looked at: those after the book that is gone on from."""
        return self.ledger.count_after(None if self.since is None else self.since.day)


class Summaries:
    """Answers what portfolios are worth now. Loop-only. Never calls a provider.

    What happened more than `DAYS_BACK` days ago is taken from the kept history where that still holds, so that an
    answer costs what happened since.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        markets: Markets,
        wholes: Wholes,
        catalog: Catalog,
        latest: LatestSessions,
        clock: Clock,
    ) -> None:
        self._ledgers = ledgers
        self._markets = markets
        self._wholes = wholes
        self._catalog = catalog
        self._latest = latest
        self._clock = clock

    async def of(self, portfolio: Portfolio, account: str | None = None) -> Summarised:
        """Of the portfolio, or one account of it. Raises `Unavailable` while a calendar is built."""
        return await self.computed(await self.asked(portfolio), account)

    def today(self, portfolio: Portfolio) -> int:
        """The day it is for the portfolio, days since 1970-01-01."""
        return self._wholes.today(portfolio)

    async def computed(self, asked: Asked, account: str | None = None) -> Summarised:
        """The summary of what was `asked`."""

        def compute() -> SummaryNow:
            return summary(asked.ledger, asked.market, asked.sessions, asked.end, since=asked.since, account=account)

        found = await aside(asked.rows, compute)
        return Summarised(asked.portfolio, asked.at, found, asked.sessions, asked.market, asked.state.corrections)

    async def by_account(self, portfolio: Portfolio) -> tuple[Summarised, dict[str, SummaryNow]]:
        """Of the portfolio, and of each account that anything was ever in. Raises as `of`."""
        asked = await self.asked(portfolio)

        def compute() -> tuple[SummaryNow, dict[str, SummaryNow]]:
            return summaries_by_account(asked.ledger, asked.market, asked.sessions, asked.end, since=asked.since)

        whole, accounts = await aside(asked.rows, compute)
        found = Summarised(portfolio, asked.at, whole, asked.sessions, asked.market, asked.state.corrections)
        return found, accounts

    async def asked(self, portfolio: Portfolio) -> Asked:
        """All that a summary of it is computed from. Raises as `of`."""
        view = await self._ledgers.read(portfolio)
        ledger = view.ledger
        market, now = await self._markets.of(ledger), self._clock.time()
        entries = {i: entry for i in market.prices if (entry := self._catalog.find(i)) is not None}
        opened = await self._latest.of(entries, market.prices, now)
        end = max([self._wholes.today(portfolio), *(one.day for one in opened.values())])
        sessions = {i: opened.get(i, Session(end, end - 1, stale=True)) for i in ledger.instruments()}
        prices = {i: self._latest.with_previous(i, column, sessions[i]) for i, column in market.prices.items()}
        since = await self._book(portfolio, view.state.generation, end - DAYS_BACK)
        return Asked(portfolio, now, view.state, ledger, MarketData(prices, market.rates), sessions, end, since)

    async def turned(self, summaries: Sequence[Summarised], currency: str) -> list[Turned]:
        """Each with the rates of its base currency into the whole `currency`."""
        market = await self._markets.rates({one.portfolio.rules.currency for one in summaries}, currency)

        def rate(base: str, day: int) -> float | None:
            return known(float(market.rate(base, currency, day)))

        return [
            Turned(one, rate(one.currency, one.end), rate(one.currency, one.previous))
            for one in (summarised.summary for summarised in summaries)
        ]

    async def _book(self, portfolio: Portfolio, generation: int, day: int) -> Book | None:
        """Of `day` or before; None: begin with the first transaction."""
        whole = await self._wholes.of(portfolio)
        if whole.kept is None or whole.state.generation != generation:
            return None
        point = whole.kept.point_before(day)
        try:
            return None if point is None else point.checkpoint().book
        except Corrupt:  # told by who computes the history again
            return None
