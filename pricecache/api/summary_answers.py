"""What is answered of the present state of portfolios, as models."""

from __future__ import annotations

from pydantic import Field

from pricecache.api.answers import Instant, IsoDay, Output


class CashNowOut(Output):
    currency: str
    amount: float
    value: float | None
    overdrawn: bool = Field(description="true: it is owed.")


class ChangePartsOut(Output):
    positions: float | None
    cash: float | None = Field(description="What exchange rates did to the cash.")
    other: float | None = Field(description="Interest less fees and taxes that belong to no position.")


class ChangeOut(Output):
    day_change: float | None
    day_change_percent: float | None = Field(description="Percent.")
    change_from_open: float | None
    change_from_open_percent: float | None = Field(description="Percent.")


class CellOut(ChangeOut):
    quantity: float
    value: float | None
    previous_value: float | None
    cost: float | None
    unrealized_gain_loss: float | None
    realized_gain_loss: float | None
    dividends: float | None
    weight: float | None
    reasons: dict[str, str] | None = Field(None, description="Why a field is null.")


class AccountCellOut(CellOut):
    account_id: str | None


class PositionNowOut(CellOut):
    symbol: str
    market: str
    currency: str
    price: float | None = Field(description="In `currency`.")
    price_time: Instant
    price_date: IsoDay = Field(description="The session the price is of.")
    source: str | None = Field(description="Whose quote the price is; null: a stored close.")
    stale: bool
    session: IsoDay = Field(description="The market's latest session: `dayChange` is that of it.")
    previous_session: IsoDay
    accounts: list[AccountCellOut] | None = Field(None, description="With by=account.")


class TotalNowOut(ChangeOut):
    as_of: Instant
    base_currency: str
    total_value: float | None
    total_cost: float | None
    total_gain_loss: float | None
    total_realized_gain_loss: float | None
    total_unrealized_gain_loss: float | None
    total_dividends: float | None
    total_fees: float | None
    total_interest: float | None
    cash: float | None
    previous_value: float | None
    day_flow: float | None
    day_high: float | None
    day_low: float | None
    stale: bool
    oldest_price_time: Instant
    reasons: dict[str, str]


class SummaryOut(TotalNowOut):
    portfolio_id: str
    account_id: str | None
    name: str
    is_archived: bool
    cash_balances: list[CashNowOut]
    day_change_parts: ChangePartsOut
    positions: list[PositionNowOut]
