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
    requested: str | None = Field(None, description="The former symbol it was asked for by.")
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
    attempts: int = Field(0, description="How often it was asked for in vain.")
    next_retry: Instant


class CoverageOut(Output):
    expected: int
    present: int
    complete: bool
    ratio: float | None
    missing: list[Gap]


class DivergenceOut(Output):
    kind: Literal["provider_has_less", "other_currency", "providers_disagree", "action_withdrawn", "record_lost"]
    provider: str
    detail: str
    count: int = Field(description="Sessions concerned; 0 of a whole answer.")
    from_: IsoDay = Field(alias="from")
    to: IsoDay
    since: Instant
    last_seen: Instant


class SymbolCoverage(CoverageOut):
    symbol: str
    market: str
    start: IsoDay
    end: IsoDay
    divergences: list[DivergenceOut] = Field(description="Where a provider and what is held part; nothing is deleted.")
    last_update: Instant


class SampleCoverageOut(Output):
    """Of intraday bars."""

    from_: Instant = Field(alias="from", description="The first sample of the range that is kept.")
    to: Instant = Field(description="The last one.")
    samples: int
    expected: int = Field(description="Bars that could be there by now.")
    present: int = Field(description="Bars in which a price was sampled.")
    complete: bool
    reason: str | None


class BarOut(Output):
    date_: str | None = Field(None, alias="date", description="Session of a daily bar.")
    time: Instant = Field(None, description="When an intraday bar begins, in UTC.")
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    volume: float | None = None


class CurrencyOut(Output):
    from_: IsoDay = Field(alias="from", description="null: from the beginning.")
    currency: str


class HistoryOut(Output):
    symbol: str
    market: str
    currency: str
    interval: str
    adjust: str
    start: str | None = Field(description="A date; with intraday bars an instant.")
    end: str | None = Field(description="A date; with intraday bars an instant.")
    bars: list[BarOut] = Field(
        description="With format=columns: date (or time), open, high, low, close, volume as arrays instead."
    )
    provisional: list[str] = Field(
        description="Dates of bars made from live quotes, to be confirmed; intraday the time of the running one."
    )
    manual: list[str] = Field([], description="Dates of bars put in by hand; no provider's bar replaces them.")
    coverage: CoverageOut | SampleCoverageOut
    source: str | None
    notice: str | None
    as_known_on: Instant = Field(None, description="Only where it was asked for: the instant this was known at.")
    requested: str | None = Field(None, description="The former symbol it was asked for by.")
    currencies: list[CurrencyOut] | None = Field(None, description="When prices were in more than one.")
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


class AliasOut(Output):
    symbol: str
    market: str
    from_: IsoDay = Field(alias="from")
    to: IsoDay


class SymbolDetails(SymbolOut):
    requested: str | None = Field(None, description="The former symbol it was asked for by.")
    id: int
    kind: str | None
    name: str | None
    aliases: list[AliasOut] = Field(description="Symbols it had before; `to` is the last day.")
    spellings: dict[str, str] = Field(description="By provider, the symbol it is asked for instead.")
    currencies: list[CurrencyOut]
    delisted_after: IsoDay
    calendar: str
    time_zone: str
    market_name: str


class SearchRow(Output):
    symbol: str
    market: str
    name: str | None
    kind: str | None
    currency: str
    tracked: bool
    source: str = Field(description="pricecache, or the provider that knows it.")


class UnaskedProvider(Output):
    name: str
    code: str


class SearchOut(Output):
    query: str
    results: list[SearchRow]
    providers: list[UnaskedProvider] = Field(description="Who could not be asked, and why.")


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
    attempts: int = Field(description="Calls that failed in a row.")
    next_retry: Instant
    code: str | None
    reason: str | None
    parked: int = Field(description="Bars that await review.")
    divergences: int


class SummaryOut(Output):
    expected: int
    present: int
    ratio: float | None
    holes: dict[str, int] = Field(description="Sessions not held, by class.")
    divergences: dict[str, int] = Field(description="Symbols with a divergence, by kind.")
    symbols: list[SummaryRow]


