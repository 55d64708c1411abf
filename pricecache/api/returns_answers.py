"""What is answered of returns, as models."""

from __future__ import annotations

from pydantic import Field

from pricecache.api.answers import IsoDay, Output


class FlowOut(Output):
    date_: str = Field(alias="date")
    inflow: float
    outflow: float


class PaymentOut(Output):
    date_: str = Field(alias="date")
    amount: float


class ReturnInputsOut(Output):
    formulas: dict[str, str]
    start_value: float | None
    end_value: float | None
    flows: list[FlowOut] | None = Field(description="As the links of the time-weighted return take them, gross.")
    payments: list[PaymentOut] = Field(description="Of the XIRR; what was paid in is negative.")
    undefined_days: list[str] = Field(description="Days without capital: they have no link.")
    sessions: int = Field(description="How many the volatility is over.")


class ReturnOut(Output):
    start: IsoDay
    end: IsoDay
    twr: float | None
    twr_annualized: float | None
    irr: float | None
    max_drawdown: float | None
    volatility: float | None
    start_value: float | None
    end_value: float | None
    net_flow: float | None
    gain: float | None
    reasons: dict[str, str]
    explain: ReturnInputsOut | None = Field(None, description="With explain=true.")


class AccountReturnOut(ReturnOut):
    account_id: str | None
    symbol: str | None = None
    market: str | None = None


class PositionReturnOut(AccountReturnOut):
    symbol: str
    market: str


class BenchmarkOut(Output):
    symbol: str
    market: str
    dividends: bool = Field(description="Whether they count, as if they were reinvested.")
    twr: float | None
    twr_annualized: float | None
    max_drawdown: float | None
    volatility: float | None
    excess_return: float | None = Field(description="The portfolio's return less this one's.")
    excess_return_annualized: float | None
    tracking_error: float | None
    correlation: float | None
    reasons: dict[str, str]


class TotalPerformanceOut(ReturnOut):
    base_currency: str
    symbol: str | None = Field(None, description="Of the one position asked for.")
    market: str | None = None
    benchmark: BenchmarkOut | None = Field(None, description="With benchmark=.")
    accounts: list[AccountReturnOut] | None = Field(None, description="With by=account.")
    positions: list[PositionReturnOut] | None = Field(None, description="With by=position.")


class PerformanceOut(TotalPerformanceOut):
    portfolio_id: str
    account_id: str | None


class SeveralPerformancesOut(Output):
    portfolios: list[PerformanceOut]
    total: TotalPerformanceOut
