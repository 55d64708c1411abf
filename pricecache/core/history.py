"""The history of a portfolio: both passes together, from the beginning or from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core import packed
from pricecache.core.book import Book
from pricecache.core.grid import Grid
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import MarketData
from pricecache.core.replay import replay
from pricecache.core.scopes import By, Scope
from pricecache.core.valuation import Mark, value
from pricecache.errors import Invalid

ENGINE_VERSION = 1
"""Grows whenever the same ledger and prices would give other numbers: what was stored under another one is void."""
PORTFOLIO: Scope = (None, None)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything at the end of `day` that the days after it depend on: the exact book, and the last floats."""

    day: int
    book: Book
    marks: dict[Scope, Mark] = field(default_factory=dict)

    def pack(self) -> bytes:
        """As bytes to keep: some eight for each lot, exact to the last digit and bit."""
        return packed.pack(ENGINE_VERSION, self.book, self.marks)

    @classmethod
    def unpack(cls, kept: bytes) -> Checkpoint:
        """The inverse. Raises `Corrupt` when it is damaged in any way, or of another engine."""
        book, marks = packed.unpack(ENGINE_VERSION, kept)
        return cls(book.day, book, marks)


@dataclass(frozen=True, slots=True, eq=False)
class GrossFlows:
    """What came in and went out on each day from `start` on, as the index counts it: float64, shape (scopes, days), in
    base currency, not negative, scopes in the history's order. What gets its first price comes in at its worth."""

    start: int
    inflow: NDArray[np.float64]
    outflow: NDArray[np.float64]

    def of(self, place: int, start: int, days: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """In- and outflow of the scope at `place` on `days` days from day `start` on."""
        low = start - self.start
        return self.inflow[place, low : low + days], self.outflow[place, low : low + days]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One row for each calendar day from `start` on and each of `scopes`, the portfolio (None, None) first.

    `values`: float64, shape (fields, scopes, days), in the order of `valuation.FIELDS`, base currency, not rounded
    (`rows.py` does that); NaN is unknown or undefined. `estimated`: bool, shape (scopes, days). `checkpoints`: by day.
    `faults`: what the ledger asked for and could not have (an over-sale), as rows of `errors.Invalid`. `gross`: the
    flows behind the index, for at least these days; None where only rows were kept.
    """

    currency: str
    start: int
    scopes: tuple[Scope, ...]
    values: NDArray[np.float64]
    estimated: NDArray[np.bool_]
    checkpoints: dict[int, Checkpoint]
    faults: tuple[dict[str, Any], ...]
    gross: GrossFlows | None = None

    @property
    def days(self) -> int:
        return self.values.shape[2]

    @property
    def nbytes(self) -> int:
        flows = 0 if self.gross is None else self.gross.inflow.nbytes + self.gross.outflow.nbytes
        return self.values.nbytes + self.estimated.nbytes + flows

    @property
    def end(self) -> int:
        return self.start + self.days - 1

    def of(self, field: int, scope: Scope = PORTFOLIO) -> NDArray[np.float64]:
        """One field of one scope, by day."""
        row: NDArray[np.float64] = self.values[field, self.scopes.index(scope)]
        return row


def history(
    ledger: Ledger,
    market: MarketData,
    end: int,
    *,
    since: Checkpoint | None = None,
    checkpoints: Sequence[int] = (),
    grid: Grid | None = None,
    by: By = "account",
) -> History | None:
    """Every day from the first transaction (or the day after the checkpoint `since`) to day `end`, both included.

    None when that is no day at all. `checkpoints`: days to give one of. With `since` the days after it are, bit for
    bit, what they are without; it only holds for scopes by account. `grid`: prices laid out for at least these days.
    Pure, so safe in any thread.
    """
    start = since.day + 1 if since is not None else ledger.first_day
    if start is None or start > end:
        return None
    replayed = replay(ledger, market, end, since=since.book if since is not None else None, books=checkpoints)
    valued = value(
        replayed,
        market,
        ledger.rules,
        end,
        start=start,
        since=since.marks if since is not None else None,
        marks=checkpoints,
        grid=grid,
        by=by,
    )
    found = {
        day: Checkpoint(day, replayed.books[day], marks) for day, marks in valued.marks.items() if day in replayed.books
    }
    gross = GrossFlows(start, valued.inflow, valued.outflow)
    return History(
        ledger.rules.currency, start, valued.scopes, valued.values, valued.estimated, found, replayed.faults, gross
    )  # fmt: skip


def book_at(ledger: Ledger, market: MarketData, day: int, *, since: Book | None = None) -> Book:
    """The exact state at the end of `day`."""
    return replay(ledger, market, day, since=since, books=[day]).books[day]


def check(ledger: Ledger, market: MarketData) -> None:
    """Raises `Invalid` with code `ledger_impossible`: every sale of more than is held, every transfer of more.

    `row` in each of its rows is the place in the ledger's order, `id` the transaction's.
    """
    last = ledger.transactions[-1].day if ledger.transactions else 0
    faults = replay(ledger, market, last).faults
    if faults:
        raise Invalid(
            f"{len(faults)} transactions take more than there is.", code="ledger_impossible", rows=list(faults)
        )


def instruments_of(ledger: Ledger) -> list[Instrument]:
    """Every instrument a grid for this ledger needs, in the order of its rows."""
    return sorted(ledger.instruments())
