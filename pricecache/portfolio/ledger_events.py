"""What a change of a ledger tells whoever follows the portfolio. Pure, so safe in any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pricecache.core.bars import day_of
from pricecache.core.closings import closings
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger, Transaction
from pricecache.core.marketdata import MarketData
from pricecache.core.stream_events import StreamEvent
from pricecache.portfolio.event_data import closing_data, trade_data
from pricecache.stores.ledger import LedgerChange, Row

MOST_TRADES = 100
"""Trades of one change that are told one by one: more come from a file or a broker, and nobody watches them happen."""
MOST_CLOSED = 1000
"""The same of positions that it closes."""
_TRADES = frozenset({"buy", "sell"})
_Told = tuple[str, Transaction]


def events_of(
    change: LedgerChange,
    present: Mapping[str, Row],
    before: Ledger,
    after: Ledger,
    market: MarketData,
    today: int,
    now: float,
) -> list[StreamEvent]:
    """Not numbered yet: trades in the order of the change, then the positions that it closes.

    `present`: the rows before it, by id. `market`: knows the splits. `today`: days since 1970-01-01.
    """
    trades = list(_trades(change, present))
    told = [_imported(trades)] if len(trades) > MOST_TRADES else [(kind, trade_data(row)) for kind, row in trades]
    touched = _touched(change, present)
    if touched:
        day = max([today, *(one.transactions[-1].day for one in (before, after) if one.transactions)])
        closed = closings(before, after, touched, market, day)
        told += [("position:closed", closing_data(one)) for one in closed[:MOST_CLOSED]]
    return [StreamEvent(0, kind, now, data) for kind, data in told]


def _trades(change: LedgerChange, present: Mapping[str, Row]) -> Iterator[_Told]:
    for row in change.inserted:
        if row.transaction.type in _TRADES:
            yield "trade:executed", row.transaction
    for row in change.replaced:
        old, new = present[row.id].transaction, row.transaction
        if new.type in _TRADES:
            yield "trade:corrected" if old.type in _TRADES else "trade:executed", new
        elif old.type in _TRADES:
            yield "trade:cancelled", old
    for row in change.deleted:
        if row.transaction.type in _TRADES:
            yield "trade:cancelled", row.transaction


def _imported(trades: Sequence[_Told]) -> tuple[str, dict[str, Any]]:
    kinds = [kind for kind, _ in trades]
    days = [row.day for _, row in trades]
    return "trades:imported", {
        "created": kinds.count("trade:executed"),
        "updated": kinds.count("trade:corrected"),
        "deleted": kinds.count("trade:cancelled"),
        "from": day_of(min(days)).isoformat(),
        "to": day_of(max(days)).isoformat(),
    }


def _touched(change: LedgerChange, present: Mapping[str, Row]) -> frozenset[Instrument]:
    rows = [*change.inserted, *change.replaced, *change.deleted, *(present[row.id] for row in change.replaced)]
    named = (row.transaction.instrument for row in rows if row.transaction.type not in ("dividend", "fee", "tax"))
    return frozenset([instrument for instrument in named if instrument is not None])
