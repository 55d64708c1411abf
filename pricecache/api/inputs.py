"""What is sent in, queries and bodies, as models: they check it, and describe it in the OpenAPI document.

Field names are snake_case here and camelCase on the wire. An instrument is named as a string (`AAPL`, `SAP:DE`) or as
`{"symbol", "market"}`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from pricecache.core.actions import Adjust
from pricecache.core.currencies import is_known
from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.core.intraday import INTERVALS
from pricecache.core.markets import canonical_market
from pricecache.core.periods import PERIODS, period_start
from pricecache.errors import Invalid

MOST_SYMBOLS = 1000
MOST_BARS = 5000
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# a plus sign that was not encoded arrives as a space
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]{8,15}([Zz]|[+ -][0-9]{2}:[0-9]{2})")
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


def _to_day_or_instant(value: Any) -> date | datetime:
    if isinstance(value, str) and not _DATE.fullmatch(value):
        if _INSTANT.fullmatch(value):
            try:
                return datetime.fromisoformat(value.upper().replace(" ", "+")).astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        raise PydanticCustomError(
            "bad_date", "a date is YYYY-MM-DD, and one that exists; an instant 2026-11-20T14:30:00Z"
        )
    return _to_date(value)


def _to_market(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("unknown_market", "a market is a short code such as US")
    try:
        return canonical_market(value)
    except Invalid as exc:
        raise _refusal(exc) from exc


def _to_symbol_text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_symbol", "a symbol is text such as AAPL")
    return value


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


def split_names(value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    if all(isinstance(part, str) for part in parts):
        return [name.strip() for part in parts for name in part.split(",") if name.strip()]
    return value


_DAY_SCHEMA = WithJsonSchema({"type": "string", "format": "date"})
Day = Annotated[date, BeforeValidator(_to_date), _DAY_SCHEMA]
DayOrInstant = Annotated[
    date | datetime,
    BeforeValidator(_to_day_or_instant),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}),
]
MarketCode = Annotated[str, BeforeValidator(_to_market), WithJsonSchema({"type": "string", "example": "US"})]
SymbolText = Annotated[str, BeforeValidator(_to_symbol_text), WithJsonSchema({"type": "string", "example": "AAPL"})]
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
Names = Annotated[list[str], BeforeValidator(split_names)]


class Input(BaseModel):
    """What is sent in: nothing unknown is let pass."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, extra="forbid", arbitrary_types_allowed=True, frozen=True
    )


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


