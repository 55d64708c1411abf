"""What the README and the manual tell people to type works, and answers in the shapes that they show."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from tests import documents, faulty_files
from tests.daemon import DaemonProcess
from tests.documents import MANUAL, README, Block
from tests.fakes.plaid import FakePlaid
from tests.mongod import TestMongod

pytestmark = pytest.mark.slow

KEY, SECRET = "the-key-of-the-tests", "a secret of the tests, long enough for HS256"
SYMBOLS = "AAPL,FB,MSFT,^SAMPLE4,AAPLX-USD:CRYPTO"
NOT_WAITED_FOR = ("verify", "materialize_history", "broker_fetch", "eod_snapshot")
"""Jobs that need not have run: on request only, or first after a while."""
RUNNABLE = [block for path in (README, MANUAL) for block in documents.blocks(path) if block.is_runnable]


@pytest.fixture(scope="module")
def open_daemon(tmp_path_factory: pytest.TempPathFactory, mongod: TestMongod) -> Iterator[DaemonProcess]:
    """On sample prices, all of them there, open to this machine."""
    yield from started(tmp_path_factory.mktemp("open"), mongod, "documents_open")


@pytest.fixture(scope="module")
def keyed_daemon(tmp_path_factory: pytest.TempPathFactory, mongod: TestMongod) -> Iterator[DaemonProcess]:
    """The same with a key, tokens, and one key made already."""
    keys = {"api_keys": f"tests:admin:{KEY}", "jwt_secret": SECRET}
    for daemon in started(tmp_path_factory.mktemp("keyed"), mongod, "documents_keyed", **keys):
        made, _ = daemon.post("/api/admin/keys", {"name": "reports", "scopes": ["read"]}, {"X-API-Key": KEY})
        assert made == 201
        yield daemon


@pytest.fixture(scope="module")
def faulty_daemon(tmp_path_factory: pytest.TempPathFactory, mongod: TestMongod) -> Iterator[DaemonProcess]:
    """On csv files with faults, after their second version came."""
    folder = tmp_path_factory.mktemp("faulty")
    faulty_files.write(folder)
    settings = {
        "providers": "csv",
        "csv_dir": str(folder),
        "symbols": ",".join(faulty_files.SYMBOLS),
        "backfill_days": str(faulty_files.BACKFILL_DAYS),
    }
    for daemon in started(tmp_path_factory.mktemp("files"), mongod, "documents_faulty", **settings):
        wait_for_another_second(daemon)
        faulty_files.restate(folder)
        start = datetime.now(UTC).date() - timedelta(days=faulty_files.BACKFILL_DAYS)
        for symbol in faulty_files.RESTATED:
            status, _ = daemon.post("/cache/backfill-symbol?wait=30", {"symbol": symbol, "start": start.isoformat()})
            assert status == 200
        yield daemon


@pytest.fixture(scope="module")
def brokers_daemon(tmp_path_factory: pytest.TempPathFactory, mongod: TestMongod) -> Iterator[DaemonProcess]:
    """As a stranger has it: on sample prices, open, and without any portfolio."""
    yield from started(tmp_path_factory.mktemp("brokers"), mongod, "documents_brokers")


@pytest.fixture(scope="module")
def plaid_daemon(tmp_path_factory: pytest.TempPathFactory, mongod: TestMongod) -> Iterator[DaemonProcess]:
    """With keys of a fake Plaid that has one login, whose public token the manual shows."""
    with FakePlaid("client", "secret") as plaid:
        plaid.add("public-sandbox-7d3f")
        settings = {"PLAID_CLIENT_ID": "client", "PLAID_SECRET_KEY": "secret", "plaid_url": plaid.url}
        key = base64.urlsafe_b64encode(b"documents" + bytes(23)).decode()
        folder = tmp_path_factory.mktemp("plaid")
        yield from started(folder, mongod, "documents_plaid", symbols="AAPL", secrets_key=key, **settings)


def started(folder: Path, mongod: TestMongod, database: str, **settings: str) -> Iterator[DaemonProcess]:
    settings = {"providers": "sample", "symbols": SYMBOLS, "live_seconds": "2"} | settings
    daemon = DaemonProcess(
        folder,
        mongodb_uri=mongod.uri,
        mongodb_database=f"{database}_{time.time_ns()}",
        sync_start_delay_seconds="0",
        materialize_seconds="2",
        tracking_seconds="2",
        **settings,
    )
    try:
        daemon.start()
        daemon.wait(lambda: whole(daemon, settings["symbols"]), "whole")
        yield daemon
        assert daemon.stop() == 0
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


def whole(daemon: DaemonProcess, symbols: str) -> bool:
    """Every symbol has its bars and its quote, and each job that runs by itself at the start has run."""
    headers = {"X-API-Key": KEY}
    status, jobs = (daemon.get(f"/cache/{name}", headers)[1] for name in ("status", "scheduler/status"))
    wanted = symbols.count(",") + 1
    ran = all(job["lastRun"] for job in jobs["jobs"] if job["id"] not in NOT_WAITED_FOR)
    return bool(ran and status["historical"]["symbols"] == wanted == status["live"]["count"])


def wait_for_another_second(daemon: DaemonProcess) -> None:
    """Instants are shown in whole seconds: what comes next is to have another one than what was."""
    now = int(time.time())
    daemon.wait(lambda: int(time.time()) > now, "a second further")


def asked_by(block: Block) -> str:
    """The fixture of the daemon that a block is for."""
    if block.daemon:
        return {"faulty files": "faulty_daemon", "plaid": "plaid_daemon", "brokers": "brokers_daemon"}[block.daemon]
    return "keyed_daemon" if "$KEY" in block.text or "$TOKEN" in block.text else "open_daemon"


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.name)
def test_an_example_answers_as_the_document_shows(block: Block, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    daemon: DaemonProcess = request.getfixturevalue(asked_by(block))
    token = jwt.encode({"sub": "ann", "exp": time.time() + 600}, SECRET)
    (tmp_path / "docs").symlink_to(documents.ROOT / "docs")  # files that an example sends
    documents.check_block(block, daemon.url, tmp_path, KEY=KEY, TOKEN=token)


def test_the_readme_opens_with_the_two_commands() -> None:
    commands = [block.text for block in documents.blocks(README) if block.language == "sh"]
    assert commands == ["./scripts/run", "./scripts/test"]


@pytest.mark.parametrize("path", [README, MANUAL], ids=lambda path: path.name)
def test_no_example_is_left_out_of_these_tests(path: Path) -> None:
    """Every block with a prompt is run; one with curl and no prompt is a setting-up that starts a daemon of its own."""
    for block in documents.blocks(path):
        if "curl " in block.text and not block.is_runnable:
            assert block.language == "text" or "pricecache serve" in block.text
