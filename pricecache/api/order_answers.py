"""What is answered of orders and of the events of portfolios, as models."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pricecache.api.answers import Instant, Output
from pricecache.core.orders import OrderSide, OrderStatus, OrderType


class OrderOut(Output):
    order_id: str
    status: OrderStatus
    side: OrderSide
    symbol: str
    market: str
    type_: OrderType | None = Field(alias="type")
    quantity: float
    limit_price: float | None
    filled_quantity: float
    average_price: float | None
    fees: float
    taxes: float
    currency: str | None
    fx_rate: float | None
    account_id: str | None
    submitted_at: Instant
    filled_at: Instant
    reason: str | None
    note: str | None
    transaction_id: str | None = Field(description="Of the purchase or sale that its fill became.")
    version: int = Field(description="What `ETag` says: send it back in If-Match.")
    created_at: Instant
    updated_at: Instant


class OrdersOut(Output):
    orders: list[OrderOut]
    next_cursor: str | None = Field(description="Of the next page; null: there is none.")


class EventsOut(Output):
    portfolio_id: str
    epoch: str = Field(description="Send it back with `since`.")
    seq: int = Field(description="Up to which number this goes: the next `since`.")
    oldest: int = Field(description="The least number that is still kept.")
    complete: bool = Field(description="There are no later ones.")
    resync: bool = Field(description="true: some after `since` are not kept, or it is of another database. Read anew.")
    events: list[dict[str, Any]] = Field(description="Each with `seq`, `type`, `at` and the fields of its type.")
