"""What portfolios were worth on each day: rows, columns or CSV, kept as bytes until something of them changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import orjson

from pricecache.api.call import Answer, Call
from pricecache.api.history_pages import COLUMNS, HEADER, NO_CASH, Format, encoded
from pricecache.api.kept import Kept
from pricecache.api.once import KeptOnce
from pricecache.api.whose import asked_for, counted
from pricecache.api.wire import iso_day
from pricecache.core.bars import day_number, day_of
from pricecache.core.chunks import aligned, between
from pricecache.core.history import PORTFOLIO
from pricecache.core.periods import period_start

if TYPE_CHECKING:
    from pricecache.core.portfolios import Portfolio
    from pricecache.portfolio.history import HistoryRange
    from pricecache.portfolio.wholes import Whole, Wholes

_CSV = "text/csv; charset=utf-8"
Piece = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Encoded:
    """One portfolio's answer in pieces, and what tells it from every other (its source aside)."""

    pieces: list[Piece]
    tag: bytes


class KeptValues(Kept):
    """The history of one portfolio: right for as long as the whole that it is cut from."""

    __slots__ = ("_is_first", "_whole", "_wholes")

    def __init__(self, wholes: Wholes, whole: Whole, body: bytes, etag: str, content_type: str) -> None:
        super().__init__(body, etag, content_type=content_type)
        self.user = whole.portfolio.owner
        self._wholes = wholes
        self._whole = ref(whole)  # what is kept in memory is for `Wholes` to say
        # who asks next is told that these rows were there already
        self._is_first = whole.kept is not None and whole.reused_through != whole.kept.through

    def current(self, now: float) -> bool:
        whole = self._whole()
        return not self._is_first and whole is not None and self._wholes.stands(whole, now)


async def history(call: Call) -> Answer | Kept:
    return await _history(call, _day(call.query.start), _day(call.query.end))


async def period(call: Call) -> Answer | Kept:
    wanted = await asked_for(call)
    today = call.services.histories.today(wanted[0])
    end = today if call.query.end is None else min(day_number(call.query.end), today)
    first = period_start(call.path["period"], day_of(end))
    return await _history(call, None if first is None else day_number(first), end)


async def _history(call: Call, start: int | None, end: int | None) -> Kept:
    wanted, query, histories = await asked_for(call), call.query, call.services.histories
    found = [
        await histories.history(one, query.account_id, start, end, use_materialized=query.use_materialized)
        for one in wanted
    ]
    if len(found) == 1:
        return await _alone(call, found[0])
    parts = [await _encoded(call, one, named=True) for one in found]
    currency = query.currency or wanted[0].rules.currency
    total = await _total(call, counted(call, wanted), currency, start, end)
    if query.format == "csv":
        body = b"".join([b"portfolioId,", HEADER, *(piece for part in (*parts, total) for piece in part.pieces)])
        return KeptOnce(body, _tag([part.tag for part in (*parts, total)]), content_type=_CSV)
    pieces: list[Piece] = [b'{"portfolios":[']
    for number, part in enumerate(parts):
        pieces += [b"," if number else b"", *part.pieces]
    body = b"".join([*pieces, b'],"total":', *total.pieces, b"}\n"])
    return KeptOnce(body, _tag([part.tag for part in (*parts, total)]))


async def _alone(call: Call, found: HistoryRange) -> Kept:
    part, form = await _encoded(call, found), call.query.format
    etag, kind = _tag([part.tag]), _CSV if form == "csv" else "application/json"
    body = b"".join([HEADER, *part.pieces] if form == "csv" else [*part.pieces, b"\n"])
    if call.query.use_materialized and call.query.portfolio_id:  # else another portfolio makes it another answer
        return KeptValues(call.services.histories.wholes, found.whole, body, etag, kind)
    return KeptOnce(body, etag, content_type=kind)


async def _encoded(call: Call, found: HistoryRange, *, named: bool = False) -> Encoded:
    """`named`: with the portfolio's id in each line of CSV."""
    portfolio, form, account = found.portfolio, call.query.format, call.query.account_id
    tracks_cash = portfolio.rules.cash_tracking
    cuts, why = await _cut(call, found)
    facts = {"portfolioId": portfolio.id, "accountId": account, "baseCurrency": portfolio.rules.currency}
    has_days = found.has_days
    facts |= {"start": iso_day(found.start) if has_days else None, "end": iso_day(found.end) if has_days else None}
    provisional = [iso_day(found.today)] if has_days and found.end == found.today else []
    reasons = {} if tracks_cash else dict(NO_CASH)
    if form == "columns":
        for said in why:
            reasons |= said
    last = {"provisional": provisional, "reasons": reasons}
    tag = orjson.dumps([facts, last, form, portfolio.is_archived]) + _digest(cuts, form)
    if form == "csv":
        return Encoded(_named(cuts, portfolio.id) if named else [piece for cut in cuts for piece in cut], tag)
    head = orjson.dumps({**facts, "source": found.source})[:-1]
    return Encoded(_around(head, cuts, form, orjson.dumps(last), portfolio.is_archived), tag)


