"""Portfolios by account, now, on a day, and day by day: one computation for all accounts of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pricecache.core.breakdown import (
    AccountDays,
    Breakdown,
    Portion,
    account_days,
    account_days_of_all,
    breakdown_now,
    breakdown_on,
    turned,
)
from pricecache.core.currencies import digits
from pricecache.core.daychange import known
from pricecache.core.portfolios import Portfolio
from pricecache.core.rows import rounded
from pricecache.core.totals import Part
from pricecache.portfolio.history import Histories
from pricecache.portfolio.market import Markets
from pricecache.portfolio.summary import Summaries, Summarised


@dataclass(frozen=True, slots=True, eq=False)
class Broken:
    """One portfolio by account. `at`: the instant it is of, seconds since 1970 UTC, None: of the end of a day. `today`:
    the day that is not over yet."""

    portfolio: Portfolio
    at: float | None
    today: int
    found: Breakdown


class Breakdowns:
    """Answers what accounts are and were worth. Loop-only. Never calls a provider.

    Now is what the summary says of each account, a day is what the history says; neither is computed a second time.
    """

    def __init__(self, summaries: Summaries, histories: Histories, markets: Markets) -> None:
        self._summaries = summaries
        self._histories = histories
        self._markets = markets

    async def now(self, portfolio: Portfolio) -> Broken:
        """Raises `Unavailable` while a calendar is built."""
        one, accounts = await self._summaries.by_account(portfolio)
        found = breakdown_now(one.summary, accounts, _stale(one))
        return Broken(portfolio, one.at, self._summaries.today(portfolio), found)

    async def on(self, portfolio: Portfolio, day: int, *, use_materialized: bool = True) -> Broken:
        """At the end of `day`, at the latest today, as far as that has come."""
        whole = await self._histories.wholes.of(portfolio, use_materialized=use_materialized)
        rules = portfolio.rules
        found = breakdown_on(whole.history, min(day, whole.today), rules.currency, tracks_cash=rules.cash_tracking)
        return Broken(portfolio, None, whole.today, found)

    async def days(
        self, portfolio: Portfolio, start: int | None, end: int | None, *, use_materialized: bool = True
    ) -> AccountDays | None:
        """From the first transaction's day at the earliest to today at the latest; None without any day."""
        whole = await self._histories.wholes.of(portfolio, use_materialized=use_materialized)
        found = whole.history
        if found is None:
            return None
        first = found.start if start is None else max(start, found.start)
        last = found.end if end is None else min(end, found.end)
        return account_days(found, first, last) if first <= last else None

    async def days_of_all(
        self,
        portfolios: Sequence[Portfolio],
        currency: str,
        start: int | None,
        end: int | None,
        *,
        use_materialized: bool = True,
    ) -> AccountDays | None:
        """The same of several in the whole `currency`; their accounts have the names of `name_of`."""
        parts = []
        for one in await self._histories.turned(portfolios, currency, end, use_materialized=use_materialized):
            shown = rounded(one.found)
            parts += [
                Part(name_of(one.portfolio.id, scope[0]), one.found, one.rates, scope, shown[:, place])
                for place, scope in enumerate(one.found.scopes)
                if scope[0] is not None
            ]
        return account_days_of_all(parts, currency, start)

    async def turned(self, broken: Sequence[Broken], currency: str) -> dict[str, Portion]:
        """Every account of several portfolios in the whole `currency`, by `name_of`."""
        market = await self._markets.rates({one.found.currency for one in broken}, currency)
        places, accounts = digits(currency), dict[str, Portion]()
        for one in broken:
            base = one.found.currency
            now, before = (
                known(float(market.rate(base, currency, day))) for day in (one.found.day, one.found.previous)
            )
            for account, portion in one.found.accounts.items():
                accounts[name_of(one.portfolio.id, account)] = turned(portion, now, before, places)
        return accounts


def name_of(portfolio: str, account: str) -> str:
    """An account among those of several portfolios, also the one of rows without any."""
    return f"{portfolio}/{account}"


def _stale(one: Summarised) -> frozenset[str]:
    return frozenset(
        part.account or ""
        for position in one.summary.positions
        if one.sessions[position.instrument].stale
        for part in position.parts
        if part.quantity
    )
