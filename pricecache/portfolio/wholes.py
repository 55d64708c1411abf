"""The history of a portfolio up to this moment: what is kept of it where that still holds, the rest computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo

import structlog
from cachetools import LRUCache
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock
from pricecache.core.bars import day_number
from pricecache.core.chunks import joined
from pricecache.core.grid import Grid, lay_out
from pricecache.core.history import ENGINE_VERSION, History, history
from pricecache.core.ledger import Ledger
from pricecache.core.materialised import Materialised, brought_up, goes_on_from, gone_on
from pricecache.core.portfolios import BEGINNING, LedgerState, Portfolio
from pricecache.core.scopes import Scope
from pricecache.core.stamps import ALWAYS, NEVER, SeriesFacts, Stamp, changed_series, doubtful_from
from pricecache.errors import Corrupt
from pricecache.portfolio.ledger import Ledgers, LedgerView
from pricecache.portfolio.market import Markets, MarketView
from pricecache.portfolio.threads import computed
from pricecache.stores.history import HistoryStore
from pricecache.stores.ledger import RACES, gave_up
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.revisions import first_changed

log = structlog.get_logger(__name__)

IN_THREAD_FROM = 150_000
"""Prices (days × instruments) from which on a computation leaves the event loop: below, it takes a few ms."""
ROWS_IN_THREAD_FROM = 1000
"""The same in transactions that are replayed."""
ROW_BYTES = 900
"""About what a transaction takes in memory."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Whole:
    """Every day of a portfolio from its first transaction to `today` (days since 1970-01-01), which goes on.

    `kept`: what of it is settled, None where nothing is, or nothing is to be kept; `tail`: the days after that, None
    where there is none. `ledger`: at `state`, its transactions after `kept`, or all of them where `is_complete`;
    `market`: what these are told of, and `grid` its prices laid out on the days after `kept`. `reused_through`: the
    last day that was not computed for whoever asks now, None for none.
    """

    portfolio: Portfolio
    state: LedgerState
    ledger: Ledger
    is_complete: bool
    market: MarketView
    today: int
    kept: Materialised | None
    tail: History | None
    reused_through: int | None
    until: float
    grid: Grid | None = None
    _joined: History | None = None

    @property
    def parts(self) -> list[History]:
        """Those days that are settled, and those after them, as far as there are any."""
        return [part for part in (None if self.kept is None else self.kept.history, self.tail) if part is not None]

    @property
    def start(self) -> int | None:
        """The first day, None without any."""
        return self.parts[0].start if self.parts else None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return self.parts[-1].scopes if self.parts else ()

    @property
    def history(self) -> History | None:
        """All of it as one; None where there is not one day."""
        if self._joined is None and self.parts:
            self._joined = joined(self.parts, self.portfolio.rules.cash_tracking)
        return self._joined

    @property
    def nbytes(self) -> int:
        """In memory, joined or not."""
        kept = 0 if self.kept is None else 2 * self.kept.nbytes
        laid = 0 if self.grid is None else self.grid.prices.nbytes
        rows = ROW_BYTES * len(self.ledger.transactions)
        return 5000 + kept + laid + rows + (0 if self.tail is None else self.tail.nbytes)


