"""What portfolios closed at: captured by a run, shown by day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pricecache.api.call import Answer, Call
from pricecache.api.kept import Kept
from pricecache.api.once import once
from pricecache.api.runs import run_answer
from pricecache.api.symbols import in_the_future
from pricecache.api.whose import asked_for, counted
from pricecache.api.wire import instant, iso_day
from pricecache.core.bars import DAY_SECONDS, day_number
from pricecache.core.currencies import digits
from pricecache.core.plausibility import EARLIEST_DATE_ON_EARTH
from pricecache.core.rows import partly_valued, rounded
from pricecache.core.valuation import CASH, COST, COVERAGE, VALUE
from pricecache.portfolio.snapshot_capture import SNAPSHOT_JOB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pricecache.core.history import History
    from pricecache.core.portfolios import Portfolio
    from pricecache.portfolio.snapshots import Figures, Snapshot

FROM_DAYS = 30
"""How far back a question without a start reaches."""
_NO_CASH = "cash_not_tracked"
_PARTLY, _OVERDRAWN = "some_values_unknown", "overdrawn"


async def capture(call: Call) -> Answer:
    asked = call.body.date_
    if asked is not None and day_number(asked) * DAY_SECONDS > call.services.clock.time() + EARLIEST_DATE_ON_EARTH:
        raise in_the_future("date")
    return await run_answer(call, SNAPSHOT_JOB, {} if asked is None else {"date": asked.isoformat()})


async def snapshots(call: Call) -> Kept:
    wanted, query = await asked_for(call), call.query
    today = call.services.histories.today(wanted[0])
    end = today if query.end is None else day_number(query.end)
    start = end - FROM_DAYS if query.start is None else day_number(query.start)
    found = [await call.services.snapshots.of(one, start, end) for one in wanted]
    rows = sum(map(len, found))
    if len(wanted) == 1:
        return await once(rows, lambda: _of_one(wanted[0], found[0], start, end))
    chosen = counted(call, wanted)
    currency = query.currency or wanted[0].rules.currency
    whole = await call.services.histories.total(chosen, currency, start, min(end, today))
    by_day = _by_day([some for one, some in zip(wanted, found, strict=True) if one in chosen])

    def answer() -> dict[str, Any]:
        each = [_of_one(one, some, start, end) for one, some in zip(wanted, found, strict=True)]
        return {"portfolios": each, "total": _total(whole, by_day, currency, start, end)}

    return await once(rows, answer)


def _of_one(portfolio: Portfolio, found: Sequence[Snapshot], start: int, end: int) -> dict[str, Any]:
    tracks = portfolio.rules.cash_tracking
    return {
        "portfolioId": portfolio.id,
        "baseCurrency": portfolio.rules.currency,
        "isArchived": portfolio.is_archived,
        "start": iso_day(start),
        "end": iso_day(end),
        "snapshots": [_row(one, tracks) for one in found],
    }


def _row(one: Snapshot, tracks: bool) -> dict[str, Any]:
    return {
        "date": iso_day(one.day),
        "previousDate": iso_day(one.previous),
        **_figures(one.total, tracks),
        "accounts": [
            {"accountId": account or None, **_figures(figures, tracks)} for account, figures in one.accounts.items()
        ],
        "isFinal": one.is_final,
        "estimated": one.is_estimated,
        "isRestated": one.is_restated,
        "capturedValue": one.captured,
        "capturedAt": instant(one.captured_at),
    }


def _figures(figures: Figures, tracks: bool) -> dict[str, Any]:
    fields = {
        "totalValue": figures.value,
        "totalCost": figures.cost,
        "cash": figures.cash,
        "netFlow": figures.flow,
        "dayChange": figures.change,
        "dayChangePercent": figures.percent,
    }
    why = {
        "totalValue": "no_price_or_rate",
        "totalCost": "rate_unknown",
        "cash": "rate_unknown" if tracks else _NO_CASH,
        "netFlow": "rate_unknown",
        "dayChange": "no_price_or_rate",
        "dayChangePercent": "no_price_or_rate" if figures.change is None else "no_capital",
    }
    reasons = {name: why[name] for name, amount in fields.items() if amount is None}
    partly = {"value": "totalValue", "change": "dayChange"}
    reasons |= {partly[one]: _PARTLY for one in sorted(figures.incomplete) if fields[partly[one]] is not None}
    return _with_reasons({**fields, "coverage": figures.coverage}, reasons)


def _with_reasons(fields: dict[str, Any], reasons: dict[str, str]) -> dict[str, Any]:
    cash = fields["cash"]
    reasons |= {"cash": _OVERDRAWN} if cash is not None and cash < 0 else {}
    return {**fields, "reasons": reasons} if reasons else fields


def _by_day(found: Sequence[Sequence[Snapshot]]) -> dict[int, list[Snapshot]]:
    days: dict[int, list[Snapshot]] = {}
    for some in found:
        for one in some:
            days.setdefault(one.day, []).append(one)
    return dict(sorted(days.items()))


def _total(
    whole: History | None, by_day: dict[int, list[Snapshot]], currency: str, start: int, end: int
) -> dict[str, Any]:
    """Of all portfolios on the days on which one of them was captured."""
    rows = []
    if whole is not None:
        values = rounded(whole)[:, 0]
        partly = partly_valued(values, whole.estimated[0])
        for day, some in by_day.items():
            if whole.start <= day <= whole.end:
                at = day - whole.start
                amounts = values[[VALUE, COST, CASH, COVERAGE], at].tolist()
                rows.append(_total_row(day, some, amounts, digits(currency), is_partly=bool(partly[at])))
    return {"baseCurrency": currency, "start": iso_day(start), "end": iso_day(end), "snapshots": rows}


def _total_row(
    day: int, some: Sequence[Snapshot], amounts: list[float], places: int, *, is_partly: bool
) -> dict[str, Any]:
    value, cost, cash = (None if amount != amount else round(amount, places) for amount in amounts[:3])
    fields = {
        "date": iso_day(day),
        "totalValue": value,
        "totalCost": cost,
        "cash": cash,
        "coverage": amounts[3],
        "captured": len(some),
        "isFinal": all(one.is_final for one in some),
    }
    return _with_reasons(fields, {"totalValue": _PARTLY} if is_partly and value is not None else {})
