"""Plaid's investment transactions as rows of ours: its types, its signs, what moves cash and what does not.

Plaid's rules (plaid-python 46.0.0, `model/investment_transaction.py`): `quantity` is positive for what is bought;
`amount` is positive when cash is debited; a contribution that buys at once has the purchase's amount.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from pricecache.brokers.option_units import OptionUnits
from pricecache.brokers.worth import CENT, fee_is_within, unit_price
from pricecache.core.broker.data import ZERO, BrokerAction, BrokerSecurity, BrokerTransaction, Remark
from pricecache.core.currencies import major, unit

TYPES = frozenset({"buy", "sell", "cancel", "cash", "fee", "transfer"})

_INCOME = (
    "dividend", "qualified dividend", "non-qualified dividend", "long-term capital gain", "short-term capital gain",
    "unqualified gain",
)  # fmt: skip
_REINVESTED = (
    "dividend reinvestment", "interest reinvestment", "long-term capital gain reinvestment",
    "short-term capital gain reinvestment",
)  # fmt: skip
_FEES = (
    "account fee", "legal fee", "management fee", "margin expense", "miscellaneous fee", "transfer fee", "trust fee",
)  # fmt: skip
_ACTIONS: dict[str, BrokerAction] = {
    **dict.fromkeys(_INCOME, "dividend"),
    **dict.fromkeys(_REINVESTED, "reinvestment"),
    **dict.fromkeys(_FEES, "fee"),
    **dict.fromkeys(("interest", "interest receivable"), "interest"),
    **dict.fromkeys(("tax", "tax withheld", "non-resident tax"), "tax"),
    **dict.fromkeys(("contribution", "deposit", "withdrawal", "distribution"), "cash"),
    **dict.fromkeys(("request", "send", "transfer"), "transfer"),
    **dict.fromkeys(("assignment", "exercise"), "exercise"),
    **dict.fromkeys(("principal", "return of principal"), "return_of_capital"),
    "buy": "buy",
    "buy to cover": "cover",
    "sell": "sell",
    "sell short": "short",
    "trade": "buy",
    "expire": "expiry",
    "adjustment": "adjustment",
    "merger": "merger",
    "spin off": "spin_off",
    "split": "split",
    "stock distribution": "stock_distribution",
}  # fmt: skip
_BY_TYPE: dict[str, BrokerAction] = {
    "buy": "buy", "sell": "sell", "cash": "cash", "fee": "fee", "transfer": "transfer",
}  # fmt: skip
REINVESTED = "reinvested"
"""What the id of income ends in that a fund which counts as cash has reinvested in itself."""
_PENDING = frozenset({"pending credit", "pending debit"})
_IN, _OUT = frozenset({"buy", "cover", "reinvestment"}), frozenset({"sell", "short"})
_TRADES = _IN | _OUT
_WITHOUT_QUANTITY = frozenset({"dividend", "interest", "return_of_capital"})
_PAID_IN_SHARES = frozenset({"cash", "fee", "tax"})
PARTS = ("cash", "exchange", "fee", REINVESTED, "tax")
"""What the ids end in of rows that are made of another one's, behind a stroke."""
_WITHOUT_CASH = frozenset({"transfer", "split", "spin_off", "stock_distribution", "adjustment"})
"""Where shares move and no money does: the amount that Plaid states is what they are worth."""


class PlaidRow(NamedTuple):
    """A transaction as Plaid has it, checked: its signs, `currency` as named. `is_coin`: its amounts are in a coin that
    money is not counted in here."""

    id: str
    account: str
    day: int
    type: str
    subtype: str | None
    security: str | None
    quantity: Decimal
    amount: Decimal
    price: Decimal | None
    fees: Decimal
    currency: str
    name: str | None
    cancels: str | None
    path: str
    place: int
    is_coin: bool = False


