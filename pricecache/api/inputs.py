"""What is sent in, queries and bodies, as models: they check it, and describe it in the OpenAPI document.

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
from pricecache.core.instruments import Instrument, canonical_market
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


def _split(value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    if all(isinstance(part, str) for part in parts):
        return [name.strip() for part in parts for name in part.split(",") if name.strip()]
    return value


_DAY_SCHEMA = WithJsonSchema({"type": "string", "format": "date"})
Day = Annotated[date, BeforeValidator(_to_date), _DAY_SCHEMA]
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
Names = Annotated[list[str], BeforeValidator(_split)]


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
    all_: bool = Field(
        False, alias="all", description="Scheduled runs of live_price_update too in which nothing failed."
    )


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
    symbol: SymbolText = Field(description="With its market behind a colon, SAP:DE, when `market` is not given.")
    market: MarketCode | None = Field(None, description="Market of the symbol; US when the symbol names none.")
    start: Day | None = Field(None, description="First session wanted; the usual depth by default.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        try:
            Instrument.parse(self.symbol, self.market)
        except Invalid as exc:
            raise PydanticCustomError(exc.code, "{detail}", {"detail": exc.detail, "field": "symbol"}) from exc
        return self

    @property
    def instrument(self) -> Instrument:
        return Instrument.parse(self.symbol, self.market)


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


class VerifyBody(Input):
    rebuild: bool = Field(False, description="Write again, from the journal, what does not match it.")


class KeyBody(Input):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    scopes: list[Literal["read", "ops", "admin"]] = Field(min_length=1, max_length=3)
    user: str | None = Field(None, min_length=1, max_length=128, description="The one user the key may act for.")
