"""The providers over HTTP: how each does, and a fresh start for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

from pricecache.api import answers
from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderUnavailable, RateLimited
from pricecache.stores.client import Database
from tests.integration.api_daemon import AAPL, ApiDaemon, api_daemon

READER, OPERATOR = {"X-API-Key": "r"}, {"X-API-Key": "o"}


@pytest.fixture
async def daemon(database: Database) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database) as running:
        yield running


def holds(model: type[BaseModel], value: object) -> None:
    model.model_validate(value, strict=True)


async def fail(daemon: ApiDaemon, *errors: ProviderUnavailable | RateLimited) -> None:
    (pool,) = daemon.services.pools
    for error in errors:
        daemon.provider.script(AAPL, error)
        with pytest.raises(type(error)):
            await pool.history(AAPL, 20_000, 20_001)


async def test_a_provider_says_how_it_does(daemon: ApiDaemon) -> None:
    daemon.provider.control = Instrument("SPY")
    status, answer = await daemon.get("/cache/providers")
    assert status == 200
    holds(answers.ProvidersOut, answer)
    (row,) = answer["providers"]
    assert (row["name"], row["position"], row["state"]) == ("scripted", 1, "ok")
    assert row["capabilities"] == ["actions", "history", "live"]
    assert row["breaker"] == {"state": "closed", "failures": 0, "openedAt": None, "until": None}
    assert row["budget"]["perDay"] is None
    assert row["budget"]["resetsAt"] == "2026-11-21T00:00:00Z"
    assert list(row["budget"]["byLane"]) == ["live", "user", "heal", "deep", "search"]
    assert (row["controlSymbol"], row["errorRate24h"], row["lastErrorAt"]) == ("SPY:US", None, None)


async def test_a_paused_provider_shows_since_when_and_until_when_and_is_reset(daemon: ApiDaemon) -> None:
    await fail(daemon, *[ProviderUnavailable()] * 5)
    _, answer = await daemon.get("/cache/providers")
    holds(answers.ProvidersOut, answer)
    (row,) = answer["providers"]
    assert row["state"] == "paused"
    assert row["breaker"] == {
        "state": "open",
        "failures": 5,
        "openedAt": "2026-11-20T10:00:00Z",
        "until": "2026-11-20T10:01:00Z",
    }
    assert (row["calls24h"], row["errors24h"], row["errorRate24h"]) == (5, 5, 1.0)
    assert row["errorsByCode24h"] == {"provider_unavailable": 5}
    assert row["budget"]["byLane"]["heal"] == {"spent": 5, "remaining": None}
    _, told = await daemon.get("/cache/status")
    assert (told["providers"][0]["state"], told["syncErrorRate"]) == ("paused", 1.0)

    status, row = await daemon.call("POST", "/cache/providers/scripted/reset")
    assert (status, row["state"], row["breaker"]["state"]) == (200, "ok", "closed")
    assert row["budget"]["spent"] == 5
    _, row = await daemon.call("POST", "/cache/providers/scripted/reset", json={"budget": True})
    assert (row["budget"]["spent"], row["requests"]) == (0, 5)
    holds(answers.ProviderOut, row)


async def test_a_cool_down_shows_its_end_and_a_half_open_breaker_itself(daemon: ApiDaemon) -> None:
    await fail(daemon, RateLimited(retry_after=30))
    _, answer = await daemon.get("/cache/providers")
    (row,) = answer["providers"]
    assert (row["state"], row["coolDownUntil"]) == ("coolingDown", "2026-11-20T10:00:30Z")
    await daemon.call("POST", "/cache/providers/scripted/reset")
    await fail(daemon, *[ProviderUnavailable()] * 5)
    daemon.clock.advance(60)
    _, answer = await daemon.get("/cache/providers")
    assert answer["providers"][0]["breaker"]["state"] == "halfOpen"


async def test_a_provider_that_is_not_in_use_is_404_and_those_that_are_are_named(daemon: ApiDaemon) -> None:
    status, problem = await daemon.call("POST", "/cache/providers/bloomberg/reset")
    assert (status, problem["code"]) == (404, "unknown_provider")
    assert "scripted" in problem["detail"]


async def test_who_may_only_read_may_reset_nothing(database: Database) -> None:
    async with api_daemon(database, keys=("reader:read:r", "operator:read+ops:o")) as daemon:
        assert (await daemon.get("/cache/providers", headers=READER))[0] == 200
        path = "/cache/providers/scripted/reset"
        assert (await daemon.call("POST", path, headers=READER))[0] == 403
        assert (await daemon.call("POST", path, headers=OPERATOR))[0] == 200
