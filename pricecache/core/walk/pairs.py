"""Rows of a broker's that belong together: both sides of a transfer, a dividend and what it bought, an exchange."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.walk.cash_mergers import cash_mergers
from pricecache.core.walk.changed_ids import APART_DAYS, ChangedId, changed_ids
from pricecache.core.walk.exchanges import Exchanged, exchanges, paid_for
from pricecache.core.walk.in_lieu import DAYS as IN_LIEU_DAYS
from pricecache.core.walk.in_lieu import Delay, FractionsPaid, delay_of, is_called_so
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow, Key, Placed

_LATE_DAYS = 10
"""A dividend may be reinvested so late where the amounts are equal."""
_NEAR = Decimal("0.05")
_NEAR_SHARE = Decimal("0.02")
_SPLITS = frozenset({"split", "stock_distribution"})
_BRINGS_FRACTIONS = frozenset({"merger", "spin_off"})
_GOES = frozenset({"sell", "adjustment", "merger", "spin_off"})
"""What a row without money may be by which a fraction goes."""


class SplitRows(NamedTuple):
    """What a broker says of one split in one account, in one row or several. `quantity`: shares that came with it, or
    went; 0 where it does not say. `ratio`: where it states it."""

    day: int
    quantity: Decimal
    cash: Decimal
    currency: str
    ratio: Decimal | None
    sources: tuple[int, ...]


@dataclass(slots=True)
class Pairs:
    """By place in the rows. `moved`: the row that shares or money left by, to (the row they came by, the day).
    `in_parts`: one that they left by and that several came by, to all of these. `funded`: a reinvestment, to the
    dividend it was made of, of several the largest. `from_cash`: reinvestments that the dividend of another security
    paid for. `exchanged`: a row of a merger, or of a fraction, to what its shares were sold or bought for. `splits`: by
    account and instrument. `taken`: rows that are told by another one. `renamed`: both sides of what only got another
    id. `delays`: of cash that came later."""

    moved: dict[int, tuple[int, int]] = field(default_factory=dict)
    in_parts: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    funded: dict[int, int] = field(default_factory=dict)
    from_cash: set[int] = field(default_factory=set)
    exchanged: dict[int, Exchanged] = field(default_factory=dict)
    splits: dict[Key, list[SplitRows]] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    renamed: set[int] = field(default_factory=set)
    delays: list[Delay] = field(default_factory=list)

    def has(self, source: int) -> bool:
        """Whether the row at `source` is told by another one, or moves nothing."""
        return source in self.taken or source in self.renamed

    def is_alone(self, source: int) -> bool:
        """Whether the row at `source` may be left out without another one losing its meaning."""
        paired = any(source in one for one in (self.moved, self.in_parts, self.funded, self.from_cash, self.exchanged))
        return not paired and source not in self.taken and source not in self.renamed


def pairs_of(rows: Sequence[BrokerRow], prices: BrokerPrices, left_out: frozenset[int] = frozenset()) -> Pairs:
    """Everything of `rows`, which are in order of day, that is told by more than one of them."""
    found = Pairs()
    live = [(i, one) for i, one in enumerate(rows) if i not in left_out]
    for one in changed_ids(live, prices):
        _change(found, one)
    _split_rows(live, found, prices)
    _exchanges(live, found, prices)
    _fractions(live, found, prices)
    _mergers_for_cash(live, found, prices)
    _transfers(rows, live, found, prices)
    _reinvestments(live, found)
    return found


# splits: several rows of a day, or another id for the same instrument


def _change(found: Pairs, one: ChangedId) -> None:
    if one.is_split:
        _group(found, one.key, one.day, one.members)
    else:
        found.renamed.update(i for i, _ in one.members)


def _split_rows(live: Sequence[Placed], found: Pairs, prices: BrokerPrices) -> None:
    grouped: dict[tuple[str, Instrument, int], list[Placed]] = defaultdict(list)
    for i, one in live:
        is_split = one.row.action in _SPLITS or _is_called_income(one, prices)
        if one.instrument is not None and is_split and not found.has(i):
            grouped[one.account, one.instrument, one.row.day].append((i, one))
    for (account, instrument, day), members in grouped.items():
        _group(found, (account, instrument), day, members)


def _is_called_income(one: BrokerRow, prices: BrokerPrices) -> bool:
    """A split that the broker calls a dividend in shares."""
    if one.instrument is None or one.row.action != "dividend" or one.quantity <= 0 or one.cash:
        return False
    day = one.row.day
    return prices.is_split(one.instrument, day - APART_DAYS, day + APART_DAYS)


def _group(found: Pairs, key: Key, day: int, members: Sequence[Placed]) -> None:
    ratios = [one.row.ratio for _, one in members if one.row.ratio]
    sources = tuple(i for i, _ in members)
    quantity = sum((one.quantity for _, one in members), ZERO)
    cash = sum((one.cash for _, one in members), ZERO)
    told = SplitRows(day, quantity, cash, members[0][1].row.currency, ratios[0] if ratios else None, sources)
    found.splits.setdefault(key, []).append(told)
    found.taken.update(sources)


# exchanges


def _exchanges(live: Sequence[Placed], found: Pairs, prices: BrokerPrices) -> None:
    grouped: dict[tuple[str, int], list[Placed]] = defaultdict(list)
    days = {(one.account, one.row.day) for _, one in live if one.row.action == "merger"}
    for i, one in live if days else ():
        if (one.account, one.row.day) in days and not found.has(i):
            grouped[one.account, one.row.day].append((i, one))
    later = [one for one in live if is_called_so(one[1])] if days else []
    for (account, day), members in grouped.items():
        rest = _without_same(found, account, day, members)
        since = [one for one in later if one[1].account == account and day < one[1].row.day <= day + IN_LIEU_DAYS]
        for exchange in exchanges([*rest, *(one for one in since if one[0] not in found.taken)], prices):
            found.exchanged.update(exchange.by_row)
            found.taken.update(exchange.paid)
            found.delays += [delay_of(one, day) for i, one in since if i in exchange.paid]


def _without_same(found: Pairs, account: str, day: int, members: Sequence[Placed]) -> list[Placed]:
    """What is exchanged for itself is a split, or has another id only."""
    same: dict[Instrument, list[Placed]] = defaultdict(list)
    for i, one in members:
        if one.row.action == "merger" and one.instrument is not None and one.quantity:
            same[one.instrument].append((i, one))
    told: set[int] = set()
    for instrument, rows in same.items():
        signs = {one.quantity > 0 for _, one in rows}
        quantity, cash = sum(one.quantity for _, one in rows), sum(one.cash for _, one in rows)
        if len(signs) == 2 and (quantity or not cash):
            told.update(i for i, _ in rows)
            if quantity:
                _group(found, (account, instrument), day, rows)
            else:
                found.renamed.update(i for i, _ in rows)
    return [one for one in members if one[0] not in told]


# fractions of shares that go in one row and are paid in another


def _fractions(live: Sequence[Placed], found: Pairs, prices: BrokerPrices) -> None:
    left = [(i, one) for i, one in live if _is_fraction(one) and i not in found.exchanged and i not in found.renamed]
    if not left:
        return
    made: dict[Key, list[int]] = defaultdict(list)
    for _, one in live:
        is_left = one.row.action in _SPLITS or (one.row.action in _BRINGS_FRACTIONS and one.quantity > 0)
        if one.instrument is not None and is_left:
            made[one.account, one.instrument].append(one.row.day)
    paying = FractionsPaid([one for one in live if one[0] not in found.taken], prices)
    for i, one in left:
        assert one.instrument is not None
        key = one.account, one.instrument
        since = one.row.day - IN_LIEU_DAYS
        is_known = any(since <= day <= one.row.day for day in made[key])
        if is_known or prices.is_split(one.instrument, since, one.row.day):
            cash = paying.take(key, one.row.day, -one.quantity)
            if cash is not None:
                found.exchanged[i] = paid_for(cash)
    found.taken |= paying.used
    found.delays += paying.delays


def _is_fraction(one: BrokerRow) -> bool:
    return one.instrument is not None and -1 < one.quantity < 0 and not one.cash and one.row.action in _GOES


# mergers for cash alone


def _mergers_for_cash(live: Sequence[Placed], found: Pairs, prices: BrokerPrices) -> None:
    told = found.taken | found.renamed | found.exchanged.keys()
    for one in cash_mergers([one for one in live if one[0] not in told], APART_DAYS, prices):
        found.exchanged.update(one.sold)
        found.taken.update(one.paid)
        found.delays += one.delays


# transfers between accounts of the ledger


def _transfers(rows: Sequence[BrokerRow], live: Sequence[Placed], found: Pairs, prices: BrokerPrices) -> None:
    days = _days_of(live)
    into: dict[tuple[object, Decimal], list[int]] = defaultdict(list)
    sides = [(i, one) for i, one in live if i not in found.exchanged and not found.has(i) and _may_be_moved(one)]
    for i, one in sides:
        if _size(one) > 0:
            into[_what(one), _size(one)].append(i)
    for i, one in sides:
        if _size(one) < 0 and (near := _near(rows, one, into.get((_what(one), -_size(one)), ()))):
            _match(rows, i, near, found, days, prices)
    _in_parts(sides, found, days, prices)


def _in_parts(sides: Sequence[Placed], found: Pairs, days: Mapping[Key, Sequence[int]], prices: BrokerPrices) -> None:
    """What leaves at once and comes to another account by several rows, which are all that came there then."""
    told = found.moved.keys() | found.taken | found.renamed
    free = [(i, one) for i, one in sides if i not in told and one.row.action == "transfer"]
    came: dict[tuple[str, object], list[Placed]] = defaultdict(list)
    for i, one in free:
        if _size(one) > 0:
            came[one.account, _what(one)].append((i, one))
    for i, one in free if came else ():
        if _size(one) > 0:
            continue
        for (account, what), some in came.items():
            if account == one.account or what != _what(one):
                continue
            near = [other for other in some if abs(other[1].row.day - one.row.day) <= APART_DAYS]
            parts = [(j, _day_of_move(one, other, days)) for j, other in near if j not in found.taken]
            is_whole = sum((_size(other) for j, other in near if j not in found.taken), ZERO) == -_size(one)
            known = [(j, day) for j, day in parts if day is not None]
            is_same = all(_is_in_same_units(one, other, prices) for _, other in near)
            if is_whole and is_same and len(known) == len(parts):
                found.in_parts[i] = known
                found.taken.update(j for j, _ in known)
                break


def _near(rows: Sequence[BrokerRow], one: BrokerRow, candidates: Sequence[int]) -> list[int]:
    day = one.row.day
    low = bisect_left(candidates, day - APART_DAYS, key=lambda j: rows[j].row.day)
    high = bisect_right(candidates, day + APART_DAYS, key=lambda j: rows[j].row.day)
    return sorted(candidates[low:high], key=lambda j: (abs(rows[j].row.day - day), j))


def _match(
    rows: Sequence[BrokerRow],
    i: int,
    near: Sequence[int],
    found: Pairs,
    days: Mapping[Key, Sequence[int]],
    prices: BrokerPrices,
) -> None:
    one = rows[i]
    for j in near:
        other = rows[j]
        if j in found.taken or j in found.renamed or not _is_in_same_units(one, other, prices):
            continue
        if one.account == other.account:
            if _is_renamed(one, other):
                found.renamed.update((i, j))
                return
        elif "transfer" in (one.row.action, other.row.action):
            day = _day_of_move(one, other, days)
            if day is not None:
                found.moved[i] = (j, day)
                found.taken.add(j)
                return


def _is_in_same_units(one: BrokerRow, other: BrokerRow, prices: BrokerPrices) -> bool:
    low, high = sorted((one.row.day, other.row.day))
    return one.instrument is None or low == high or not prices.is_split(one.instrument, low, high)


def _is_renamed(one: BrokerRow, other: BrokerRow) -> bool:
    """Whether the broker only gave the same thing another id."""
    return one.instrument is not None and one.row.day == other.row.day and one.row.security != other.row.security


def _may_be_moved(one: BrokerRow) -> bool:
    if one.row.fees or one.row.taxes:
        return False
    if one.quantity and one.instrument is not None:
        return one.row.action == "transfer" and not one.cash
    return one.row.action in ("transfer", "cash") and one.instrument is None and bool(one.cash)


def _what(one: BrokerRow) -> object:
    return one.instrument or one.row.currency


def _size(one: BrokerRow) -> Decimal:
    return one.quantity if one.instrument is not None else one.cash


def _days_of(live: Sequence[Placed]) -> dict[Key, list[int]]:
    days: dict[Key, list[int]] = defaultdict(list)
    for _, one in live:
        if one.instrument is not None:
            days[one.account, one.instrument].append(one.row.day)
    return days


def _day_of_move(out: BrokerRow, into: BrokerRow, days: Mapping[Key, Sequence[int]]) -> int | None:
    """A day on which the one account still has it and the other does not need it yet."""
    if out.instrument is None or out.row.day <= into.row.day:
        return min(out.row.day, into.row.day)
    if _is_quiet(days[out.account, out.instrument], into.row.day, out.row.day):
        return into.row.day
    if _is_quiet(days[into.account, out.instrument], into.row.day, out.row.day):
        return out.row.day
    return None


def _is_quiet(days: Sequence[int], low: int, high: int) -> bool:
    return bisect_right(days, high) - bisect_left(days, low) == 1


# dividends and what they bought


class _Pot:
    __slots__ = ("currency", "day", "left", "source")

    def __init__(self, source: int, one: BrokerRow) -> None:
        self.source, self.day, self.currency, self.left = source, one.row.day, one.row.currency, one.cash


def _reinvestments(live: Sequence[Placed], found: Pairs) -> None:
    pots: dict[Key, list[_Pot]] = defaultdict(list)
    bought = []
    for i, one in live:
        if one.instrument is None or i in found.taken:
            continue
        if one.row.action == "reinvestment" and one.quantity > 0:
            bought.append((i, one))
        elif one.row.action in ("dividend", "return_of_capital", "interest") and one.cash > 0 and not one.quantity:
            pots[one.account, one.instrument].append(_Pot(i, one))
    left = []
    for i, one in bought:
        assert one.instrument is not None
        pot = _fitting(pots.get((one.account, one.instrument), ()), one)
        if pot is not None:
            pot.left -= spent(one)
            found.funded[i] = pot.source
        else:
            left.append((i, one))
    for i, one in left:
        _paid_by_several(i, one, pots, found)


def _paid_by_several(i: int, one: BrokerRow, pots: Mapping[Key, Sequence[_Pot]], found: Pairs) -> None:
    """By several dividends, by half at least of them and by cash, or by the dividend of another security."""
    cost = spent(one)
    if cost <= 0 or one.instrument is None:
        return
    own = pots.get((one.account, one.instrument), ())
    near = (
        _near_pots(own, one) or [pot for pot in _near_pots(own, one, _LATE_DAYS) if abs(pot.left - cost) <= _NEAR][:1]
    )
    total = sum((pot.left for pot in near), ZERO)
    if near and total >= cost / 2:
        found.funded[i] = max(near, key=lambda pot: pot.left).source
        rest = cost
        for pot in near:
            part = min(pot.left, rest)
            pot.left, rest = pot.left - part, rest - part
    elif not near:
        others = [pot for key, some in pots.items() if key[0] == one.account for pot in _near_pots(some, one)]
        same = [pot for pot in others if abs(pot.left - cost) <= _NEAR]
        if len(same) == 1:
            same[0].left = ZERO
            found.from_cash.add(i)


def _near_pots(pots: Sequence[_Pot], one: BrokerRow, before: int = APART_DAYS) -> list[_Pot]:
    """Those with something left, of at most `before` days before."""
    low = bisect_left(pots, one.row.day - before, key=lambda pot: pot.day)
    high = bisect_right(pots, one.row.day + APART_DAYS, key=lambda pot: pot.day)
    return [pot for pot in pots[low:high] if pot.currency == one.row.currency and pot.left > 0]


def spent(one: BrokerRow) -> Decimal:
    """What a reinvestment cost, where the row says it."""
    return -one.cash if one.cash else (one.row.price or ZERO) * one.quantity


def _fitting(pots: Sequence[_Pot], one: BrokerRow) -> _Pot | None:
    cost = spent(one)
    if cost <= 0:
        return None
    slack = max(_NEAR, cost * _NEAR_SHARE)
    least = max(cost - slack, cost / 2)
    near = [pot for pot in _near_pots(pots, one) if pot.left >= least]
    return min(near, key=lambda pot: (abs(pot.left - cost), abs(pot.day - one.row.day)), default=None)
