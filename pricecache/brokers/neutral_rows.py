"""Transactions of the neutral format as rows of ours: quantities are positive, and the type says which way they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pricecache.brokers.fields import Fields
from pricecache.brokers.option_units import OptionUnits
from pricecache.brokers.worth import unit_price
from pricecache.core.broker.data import ZERO, BrokerAction, BrokerTransaction
from pricecache.core.currencies import major, unit

CANCEL = "cancel"
FIELDS = frozenset(
    {
        *("id", "accountId", "securityId", "date", "type", "quantity", "price", "amount", "fees", "taxes"),
        *("currency", "ratio", "cancels", "description"),
    }
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a type of transaction is. `shares`, `cash`: the sign of each, 0 where it may have either, None where there
    is none of it. `needs_security`, `needs_quantity`, `needs_amount`: without it the row says nothing."""

    action: BrokerAction
    shares: int | None = None
    cash: int | None = None
    needs_security: bool = False
    needs_quantity: bool = False
    needs_amount: bool = False


_MONEY = {"needs_amount": True}
_TRADE = {"needs_security": True, "needs_quantity": True}
KINDS: Mapping[str, Kind] = {
    "buy": Kind("buy", 1, -1, **_TRADE),
    "sell": Kind("sell", -1, 1, **_TRADE),
    "short": Kind("short", -1, 1, **_TRADE),
    "cover": Kind("cover", 1, -1, **_TRADE),
    "reinvestment": Kind("reinvestment", 1, -1, **_TRADE),
    "dividend": Kind("dividend", cash=1, **_MONEY),
    "interest": Kind("interest", cash=1, **_MONEY),
    "return_of_capital": Kind("return_of_capital", cash=1, **_MONEY),
    "fee": Kind("fee", cash=-1, **_MONEY),
    "tax": Kind("tax", cash=-1, **_MONEY),
    "deposit": Kind("cash", cash=1, **_MONEY),
    "withdrawal": Kind("cash", cash=-1, **_MONEY),
    "transfer_in": Kind("transfer", 1, 1),
    "transfer_out": Kind("transfer", -1, -1),
    "split": Kind("split", 0, needs_security=True),
    "stock_distribution": Kind("stock_distribution", 1, **_TRADE),
    "spin_off": Kind("spin_off", 1, **_TRADE),
    "merger": Kind("merger", 0, 0, **_TRADE),
    "exercise": Kind("exercise", 0, 0, **_TRADE),
    "expiry": Kind("expiry", 0, **_TRADE),
    "adjustment": Kind("adjustment", 0, 0),
}
"""By what `type` says."""


@dataclass(frozen=True, slots=True)
class NeutralRow:
    """A transaction, checked. `row` is None of one that only cancels. `again`: makes it anew, options counted."""

    id: str
    account: str
    day: int
    row: BrokerTransaction | None
    cancels: str | None
    path: str
    again: Callable[[OptionUnits], BrokerTransaction] | None = None


def read_row(
    given: Fields,
    days: tuple[int, int],
    place: int,
    check: Callable[[Fields, str | None, str | None], str],
    units_of: Callable[[str | None], OptionUnits | None] = lambda _: None,
) -> NeutralRow | None:
    """None when it is not sound. `days`: the first and the last that it may be of. `check`: notes an account or a
    security that there is none of; the currency where the row names none. `units_of`: of a security that is an option.
    """
    given.unknown(FIELDS)
    name, account = given.id("id"), given.id("accountId")
    security, day = given.id("securityId", required=False), given.day("date", days[1], since=days[0], required=True)
    word, cancels = given.word("type", required=True), given.id("cancels", required=False)
    note, currency = given.text("description", 500), given.currency("currency")
    default = check(given, account, security)
    kind = None if word is None or word == CANCEL else KINDS.get(word)
    if word == CANCEL and cancels is None:
        given.fault("cancels", "missing", "a cancel names the row that it takes back")
    if word is not None and kind is None and word != CANCEL:
        given.fault("type", "unknown_type", f"a type is one of {', '.join((*KINDS, CANCEL))}")
    amounts = _amounts(given, kind, security)
    if not given.is_sound or name is None or account is None or day is None:
        return None
    row, again = None, None
    if kind is not None:
        facts = name, account, day, kind, security
        rest = currency or default, note, place
        row = _row(*facts, amounts, *rest)
        units = units_of(security)
        if units is not None and security is not None and amounts.quantity:
            units.note(security, "rows", amounts.quantity, amounts.price, amounts.amount)

            def again(units: OptionUnits) -> BrokerTransaction:
                return _row(*facts, amounts.in_options(security, units), *rest)

    return NeutralRow(name, account, day, row, cancels, given.path, again)


