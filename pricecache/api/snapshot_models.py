"""What is asked and answered of snapshots, as models."""

from __future__ import annotations

from pydantic import Field

from pricecache.api.answers import Instant, IsoDay, Output
from pricecache.api.inputs import Day, Input
from pricecache.api.ledger_inputs import ValueRangeQuery


class CaptureBody(Input):
    date_: Day | None = Field(
        None, alias="date", description="This day again; by default every day that closed and is not captured."
    )


class SnapshotsQuery(ValueRangeQuery):
    start: Day | None = Field(None, description="First day; 30 days before the last by default.")


class SnapshotFigures(Output):
    total_value: float | None
    total_cost: float | None
    cash: float | None
    net_flow: float | None = Field(description="What came in less what went out since `previousDate`.")
    day_change: float | None
    day_change_percent: float | None = Field(description="Percent.")
    coverage: float = Field(description="How much of the value has a price of that day of its own, 0 to 1.")
    reasons: dict[str, str] | None = Field(None, description="Why a field is null, or of less than all there is.")


class AccountSnapshot(SnapshotFigures):
    account_id: str | None


class SnapshotRow(SnapshotFigures):
    date_: str = Field(alias="date")
    previous_date: str = Field(description="The day whose close the change is since.")
    accounts: list[AccountSnapshot]
    is_final: bool = Field(description="false: a price of that day is not in, or the day is not over everywhere.")
    estimated: bool = Field(description="true: something held had no price of that day when it was captured.")
    is_restated: bool = Field(description="true: the history of that day is another now than was captured.")
    captured_value: float | None = Field(description="The value that was captured.")
    captured_at: Instant


class SnapshotsOut(Output):
    portfolio_id: str
    base_currency: str
    is_archived: bool
    start: IsoDay
    end: IsoDay
    snapshots: list[SnapshotRow] = Field(description="Days that were captured, oldest first.")


class TotalSnapshotRow(Output):
    date_: str = Field(alias="date")
    total_value: float | None
    total_cost: float | None
    cash: float | None
    coverage: float = Field(description="How much of the value has a price of that day of its own, 0 to 1.")
    captured: int = Field(description="How many of the portfolios were captured that day.")
    is_final: bool = Field(description="All of those are.")
    reasons: dict[str, str] | None = Field(None, description="Why a field is null, or of less than all there is.")


class TotalSnapshotsOut(Output):
    base_currency: str
    start: IsoDay
    end: IsoDay
    snapshots: list[TotalSnapshotRow] = Field(description="Days on which one of them was captured, oldest first.")


class SeveralSnapshotsOut(Output):
    portfolios: list[SnapshotsOut]
    total: TotalSnapshotsOut
