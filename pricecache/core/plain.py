"""A short way for rows with nothing special about them, which most are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Rules, Transaction
from pricecache.core.lots import Lot, make
from pricecache.core.steps import DIVIDEND, KIND_SHIFT, ORIGINAL, PROCEEDS, Position, Steps

_PROCEEDS, _ORIGINAL, _DIVIDEND = (kind << KIND_SHIFT for kind in (PROCEEDS, ORIGINAL, DIVIDEND))

Way = Callable[[Transaction], None]
ShortWay = Callable[[Transaction, int, Decimal, float, float], None]
"""The row, and what `ledger.Plain` has of it: its place, amount, money and shares."""
Known = list[Position | None]
Opened = Callable[[Transaction, int], Position]


def short_ways(
    rules: Rules,
    places: int,
    position: Callable[[str, Instrument | None], Position],
    steps: Steps,
    ways: Mapping[str, Way],
) -> dict[str, ShortWay]:
    """For plain rows without cash and pools: the same as `ways` with all else left out and every name looked up
    beforehand. What turns out to be not plain (a position that owes something, or has no price) goes the long way.

    `places`: how many numbers of places there are. `position`: gives that of an account and instrument.
    """
    known: Known = [None] * places

    def opened(row: Transaction, place: int) -> Position:
        found = known[place] = position(row.account, row.instrument)
        return found

    at = 0 if rules.cost_basis == "fifo" else -1
    is_hifo = rules.cost_basis == "hifo"
    return {
        "buy": _long(ways["buy"]) if is_hifo else _buying(known, opened, steps, ways["buy"]),
        "sell": _selling(known, opened, steps, ways["sell"], at),
        "dividend": _receiving(known, opened, steps, ways["dividend"]),
    }


def _long(way: Way) -> ShortWay:
    return lambda row, place, amount, money, shares: way(row)


def _buying(known: Known, opened: Opened, steps: Steps, long: Way) -> ShortWay:
    put_code, put_amount, put_float = steps.codes.append, steps.amounts.append, steps.floats.append
    put_quantity_code, put_quantity = steps.quantity_codes.append, steps.quantities.append

    def buy(row: Transaction, place: int, cost: Decimal, money: float, shares: float) -> None:
        position, day = known[place] or opened(row, place), row.day
        if day < position.plain_from:
            return long(row)
        quantity = row.quantity
        position.quantity = held = position.quantity + quantity  # type: ignore[operator]
        position.shares = holds = position.shares + shares
        position.lots.append(make(Lot, (quantity, cost, cost, day, row.id)))
        code = position.code + day  # of the kind BOUGHT, which is 0
        put_code(code)
        put_amount(cost)
        put_float(money)
        put_quantity_code(code)
        return put_quantity(holds if holds == holds else float(held))

    return buy


def _selling(known: Known, opened: Opened, steps: Steps, long: Way, at: int) -> ShortWay:
    put_code, put_amount, put_float = steps.codes.append, steps.amounts.append, steps.floats.append
    put_quantity_code, put_quantity = steps.quantity_codes.append, steps.quantities.append

    def sell(row: Transaction, place: int, proceeds: Decimal, money: float, shares: float) -> None:
        position, day = known[place] or opened(row, place), row.day
        if day < position.plain_from or position.quantity < row.quantity:  # type: ignore[operator]
            return long(row)
        quantity = row.quantity
        position.quantity = held = position.quantity - quantity  # type: ignore[operator]
        position.shares = holds = position.shares - shares
        original = _taken(position.lots, quantity, at)  # type: ignore[arg-type]
        code = position.code + day
        put_code(code + _PROCEEDS)
        put_amount(proceeds)
        put_float(money)
        put_code(code + _ORIGINAL)
        put_amount(original)
        put_float(float(original))
        put_quantity_code(code)
        return put_quantity(holds if holds == holds else float(held))

    return sell


def _receiving(known: Known, opened: Opened, steps: Steps, long: Way) -> ShortWay:
    put_code, put_amount, put_float = steps.codes.append, steps.amounts.append, steps.floats.append

    def receive(row: Transaction, place: int, amount: Decimal, money: float, shares: float) -> None:
        position, day = known[place] or opened(row, place), row.day
        if day < position.plain_from:
            return long(row)
        put_code(position.code + day + _DIVIDEND)
        put_amount(amount)
        return put_float(money)

    return receive


def _taken(lots: list[Lot], left: Decimal, at: int) -> Decimal:
    """What `left` shares from the end `at` of `lots` (0 or -1) cost; they are taken out."""
    original = ZERO
    while left:
        held, cost, local, day, name = lots[at]
        if held > left:
            part = cost * left / held
            rest = cost - part
            rest_local = rest if local is cost else local - local * left / held
            lots[at] = make(Lot, (held - left, rest, rest_local, day, name))
            return original + part
        original += cost
        left -= held
        del lots[at]
    return original
