"""Live tracking of the user who asks, the manual update of one portfolio, and how the update queue stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pricecache.api.call import Answer, Call
from pricecache.api.portfolio_summary import summary_fields
from pricecache.api.portfolios import portfolio_of, user_of
from pricecache.api.runs import REFRESH_JOB
from pricecache.api.wire import camel, instant, iso_day

if TYPE_CHECKING:
    from pricecache.core.portfolios import Portfolio
    from pricecache.realtime.tracking import TrackingStatus
    from pricecache.stores.day_ranges import Close

FETCH_SECONDS = 5.0
"""How long a refresh waits for providers; what comes later is told by the stream."""


async def start(call: Call) -> Answer:
    call.services.realtime.require()
    is_new = await call.services.realtime.tracking.start(user_of(call), call.principal.name)
    return Answer(await _status(call), 201 if is_new else 200)


async def stop(call: Call) -> Answer:
    await call.services.realtime.tracking.stop(user_of(call))
    return Answer(await _status(call))


async def status(call: Call) -> Answer:
    return Answer(await _status(call))


async def refresh(call: Call) -> Answer:
    """At once, whatever is waiting and however often it was updated of late."""
    portfolio, services = await portfolio_of(call), call.services
    if call.query.prices:
        await _fetch_prices(call, portfolio)
    found = await services.summaries.of(portfolio)
    services.realtime.refresh(portfolio)
    return Answer(summary_fields(found, await services.realtime.range_of(found)))


async def _fetch_prices(call: Call, portfolio: Portfolio) -> None:
    """Ask the providers for what it holds, and wait for that for a moment."""
    services = call.services
    found = await services.summaries.of(portfolio)
    held = {one.instrument for one in found.summary.positions if one.quantity and one.instrument.place.has_provider}
    if held:
        run = await services.jobs.run(REFRESH_JOB, {"symbols": sorted(map(str, held))}, call.principal.name)
        await run.finished(FETCH_SECONDS)


async def queue_stats(call: Call) -> Answer:
    realtime = call.services.realtime
    return Answer({"enabled": realtime.is_enabled, **camel(realtime.queue_stats())})


async def _status(call: Call) -> dict[str, Any]:
    found = await call.services.realtime.tracking.status(user_of(call))
    return {"enabled": call.services.realtime.is_enabled, **_status_fields(found, call)}


def _status_fields(found: TrackingStatus, call: Call) -> dict[str, Any]:
    tracked = found.tracked
    return {
        "tracking": tracked is not None,
        "since": None if tracked is None else instant(tracked.since),
        "startedBy": None if tracked is None else tracked.by,
        "portfolioIds": list(found.portfolios),
        "instruments": found.instruments,
        "intervalSeconds": call.services.realtime.tracking.interval,
        "marketOpen": found.is_market_open,
        "lastUpdate": instant(found.looked_at),
        "nextUpdate": instant(found.next_at),
        "nextOpen": instant(found.opens_at),
        "closes": [_close_fields(close) for close in found.closes],
    }


def _close_fields(close: Close) -> dict[str, Any]:
    return {
        "portfolioId": close.portfolio,
        "date": iso_day(close.day),
        "totalValue": close.value,
        "dayChange": close.change,
        "dayHigh": close.high,
        "dayLow": close.low,
        "capturedAt": instant(close.at),
    }
