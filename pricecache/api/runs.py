"""Work on request: started, joined, waited for a moment, and followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pricecache.api.call import Answer, Call
from pricecache.api.encoding import run_fields
from pricecache.api.entries import require_all
from pricecache.api.ownership import is_visible, name_for, sees_all
from pricecache.core.bars import day_number
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid
from pricecache.sync.backfill import BACKFILL_JOB, backfill_parameters
from pricecache.sync.ports import FORCED
from pricecache.sync.verify import VERIFY_JOB

if TYPE_CHECKING:
    from pricecache.stores.runs import Run

REFRESH_JOB = "live_price_update"
SYNC_JOB = "historical_sync"


async def refresh_live(call: Call) -> Answer:
    symbols: list[Instrument] | None = call.body.symbols
    if symbols is None:
        return await run_answer(call, REFRESH_JOB, FORCED)
    require_all(call.services.catalog, symbols)
    return await run_answer(call, REFRESH_JOB, {"symbols": sorted({str(instrument) for instrument in symbols})})


async def sync_historical(call: Call) -> Answer:
    return await run_answer(call, SYNC_JOB, FORCED)


async def backfill_symbol(call: Call) -> Answer:
    # only POST /cache/symbols begins a new instrument under a symbol that another one had
    instrument: Instrument = call.services.catalog.present(call.body.instrument)
    if instrument.market == "CUSTOM":
        raise Invalid(
            f"No provider has {instrument}: send prices with PUT /cache/historical/{instrument.symbol}?market=CUSTOM.",
            code="no_provider",
        )
    start = None if call.body.start is None else day_number(call.body.start)
    call.services.tracker.check_start(start)
    return await run_answer(call, BACKFILL_JOB, backfill_parameters([instrument], start))


async def verify(call: Call) -> Answer:
    return await run_answer(call, VERIFY_JOB, {"rebuild": call.body.rebuild})


async def recent_runs(call: Call) -> Answer:
    now = call.services.clock.time()
    query = call.query
    runs = await call.services.runs.recent(query.limit, query.job, uneventful=query.all_ or query.job is not None)
    return Answer({"runs": [_fields_for(call, run, now) for run in runs]})


async def one_run(call: Call) -> Answer:
    run = await call.services.jobs.get(call.path["id"])
    return Answer(_fields_for(call, run, call.services.clock.time()))


async def scheduler_status(call: Call) -> Answer:
    return Answer(call.services.jobs.status())


async def run_answer(call: Call, job: str, parameters: dict[str, Any]) -> Answer:
    """Run a job, or join the equal run that goes on: its report when it is done in time, else where to follow it."""
    ticket = await call.services.jobs.run(job, parameters, call.principal.name)
    finished = await ticket.finished(call.query.wait)
    fields = run_fields(ticket.run, call.services.clock.time())
    if finished:
        return Answer(fields)
    return Answer(fields, 202, {"Location": f"/cache/runs/{ticket.run.id}"})


def _fields_for(call: Call, run: Run, now: float) -> dict[str, Any]:
    """A run as whoever asks may know it: without what is of other users in it."""
    fields = run_fields(run, now)
    if sees_all(call.principal) or run.requested_by == call.principal.name:
        return fields
    return {
        **fields,
        "requestedBy": name_for(call.principal, run.requested_by),
        "parameters": {},
        "failures": [failure for failure in fields["failures"] if _is_for_all(call, failure)],
    }


def _is_for_all(call: Call, failure: dict[str, str]) -> bool:
    if "symbol" not in failure:  # of a portfolio, or of a connection
        return False
    entry = call.services.catalog.find(Instrument(failure["symbol"], failure["market"]))
    return entry is None or is_visible(entry, call.principal)
