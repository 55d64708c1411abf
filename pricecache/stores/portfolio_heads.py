"""What portfolios and their ledgers stand at, in RAM: so that a read need not ask the database what has not changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cachetools import LRUCache

from pricecache.core.portfolios import LedgerState, Portfolio

MOST_KEPT = 100_000


@dataclass(slots=True)
class Head:
    """One portfolio and the state of its ledger, each None until it is read."""

    portfolio: Portfolio | None = None
    state: LedgerState | None = None


class PortfolioHeads:
    """Heads by the portfolio's id. Loop-only.

    A reader takes a `ticket` before it asks the database and hands it in with what it was told: what was changed in
    between is not kept. A writer changes within `changing`. `trusted` is False while changes by other daemons may go
    unseen: then nothing is answered from here.
    """

    def __init__(self) -> None:
        self.trusted = True
        self._kept: LRUCache[str, Head] = LRUCache(MOST_KEPT)
        self._changing: dict[str, int] = {}
        self._changes = 0

    def portfolio(self, portfolio_id: str) -> Portfolio | None:
        head = self._kept.get(portfolio_id) if self.trusted else None
        return None if head is None else head.portfolio

    def state(self, portfolio_id: str) -> LedgerState | None:
        head = self._kept.get(portfolio_id) if self.trusted else None
        return None if head is None else head.state

    @property
    def ticket(self) -> int:
        return self._changes

    def keep_portfolio(self, portfolio: Portfolio, ticket: int) -> None:
        if self._may_keep(portfolio.id, ticket):
            self._kept.setdefault(portfolio.id, Head()).portfolio = portfolio

    def keep_state(self, portfolio_id: str, state: LedgerState, ticket: int) -> None:
        if self._may_keep(portfolio_id, ticket):
            self._kept.setdefault(portfolio_id, Head()).state = state

    def cleaned(self, portfolio_id: str, generation: int) -> None:
        """Nothing computed of the ledger at `generation` is doubtful any more."""
        head = self._kept.get(portfolio_id)
        if head is not None and head.state is not None and head.state.generation == generation:
            head.state = replace(head.state, dirty_from=None, clean_at=generation)

    def _may_keep(self, portfolio_id: str, ticket: int) -> bool:
        return self.trusted and ticket == self._changes and portfolio_id not in self._changing

    @contextmanager
    def changing(self, portfolio_id: str) -> Iterator[None]:
        """Whatever becomes of the change, what was known before it is known no longer."""
        self._changing[portfolio_id] = self._changing.get(portfolio_id, 0) + 1
        try:
            yield
        finally:
            self._changing[portfolio_id] -= 1
            if not self._changing[portfolio_id]:
                del self._changing[portfolio_id]
            self.forget(portfolio_id)

    def forget(self, portfolio_id: str) -> None:
        self._changes += 1
        self._kept.pop(portfolio_id, None)

    def forget_all(self) -> None:
        self._changes += 1
        self._kept.clear()
