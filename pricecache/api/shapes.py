"""What goes in and comes out, as models: they check the input, and describe both in the OpenAPI document.

Field names are snake_case here and camelCase on the wire. An instrument is named as a string (`AAPL`, `SAP:DE`) or as
`{"symbol", "market"}`.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from pricecache.core.actions import Adjust
from pricecache.core.instruments import Instrument, canonical_market, canonical_symbol
from pricecache.core.periods import PERIODS, period_start
from pricecache.errors import Invalid

MOST_SYMBOLS = 1000
MOST_BARS = 5000
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CURRENCY = re.compile(r"[A-Z]{2}[A-Za-z]|[A-Z]{3,5}")


def _refusal(error: Invalid) -> PydanticCustomError:
    return PydanticCustomError(error.code, "{detail}", {"detail": error.detail})


def _to_date(value: Any) -> date:
    if isinstance(value, date):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("bad_date", "a date is YYYY-MM-DD, and one that exists")


def _to_market(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("unknown_market", "a market is a short code such as US")
    try:
        return canonical_market(value)
    except Invalid as exc:
        raise _refusal(exc) from exc


def _to_symbol(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_symbol", "a symbol is text such as AAPL")
    try:
        return canonical_symbol(value)
    except Invalid as exc:
        raise _refusal(exc) from exc


def _to_instrument(value: Any) -> Instrument:
    market = None
    if isinstance(value, dict) and value.keys() <= {"symbol", "market"}:
        value, market = value.get("symbol"), value.get("market")
    if not isinstance(value, str) or not (market is None or isinstance(market, str)):
        raise PydanticCustomError("invalid_symbol", 'an instrument is "AAPL", "SAP:DE" or {{"symbol", "market"}}')
    try:
        return Instrument.parse(value, market)
    except Invalid as exc:
        raise _refusal(exc) from exc


def _to_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("invalid_value", "true and false are no numbers")
    return value


def _to_period(value: Any) -> str:
    try:
        period_start(str(value), date(2000, 1, 1))
    except Invalid as exc:
        raise _refusal(exc) from exc
    return str(value).upper()


def _to_currency(value: Any) -> str:
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise PydanticCustomError("bad_currency", "a currency is a code such as USD, or GBp for hundredths")
    return value


def _split(value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    if all(isinstance(part, str) for part in parts):
        return [name.strip() for part in parts for name in part.split(",") if name.strip()]
    return value


_DAY_SCHEMA = WithJsonSchema({"type": "string", "format": "date"})
Day = Annotated[date, BeforeValidator(_to_date), _DAY_SCHEMA]
MarketCode = Annotated[str, BeforeValidator(_to_market), WithJsonSchema({"type": "string", "example": "US"})]
Symbol = Annotated[str, BeforeValidator(_to_symbol), WithJsonSchema({"type": "string", "example": "AAPL"})]
Number = Annotated[float, BeforeValidator(_to_number), Field(allow_inf_nan=False)]
Currency = Annotated[str, BeforeValidator(_to_currency), WithJsonSchema({"type": "string", "example": "USD"})]
Period = Annotated[str, BeforeValidator(_to_period), WithJsonSchema({"type": "string", "enum": list(PERIODS)})]
Named = Annotated[
    Instrument,
    BeforeValidator(_to_instrument),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "example": "SAP:DE"},
                {
                    "type": "object",
                    "properties": {"symbol": {"type": "string"}, "market": {"type": "string"}},
                    "required": ["symbol"],
                },
            ]
        }
    ),
]
Names = Annotated[list[str], BeforeValidator(_split)]
Instant = Annotated[str | None, WithJsonSchema({"type": ["string", "null"], "format": "date-time"})]
IsoDay = Annotated[str | None, WithJsonSchema({"type": ["string", "null"], "format": "date"})]


class Input(BaseModel):
    """What is sent in: nothing unknown is let pass."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, extra="forbid", arbitrary_types_allowed=True, frozen=True
    )


