"""What the cache knows, read: quotes, history, coverage, actions, symbols. No handler here calls a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import (
    coverage_fields,
    coverage_headers,
    currency_facts,
    divergence_fields,
    history_arrow,
    history_csv,
    history_json,
    provisional_days,
    quote_fields,
    symbol_fields,
)
from pricecache.api.entries import actions_of, current_entry, former_name, named
from pricecache.api.inputs import HistoryQuery
from pricecache.api.intraday import intraday_history
from pricecache.api.kept import Kept
from pricecache.api.kept_answers import KeptHistory, KeptKnown, KeptQuote, KeptQuotes, KeptRunning
from pricecache.api.known import known_instant
from pricecache.api.ownership import is_visible, name_for
from pricecache.api.splice import can_move
from pricecache.api.wire import exact_instant, instant, iso_day
from pricecache.cache.as_known import market_date
from pricecache.core.bars import day_number, day_of
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.core.periods import period_start
from pricecache.errors import Invalid, NotFound

if TYPE_CHECKING:
    from pricecache.api.services import Services
    from pricecache.cache.reader import HistoryAnswer


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
    entry = await current_entry(call.services, call.instrument)
    kept = await _history(call, entry)
    kept.user = entry.owner
    return kept


async def _history(call: Call, entry: Entry) -> Kept:
    query: HistoryQuery = call.query
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
    said |= currency_facts(answer.entry, "X-Pricecache-Currencies")
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
    market, state, now = call.query.market, call.query.state, call.services.clock.time()
    named = (entry for entry in call.services.catalog if market in (None, entry.instrument.market))
    rows = [
        {**symbol_fields(entry, now), "trackedBy": name_for(call.principal, entry.tracked_by)}
        for entry in named
        if is_visible(entry, call.principal)
    ]
    wanted = [row for row in rows if (row["state"] == state if state else row["tracked"] or row["bars"])]
    return Answer({"symbols": sorted(wanted, key=lambda row: (row["market"], row["symbol"]))})


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
