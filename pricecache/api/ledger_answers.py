"""What is answered of portfolios, accounts, transactions and holdings, as models."""

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


class SplitOut(Output):
    date_: str = Field(alias="date", description="Ex-date.")
    ratio: float


class UnitsOut(Output):
    """What speaks for which units of a purchase or sale: its price and the as-traded range of its day."""

    verdict: Literal["traded", "adjusted", "ambiguous"]
    reason: str
    splits: list[SplitOut] | None = Field(None, description="Those after the row's day.")
    factor: float | None = Field(None, description="Their product.")
    session: IsoDay = Field(None, description="Whose range it was held against.")
    low: float | None = None
    high: float | None = None


class QuestionOut(Output):
    row: int
    line: int | None = Field(None, description="Of a CSV.")
    date_: str = Field(alias="date")
    symbol: str
    market: str
    price: float
    quantity_basis: Literal["asTraded", "adjusted"] = Field(description="What it is taken to be in.")
    is_said: bool = Field(description="Whoever sent it said so.")
    units: UnitsOut


class UnitCounts(Output):
    traded: int
    adjusted: int
    ambiguous: int
    not_judged: int


class ImportedOut(Output):
    dry_run: Literal[False]
    created: int
    updated: int
    unchanged: int
    affects_from: IsoDay = Field(description="The first day whose history changed.")
    ids: list[str] = Field(description="In the order of the rows.")
    units: UnitCounts = Field(description="What the rows that changed something look to be in.")
    questions: list[QuestionOut] = Field(description="Rows that look to be in other units than was said.")
    questions_total: int


class ImportPreviewRow(Output):
    row: int
    line: int | None = Field(None, description="Of a CSV.")
    action: Literal["create", "update", "unchanged"]
    external_id: str | None
    id: str | None = Field(None, description="Of the transaction that is there.")
    before: dict[str, Any] | None = Field(None, description="Of an update: the fields that differ, as they are.")
    after: dict[str, Any] | None = Field(None, description="And as they would be.")
    quantity_basis: Literal["asTraded", "adjusted"] | None = None
    is_said: bool | None = None
    units: UnitsOut | None = None


class ImportHoldingOut(Output):
    symbol: str
    market: str
    account_id: str | None
    before: float
    after: float


class ImportPreviewOut(Output):
    dry_run: Literal[True]
    accepted: bool = Field(description="It would be taken.")
    created: int
    updated: int
    unchanged: int
    affects_from: IsoDay = Field(description="The first day whose history would change.")
    rows: list[ImportPreviewRow]
    holdings: list[ImportHoldingOut] = Field(description="Quantities at the end that would differ.")
    units: UnitCounts
    questions: list[QuestionOut] = Field(description="Rows that look to be in other units than they are taken to be.")
    questions_total: int
    errors: list[dict[str, Any]] = Field(description="Why it would be refused.")
    errors_total: int


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
    overdrawn: bool = Field(description="true: it is owed.")


class HoldingsOut(Output):
    portfolio_id: str
    date_: str = Field(alias="date")
    base_currency: str
    total_value: float | None
    total_cost: float | None
    holdings: list[HoldingOut]
    cash: list[CashOut]
    reasons: dict[str, str]
