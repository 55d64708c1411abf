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
    day_high: float | None = Field(description="What today's flows would have been worth at its best: see the manual.")
    day_low: float | None
    day_range_since: Instant = Field(description="From when on high and low were looked at.")
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


class SeveralSummariesOut(Output):
    portfolios: list[SummaryOut]
    total: TotalNowOut


class CloseOut(Output):
    portfolio_id: str
    date: IsoDay = Field(description="The session that closed.")
    total_value: float
    day_change: float | None
    day_high: float | None
    day_low: float | None
    captured_at: Instant


class TrackingOut(Output):
    enabled: bool = Field(description="false: ENABLE_REALTIME_PORTFOLIO is false.")
    tracking: bool
    since: Instant
    started_by: str | None
    portfolio_ids: list[str]
    instruments: int = Field(description="That they hold now, as far as they have been valued.")
    interval_seconds: float
    market_open: bool = Field(description="Whether a market of these is open.")
    last_update: Instant
    next_update: Instant = Field(description="null while no market is open.")
    next_open: Instant
    closes: list[CloseOut] = Field(description="What each portfolio was worth when its last market had closed.")


class QueueStatsOut(Output):
    enabled: bool
    pending_updates: int
    is_processing: bool
    pending_market: int
    pending_bulk: int
    pending_manual: int
    coalesced: int = Field(description="Changes that were merged into one that waited already.")
    deferred: int = Field(description="Times that an update was put off by the limit a minute.")
    computed: int
    put_back: int = Field(description="Updates whose computation failed; each is tried again.")
    batches: int
    rate_limit_windows: int = Field(description="Portfolios valued within the last minute.")
    full_windows: int = Field(description="Those of them that may not be again yet.")
    oldest_waiting_seconds: float
    latest_batch: int
    latest_batch_seconds: float | None
    nbytes: int
    waiting_for_ledger: int
    passes: int = Field(description="Computations over all portfolios that were due.")
    valued: int
    summed_up: int = Field(description="Portfolios computed alone, from their ledgers.")
    latest_pass_ms: float
    followed_portfolios: int
    tracked_portfolios: int
    tracked_users: int
    watched_instruments: int
