"""Orders as other systems report them: what a report may say, what may follow on it, and a fill as a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO, Transaction, faults

OrderStatus = Literal["new", "accepted", "partially_filled", "filled", "cancelled", "rejected", "expired"]
OrderSide = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit", "trailing_stop", "other"]

FINAL = frozenset({"filled", "cancelled", "rejected", "expired"})
_UNFILLED = frozenset({"new", "accepted", "rejected"})
_PROGRESS = {"new": 0, "accepted": 1, "partially_filled": 2}
_AMOUNTS = (
    ("quantity", "quantity", "quantity"),
    ("limit_price", "price", "limitPrice"),
    ("filled_quantity", "quantity", "filledQuantity"),
    ("average_price", "price", "averagePrice"),
    ("fees", "fees", "fees"),
    ("taxes", "taxes", "taxes"),
    ("fx_rate", "fx_rate", "fxRate"),
)


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What another system says of an order. `average_price`: of what is filled, for one unit, in `currency` (None: the
    instrument's); `fees`, `taxes` of all of it. `account`: "" is the implicit one. Times: seconds since 1970 UTC."""

    status: OrderStatus
    side: OrderSide
    instrument: Instrument
    quantity: Decimal
    type: OrderType | None = None
    limit_price: Decimal | None = None
    filled_quantity: Decimal = ZERO
    average_price: Decimal | None = None
    fees: Decimal = ZERO
    taxes: Decimal = ZERO
    currency: str | None = None
    fx_rate: Decimal | None = None
    account: str = ""
    submitted_at: float | None = None
    filled_at: float | None = None
    reason: str | None = None
    note: str | None = None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_fill(self) -> bool:
        """Whether it is over and something was bought or sold."""
        return self.is_final and self.filled_quantity > 0


@dataclass(frozen=True, slots=True)
class Order:
    """The last report of an order that was taken. `id`: the other system's; `number`: 24 hexadecimal digits, later
    orders have greater ones; `transaction_id`: what its fill became; `change`: the id of the change that wrote this."""

    id: str
    report: OrderReport
    number: str
    transaction_id: str | None
    change: str
    version: int
    created_at: float
    updated_at: float


def report_faults(report: OrderReport) -> list[dict[str, Any]]:
    """Everything wrong with a report by itself: `{"field", "code", "detail"}` each.

    Codes: `filled_quantity_mismatch`, `average_price_required`, and those of amounts in `ledger.faults`.
    """
    return [{"field": field, "code": code, "detail": detail} for field, code, detail in _faults(report)]


def _faults(report: OrderReport) -> Iterator[tuple[str, str, str]]:
    for name, stands_for, field in _AMOUNTS:
        value: Decimal | None = getattr(report, name)
        if value is None or (name == "filled_quantity" and value == 0):
            continue
        whole: dict[str, Decimal] = {"quantity": Decimal(1), "price": ZERO, stands_for: value}
        probe = Transaction(0, report.side, report.instrument, **whole)  # type: ignore[arg-type]
        yield from ((field, fault["code"], fault["detail"]) for fault in faults([probe]))
    if (wanted := _expected_fill(report)) is not None:
        yield "filledQuantity", "filled_quantity_mismatch", f"An order that is {report.status} has {wanted} filled."
    if report.filled_quantity > 0 and report.average_price is None:
        yield "averagePrice", "average_price_required", "What is filled has a price."


def _expected_fill(report: OrderReport) -> str | None:
    filled, quantity, status = report.filled_quantity, report.quantity, report.status
    if status in _UNFILLED:
        return "nothing" if filled else None
    if status == "filled":
        return f"all {quantity}" if filled != quantity else None
    if status == "partially_filled":
        return f"more than nothing and less than {quantity}" if not 0 < filled < quantity else None
    return f"at most {quantity}" if filled > quantity else None


def conflicts(before: OrderReport, after: OrderReport) -> list[dict[str, Any]]:
    """Why `after`, which is another report of the same order, cannot follow on `before`: as `report_faults`.

    Codes: `order_final`, `order_of_another`, `order_status_goes_back`, `filled_quantity_shrinks`.
    """
    return [{"field": field, "code": code, "detail": detail} for field, code, detail in _conflicts(before, after)]


def _conflicts(before: OrderReport, after: OrderReport) -> Iterator[tuple[str, str, str]]:
    if before.is_final:
        yield "status", "order_final", f"The order is {before.status}: nothing of it changes any more."
    for field, old, new in (("side", before.side, after.side), ("symbol", before.instrument, after.instrument)):
        if old != new:
            yield field, "order_of_another", f"This order has {field} {old}."
    if before.is_final:
        return
    if _PROGRESS.get(after.status, len(_PROGRESS)) < _PROGRESS[before.status]:
        yield "status", "order_status_goes_back", f"The order is {before.status} already."
    if after.filled_quantity < before.filled_quantity:
        yield "filledQuantity", "filled_quantity_shrinks", f"{before.filled_quantity} were filled already."


def transaction_of(order_id: str, report: OrderReport, day: int) -> Transaction:
    """The purchase or sale that a fill is. `day`: days since 1970-01-01, where the portfolio's days begin and end."""
    return Transaction(
        day,
        report.side,
        report.instrument,
        quantity=report.filled_quantity,
        price=report.average_price,
        fees=report.fees,
        taxes=report.taxes,
        currency=report.currency,
        fx_rate=report.fx_rate,
        account=report.account,
        external_id=f"order:{order_id}",
        note=report.note,
    )