def translated(
    row: PlaidRow, security: BrokerSecurity | None, units: OptionUnits, remarks: list[Remark]
) -> Iterator[BrokerTransaction]:
    """What `row` does: one row, two where it does two things, none where nothing changes. `units`: of options."""
    if row.subtype in _PENDING:
        remarks.append(Remark("pending_row", row.path, f"{row.subtype}: it counts once it is posted"))
        return
    if row.is_coin and (security is None or security.is_money or not row.quantity):
        remarks.append(Remark("amount_in_coins", row.path, f"{row.currency} is no money here: left out"))
        return
    if security is not None and security.is_money:
        yield from _of_money(row, security)
        return
    action = _action(row, security, remarks)
    if security is not None and action in ("dividend", "interest") and _is_in_shares(row):
        price = None if row.is_coin else unit_price(row.quantity, row.price, abs(row.quantity * (row.price or ZERO)))
        yield _row(row, security.id, action, quantity=row.quantity, price=price)
        return
    if security is None or (not row.quantity and action not in _TRADES) or action in _WITHOUT_QUANTITY:
        yield _money_row(row, security, _without_shares(action, row), _cash(row))
        return
    yield from _of_shares(row, security, action, units, remarks)


def _action(row: PlaidRow, security: BrokerSecurity | None, remarks: list[Remark]) -> BrokerAction:
    found = _ACTIONS.get(row.subtype) if row.subtype is not None else None
    if found is None:
        found = _BY_TYPE[row.type]
        if row.subtype is not None:
            remarks.append(Remark("unknown_subtype", row.path, f"{row.subtype}: taken as {found}"))
    if found == "exercise" and (security is None or security.option is None):
        found = "buy"  # of what the option is on; the sign says whether it came or went
    if row.subtype in ("trade", "assignment", "exercise") and found == "buy":
        return "buy" if row.quantity > 0 else "sell"
    if found == "cash" and row.subtype == "distribution" and row.type != "sell" and not row.quantity:
        return "dividend" if security is not None and row.amount < 0 else "cash"
    if row.subtype == "stock distribution" and not row.quantity:
        return "dividend"
    if found == "return_of_capital" and security is not None and row.quantity < 0 and row.amount < 0:
        return "sell"  # a bond that is redeemed
    return found


def _is_in_shares(row: PlaidRow) -> bool:
    """Whether income came as shares; beside money a quantity is that of the shares it was paid on."""
    return row.quantity > 0 and (not row.amount or row.is_coin)


def _without_shares(action: BrokerAction, row: PlaidRow) -> BrokerAction:
    """What is left of an action when no shares move."""
    if action in ("transfer", "fee", "tax", "cash", "dividend", "interest", "return_of_capital", "adjustment"):
        return action
    if action == "merger" and row.amount < 0:
        return action
    if action in ("split", "stock_distribution", "spin_off", "merger", "expiry", "exercise"):
        return "return_of_capital" if row.amount < 0 else "fee"  # money for a fraction of a share
    return "dividend" if action == "reinvestment" and row.amount < 0 else "adjustment"


def _of_money(row: PlaidRow, security: BrokerSecurity) -> Iterator[BrokerTransaction]:
    """Of cash, and of funds that count as cash: what is bought of them changes nothing, what they pay does."""
    action = _ACTIONS.get(row.subtype or "", _BY_TYPE[row.type])
    if action == "reinvestment":
        yield _money_row(row, None, "interest", abs(row.amount), part=REINVESTED)
    elif action in _TRADES:
        yield from _exchanged(row, security)
    elif action in _WITHOUT_QUANTITY:
        yield _money_row(row, None, "interest", _cash(row))
    elif action == "cash" and row.type in ("buy", "sell"):
        yield _money_row(row, None, "cash", abs(row.amount) if row.type == "buy" else -abs(row.amount))
    elif action in ("cash", "fee", "tax", "transfer", "adjustment"):
        yield _money_row(row, None, action, _cash(row) or row.quantity)


def _exchanged(row: PlaidRow, security: BrokerSecurity) -> Iterator[BrokerTransaction]:
    own, other = major(security.currency), major(row.currency)
    if own == other:
        return
    yield _money_row(row, None, "transfer", _cash(row))
    bought = abs(row.quantity) if row.type == "buy" else -abs(row.quantity)
    yield _row(row, None, "transfer", cash=bought, currency=own, part="exchange")


