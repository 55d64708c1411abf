"""What is sent in of portfolios, accounts and transactions. Rows of a bulk are checked one by one, all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pricecache.api.inputs import Currency, Day, Input, MarketCode, Names, RangeQuery, SymbolText
from pricecache.api.wire import invalid_input
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import CostBasis, TransactionType
from pricecache.errors import Invalid

MOST_TRANSACTIONS = 5000
_LONGEST_AMOUNT = 40


def _to_amount(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise PydanticCustomError("invalid_value", "an amount is a number, or a decimal as text")
    text = repr(value) if isinstance(value, float) else str(value).strip()
    try:
        if len(text) > _LONGEST_AMOUNT or "_" in text:
            raise InvalidOperation
        amount = Decimal(text)
    except InvalidOperation:
        raise PydanticCustomError("invalid_value", "an amount is a number, or a decimal as text") from None
    if not amount.is_finite():
        raise PydanticCustomError("not_finite", "an amount is a finite number")
    return amount


def _to_zone(value: Any) -> str:
    if not isinstance(value, str) or value not in available_timezones() or value in ("localtime", "Factory"):
        raise PydanticCustomError("unknown_time_zone", "a time zone is a name such as America/New_York or UTC")
    return value


Amount = Annotated[
    Decimal,
    BeforeValidator(_to_amount),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "example": "185.64"}]}),
]
TimeZone = Annotated[str, BeforeValidator(_to_zone), WithJsonSchema({"type": "string", "example": "UTC"})]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Identifier = Annotated[str, Field(min_length=1, max_length=64)]
QuantityBasis = Literal["asTraded", "adjusted"]


@lru_cache(4096)
def _instrument(symbol: str, market: str | None) -> Instrument:
    return Instrument.parse(symbol, market)


class PortfolioBody(Input):
    name: Name
    base_currency: Currency = Field("USD", description="Of values, costs and gains; a whole unit: GBP, not GBp.")
    cost_basis: CostBasis = Field("fifo", description="Which shares a sale takes first.")
    cash_tracking: bool = Field(False, description="true: keep a cash balance for each currency.")
    fees_in_cost: bool = Field(True, description="false: keep fees and taxes apart from cost and proceeds.")
    allow_short: bool = Field(False, description="true: more may be sold than is held.")
    quantity_basis: QuantityBasis = Field("asTraded", description="What rows are in that do not say.")
    time_zone: TimeZone = Field("UTC", description="Where its days begin and end.")

    @model_validator(mode="after")
    def _whole_unit(self) -> PortfolioBody:
        _refuse_hundredths(self.base_currency)
        return self


class PortfolioChange(Input):
    name: Name | None = None
    base_currency: Currency | None = Field(None, description="Of values, costs and gains.")
    cost_basis: CostBasis | None = None
    cash_tracking: bool | None = None
    fees_in_cost: bool | None = None
    allow_short: bool | None = None
    quantity_basis: QuantityBasis | None = None
    time_zone: TimeZone | None = None
    is_archived: bool | None = Field(None, description="true: leave it out of totals.")

    @model_validator(mode="after")
    def _says_something(self) -> PortfolioChange:
        _refuse_nothing(self)
        if self.base_currency is not None:
            _refuse_hundredths(self.base_currency)
        return self


class AccountBody(Input):
    name: Name
    institution: Name | None = Field(None, description="Where it is kept.")
    kind: Identifier | None = Field(None, description="Such as 401k, IRA, brokerage.")


class AccountChange(Input):
    name: Name | None = None
    institution: Name | None = Field(None, description="null: none.")
    kind: Identifier | None = Field(None, description="null: none.")
    is_archived: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> AccountChange:
        _refuse_nothing(self, may_be_null=frozenset({"institution", "kind"}))
        return self


class TransactionInput(Input):
    date_: Day = Field(alias="date")
    type_: TransactionType = Field(alias="type")
    symbol: SymbolText | None = Field(None, description="With its market behind a colon when `market` is not given.")
    market: MarketCode | None = None
    quantity: Amount | None = None
    price: Amount | None = Field(None, description="Of one unit, in `currency`.")
    amount: Amount | None = Field(None, description="The cash of what has no quantity.")
    fees: Amount | None = None
    taxes: Amount | None = None
    currency: Currency | None = Field(None, description="The instrument's by default, else the portfolio's.")
    fx_rate: Amount | None = Field(None, description="Base currency for one of `currency`.")
    account_id: Identifier | None = None
    to_account_id: Identifier | None = Field(None, description="Makes a transfer an internal one.")
    ratio: Amount | None = Field(None, description="Of a split: new shares for one old.")
    ex_date: Day | None = None
    acquired_on: Day | None = Field(None, description="Of shares transferred in.")
    quantity_basis: QuantityBasis | None = Field(None, description="The portfolio's by default.")
    link: Identifier | None = Field(None, description="The same for a dividend and the purchase made of it.")
    external_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="A row with one that is there already takes its place."
    )
    note: Annotated[str, Field(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _names_one(self) -> TransactionInput:
        if self.symbol is None:
            if self.market is not None:
                raise PydanticCustomError("invalid_symbol", "a market without a symbol", {"field": "symbol"})
            return self
        try:
            _instrument(self.symbol, self.market)
        except Invalid as exc:
            raise PydanticCustomError(exc.code, "{detail}", {"detail": exc.detail, "field": "symbol"}) from exc
        return self

    @property
    def instrument(self) -> Instrument | None:
        return None if self.symbol is None else _instrument(self.symbol, self.market)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row of a bulk that could not be read: everything that is wrong with it."""

    faults: list[dict[str, Any]]


