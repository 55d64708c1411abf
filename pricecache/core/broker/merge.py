"""What a broker said at several times as one: the later word counts, and what was held earlier stays as waypoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import TypeVar

from pricecache.core.bars import day_of
from pricecache.core.broker.cancelled import CANCELLED, NOTHING_CANCELLED, NOTHING_HERE, as_known, bounded, settled
from pricecache.core.broker.data import (
    ZERO,
    BrokerAccount,
    BrokerData,
    BrokerHolding,
    BrokerTransaction,
    Cancellation,
    Remark,
    Waypoint,
)
from pricecache.core.broker.option_units import in_same_units
from pricecache.core.broker.sweeps import with_sweeps_as_money
from pricecache.core.broker.windows import UNTOLD, Window, known_since, told_of, united
from pricecache.core.currencies import major, unit

DAYS_KEPT = 10
"""Days before the last for which every waypoint is kept; before those, the last one of each month."""
LATE_DAYS_KEPT = 30
"""Days of late rows that a waypoint tells apart; those of earlier ones are one."""
NOT_TOLD = "account_not_told"

_Dated = TypeVar("_Dated", bound=BrokerTransaction | Cancellation)
_Key = tuple[str, str | None, str]
_MOVES = attrgetter("account", "day", "security", "quantity", "cash", "currency")
Late = Mapping[_Key, Mapping[int, Decimal]]


def merged(before: BrokerData, after: BrokerData) -> BrokerData:
    """`after` with what `before` alone knows: rows of days that `after` was not told of, and what was held, which of
    what came later is 0 where `before` listed something else of the account. Of an account that it says nothing of,
    everything stays as it was, `told_on` the day of `before`. Money that there was and that is listed no more is 0.
    What either cancels is not there, whichever of them tells of it.

    Pure; of two it is the later `day` whose holdings stand, whichever is given first, and of the same day `after`.
    """
    if after.day < before.day:
        before, after = after, before
    before, after = in_same_units(before, after)
    before = with_sweeps_as_money(before, {**before.securities, **after.securities})
    return _Joining(before, after).joined()


class _Joining:
    """Of two words: `after` is the later one, but which says the last of an account may be the other."""

    def __init__(self, before: BrokerData, after: BrokerData) -> None:
        self.before, self.after = before, after
        both = before.accounts.keys() & after.accounts.keys()
        self.again = {name for name in both if _told(before, name) <= _told(after, name)}
        self.late_again = both - self.again
        self.of_before = before.accounts.keys() - self.again
        self.told_before, self.told_after = _windows(before), _windows(after)
        words = self._words()
        self.cancellations, self.gone = settled(words, [*before.transactions, *after.transactions])
        self.found_before = {word.id for word in words if word.is_found}

    def joined(self) -> BrokerData:
        before, after = self.before, self.after
        first_day = min(before.first_day, after.first_day)
        accounts = {**before.accounts, **after.accounts}
        accounts |= {name: self._carried(name) for name in self.of_before}
        accounts = {name: self._with_windows(one, first_day) for name, one in accounts.items()}
        rows = self._rows()
        of_after = (one for one in after.holdings if one.account not in self.of_before)
        return BrokerData(
            day=after.day,
            first_day=first_day,
            accounts=accounts,
            securities={**before.securities, **after.securities},
            holdings=(*self._carried_holdings(), *of_after),
            money=self._money(),
            transactions=rows,
            waypoints=_kept(self._waypoints(rows), after.day),
            cancellations=bounded(self.cancellations),
            remarks=(*self._remarks(), *_not_told(accounts.values())),
        )

    def _carried(self, name: str) -> BrokerAccount:
        told = _told(self.before, name)
        return replace(self.before.accounts[name], told_on=told if told < self.after.day else None)

    def _with_windows(self, account: BrokerAccount, first_day: int) -> BrokerAccount:
        windows = united([*self.told_before.get(account.id, ()), *self.told_after.get(account.id, ())])
        told = self.after.day if account.told_on is None else account.told_on
        return replace(account, windows=() if windows == (Window(first_day, told, told),) else windows)

    def _carried_holdings(self) -> Iterator[BrokerHolding]:
        for one in self.before.holdings:
            if one.account in self.of_before:
                is_dated = one.price is None or one.price_day is not None
                yield one if is_dated else replace(one, price_day=_told(self.before, one.account))

    def _money(self) -> dict[tuple[str, str], Decimal]:
        """With nothing in each purse that was told of and is not: brokers list no holding of nothing."""
        old, new = self.before, self.after
        spent = [*_purses(old, self.again), *_purses(new, self.late_again)]
        money = {key: amount for key, amount in old.money.items() if key[0] in self.of_before}
        money |= {key: amount for key, amount in new.money.items() if key[0] not in self.of_before}
        return {**dict.fromkeys(spent, ZERO), **money}

    def _rows(self) -> tuple[BrokerTransaction, ...]:
        rows = self._standing(self.before.transactions, self.after.transactions)
        rows = [row for row in rows if row.id not in self.gone]
        rows.sort(key=attrgetter("day"))
        return tuple(row if row.place == place else replace(row, place=place) for place, row in enumerate(rows))

    def _standing(self, of_old: Sequence[_Dated], of_new: Sequence[_Dated]) -> list[_Dated]:
        """Of each day, what the word says that told of it last; of one day, the last word of the account. What both
        tell of counts as it was told last."""
        found: dict[str, tuple[tuple[int, bool], _Dated]] = {}
        for rows, own, others, is_old in (
            (of_old, self.told_before, self.told_after, True), (of_new, self.told_after, self.told_before, False),
        ):  # fmt: skip
            for one in rows:
                is_last = is_old == (one.account in self.of_before)
                rank = known_since(own[one.account], one.day), is_last
                other = told_of(others.get(one.account, ()), one.day)
                if other != UNTOLD and rank < (other, not is_last):
                    continue
                if one.id not in found or rank >= found[one.id][0]:
                    found[one.id] = rank, one
        return [one for _, one in found.values()]

    def _words(self) -> list[Cancellation]:
        """Of one day, both words count: neither says that there is no more than it says."""
        old, new = self.before.cancellations, self.after.cancellations
        if self.before.day == self.after.day:
            standing = list({one.id: one for one in (*old, *new)}.values())
        else:
            standing = self._standing(old, new)
        known = {one.id: one for one in (*new, *old) if one.is_found}
        return [as_known(known.get(one.id), one) for one in standing]

    def _remarks(self) -> Iterator[Remark]:
        again = {one.id for one in self.after.cancellations if not one.is_found}
        yield from (one for one in self.after.remarks if one.code not in (NOT_TOLD, NOTHING_CANCELLED))
        for word in self.cancellations:
            if not word.is_found:
                yield Remark(NOTHING_CANCELLED, word.path, NOTHING_HERE)
            elif word.id in again or word.id not in self.found_before:
                yield Remark(CANCELLED, word.path, f"cancels row {word.cancels}, which was told of at another time")

    def _waypoints(self, rows: Sequence[BrokerTransaction]) -> Iterator[Waypoint]:
        """Those of the last word come last: they count where two are of one day."""
        for earlier, later, names, told in (
            (self.before, self.after, self.again, self.told_before),
            (self.after, self.before, self.late_again, self.told_after),
        ):
            late = _late(earlier, rows, names, told)
            points = [one for one in earlier.waypoints if one.account in names]
            held = list(_held(earlier, later, names))
            for one in (*points, *held, *_nothing(earlier, later, names, held, late)):
                yield _with_late(one, late.get(_key(one), {}))
        for last, names, told in (
            (self.before, self.of_before, self.told_before),
            (self.after, self.after.accounts.keys() - self.of_before, self.told_after),
        ):
            late = _late(last, rows, names, told)
            for one in last.waypoints:
                if one.account in names:
                    yield _with_late(one, late.get(_key(one), {}))


def _told(data: BrokerData, account: str) -> int:
    """The day that all that `data` says of an account is of."""
    told = data.accounts[account].told_on
    return data.day if told is None else told


def _windows(data: BrokerData) -> dict[str, tuple[Window, ...]]:
    """By account."""
    return {
        name: one.windows or (Window(data.first_day, told := _told(data, name), told),)
        for name, one in data.accounts.items()
    }


def _not_told(accounts: Iterable[BrokerAccount]) -> Iterator[Remark]:
    for one in accounts:
        if one.told_on is not None:
            day = day_of(one.told_on).isoformat()
            yield Remark(NOT_TOLD, "accounts", f"nothing is said of {one.name}: it stands as of {day}")


def _purses(data: BrokerData, names: set[str]) -> Iterator[tuple[str, str]]:
    yield from (key for key in data.money if key[0] in names)
    for one in data.waypoints:
        if one.security is None and one.account in names:
            yield one.account, major(one.currency)


# earlier balances


def _held(data: BrokerData, later: BrokerData, names: Set[str]) -> Iterator[Waypoint]:
    earlier = {name for name in names if _told(data, name) < _told(later, name)}
    yield from (one for one in _held_by(data) if one.account in earlier)


def _nothing(
    earlier: BrokerData, later: BrokerData, names: Set[str], held: Sequence[Waypoint], late: Late
) -> Iterator[Waypoint]:
    """0 of what `earlier` did not list among what it held, and of what there was something before or after, or rows
    that came after it."""
    listed = {_key(one) for one in held}
    with_money = {one.account for one in held if one.security is None}
    around: dict[_Key, dict[int, Decimal]] = defaultdict(dict)
    for one in (*earlier.waypoints, *_held_by(later), *later.waypoints):
        around[_key(one)][one.day] = one.quantity
    days = {one.account: one.day for one in held}
    for key in {**around, **dict.fromkeys(late)}:
        account, security, currency = key
        is_told = account in (days if security is not None else with_money)
        if account in names and is_told and key not in listed:
            day = days[account]
            if key in late or any(_beside(around[key], day)):
                yield Waypoint(day, account, ZERO, security, currency or "USD")


def _beside(points: Mapping[int, Decimal], day: int) -> Iterator[Decimal]:
    """The balances next to `day`, on either side."""
    before = max((one for one in points if one < day), default=None)
    after = min((one for one in points if one > day), default=None)
    yield from (points[one] for one in (before, after) if one is not None)


def _held_by(data: BrokerData) -> Iterator[Waypoint]:
    """What it says is held."""
    for one in data.holdings:
        yield Waypoint(_told(data, one.account), one.account, one.quantity, one.security, one.currency, one.price)
    for (account, currency), amount in data.money.items():
        yield Waypoint(_told(data, account), account, amount, currency=currency)


def _late(
    earlier: BrokerData, standing: Iterable[BrokerTransaction], names: Set[str], told: Mapping[str, Sequence[Window]]
) -> Late:
    """What the rows that stand now move otherwise than those of `earlier` did on days that it had every row of, and
    what those of `earlier` moved that stand no more."""
    found: dict[_Key, dict[int, Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
    if not names:
        return found
    old = {row.id: row for row in earlier.transactions if row.account in names}
    new = {row.id: row for row in standing if row.account in names}
    for name, row in new.items():
        if told_of(told[row.account], row.day) != UNTOLD and not _is_same(row, old.get(name)):
            _move(found, row, 1)
    for name, row in old.items():
        if not _is_same(row, new.get(name)):
            _move(found, row, -1)
    return found


def _is_same(one: BrokerTransaction, other: BrokerTransaction | None) -> bool:
    return other is not None and _MOVES(one) == _MOVES(other)


def _move(found: dict[_Key, dict[int, Decimal]], row: BrokerTransaction, sign: int) -> None:
    if row.quantity and row.security is not None:
        found[row.account, row.security, ""][row.day] += sign * row.quantity
    if row.cash:
        found[row.account, None, major(row.currency)][row.day] += sign * row.cash * unit(row.currency)


def _with_late(point: Waypoint, late: Mapping[int, Decimal]) -> Waypoint:
    new = {day: quantity for day, quantity in late.items() if day <= point.day}
    if not new:
        return point
    days = defaultdict(lambda: ZERO, point.late)
    for day, quantity in new.items():
        days[day] += quantity
    moved = sorted((day, quantity) for day, quantity in days.items() if quantity)
    if len(moved) > LATE_DAYS_KEPT:
        first, moved = moved[: 1 - LATE_DAYS_KEPT], moved[1 - LATE_DAYS_KEPT :]
        moved.insert(0, (first[-1][0], sum((quantity for _, quantity in first), ZERO)))
    return replace(point, late=tuple(moved))


def _kept(points: Iterable[Waypoint], today: int) -> tuple[Waypoint, ...]:
    """And the last balance of nothing before the first of something: there was no more of it before."""
    found = {(one.day, _key(one)): one for one in points}
    last: dict[tuple[_Key, int, int], int] = {}
    empty: dict[_Key, int] = {}
    filled: set[_Key] = set()
    for day, key in sorted(found, key=itemgetter(0)):
        month = (key, *_month(day))
        last[month] = max(day, last.get(month, day))
        if found[day, key].quantity:
            filled.add(key)
        elif key not in filled:
            empty[key] = day
    kept = (
        one
        for (day, key), one in found.items()
        if day >= today - DAYS_KEPT or last[key, *_month(day)] == day or empty.get(key) == day
    )
    return tuple(sorted(kept, key=attrgetter("day")))


def _key(one: Waypoint) -> _Key:
    return one.account, one.security, "" if one.security is not None else major(one.currency)


def _month(day: int) -> tuple[int, int]:
    date = day_of(day)
    return date.year, date.month