async def _cut(call: Call, found: HistoryRange) -> tuple[list[list[Piece]], list[dict[str, str]]]:
    """What is settled of the days, and the rest of them, as far as there are any; and what there is to say of each."""
    if not found.has_days:
        return [], []
    portfolio, form, whole = found.portfolio, call.query.format, found.whole
    cuts, why = [], []
    for part in whole.parts:
        first, last = max(found.start, part.start), min(found.end, part.end)
        if first > last:
            continue
        if whole.kept is not None and part is whole.kept.history and found.scope in part.scopes:
            page = await call.services.pages.of(part, portfolio, found.scope, form)
        else:
            days = between(aligned(part, whole.scopes, portfolio.rules.cash_tracking), first, last)
            page = await encoded(days, found.scope, form, portfolio.is_archived, portfolio.rules.cash_tracking)
        cuts.append(page.cut(first, last))
        why.append(page.reasons(first, last))
    return cuts, why


def _digest(cuts: Sequence[list[Piece]], form: Format) -> bytes:
    """Of what the days say, however they are cut."""
    mark, found = b"" if form == "csv" else b",", b""
    for pieces in zip(*cuts, strict=True):
        one = hashlib.blake2b(digest_size=16)
        for number, piece in enumerate(pieces):
            one.update(mark if number else b"")
            one.update(piece)
        found += one.digest()
    return found


def _around(head: bytes, cuts: Sequence[list[Piece]], form: Format, last: bytes, is_archived: bool) -> list[Piece]:
    """The pieces of one JSON answer."""
    if form == "json":
        pieces: list[Piece] = [head, b',"history":[']
        for number, cut in enumerate(cuts):
            pieces += [b"," if number else b"", *cut]
        return [*pieces, b"],", last[1:]]
    pieces = [head, b',"isArchived":true' if is_archived else b',"isArchived":false']
    for place, name in enumerate(COLUMNS):
        pieces.append(b',"%b":[' % name.encode())
        for number, cut in enumerate(cuts):
            pieces += [b"," if number else b"", cut[place]]
        pieces.append(b"]")
    return [*pieces, b",", last[1:]]


def _named(cuts: Sequence[list[Piece]], name: str) -> list[Piece]:
    lines = b"".join(piece for cut in cuts for piece in cut).splitlines(keepends=True)
    return [b"%b,%b" % (name.encode(), line) for line in lines]


async def _total(call: Call, whose: list[Portfolio], currency: str, start: int | None, end: int | None) -> Encoded:
    form = call.query.format
    ways = call.query.use_materialized
    found = await call.services.histories.total(whose, currency, start, end, use_materialized=ways)
    tracks_cash, archived = any(one.rules.cash_tracking for one in whose), all(one.is_archived for one in whose)
    facts = {
        "baseCurrency": currency,
        "start": None if found is None else iso_day(found.start),
        "end": None if found is None else iso_day(found.end),
    }
    page = None if found is None else await encoded(found, PORTFOLIO, form, archived, tracks_cash)
    cuts = [] if page is None or found is None else [page.cut(found.start, found.end)]
    reasons = {} if tracks_cash else dict(NO_CASH)
    if page is not None and found is not None and form == "columns":
        reasons |= page.reasons(found.start, found.end)
    last, tag = {"reasons": reasons}, _digest(cuts, form)
    if form == "csv":
        return Encoded(_named(cuts, "total"), tag)
    head = orjson.dumps({**facts, "source": "computed"})[:-1]
    return Encoded(_around(head, cuts, form, orjson.dumps(last), archived), orjson.dumps([facts, last]) + tag)


def _tag(parts: Sequence[bytes]) -> str:
    return f'W/"{hashlib.blake2b(b"".join(parts), digest_size=12).hexdigest()}"'


def _day(day: Any) -> int | None:
    return None if day is None else day_number(day)
