"""What the accounts of portfolios are worth and how they changed, also by institution and kind, now and day by day."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pricecache.api.breakdown_days import NO_SHARE, NO_VALUE, columns_of, dates_of, lines_of, rows_of
from pricecache.api.call import Call
from pricecache.api.encoding import weak_etag_of
from pricecache.api.once import KeptOnce, once
from pricecache.api.whose import asked_for, counted
from pricecache.api.wire import instant, iso_day
from pricecache.core.bars import day_number
from pricecache.core.breakdown import Portion, together
from pricecache.core.currencies import digits

if TYPE_CHECKING:
    from pricecache.core.breakdown import AccountDays
    from pricecache.core.portfolios import Account, Portfolio
    from pricecache.portfolio.breakdown import Broken

_CSV = "text/csv; charset=utf-8"
_NO_CASH = {"cash": "cash_not_tracked"}
_PORTION = (
    "value", "share", "cost", "unrealizedGainLoss", "realizedGainLoss", "dividends", "cash", "previousValue", "dayFlow",
    "dayChange", "dayChangePercent", "estimated",
)  # fmt: skip
_ACCOUNT = ("accountId", "name", "institution", "kind", "isArchived")
_OF_TOTAL = {
    "value": "totalValue", "cost": "totalCost", "unrealizedGainLoss": "totalUnrealizedGainLoss",
    "realizedGainLoss": "totalRealizedGainLoss", "dividends": "totalDividends",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One account of an answer. `key`: its name in what was computed; `facts`: None for what has no account."""

    portfolio: str
    key: str
    facts: Account | None
    portion: Portion


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """What is told of one portfolio, or of several together. `only`: the one account whose row is wanted."""

    head: dict[str, Any]
    rows: Sequence[Row]
    whole: Portion
    currency: str
    tracks_cash: bool
    days: AccountDays | None
    only: str | None