@dataclass(frozen=True, slots=True)
class _Amounts:
    quantity: Decimal | None
    price: Decimal | None
    amount: Decimal | None
    fees: Decimal
    taxes: Decimal
    ratio: Decimal | None

    def in_options(self, security: str, units: OptionUnits) -> _Amounts:
        quantity, price = units.in_options(security, "rows", self.quantity or ZERO, self.price, self.amount)
        return replace(self, quantity=quantity, price=price)


def _amounts(given: Fields, kind: Kind | None, security: str | None) -> _Amounts:
    found = _Amounts(
        given.amount("quantity"),
        given.amount("price"),
        given.amount("amount"),
        given.amount("fees") or ZERO,
        given.amount("taxes") or ZERO,
        given.amount("ratio"),
    )
    if kind is not None:
        _check(given, found, kind, security)
    return found


def _check(given: Fields, found: _Amounts, kind: Kind, security: str | None) -> None:
    if kind.needs_security and security is None:
        given.fault("securityId", "missing", "a row of this type has a security")
    if kind.needs_quantity and not found.quantity:
        given.fault("quantity", "missing", "a row of this type has a quantity that is not 0")
    if kind.needs_amount and found.amount is None:
        given.fault("amount", "missing", "a row of this type has an amount")
    if found.quantity is not None and found.quantity < 0 and kind.shares in (1, -1):
        given.fault("quantity", "quantity_not_positive", "the type says which way it goes: a quantity is positive")
    if found.quantity and security is None:
        given.fault("securityId", "missing", "a quantity is of a security")
    if found.price is not None and found.price < 0:
        given.fault("price", "price_negative", "a price is not negative")
    if found.ratio is not None and found.ratio <= 0:
        given.fault("ratio", "ratio_not_positive", "a ratio is new shares for one old")
    if kind.action == "split" and found.ratio is None and not found.quantity:
        given.fault("ratio", "missing", "a split has a ratio, or the quantity that came of it")
    if kind.action in ("transfer", "adjustment") and not found.quantity and found.amount is None:
        given.fault("amount", "missing", "what moves: a quantity of a security, or an amount of money")


def _row(
    name: str, account: str, day: int, kind: Kind, security: str | None, given: _Amounts, currency: str,
    note: str | None, place: int,
) -> BrokerTransaction:  # fmt: skip
    own = unit(currency)
    quantity, cash = _quantity(kind, given), _cash(kind, given)
    worth = abs(cash + given.fees + given.taxes) if cash else given.amount
    worth = None if kind.shares is None and not worth else worth
    price = unit_price(quantity, given.price, worth)
    return BrokerTransaction(
        id=name,
        account=account,
        day=day,
        action=kind.action,
        security=security,
        quantity=quantity,
        price=None if price is None or not quantity else price * own,
        cash=cash * own,
        fees=given.fees * own,
        taxes=given.taxes * own,
        currency=major(currency),
        ratio=given.ratio,
        note=note,
        place=place,
    )


def _quantity(kind: Kind, given: _Amounts) -> Decimal:
    if given.quantity is None:
        return ZERO
    if kind.shares is None:
        return given.quantity if kind.action in ("dividend", "interest") and _is_in_shares(given) else ZERO
    return -given.quantity if kind.shares < 0 else given.quantity


def _is_in_shares(given: _Amounts) -> bool:
    return given.amount == 0 and given.quantity is not None and given.quantity > 0


def _cash(kind: Kind, given: _Amounts) -> Decimal:
    """A transfer of shares moves none: its amount is what they are worth."""
    if kind.cash is None or (kind.action in ("transfer", "adjustment") and given.quantity):
        return ZERO
    sign = kind.cash or 1
    if given.amount is not None:
        return sign * given.amount
    if given.price is None or not given.quantity:
        return ZERO
    costs = given.fees + given.taxes
    if kind.cash:
        return sign * given.quantity * given.price - costs
    return -given.quantity * given.price - costs
