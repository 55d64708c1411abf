"""What is answered of histories, those that are asked for and those that are stored, as models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pricecache.api.answers import IsoDay, Output


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


class HistoryHead(Output):
    base_currency: str
    source: Literal["materialized", "computed", "mixed"]
    start: IsoDay
    end: IsoDay
    reasons: dict[str, str] = Field(description="Why a field of every day is null.")


class TotalHistoryOut(HistoryHead):
    history: list[ValueRow]


class ValueHistoryOut(TotalHistoryOut):
    portfolio_id: str
    account_id: str | None
    provisional: list[str] = Field(description="Days that are not over yet.")


class SeveralHistoriesOut(Output):
    portfolios: list[ValueHistoryOut]
    total: TotalHistoryOut


class TotalHistoryColumnsOut(HistoryHead):
    """With format=columns: an array for each field, one element a day."""

    is_archived: bool
    date_: list[str] = Field(alias="date")
    total_value: list[float | None]
    total_cost: list[float | None]
    total_realized_gain_loss: list[float | None]
    total_unrealized_gain_loss: list[float | None]
    total_dividends: list[float | None]
    total_sale_proceeds: list[float | None]
    total_original_cost: list[float | None]
    total_gain_loss: list[float | None]
    cash: list[float | None]
    net_flow: list[float | None]
    return_index: list[float | None]
    coverage: list[float | None]
    total_fees: list[float | None]
    total_interest: list[float | None]
    estimated: list[bool]


class HistoryColumnsOut(TotalHistoryColumnsOut):
    portfolio_id: str
    account_id: str | None
    provisional: list[str] = Field(description="Days that are not over yet.")


class SeveralHistoryColumnsOut(Output):
    portfolios: list[HistoryColumnsOut]
    total: TotalHistoryColumnsOut


HISTORY_SHAPES = (ValueHistoryOut, SeveralHistoriesOut, HistoryColumnsOut, SeveralHistoryColumnsOut, "text/csv")
"""Of one portfolio or of several, as rows, as columns, or as CSV."""


class DriftOut(Output):
    portfolio_id: str
    account_id: str | None
    date_: str = Field(alias="date")
    field: str
    stored: float | None
    computed: float | None


class MaterializedOut(Output):
    enabled: bool
    total_records: int = Field(description="Stored days, one for each portfolio and account.")
    portfolios: int = Field(description="With stored rows.")
    portfolios_with_data: int = Field(description="With transactions.")
    days: int
    start: IsoDay
    end: IsoDay
    coverage: float | None = Field(description="Days stored of those up to yesterday, a fraction.")
    data_bytes: int
    disk_bytes: int
    bytes_per_record: float | None
    pending: int = Field(description="Portfolios that wait to be stored.")
    stored: int = Field(description="Times one was stored since this daemon started.")
    failures: int
    sampled: int = Field(description="Stored histories held against computed ones since this daemon started.")
    drift: int = Field(description="Those that differed: 0, or there is a fault.")
    last_drift: DriftOut | None


class InvalidatedOut(Output):
    portfolio_id: str
    from_date: str
    recalculated: bool
