"""What portfolios returned: parse, ask, and put the answer into the shape of the edge."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from pricecache.api.call import Call
from pricecache.api.once import IN_THREAD_FROM, KeptOnce, once
from pricecache.api.ownership import require_visible
from pricecache.api.whose import asked_for, counted
from pricecache.api.wire import camel, iso_day
from pricecache.core.bars import day_number, day_of
from pricecache.core.currencies import digits
from pricecache.core.instruments import Instrument
from pricecache.core.periods import period_start
from pricecache.errors import NotFound

if TYPE_CHECKING:
    from datetime import date

    from pricecache.core.portfolios import Portfolio
    from pricecache.portfolio.returns import Question, Returned

_MONEY = ("start_value", "end_value", "net_flow", "gain")
_NAMES = ("twr", "twr_annualized", "irr", "max_drawdown", "volatility", *_MONEY)


async def performance(call: Call) -> KeptOnce:
    wanted = await asked_for(call)
    asked = _question(call, wanted[0])
    each = await _of_each(call, wanted, asked)
    is_long = call.query.explain or asked.by is not None
    currency, total = call.query.currency or wanted[0].rules.currency, None
    if len(wanted) > 1:
        total = await call.services.returns.total(counted(call, wanted), currency, asked)

    def answers() -> dict[str, Any]:
        own = [
            {
                "portfolioId": one.id,
                "accountId": asked.account,
                "baseCurrency": one.rules.currency,
                **_named(asked.instrument),
                **_fields(found, one.rules.currency, asked, call),
            }
            for one, found in zip(wanted, each, strict=True)
        ]
        if len(own) == 1:
            return own[0]
        together = {"baseCurrency": currency, **_named(asked.instrument), **_fields(total, currency, asked, call)}
        return {"portfolios": own, "total": together}

    return await once(IN_THREAD_FROM if is_long else len(wanted), answers)


async def _of_each(call: Call, wanted: list[Portfolio], asked: Question) -> list[Returned | None]:
    answers: list[Returned | None] = []
    strangers = 0
    for one in wanted:
        try:
            found = await call.services.returns.of(one, asked)
        except NotFound as exc:
            strangers += 1
            if exc.code != "unknown_position" or strangers == len(wanted):
                raise
            found = None
        answers.append(found)
    return answers


def _question(call: Call, first: Portfolio) -> Question:
    from pricecache.portfolio.returns import Question

    query = call.query
    asked = Question(
        _day(query.start),
        _day(query.end),
        query.account_id,
        _instrument(call, query.symbol, query.market),
        query.by,
        _instrument(call, query.benchmark, None),
        query.benchmark_dividends,
    )
    if query.period is None:
        return asked
    today = call.services.histories.today(first)
    end = today if asked.end is None else min(asked.end, today)
    return replace(asked, start=_day(period_start(query.period, day_of(end))), end=end)


def _instrument(call: Call, symbol: str | None, market: str | None) -> Instrument | None:
    """By the symbol it has now."""
    if symbol is None:
        return None
    given = Instrument.parse(symbol, market)
    require_visible(call.services.catalog, given, call.principal)
    entry = call.services.catalog.find(given)
    return given if entry is None else entry.instrument


def _fields(found: Returned | None, base: str, asked: Question, call: Call) -> dict[str, Any]:
    fields = _nothing(asked) if found is None else _return_fields(found, base, call.query.explain)
    if asked.benchmark is not None:
        fields["benchmark"] = _benchmark_fields(found, asked)
    if asked.by is not None:
        parts = () if found is None else found.parts
        fields[f"{asked.by}s"] = [
            {
                "accountId": part.scope[0] or None,
                **_named(part.scope[1]),
                **_return_fields(part, base, call.query.explain),
            }
            for part in parts
        ]
    return fields


def _named(instrument: Instrument | None) -> dict[str, Any]:
    return {} if instrument is None else {"symbol": instrument.symbol, "market": instrument.market}


def _return_fields(found: Returned, base: str, explain: bool) -> dict[str, Any]:
    facts = asdict(found.performance)
    reasons = camel(facts.pop("reasons"))
    for name in _MONEY:
        facts[name] = _money(facts[name], base)
    days = {"start": iso_day(facts.pop("start")), "end": iso_day(facts.pop("end"))}
    fields = {**days, **camel(facts), "reasons": reasons}
    if explain:
        fields["explain"] = _explained(found, base)
    return fields


def _explained(found: Returned, base: str) -> dict[str, Any]:
    from pricecache.core import benchmarks, returns

    inputs, own = found.inputs, found.performance
    flows = None
    if inputs.flows is not None:
        flows = [
            {"date": iso_day(day), "inflow": _money(came, base), "outflow": _money(went, base)}
            for day, came, went in inputs.flows
        ]
    return {
        "formulas": camel({**returns.FORMULAS, **({} if found.comparison is None else benchmarks.FORMULAS)}),
        "startValue": _money(own.start_value, base),
        "endValue": _money(own.end_value, base),
        "flows": flows,
        "payments": [{"date": iso_day(day), "amount": _money(amount, base)} for day, amount in inputs.payments],
        "undefinedDays": [iso_day(day) for day in inputs.undefined],
        "sessions": inputs.sessions,
    }


def _benchmark_fields(found: Returned | None, asked: Question) -> dict[str, Any]:
    from pricecache.core.benchmarks import Comparison

    beside = found.comparison if found is not None else None
    facts = asdict(Comparison() if beside is None else beside)
    reasons = facts.pop("reasons")
    if beside is None:
        reasons = dict.fromkeys(facts, "no_days")
    return {**_named(asked.benchmark), "dividends": asked.dividends, **camel(facts), "reasons": camel(reasons)}


def _nothing(asked: Question) -> dict[str, Any]:
    names = camel(dict.fromkeys(_NAMES))
    return {
        "start": iso_day(asked.start),
        "end": iso_day(asked.end),
        **names,
        "reasons": dict.fromkeys(names, "no_days"),
    }


def _money(amount: float | None, currency: str) -> float | None:
    return None if amount is None else round(amount, digits(currency)) + 0.0


def _day(day: date | None) -> int | None:
    return None if day is None else day_number(day)
