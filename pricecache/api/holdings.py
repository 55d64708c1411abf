"""What a portfolio holds at the end of a day."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pricecache.api.call import Call
from pricecache.api.once import KeptOnce, once
from pricecache.api.portfolios import portfolio_of
from pricecache.api.transactions import exact
from pricecache.api.whose import require_account
from pricecache.api.wire import camel, instant, iso_day
from pricecache.core.bars import day_number
from pricecache.core.currencies import digits
from pricecache.portfolio.market import pair_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pricecache.core.holdings import CashHolding, Holding, Holdings
    from pricecache.core.instruments import Instrument
    from pricecache.core.lots import Lot
    from pricecache.core.portfolios import Portfolio
    from pricecache.portfolio.price_origins import PriceOrigin

AVERAGE_DIGITS = 6
"""Of an average cost, which is for one unit."""
_NO_CASH = {"cash": "cash_not_tracked"}
_DIGIT = Decimal(1)


async def holdings(call: Call) -> KeptOnce:
    portfolio = await portfolio_of(call)
    await require_account(call, portfolio)
    day = None if call.query.date_ is None else day_number(call.query.date_)
    found, _ = await call.services.histories.holdings(portfolio, day, call.query.account_id)
    origins = await _origins(call, found) if call.query.explain else None
    lots = sum(len(one.lots) for one in found.holdings) if call.query.explain else 0
    return await once(len(found.holdings) + lots, lambda: _fields(portfolio, found, origins))


def _fields(
    portfolio: Portfolio, found: Holdings, origins: Mapping[tuple[Instrument, int], PriceOrigin] | None
) -> dict[str, Any]:
    base = portfolio.rules.currency
    held = [_holding_fields(one, base, found.day, origins) for one in found.holdings]
    cash = [_cash_fields(one, base) for one in found.cash]
    costs = [_money(one.cost, base) for one in found.holdings]
    values = [one.value for one in found.holdings] + [one.value for one in found.cash]
    nothing = bool(values) and all(value is None for value in values)
    return {
        "portfolioId": portfolio.id,
        "date": iso_day(found.day),
        "baseCurrency": base,
        # the sum of its rounded accounts, as in the history
        "totalValue": None if nothing else _sum([_rounded(value, base) for value in found.values.values()]),
        "totalCost": None if None in costs else _sum([cost for cost in costs if cost is not None]),
        "holdings": held,
        "cash": cash,
        "reasons": {
            **({} if portfolio.rules.cash_tracking else _NO_CASH),
            **({"totalCost": "rate_unknown"} if None in costs else {}),
            **({"totalValue": "no_price_or_rate"} if nothing else {}),
            **({"totalValue": "some_values_unknown"} if None in values and not nothing else {}),
        },
    }


async def _origins(call: Call, found: Holdings) -> Mapping[tuple[Instrument, int], PriceOrigin]:
    """Of every price and rate that the holdings are valued with."""
    wanted = [(one.instrument, one.price_day) for one in found.holdings if one.price_day is not None]
    for one in found.holdings:
        pair = pair_of(one.currency, found.currency)
        if pair is not None and one.fx_day is not None:
            wanted.append((pair, one.fx_day))
    return await call.services.price_origins.of(wanted)


def _holding_fields(
    one: Holding, base: str, day: int, origins: Mapping[tuple[Instrument, int], PriceOrigin] | None
) -> dict[str, Any]:
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
    if origins is not None:
        fields["lots"] = [_lot_fields(lot, base) for lot in one.lots]
        fields["explain"] = _explained(one, base, day, origins)
    return fields


def _explained(
    one: Holding, base: str, day: int, origins: Mapping[tuple[Instrument, int], PriceOrigin]
) -> dict[str, Any]:
    said = one.explained()
    price, rate, pair = said["price"], said["rate"], pair_of(one.currency, base)
    return {
        "formulas": camel(said["formulas"]),
        "price": {
            "date": iso_day(price["day"]),
            "close": None if price["close"] is None else float(price["close"]),
            "splitFactor": float(price["split_factor"]),
            **_origin_fields(one.instrument, price["day"], day, origins),
        },
        "rate": {
            "pair": None if pair is None else pair.symbol,
            "date": iso_day(rate["day"]),
            "rate": None if rate["rate"] is None else float(rate["rate"]),
            **_origin_fields(pair, rate["day"], day, origins),
        },
    }


def _origin_fields(
    what: Instrument | None, on: int | None, day: int, origins: Mapping[tuple[Instrument, int], PriceOrigin]
) -> dict[str, Any]:
    """Source and age of a price or a rate of session `on` that counts on `day`."""
    origin = None if what is None or on is None else origins.get((what, on))
    return {
        "source": None if origin is None else origin.source,
        "fetchedAt": None if origin is None else instant(origin.fetched_at),
        "provisional": None if origin is None else origin.is_provisional,
        "ageDays": None if on is None else day - on,
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
        "overdrawn": one.amount < 0,
    }


def _money(amount: Decimal | None, currency: str) -> Decimal | None:
    """In whole minor units, half to even."""
    return None if amount is None else _rounded(amount, currency)


def _rounded(amount: Decimal, currency: str) -> Decimal:
    return amount.quantize(_DIGIT.scaleb(-digits(currency)))


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount) + 0.0


def _sum(amounts: list[Decimal]) -> float:
    return float(sum(amounts, Decimal(0)))


def camel_name(name: str) -> str:
    (found,) = camel({name: None})
    return str(found)