def _of_shares(
    row: PlaidRow, security: BrokerSecurity, action: BrokerAction, units: OptionUnits, remarks: list[Remark]
) -> Iterator[BrokerTransaction]:
    quantity, price = row.quantity, row.price
    if security.option is not None:
        quantity, price = units.in_options(security.id, "rows", quantity, price, row.amount)
    if action in _TRADES:
        right = abs(quantity) if action in _IN else -abs(quantity)
        if quantity != right:
            remarks.append(Remark("sign_corrected", row.path, f"the quantity of a {action}, with the sign of another"))
            quantity = right
    if row.is_coin or (not row.amount and _is_for_nothing(action, price, security)):
        action = "transfer"
    worth = abs(row.amount) or abs(quantity * (price or ZERO))
    if action in _WITHOUT_CASH:
        value = None if row.is_coin else unit_price(quantity, price, worth)
        yield _row(row, security.id, action, quantity=quantity, price=value)
        return
    if action in _PAID_IN_SHARES:
        yield from _paid_in_shares(row, security, action, quantity, unit_price(quantity, price, worth), worth)
        return
    yield _traded(row, security, action, quantity, price, remarks)


def _is_for_nothing(action: BrokerAction, price: Decimal | None, security: BrokerSecurity) -> bool:
    """Whether a trade without money moves shares that are worth something. An option may go at nothing."""
    return action in _TRADES if price else action in ("buy", "sell") and security.option is None


def _paid_in_shares(
    row: PlaidRow, security: BrokerSecurity, action: BrokerAction, quantity: Decimal, price: Decimal | None,
    worth: Decimal,
) -> Iterator[BrokerTransaction]:  # fmt: skip
    """A contribution that is invested at once, shares that are sold to pay out or for a fee: a trade and its cash."""
    cash = -worth if quantity > 0 else worth
    kind: BrokerAction = "buy" if quantity > 0 else "sell"
    yield _row(row, security.id, kind, quantity=quantity, price=price, cash=cash)
    yield _row(row, security.id if action != "cash" else None, action, cash=-cash, part=action)


def _traded(
    row: PlaidRow, security: BrokerSecurity, action: BrokerAction, quantity: Decimal, price: Decimal | None,
    remarks: list[Remark],
) -> BrokerTransaction:  # fmt: skip
    cash, fees = _cash(row), row.fees
    if action in _TRADES:
        flowed = abs(cash) if action in _OUT else -abs(cash)
        if cash != flowed and abs(cash) > abs(fees) + CENT:
            remarks.append(Remark("sign_corrected", row.path, f"the amount of a {action}, with the sign of another"))
            cash = flowed
    if fees and not fee_is_within(quantity, price, cash, fees):
        cash -= fees
    worth = abs(cash + fees)
    value = unit_price(quantity, price, None if action == "merger" and not worth else worth)
    return _row(row, security.id, action, quantity=quantity, price=value, cash=cash, fees=fees)


def _cash(row: PlaidRow) -> Decimal:
    return -row.amount


def _money_row(
    row: PlaidRow, security: BrokerSecurity | None, action: BrokerAction, cash: Decimal, part: str | None = None
) -> BrokerTransaction:
    if not cash and row.fees:
        cash = -row.fees
    return _row(row, None if security is None else security.id, action, cash=cash, part=part)


def _row(
    row: PlaidRow,
    security: str | None,
    action: BrokerAction,
    *,
    quantity: Decimal = ZERO,
    price: Decimal | None = None,
    cash: Decimal = ZERO,
    fees: Decimal = ZERO,
    currency: str | None = None,
    part: str | None = None,
) -> BrokerTransaction:
    own = unit(currency or row.currency)
    if own != 1:
        price, cash, fees = None if price is None else price * own, cash * own, fees * own
    return BrokerTransaction(
        id=row.id if part is None else f"{row.id}/{part}",
        account=row.account,
        day=row.day,
        action=action,
        security=security,
        quantity=quantity,
        price=price,
        cash=cash,
        fees=fees,
        currency=major(currency or row.currency),
        note=row.name,
        place=row.place,
    )
