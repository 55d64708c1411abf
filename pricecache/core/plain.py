"""A short way for rows with nothing special about them, which most are: half the time of the whole exact pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from pricecache.core.ledger import ZERO, Rules, Transaction
from pricecache.core.lots import Lot, make
from pricecache.core.scopes import Key
from pricecache.core.steps import DIVIDEND, KIND_SHIFT, ORIGINAL, PROCEEDS, Position, Steps

_PROCEEDS, _ORIGINAL, _DIVIDEND = (kind << KIND_SHIFT for kind in (PROCEEDS, ORIGINAL, DIVIDEND))

Way = Callable[[Transaction], None]
ShortWay = Callable[[Transaction, int, float, float], None]
"""The row, and what `ledger.Plain` has of it: its place, its money, its shares."""
Find = Callable[[Key], Position | None]


def short_ways(rules: Rules, find: Find, places: int, steps: Steps, ways: Mapping[str, Way]) -> dict[str, ShortWay]:
    """For plain rows without cash and pools: the same as `ways` with all else left out and every name looked up
    beforehand. What turns out to be not plain (a position that is new, owes something, has no price) goes the long way.
    """
    known: list[Position | None] = [None] * places
    long = {name: _long(ways[name], known, find) for name in ("buy", "sell", "dividend")}
    return {
        "buy": long["buy"] if rules.cost_basis == "hifo" else _buying(known, steps, long["buy"]),
        "sell": _selling(known, steps, long["sell"], 0 if rules.cost_basis == "fifo" else -1),
        "dividend": _receiving(known, steps, long["dividend"]),
    }


def _long(way: Way, known: list[Position | None], find: Find) -> ShortWay:
    """The long way, after which the position is known."""

    def go(row: Transaction, place: int, money: float, shares: float) -> None:
        way(row)
        known[place] = find((row.account, row.instrument))

    return go


def _buying(known: list[Position | None], steps: Steps, long: ShortWay) -> ShortWay:
    put_code, put_amount, put_float = steps.codes.append, steps.amounts.append, steps.floats.append
    put_quantity_code, put_quantity = steps.quantity_codes.append, steps.quantities.append

    def buy(row: Transaction, place: int, money: float, shares: float) -> None:
        position, day = known[place], row.day
        if position is None or day < position.plain_from:
            return long(row, place, money, shares)
        quantity = row.quantity
        cost = quantity * row.price  # type: ignore[operator]
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


def _selling(known: list[Position | None], steps: Steps, long: ShortWay, at: int) -> ShortWay:
    put_code, put_amount, put_float = steps.codes.append, steps.amounts.append, steps.floats.append
    put_quantity_code, put_quantity = steps.quantity_codes.append, steps.quantities.append

    def sell(row: Transaction, place: int, money: float, shares: float) -> None:
        position, day = known[place], row.day
        if position is None or day < position.plain_from or position.quantity < row.quantity:  # type: ignore[operator]
            return long(row, place, money, shares)
        quantity = row.quantity
        position.quantity = held = position.quantity - quantity  # type: ignore[operator]
        position.shares = holds = position.shares - shares
        original = _taken(position.lots, quantity, at)  # type: ignore[arg-type]
        code = position.code + day
        put_code(code + _PROCEEDS)
        put_amount(quantity * row.price)  # type: ignore[operator]
        put_float(money)
        put_code(code + _ORIGINAL)
        put_amount(original)
        put_float(float(original))
        put_quantity_code(code)
        return put_quantity(holds if holds == holds else float(held))

    return sell


def _receiving(known: list[Position | None], steps: Steps, long: ShortWay) -> ShortWay:
    put_code, put_amount, put_float = steps.codes.append, steps.amounts.append, steps.floats.append

    def receive(row: Transaction, place: int, money: float, shares: float) -> None:
        position, day = known[place], row.day
        if position is None or day < position.plain_from:
            return long(row, place, money, shares)
        put_code(position.code + day + _DIVIDEND)
        put_amount(row.amount)  # type: ignore[arg-type]
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
