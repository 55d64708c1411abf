"""A checkpoint as bytes to keep: every Decimal to the digit, every float to the bit, a few bytes for each lot.

The frame is a magic, the engine's version, the CRC-32 of all the rest; then, compressed, columns as JSON (one text of
all quantities, one of all costs: alike things side by side are what a compressor makes little of), a zero byte, and the
days and ids of the lots as `planes`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import islice, repeat
from operator import is_
from struct import Struct, error
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.core import planes
from pricecache.core.book import Book, CashBalance, Factor, Held
from pricecache.core.instruments import Instrument
from pricecache.core.lots import Lot, make
from pricecache.core.scopes import Scope
from pricecache.core.splits import LedgerSplit
from pricecache.core.valuation import Mark
from pricecache.errors import Corrupt

_FRAME = Struct("<2sHI")
_MAGIC = b"CP"
_LEVEL, _STRATEGY = 4, zlib.Z_FILTERED  # level 6 takes a third longer for 3 % less
_AMOUNTS = ("quantity", "cost", "local", "proceeds", "original", "dividends", "fees", "interest")


def pack(engine: int, book: Book, marks: dict[Scope, Mark]) -> bytes:
    """`engine`: a version, 0 to 65535, which has to be the same to read it again."""
    lots, numbers = _lots_out(book.positions)
    plain = json.dumps([_book_out(book), lots, _marks_out(marks)], separators=(",", ":")).encode()
    body = _compressed(plain + b"\0", numbers)
    return _FRAME.pack(_MAGIC, engine, zlib.crc32(body, engine)) + body


def unpack(engine: int, packed: bytes) -> tuple[Book, dict[Scope, Mark]]:
    """The inverse. Raises `Corrupt` when anything of it is damaged or missing, or another engine wrote it."""
    try:
        magic, written_by, checksum = _FRAME.unpack_from(packed)
        body = packed[_FRAME.size :]
        if magic != _MAGIC or zlib.crc32(body, written_by) != checksum:
            raise Corrupt("A checkpoint of a history is damaged.")
        if written_by != engine:
            raise Corrupt("A checkpoint of another engine.")
        plain, _, numbers = zlib.decompress(body, -zlib.MAX_WBITS).partition(b"\0")
        book, lots, marks = json.loads(plain)
        return _book_in(_lots_in(numbers, *lots), *book), _marks_in(marks)
    except (ArithmeticError, LookupError, TypeError, ValueError, error, zlib.error) as exc:
        raise Corrupt("A checkpoint of a history cannot be read.") from exc


def _compressed(*parts: bytes) -> bytes:
    """Each part in blocks of its own: digits and numbers want different codes."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, _STRATEGY)
    *pieces, last = parts
    done = [deflate.compress(piece) + deflate.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return b"".join([*done, deflate.compress(last), deflate.flush()])


# the book


def _book_out(book: Book) -> list[Any]:
    return [
        book.day,
        _positions_out(book.positions),
        [[*instrument, is_long, str(cost), str(local)] for instrument, is_long, cost, local in book.pools],
        [[one.account, one.currency, str(one.amount)] for one in book.cash],
        [[*one.instrument, one.account, sorted(one.others), str(one.value)] for one in book.factors],
        [[row.day, *row.instrument, row.account, str(row.ratio)] for row in book.splits],
        list(book.doubts),
    ]


def _book_in(
    lots: Iterable[Lot], day: int, positions: list[Any], pools: Any, cash: Any, factors: Any, splits: Any, doubts: Any
) -> Book:
    return Book(
        day,
        _positions_in(positions, lots),
        tuple((Instrument(s, m), side, Decimal(c), Decimal(local)) for s, m, side, c, local in pools),
        tuple(CashBalance(account, currency, Decimal(amount)) for account, currency, amount in cash),
        tuple(Factor(Instrument(s, m), a, frozenset(o), Fraction(v)) for s, m, a, o, v in factors),
        tuple(LedgerSplit(day, Instrument(s, m), a, Fraction(ratio)) for day, s, m, a, ratio in splits),
        tuple(doubts),
    )


def _positions_out(positions: Sequence[Held]) -> list[Any]:
    return [
        [held.account for held in positions],
        [held.instrument and held.instrument.symbol for held in positions],
        [held.instrument and held.instrument.market for held in positions],
        [held.factor for held in positions],
        [len(held.lots) for held in positions],
        *(_joined(getattr(held, name) for held in positions) for name in _AMOUNTS),
    ]


def _positions_in(columns: list[Any], lots: Iterable[Lot]) -> tuple[Held, ...]:
    accounts, symbols, markets, factors, counts, *amounts = columns
    rows = zip(accounts, symbols, markets, factors, counts, *map(_decimals, amounts), strict=True)
    return tuple(
        Held(
            account, None if symbol is None else Instrument(symbol, market), quantity,
            tuple(islice(lots, count)), cost, local, factor, *totals,
        )
        for account, symbol, market, factor, count, quantity, cost, local, *totals in rows
    )  # fmt: skip


# the lots


def _lots_out(positions: Sequence[Held]) -> tuple[list[Any], bytes]:
    lots = [lot for held in positions for lot in held.lots]
    quantities, costs, locals_, days, ids = zip(*lots, strict=True) if lots else ((),) * 5
    paid = _joined(costs)
    own = paid if all(map(is_, costs, locals_)) else _joined(locals_)
    columns: list[Any] = [_joined(quantities), paid, None if own == paid else own]
    dates = np.array(days, np.int64)
    places, order = _by_day(dates, [len(held.lots) for held in positions])
    numbers = planes.out(places, planes.PLACES) + planes.steps_out(dates[order], planes.DAYS)
    named = [ids[i] for i in order.tolist()]
    alike = planes.ids_out(named)
    return ([*columns, named], numbers) if alike is None else ([*columns, None], numbers + alike)


def _by_day(days: NDArray[np.int64], counts: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The position of each lot, and the lots, by day: one after the other their days and ids differ least. As they are
    where a position has them in another order (HIFO), since a stable sort by position has to bring them back."""
    places = np.repeat(np.arange(len(counts)), counts)
    order = days.argsort(kind="stable")
    if not np.array_equal(order[places[order].argsort(kind="stable")], np.arange(len(days))):
        order = np.arange(len(days))
    return places[order], order


def _lots_in(numbers: bytes, quantities: str, costs: str, locals_: str | None, ids: list[str] | None) -> Iterable[Lot]:
    paid = list(_decimals(costs))
    own = paid if locals_ is None else _shared(paid, costs, locals_)
    first = len(paid) * planes.PLACES.itemsize
    second = first + len(paid) * planes.DAYS.itemsize
    order = planes.back(numbers[:first], planes.PLACES).argsort(kind="stable")
    days = planes.steps_back(numbers[first:second], planes.DAYS)[order].tolist()
    named = planes.ids_back(numbers[second:]) if ids is None else ids
    names = [named[i] for i in order.tolist()]
    return map(make, repeat(Lot), zip(_decimals(quantities), paid, own, days, names, strict=True))


def _shared(paid: list[Decimal], costs: str, locals_: str) -> list[Decimal]:
    """A lot whose local cost is its cost has one object for both, as `Lot.part` likes it."""
    pairs = zip(paid, costs.split(), locals_.split(), strict=True)
    return [cost if text == local else Decimal(local) for cost, text, local in pairs]


def _joined(amounts: Iterable[Decimal]) -> str:
    return " ".join(map(str, amounts))


def _decimals(joined: str) -> Iterable[Decimal]:
    return map(Decimal, joined.split())


# the floats


def _marks_out(marks: dict[Scope, Mark]) -> list[Any]:
    return [[*scope, mark.totals, mark.unknown, mark.worth, mark.index] for scope, mark in marks.items()]


def _marks_in(rows: list[Any]) -> dict[Scope, Mark]:
    return {
        (account, instrument and Instrument(*instrument)): Mark(tuple(totals), tuple(unknown), worth, index)
        for account, instrument, totals, unknown, worth, index in rows
    }
