"""What durable events say, as JSON takes it: the fields of trades, closed positions and orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pricecache.core.bars import day_of
from pricecache.core.closings import Closing
from pricecache.core.ledger import Transaction
from pricecache.core.orders import Order
from pricecache.core.stream_events import StreamEvent

_WHOLE_BELOW = 1 << 53


def event_fields(event: StreamEvent) -> dict[str, Any]:
    """A durable event as it is sent."""
    return {"seq": event.seq, "type": event.type, "at": _instant(event.at), **event.data}


def trade_data(row: Transaction) -> dict[str, Any]:
    """A purchase or sale, its fields named as in a list of transactions, but for `side`: an event has its own type."""
    assert row.instrument is not None  # the ledger has no other
    return {
        "id": row.id,
        "date": day_of(row.day).isoformat(),
        "side": row.type,
        "symbol": row.instrument.symbol,
        "market": row.instrument.market,
        "quantity": number_of(row.quantity),
        "price": number_of(row.price),
        "fees": number_of(row.fees),
        "taxes": number_of(row.taxes),
        "currency": row.currency,
        "accountId": row.account or None,
        "externalId": row.external_id,
    }


def closing_data(closing: Closing) -> dict[str, Any]:
    row = closing.row
    return {
        "symbol": closing.instrument.symbol,
        "market": closing.instrument.market,
        "date": None if row is None else day_of(row.day).isoformat(),
        "transactionId": None if row is None else row.id,
    }


def order_data(order: Order) -> Mapping[str, Any]:
    """As `order_fields`, for an event: those have a type already, so an order's is `orderType`."""
    fields = order_fields(order, number_of)
    return {"orderType" if name == "type" else name: value for name, value in fields.items()}


def order_fields(order: Order, amount: Callable[[Decimal | None], Any]) -> dict[str, Any]:
    """An order with everything that is known of it; `amount` makes JSON of its amounts."""
    report = order.report
    return {
        "orderId": order.id,
        "status": report.status,
        "side": report.side,
        "symbol": report.instrument.symbol,
        "market": report.instrument.market,
        "type": report.type,
        "quantity": amount(report.quantity),
        "limitPrice": amount(report.limit_price),
        "filledQuantity": amount(report.filled_quantity),
        "averagePrice": amount(report.average_price),
        "fees": amount(report.fees),
        "taxes": amount(report.taxes),
        "currency": report.currency,
        "fxRate": amount(report.fx_rate),
        "accountId": report.account or None,
        "submittedAt": _instant(report.submitted_at),
        "filledAt": _instant(report.filled_at),
        "reason": report.reason,
        "note": report.note,
        "transactionId": order.transaction_id,
        "version": order.version,
        "createdAt": _instant(order.created_at),
        "updatedAt": _instant(order.updated_at),
    }


def number_of(amount: Decimal | None) -> int | float | None:
    """The nearest number that JSON readers and BSON can hold."""
    if amount is None:
        return None
    whole = int(amount)
    return whole if whole == amount and abs(whole) < _WHOLE_BELOW else float(amount)


def _instant(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
