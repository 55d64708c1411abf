"""Reading ledgers: as they are now, kept in memory for as long as they stay so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from cachetools import LRUCache

from pricecache import garbage
from pricecache.core.catalog import Catalog
from pricecache.core.ledger import Ledger, Rules
from pricecache.core.portfolios import LedgerState, Portfolio
from pricecache.errors import NotFound
from pricecache.portfolio.planning import LedgerView, ledger_of
from pricecache.portfolio.threads import aside
from pricecache.stores.commits import pause
from pricecache.stores.ledger import RACES, LedgerStore, Row, gave_up

ROWS_TOGETHER = 1000
"""Ledgers of fewer rows are read with one query for several."""
ROWS_KEPT = 200_000
"""Transactions of all ledgers together that are kept in memory."""
MANY_ROWS = 5000
"""Rows from which on garbage is not looked for among them while they are made."""


class LedgerReader:
    """Ledgers for whoever reads them. Loop-only."""

    def __init__(self, store: LedgerStore, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self._kept: LRUCache[str, LedgerView] = LRUCache(ROWS_KEPT, getsizeof=lambda view: len(view.rows) + 1)

    async def read(self, portfolio: Portfolio) -> LedgerView:
        """The ledger as it is now. Raises `NotFound` when the portfolio has gone."""
        for attempt in range(RACES):
            state = await self._store.state(portfolio.id)
            if state is None:
                self._kept.pop(portfolio.id, None)
                raise NotFound("The portfolio has been deleted.", code="unknown_portfolio")
            kept = self._kept.get(portfolio.id)
            if kept is not None and kept.state.generation == state.generation:
                return await self._current(portfolio, kept, state)
            if not state.places:  # there never was a row
                return self._keep(portfolio.id, await self._made(state, (), portfolio.rules))
            with garbage.young_only() if state.places >= MANY_ROWS else nullcontext():
                rows = await self._store.rows(portfolio.id)
                after = await self._store.stored_state(portfolio.id)
                if after is not None and after.generation == state.generation:
                    return self._keep(portfolio.id, await self._made(after, rows, portfolio.rules))
            await pause(attempt)
        raise gave_up()

    async def state(self, portfolio: Portfolio) -> LedgerState:
        """Where the ledger stands. Raises `NotFound` when the portfolio has gone."""
        state = await self._store.state(portfolio.id)
        if state is None:
            raise NotFound("The portfolio has been deleted.", code="unknown_portfolio")
        return state

    async def read_many(self, portfolios: Sequence[Portfolio]) -> None:
        """Read the ledgers of several portfolios at once, so that each is there when it is asked for next; those that
        somebody changes meanwhile are not."""
        before = await self._store.states([one.id for one in portfolios if one.id not in self._kept])
        # long ones are read alone, a piece at a time
        missing = [one for one in portfolios if one.id in before and before[one.id].places < ROWS_TOGETHER]
        ids = [one.id for one in missing]
        rows, after = await self._store.rows_of(ids), await self._store.states(ids)
        for one in missing:
            old, state, found = before.get(one.id), after.get(one.id), rows.get(one.id)
            if found is not None and old is not None and state is not None and old.generation == state.generation:
                self._keep(one.id, await self._made(state, found, one.rules))

    def dirty_since(self, portfolio: Portfolio, state: LedgerState, generation: int) -> int | None:
        """From when on what was computed of the ledger at `generation` is doubtful at `state`; None: nowhere."""
        kept = self._kept.get(portfolio.id)
        known = kept is not None and kept.state.generation == state.generation
        return kept.dirty_since(generation) if kept is not None and known else state.dirty_since(generation)

    async def after(self, portfolio: Portfolio, state: LedgerState, day: int) -> Ledger | None:
        """Its transactions after `day` only; None when the ledger is not at `state` any more."""
        kept = self._kept.get(portfolio.id)
        if kept is not None and kept.state.generation == state.generation:
            return (await self._current(portfolio, kept, state)).ledger
        rows = await self._store.rows(portfolio.id, day)
        now = await self._store.stored_state(portfolio.id)
        if now is None or now.generation != state.generation:
            return None
        return await aside(len(rows), lambda: ledger_of(map(self._present, rows), portfolio.rules))

    async def _current(self, portfolio: Portfolio, kept: LedgerView, state: LedgerState) -> LedgerView:
        if kept.ledger.rules != portfolio.rules or kept.names != self._catalog.renames:
            return self._keep(portfolio.id, await self._made(state, kept.rows, portfolio.rules, kept.changes))
        if kept.state != state:  # what was doubtful of it has been computed since
            return self._keep(portfolio.id, replace(kept, state=state))
        return kept

    def _keep(self, portfolio_id: str, view: LedgerView) -> LedgerView:
        if len(view.rows) < ROWS_KEPT:
            self._kept[portfolio_id] = view
        return view

    def _renamed(self, row: Row) -> bool:
        entry = None if row.series is None else self._catalog.by_id(row.series)
        return entry is not None and entry.instrument != row.transaction.instrument

    async def _made(
        self, state: LedgerState, rows: Sequence[Row], rules: Rules, changes: tuple[int | None, ...] = ()
    ) -> LedgerView:
        names = self._catalog.renames  # before the thread looks: a rename meanwhile is seen by it at the next read
        return await aside(len(rows), lambda: self._view(state, names, changes, rows, rules))

    def _view(
        self, state: LedgerState, names: int, changes: tuple[int | None, ...], rows: Iterable[Row], rules: Rules
    ) -> LedgerView:
        present = tuple(self._present(row) for row in rows)
        ledger = ledger_of(present, rules)
        ledger.instruments(), ledger.currencies()  # which it keeps: of a long one they are no work for the loop
        return LedgerView(
            state,
            names,
            changes,
            present,
            ledger,
            {row.id: row for row in present},
            {row.transaction.external_id: row for row in present if row.transaction.external_id is not None},
        )

    def _present(self, row: Row) -> Row:
        """With the symbol that its instrument has now."""
        if not self._renamed(row):
            return row
        assert row.series is not None
        entry = self._catalog.by_id(row.series)
        assert entry is not None
        return replace(row, transaction=replace(row.transaction, instrument=entry.instrument))
