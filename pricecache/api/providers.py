"""The providers: how each does, what it may still be asked today, what it cost, and a fresh start for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from pydantic.alias_generators import to_camel

from pricecache.api.call import Answer, Call
from pricecache.api.wire import instant
from pricecache.core.provider_accounts import next_day
from pricecache.errors import NotFound

if TYPE_CHECKING:
    from pricecache.core.asking import Pace
    from pricecache.core.provider_accounts import Account
    from pricecache.providers.chain import ProviderChain
    from pricecache.providers.pool import PoolStats, ProviderPool

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
    account, pace, stats = pool.account, pool.pace, pool.stats()
    return {
        "name": pool.name,
        "position": chain.pools.index(pool) + 1,
        "capabilities": sorted(pool.provider.capabilities),
        "state": to_camel(stats.state),
        "breaker": _breaker(account, now),
        "coolDownUntil": instant(now + stats.cooling_down_for) if stats.cooling_down_for else None,
        "budget": _budget(account, pace, now),
        "requests": account.requests,
        "spentDollars": round(account.dollars, 6),
        **_last_day(stats),
        "rate": {"perSecond": pace.per_second, "burst": pace.burst, "concurrency": pace.concurrency},
        "price": pace.price,
        **_last_words(account),
        "controlSymbol": None if pool.provider.control is None else str(pool.provider.control),
        "notes": _notes(pool),
    }


def status_fields(pool: ProviderPool) -> dict[str, Any]:
    """One provider as `GET /cache/status` lists it."""
    pace, stats = pool.pace, pool.stats()
    return {
        "name": pool.name,
        "state": to_camel(stats.state),
        "coolDownSeconds": round(stats.cooling_down_for, 1),
        "calls": stats.calls,
        "errors": stats.errors,
        **_last_day(stats),
        "refused": stats.refused,
        "running": stats.running,
        "overdue": stats.overdue,
        "waiting": stats.waiting,
        "perSecond": pace.per_second,
        "burst": pace.burst,
        "concurrency": pace.concurrency,
        "perDay": pace.per_day,
        "remainingToday": stats.remaining_today,
        "spentDollars": pool.account.dollars,
        **_last_words(pool.account),
    }


def _last_day(stats: PoolStats) -> dict[str, Any]:
    return {
        "calls24h": stats.calls_24h,
        "errors24h": stats.errors_24h,
        "errorsByCode24h": dict(stats.errors_by_code_24h),
        "errorRate24h": stats.error_rate_24h,
    }


def _last_words(account: Account) -> dict[str, Any]:
    return {
        "lastSuccessAt": instant(account.last_success_at),
        "lastErrorAt": instant(account.last_error_at),
        "lastErrorCode": account.last_error_code,
    }


def _breaker(account: Account, now: float) -> dict[str, Any]:
    state = account.breaker(now)
    return {
        "state": to_camel(state),
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
