"""Mergers for cash in two rows: by one the shares go, by another one, on that day or near it, the money comes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pricecache.core.ledger import ZERO
from pricecache.core.lots import fitted
from pricecache.core.walk.exchanges import Exchanged, paid_for
from pricecache.core.walk.in_lieu import Delay, delay_of
from pricecache.core.walk.prices import BrokerPrices
from pricecache.core.walk.row import BrokerRow, Key, Placed, worth_of

_LEAST = Decimal("0.5")
"""A return of capital on the day of a merger pays for the shares where it is at least so much of their worth."""
_GOES, _PAYS = frozenset({"merger", "sell", "transfer"}), frozenset({"merger", "return_of_capital"})


@dataclass(frozen=True, slots=True)
class PaidInCash:
    """`sold`: by place, what the shares of a row went for. `paid`: places of the rows of the money."""

    sold: Mapping[int, Exchanged]
    paid: tuple[int, ...]
    delays: tuple[Delay, ...]


def cash_mergers(live: Sequence[Placed], apart: int, prices: BrokerPrices) -> Iterator[PaidInCash]:
    """Of `live`, in order of day. `apart`: so many days may be between the rows. Pure."""
    money: dict[Key, list[Placed]] = defaultdict(list)
    for i, one in live:
        if one.instrument is not None and one.row.action in _PAYS and one.cash > 0 and not one.quantity:
            money[one.account, one.instrument].append((i, one))
    gone: dict[tuple[Key, int], list[Placed]] = defaultdict(list)
    for i, one in live if money else ():
        is_gone = one.row.action in _GOES and one.quantity < 0 and not one.cash
        if is_gone and one.instrument is not None and (one.account, one.instrument) in money:
            gone[(one.account, one.instrument), one.row.day].append((i, one))
    for (key, day), shares in gone.items():
        near = [one for one in money[key] if abs(one[1].row.day - day) <= apart]
        paid = [one for one in near if _pays_for(one[1], shares, prices)]
        if paid and len({one.row.currency for _, one in paid}) == 1:
            money[key] = [one for one in money[key] if one not in paid]
            yield _sold(shares, paid)


def _pays_for(cash: BrokerRow, shares: Sequence[Placed], prices: BrokerPrices) -> bool:
    if cash.row.action == "merger":
        return True
    if any(one.row.action != "merger" for _, one in shares):
        return False
    worth = sum((_worth(one, cash, prices) for _, one in shares), ZERO)
    return cash.cash >= worth * _LEAST


def _worth(one: BrokerRow, cash: BrokerRow, prices: BrokerPrices) -> Decimal:
    return prices.converted(*worth_of(one, prices), cash.row.currency, one.row.day)


def _sold(shares: Sequence[Placed], paid: Sequence[Placed]) -> PaidInCash:
    whole = [paid_for(one) for _, one in paid]
    value, fees, taxes = (
        sum(parts, ZERO) for parts in zip(*((one.value, one.fees, one.taxes) for one in whole), strict=True)
    )
    quantity, rest = sum((one.quantity for _, one in shares), ZERO), value
    sold: dict[int, Exchanged] = {}
    for i, one in shares:
        part = rest if i == shares[-1][0] else fitted(value * one.quantity / quantity)
        rest -= part
        sold[i] = Exchanged(part, whole[0].currency, *((ZERO, ZERO) if sold else (fees, taxes)))
    day = shares[0][1].row.day
    return PaidInCash(sold, tuple(i for i, _ in paid), tuple(_delay(one, day) for _, one in paid))


def _delay(cash: BrokerRow, day: int) -> Delay:
    if cash.row.day >= day:
        return delay_of(cash, day)
    return Delay(cash.account, cash.row.currency, cash.row.day, day, -cash.cash)
