"""Which holdings a change of a ledger takes to nothing, and by which row."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pricecache.core.history import book_at
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Transaction
from pricecache.core.marketdata import MarketData

_MOVING = frozenset({"buy", "sell", "transfer_in", "transfer_out", "opening", "adjustment"})


@dataclass(frozen=True, slots=True)
class Closing:
    """Nothing of an instrument is held any more, in no account, since `row`; None where no row of it that moves shares
    is left."""

    instrument: Instrument
    row: Transaction | None


def closings(
    before: Ledger, after: Ledger, instruments: Collection[Instrument], market: MarketData, day: int
) -> list[Closing]:
    """Those of `instruments` that are held, or owed, at the end of `day` by the ledger `before` and not by `after`.

    Walks the rows of these instruments only. Pure, so safe in any thread.
    """
    known = before.instruments().intersection(instruments)
    if not known:
        return []
    rest = _of(after, known)
    gone = known - _held(rest, market, day)
    if not gone:
        return []
    closed = gone & _held(_of(before, gone), market, day)
    last = {row.instrument: row for row in rest.transactions if row.type in _MOVING and row.to_account is None}
    return [Closing(instrument, last.get(instrument)) for instrument in sorted(closed)]


def _of(ledger: Ledger, instruments: Collection[Instrument]) -> Ledger:
    rows = [row for row in ledger.transactions if row.instrument in instruments]
    return ledger if len(rows) == len(ledger.transactions) else Ledger(tuple(rows), ledger.rules)


def _held(ledger: Ledger, market: MarketData, day: int) -> set[Instrument]:
    held = book_at(ledger, market, day).positions
    return {one.instrument for one in held if one.instrument is not None and one.quantity}
