"""What portfolios, their accounts and their positions returned, beside a benchmark, with what it was computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pricecache.core.benchmarks import Comparison, compared
from pricecache.core.chunks import between
from pricecache.core.grid import rate_row
from pricecache.core.history import PORTFOLIO, History, history
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.portfolios import Portfolio
from pricecache.core.return_inputs import ReturnInputs, inputs_of
from pricecache.core.returns import Performance, as_shown, held_within, performance
from pricecache.core.scopes import By, Scope
from pricecache.core.totals import Part, total
from pricecache.errors import NotFound
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.threads import IN_THREAD_FROM as ROWS_FROM
from pricecache.portfolio.threads import computed
from pricecache.portfolio.wholes import Wholes

IN_THREAD_FROM = 20_000
"""Prices (days × instruments) from which on a computation leaves the event loop."""
_Sessions = NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one portfolio or several, over (`start`, `end`]: days since 1970-01-01, None is the first
    transaction's and today. `account`, `instrument`: only of that one. `by`: rows for each besides. `benchmark` with
    `dividends`: as if they were reinvested."""

    start: int | None = None
    end: int | None = None
    account: str | None = None
    instrument: Instrument | None = None
    by: Literal["account", "position"] | None = None
    benchmark: Instrument | None = None
    dividends: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """What one scope returned. `parts`: by account or position, those that had anything in the range."""

    scope: Scope
    performance: Performance
    inputs: ReturnInputs
    comparison: Comparison | None = None
    parts: tuple[Returned, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Benchmark:
    market: MarketData
    instrument: Instrument
    dividends: bool


class Returns:
    """Answers what portfolios returned. Loop-only; long computations run in a thread. Never calls a provider."""

    def __init__(self, ledgers: Ledgers, markets: Markets, wholes: Wholes) -> None:
        self._ledgers = ledgers
        self._markets = markets
        self._wholes = wholes

    async def of(self, portfolio: Portfolio, asked: Question) -> Returned | None:
        """Of one portfolio; None when it has nothing in the range. `start` is at the earliest the first transaction's
        day, which is the row it opens with.

        Raises `NotFound` with code `unknown_position` for an instrument that its ledger does not name, and
        `unknown_symbol` for a benchmark that is not kept here.
        """
        ledger = (await self._ledgers.read(portfolio)).ledger
        if asked.instrument is not None and asked.instrument not in ledger.instruments():
            raise NotFound(f"There never was {asked.instrument} in this portfolio.", code="unknown_position")
        last = self._last(portfolio, asked)
        beside = await self._benchmark(asked, portfolio.rules.currency)
        if ledger.first_day is None or ledger.first_day > last:
            return None
        market = await self._markets.of(ledger)
        sessions = self._sessions([ledger], asked, last)
        shared, rows = self._shared(sessions, beside, ledger.first_day, last), await self._rows(portfolio, last)
        work = _Work(ledger, market, asked, last, sessions, beside, shared, rows)
        return await computed(work.run, _is_long(ledger, market, last))

    async def total(self, portfolios: Sequence[Portfolio], currency: str, asked: Question) -> Returned | None:
        """Of several together, in the whole `currency`. The last day is today where the first of them is. Portfolios
        without the instrument asked for have no part in it."""
        if not portfolios:
            return None
        last = self._last(portfolios[0], asked)
        rates = await self._markets.rates({one.rules.currency for one in portfolios}, currency)
        ledgers, parts = [], []
        for one in portfolios:
            ledger = (await self._ledgers.read(one)).ledger
            part = await self._part(one, ledger, rates, currency, asked, last)
            if part is not None:
                ledgers.append(ledger)
                parts.append(part)
        if not parts:
            return None
        sessions, beside = self._sessions(ledgers, asked, last), await self._benchmark(asked, currency)
        whole = total(parts, currency)
        shared = self._shared(sessions, beside, whole.start, last)
        return _returned(whole, PORTFOLIO, asked, last, sessions, beside, shared)

    async def _part(
        self, portfolio: Portfolio, ledger: Ledger, rates: MarketData, currency: str, asked: Question, last: int
    ) -> Part | None:
        is_there = asked.instrument is None or asked.instrument in ledger.instruments()
        if ledger.first_day is None or ledger.first_day > last or not is_there:
            return None
        market = await self._markets.of(ledger)
        by, scope = _whole_scope(asked)
        found = await self._rows(portfolio, last) if by == "account" else None
        if found is None:
            found = await computed(lambda: history(ledger, market, last, by=by), _is_long(ledger, market, last))
        if found is None:
            return None
        row = rate_row(rates, currency, portfolio.rules.currency, found.start, found.days)
        return Part(portfolio.id, found, np.where(row > 0, row, np.nan), scope)

    async def _rows(self, portfolio: Portfolio, last: int) -> History | None:
        """By account, up to day `last`, as far as they are kept."""
        whole = (await self._wholes.of(portfolio)).history
        return None if whole is None or not whole.start <= last <= whole.end else between(whole, whole.start, last)

    def _last(self, portfolio: Portfolio, asked: Question) -> int:
        today = self._wholes.today(portfolio)
        return today if asked.end is None else min(asked.end, today)

    async def _benchmark(self, asked: Question, currency: str) -> _Benchmark | None:
        if asked.benchmark is None:
            return None
        market = await self._markets.benchmark(asked.benchmark, currency, dividends=asked.dividends)
        (instrument,) = market.prices
        return _Benchmark(market, instrument, asked.dividends)

    def _sessions(self, ledgers: Sequence[Ledger], asked: Question, last: int) -> _Sessions:
        named = {i for ledger in ledgers for i in ledger.instruments()}
        first = min(ledger.first_day for ledger in ledgers if ledger.first_day is not None)
        return self._markets.sessions(named if asked.instrument is None else {asked.instrument}, first, last)

    def _shared(self, own: _Sessions, beside: _Benchmark | None, first: int, last: int) -> _Sessions:
        if beside is None:
            return own
        theirs = self._markets.sessions([beside.instrument], first, last)
        return theirs if own is None else own if theirs is None else np.intersect1d(own, theirs)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """One portfolio's computation, with nothing left to wait for: safe in any thread."""

    ledger: Ledger
    market: MarketData
    asked: Question
    last: int
    sessions: _Sessions
    beside: _Benchmark | None
    shared: _Sessions
    rows: History | None

    def run(self) -> Returned | None:
        by, scope = _whole_scope(self.asked)
        whole = self._history(by)
        if whole is None or scope not in whole.scopes:
            return None
        found = _returned(whole, scope, self.asked, self.last, self.sessions, self.beside, self.shared)
        if found is None or self.asked.by is None:
            return found
        by, wanted = self._parts()
        rows = whole if by == _whole_scope(self.asked)[0] else self._history(by)
        assert rows is not None
        parts = [_returned(rows, one, self.asked, self.last, self.sessions) for one in rows.scopes if wanted(one)]
        return replace(found, parts=tuple(part for part in parts if part is not None))

    def _history(self, by: By) -> History | None:
        if by == "account" and self.rows is not None:
            return self.rows
        return history(self.ledger, self.market, self.last, by=by)

    def _parts(self) -> tuple[By, Callable[[Scope], bool]]:
        account, instrument = self.asked.account, self.asked.instrument
        if self.asked.by == "account" and instrument is None:
            return "account", lambda scope: scope[0] is not None and account in (None, scope[0])
        if self.asked.by == "account" or account is not None:
            return (
                "position",
                lambda scope: scope[1] is not None and instrument in (None, scope[1]) and account in (None, scope[0]),
            )
        return "instrument", lambda scope: scope[1] is not None and instrument in (None, scope[1])


def _whole_scope(asked: Question) -> tuple[By, Scope]:
    if asked.instrument is None:
        return "account", (asked.account, None)
    return ("instrument" if asked.account is None else "position"), (asked.account, asked.instrument)


def _returned(
    whole: History,
    scope: Scope,
    asked: Question,
    last: int,
    sessions: _Sessions,
    beside: _Benchmark | None = None,
    shared: _Sessions = None,
) -> Returned | None:
    start = whole.start if asked.start is None else max(asked.start, whole.start)
    first, last = min(start, last), min(last, whole.end)
    if scope != PORTFOLIO:
        held = held_within(whole, scope, first, last)
        if held is None:
            return None
        first, last = held
    own = performance(whole, scope, first, last, sessions=sessions)
    comparison = None
    if beside is not None:
        comparison = compared(whole, beside.market, beside.instrument, own, scope, sessions=shared)
    inputs = inputs_of(whole, own, scope, sessions=sessions)
    return Returned(scope, as_shown(own, whole, scope), inputs, comparison)


def _is_long(ledger: Ledger, market: MarketData, last: int) -> bool:
    days = last - (ledger.first_day or last) + 1
    return days * len(market.prices) >= IN_THREAD_FROM or len(ledger.transactions) >= ROWS_FROM
