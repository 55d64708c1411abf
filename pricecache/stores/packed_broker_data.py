"""What a broker said as bytes to keep: every Decimal to the digit, rows in columns, in pieces of a thousand.

A piece is the CRC-32 of the rest, then JSON, compressed. Pieces are small, so that no other thread waits for one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

import orjson

from pricecache.core.broker.data import (
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    Cancellation,
    OptionContract,
    Remark,
    Waypoint,
)
from pricecache.core.broker.windows import Window
from pricecache.errors import Corrupt

VERSION = 1
ROWS_IN_ONE = 1000
_CHECKSUM = 4
_DECIMALS: Mapping[type, frozenset[str]] = {
    BrokerAccount: frozenset({"balance"}),
    BrokerHolding: frozenset({"quantity", "price", "cost_basis"}),
    BrokerTransaction: frozenset({"quantity", "price", "cash", "fees", "taxes", "ratio"}),
    Waypoint: frozenset({"quantity", "price"}),
    Cancellation: frozenset({"quantity", "cash"}),
}
_KINDS: tuple[type, ...] = (
    BrokerAccount, BrokerSecurity, BrokerHolding, BrokerTransaction, Waypoint, Remark, Cancellation,
)  # fmt: skip
_Row = TypeVar("_Row")


def pack(data: BrokerData) -> list[bytes]:
    """Blocking."""
    head = {
        "version": VERSION,
        "day": data.day,
        "firstDay": data.first_day,
        "money": [[account, currency, str(amount)] for (account, currency), amount in data.money.items()],
    }
    parts: tuple[Iterable[Any], ...] = (
        data.accounts.values(), data.securities.values(), data.holdings, data.transactions, data.waypoints,
        data.remarks, data.cancellations,
    )  # fmt: skip
    pieces = [_piece(head)]
    for number, (kind, rows) in enumerate(zip(_KINDS, parts, strict=True)):
        pieces += [_piece([number, _columns(kind, some)]) for some in _in_parts(rows)]
    return pieces


def unpack(pieces: Iterable[bytes]) -> BrokerData:
    """The inverse. Blocking. Raises `Corrupt` when anything of it is damaged."""
    try:
        rest = map(_opened, pieces)
        head: dict[str, Any] = next(rest, {})
        if head["version"] != VERSION:
            raise Corrupt("What a broker said was stored by another version.")
        found: dict[int, list[Any]] = {number: [] for number in range(len(_KINDS))}
        for number, columns in rest:
            found[number].extend(_rows(_KINDS[number], columns))
        accounts, securities, holdings, transactions, waypoints, remarks, cancellations = found.values()
        return BrokerData(
            day=head["day"],
            first_day=head["firstDay"],
            accounts={one.id: one for one in accounts},
            securities={one.id: one for one in securities},
            holdings=tuple(holdings),
            money={(account, currency): Decimal(amount) for account, currency, amount in head["money"]},
            transactions=tuple(transactions),
            waypoints=tuple(waypoints),
            cancellations=tuple(cancellations),
            remarks=tuple(remarks),
        )
    except (ArithmeticError, LookupError, TypeError, ValueError, zlib.error) as exc:
        raise Corrupt("What a broker said cannot be read.") from exc


def _piece(value: Any) -> bytes:
    body = zlib.compress(orjson.dumps(value), 6)
    return zlib.crc32(body).to_bytes(_CHECKSUM, "big") + body


def _opened(piece: bytes) -> Any:
    body = piece[_CHECKSUM:]
    if zlib.crc32(body) != int.from_bytes(piece[:_CHECKSUM], "big"):
        raise Corrupt("What a broker said is damaged.")
    return orjson.loads(zlib.decompress(body))


def _in_parts(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    rest = iter(rows)
    while part := list(islice(rest, ROWS_IN_ONE)):
        yield part


def _columns(kind: type, rows: Sequence[Any]) -> dict[str, list[Any]]:
    decimals = _DECIMALS.get(kind, frozenset())
    columns = {}
    for name in (one.name for one in fields(kind)):
        values = [getattr(row, name) for row in rows]
        if name in decimals:
            values = [None if value is None else str(value) for value in values]
        elif name == "option":
            values = [None if value is None else _option_out(value) for value in values]
        elif name == "late":
            values = [[[day, str(quantity)] for day, quantity in value] for value in values]
        elif name == "windows":
            values = [[list(window) for window in value] for value in values]
        columns[name] = values
    return columns


def _rows(kind: type, columns: Mapping[str, list[Any]]) -> Iterator[Any]:
    decimals = _DECIMALS.get(kind, frozenset())
    names = [one.name for one in fields(kind) if one.name in columns]
    read: list[list[Any]] = []
    for name in names:
        values = columns[name]
        if name in decimals:
            values = [None if value is None else Decimal(value) for value in values]
        elif name == "option":
            values = [None if value is None else _option_in(*value) for value in values]
        elif name == "parts":
            values = [tuple(value) for value in values]
        elif name == "windows":
            values = [tuple(Window(*window) for window in value) for value in values]
        elif name == "late":
            values = [tuple((day, Decimal(quantity)) for day, quantity in value) for value in values]
        read.append(values)
    for row in zip(*read, strict=True):
        yield kind(**dict(zip(names, row, strict=True)))


def _option_out(option: OptionContract) -> list[Any]:
    return [option.right, option.expires, str(option.strike), option.underlying, option.in_one]


def _option_in(
    right: Any, expires: int, strike: str, underlying: str | None, in_one: int | None = None
) -> OptionContract:
    return OptionContract(right, expires, Decimal(strike), underlying, in_one)
