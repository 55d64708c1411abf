"""Options that a broker counts in contracts, counted in options whenever it was that this could be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from pricecache.core.broker.data import (
    BrokerData,
    BrokerHolding,
    BrokerSecurity,
    BrokerTransaction,
    Cancellation,
    Waypoint,
)


def in_same_units(one: BrokerData, other: BrokerData) -> tuple[BrokerData, BrokerData]:
    """Both with the options of each that only the other one shows to be counted in contracts made of them: what has
    neither price nor worth, as the row of an expiry, does not show it. Pure."""
    return _as_in(one, other.securities), _as_in(other, one.securities)


def _as_in(data: BrokerData, known: Mapping[str, BrokerSecurity]) -> BrokerData:
    in_one: dict[str | None, int] = {}
    for name, security in data.securities.items():
        told = known[name].option if name in known else None
        if security.option is not None and security.option.in_one is None and told is not None and told.in_one:
            in_one[name] = told.in_one
    if not in_one:
        return data
    return replace(
        data,
        securities={
            name: one if one.option is None or name not in in_one else _told(one, in_one[name])
            for name, one in data.securities.items()
        },
        holdings=tuple(_holding(one, in_one.get(one.security, 1)) for one in data.holdings),
        transactions=tuple(_row(one, in_one.get(one.security, 1)) for one in data.transactions),
        waypoints=tuple(_waypoint(one, in_one.get(one.security, 1)) for one in data.waypoints),
        cancellations=tuple(_cancellation(one, in_one.get(one.security, 1)) for one in data.cancellations),
    )


def _told(security: BrokerSecurity, in_one: int) -> BrokerSecurity:
    assert security.option is not None
    return replace(security, option=replace(security.option, in_one=in_one))


def _holding(one: BrokerHolding, in_one: int) -> BrokerHolding:
    return one if in_one == 1 else replace(one, quantity=one.quantity * in_one, price=_each(one.price, in_one))


def _row(one: BrokerTransaction, in_one: int) -> BrokerTransaction:
    if in_one == 1 or not one.quantity:
        return one
    price = _each(one.price, in_one) if one.cash else one.price  # made of the cash, or that of one option
    return replace(one, quantity=one.quantity * in_one, price=price)


def _waypoint(one: Waypoint, in_one: int) -> Waypoint:
    if in_one == 1:
        return one
    late = tuple((day, quantity * in_one) for day, quantity in one.late)
    return replace(one, quantity=one.quantity * in_one, late=late)


def _cancellation(one: Cancellation, in_one: int) -> Cancellation:
    return one if in_one == 1 else replace(one, quantity=one.quantity * in_one)


def _each(price: Decimal | None, in_one: int) -> Decimal | None:
    return None if price is None else price / in_one
