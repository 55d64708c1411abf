"""A real daemon with connections: kill -9 while it fetches, and the next one does it; a stop lets the fetch end."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import DaemonProcess
from tests.fakes.plaid import FakePlaid
from tests.integration.test_connections import HELD, row
from tests.mongod import TestMongod

pytestmark = pytest.mark.slow

PUBLIC = "public-sandbox-0001"
CONNECTIONS = "/api/portfolio/connections"
KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


@pytest.fixture
def plaid() -> Iterator[FakePlaid]:
    with FakePlaid("client", "the-secret-of-plaid") as server:
        day = datetime.now(UTC).date() - timedelta(days=3)
        server.add(PUBLIC, holdings=HELD, transactions=[row(number, day) for number in range(1203)])
        yield server


@pytest.fixture
def daemon(tmp_path: Path, mongod: TestMongod, plaid: FakePlaid) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(
        tmp_path,
        mongodb_uri=mongod.uri,
        mongodb_database=f"connections_{time.time_ns()}",
        providers="sample",
        log_level="debug",
        plaid_url=plaid.url,
        secrets_key=KEY,
        PLAID_CLIENT_ID="client",
        PLAID_SECRET_KEY="the-secret-of-plaid",
    )
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.kill()


def only(daemon: DaemonProcess) -> Any:
    (found,) = daemon.get(CONNECTIONS)[1]["connections"]
    return found


def begun(daemon: DaemonProcess, plaid: FakePlaid) -> None:
    """Connects, and returns in the middle of the first fetch, after its first page."""
    plaid.fail("slow", "investments/transactions/get", times=None, seconds=1.0)
    status, made = daemon.post(CONNECTIONS, {"publicToken": PUBLIC})
    assert (status, made["state"]) == (201, "new")
    daemon.wait(lambda: plaid.requests()["investments/transactions/get"] == 2, "at the second page")


def test_a_fetch_that_a_kill_cut_off_is_done_by_the_next_daemon(daemon: DaemonProcess, plaid: FakePlaid) -> None:
    daemon.start()
    begun(daemon, plaid)
    daemon.kill()
    plaid.heal()
    daemon.start()
    assert only(daemon)["state"] == "new"
    daemon.wait(lambda: only(daemon)["state"] == "active", "fetched")
    assert only(daemon)["failure"] is None
    status, again = daemon.post(CONNECTIONS, {"publicToken": PUBLIC})
    assert (status, again["id"]) == (200, only(daemon)["id"])
    assert daemon.stop() == 0
    (token,) = plaid.tokens()
    assert CONNECTIONS in daemon.log()
    for secret in (token, PUBLIC, KEY, "the-secret-of-plaid"):
        assert secret not in daemon.log()


def test_a_stop_lets_the_fetch_end_that_goes_on(daemon: DaemonProcess, plaid: FakePlaid) -> None:
    daemon.start()
    begun(daemon, plaid)
    assert daemon.stop() == 0
    asked = len(plaid.log)
    daemon.start()
    assert (only(daemon)["state"], len(plaid.log)) == ("active", asked)
    assert daemon.stop() == 0