async def breakdown(call: Call) -> KeptOnce:
    wanted = await asked_for(call)
    found = [await _of(call, one) for one in wanted]
    pages = [await _page(call, one) for one in found]
    length = sum(len(page.rows) + (page.days.values.size if page.days else 0) // 4 for page in pages)
    if call.query.format == "csv":
        body = _csv(pages, _wants_days(call))
        return KeptOnce(body, weak_etag_of(body), content_type=_CSV)
    if len(pages) == 1:
        return await once(length, lambda: _fields(pages[0], call))
    total = await _total(call, counted(call, wanted), found, pages)
    return await once(
        2 * length, lambda: {"portfolios": [_fields(one, call) for one in pages], "total": _fields(total, call)}
    )


def _wants_days(call: Call) -> bool:
    return bool(call.query.history or call.query.start or call.query.end)


async def _of(call: Call, portfolio: Portfolio) -> Broken:
    breakdowns, query = call.services.breakdowns, call.query
    if query.date_ is None:
        return await breakdowns.now(portfolio)
    return await breakdowns.on(portfolio, day_number(query.date_), use_materialized=query.use_materialized)


async def _page(call: Call, broken: Broken) -> Page:
    query, portfolio, found = call.query, broken.portfolio, broken.found
    days = None
    if _wants_days(call):
        days = await call.services.breakdowns.days(
            portfolio, _day(query.start), _day(query.end), use_materialized=query.use_materialized
        )
    tracks = portfolio.rules.cash_tracking
    nothing = together([], 0, tracks_cash=tracks)
    known = await call.services.portfolios.accounts(portfolio.id)
    rows = [Row(portfolio.id, one.id, one, found.accounts.get(one.id, nothing)) for one in known]
    if "" in found.accounts or (days is not None and "" in days.accounts):
        rows.append(Row(portfolio.id, "", None, found.accounts.get("", nothing)))
    head = {"portfolioId": portfolio.id, "baseCurrency": found.currency, **_when(broken)}
    return Page(head, rows, found.whole, found.currency, tracks, days, query.account_id)


def _when(broken: Broken) -> dict[str, Any]:
    day = broken.today if broken.at is not None else broken.found.day
    return {"date": iso_day(day), "asOf": instant(broken.at), "provisional": day >= broken.today}


async def _total(call: Call, whose: list[Portfolio], found: Sequence[Broken], pages: Sequence[Page]) -> Page:
    """Of those that count, in one currency."""
    from pricecache.portfolio.breakdown import name_of

    query, ids = call.query, {one.id for one in whose}
    currency = query.currency or found[0].portfolio.rules.currency
    counting = [one for one in found if one.portfolio.id in ids]
    accounts = await call.services.breakdowns.turned(counting, currency)
    tracks = any(one.portfolio.rules.cash_tracking for one in counting)
    rows = []
    for row in (row for page in pages for row in page.rows if row.portfolio in ids):
        key = name_of(row.portfolio, row.key)
        rows.append(replace(row, key=key, portion=accounts.get(key, row.portion)))
    days = None
    if _wants_days(call):
        days = await call.services.breakdowns.days_of_all(
            whose, currency, _day(query.start), _day(query.end), use_materialized=query.use_materialized
        )
    whole = together(list(accounts.values()), digits(currency), tracks_cash=tracks)
    return Page({"baseCurrency": currency, **_when(found[0])}, rows, whole, currency, tracks, days, None)


def _fields(page: Page, call: Call) -> dict[str, Any]:
    whole, tracks = page.whole, page.tracks_cash
    fields = _portion_fields(whole, whole.value, tracks)
    reasons = {_OF_TOTAL.get(name, name): why for name, why in fields.pop("reasons", {}).items() if name != "share"}
    answer = {
        **page.head,
        **{_OF_TOTAL.get(name, name): amount for name, amount in fields.items() if name != "share"},
        "accounts": _account_rows(page, call),
        "institutions": _groups(page, "institution", lambda one: one.institution),
        "kinds": _groups(page, "kind", lambda one: one.kind),
        "reasons": reasons | ({} if tracks else _NO_CASH),
    }
    return answer | _range(page, call)


def _range(page: Page, call: Call) -> dict[str, Any]:
    if not _wants_days(call):
        return {}
    days = page.days
    end = None if days is None else days.start + days.values.shape[1] - 1
    found: dict[str, Any] = {"start": None if days is None else iso_day(days.start), "end": iso_day(end)}
    if call.query.format == "columns":
        found["dates"] = [] if days is None else [day.decode() for day in dates_of(days)]
    return found


def _account_rows(page: Page, call: Call) -> list[dict[str, Any]]:
    dates = dates_of(page.days) if page.days is not None else []
    answers = []
    for row in _shown(page):
        answer = _named(row, in_total="portfolioId" not in page.head)
        answer |= _portion_fields(row.portion, page.whole.value, page.tracks_cash)
        if _wants_days(call):
            if page.days is None:
                answer["history"] = []
            elif call.query.format == "columns":
                answer["history"] = columns_of(page.days, row.key)
            else:
                answer["history"] = rows_of(page.days, row.key, dates)
        answers.append(answer)
    return answers


def _shown(page: Page) -> list[Row]:
    return [row for row in page.rows if page.only in (None, row.key)]


def _named(row: Row, *, in_total: bool) -> dict[str, Any]:
    one = row.facts
    named = {"portfolioId": row.portfolio} if in_total else {}
    if one is None:
        return {**named, **dict.fromkeys(_ACCOUNT), "isArchived": False}
    return {**named, "accountId": one.id, "name": one.name, "institution": one.institution, "kind": one.kind,
            "isArchived": one.is_archived}  # fmt: skip


def _groups(page: Page, name: str, of: Callable[[Account], str | None]) -> list[dict[str, Any]]:
    """The largest first."""
    groups: dict[str | None, list[Portion]] = {}
    for row in page.rows:
        groups.setdefault(None if row.facts is None else of(row.facts), []).append(row.portion)
    found = []
    for key, portions in groups.items():
        summed = together(portions, digits(page.currency), tracks_cash=page.tracks_cash)
        fields = _portion_fields(summed, page.whole.value, page.tracks_cash)
        found.append({name: key, "accountCount": len(portions), **fields})
    return sorted(found, key=lambda one: (-(one["value"] or 0.0), one[name] is None, one[name] or ""))


def _portion_fields(one: Portion, whole: float | None, tracks_cash: bool) -> dict[str, Any]:
    amounts = (
        one.value, one.share_of(whole), one.cost, one.unrealized, one.realized, one.dividends, one.cash, one.before,
        one.flow, one.change, one.percent, one.is_estimated,
    )  # fmt: skip
    fields = dict(zip(_PORTION, amounts, strict=True))
    reasons = _reasons(one, fields, tracks_cash)
    return {**fields, "reasons": reasons} if reasons else fields


def _reasons(one: Portion, fields: dict[str, Any], tracks_cash: bool) -> dict[str, str]:
    """Why a field is null, or of what is known only; that cash is not kept is said once for all."""
    unvalued = one.value is None
    why = dict.fromkeys(("cost", "realizedGainLoss", "dividends", "dayFlow"), "rate_unknown")
    why |= {"value": NO_VALUE, "share": NO_VALUE if unvalued else NO_SHARE, "previousValue": "no_price"}
    why["unrealizedGainLoss"] = NO_VALUE if unvalued else "rate_unknown"
    why["dayChange"] = NO_VALUE if unvalued else "no_price" if one.before is None else "rate_unknown"
    why["dayChangePercent"] = why["dayChange"] if one.change is None else NO_SHARE
    if tracks_cash:
        why["cash"] = "rate_unknown"
    found = {name: reason for name, reason in why.items() if fields[name] is None}
    partly = {"value": "value", "change": "dayChange"}
    found |= {
        partly[name]: "some_values_unknown" for name in sorted(one.incomplete) if fields[partly[name]] is not None
    }
    return found | ({"cash": "overdrawn"} if one.cash is not None and one.cash < 0 else {})


def _csv(pages: Sequence[Page], with_days: bool) -> bytes:
    """A line for each account, or for each of its days; of several portfolios with their ids in front."""
    several = len(pages) > 1
    first = ["portfolioId"] if several else []
    names = ["accountId", "date", "totalValue", "share"] if with_days else [*_ACCOUNT, *_PORTION]
    pieces = [_line([*first, *names])]
    for page in pages:
        before = [page.head["portfolioId"]] if several else []
        if with_days:
            pieces += _day_lines(page, before)
        else:
            for row in _shown(page):
                fields = _portion_fields(row.portion, page.whole.value, page.tracks_cash)
                named = _named(row, in_total=False)
                pieces.append(_line([*before, *named.values(), *(fields[name] for name in _PORTION)]))
    return b"".join(pieces)


def _day_lines(page: Page, before: list[str]) -> Iterable[bytes]:
    if page.days is None:
        return
    dates = dates_of(page.days)
    for row in _shown(page):
        yield from lines_of(page.days, row.key, dates, "".join(f"{one}," for one in [*before, row.key]).encode())


def _line(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    plain = ["" if cell is None else str(cell).lower() if isinstance(cell, bool) else cell for cell in cells]
    csv.writer(text, lineterminator="\n").writerow(plain)
    return text.getvalue().encode()


def _day(day: Any) -> int | None:
    return None if day is None else day_number(day)
