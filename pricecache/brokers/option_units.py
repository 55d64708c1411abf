"""What a broker counts an option in, found from all that it says of it: options, or contracts of a hundred."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Literal

from pricecache.core.bars import day_number
from pricecache.core.broker.data import BrokerSecurity, OptionContract, SecurityKind

OPTIONS_IN_ONE = 100
"""Options in one contract."""
Part = Literal["held", "rows"]
"""Holdings and balances, and transactions: a broker may count each in its own way."""

_ABOUT = 2
_SYMBOL = re.compile(r"([A-Z.]{1,6})\d? *(\d\d)(\d\d)(\d\d)([CP])(\d{8})")


def said_in(quantity: Decimal, price: Decimal | None, worth: Decimal | None) -> int | None:
    """How many options one of `quantity` is by its price and what all are worth, fees or no fees; None where that
    does not tell."""
    if not quantity or not price or not worth:
        return None
    ratio = abs(worth / (quantity * price))
    for options in (1, OPTIONS_IN_ONE):
        if options / Decimal(_ABOUT) <= ratio <= options * _ABOUT:
            return options
    return None


class OptionUnits:
    """Evidence of what each option is counted in. `note` everything, then ask. Belongs to one thread."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, Part], set[int]] = {}
        self._in_hundreds: dict[tuple[str, Part], bool] = {}

    def note(self, security: str, part: Part, quantity: Decimal, price: Decimal | None, worth: Decimal | None) -> None:
        options = said_in(quantity, price, worth)
        if options is None:
            return
        key = security, part
        self._said.setdefault(key, set()).add(options)
        if options == 1:
            self._in_hundreds[key] = self._in_hundreds.get(key, True) and _is_hundreds(quantity)

    def in_one(self, security: str, part: Part) -> int | None:
        """How many options one of the quantities of `part` is, None where nothing tells. Options come by the hundred:
        where the other part is in contracts, quantities that are not hundreds are contracts at the price of one."""
        own, other = self._said.get((security, part), set()), self._said.get((security, _other(part)), set())
        if OPTIONS_IN_ONE in own:
            return OPTIONS_IN_ONE
        if OPTIONS_IN_ONE in other and not (own and self._in_hundreds[security, part]):
            return OPTIONS_IN_ONE
        return 1 if own or other else None

    def in_options(
        self, security: str, part: Part, quantity: Decimal, price: Decimal | None, worth: Decimal | None
    ) -> tuple[Decimal, Decimal | None]:
        """Quantity and price in options. What says of itself that it is in options stays so, if
        that can be."""
        options = self.in_one(security, part)
        own = said_in(quantity, price, worth)
        if options != OPTIONS_IN_ONE or (own == 1 and _is_hundreds(quantity)):
            return quantity, price
        return quantity * OPTIONS_IN_ONE, price if own != 1 or price is None else price / OPTIONS_IN_ONE

    def told(self, securities: Mapping[str, BrokerSecurity]) -> dict[str, BrokerSecurity]:
        """`securities`, the options with what they are counted in."""
        return {name: self._told(one) for name, one in securities.items()}

    def _told(self, security: BrokerSecurity) -> BrokerSecurity:
        if security.option is None:
            return security
        found = {self.in_one(security.id, part) for part in ("held", "rows")}
        in_one = OPTIONS_IN_ONE if OPTIONS_IN_ONE in found else 1 if 1 in found else None
        return replace(security, option=replace(security.option, in_one=in_one))


def _other(part: Part) -> Part:
    return "rows" if part == "held" else "held"


def _is_hundreds(quantity: Decimal) -> bool:
    return not quantity % OPTIONS_IN_ONE


def option_of(kind: SecurityKind, symbol: str | None) -> OptionContract | None:
    """What the symbol of a derivative says where the broker does not: `AAPL261218C00250000`, root, expiry, right and
    the strike in thousandths (the OCC's Options Symbology Initiative, 2010)."""
    found = _SYMBOL.fullmatch(symbol.upper()) if kind == "derivative" and symbol is not None else None
    if found is None:
        return None
    root, year, month, day, right, strike = found.groups()
    try:
        expires = day_number(date(2000 + int(year), int(month), int(day)))
    except ValueError:
        return None
    return OptionContract("call" if right == "C" else "put", expires, Decimal(strike) / 1000, root)
