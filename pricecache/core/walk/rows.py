"""Rows of a broker's as rows of a ledger: which way each kind of them goes. Splits are left to the walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.walk.cash import of_money
from pricecache.core.walk.deliveries import adjustment, moved, paid, transfer
from pricecache.core.walk.entries import Entries, Names, link_of
from pricecache.core.walk.income import charge, dividend, interest, reinvestment, spin_off
from pricecache.core.walk.pairs import Pairs
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow
from pricecache.core.walk.trades import exchanged, expiry, merger, trade

WAYS: Mapping[str, Callable[[Entries], None]] = {
    "buy": trade,
    "sell": trade,
    "short": trade,
    "cover": trade,
    "merger": merger,
    "expiry": expiry,
    "exercise": expiry,
    "transfer": transfer,
    "cash": paid,
    "adjustment": adjustment,
    "dividend": dividend,
    "return_of_capital": dividend,
    "reinvestment": reinvestment,
    "spin_off": spin_off,
    "interest": interest,
    "fee": charge,
    "tax": charge,
}
"""By what a row of a security is; rows of money all go by `of_money`."""


def entries_of(
    rows: Sequence[BrokerRow],
    left_out: frozenset[int],
    securities: Mapping[str, BrokerSecurity],
    pairs: Pairs,
    prices: BrokerPrices,
    names: Names,
) -> Entries:
    """What all of `rows` but `left_out` and splits are in a ledger."""
    entries = Entries(securities, pairs, prices, names)
    for funded in sorted(set(pairs.funded.values())):
        entries.links[funded] = link_of(rows[funded].row.id)
    for source, one in enumerate(rows):
        if source in left_out or source in pairs.taken:
            continue
        entries.begin(source, one)
        before = len(entries.rows)
        _enter(entries, rows)
        if len(entries.rows) == before and not entries.is_sweep():
            entries.tell("row_without_effect", f"A row of kind {one.row.action} that moves nothing.")
    return entries


def _enter(entries: Entries, rows: Sequence[BrokerRow]) -> None:
    if entries.source in entries.pairs.renamed:
        return
    if entries.source in entries.pairs.moved:
        into, day = entries.pairs.moved[entries.source]
        moved(entries, rows[into], day)
    elif entries.source in entries.pairs.in_parts:
        for into, day in entries.pairs.in_parts[entries.source]:
            moved(entries, rows[into], day)
    elif entries.source in entries.pairs.exchanged:
        exchanged(entries)
    elif entries.one.instrument is None:
        of_money(entries)
    else:
        WAYS[entries.one.row.action](entries)
