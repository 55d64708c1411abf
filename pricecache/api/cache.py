"""What the cache knows, read: quotes, history, coverage, actions, symbols. No handler here calls a provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import TYPE_CHECKING, Any

import orjson

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import (
    action_fields,
    coverage_fields,
    coverage_headers,
    divergence_fields,
    etag_of,
    history_arrow,
    history_csv,
    history_json,
    provisional_days,
    quote_fields,
    symbol_fields,
)
from pricecache.api.inputs import HistoryQuery
from pricecache.api.intraday import intraday_history
from pricecache.api.kept import Kept
from pricecache.api.known import known_instant
from pricecache.api.splice import Frame, can_follow, can_move
from pricecache.api.wire import encode, exact_instant, instant, iso_day
from pricecache.cache.as_known import market_date
from pricecache.core.actions import preferred
from pricecache.core.bars import Bars, day_number, day_of
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
    """Bars: right until the entry changes, another session falls due or opens, the market's date changes, or, where
    the session that runs is among them, its quote makes another bar."""

    __slots__ = ("_catalog", "_complete", "_entry", "_key", "_live", "_quote", "_reader", "_until", "_version")

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
        self._until = (
            min(answer.valid_until, answer.quote.stale_at) if answer.quote and answer.runs else answer.valid_until
        )
        self._complete = answer.coverage.complete
        self._live: LiveCache | None = services.live if answer.watches else None
        self._key = answer.entry.instrument.key
        self._quote = answer.quote

    def current(self, now: float) -> bool:
        entry = self._entry
        return (
            entry.version == self._version
            and now < self._until
            and self._catalog.trusted
            and self._catalog.by_id(entry.id) is entry
            and (self._live is None or self._live.get(self._key) is self._quote)
        )

    def _entry_stands(self) -> bool:
        entry = self._entry
        return entry.version == self._version and self._catalog.trusted and self._catalog.by_id(entry.id) is entry

    def count_read(self) -> None:
        self._reader.count(self._complete)


class KeptRunning(KeptHistory):
    """Bars in rows of which the last one is of the session that runs: another quote changes that row only."""

    __slots__ = ("_answer", "_fields", "_frame", "_services")

    def __init__(
        self,
        services: Services,
        answer: HistoryAnswer,
        body: bytes,
        etag: str,
        content_type: str,
        fields: Sequence[str],
        frame: Frame | None = None,
    ) -> None:
        super().__init__(services, answer, body, etag, content_type)
        self._services = services
        self._answer = replace(answer, bars=answer.bars.between(int(answer.bars.sessions[-1]), None))
        self._fields = fields
        self._frame = frame

    @property
    def nbytes(self) -> int:
        return super().nbytes + (self._frame.nbytes if self._frame is not None else 0)

    def renewed(self, now: float) -> Kept | None:
        quote = self._services.live.get(self._key)
        if quote is None or now >= self._answer.valid_until or not self._entry_stands():
            return None
        made = self._reader.running_bar(self._entry, quote)
        session = int(self._answer.bars.sessions[0])
        if made is None or made[0] != session or not can_follow(made[1], self._fields):
            return None
        frame = self._frame or Frame(self._plain.body, self._fields, self._answer.adjust)
        answer = replace(self._answer, bars=Bars(self._answer.bars.sessions, made[1]), quote=quote)
        body, etag = frame.filled(session, made[1])
        return KeptRunning(self._services, answer, body, etag, "application/json", self._fields, frame)

    def _compressed(self, body: bytes) -> bytes:
        return super()._compressed(body) if self._frame is None else self._frame.gzip(body)


class KeptKnown(KeptHistory):
    """Bars as they were known at an instant: right until something is committed, or learned of the instrument. Whether
    they were complete then says nothing of how well the cache serves now, so they are no reads that count."""

    __slots__ = ()

    def count_read(self) -> None:
        """Not counted."""


async def live_quote(call: Call) -> Kept | Answer:
    services = call.services
    asked = call.instrument
    instrument = services.catalog.present(asked)
    quote = services.live.get(instrument.key)
    if quote is None:
        services.catalog.require(instrument)
        raise NotFound(
            f"There is no quote of {instrument} yet. POST /cache/refresh-live fetches one.",
            code="no_quote",
            symbol=instrument.symbol,
            market=instrument.market,
        )
    now = services.clock.time()
    if instrument != asked:  # not kept: the former symbol may become another's at any time
        return Answer(quote_fields(quote, now) | {"requested": asked.symbol})
    return KeptQuote(services.live, quote, now)


async def live_quotes(call: Call) -> Kept | Answer:
    services = call.services
    now = services.clock.time()
    if call.query.symbols is None:
        held = services.live.snapshot().values()
        market = call.query.market
        return KeptQuotes(services.live, [q for q in held if market in (None, q.instrument.market)], [], now)
    quotes, missing = [], []
    former: dict[Instrument, str] = {}
    for asked in named(call.query.symbols, call.query.market):
        instrument = services.catalog.present(asked)
        if instrument != asked:
            former[instrument] = asked.symbol
        quote = services.live.get(instrument.key)
        if quote is not None:
            quotes.append(quote)
        else:
            code = "unknown_symbol" if services.catalog.get(instrument) is None else "no_quote"
            missing.append({"symbol": instrument.symbol, "market": instrument.market, "code": code})
    if former:
        rows = [quote_fields(q, now) for q in quotes]
        named_so = [{"requested": former[q.instrument]} if q.instrument in former else {} for q in quotes]
        return Answer({"quotes": [a | b for a, b in zip(rows, named_so, strict=True)], "missing": missing})
    return KeptQuotes(services.live, quotes, missing, now)


async def history(call: Call) -> Kept:
    query: HistoryQuery = call.query
    entry = await current_entry(call.services, call.instrument)
    if query.interval != "1d":
        return await intraday_history(call.services, entry, query, former_name(entry, call.instrument))
    if query.as_known_on is not None:
        return await _known_history(call.services, entry, query, former_name(entry, call.instrument))
    start, end = _range(call.services.reader.today(entry), query)
    answer = await call.services.reader.history(entry, start, end, query.adjust, provisional=query.provisional)
    requested = former_name(entry, call.instrument)
    encoded = await _encoded(answer, query, requested)
    if answer.runs and query.format == "json" and can_move(answer.bars.values, query.fields):
        return KeptRunning(call.services, answer, *encoded[:3], list(dict.fromkeys(query.fields)))
    return KeptHistory(call.services, answer, *encoded)


async def _known_history(services: Services, entry: Entry, query: HistoryQuery, requested: str | None) -> Kept:
    assert query.as_known_on is not None
    at = known_instant(query.as_known_on, services.clock.time())
    start, end = _range(market_date(entry, at), query)
    answer = await services.as_known.history(entry, at, start, end, query.adjust)
    return KeptKnown(services, answer, *await _encoded(answer, query, requested))


async def _encoded(
    answer: HistoryAnswer, query: HistoryQuery, requested: str | None
) -> tuple[bytes, str, str, dict[str, str]]:
    """Body, tag, content type and further headers, in the format that is asked for."""
    fields = list(dict.fromkeys(query.fields))
    if query.format in ("json", "columns"):
        as_columns = query.format == "columns"
        return *history_json(answer, fields, columns=as_columns, requested=requested), "application/json", {}
    said = coverage_headers(answer.coverage, provisional_days(answer))
    if answer.as_known_on is not None:
        said["X-Pricecache-As-Known-On"] = exact_instant(answer.as_known_on)
    if query.format == "csv":
        return *history_csv(answer, fields), "text/csv; charset=utf-8", said
    return *await history_arrow(answer, fields), "application/vnd.apache.arrow.stream", said


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
            "divergences": divergence_fields(entry.state),
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


def former_name(entry: Entry, asked: Instrument) -> str | None:
    """The symbol that `entry` was asked for by, when that is not its present one."""
    return None if asked == entry.instrument else asked.symbol


def named(names: Sequence[str], market: str | None) -> list[Instrument]:
    """The instruments that a query names, each once. Raises `Invalid` with a row for every name that cannot be one."""
    instruments, rows = [], []
    for row, name in enumerate(names):
        try:
            instruments.append(Instrument.parse_in(name, market))
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


def _range(today: int, query: HistoryQuery) -> tuple[int | None, int | None]:
    start = None if query.start is None else day_number(query.start)
    end = None if query.end is None else day_number(query.end)
    last = today if end is None else end
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
