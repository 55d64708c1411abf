"""Portfolios, the accounts in them, and where a ledger stands, as values."""

from __future__ import annotations

from dataclasses import dataclass

from pricecache.core.ledger import Rules

BEGINNING = -719162
"""The day 0001-01-01: what a change of the rules of a portfolio makes doubtful from."""


@dataclass(frozen=True, slots=True)
class Portfolio:
    """One ledger and how it is read. `quantity_basis`: what rows that say nothing are in, `asTraded` or `adjusted`;
    `time_zone`: where its days begin and end. Times are seconds since 1970 UTC."""

    id: str
    owner: str
    name: str
    rules: Rules
    quantity_basis: str
    time_zone: str
    is_archived: bool
    version: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Account:
    """A part of a portfolio: where it is kept (`institution`) and what `kind` it is (401k, IRA)."""

    id: str
    portfolio: str
    name: str
    institution: str | None
    kind: str | None
    is_archived: bool
    version: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Where a ledger stands. `generation` grows with every change; histories computed before `dirty_from` (days since
    1970-01-01, None: nothing is) still hold. `places`: how many rows were ever entered. `corrections`: how many changes
    were of what had been before, and did not just add rows of their own day."""

    generation: int
    dirty_from: int | None
    places: int
    clean_at: int = 0
    corrections: int = 0

    def dirty_since(self, generation: int) -> int | None:
        """From when on what was computed at `generation` is doubtful, None: it still holds."""
        if generation == self.generation:
            return None
        return BEGINNING if generation < self.clean_at else self.dirty_from

    def moved(self, day: int | None, places: int, *, corrects: bool = False) -> LedgerState:
        """After one change more, which entered `places` rows and leaves doubtful what is from `day` on."""
        days = [known for known in (self.dirty_from, day) if known is not None]
        return LedgerState(
            self.generation + 1,
            min(days, default=None),
            self.places + places,
            self.clean_at,
            self.corrections + corrects,
        )
