"""What is answered of reconstructions, as models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from pricecache.api.answers import Instant, Output

State = Literal["queued", "running", "waiting", "done", "failed"]


class ErrorOut(Output):
    code: str
    detail: str
    at: Instant


class LastAttemptOut(Output):
    started_at: Instant
    ended_at: Instant
    error: ErrorOut | None


class ReconstructionOut(Output):
    connection_id: str
    portfolio_id: str | None
    state: State = Field(description="waiting: failed, and tried again at nextAttempt.")
    percent: int
    stage: str
    message: str
    security: str | None = Field(description="Ticker of the security whose prices came last.")
    securities_done: int
    securities_total: int | None
    eta_seconds: float | None = Field(description="By the pace at which prices come; null while nobody can tell.")
    attempts: int
    next_attempt: Instant
    error: ErrorOut | None
    requested_at: Instant
    started_at: Instant = Field(description="Of this attempt; null while it is queued.")
    ended_at: Instant = Field(description="Of this attempt; null until it has ended.")
    last_attempt: LastAttemptOut | None = Field(description="The one before this, of whichever request.")
    position: int | None = Field(description="Of its user in the queue, from 1 on; null when it does not wait.")


class RequestedOut(ReconstructionOut):
    unchanged: bool = Field(description="true: the payload is what the last one was made of, and nothing is done.")
    reconstructions: list[ReconstructionOut] = Field(description="All that were asked for; the first stands above.")


class SecuritiesOut(Output):
    total: int
    mapped: int
    overridden: int
    review: int = Field(description="Priced by the broker until a person decides.")
    unmapped: int
    brokers_own: int = Field(description="Priced by what the broker says.")
    cached: int = Field(description="Of those that providers price: whose prices were here already.")
    unpriced: list[str] = Field(description="Mapped, and no provider has a price: the broker's stands in.")
    pending: list[str] = Field(description="Mapped, and no provider could be asked yet: prices come by themselves.")


class FindingOut(Output):
    model_config = ConfigDict(extra="allow")

    code: str
    detail: str
    date: str | None = None
    account_id: str | None = None
    symbol: str | None = None
    market: str | None = None
    quantity: float | None = None
    amount: float | None = None
    currency: str | None = None
    rows: list[str] | None = Field(None, description="Ids of the broker's rows that it is about.")
    external_id: str | None = Field(None, description="Of the adjustment in the ledger.")
    path: str | None = Field(None, description="Where in the payload.")


class ValuesOut(Output):
    broker_value: float | None = Field(description="Σ broker's price × quantity, and money.")
    value: float | None = Field(description="The same by the prices that value it here.")
    difference: float | None = Field(description="value less brokerValue.")
    reasons: dict[str, str] = Field(description="Why a value is null: no_broker_price, no_price, rate_unknown.")


class AccountWorthOut(ValuesOut):
    account_id: str
    name: str
    as_of: str = Field(description="The day of what the broker said last of it.")
    balance: float | None = Field(description="What the broker says that all of it is worth.")
    balance_currency: str


class PriceDifferenceOut(Output):
    symbol: str
    market: str
    broker_price: float
    broker_price_date: str
    broker_currency: str
    price: float
    price_date: str
    currency: str
    difference_percent: float = Field(description="How much higher price is.")


class WorthOut(ValuesOut):
    day: str
    currency: str = Field(description="The portfolio's, of all values.")
    accounts: list[AccountWorthOut]
    prices: list[PriceDifferenceOut] = Field(
        description="Those more than 1 % apart, the most different first, at most 50."
    )
    prices_total: int


class ResultOut(Output):
    from_: str | None = Field(alias="from")
    to: str
    accounts: int
    transactions: int
    created: int
    updated: int
    deleted: int
    unchanged: int
    openings: int
    adjustments: int
    short_allowed: bool
    securities: SecuritiesOut
    worth: WorthOut | None = Field(None, description="What the broker says it is worth, beside what it is worth here.")
    seconds: dict[str, Any] = Field(description="Of each stage.")
    findings: list[FindingOut]
    findings_total: int


class StatusOut(ReconstructionOut):
    result: ResultOut | None = Field(description="Of the last one that was done.")


class StatusesOut(Output):
    reconstructions: list[StatusOut]


class ReconstructionMetricsOut(Output):
    """Keys in snake_case: callers know them so. Rates are percent."""

    model_config = ConfigDict(alias_generator=None)

    total_users: int = Field(description="Who ever asked for a reconstruction.")
    reconstruction_queue_size: int = Field(description="Queued, or waiting to be tried again.")
    reconstruction_success_rate: float | None = Field(description="Of those that ended in 30 days.")
    average_processing_time_seconds: float | None = Field(
        description="Of those done in 30 days, all attempts together."
    )
    daily_snapshot_success_rate: float | None = Field(description="Of the snapshots due in 30 days.")
    api_cost_per_user: float | None = Field(description="Dollars spent on providers ever, by user.")
    cache_hit_rate: float | None = Field(
        description="Of the instruments needed in 30 days, as each request found it: whose prices were here."
    )
    reconstructions_running: int
    reconstructions_waiting: int
    reconstructions_done: int
    reconstructions_failed: int
    attempts_retried: int
    api_cost_total: float
    days: int
    reasons: dict[str, str] = Field(description="Why a value is null.")
