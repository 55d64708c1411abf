"""Histories and holdings of portfolios, for whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.chunks import between, joined
from pricecache.core.grid import rate_row
from pricecache.core.history import PORTFOLIO, GrossFlows, History, book_at
from pricecache.core.holdings import Holdings, holdings
from pricecache.core.marketdata import MarketData
from pricecache.core.portfolios import Portfolio
from pricecache.core.rows import rounded
from pricecache.core.scopes import Scope
from pricecache.core.totals import Part, total
from pricecache.core.valuation import NET_FLOW
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.threads import aside
from pricecache.portfolio.wholes import Whole, Wholes

Source = Literal["materialized", "computed", "mixed"]


@dataclass(frozen=True, slots=True, eq=False)
class HistoryRange:
    """The rows of one scope from `start` to `end` (days since 1970-01-01, both included); without `has_days` there is
    not one. `source`: where they are from; `whole`: what they are part of, with the day that is not over yet."""

    portfolio: Portfolio
    scope: Scope
    start: int
    end: int
    has_days: bool
    source: Source
    whole: Whole

    @property
    def today(self) -> int:
        return self.whole.today


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """A portfolio's days, and what its currency was in another one on each: float64, NaN where nobody knows."""

    portfolio: Portfolio
    found: History
    rates: NDArray[np.float64]


class Histories:
    """Answers what portfolios were and are worth. Loop-only; long computations run in a thread."""

    def __init__(self, ledgers: Ledgers, markets: Markets, wholes: Wholes) -> None:
        self._ledgers = ledgers
        self._markets = markets
        self.wholes = wholes

    def today(self, portfolio: Portfolio) -> int:
        """The date where the portfolio's days begin and end."""
        return self.wholes.today(portfolio)

    async def history(
        self,
        portfolio: Portfolio,
        account: str | None = None,
        start: int | None = None,
        end: int | None = None,
        *,
        use_materialized: bool = True,
    ) -> HistoryRange:
        """Of the portfolio or one account of it. `start` None, or before: the first transaction's day; `end` None, or
        later: today. Without `use_materialized` every row is computed from the ledger."""
        whole = await self.wholes.of(portfolio, use_materialized=use_materialized)
        return ranged(whole, account, start, end)

    async def total(
        self,
        portfolios: Sequence[Portfolio],
        currency: str,
        start: int | None = None,
        end: int | None = None,
        *,
        use_materialized: bool = True,
    ) -> History | None:
        """Of several portfolios in the whole `currency`, its scopes after the first those of their ids; None without
        any day. The last day is today where the first of them is."""
        whole = await self._total(portfolios, currency, end, use_materialized)
        if whole is None:
            return None
        return _between(whole, max(whole.start if start is None else start, whole.start), whole.end)

    async def _total(
        self, portfolios: Sequence[Portfolio], currency: str, end: int | None, use_materialized: bool
    ) -> History | None:
        turned = await self.turned(portfolios, currency, end, use_materialized=use_materialized)
        parts = [Part(one.portfolio.id, one.found, one.rates, shown=rounded(one.found)[:, 0]) for one in turned]
        return total(parts, currency) if parts else None

    async def turned(
        self, portfolios: Sequence[Portfolio], currency: str, end: int | None = None, *, use_materialized: bool = True
    ) -> list[Turned]:
        """Each of them that has begun, from its first day until `end`, at the latest today where the first is, with the
        rates that turn its currency into `currency`."""
        if not portfolios:
            return []
        today = self.today(portfolios[0])
        last = today if end is None else min(end, today)
        market = await self._markets.rates({one.rules.currency for one in portfolios}, currency)
        turned = []
        for one in portfolios:
            whole = (await self.wholes.of(one, use_materialized=use_materialized)).history
            if whole is not None and whole.start <= last:
                found = _until(whole, last)
                turned.append(Turned(one, found, _rates(market, currency, one.rules.currency, found)))
        return turned

    async def holdings(
        self, portfolio: Portfolio, day: int | None = None, account: str | None = None
    ) -> tuple[Holdings, MarketData]:
        """At the end of `day`, by default and at the latest today."""
        whole = await self.wholes.of(portfolio)
        on = whole.today if day is None else min(day, whole.today)
        point = None if whole.kept is None else whole.kept.point_before(on)
        ledger, market = whole.ledger, whole.market.market
        if not whole.is_complete:
            view = await self._ledgers.read(portfolio)
            ledger, market = view.ledger, await self._markets.of(view.ledger)
            point = point if view.state.generation == whole.state.generation else None

        def compute() -> Holdings:
            since = None if point is None else point.checkpoint().book
            return holdings(book_at(ledger, market, on, since=since), market, ledger.rules, account)

        return await aside(ledger.count_after(None if point is None else point.day), compute), market


def ranged(whole: Whole, account: str | None, start: int | None, end: int | None) -> HistoryRange:
    """Some of the rows of a whole; arguments as for `Histories.history`."""
    scope, begins = _scope(account), whole.start
    last = whole.today if end is None else min(end, whole.today)
    first = last if begins is None or begins > last else max(begins if start is None else start, begins)
    has_days = begins is not None and begins <= first <= last and scope in whole.scopes
    return HistoryRange(whole.portfolio, scope, first, last, has_days, _source(whole, first, last), whole)


def _source(whole: Whole, first: int, last: int) -> Source:
    reused = whole.reused_through
    if reused is None or reused < first:
        return "computed"
    return "materialized" if last <= reused else "mixed"


def _rates(market: MarketData, base: str, currency: str, found: History) -> NDArray[np.float64]:
    rates = rate_row(market, base, currency, found.start, found.days)
    return np.where(rates > 0, rates, np.nan)


def _until(whole: History, last: int) -> History:
    """Up to day `last`, which has begun somewhere else: what is held then is worth what it was."""
    if last <= whole.end:
        return between(whole, whole.start, last)
    more = np.repeat(whole.values[:, :, -1:], last - whole.end, axis=2)
    more[NET_FLOW] = 0.0
    after = replace(
        whole,
        start=whole.end + 1,
        values=more,
        estimated=np.repeat(whole.estimated[:, -1:], last - whole.end, axis=1),
        gross=GrossFlows(whole.end + 1, *np.zeros((2, *more.shape[1:]))),
    )
    return joined([whole, after], cash_tracking=True)  # of the same scopes


def _scope(account: str | None) -> Scope:
    return PORTFOLIO if account is None else (account, None)


def _between(whole: History, first: int, last: int) -> History | None:
    return None if first > last else between(whole, first, last)