class HistoryQuery(MarketQuery):
    start: DayOrInstant | None = Field(
        None, description="First session, included; with intraday bars also the instant from which on bars begin."
    )
    end: DayOrInstant | None = Field(
        None, description="Last session, included; today by default; with intraday bars also an instant."
    )
    period: Period | None = Field(None, description="How far back from end; instead of start.")
    interval: str = Field(
        "1d",
        description="1d: daily bars; the others: bars made of sampled prices, of the last session by default.",
        json_schema_extra={"enum": ["1d", *INTERVALS]},
    )
    adjust: Adjust = Field("splits", description="none: as traded; splits; all: dividends too.")
    fields: Annotated[list[BarField], BeforeValidator(split_names)] = Field(
        default_factory=lambda: list(BAR_FIELDS), min_length=1, description="Columns wanted, comma-separated."
    )
    provisional: bool = Field(True, description="false: without bars that are not final yet.")
    format: Format = Field("json", description="json: rows; columns: arrays; csv; arrow: an Arrow stream.")
    as_known_on: DayOrInstant | None = Field(
        None, description="Bars and actions as they were known at this instant; a date means its end in UTC."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.as_known_on is not None and self.interval != "1d":
            raise PydanticCustomError("as_known_on_daily", "only daily bars are known so", {"field": "asKnownOn"})
        if self.interval != "1d" and self.interval not in INTERVALS:
            known = ", ".join(("1d", *INTERVALS))
            raise PydanticCustomError(
                "unsupported_interval", "intervals are {known}", {"field": "interval", "known": known}
            )
        for name in ("start", "end"):
            if self.interval == "1d" and isinstance(getattr(self, name), datetime):
                raise PydanticCustomError("bad_date", "daily bars are asked for by date", {"field": name})
        bounds = [bound for bound in (self.start, self.end) if bound is not None]
        if len(bounds) == 2 and len({type(bound) for bound in bounds}) == 1 and bounds[0] > bounds[1]:
            raise PydanticCustomError("start_after_end", "start lies after end", {"field": "start"})
        if self.period is not None and self.start is not None:
            raise PydanticCustomError("period_and_start", "period and start exclude each other", {"field": "period"})
        return self


class LiveQuery(MarketQuery):
    symbols: Names | None = Field(
        None, max_length=MOST_SYMBOLS, description="Comma-separated; all there are by default."
    )


class SymbolsQuery(MarketQuery):
    state: Literal["ok", "new", "pending", "failing", "quarantined", "delisted", "untracked"] | None = Field(
        None, description="Only these."
    )


class CoverageQuery(Input):
    class_: (
        Literal[
            "not_requested", "before_listing", "after_delisting", "not_due", "pending", "failing", "confirmed_absent"
        ]
        | None
    ) = Field(None, alias="class", description="Only symbols with a session of this class; the totals are of all.")
    market: MarketCode | None = Field(None, description="Only symbols of this market.")
    limit: int | None = Field(None, ge=1, le=100_000, description="Most symbols to list; all by default.")


class QuarantineQuery(Input):
    symbol: SymbolText | None = Field(None, description="Only of this symbol.")
    market: MarketCode | None = Field(None, description="Market of the symbol, or only of this market.")
    state: Literal["parked", "rejected", "approving", "approved", "dropped", "resolved"] | None = Field(
        None, description="Only in this state; parked, rejected and approving by default."
    )
    code: str | None = Field(None, max_length=64, pattern=r"^[a-z_]+$", description="Only with this reason.")
    limit: int = Field(200, ge=1, le=10_000, description="Most items to list, those seen last first.")


class UntrackQuery(MarketQuery):
    symbols: Names | None = Field(None, max_length=MOST_SYMBOLS, description="Comma-separated.")


class SearchQuery(Input):
    q: Annotated[str, BeforeValidator(lambda text: text.strip() if isinstance(text, str) else text)] = Field(
        min_length=1, max_length=64, description="A symbol in any notation, or a part of a name."
    )
    limit: int = Field(10, ge=1, le=50, description="Most results.")


class WaitQuery(Input):
    wait: float = Field(3.0, ge=0, le=60, allow_inf_nan=False, description="Seconds to wait for the finished report.")


class RunsQuery(Input):
    limit: int = Field(50, ge=1, le=500, description="Most runs to list, newest first.")
    job: str | None = Field(None, max_length=64, pattern=r"^[a-z_]+$", description="Only runs of this job.")
    all_: bool = Field(
        False, alias="all", description="Scheduled runs of live_price_update too in which nothing failed."
    )


class CorrectionsQuery(RangeQuery):
    end: Day | None = Field(None, description="Last session, included; no bound by default.")
    limit: int = Field(100, ge=1, le=5000, description="Most of bars and of actions to list, newest first.")


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


def require_instrument(symbol: str, market: str | None, field: str = "symbol") -> None:
    """Raises `PydanticCustomError`, with the code of `Invalid`, when these name no instrument."""
    try:
        Instrument.parse(symbol, market)
    except Invalid as exc:
        raise PydanticCustomError(exc.code, "{detail}", {"detail": exc.detail, "field": field}) from exc


class BackfillBody(Input):
    symbol: SymbolText = Field(description="With its market behind a colon, SAP:DE, when `market` is not given.")
    market: MarketCode | None = Field(None, description="Market of the symbol; US when the symbol names none.")
    start: Day | None = Field(None, description="First session wanted; the usual depth by default.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        require_instrument(self.symbol, self.market)
        return self

    @property
    def instrument(self) -> Instrument:
        return Instrument.parse(self.symbol, self.market)


class TrackBody(Input):
    symbols: list[Named] = Field(min_length=1, max_length=MOST_SYMBOLS)


class UntrackBody(Input):
    symbols: list[Named] | None = Field(None, max_length=MOST_SYMBOLS)


def _to_spelling(value: Any) -> Any:
    if value is None:
        return None
    try:
        Instrument.parse(_to_symbol_text(value))
    except Invalid as exc:
        raise _refusal(exc) from exc
    return value


ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Spelling = Annotated[str | None, BeforeValidator(_to_spelling)]


class RenameBody(Input):
    to: SymbolText = Field(description="The new symbol.")
    market: MarketCode | None = Field(None, description="Its market; that of the instrument by default.")
    on: Day | None = Field(None, description="The first day under the new symbol; today by default.")


def _to_known_currency(value: str) -> str:
    if not is_known(value):
        raise PydanticCustomError("bad_currency", "there is no such currency")
    return value


def _to_printable(value: str) -> str:
    if not value.isprintable():
        raise PydanticCustomError("invalid_value", "a name is of printable characters")
    return value


class CurrencyChange(Input):
    from_: Day = Field(alias="from", description="The first session with prices in it.")
    code: Annotated[Currency, AfterValidator(_to_known_currency)]


class SymbolBody(Input):
    delisted_after: Day | None = Field(None, description="The last session it traded; null: it trades on.")
    spellings: dict[ProviderName, Spelling] | None = Field(
        None, max_length=16, description="By provider, the symbol to ask it for instead; null: as everybody."
    )
    currency: CurrencyChange | None = Field(None, description="A change of the currency of its prices.")
    kind: InstrumentKind | None = Field(None, description="What it is; null: what the providers say.")
    name: Annotated[str, AfterValidator(_to_printable)] | None = Field(
        None, min_length=1, max_length=200, description="null: what the providers say."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("nothing_to_change", "name something to change")
        return self


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
    ratio: Number = Field(ge=1e-6, le=1e6, description="New shares for one old.")


class DividendInput(Input):
    date_: Day = Field(alias="date")
    kind: Literal["dividend"]
    amount: Number = Field(gt=0, description="Gross cash a share, as declared.")
    currency: Currency | None = None


class ActionsBody(Input):
    actions: list[Annotated[SplitInput | DividendInput, Field(discriminator="kind")]] = Field(
        min_length=1, max_length=MOST_SYMBOLS
    )


class ApproveBody(Input):
    ex_date: Day | None = Field(None, description="Of a suggested split: its first session in new shares.")


class VerifyBody(Input):
    rebuild: bool = Field(False, description="Write again, from the journal, what does not match it.")


class ResetBody(Input):
    budget: bool = Field(False, description="Count the requests of this UTC day anew as well.")


class KeyBody(Input):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    scopes: list[Literal["read", "ops", "admin"]] = Field(min_length=1, max_length=3)
    user: str | None = Field(None, min_length=1, max_length=128, description="The one user the key may act for.")
