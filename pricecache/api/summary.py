"""How whole everything is: coverage of every symbol and of all together, and the daemon's status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import failure_fields
from pricecache.api.ownership import is_visible
from pricecache.api.providers import status_fields
from pricecache.api.wire import camel, instant, iso_day
from pricecache.cache.wholeness import Extent
from pricecache.core.catalog import Entry

if TYPE_CHECKING:
    from pricecache.api.services import Services
    from pricecache.sync.streamfeed import StreamFeed

_STORAGE_SECONDS = 2.0


async def coverage_summary(call: Call) -> Answer:
    wholeness, query = call.services.wholeness, call.query
    seen = [(entry, extent) for entry, extent in await wholeness.look() if is_visible(entry, call.principal)]
    rows = [
        _row(entry, extent)
        for entry, extent in seen
        if query.market in (None, entry.instrument.market) and (query.class_ is None or extent.holes.get(query.class_))
    ]
    divergences = _divergences(entry for entry, _ in seen)
    return Answer({**_total(wholeness.total), "divergences": divergences, "symbols": rows[: query.limit]})


async def status(call: Call) -> Answer:
    services = call.services
    seen = await services.wholeness.look()
    rows = [_row(entry, extent) for entry, extent in seen if is_visible(entry, call.principal)]
    return Answer(
        {
            "live": _live(services),
            "historical": _historical(services.catalog),
            "hitRate": services.reader.hit_rate,
            "syncErrorRate": _error_rate(services),
            "coverage": {
                **_total(services.wholeness.total),
                "divergences": _divergences(services.catalog.tracked()),
                "parked": services.review.quarantine.parked,
            },
            "symbols": rows,
            "providers": [status_fields(pool) for pool in services.pools],
            "storage": await _storage(services),
        }
    )


def _total(extent: Extent) -> dict[str, Any]:
    return {
        "expected": extent.expected,
        "present": extent.present,
        "ratio": extent.ratio,
        "holes": dict(extent.holes),
    }


def _row(entry: Entry, extent: Extent) -> dict[str, Any]:
    return {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        **_total(extent),
        "bars": entry.head.count,
        "first": iso_day(entry.head.first),
        "last": iso_day(entry.head.last),
        "lastUpdate": instant(entry.state.last_update),
        **failure_fields(entry.state),
        "parked": len(entry.state.parked),
        "divergences": len(entry.state.divergences),
    }


def _divergences(entries: Iterable[Entry]) -> dict[str, int]:
    return dict(Counter(kind for entry in entries for kind in entry.state.divergences))


async def _storage(services: Services) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_STORAGE_SECONDS):
            return dict(camel(await services.status.storage()))
    except (PyMongoError, TimeoutError):
        # when the database is away the rest of the status is what one wants to see
        return {"reason": "the database does not answer"}


def _live(services: Services) -> dict[str, Any]:
    # quotes of symbols that are tracked no more stay, become stale, and say nothing of how things stand
    held = (services.live.get(entry.instrument.key) for entry in services.catalog.tracked())
    quotes = [quote for quote in held if quote is not None]
    now = services.clock.time()
    instants = [quote.as_of for quote in quotes]
    return {
        "count": len(instants),
        "stale": sum(1 for quote in quotes if now >= quote.stale_at),
        "oldest": instant(min(instants, default=None)),
        "newest": instant(max(instants, default=None)),
        "stream": _stream(services.stream),
    }


def _stream(feed: StreamFeed | None) -> dict[str, Any] | None:
    if feed is None:
        return None
    state = feed.state()
    at = {name: instant(state[name]) for name in state if name.endswith("_at")}
    return dict(camel({**state, **at, "ignored": None})) | {"ignored": dict(state["ignored"])}


def _historical(entries: Iterable[Entry]) -> dict[str, Any]:
    known = list(entries)
    updates = [entry.state.last_update for entry in known if entry.state.last_update is not None]
    return {
        "symbols": sum(1 for entry in known if entry.head.count),
        "tracked": sum(1 for entry in known if entry.tracked),
        "failing": sum(1 for entry in known if entry.tracked and entry.state.attempts),
        "bars": sum(entry.head.count for entry in known),
        "oldest": iso_day(min((e.head.first for e in known if e.head.first is not None), default=None)),
        "newest": iso_day(max((e.head.last for e in known if e.head.last is not None), default=None)),
        "lastUpdate": instant(max(updates, default=None)),
    }


def _error_rate(services: Services) -> float | None:
    calls = sum(pool.calls_24h for pool in services.pools)
    return sum(pool.errors_24h for pool in services.pools) / calls if calls else None
