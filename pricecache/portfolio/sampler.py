"""Holds stored rows against rows computed from the ledger, one portfolio at a time for ever: they must not differ."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.bars import day_of
from pricecache.core.chunks import with_flows
from pricecache.core.history import ENGINE_VERSION, History, history
from pricecache.core.portfolios import Portfolio
from pricecache.core.stamps import Stamp, doubtful_from
from pricecache.core.valuation import FIELDS
from pricecache.errors import PricecacheError
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.market import Markets
from pricecache.portfolio.wholes import Wholes, revised_from
from pricecache.stores.history import HistoryStore
from pricecache.stores.portfolios import PortfolioStore

log = structlog.get_logger(__name__)

_NAMES = (*FIELDS, "inflow", "outflow")
SAMPLE_SECONDS = 60.0
"""Between two portfolios."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The first value that differs: its portfolio, account (None: all), day (since 1970-01-01) and field."""

    portfolio: str
    account: str | None
    day: int
    field: str
    stored: float
    computed: float


class Sampler:
    """Loop-only; the computing is done in a thread. What drifts is told, counted, and dropped, so that it is stored
    anew. `sampled`: portfolios looked at since the start; `drifted`: those of which a row differed."""

    def __init__(
        self,
        store: HistoryStore,
        portfolios: PortfolioStore,
        ledgers: Ledgers,
        markets: Markets,
        wholes: Wholes,
        clock: Clock,
    ) -> None:
        self._store = store
        self._portfolios = portfolios
        self._ledgers = ledgers
        self._markets = markets
        self._wholes = wholes
        self._clock = clock
        self.sampled = 0
        self.drifted = 0
        self.last: Drift | None = None

    async def run(self) -> None:
        """Look at one portfolio after another until cancelled."""
        while True:
            await self._clock.sleep(SAMPLE_SECONDS)
            try:
                portfolio_id = await self._store.any()
                if portfolio_id is not None:
                    await self.sample(await self._portfolios.find(portfolio_id))
            except (PyMongoError, PricecacheError) as exc:
                log.debug("no stored history was looked at", error=str(exc)[:300])
            except Exception:  # our fault with one portfolio; the next is looked at all the same
                log.exception("a stored history could not be looked at")

    async def sample(self, portfolio: Portfolio) -> Drift | None:
        """Compare what is stored of one portfolio and holds by its own word. None: nothing differs."""
        stored = await self._store.load(portfolio.id, portfolio.rules.cash_tracking)
        view = await self._ledgers.read(portfolio)
        if stored is None or stored.head.stamp.generation > view.state.generation:
            return None
        market = await self._markets.view(view.ledger)
        stamp = Stamp(view.state.generation, ENGINE_VERSION, portfolio.rules, market.facts)
        generation = stored.head.stamp.generation
        day = doubtful_from(stored.head.stamp, stamp, view.ledger, view.state.dirty_since(generation))
        day = min(day, await revised_from(self._store.database, stored.head.stamp, stamp))
        last = min(stored.head.through, day - 1, market.settled)
        if last < stored.head.start:
            return None
        computed = await asyncio.to_thread(history, view.ledger, market.market, last)
        self.sampled += 1
        drift = _difference(portfolio.id, stored.kept.history, computed, last)
        if drift is not None:
            await self._tell(drift)
        return drift

    async def _tell(self, drift: Drift) -> None:
        self.drifted += 1
        self.last = drift
        log.error(
            "stored history drifts",
            portfolio=drift.portfolio,
            account=drift.account,
            date=day_of(drift.day).isoformat(),
            field=drift.field,
            stored=drift.stored,
            computed=drift.computed,
        )
        await self._store.drop(drift.portfolio)
        self._wholes.forget(drift.portfolio)
        self._wholes.on_advanced(drift.portfolio)


def _difference(portfolio: str, stored: History, computed: History | None, last: int) -> Drift | None:
    """The first difference of any bit from the first day to `last`."""
    if computed is None or computed.start != stored.start:
        return Drift(
            portfolio, None, stored.start, "start", float(stored.start), float(computed.start if computed else -1)
        )
    days = last + 1 - stored.start
    kept, made = with_flows(stored), with_flows(computed)
    for number, scope in enumerate(computed.scopes):
        if scope not in stored.scopes:
            return Drift(portfolio, scope[0], stored.start, "account", float("nan"), float("nan"))
        row = stored.scopes.index(scope)
        ours, theirs = kept[:, row, :days], made[:, number, :days]
        differs = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
        differs[0] |= stored.estimated[row, :days] != computed.estimated[number, :days]
        if differs.any():
            column = int(np.flatnonzero(differs.any(axis=0))[0])
            field = int(np.flatnonzero(differs[:, column])[0])
            values = float(ours[field, column]), float(theirs[field, column])
            return Drift(portfolio, scope[0], stored.start + column, _NAMES[field], *values)
    return None
