"""What counts as money since later prices showed it to be a sweep fund: held as money then, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pricecache.core.broker.data import ZERO, BrokerData, BrokerSecurity, Waypoint
from pricecache.core.currencies import major, unit


def with_sweeps_as_money(data: BrokerData, securities: Mapping[str, BrokerSecurity]) -> BrokerData:
    """`data` with what is held of those of `securities` that are money, and earlier balances of them, as money.
    Pure."""
    sweeps = {name: one.currency for name, one in securities.items() if one.is_money}
    named = {one.security for part in (data.holdings, data.waypoints) for one in part}
    if named.isdisjoint(sweeps):
        return data
    money = dict(data.money)
    for one in data.holdings:
        if one.security in sweeps:
            currency = sweeps[one.security]
            key = one.account, major(currency)
            money[key] = money.get(key, ZERO) + one.quantity * unit(currency)
    return replace(
        data,
        holdings=tuple(one for one in data.holdings if one.security not in sweeps),
        money=money,
        waypoints=tuple(_added(data.waypoints, sweeps)),
    )


def _added(points: Iterable[Waypoint], sweeps: Mapping[str, str]) -> Iterator[Waypoint]:
    """Those of money of one day and purse as one. The rows that came after one of a sweep moved no money."""
    purses: dict[tuple[int, str, str], Waypoint] = {}
    for one in points:
        currency = one.currency if one.security is None else sweeps.get(one.security)
        if currency is None:
            yield one
            continue
        quantity, late = one.quantity * unit(currency), one.late if one.security is None else ()
        point = Waypoint(one.day, one.account, quantity, currency=major(currency), late=late)
        key = one.day, one.account, major(currency)
        other = purses.get(key)
        if other is not None:
            point = replace(point, quantity=quantity + other.quantity, late=other.late or late)
        purses[key] = point
    yield from purses.values()
