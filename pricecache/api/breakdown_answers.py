"""What is asked and answered of portfolios by account, as models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pricecache.api.answers import Instant, IsoDay, Output
from pricecache.api.inputs import Day
from pricecache.api.ledger_inputs import Identifier, ValueRangeQuery


class BreakdownQuery(ValueRangeQuery):
    account_id: Identifier | None = Field(None, description="Only the row of this account, of the one portfolio.")
    date_: Day | None = Field(None, alias="date", description="At the end of this day; now by default.")
    history: bool = Field(False, description="true: with each account's days. So is what names a start or an end.")
    start: Day | None = Field(None, description="First day of the history; the first transaction's by default.")
    end: Day | None = Field(None, description="Its last day; today by default, and at the latest.")
    format: Literal["json", "columns", "csv"] = Field(
        "json", description="Days as rows, or as an array for each field; or all as CSV."
    )
    use_materialized: bool = Field(True, description="false: compute every row of days from the ledger.")


class PortionOut(Output):
    value: float | None
    share: float | None = Field(description="Of the whole value, a fraction.")
    cost: float | None
    unrealized_gain_loss: float | None
    realized_gain_loss: float | None
    dividends: float | None
    cash: float | None
    previous_value: float | None
    day_flow: float | None
    day_change: float | None
    day_change_percent: float | None = Field(description="Percent.")
    estimated: bool = Field(description="A price of it is older than it should be.")
    reasons: dict[str, str] | None = Field(None, description="Why a field is null.")


class ShareDay(Output):
    date_: str = Field(alias="date")
    total_value: float | None
    share: float | None
    reasons: dict[str, str] | None = Field(None, description="Why a field of this day is null.")


class ShareColumns(Output):
    total_value: list[float | None] = Field(description="One for each of `dates`.")
    share: list[float | None]
    reasons: dict[str, str] = Field(description="Why there is a null in a field.")


class AccountPortionOut(PortionOut):
    portfolio_id: str | None = Field(None, description="In a total of several.")
    account_id: str | None = Field(description="null: of transactions without an account.")
    name: str | None
    institution: str | None
    kind: str | None
    is_archived: bool
    history: list[ShareDay] | ShareColumns | None = Field(
        None, description="With history=true; with format=columns an array for each field, of the days in `dates`."
    )


class InstitutionOut(PortionOut):
    institution: str | None
    account_count: int


class KindOut(PortionOut):
    kind: str | None
    account_count: int


class BreakdownTotalOut(Output):
    base_currency: str
    date_: IsoDay = Field(alias="date")
    as_of: Instant = Field(description="null with `date`: it is of the end of that day.")
    provisional: bool = Field(description="The day is not over yet.")
    total_value: float | None
    total_cost: float | None
    total_unrealized_gain_loss: float | None
    total_realized_gain_loss: float | None
    total_dividends: float | None
    cash: float | None
    previous_value: float | None
    day_flow: float | None
    day_change: float | None
    day_change_percent: float | None = Field(description="Percent.")
    estimated: bool
    accounts: list[AccountPortionOut]
    institutions: list[InstitutionOut]
    kinds: list[KindOut]
    start: IsoDay = Field(None, description="Of the history, with history=true.")
    end: IsoDay = None
    dates: list[str] | None = Field(None, description="The days of the history, with format=columns.")
    reasons: dict[str, str]


class BreakdownOut(BreakdownTotalOut):
    portfolio_id: str


class SeveralBreakdownsOut(Output):
    portfolios: list[BreakdownOut]
    total: BreakdownTotalOut
