"""What a broker said at several times as one: the later word counts, and what was held earlier stays as waypoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pricecache.core.bars import day_of
from pricecache.core.broker import BrokerData, BrokerTransaction, Waypoint
from pricecache.core.option_units import in_same_units

DAYS_KEPT = 10
"""Days before the last for which every waypoint is kept; before those, the last one of each month."""

_Key = tuple[str, str | None, str]


def merged(before: BrokerData, after: BrokerData) -> BrokerData:
    """`after` with what `before` alone knows: rows of days before those that `after` has every row of, rows of accounts
    that it does not have, and what was held. Pure; of two it is the later `day` whose holdings stand, whichever is
    given first, and of the same day `after`."""
    if after.day < before.day:
        before, after = after, before
    before, after = in_same_units(before, after)
    return BrokerData(
        day=after.day,
        first_day=min(before.first_day, after.first_day),
        accounts={**before.accounts, **after.accounts},
        securities={**before.securities, **after.securities},
        holdings=after.holdings,
        money=after.money,
        transactions=_rows(before, after),
        waypoints=_waypoints(before, after),
        remarks=after.remarks,
    )


def _rows(before: BrokerData, after: BrokerData) -> tuple[BrokerTransaction, ...]:
    replaced = {row.id for row in after.transactions}
    kept = (
        row
        for row in before.transactions
        if row.id not in replaced and (row.day < after.first_day or row.account not in after.accounts)
    )
    rows = sorted((*kept, *after.transactions), key=lambda row: row.day)
    return tuple(row if row.place == place else replace(row, place=place) for place, row in enumerate(rows))


def _waypoints(before: BrokerData, after: BrokerData) -> tuple[Waypoint, ...]:
    held = _held(before) if before.day < after.day else ()
    found = {(one.day, _key(one)): one for one in (*before.waypoints, *held, *after.waypoints)}
    last: dict[tuple[_Key, int, int], int] = {}
    for day, key in found:
        month = (key, *_month(day))
        last[month] = max(day, last.get(month, day))
    kept = (one for (day, key), one in found.items() if day >= after.day - DAYS_KEPT or last[key, *_month(day)] == day)
    return tuple(sorted(kept, key=lambda one: one.day))


def _held(data: BrokerData) -> Iterator[Waypoint]:
    for one in data.holdings:
        yield Waypoint(data.day, one.account, one.quantity, one.security, one.currency, one.price)
    for (account, currency), amount in data.money.items():
        yield Waypoint(data.day, account, amount, currency=currency)


def _key(one: Waypoint) -> _Key:
    return one.account, one.security, "" if one.security is not None else one.currency


def _month(day: int) -> tuple[int, int]:
    date = day_of(day)
    return date.year, date.month
