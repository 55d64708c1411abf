"""Mergers in a broker's rows: which shares went for which others and how much cash, and what each was worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.lots import fitted
from pricecache.core.walk.in_lieu import is_called_so
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow, Placed, worth_of

_PAID = frozenset({"merger", "return_of_capital"})
"""What a row without shares is that has the cash of a merger."""


class Exchanged(NamedTuple):
    """What the shares of a row were sold or bought for, `fees` and `taxes` aside."""

    value: Decimal
    currency: str
    fees: Decimal = ZERO
    taxes: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Exchange:
    """`by_row`: by place, of what went and what came. `paid`: places of the rows whose cash is within the sales."""

    by_row: Mapping[int, Exchanged]
    paid: tuple[int, ...]


def exchanges(live: Sequence[Placed], prices: BrokerPrices) -> Iterator[Exchange]:
    """Of `live`, rows of mergers of one account and day, none of whose instruments both came and went, and of cash;
    that for a fraction may be of later. What an exchange gave for shares is told to `prices`."""
    cash = [one for one in live if _is_paid(one[1])]
    groups = list(_groups([one for one in live if _is_exchanged(one[1])]))
    for group in groups:
        named = {one.instrument for part in group for _, one in part}
        named |= {None} if len(groups) == 1 else set()
        paid = [one for one in cash if one[1].instrument in named]
        found = _valued(group, paid, prices)
        if found is not None:
            cash = [one for one in cash if one not in paid]
            yield found


def paid_for(cash: BrokerRow) -> Exchanged:
    """What shares were sold for that went without money, when the row `cash` pays for them."""
    return Exchanged(fitted(_gross(cash)), cash.row.currency, *_charges([cash]))


# which rows

_Group = tuple[list[Placed], list[Placed]]
"""What went, what came."""


def _is_paid(one: BrokerRow) -> bool:
    return not one.quantity and one.cash > 0 and (one.row.action in _PAID or is_called_so(one))


def _is_exchanged(one: BrokerRow) -> bool:
    """What is bought or sold by a row with its own money for all of it is no exchange."""
    if one.row.action != "merger" or not one.quantity:
        return False
    return one.quantity < 0 or _gross(one) >= 0


def _groups(shares: Sequence[Placed]) -> Iterator[_Group]:
    """One instrument for several, or several for one; of as many as came, in their order; else as the rows follow each
    other."""
    old, new = _by_instrument(shares, -1), _by_instrument(shares, 1)
    if not old or not new:
        return
    if len(old) == 1 or len(new) == 1:
        yield [one for rows in old.values() for one in rows], [one for rows in new.values() for one in rows]
    elif len(old) == len(new):
        yield from zip(old.values(), new.values(), strict=True)
    else:
        yield from _in_runs(shares)


def _by_instrument(shares: Sequence[Placed], sign: int) -> dict[Instrument, list[Placed]]:
    found: dict[Instrument, list[Placed]] = defaultdict(list)
    for one in shares:
        if one[1].quantity * sign > 0 and one[1].instrument is not None:
            found[one[1].instrument].append(one)
    return found


def _in_runs(shares: Sequence[Placed]) -> Iterator[_Group]:
    is_out_first = shares[0][1].quantity < 0
    group: _Group = [], []
    for one in shares:
        is_out = one[1].quantity < 0
        if is_out == is_out_first and all(group):
            yield group
            group = [], []
        group[0 if is_out else 1].append(one)
    if all(group):
        yield group


# what they were worth


def _valued(group: _Group, paid: Sequence[Placed], prices: BrokerPrices) -> Exchange | None:
    """None where nobody knows what anything of it was worth, or that cannot be."""
    old, new = group
    with_cash = {one.row.currency for _, one in (*old, *new, *paid) if one.cash}
    if len(with_cash) > 1:
        return None
    gone, came = [worth_of(one, prices) for _, one in old], [worth_of(one, prices) for _, one in new]
    currency = next(iter(with_cash), next((one for value, one in (*came, *gone) if value), ""))
    day = old[0][1].row.day
    values = [prices.converted(*one, currency, day) for one in came]
    before = [prices.converted(*one, currency, day) for one in gone]
    cash = sum((_gross(one) for _, one in (*old, *new, *paid)), ZERO)
    values = _of_the_day(values, new, old, prices)
    is_known = all(values)
    values = _filled(values, new, before, cash)
    if not all(values):
        values = [fitted(prices.converted(*one, currency, day)) for one in came]
        is_known = all(values)
    total = sum(values, ZERO) + cash
    if total <= 0:
        return None
    sold = _shares_of(total, old, before)
    if any(value < 0 for value in sold):
        return None
    if is_known and len({one.instrument for _, one in old}) == 1:
        _teach(old, total, currency, prices)
    by_row = {place: _exchanged(one, value, currency) for (place, one), value in zip(new, values, strict=True)}
    by_row |= {place: _exchanged(one, value, currency) for (place, one), value in zip(old, sold, strict=True)}
    charges = _charges([one for _, one in paid])
    first = old[0][0]
    by_row[first] = by_row[first]._replace(fees=by_row[first].fees + charges[0], taxes=by_row[first].taxes + charges[1])
    return Exchange(by_row, tuple(place for place, _ in paid))


def _of_the_day(
    values: Sequence[Decimal], new: Sequence[Placed], old: Sequence[Placed], prices: BrokerPrices
) -> list[Decimal]:
    """Without what is made of a price of another time, where all that went has one of the day."""
    if not all(_has_price(one, prices) for _, one in old):
        return list(values)
    return [value if _has_price(one, prices) else ZERO for (_, one), value in zip(new, values, strict=True)]


def _has_price(one: BrokerRow, prices: BrokerPrices) -> bool:
    return bool(one.row.price) or (one.instrument is not None and prices.is_of(one.instrument, one.row.day))


def _filled(
    values: Sequence[Decimal], new: Sequence[Placed], before: Sequence[Decimal], cash: Decimal
) -> list[Decimal]:
    """With what nobody knows of: what the old shares were worth beyond the rest, by quantity."""
    unknown = sum((one.quantity for (_, one), value in zip(new, values, strict=True) if not value), ZERO)
    rest = sum(before, ZERO) - cash - sum(values, ZERO)
    if not unknown or not all(before) or rest <= 0:
        return [fitted(value) for value in values]
    return [
        fitted(value or rest * one.quantity / unknown) for (_, one), value in zip(new, values, strict=True)
    ]  # fmt: skip


def _shares_of(total: Decimal, old: Sequence[Placed], before: Sequence[Decimal]) -> list[Decimal]:
    """What each of `old` was sold for: its own cash, and its part of all else by what it was worth, which of one
    instrument is by quantity."""
    own = [_gross(one) for _, one in old]
    is_one = len({one.instrument for _, one in old}) == 1
    weights = [-one.quantity for _, one in old] if is_one or not all(before) else list(before)
    rest, whole = total - sum(own, ZERO), sum(weights, ZERO)
    parts = [fitted(rest * weight / whole) for weight in weights]
    parts[-1] = rest - sum(parts[:-1], ZERO)
    return [cash + part for cash, part in zip(own, parts, strict=True)]


def _teach(old: Sequence[Placed], total: Decimal, currency: str, prices: BrokerPrices) -> None:
    one = old[0][1]
    assert one.instrument is not None
    quantity = -sum((other.quantity for _, other in old), ZERO)
    prices.tell(one.instrument, one.row.day, fitted(total / quantity), currency)


def _exchanged(one: BrokerRow, value: Decimal, currency: str) -> Exchanged:
    return Exchanged(value, currency, *_charges([one]))


def _charges(rows: Sequence[BrokerRow]) -> tuple[Decimal, Decimal]:
    with_cash = [one.row for one in rows if one.cash]
    fees = sum((max(row.fees, ZERO) for row in with_cash), ZERO)
    return fitted(fees), fitted(sum((max(row.taxes, ZERO) for row in with_cash), ZERO))


def _gross(one: BrokerRow) -> Decimal:
    """The cash of a row, with what went off it."""
    return one.cash + sum(_charges([one]))
