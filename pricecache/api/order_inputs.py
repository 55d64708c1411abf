"""What is sent in of orders, and what is asked of them and of the events of portfolios."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from pricecache.api.inputs import Currency, Input, MarketCode, SymbolText, require_instrument
from pricecache.api.ledger_inputs import Amount, Identifier
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import ZERO
from pricecache.core.orders import OrderReport, OrderSide, OrderStatus, OrderType
from pricecache.core.stream_events import CHANNELS, Channel

MOST_ORDERS = 500
MOST_EVENTS = 1000
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1900, 2999


def _to_instant(value: Any) -> datetime:
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            found = datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        else:
            if _FIRST_YEAR <= found.year <= _LAST_YEAR:
                return found
    raise PydanticCustomError("bad_instant", "an instant is 2026-11-20T14:30:00Z, with an offset if it is not UTC")


def _to_channels(value: Any) -> list[str]:
    names = [name.strip() for part in value for name in part.split(",") if name.strip()]
    if strangers := [name for name in names if name not in CHANNELS]:
        detail = f"there is no channel {strangers[0][:40]}; channels are {', '.join(CHANNELS)}"
        raise PydanticCustomError("unknown_channel", "{detail}", {"detail": detail})
    return names


When = Annotated[datetime, BeforeValidator(_to_instant), WithJsonSchema({"type": "string", "format": "date-time"})]


class OrderBody(Input):
    status: OrderStatus
    side: OrderSide
    symbol: SymbolText = Field(description="With its market behind a colon when `market` is not given.")
    market: MarketCode | None = None
    type_: OrderType | None = Field(None, alias="type")
    quantity: Amount = Field(description="Of the whole order.")
    limit_price: Amount | None = None
    filled_quantity: Amount | None = Field(
        None, description="So far; of a filled order all of it, else none by default."
    )
    average_price: Amount | None = Field(None, description="Of one unit of what is filled, in `currency`.")
    fees: Amount | None = None
    taxes: Amount | None = None
    currency: Currency | None = Field(None, description="The instrument's by default.")
    fx_rate: Amount | None = Field(None, description="Base currency for one of `currency`.")
    account_id: Identifier | None = None
    submitted_at: When | None = None
    filled_at: When | None = Field(None, description="Its date in the portfolio's time zone is the transaction's.")
    reason: Annotated[str, Field(max_length=500)] | None = Field(None, description="Why it was refused or cancelled.")
    note: Annotated[str, Field(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _names_one(self) -> OrderBody:
        require_instrument(self.symbol, self.market)
        return self

    @property
    def report(self) -> OrderReport:
        filled = self.filled_quantity
        if filled is None:
            filled = self.quantity if self.status == "filled" else ZERO
        return OrderReport(
            self.status,
            self.side,
            Instrument.parse(self.symbol, self.market),
            self.quantity,
            self.type_,
            self.limit_price,
            filled,
            self.average_price,
            self.fees or ZERO,
            self.taxes or ZERO,
            self.currency,
            self.fx_rate,
            self.account_id or "",
            None if self.submitted_at is None else self.submitted_at.timestamp(),
            None if self.filled_at is None else self.filled_at.timestamp(),
            self.reason or None,
            self.note or None,
        )


class OrdersQuery(Input):
    status: Literal["open", "all"] = Field("all", description="open: only those that may still be filled.")
    limit: int = Field(100, ge=1, le=MOST_ORDERS, description="Most orders to list.")
    cursor: Identifier | None = Field(None, description="The `nextCursor` of the page before.")


class EventsQuery(Input):
    since: int | None = Field(
        None, ge=0, le=1 << 53, description="The `seq` of the answer before. Without it: only where things stand."
    )
    epoch: Identifier | None = Field(None, description="The `epoch` of the answer before.")
    limit: int = Field(500, ge=1, le=MOST_EVENTS, description="Most events to answer with.")
    channels: Annotated[list[Channel], BeforeValidator(_to_channels)] | None = Field(
        None, description="Only of these, comma-separated; all by default."
    )
