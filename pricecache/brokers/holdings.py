"""Holdings as a broker lists them, maybe in parts, as one of each account and security, and money by currency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pricecache.brokers.fields import Faults
from pricecache.brokers.option_units import OptionUnits
from pricecache.brokers.worth import unit_price
from pricecache.core.broker.data import ZERO, BrokerHolding, BrokerSecurity, Remark
from pricecache.core.currencies import major, unit

MAY_BE_SHORT = frozenset({"equity", "etf", "derivative"})
"""Kinds of which less than nothing may be held: it was sold short, or written."""

Money = dict[tuple[str, str], Decimal]


@dataclass(frozen=True, slots=True)
class HoldingPart:
    """A holding as it is listed, checked. `currency`: as named, None for the security's own."""

    account: str
    security: str
    quantity: Decimal
    price: Decimal | None
    value: Decimal | None
    cost: Decimal | None
    day: int | None
    currency: str | None
    path: str


def holdings_and_money(
    parts: Iterable[HoldingPart],
    securities: Mapping[str, BrokerSecurity],
    units: OptionUnits,
    faults: Faults,
    remarks: list[Remark],
) -> tuple[tuple[BrokerHolding, ...], Money]:
    """One holding for each account and security that there is any of, and the money of each account and currency. Notes
    those that are below nothing and cannot be."""
    listed: dict[tuple[str, str], list[HoldingPart]] = defaultdict(list)
    for part in parts:
        listed[part.account, part.security].append(part)
    found: list[BrokerHolding] = []
    money: Money = {}
    for (account, name), several in listed.items():
        security = securities[name]
        if security.is_money:
            key = account, major(security.currency)
            amounts = [part.quantity * unit(part.currency or security.currency) for part in several]
            money[key] = money.get(key, ZERO) + sum(amounts, ZERO)
            continue
        if len(several) > 1:
            remarks.append(Remark("holding_in_parts", several[-1].path, f"added up with {several[0].path}"))
        holding = _joined(several, security, units)
        note_impossible(holding.quantity, security, several[0].path, faults)
        if holding.quantity:
            found.append(holding)
    return tuple(found), money


def note_impossible(quantity: Decimal, security: BrokerSecurity, path: str, faults: Faults) -> None:
    """Note a balance below nothing of what there cannot be less of."""
    if quantity < 0 and not security.is_money and security.kind not in MAY_BE_SHORT:
        faults.add(f"{path}.quantity", "negative_holding", f"of a {security.kind} there is none below 0")


def _joined(parts: Sequence[HoldingPart], security: BrokerSecurity, units: OptionUnits) -> BrokerHolding:
    listed = [(part.quantity, part.price) for part in parts]
    if security.option is not None:
        listed = [units.in_options(one.security, "held", one.quantity, one.price, one.value) for one in parts]
    quantity = sum((one for one, _ in listed), ZERO)
    own = unit(parts[0].currency or security.currency)
    costs = [part.cost for part in parts if part.cost is not None]
    price = listed[0][1]
    values = [part.value for part in parts if part.value is not None]
    value = sum(values, ZERO) if len(values) == len(parts) else None
    price = unit_price(quantity, price, value)
    return BrokerHolding(
        parts[0].account,
        security.id,
        quantity,
        None if price is None else price * own,
        max((part.day for part in parts if part.day is not None), default=None),
        sum(costs, ZERO) * own if len(costs) == len(parts) else None,
        major(parts[0].currency or security.currency),
    )
