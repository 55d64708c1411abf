"""What is answered of portfolios, accounts, transactions, holdings and histories, as models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pricecache.api.answers import Instant, IsoDay, Output


class PortfolioOut(Output):
    id: str
    name: str
    base_currency: str
    cost_basis: Literal["fifo", "lifo", "hifo", "average"]
    cash_tracking: bool
    fees_in_cost: bool
    allow_short: bool
    quantity_basis: Literal["asTraded", "adjusted"]
    time_zone: str
    is_archived: bool
    version: int = Field(description="What `ETag` says: send it back in If-Match.")
    created_at: Instant
    updated_at: Instant


class PortfoliosOut(Output):
    portfolios: list[PortfolioOut]


class AccountOut(Output):
    id: str
    portfolio_id: str
    name: str
    institution: str | None
    kind: str | None
    is_archived: bool
    version: int
    created_at: Instant
    updated_at: Instant


class AccountsOut(Output):
    accounts: list[AccountOut]


class DeletedOut(Output):
    deleted: str = Field(description="The id.")


class TransactionOut(Output):
    id: str
    date_: str = Field(alias="date")
    type_: str = Field(alias="type")
    symbol: str | None
    market: str | None
    quantity: float | None
    price: float | None
    amount: float | None
    fees: float
    taxes: float
    currency: str | None
    fx_rate: float | None
    account_id: str | None
    to_account_id: str | None
    ratio: float | None
    ex_date: IsoDay
    acquired_on: IsoDay
    quantity_basis: Literal["asTraded", "adjusted"]
    link: str | None
    external_id: str | None
    note: str | None
    version: int
    created_at: Instant
    updated_at: Instant


class TransactionsOut(Output):
    transactions: list[TransactionOut]
    total: int = Field(description="Rows that the filters let through, those listed and all others.")


class AddedOut(Output):
    created: int
    updated: int
    unchanged: int
    ids: list[str] = Field(description="In the order of the rows.")


class LotOut(Output):
    quantity: float
    cost: float | None
    acquired_on: IsoDay
    transaction_id: str


class HoldingOut(Output):
    symbol: str
    market: str
    account_id: str | None
    quantity: float
    average_cost: float | None = Field(description="In `currency`.")
    cost: float | None
    price: float | None = Field(description="In `currency`.")
    price_date: IsoDay
    currency: str
    fx_rate: float | None
    value: float | None
    unrealized_gain_loss: float | None
    realized_gain_loss: float | None
    dividends: float | None
    fees: float | None
    weight: float | None
    reasons: dict[str, str] | None = Field(None, description="Why a field is null.")
    lots: list[LotOut] | None = Field(None, description="With explain=true.")
    explain: dict[str, Any] | None = None


class CashOut(Output):
    currency: str
    amount: float
    value: float | None


class HoldingsOut(Output):
    portfolio_id: str
    date_: str = Field(alias="date")
    base_currency: str
    total_value: float
    total_cost: float | None
    holdings: list[HoldingOut]
    cash: list[CashOut]
    reasons: dict[str, str]


class ValueRow(Output):
    date_: str = Field(alias="date")
    total_value: float | None
    total_cost: float | None
    total_realized_gain_loss: float | None
    total_unrealized_gain_loss: float | None
    total_dividends: float | None
    total_sale_proceeds: float | None
    total_original_cost: float | None
    total_gain_loss: float | None
    cash: float | None
    net_flow: float | None
    return_index: float | None
    coverage: float | None
    total_fees: float | None
    total_interest: float | None
    estimated: bool
    is_archived: bool
    reasons: dict[str, str] | None = Field(None, description="Why a field of this day is null.")


class ValueHistoryOut(Output):
    portfolio_id: str
    account_id: str | None
    base_currency: str
    source: Literal["materialized", "computed", "mixed"]
    start: IsoDay
    end: IsoDay
    history: list[ValueRow]
    provisional: list[str] = Field(description="Days that are not over yet.")
    reasons: dict[str, str] = Field(description="Why a field of every day is null.")
