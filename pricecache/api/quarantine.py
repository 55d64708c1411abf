"""What was refused or waits for review, and a person's decisions about it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from pricecache.api.call import Answer, Call
from pricecache.api.entries import current_entry
from pricecache.api.wire import instant, iso_day
from pricecache.core.bars import FIELDS, day_number
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.stores.quarantine import UNSETTLED, Item
from pricecache.sync.backfill import BACKFILL_JOB, backfill_parameters
from pricecache.sync.review import Decision


async def quarantine(call: Call) -> Answer:
    query, store = call.query, call.services.review.quarantine
    series = market = None
    if query.symbol is not None:
        series = (await current_entry(call.services, Instrument.parse(query.symbol, query.market))).id
    else:
        market = query.market
    states = UNSETTLED if query.state is None else (query.state,)
    items = await store.items(series=series, market=market, states=states, code=query.code, limit=query.limit)
    by_state, by_code = Counter[str](), Counter[str]()
    for state, code, count in await store.tally():
        by_state[state] += count
        if state in UNSETTLED:
            by_code[code] += count
    counts = {"byState": dict(by_state), "byCode": dict(by_code)}
    symbols = [] if query.state or query.code else _dead(call.services.catalog, series, market)
    return Answer({"items": [_fields(item) for item in items], "symbols": symbols, "counts": counts})


def _dead(catalog: Catalog, series: int | None, market: str | None) -> list[dict[str, Any]]:
    found = [
        entry
        for entry in catalog
        if entry.state.quarantined_at is not None
        and series in (None, entry.id)
        and market in (None, entry.instrument.market)
    ]
    return [_symbol_fields(entry) for entry in sorted(found, key=lambda entry: entry.instrument)]


def _symbol_fields(entry: Entry) -> dict[str, Any]:
    return {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "since": instant(entry.state.quarantined_at),
        "notFound": entry.state.not_found,
        "reason": entry.state.reason,
        "nextRetry": instant(entry.state.next_retry),
    }


async def approve(call: Call) -> Answer:
    ex_date = None if call.body is None or call.body.ex_date is None else day_number(call.body.ex_date)
    decision = await call.services.review.approve(call.path["id"], call.principal.name, ex_date)
    if decision.look_again:
        parameters = backfill_parameters([decision.entry.instrument])
        await call.services.jobs.run(BACKFILL_JOB, parameters, call.principal.name)
    return _decided(decision)


async def drop(call: Call) -> Answer:
    return _decided(await call.services.review.drop(call.path["id"], call.principal.name))


def _decided(decision: Decision) -> Answer:
    return Answer(_fields(decision.item))


def _fields(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "symbol": item.instrument.symbol,
        "market": item.instrument.market,
        "kind": item.kind,
        "session": iso_day(item.session),
        "code": item.code,
        "detail": item.detail,
        "source": item.source,
        "state": item.state,
        "bar": None if item.bar is None else _bar(item.bar),
        "ratio": item.ratio,
        "suggestion": item.suggestion,
        "firstSeen": instant(item.first_seen),
        "lastSeen": instant(item.last_seen),
        "times": item.times,
        "decidedBy": item.decided_by,
        "decidedAt": instant(item.decided_at),
    }


def _bar(values: tuple[float, ...]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in zip(FIELDS, values, strict=True)}
