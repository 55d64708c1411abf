"""What is asked of returns and of the present state of portfolios."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pricecache.api.inputs import Day, Input, MarketCode, Period, SymbolText, require_instrument
from pricecache.api.ledger_inputs import ValueRangeQuery, WhoseQuery


class PerformanceQuery(ValueRangeQuery):
    start: Day | None = Field(None, description="What it begins with is the value at the end of this day.")
    period: Period | None = Field(None, description="How far back from end; instead of start.")
    by: Literal["account", "position"] | None = Field(None, description="Rows for each besides.")
    symbol: SymbolText | None = Field(None, description="Only of this position, sold ones included.")
    market: MarketCode | None = Field(None, description="Of `symbol`.")
    benchmark: SymbolText | None = Field(None, description="Beside any symbol kept here: `SYMBOL` or `SYMBOL:MARKET`.")
    benchmark_dividends: bool = Field(False, description="true: as if its dividends were reinvested.")
    explain: bool = Field(False, description="Formulas, flows by day, payments of the XIRR, days without a link.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.period is not None and self.start is not None:
            raise PydanticCustomError("period_and_start", "period and start exclude each other", {"field": "period"})
        if self.symbol is None and self.market is not None:
            raise PydanticCustomError("invalid_symbol", "a market without a symbol", {"field": "symbol"})
        for field, symbol, market in (("symbol", self.symbol, self.market), ("benchmark", self.benchmark, None)):
            if symbol is not None:
                require_instrument(symbol, market, field)
        return self


class SummaryQuery(WhoseQuery):
    by: Literal["account"] | None = Field(None, description="account: each position's accounts besides.")


class RefreshQuery(Input):
    prices: bool = Field(False, description="true: ask the providers for the prices of what it holds first.")
