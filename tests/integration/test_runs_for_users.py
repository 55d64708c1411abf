"""Runs and symbols as users read them: nothing in them is of another user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pricecache.core.instruments import Instrument
from pricecache.stores.instruments import Own
from pricecache.stores.runs import Run, RunHandle, new_run_id
from tests.integration.api_daemon import ApiDaemon, api_daemon
from tests.integration.test_api_access import KEYS, SECRET, bearer, key


@pytest.fixture
async def daemon(database: Any) -> AsyncIterator[ApiDaemon]:
    async with api_daemon(database, keys=KEYS, jwt_secret=SECRET) as started:
        yield started


async def ran(daemon: ApiDaemon, requested_by: str) -> str:
    """A run with failures of everything that can fail."""
    now = daemon.clock.time()
    run = Run(new_run_id(), "broker_fetch", "succeeded", requested_by, {"connections": ["c-alice"]}, now, now)
    handle = RunHandle(run)
    handle.fail_connection("c-alice", "login_required", "The user has to log in at the institution again.")
    handle.fail_portfolio("p-alice", "no_price", "It has no price.")
    handle.fail(Instrument("AAPL"), "provider_unavailable", "It did not answer.")
    handle.fail(Instrument("HOUSE", "CUSTOM"), "corrupt", "It is gone.")
    own = [Own(Instrument("HOUSE", "CUSTOM"))]
    await daemon.services.instruments.add_own(own, "alice", wanted_from=0, by=requested_by, now=now)
    await daemon.services.runs.save(run)
    return run.id


async def read(daemon: ApiDaemon, run_id: str, headers: dict[str, str]) -> tuple[Any, Any]:
    """The run by itself, and in the list."""
    status, run = await daemon.get(f"/cache/runs/{run_id}", headers=headers)
    assert status == 200
    _, answer = await daemon.get("/cache/runs?job=broker_fetch", headers=headers)
    (listed,) = answer["runs"]
    return run, listed


@pytest.mark.parametrize("requested_by", ["user:alice", "key:operator", "schedule"])
async def test_of_a_run_of_others_a_user_reads_what_is_of_no_user(daemon: ApiDaemon, requested_by: str) -> None:
    run_id = await ran(daemon, requested_by)
    shown = "schedule" if requested_by == "schedule" else "other"
    for told in await read(daemon, run_id, bearer(daemon, "bob")):
        assert "alice" not in str(told)
        assert "HOUSE" not in str(told)
        assert (told["requestedBy"], told["parameters"], told["failuresTotal"]) == (shown, {}, 4)
    run, _ = await read(daemon, run_id, bearer(daemon, "bob"))
    assert [failure["symbol"] for failure in run["failures"]] == ["AAPL"]


async def test_who_asked_for_a_run_and_operators_read_all_of_it(daemon: ApiDaemon) -> None:
    run_id = await ran(daemon, "user:alice")
    for headers in (bearer(daemon, "alice"), key("ops"), key("ops", **{"X-User-Id": "bob"}), key("read")):
        run, listed = await read(daemon, run_id, headers)
        assert (run["requestedBy"], listed["requestedBy"]) == ("user:alice", "user:alice")
        assert run["parameters"] == {"connections": ["c-alice"]}
        assert len(run["failures"]) == 4


async def test_who_made_a_symbol_tracked_is_not_told_to_other_users(daemon: ApiDaemon) -> None:
    await daemon.services.instruments.add(
        [Instrument("AAPL")], wanted_from=0, tracked=True, by="user:alice", now=daemon.clock.time()
    )
    for headers, name in (
        (bearer(daemon, "bob"), "other"),
        (bearer(daemon, "alice"), "user:alice"),
        (key("ops"), "user:alice"),
    ):
        assert (await daemon.get("/cache/symbols/AAPL", headers=headers))[1]["trackedBy"] == name
        (row,) = (await daemon.get("/cache/symbols", headers=headers))[1]["symbols"]
        assert row["trackedBy"] == name
