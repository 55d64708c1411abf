"""What a portfolio holds, and was worth on each day."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pricecache.api.call import Answer, Call
from pricecache.api.portfolios import portfolio_of
from pricecache.api.transactions import exact
from pricecache.api.whose import asked_for, counted, require_account
from pricecache.api.wire import camel, iso_day
from pricecache.core.bars import day_number, day_of
from pricecache.core.currencies import digits
from pricecache.core.periods import period_start
from pricecache.core.rows import rows

if TYPE_CHECKING:
    from pricecache.core.history import History
    from pricecache.core.holdings import CashHolding, Holding
    from pricecache.core.lots import Lot
    from pricecache.portfolio.history import HistoryRange
    from pricecache.stores.portfolios import Portfolio

IN_THREAD_FROM = 400
"""Days from which on the rows of an answer are put together in a thread."""
AVERAGE_DIGITS = 6
"""Of an average cost, which is for one unit."""
_NO_CASH = {"cash": "cash_not_tracked"}
_DIGIT = Decimal(1)


async def holdings(call: Call) -> Answer:
    portfolio = await portfolio_of(call)
    await require_account(call, portfolio)
    day = None if call.query.date_ is None else day_number(call.query.date_)
    found, _ = await call.services.histories.holdings(portfolio, day, call.query.account_id)
    base = portfolio.rules.currency
    held = [_holding_fields(one, base, call.query.explain) for one in found.holdings]
    cash = [_cash_fields(one, base) for one in found.cash]
    costs = [_money(one.cost, base) for one in found.holdings]
    values = [_money(one.value, base) for one in found.holdings] + [_money(one.value, base) for one in found.cash]
    return Answer(
        {
            "portfolioId": portfolio.id,
            "date": iso_day(found.day),
            "baseCurrency": base,
            "totalValue": _sum([value for value in values if value is not None]),
            "totalCost": None if None in costs else _sum([cost for cost in costs if cost is not None]),
            "holdings": held,
            "cash": cash,
            "reasons": {
                **({} if portfolio.rules.cash_tracking else _NO_CASH),
                **({"totalCost": "rate_unknown"} if None in costs else {}),
                **({"totalValue": "some_values_unknown"} if None in values else {}),
            },
        }
    )


async def history(call: Call) -> Answer:
    return await _history(call, _day(call.query.start), _day(call.query.end))


async def period(call: Call) -> Answer:
    wanted = await asked_for(call)
    today = call.services.histories.today(wanted[0])
    end = today if call.query.end is None else min(day_number(call.query.end), today)
    first = period_start(call.path["period"], day_of(end))
    return await _history(call, None if first is None else day_number(first), end)


async def _history(call: Call, start: int | None, end: int | None) -> Answer:
    wanted, account, histories = await asked_for(call), call.query.account_id, call.services.histories
    answers = [await _encodable(await histories.history(one, account, start, end), account) for one in wanted]
    if len(wanted) == 1:
        return Answer(answers[0])
    currency, chosen = call.query.currency or wanted[0].rules.currency, counted(call, wanted)
    found = await histories.total(chosen, currency, start, end)
    return Answer({"portfolios": answers, "total": _total_fields(found, chosen, currency)})


async def _encodable(found: HistoryRange, account: str | None) -> dict[str, Any]:
    if found.end - found.start < IN_THREAD_FROM:
        return history_fields(found, account)
    return await asyncio.to_thread(history_fields, found, account)


def _total_fields(found: History | None, counted: list[Portfolio], currency: str) -> dict[str, Any]:
    usual = {} if any(one.rules.cash_tracking for one in counted) else _NO_CASH
    days = [] if found is None else rows(found)
    return {
        "baseCurrency": currency,
        "source": "computed",
        "start": iso_day(found.start) if found is not None else None,
        "end": iso_day(found.end) if found is not None else None,
        "history": [_row_fields(row, all(one.is_archived for one in counted), usual) for row in days],
        "reasons": usual,
    }


def history_fields(found: HistoryRange, account: str | None) -> dict[str, Any]:
    portfolio = found.portfolio
    days = [] if found.found is None else rows(found.found, found.scope)
    usual = {} if portfolio.rules.cash_tracking else _NO_CASH
    return {
        "portfolioId": portfolio.id,
        "accountId": account,
        "baseCurrency": portfolio.rules.currency,
        "source": "computed",
        "start": iso_day(found.start) if days else None,
        "end": iso_day(found.end) if days else None,
        "history": [_row_fields(row, portfolio.is_archived, usual) for row in days],
        "provisional": [iso_day(found.today)] if days and found.end == found.today else [],
        "reasons": usual,
    }


def _row_fields(row: dict[str, Any], is_archived: bool, usual: dict[str, str]) -> dict[str, Any]:
    day, reasons = row.pop("day"), row.pop("reasons")
    fields = {"date": iso_day(day), **camel(row), "isArchived": is_archived}
    own = {camel_name(name): why for name, why in reasons.items() if name not in usual}
    return {**fields, "reasons": own} if own else fields


def _holding_fields(one: Holding, base: str, explain: bool) -> dict[str, Any]:
    reasons = {camel_name(name): why for name, why in one.reasons.items()}
    fields: dict[str, Any] = {
        "symbol": one.instrument.symbol,
        "market": one.instrument.market,
        "accountId": one.account or None,
        "quantity": exact(one.quantity.normalize()),
        "averageCost": None if one.average_cost is None else round(float(one.average_cost), AVERAGE_DIGITS),
        "cost": _number(_money(one.cost, base)),
        "price": None if one.price is None else float(one.price),
        "priceDate": iso_day(one.price_day),
        "currency": one.currency,
        "fxRate": None if one.fx_rate is None else float(one.fx_rate),
        "value": _number(_money(one.value, base)),
        "unrealizedGainLoss": _number(_money(one.unrealized_gain_loss, base)),
        "realizedGainLoss": _number(_money(one.realized_gain_loss, base)),
        "dividends": _number(_money(one.dividends, base)),
        "fees": _number(_money(one.fees, base)),
        "weight": one.weight,
    }
    if reasons:
        fields["reasons"] = reasons
    if explain:
        fields["lots"] = [_lot_fields(lot, base) for lot in one.lots]
        fields["explain"] = _explained(one)
    return fields


def _explained(one: Holding) -> dict[str, Any]:
    said = one.explained()
    price, rate = said["price"], said["rate"]
    return {
        "formulas": camel(said["formulas"]),
        "price": {
            "date": iso_day(price["day"]),
            "close": None if price["close"] is None else float(price["close"]),
            "splitFactor": float(price["split_factor"]),
        },
        "rate": {"date": iso_day(rate["day"]), "rate": None if rate["rate"] is None else float(rate["rate"])},
    }


def _lot_fields(lot: Lot, base: str) -> dict[str, Any]:
    return {
        "quantity": exact(lot.quantity),
        "cost": None if lot.cost.is_nan() else _number(_money(lot.cost, base)),
        "acquiredOn": iso_day(lot.day),
        "transactionId": lot.transaction,
    }


def _cash_fields(one: CashHolding, base: str) -> dict[str, Any]:
    return {
        "currency": one.currency,
        "amount": _number(_money(one.amount, one.currency)),
        "value": _number(_money(one.value, base)),
    }


def _money(amount: Decimal | None, currency: str) -> Decimal | None:
    """In whole minor units, half to even."""
    return None if amount is None else amount.quantize(_DIGIT.scaleb(-digits(currency)))


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount) + 0.0


def _sum(amounts: list[Decimal]) -> float:
    return float(sum(amounts, Decimal(0)))


def _day(day: Any) -> int | None:
    return None if day is None else day_number(day)


def camel_name(name: str) -> str:
    (found,) = camel({name: None})
    return str(found)
