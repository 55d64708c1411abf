"""The providers: how each does, what it may still be asked today, what it cost, and a fresh start for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from pricecache.api.call import Answer, Call
from pricecache.api.wire import instant
from pricecache.errors import NotFound
from pricecache.providers.account import next_day

if TYPE_CHECKING:
    from pricecache.providers.account import Account
    from pricecache.providers.base import Pace
    from pricecache.providers.chain import ProviderChain
    from pricecache.providers.pool import ProviderPool

log = structlog.get_logger(__name__)


async def providers(call: Call) -> Answer:
    chain, now = call.services.chain, call.services.clock.time()
    for pool in chain.pools:
        await pool.keeper.freshen()
    return Answer({"providers": [provider_fields(chain, pool, now) for pool in chain.pools]})


async def reset(call: Call) -> Answer:
    """Raises `NotFound` with code `unknown_provider`."""
    chain, name = call.services.chain, call.path["name"]
    pool = chain.named(name)
    if pool is None:
        there_are = ", ".join(pool.name for pool in chain.pools)
        raise NotFound(f"There is no provider {name!r} in use; there are {there_are}.", code="unknown_provider")
    await pool.reset(budget=call.body.budget)
    log.info("provider reset", provider=name, budget=call.body.budget, by=call.principal.name)
    return Answer(provider_fields(chain, pool, call.services.clock.time()))


def provider_fields(chain: ProviderChain, pool: ProviderPool, now: float) -> dict[str, Any]:
    """One provider as `GET /cache/providers` lists it."""
    account, pace = pool.account, pool.pace
    calls, errors = account.of_last_day(now)
    failed = sum(errors.values())
    cooling = account.cooling_down_for(now)
    return {
        "name": pool.name,
        "position": chain.pools.index(pool) + 1,
        "capabilities": sorted(pool.provider.capabilities),
        "state": pool.state,
        "breaker": _breaker(account, now),
        "coolDownUntil": instant(now + cooling) if cooling else None,
        "budget": _budget(account, pace, now),
        "requests": account.requests,
        "spentDollars": round(account.dollars, 6),
        "calls24h": calls,
        "errors24h": failed,
        "errorsByCode24h": errors,
        "errorRate24h": failed / calls if calls else None,
        "rate": {"perSecond": pace.per_second, "burst": pace.burst, "concurrency": pace.concurrency},
        "price": pace.price,
        "lastSuccessAt": instant(account.last_success_at),
        "lastErrorAt": instant(account.last_error_at),
        "lastErrorCode": account.last_error_code,
        "controlSymbol": None if pool.provider.control is None else str(pool.provider.control),
        "notes": _notes(pool),
    }


def _breaker(account: Account, now: float) -> dict[str, Any]:
    state = account.breaker(now)
    return {
        "state": "halfOpen" if state == "half_open" else state,
        "failures": account.failures,
        "openedAt": instant(account.opened_at),
        "until": instant(account.paused_until) if state == "open" else None,
    }


def _budget(account: Account, pace: Pace, now: float) -> dict[str, Any]:
    by_lane = {
        lane: {"spent": spent, "remaining": account.remaining(pace, lane, now)}
        for lane, spent in account.spent_by_lane(now).items()
    }
    return {
        "perDay": pace.per_day,
        "spent": sum(lane["spent"] or 0 for lane in by_lane.values()),
        "remaining": account.remaining(pace, "live", now),
        "resetsAt": instant(next_day(now)),
        "byLane": by_lane,
    }


def _notes(pool: ProviderPool) -> list[str]:
    notes = []
    if pool.pace != pool.provider.pace:
        notes.append("Its pace is set by PRICECACHE_PROVIDER_LIMITS.")
    if pool.pace.local:
        notes.append("It asks nothing outside this machine.")
    if pool.provider.control is None:
        notes.append("It has no control symbol: after a pause the first call that comes is the trial.")
    return notes