def _one_by_one(value: Any, validate: Callable[[Any], TransactionInput]) -> TransactionInput | RefusedRow:
    try:
        return validate(value)
    except ValidationError as exc:
        return RefusedRow(invalid_input(exc, "body").rows)


BulkRow = Annotated[TransactionInput, WrapValidator(_one_by_one)]


class TransactionsBody(Input):
    """One transaction, or `{"transactions": [...]}`."""

    transactions: list[BulkRow] = Field(
        min_length=1, max_length=MOST_TRANSACTIONS, description="Or the fields of one of them, without this."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_one(cls, value: Any) -> Any:
        return {"transactions": [value]} if isinstance(value, dict) and "transactions" not in value else value


class TransactionsFilter(RangeQuery):
    start: Day | None = Field(None, description="First day, included.")
    end: Day | None = Field(None, description="Last day, included.")
    symbol: SymbolText | None = Field(None, description="Only of this symbol.")
    account_id: Identifier | None = Field(None, description="Only of this account, transfers to it too.")
    type_: TransactionType | None = Field(None, alias="type", description="Only of this type.")
    external_id: Annotated[str, Field(max_length=200)] | None = Field(None, description="Only the one with it.")


class TransactionsQuery(TransactionsFilter):
    limit: int = Field(500, ge=1, le=MOST_TRANSACTIONS, description="Most rows to list.")
    offset: int = Field(0, ge=0, le=10_000_000, description="Rows to pass over.")


class HoldingsQuery(Input):
    date_: Day | None = Field(None, alias="date", description="At the end of this day; today by default.")
    account_id: Identifier | None = Field(None, description="Only of this account.")
    explain: bool = Field(False, description="Lots, price and rate rows, and the formulas, with each holding.")


class WhoseQuery(Input):
    portfolio_id: Names | None = Field(None, max_length=100, description="May repeat; all of the user's by default.")
    account_id: Identifier | None = Field(None, description="Only of this account, of the one portfolio.")
    currency: Currency | None = Field(None, description="Of the total of several; that of the first by default.")
    include_archived: bool = Field(False, description="true: archived portfolios count in the total of several.")

    @model_validator(mode="after")
    def _whole_unit(self) -> WhoseQuery:
        if self.currency is not None:
            _refuse_hundredths(self.currency, "currency")
        return self


class ValueRangeQuery(WhoseQuery):
    start: Day | None = Field(None, description="First day; the first transaction's by default, and at the earliest.")
    end: Day | None = Field(None, description="Last day; today by default, and at the latest.")

    @model_validator(mode="after")
    def _in_order(self) -> ValueRangeQuery:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise PydanticCustomError("start_after_end", "start lies after end", {"field": "start"})
        return self


class ValueHistoryQuery(ValueRangeQuery):
    format: Literal["json", "columns", "csv"] = Field("json", description="Rows, an array for each field, or CSV.")
    use_materialized: bool = Field(True, description="false: compute every row from the ledger.")


class PeriodQuery(WhoseQuery):
    format: Literal["json", "columns", "csv"] = Field("json", description="Rows, an array for each field, or CSV.")
    use_materialized: bool = Field(True, description="false: compute every row from the ledger.")
    end: Day | None = Field(None, description="Last day; today by default, and at the latest.")


def _refuse_hundredths(currency: str, field: str = "baseCurrency") -> None:
    if major(currency) != currency:
        raise PydanticCustomError("bad_currency", "this is a whole unit: GBP, not GBp", {"field": field})


def _refuse_nothing(body: Input, may_be_null: frozenset[str] = frozenset()) -> None:
    given = body.model_fields_set
    if not given:
        raise PydanticCustomError("nothing_to_change", "name something to change")
    for name in given - may_be_null:
        if getattr(body, name) is None:
            raise PydanticCustomError("invalid_value", "this cannot be null", {"field": name})


class MaterializeBody(Input):
    portfolio_id: Identifier | None = Field(None, description="Only this one; all that are behind by default.")
    force: bool = Field(False, description="true: compute all of it again, whatever is stored.")


class InvalidateBody(Input):
    portfolio_id: Identifier
    from_date: Day = Field(description="What is stored of this day and after is computed again.")
    recalculate: bool = Field(False, description="true: at once, and answer when it is stored.")