class Wholes:
    """Makes and keeps them. Loop-only; long computations run in a thread.

    `store`: None switches all keeping off, and every whole is computed from its ledger. `on_advanced` is told the id of
    a portfolio of which more is settled than is stored, or something else.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        markets: Markets,
        heads: PortfolioHeads,
        store: HistoryStore | None,
        clock: Clock,
        max_bytes: int,
    ) -> None:
        self._ledgers = ledgers
        self._markets = markets
        self._heads = heads
        self._store = store
        self._clock = clock
        self._kept: LRUCache[str, Whole] = LRUCache(max_bytes, getsizeof=lambda whole: whole.nbytes)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.on_advanced: Callable[[str], object] = lambda portfolio: None
        self.hits = 0
        self.computed_days = 0

    @property
    def nbytes(self) -> int:
        return int(self._kept.currsize)

    @property
    def is_keeping(self) -> bool:
        return self._store is not None

    def today(self, portfolio: Portfolio) -> int:
        """The date where the portfolio's days begin and end."""
        return day_number(self._now(portfolio).date())

    def _now(self, portfolio: Portfolio) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), ZoneInfo(portfolio.time_zone))

    def standing(self, portfolio: Portfolio) -> Whole | None:
        """The one that is kept, if it is still right."""
        whole = self._kept.get(portfolio.id)
        return whole if whole is not None and self.stands(whole, self._clock.time()) else None

    def stands(self, whole: Whole, now: float) -> bool:
        """Whether another one made at instant `now` would be the same. Cheap: it stands before every answer."""
        return self._heads.portfolio(whole.portfolio.id) == whole.portfolio and self._is_of_now(whole, now)

    def _is_of_now(self, whole: Whole, now: float) -> bool:
        return (
            now < whole.until
            and (state := self._heads.state(whole.portfolio.id)) is not None
            and state.generation == whole.state.generation
            and self._markets.holds(whole.market, now)
        )

    async def of(self, portfolio: Portfolio, *, use_materialized: bool = True) -> Whole:
        """Without `use_materialized` everything is computed. Raises `NotFound` when the portfolio goes meanwhile."""
        if not use_materialized or self._store is None:
            return await self._computed(portfolio)
        lock = self._locks.setdefault(portfolio.id, asyncio.Lock())
        async with lock:  # who comes second finds what the first has made
            whole = self.standing(portfolio)
            if whole is None:
                whole = await self._made(portfolio, self._store)
                if whole.nbytes <= self._kept.maxsize:
                    self._kept[whole.portfolio.id] = whole
                if whole.kept is not None and _is_news(whole.kept):
                    self.on_advanced(portfolio.id)
            else:
                self.hits += 1
                whole.reused_through = None if whole.kept is None else whole.kept.through
        return whole

    async def settled(
        self, portfolio: Portfolio, stored: Materialised | None = None, *, is_stored: bool = True
    ) -> Whole:
        """For who stores it: what is settled only, without a tail; takes no other's place in memory. `stored`: what is
        stored, as far as that is known; `is_stored`: whether anything is."""
        assert self._store is not None
        lock = self._locks.setdefault(portfolio.id, asyncio.Lock())
        async with lock:
            standing = self.standing(portfolio)
            return standing or await self._made(portfolio, self._store, stored, rest=False, is_stored=is_stored)

    async def ahead(self, portfolio: Portfolio, view: LedgerView) -> Whole:
        """What `settled` would give, with nothing stored, once the ledger is as `view`. Whoever uses it looks first if
        it `came_true`."""
        market, today = await self._markets.view(view.ledger), self.today(portfolio)
        stamp = Stamp(view.state.generation, ENGINE_VERSION, portfolio.rules, market.facts)
        return await self._brought_up(portfolio, view, market, today, None, stamp, ALWAYS, rest=False)

    def came_true(self, ahead: Whole, portfolio: Portfolio) -> bool:
        """Whether what was computed `ahead` is right for `portfolio` as it was just read."""
        return ahead.portfolio == portfolio and self._is_of_now(ahead, self._clock.time())

    async def _computed(self, portfolio: Portfolio) -> Whole:
        view = await self._ledgers.read(portfolio)
        ledger, market, today = view.ledger, await self._markets.view(view.ledger), self.today(portfolio)
        found = None
        if ledger.first_day is not None and ledger.first_day <= today:
            found = await computed(lambda: history(ledger, market.market, today), _is_long(ledger, market, today))
        return Whole(
            portfolio, view.state, ledger, True, market, today, None, found, None, self._until(portfolio, market)
        )

    async def _made(
        self,
        portfolio: Portfolio,
        store: HistoryStore,
        stored: Materialised | None = None,
        *,
        rest: bool = True,
        is_stored: bool = True,
    ) -> Whole:
        """`rest`: with the days that are not settled."""
        before = self._kept.get(portfolio.id)
        for _ in range(RACES):
            if before is not None and before.kept is not None:
                state = await self._ledgers.state(portfolio)
                if self._ledgers.dirty_since(portfolio, state, before.kept.stamp.generation) == BEGINNING:
                    before = None  # nothing of it holds; what another daemon stored meanwhile may
            kept = stored if before is None else before.kept
            if kept is None and is_stored:
                kept = await self._load(portfolio, store)
            if kept is not None and (whole := await self._gone_on(portfolio, kept, before, rest)) is not None:
                return whole
            view = await self._ledgers.read(portfolio)
            market, today = await self._markets.view(view.ledger), self.today(portfolio)
            stamp = Stamp(view.state.generation, ENGINE_VERSION, portfolio.rules, market.facts)
            if kept is None or kept.stamp.generation <= stamp.generation:
                doubtful = await self._doubtful_from(store, kept, stamp, view)
                return await self._brought_up(portfolio, view, market, today, kept, stamp, doubtful, rest)
            self._heads.forget(portfolio.id)  # what is stored is of a later ledger than the one that was known here
            before = stored = None
        raise gave_up()

    async def _gone_on(
        self, portfolio: Portfolio, kept: Materialised, before: Whole | None, rest: bool
    ) -> Whole | None:
        """From what is kept without a look at what came before its end, where nothing of that can have changed."""
        state = await self._ledgers.state(portfolio)
        stamp = kept.stamp
        dirty_from = self._ledgers.dirty_since(portfolio, state, stamp.generation)
        is_doubted = dirty_from is not None and dirty_from <= kept.through
        is_ours = (stamp.engine, stamp.rules) == (ENGINE_VERSION, portfolio.rules)
        if stamp.generation > state.generation or is_doubted or not is_ours or self._markets.is_renamed(stamp.series):
            return None
        if before is not None and before.state.generation == state.generation:
            ledger, is_complete = before.ledger, before.is_complete
        else:
            found = await self._ledgers.after(portfolio, state, kept.through)
            if found is None:
                return None
            ledger, is_complete = found, found.first_day is not None and found.first_day <= kept.start
        try:
            book = kept.points[-1].checkpoint().book
        except Corrupt:  # told by who computes it again
            return None
        today = self.today(portfolio)
        if before is not None and before.kept is kept and self._markets.suffices(before.market, ledger):
            market, grid = before.market, before.grid if before.today == today else None
        else:
            # closed positions too: they stay in the past, and so in every day
            held = [one.instrument for one in book.positions if one.instrument is not None]
            units = [one.currency for one in book.cash]
            market, grid = await self._markets.view(ledger, more=held, currencies=units, watched=stamp.series), None
        through = min(today - 1, market.settled)
        if through < kept.through or not _is_same(stamp.series, market.facts):
            return None
        stamp = Stamp(state.generation, ENGINE_VERSION, portfolio.rules, market.facts)

        def compute() -> tuple[Materialised, History | None, Grid | None]:
            settled = gone_on(kept, stamp, ledger, market.market, through)
            if not rest:
                return settled, None, None
            laid = grid or lay_out(
                sorted(market.names), market.market, ledger.rules.currency, settled.through + 1, today
            )
            return settled, _after(settled, ledger, market, today, laid), laid

        settled, tail, grid = await computed(compute, _is_long(ledger, market, today, kept.through))
        self._count(settled, tail)
        until = self._until(portfolio, market)
        return Whole(
            portfolio, state, ledger, is_complete, market, today, settled, tail, settled.reused_through, until, grid
        )

    def _count(self, settled: Materialised | None, tail: History | None) -> None:
        if settled is not None:
            reused = settled.start - 1 if settled.reused_through is None else settled.reused_through
            self.computed_days += settled.through - reused
        self.computed_days += 0 if tail is None else tail.days

    async def _load(self, portfolio: Portfolio, store: HistoryStore) -> Materialised | None:
        try:
            stored = await store.load(portfolio.id, portfolio.rules.cash_tracking)
        except Corrupt as exc:
            log.error("stored history cannot be read and is computed again", portfolio=portfolio.id, error=exc.detail)
            return None
        return None if stored is None else stored.kept

    async def _doubtful_from(
        self, store: HistoryStore, kept: Materialised | None, stamp: Stamp, view: LedgerView
    ) -> int:
        if kept is None:
            return ALWAYS
        dirty_from = view.dirty_since(kept.stamp.generation)
        day = doubtful_from(kept.stamp, stamp, view.ledger, dirty_from)
        return min(day, await revised_from(store.database, kept.stamp, stamp))

    async def _brought_up(
        self,
        portfolio: Portfolio,
        view: LedgerView,
        market: MarketView,
        today: int,
        kept: Materialised | None,
        stamp: Stamp,
        doubtful: int,
        rest: bool,
    ) -> Whole:
        through, ledger = min(today - 1, market.settled), view.ledger

        def compute() -> tuple[Materialised | None, History | None]:
            settled = brought_up(kept, stamp, ledger, market.market, through, doubtful)
            return settled, _after(settled, ledger, market, today) if rest else None

        point = goes_on_from(kept, ledger, through, doubtful)  # which may lie long before what is doubtful
        is_long = _is_long(ledger, market, today, None if point is None else point.day)
        try:
            settled, tail = await computed(compute, is_long)
        except Corrupt as exc:
            log.error("a stored checkpoint cannot be read and is computed again", portfolio=portfolio.id,
                      error=exc.detail)  # fmt: skip
            kept, doubtful = None, ALWAYS
            settled, tail = await computed(compute, True)
        reused = None if settled is None else settled.reused_through
        self._count(settled, tail)
        until = self._until(portfolio, market)
        return Whole(portfolio, view.state, ledger, True, market, today, settled, tail, reused, until)

    def _until(self, portfolio: Portfolio, market: MarketView) -> float:
        now = self._now(portfolio)
        tomorrow = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), now.tzinfo)
        return min(market.until, tomorrow.timestamp())

    def forget(self, portfolio_id: str) -> None:
        """Keep it no longer."""
        self._kept.pop(portfolio_id, None)

    def stored(self, portfolio_id: str, kept: Materialised, version: int) -> None:
        """`kept` is what is stored now, as `version`."""
        self._heads.cleaned(portfolio_id, kept.stamp.generation)
        whole = self._kept.get(portfolio_id)
        if whole is not None and whole.kept is kept:
            whole.kept = replace(kept, stored=(version, kept.through))


