"""What the cache knows, read: quotes, history, coverage, actions, symbols. No handler here calls a provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

import orjson

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import (
    action_fields,
    coverage_fields,
    coverage_headers,
    etag_of,
    history_arrow,
    history_csv,
    history_json,
    quote_fields,
    symbol_fields,
)
from pricecache.api.inputs import HistoryQuery
from pricecache.api.kept import Kept
from pricecache.api.wire import encode, instant, iso_day
from pricecache.core.actions import preferred
from pricecache.core.bars import day_number, day_of
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.periods import period_start
from pricecache.core.quotes import Quote
from pricecache.errors import Invalid, NotFound, PricecacheError

if TYPE_CHECKING:
    from pricecache.api.services import Services
    from pricecache.cache.live import LiveCache
    from pricecache.cache.reader import HistoryAnswer, Reader

LIVE_SECONDS = 1.0
"""How old the age in a kept list of quotes may be."""


class KeptQuote(Kept):
    """One quote: right until another takes its place, its age is a second greater, or it becomes stale."""

    __slots__ = ("_key", "_live", "_quote", "_until")

    def __init__(self, live: LiveCache, quote: Quote, now: float) -> None:
        fields = quote_fields(quote, now)
        age = fields.pop("ageSeconds")
        content = orjson.dumps(fields)
        super().__init__(b'%s,"ageSeconds":%d}\n' % (content[:-1], age), etag_of(content))
        self._live = live
        self._key = quote.instrument.key
        self._quote = quote
        self._until = _until_stale([quote], now, max(quote.as_of + age, now - 1.0) + 1.0)

    def current(self, now: float) -> bool:
        return now < self._until and self._live.get(self._key) is self._quote


class KeptQuotes(Kept):
    """Several quotes: right until one is replaced or becomes stale, one more is there, or a second has passed."""

    __slots__ = ("_count", "_keys", "_live", "_quotes", "_until")

    def __init__(self, live: LiveCache, quotes: Sequence[Quote], missing: list[dict[str, str]], now: float) -> None:
        rows = [quote_fields(quote, now) for quote in quotes]
        timeless = [{name: value for name, value in row.items() if name != "ageSeconds"} for row in rows]
        super().__init__(encode({"quotes": rows, "missing": missing}), etag_of(encode([timeless, missing])))
        self._live = live
        self._count = len(live)
        self._quotes = tuple(quotes)
        self._keys = tuple(quote.instrument.key for quote in quotes)
        self._until = _until_stale(quotes, now, now + LIVE_SECONDS)

    def current(self, now: float) -> bool:
        return (
            now < self._until
            and len(self._live) == self._count
            and all(map(is_, map(self._live.get, self._keys), self._quotes))
        )


class KeptHistory(Kept):
    """Bars: right until the entry changes, another session falls due, or the market's date does."""

    __slots__ = ("_catalog", "_complete", "_entry", "_reader", "_until", "_version")

    def __init__(
        self,
        services: Services,
        answer: HistoryAnswer,
        body: bytes,
        etag: str,
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body, etag, content_type=content_type, headers=headers)
        self._catalog: Catalog = services.catalog
        self._reader: Reader = services.reader
        self._entry = answer.entry
        self._version = answer.version
        self._until = answer.valid_until
        self._complete = answer.coverage.complete

    def current(self, now: float) -> bool:
        entry = self._entry
        return (
            entry.version == self._version
            and now < self._until
            and self._catalog.trusted
            and self._catalog.by_id(entry.id) is entry
        )

    def count_read(self) -> None:
        self._reader.count(self._complete)


async def live_quote(call: Call) -> Kept:
    services = call.services
    instrument = call.instrument
    quote = services.live.get(instrument.key)
    if quote is None:
        services.catalog.require(instrument)
        raise NotFound(
            f"There is no quote of {instrument} yet. POST /cache/refresh-live fetches one.",
            code="no_quote",
            symbol=instrument.symbol,
            market=instrument.market,
        )
    return KeptQuote(services.live, quote, services.clock.time())


async def live_quotes(call: Call) -> Kept:
    services = call.services
    now = services.clock.time()
    if call.query.symbols is None:
        held = services.live.snapshot().values()
        market = call.query.market
        return KeptQuotes(services.live, [q for q in held if market in (None, q.instrument.market)], [], now)
    quotes, missing = [], []
    for instrument in named(call.query.symbols, call.query.market):
        quote = services.live.get(instrument.key)
        if quote is not None:
            quotes.append(quote)
        else:
            code = "unknown_symbol" if services.catalog.get(instrument) is None else "no_quote"
            missing.append({"symbol": instrument.symbol, "market": instrument.market, "code": code})
    return KeptQuotes(services.live, quotes, missing, now)