class QuarantineItemOut(Output):
    id: str
    symbol: str
    market: str
    kind: Literal["bar", "answer"]
    session: IsoDay
    code: str
    detail: str
    source: str
    state: Literal["parked", "rejected", "approving", "approved", "dropped", "resolved"]
    bar: dict[str, float | None] | None = Field(description="As traded; null of a whole answer.")
    ratio: float | None = Field(description="Of a whole answer: its prices divided by those held.")
    suggestion: dict[str, Any] | None = Field(description="The split that would explain the ratio.")
    first_seen: Instant
    last_seen: Instant
    times: int
    decided_by: str | None
    decided_at: Instant


class QuarantinedSymbolOut(Output):
    symbol: str
    market: str
    since: Instant
    not_found: int = Field(description="How often in a row no provider knew it.")
    reason: str | None
    next_retry: Instant


class QuarantineOut(Output):
    items: list[QuarantineItemOut]
    symbols: list[QuarantinedSymbolOut] = Field(
        description="Symbols that count as dead, since no provider knows them; with state or code in the query none."
    )
    counts: dict[str, dict[str, int]] = Field(description="All items by state, and the open ones by code.")


class StatusOut(Output):
    live: dict[str, Any]
    historical: dict[str, Any]
    hit_rate: float | None = Field(description="Complete and fresh reads of all reads, a fraction.")
    sync_error_rate: float | None = Field(description="Failed provider attempts of all in 24 hours, a fraction.")
    coverage: dict[str, Any]
    symbols: list[SummaryRow]
    providers: list[dict[str, Any]]
    storage: dict[str, Any]


class BreakerOut(Output):
    state: Literal["closed", "open", "halfOpen"]
    failures: int = Field(description="Failures of the provider in a row.")
    opened_at: Instant
    until: Instant


class LaneOut(Output):
    spent: int
    remaining: int | None


class BudgetOut(Output):
    per_day: int | None
    spent: int
    remaining: int | None = Field(description="Requests that quotes may still make today; null without a budget.")
    resets_at: Instant
    by_lane: dict[str, LaneOut] = Field(description="The same for live, user, heal, deep and search.")


class RateOut(Output):
    per_second: float
    burst: int
    concurrency: int


class ProviderOut(Output):
    name: str
    position: int
    capabilities: list[str]
    state: Literal["ok", "failing", "coolingDown", "paused", "budgetSpent"]
    breaker: BreakerOut
    cool_down_until: Instant
    budget: BudgetOut
    requests: int = Field(description="Requests ever made, by all daemons.")
    spent_dollars: float
    calls24h: int = Field(alias="calls24h")
    errors24h: int = Field(alias="errors24h")
    errors_by_code24h: dict[str, int] = Field(alias="errorsByCode24h")
    error_rate24h: float | None = Field(alias="errorRate24h")
    rate: RateOut
    price: float = Field(description="Dollars a request.")
    last_success_at: Instant
    last_error_at: Instant
    last_error_code: str | None
    control_symbol: str | None
    notes: list[str]


class ProvidersOut(Output):
    providers: list[ProviderOut]


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


class BarVersion(Output):
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: float | None
    source: str
    fetched_at: Instant
    committed_at: Instant
    revision: int


class CorrectionOut(Output):
    date_: str = Field(alias="date")
    revision: int
    at: Instant
    kind: Literal["replaced", "retracted", "approved", "manual"]
    from_: BarVersion = Field(alias="from")
    to: BarVersion | None


class ActionFacts(Output):
    ratio: float | None = None
    amount: float | None = None
    factor: float | None = None
    currency: str | None
    source: str
    manual: bool


class ActionCorrectionOut(Output):
    date_: str = Field(alias="date")
    action: Literal["split", "dividend", "rebase"]
    revision: int
    at: Instant
    kind: Literal["replaced", "retracted", "approved", "manual"]
    from_: ActionFacts = Field(alias="from")
    to: ActionFacts | None


class CorrectionsOut(Output):
    symbol: str
    market: str
    corrections: list[CorrectionOut]
    actions: list[ActionCorrectionOut]
    total: int = Field(description="Corrections of bars in the range, those listed and all others.")
    actions_total: int


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