async def revised_from(database: AsyncDatabase[dict[str, Any]], before: Stamp, after: Stamp) -> int:
    """The first day of which a price or a rate was revised between two stamps."""
    changed = changed_series(before, after)
    if not changed:
        return NEVER
    found = await first_changed(database, {new.series: (old.rev, new.rev) for old, new in changed.values()})
    return min(ALWAYS if day is None else day for day in found.values())


def _after(
    settled: Materialised | None, ledger: Ledger, market: MarketView, today: int, grid: Grid | None = None
) -> History | None:
    if settled is None:
        return history(ledger, market.market, today)
    return history(ledger, market.market, today, since=settled.points[-1].checkpoint(), grid=grid)


def _is_same(before: Mapping[str, SeriesFacts | None], now: Mapping[str, SeriesFacts | None]) -> bool:
    # mostly they are the very same objects, and to compare those would take longer than the rest
    return all(now[key] is facts or now[key] == facts for key, facts in before.items())


def _is_news(settled: Materialised) -> bool:
    return settled.stored is None or settled.stored[1] < settled.through


def _is_long(ledger: Ledger, market: MarketView, today: int, known: int | None = None) -> bool:
    """Whether the days after `known` take long, None for all there are."""
    first = ledger.first_day if ledger.first_day is not None else today
    days = today - max(first - 1, first - 1 if known is None else known)
    return days * len(market.market.prices) >= IN_THREAD_FROM or ledger.count_after(known) >= ROWS_IN_THREAD_FROM