async def history(call: Call) -> Kept:
    query: HistoryQuery = call.query
    entry = await current_entry(call.services, call.instrument)
    start, end = _range(call.services.reader, entry, query)
    answer = await call.services.reader.history(entry, start, end, query.adjust)
    fields = list(dict.fromkeys(query.fields))
    if query.format in ("json", "columns"):
        body, etag = history_json(answer, fields, columns=query.format == "columns")
        return KeptHistory(call.services, answer, body, etag, "application/json")
    said = coverage_headers(answer.coverage)
    if query.format == "csv":
        body, etag = history_csv(answer, fields)
        return KeptHistory(call.services, answer, body, etag, "text/csv; charset=utf-8", said)
    body, etag = await history_arrow(answer, fields)
    return KeptHistory(call.services, answer, body, etag, "application/vnd.apache.arrow.stream", said)


async def coverage(call: Call) -> Answer:
    entry = await current_entry(call.services, call.instrument)
    reader = call.services.reader
    end = reader.today(entry) if call.query.end is None else day_number(call.query.end)
    start = day_number(call.query.start) if call.query.start is not None else _first_wanted(entry, end)
    _check_order(start, end)
    found = await reader.coverage(entry, start, end)
    return Answer(
        {
            "symbol": entry.instrument.symbol,
            "market": entry.instrument.market,
            "start": iso_day(start),
            "end": iso_day(end),
            **coverage_fields(found),
            "lastUpdate": instant(entry.state.last_update),
        }
    )


async def actions(call: Call) -> Answer:
    entry = await current_entry(call.services, call.instrument)
    return Answer(actions_of(entry))


async def symbols(call: Call) -> Answer:
    market, state = call.query.market, call.query.state
    rows = [symbol_fields(entry) for entry in call.services.catalog if market in (None, entry.instrument.market)]
    wanted = [row for row in rows if (row["state"] == state if state else row["tracked"] or row["bars"])]
    return Answer({"symbols": sorted(wanted, key=lambda row: (row["market"], row["symbol"]))})


async def current_entry(services: Services, instrument: Instrument) -> Entry:
    """The entry of `instrument`, brought up to the database while other daemons' changes may go unseen."""
    entry = services.catalog.require(instrument)
    if not services.catalog.trusted or not entry.current:
        await services.instruments.load([entry.id])
    return entry


def named(names: Sequence[str], market: str | None) -> list[Instrument]:
    """The instruments that a query names, each once. Raises `Invalid` with a row for every name that cannot be one."""
    instruments, rows = [], []
    for row, name in enumerate(names):
        try:
            instruments.append(Instrument.parse(name, market if ":" not in name else None))
        except Invalid as exc:
            rows.append({"row": row, "field": f"symbols.{row}", "code": exc.code, "detail": exc.detail})
    if rows:
        code = rows[0]["code"] if len(rows) == 1 else "invalid"
        raise Invalid(f"{len(rows)} of the names cannot be symbols.", code=str(code), rows=rows)
    return list(dict.fromkeys(instruments))


def require_all(catalog: Catalog, instruments: Sequence[Instrument]) -> None:
    """Raises `NotFound` code `unknown_symbol` that lists every one not known here."""
    problems: list[PricecacheError] = []
    for instrument in instruments:
        try:
            catalog.require(instrument)
        except NotFound as exc:
            problems.append(exc)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        errors: list[dict[str, Any]] = [{**p.facts, "code": p.code, "detail": p.detail} for p in problems]
        raise NotFound(f"{len(problems)} of the symbols are not known here.", code="unknown_symbol", errors=errors)


def actions_of(entry: Entry) -> dict[str, Any]:
    return {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "actions": [action_fields(action) for action in preferred(entry.actions)],
    }


def _range(reader: Reader, entry: Entry, query: HistoryQuery) -> tuple[int | None, int | None]:
    start = None if query.start is None else day_number(query.start)
    end = None if query.end is None else day_number(query.end)
    last = reader.today(entry) if end is None else end
    if query.period is not None:
        first = period_start(query.period, day_of(last))
        start = None if first is None else day_number(first)
    if start is not None:
        _check_order(start, last)
    return start, end


def _check_order(start: int, end: int) -> None:
    if start > end:
        raise Invalid(
            f"start lies after {iso_day(end)}, which is end, or today without one.",
            code="start_after_end",
            rows=[{"field": "start", "code": "start_after_end", "detail": "start lies after end"}],
        )


def _first_wanted(entry: Entry, end: int) -> int:
    held = end if entry.head.first is None else entry.head.first
    return min(held, entry.state.wanted_from, end)


def _until_stale(quotes: Sequence[Quote], now: float, until: float) -> float:
    return min([until, *(quote.stale_at for quote in quotes if quote.stale_at > now)])
