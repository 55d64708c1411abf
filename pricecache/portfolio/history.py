"""Histories and holdings of portfolios, computed when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pricecache.clock import Clock
from pricecache.core.bars import day_number
from pricecache.core.grid import rate_row
from pricecache.core.history import PORTFOLIO, History, book_at, history
from pricecache.core.holdings import Holdings, holdings
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.totals import Part, total
from pricecache.core.valuation import Scope
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.stores.portfolios import Portfolio

IN_THREAD_FROM = 20_000
"""Prices (days × instruments) from which on a computation leaves the event loop."""
ROWS_IN_THREAD_FROM = 300
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, eq=False)
class HistoryRange:
    """The rows of one scope from `start` to `end` (days since 1970-01-01, both included). `found` None: there is not
    one day. `today`: the day that is not over yet, where the portfolio is."""

    portfolio: Portfolio
    scope: Scope
    start: int
    end: int
    today: int
    found: History | None
    generation: int


class Histories:
    """Answers what portfolios were and are worth. Loop-only; long computations run in a thread."""

    def __init__(self, ledgers: Ledgers, markets: Markets, clock: Clock) -> None:
        self._ledgers = ledgers
        self._markets = markets
        self._clock = clock

    def today(self, portfolio: Portfolio) -> int:
        """The date where the portfolio's days begin and end."""
        zone = ZoneInfo(portfolio.time_zone)
        return day_number(datetime.fromtimestamp(self._clock.time(), zone).date())

    async def history(
        self, portfolio: Portfolio, account: str | None = None, start: int | None = None, end: int | None = None
    ) -> HistoryRange:
        """Of the portfolio or one account of it. `start` None, or before: the first transaction's day; `end` None, or
        later: today."""
        view = await self._ledgers.read(portfolio)
        today, scope = self.today(portfolio), _scope(account)
        last = today if end is None else min(end, today)
        whole = await self._whole(view.ledger, last)
        first = last if whole is None else max(whole.start if start is None else start, whole.start)
        found = None if whole is None or scope not in whole.scopes else _between(whole, first, last)
        return HistoryRange(portfolio, scope, first, last, today, found, view.state.generation)

    async def total(
        self, portfolios: Sequence[Portfolio], currency: str, start: int | None = None, end: int | None = None
    ) -> History | None:
        """Of several portfolios in the whole `currency`, its scopes after the first those of their ids; None without
        any day. The last day is today where the first of them is."""
        whole = await self._total(portfolios, currency, end)
        if whole is None:
            return None
        return _between(whole, max(whole.start if start is None else start, whole.start), whole.end)

    async def _total(self, portfolios: Sequence[Portfolio], currency: str, end: int | None) -> History | None:
        if not portfolios:
            return None
        today = self.today(portfolios[0])
        last = today if end is None else min(end, today)
        market = await self._markets.rates({one.rules.currency for one in portfolios}, currency)
        parts = []
        for one in portfolios:
            found = await self._whole((await self._ledgers.read(one)).ledger, last)
            if found is not None:
                parts.append(Part(one.id, found, _rates(market, currency, one.rules.currency, found)))
        return total(parts, currency) if parts else None

    async def holdings(
        self, portfolio: Portfolio, day: int | None = None, account: str | None = None
    ) -> tuple[Holdings, MarketData]:
        """At the end of `day`, by default and at the latest today."""
        view = await self._ledgers.read(portfolio)
        market = await self._markets.of(view.ledger)
        today = self.today(portfolio)
        on = today if day is None else min(day, today)

        def compute() -> Holdings:
            return holdings(book_at(view.ledger, market, on), market, view.ledger.rules, account)

        return await _computed(compute, len(view.rows) >= ROWS_IN_THREAD_FROM), market

    async def _whole(self, ledger: Ledger, last: int) -> History | None:
        if ledger.first_day is None or ledger.first_day > last:
            return None
        market = await self._markets.of(ledger)
        prices = (last - ledger.first_day + 1) * len(market.prices)
        is_long = prices >= IN_THREAD_FROM or len(ledger.transactions) >= ROWS_IN_THREAD_FROM
        return await _computed(lambda: history(ledger, market, last), is_long)


async def _computed(compute: Callable[[], _Value], is_long: bool) -> _Value:
    return await asyncio.to_thread(compute) if is_long else compute()


def _rates(market: MarketData, base: str, currency: str, found: History) -> NDArray[np.float64]:
    rates = rate_row(market, base, currency, found.start, found.days)
    return np.where(rates > 0, rates, np.nan)


def _scope(account: str | None) -> Scope:
    return PORTFOLIO if account is None else (account, None)


def _between(whole: History, first: int, last: int) -> History | None:
    if first > last:
        return None
    low, high = first - whole.start, last - whole.start + 1
    days = np.s_[..., low:high]
    return replace(whole, start=first, values=whole.values[days], estimated=whole.estimated[days])