class Output(BaseModel):
    """What is answered. More fields may come; these keep their names and meaning."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


# --- queries


class MarketQuery(Input):
    market: MarketCode | None = Field(None, description="Market of the symbol; US when the symbol names none.")


class RangeQuery(MarketQuery):
    start: Day | None = Field(None, description="First session, included.")
    end: Day | None = Field(None, description="Last session, included; today by default.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise PydanticCustomError("start_after_end", "start lies after end", {"field": "start"})
        return self


Format = Literal["json", "columns", "csv", "arrow"]
BarField = Literal["open", "high", "low", "close", "volume"]
BAR_FIELDS: tuple[BarField, ...] = ("open", "high", "low", "close", "volume")


class HistoryQuery(RangeQuery):
    period: Period | None = Field(None, description="How far back from end; instead of start.")
    interval: str = Field("1d", description="Only 1d: daily bars.", json_schema_extra={"enum": ["1d"]})
    adjust: Adjust = Field("splits", description="none: as traded; splits; all: dividends too.")
    fields: Annotated[list[BarField], BeforeValidator(_split)] = Field(
        default_factory=lambda: list(BAR_FIELDS), min_length=1, description="Columns wanted, comma-separated."
    )
    format: Format = Field("json", description="json: rows; columns: arrays; csv; arrow: an Arrow stream.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.interval != "1d":
            raise PydanticCustomError("unsupported_interval", "the only interval is 1d", {"field": "interval"})
        if self.period is not None and self.start is not None:
            raise PydanticCustomError("period_and_start", "period and start exclude each other", {"field": "period"})
        return self


class LiveQuery(MarketQuery):
    symbols: Names | None = Field(
        None, max_length=MOST_SYMBOLS, description="Comma-separated; all there are by default."
    )


class SymbolsQuery(MarketQuery):
    state: Literal["ok", "new", "failing", "delisted", "untracked"] | None = Field(None, description="Only these.")


class UntrackQuery(MarketQuery):
    symbols: Names | None = Field(None, max_length=MOST_SYMBOLS, description="Comma-separated.")


class WaitQuery(Input):
    wait: float = Field(3.0, ge=0, le=60, allow_inf_nan=False, description="Seconds to wait for the finished report.")


class RunsQuery(Input):
    limit: int = Field(50, ge=1, le=500, description="Most runs to list, newest first.")
    job: str | None = Field(None, max_length=64, pattern=r"^[a-z_]+$", description="Only runs of this job.")


class RetractActionsQuery(MarketQuery):
    date_: Day | None = Field(None, alias="date", description="Ex-date; all manual ones by default.")
    kind: Literal["split", "dividend", "rebase"] | None = Field(None, description="Kind; all by default.")


# --- bodies


class Nothing(Input):
    """No input: an empty body or `{}`."""


class RefreshBody(Input):
    symbols: list[Named] | None = Field(
        None, min_length=1, max_length=MOST_SYMBOLS, description="All tracked ones by default."
    )


class BackfillBody(Input):
    symbol: Symbol
    market: MarketCode = "US"
    start: Day | None = Field(None, description="First session wanted; the usual depth by default.")


class TrackBody(Input):
    symbols: list[Named] = Field(min_length=1, max_length=MOST_SYMBOLS)


class UntrackBody(Input):
    symbols: list[Named] | None = Field(None, max_length=MOST_SYMBOLS)


class BarInput(Input):
    date_: Day = Field(alias="date")
    close: Number
    open: Number | None = None
    high: Number | None = None
    low: Number | None = None
    volume: Number | None = None


class BarsBody(Input):
    currency: Currency | None = Field(None, description="Of the prices; the instrument's by default.")
    bars: list[BarInput] = Field(min_length=1, max_length=MOST_BARS)


class SplitInput(Input):
    date_: Day = Field(alias="date")
    kind: Literal["split"]
    ratio: Number = Field(gt=0, le=1e6, description="New shares for one old.")


class DividendInput(Input):
    date_: Day = Field(alias="date")
    kind: Literal["dividend"]
    amount: Number = Field(gt=0, description="Gross cash a share, as declared.")
    currency: Currency | None = None


class ActionsBody(Input):
    actions: list[Annotated[SplitInput | DividendInput, Field(discriminator="kind")]] = Field(
        min_length=1, max_length=MOST_SYMBOLS
    )


class VerifyBody(Input):
    rebuild: bool = Field(False, description="Write again, from the journal, what does not match it.")


class KeyBody(Input):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    scopes: list[Literal["read", "ops", "admin"]] = Field(min_length=1, max_length=3)
    user: str | None = Field(None, min_length=1, max_length=128, description="The one user the key may act for.")


# --- answers


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
