"""What is sent and answered of mappings, as models."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pricecache.api.answers import Instant, Output
from pricecache.api.inputs import Input, MarketCode, SymbolText, require_instrument
from pricecache.core.broker.security_matching import MappingState
from pricecache.core.instruments import Instrument

MOST_MAPPINGS = 5000


class MappingsQuery(Input):
    state: MappingState | None = Field(None, description="Only these.")
    limit: int = Field(1000, ge=1, le=MOST_MAPPINGS, description="The most that are answered; counts are of all.")


class MappingBody(Input):
    symbol: SymbolText | None = Field(description="What it is; null: nothing, the broker's own price stands.")
    market: MarketCode | None = Field(None, description="Market of the symbol; US when the symbol names none.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.symbol is not None:
            require_instrument(self.symbol, self.market)
        return self

    @property
    def instrument(self) -> Instrument | None:
        return None if self.symbol is None else Instrument.parse(self.symbol, self.market)


class NamedOut(Output):
    symbol: str
    market: str


class SecurityOut(Output):
    id: str | None = Field(description="The broker's; null where it means nothing to others.")
    name: str | None
    kind: str
    ticker: str | None
    exchange: str | None
    isin: str | None
    cusip: str | None
    sedol: str | None
    currency: str


class DecisionOut(Output):
    symbol: str | None = Field(description="null: the broker's own price stands.")
    market: str | None
    by: Literal["user", "operator"]
    at: Instant


class MappingOut(Output):
    id: str
    state: MappingState
    symbol: str | None = Field(description="What it is priced by; null for everybody's, while it is by brokers.")
    market: str | None
    is_brokers_own: bool = Field(description="Its price is the broker's.")
    confidence: float = Field(description="0 to 1; mapped from 0.8, review from 0.5.")
    reasons: list[str] = Field(description="The evidence: code, weight, and what it is of.")
    candidate: NamedOut | None = Field(description="What it may be, for you to decide.")
    security: SecurityOut
    decision: DecisionOut | None = Field(description="What a person decided.")
    updated_at: Instant = Field(description="When it was last looked at by itself.")


class CountsOut(Output):
    mapped: int
    review: int
    unmapped: int
    overridden: int


class MappingsOut(Output):
    counts: CountsOut
    mappings: list[MappingOut]
