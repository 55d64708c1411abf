"""What is answered, as models: they describe it in the OpenAPI document, and tests hold the answers against them.

Field names are snake_case here and camelCase on the wire.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

Instant = Annotated[str | None, WithJsonSchema({"type": ["string", "null"], "format": "date-time"})]
IsoDay = Annotated[str | None, WithJsonSchema({"type": ["string", "null"], "format": "date"})]


class Output(BaseModel):
    """What is answered. More fields may come; these keep their names and meaning."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class QuoteOut(Output):
    symbol: str
    market: str
    price: float
    previous_close: float | None
    open: float | None
    day_high: float | None
    day_low: float | None
    volume: float | None
    currency: str
    as_of: Instant
    age_seconds: int
    stale: bool
    source: str


class Missing(Output):
    symbol: str
    market: str
    code: str


class LiveOut(Output):
    quotes: list[QuoteOut]
    missing: list[Missing]


class Gap(Output):
    from_: IsoDay = Field(alias="from")
    to: IsoDay
    count: int
    class_: str = Field(alias="class")
    reason: str
    next_retry: Instant


class CoverageOut(Output):
    expected: int
    present: int
    complete: bool
    ratio: float | None
    missing: list[Gap]


class SymbolCoverage(CoverageOut):
    symbol: str
    market: str
    start: IsoDay
    end: IsoDay
    last_update: Instant


class BarOut(Output):
    date_: str = Field(alias="date")
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    volume: float | None = None


class HistoryOut(Output):
    symbol: str
    market: str
    currency: str
    interval: str
    adjust: str
    start: IsoDay
    end: IsoDay
    bars: list[BarOut] = Field(
        description="With format=columns: date, open, high, low, close, volume as arrays instead."
    )
    provisional: list[str] = Field(description="Dates of bars made from live quotes, to be confirmed.")
    coverage: CoverageOut
    source: str | None
    notice: str | None
    last_update: Instant


class SymbolOut(Output):
    symbol: str
    market: str
    currency: str
    tracked: bool
    tracked_since: Instant
    tracked_by: str | None
    state: str
    reason: str | None
    code: str | None
    attempts: int
    next_retry: Instant
    last_update: Instant
    first: IsoDay
    last: IsoDay
    bars: int
    source: str | None
    notice: str | None


class SymbolsOut(Output):
    symbols: list[SymbolOut]


class TrackedOut(Output):
    symbols: list[SymbolOut]
    run: dict[str, Any] | None = Field(description="The backfill of what is new, to follow at /cache/runs/{id}.")


class UntrackedOut(Output):
    untracked: list[dict[str, str]]


class SummaryRow(Output):
    symbol: str
    market: str
    expected: int
    present: int
    ratio: float | None
    holes: dict[str, int]
    bars: int
    first: IsoDay
    last: IsoDay
    last_update: Instant


class SummaryOut(Output):
    expected: int
    present: int
    ratio: float | None
    holes: dict[str, int] = Field(description="Sessions not held, by class.")
    symbols: list[SummaryRow]


class StatusOut(Output):
    live: dict[str, Any]
    historical: dict[str, Any]
    hit_rate: float | None = Field(description="Complete and fresh reads of all reads, a fraction.")
    sync_error_rate: float | None = Field(description="Failed provider attempts of all in 24 hours, a fraction.")
    coverage: dict[str, Any]
    symbols: list[SummaryRow]
    providers: list[dict[str, Any]]
    storage: dict[str, Any]


class JobOut(Output):
    id: str
    next_run: Instant
    last_run: Instant
    last_outcome: str | None
    duration_ms: float | None
    missed: int
    running: str | None = None


class SchedulerOut(Output):
    running: bool
    jobs: list[JobOut]


class RunOut(Output):
    id: str
    job: str
    state: Literal["queued", "running", "succeeded", "failed", "interrupted"]
    requested_by: str
    parameters: dict[str, Any]
    started_at: Instant
    ended_at: Instant
    duration_ms: float | None
    done: int
    total: int | None
    percent: float | None
    counts: dict[str, int]
    failures: list[dict[str, Any]]
    failures_total: int
    message: str
    error: str | None


class RunsOut(Output):
    runs: list[RunOut]


class RejectedRow(Output):
    row: int
    code: str
    detail: str


class StoredOut(Output):
    symbol: str
    market: str
    stored: int
    unchanged: int
    rejected: list[RejectedRow]


class RetractedOut(Output):
    symbol: str
    market: str
    retracted: int


class ActionOut(Output):
    date_: str = Field(alias="date")
    kind: str
    ratio: float | None = None
    amount: float | None = None
    factor: float | None = None
    currency: str | None
    source: str
    manual: bool


class ActionsOut(Output):
    symbol: str
    market: str
    actions: list[ActionOut]


class KeyOut(Output):
    id: str
    name: str
    scopes: list[str]
    user: str | None
    created_at: Instant


class NewKeyOut(KeyOut):
    secret: str = Field(description="Shown this once.")


class KeysOut(Output):
    keys: list[KeyOut]


class SessionOut(Output):
    user: str | None


class HealthOut(Output):
    status: str
    checks: dict[str, str] | None = None


class Problem(Output):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None
    retry_after: float | None = None
