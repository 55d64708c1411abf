"""Rows that a broker took back after it had told of them: which ones, of all that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from pricecache.core.broker.data import BrokerTransaction, Cancellation

MOST = 1000
"""Cancellations that are kept, the latest ones; their rows may be told of years later, by another payload."""
CANCELLED = "cancelled_row"
NOTHING_CANCELLED = "nothing_cancelled"
NOTHING_HERE = "what this row cancels is not here"
_TRADES = frozenset({"buy", "sell", "short", "cover", "reinvestment"})
_WORTH_ONLY = frozenset({"transfer", "split", "spin_off", "stock_distribution", "adjustment"})
"""Their rows move no cash; the amount that a broker states of them is what the shares are worth."""


def bounded(words: Iterable[Cancellation]) -> tuple[Cancellation, ...]:
    """As many of `words` as are kept, by day. Pure."""
    return tuple(sorted(words, key=attrgetter("day"))[-MOST:])


def settled(words: Iterable[Cancellation], rows: Sequence[BrokerTransaction]) -> tuple[list[Cancellation], set[str]]:
    """`words` with the ids of what they cancel, as far as that is among `rows`; and the ids of those rows. Pure."""
    known = {row.id for row in rows}
    gone: set[str] = set()
    found = []
    for word in sorted(words, key=lambda one: one.cancels is None):
        row = _alike(word, rows, gone) if word.cancels is None else None
        if row is not None:
            word = replace(word, cancels=_of_broker(row.id, word))
        names = {name for name in _names(word) if name in known}
        gone |= names
        found.append(replace(word, is_found=True) if names else word)
    return found, gone


def as_known(before: Cancellation | None, word: Cancellation) -> Cancellation:
    """`word`, with what it cancels as it is known `before`."""
    if before is None or not before.is_found or word.is_found:
        return word
    return replace(word, cancels=before.cancels, is_found=True)


def _names(word: Cancellation) -> tuple[str, ...]:
    return () if word.cancels is None else (word.cancels, *(f"{word.cancels}/{part}" for part in word.parts))


def _of_broker(name: str, word: Cancellation) -> str:
    """The id of the broker's row that the row called `name` is made of."""
    whole, _, part = name.rpartition("/")
    return whole if whole and part in word.parts else name


def _alike(word: Cancellation, rows: Sequence[BrokerTransaction], gone: set[str]) -> BrokerTransaction | None:
    """The latest one up to its day with the opposite quantity and cash, else the latest with the same ones; of trades,
    whose signs may have been corrected, else that of the same size."""
    near = [row for row in rows if _is_of(row, word) and row.id not in gone]
    near.sort(key=attrgetter("day", "place"))
    for sign in (-1, 1):
        for row in reversed(near):
            if _says(row, word, sign):
                return row
    return next((row for row in reversed(near) if row.action in _TRADES and _is_as_large(row, word)), None)


def _is_of(row: BrokerTransaction, word: Cancellation) -> bool:
    facts = row.account, row.security, row.currency
    return facts == (word.account, word.security, word.currency) and row.day <= word.day


def _is_as_large(row: BrokerTransaction, word: Cancellation) -> bool:
    return abs(row.quantity) == abs(word.quantity) and abs(word.cash) in (abs(row.cash), abs(row.cash + row.fees))


def _says(row: BrokerTransaction, word: Cancellation, sign: int) -> bool:
    """Whether it moves what is cancelled; of rows of income the quantity says nothing."""
    quantity, cash = sign * word.quantity, sign * word.cash
    if row.quantity and row.quantity != quantity:
        return False
    if row.cash:
        return cash in (row.cash, row.cash + row.fees)
    return bool(row.quantity) and (not cash or row.action in _WORTH_ONLY)
