"""What portfolios are worth now and how they changed today, in the shape of the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pricecache.api.call import Answer, Call
from pricecache.api.transactions import exact
from pricecache.api.whose import asked_for, counted
from pricecache.api.wire import instant, iso_day
from pricecache.core.currencies import digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pricecache.core.present import Gains, PositionNow, SummaryNow, Worth
    from pricecache.core.summaries import Together
    from pricecache.portfolio.summary import Summarised
    from pricecache.realtime.day_ranges import RangeNow

_SHOWN_AS = {"value": "totalValue", "change": "dayChange", "from_open": "changeFromOpen", "before": "previousValue"}
_RANGE = ("dayHigh", "dayLow", "dayRangeSince")


async def summary(call: Call) -> Answer:
    wanted, account = await asked_for(call), call.query.account_id
    found = [await call.services.summaries.of(one, account) for one in wanted]
    realtime, by_account = call.services.realtime, call.query.by == "account"
    answers = [
        summary_fields(one, await realtime.range_of(one) if account is None else None, account, by_account)
        for one in found
    ]
    if len(found) == 1:
        return Answer(answers[0])
    chosen = {one.id for one in counted(call, wanted)}
    currency = call.query.currency or wanted[0].rules.currency
    total = await _total(call, [one for one in found if one.portfolio.id in chosen], currency)
    return Answer({"portfolios": answers, "total": total})


async def _total(call: Call, found: Sequence[Summarised], currency: str) -> dict[str, Any]:
    from pricecache.core.summaries import together

    turned = await call.services.summaries.turned(found, currency)
    whole = together(turned, currency)
    return {
        **_total_fields(call.services.clock.time(), currency, whole.worth, whole.gains, whole.cash),
        **_range_fields(None),
        **_age_of(found),
        "reasons": dict.fromkeys(_RANGE[:2], "of_one_portfolio_only")
        | _reasons(whole, tracks=any(one.portfolio.rules.cash_tracking for one in found)),
    }


def summary_fields(
    found: Summarised, ranged: RangeNow | None, account: str | None = None, by_account: bool = False
) -> dict[str, Any]:
    """One portfolio as it is now; also what the stream sends of it first. `ranged`: how high and low it was today."""
    portfolio, now = found.portfolio, found.summary
    tracks = portfolio.rules.cash_tracking
    return {
        "portfolioId": portfolio.id,
        "accountId": account,
        "name": portfolio.name,
        "isArchived": portfolio.is_archived,
        **_total_fields(found.at, now.currency, now.worth, now.gains, now.cash),
        **_range_fields(ranged),
        **_age_of([found]),
        "dayChangeParts": now.changes,
        "cashBalances": [
            {
                "currency": one.currency,
                "amount": round(float(one.amount), digits(one.currency)) + 0.0,
                "value": one.value,
                "overdrawn": one.amount < 0,
            }
            for one in now.balances
        ],
        "positions": [_position_fields(one, found, by_account) for one in now.positions],
        "reasons": _range_reasons(ranged, account) | _reasons(now, tracks=tracks),
    }


def _range_fields(ranged: RangeNow | None) -> dict[str, Any]:
    if ranged is None:
        return dict.fromkeys(_RANGE)
    return {"dayHigh": ranged.high, "dayLow": ranged.low, "dayRangeSince": instant(ranged.since)}


def _range_reasons(ranged: RangeNow | None, account: str | None) -> dict[str, str]:
    if ranged is not None:
        return {}
    return dict.fromkeys(_RANGE[:2], "not_tracked" if account is None else "of_whole_portfolios_only")


def _total_fields(at: float, currency: str, worth: Worth, gains: Gains, cash: float | None) -> dict[str, Any]:
    return {
        "asOf": instant(at),
        "baseCurrency": currency,
        "totalValue": worth.value,
        **_gain_fields(gains, digits(currency)),
        "cash": cash,
        "previousValue": worth.before,
        "dayFlow": worth.flow,
        **_change_fields(worth),
    }


def _gain_fields(gains: Gains, places: int = 2) -> dict[str, float | None]:
    gained = None
    if gains.realized is not None and gains.unrealized is not None:
        gained = round(gains.realized + gains.unrealized, places) + 0.0
    return {
        "totalCost": gains.cost,
        "totalGainLoss": gained,
        "totalRealizedGainLoss": gains.realized,
        "totalUnrealizedGainLoss": gains.unrealized,
        "totalDividends": gains.dividends,
        "totalFees": gains.fees,
        "totalInterest": gains.interest,
    }


def _change_fields(worth: Worth) -> dict[str, Any]:
    return {
        "dayChange": worth.change,
        "dayChangePercent": worth.percent,
        "changeFromOpen": worth.from_open,
        "changeFromOpenPercent": worth.percent_from_open,
    }


def _age_of(found: Iterable[Summarised]) -> dict[str, Any]:
    """Of the prices of everything held."""
    held = [one.sessions[p.instrument] for one in found for p in one.summary.positions if p.quantity]
    return {
        "stale": any(session.stale for session in held),
        "oldestPriceTime": instant(min((s.price_at for s in held if s.price_at is not None), default=None)),
    }


def _position_fields(one: PositionNow, found: Summarised, by_account: bool) -> dict[str, Any]:
    session, column = found.sessions[one.instrument], found.market.prices.get(one.instrument)
    price = None if column is None else column.price_on(found.summary.end)
    fields = {
        "symbol": one.instrument.symbol,
        "market": one.instrument.market,
        "currency": found.market.currency_of(one.instrument),
        "price": None if price is None else price[1],
        "priceTime": instant(session.price_at),
        "priceDate": None if price is None else iso_day(price[0]),
        "source": session.source,
        "stale": session.stale,
        "session": iso_day(session.day),
        "previousSession": iso_day(session.previous),
        **_cell_fields(one, found, price is None),
    }
    if by_account:
        fields["accounts"] = [
            {"accountId": part.account or None, **_cell_fields(part, found, price is None)} for part in one.parts
        ]
    return fields


def _cell_fields(one: PositionNow, found: Summarised, is_unpriced: bool) -> dict[str, Any]:
    worth, gains, whole = one.worth, one.gains, found.summary.worth.value
    fields = {
        "quantity": exact(one.quantity.normalize()),
        "value": worth.value,
        "previousValue": worth.before,
        "cost": gains.cost,
        "unrealizedGainLoss": gains.unrealized,
        "realizedGainLoss": gains.realized,
        "dividends": gains.dividends,
        "weight": worth.value / whole if worth.value is not None and whole else None,
        **_change_fields(worth),
    }
    reasons = _position_reasons(fields, "no_price" if is_unpriced else "rate_unknown")
    return {**fields, "reasons": reasons} if reasons else fields


def _position_reasons(fields: dict[str, Any], unvalued: str) -> dict[str, str]:
    why = {"cost": "rate_unknown", "realizedGainLoss": "rate_unknown", "dividends": "rate_unknown"}
    why |= dict.fromkeys(("value", "unrealizedGainLoss"), unvalued)
    why["weight"] = unvalued if fields["value"] is None else "no_capital"
    why["previousValue"] = why["dayChange"] = unvalued if fields["value"] is None else "no_price"
    why["changeFromOpen"] = unvalued if fields["value"] is None else "no_open"
    for name in ("dayChange", "changeFromOpen"):
        why[f"{name}Percent"] = why[name] if fields[name] is None else "no_capital"
    return {name: reason for name, reason in why.items() if fields[name] is None}


def _reasons(found: SummaryNow | Together, *, tracks: bool) -> dict[str, str]:
    """Why a field of the whole is null, or of what is known only."""
    worth, gains = found.worth, found.gains
    reasons: dict[str, str] = {}
    if found.cash is None:
        reasons["cash"] = "rate_unknown" if tracks else "cash_not_tracked"
    reasons |= {_SHOWN_AS[name]: "some_values_unknown" for name in _SHOWN_AS if name in found.incomplete}
    reasons |= {name: "rate_unknown" for name, amount in _gain_fields(gains).items() if amount is None}
    for name, percent in (("dayChange", worth.percent), ("changeFromOpen", worth.percent_from_open)):
        if percent is None:
            reasons[f"{name}Percent"] = reasons.get(name, "no_capital")
    if worth.flow is None:
        reasons["dayFlow"] = "some_values_unknown"
    return reasons
