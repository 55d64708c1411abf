"""Reconstructions over HTTP: asked for with what a broker says, followed, and counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pricecache import garbage
from pricecache.api.broker_payloads import Request, read_request
from pricecache.api.call import Answer, Call
from pricecache.api.imports import LONG_FILE
from pricecache.api.portfolios import user_of
from pricecache.api.wire import camel
from pricecache.portfolio.reconstruction_data import progress_data
from pricecache.portfolio.threads import let_go

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pricecache.portfolio.broker_intake import Taken
    from pricecache.stores.reconstructions import ReconstructionRecord

METRICS_DAYS = 30
_NUMBERS = ("quantity", "amount")


async def request(call: Call) -> Answer:
    if call.body is None or len(call.body.content) < LONG_FILE:
        return await _request(call, await asyncio.to_thread(read_request, call.body, call.services.clock.time()))
    with garbage.young_only():
        async with call.services.uploads.parsing:
            given = await asyncio.to_thread(read_request, call.body, call.services.clock.time())
        answer = await _request(call, given)
        rows = [] if given.posted is None else list(given.posted.data.transactions)
        del given
        await let_go(rows)
        return answer


async def _request(call: Call, given: Request) -> Answer:
    user = user_of(call)
    taken = await _taken(call, user, given)
    listed = [await _fields(call, one.record) for one in taken]
    first = taken[0]
    fields = {**listed[0], "unchanged": first.is_unchanged, "reconstructions": listed}
    where = f"/api/portfolio/reconstruction/status?connectionId={first.record.connection}"
    return Answer(fields, 200 if first.is_unchanged else 202, {"Location": where})


async def _taken(call: Call, user: str, given: Request) -> Sequence[Taken]:
    intake, asked, by = call.services.reconstructions.intake, given.asked, call.principal.name
    wanted, portfolio = asked.portfolio_id or call.query.portfolio_id, None
    if wanted is not None:
        portfolio = await call.services.portfolios.get(user, wanted)
    if given.posted is not None:
        name, force = asked.portfolio_name or call.query.portfolio_name, asked.force or call.query.force
        return [await intake.post(user, given.posted, by, portfolio=portfolio, name=name, force=force)]
    if asked.connection_id is not None:
        return [await intake.again(user, asked.connection_id, by)]
    return await intake.all_again(user, by, portfolio)


async def status(call: Call) -> Answer:
    user, query = user_of(call), call.query
    if query.portfolio_id is not None:
        await call.services.portfolios.get(user, query.portfolio_id)
    if query.connection_id is not None:
        await call.services.connections.store.get(user, query.connection_id)
    found = await call.services.reconstructions.queue.store.all_of(user, query.portfolio_id)
    wanted = [one for one in found if query.connection_id in (None, one.connection)]
    return Answer({"reconstructions": [await _status(call, one) for one in wanted]})


async def _status(call: Call, record: ReconstructionRecord) -> dict[str, Any]:
    fields = await _fields(call, record)
    if record.result is None:
        return {**fields, "result": None}
    store, query = call.services.reconstructions.queue.store, call.query
    total, findings = await store.findings(record.connection, query.offset, query.findings)
    result = {name: value for name, value in record.result.items() if name != "portfolio_id"}
    listed = [_finding(one) for one in findings]
    return {**fields, "result": {**camel(result), "findings": listed, "findingsTotal": total}}


def _finding(found: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: float(found[name]) for name in _NUMBERS if found.get(name) is not None}
    return dict(camel({**found, **numbers}))


async def _fields(call: Call, record: ReconstructionRecord) -> dict[str, Any]:
    return {**progress_data(record), "position": await call.services.reconstructions.queue.store.place(record)}


async def metrics(call: Call) -> Answer:
    return Answer(await call.services.reconstructions.metrics(METRICS_DAYS))
