"""What is stored of histories, for operators: stored now, counted, computed again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricecache.api.call import Answer, Call
from pricecache.api.runs import run_answer
from pricecache.api.wire import camel, iso_day
from pricecache.core.bars import DAY_SECONDS, day_number
from pricecache.errors import Conflict
from pricecache.portfolio.materialiser import MATERIALIZE_JOB

if TYPE_CHECKING:
    from pricecache.portfolio.sampler import Drift


async def materialize(call: Call) -> Answer:
    _require_enabled(call)
    parameters: dict[str, Any] = {"force": call.body.force}
    if call.body.portfolio_id is not None:
        parameters["portfolioId"] = (await call.services.portfolios.find(call.body.portfolio_id)).id
    return await run_answer(call, MATERIALIZE_JOB, parameters)


async def invalidate(call: Call) -> Answer:
    _require_enabled(call)
    services, body = call.services, call.body
    portfolio = await services.portfolios.find(body.portfolio_id)
    await services.materialiser.doubt(portfolio, day_number(body.from_date))
    if body.recalculate:
        await services.materialiser.materialise(portfolio)
    facts = {"portfolioId": portfolio.id, "fromDate": body.from_date.isoformat(), "recalculated": body.recalculate}
    return Answer(facts)


async def stats(call: Call) -> Answer:
    services = call.services
    totals = await services.stored_histories.totals(int(services.clock.time() // DAY_SECONDS))
    counted, sampler = services.materialiser.stats, services.sampler
    return Answer(
        {
            "enabled": services.histories.wholes.is_keeping,
            "totalRecords": totals.rows,
            "portfolios": totals.portfolios,
            "portfoliosWithData": totals.ledgers,
            "days": totals.days,
            "start": iso_day(totals.first),
            "end": iso_day(totals.last),
            "coverage": min(totals.days / totals.days_due, 1.0) if totals.days_due else None,
            "dataBytes": totals.data_bytes,
            "diskBytes": totals.disk_bytes,
            "bytesPerRecord": round(totals.data_bytes / totals.rows, 1) if totals.rows else None,
            "pending": services.materialiser.pending,
            "stored": counted.stored,
            "failures": counted.failed,
            "sampled": sampler.sampled,
            "drift": sampler.drifted,
            "lastDrift": None if sampler.last is None else _drift_fields(sampler.last),
        }
    )


def _drift_fields(drift: Drift) -> dict[str, Any]:
    fields = asdict(drift)
    (name,) = camel({fields.pop("field"): None})
    amounts = {key: None if fields[key] != fields[key] else fields[key] for key in ("stored", "computed")}
    where = {"portfolioId": fields["portfolio"], "accountId": fields["account"], "date": iso_day(fields["day"])}
    return {**where, "field": name, **amounts}


def _require_enabled(call: Call) -> None:
    if not call.services.histories.wholes.is_keeping:
        raise Conflict("PRICECACHE_USE_MATERIALIZED is false: nothing is stored.", code="materialization_off")
