"""Warm answers over HTTP against a bare aiohttp handler that returns the same bytes ready-made."""

from __future__ import annotations

import datetime
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Row, row
from benchmarks.processes import cpu_seconds, free_port, get, load, running, wait_for, write_csv

ROUNDS = 5
BARS = 1260
KEY = {"X-API-Key": "bench-secret"}


def weekdays(count: int) -> list[str]:
    """The last `count` weekdays before today. Bars on the holidays among them are refused by the daemon."""
    today = datetime.datetime.now(datetime.UTC).date()
    days = [today - datetime.timedelta(days=back) for back in range(1, count * 2)]
    return [day.isoformat() for day in days if day.weekday() < 5][:count][::-1]


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "csv").mkdir()
        write_csv(folder / "csv", "AAPL", weekdays(BARS + 60))
        port = free_port()
        environment = {
            "PRICECACHE_DATA_DIR": str(folder / "data"),
            "PRICECACHE_PORT": str(port),
            "PRICECACHE_PROVIDERS": "csv",
            "PRICECACHE_CSV_DIR": str(folder / "csv"),
            "PRICECACHE_SYMBOLS": "AAPL",
            "PRICECACHE_API_KEYS": "bench:read:bench-secret,boss:admin:boss-secret",
        }
        with running(["-m", "pricecache", "serve"], environment) as daemon:
            wait_for(port, "/readyz")
            wait_until_filled(port)
            return answers(Measured(port, daemon.pid, folder))


def wait_until_filled(port: int) -> None:
    for _ in range(600):
        status, body = get(port, "/cache/live/AAPL", KEY)
        if status == 200 and get(port, "/cache/coverage/AAPL", KEY)[1].count(b"pending") == 0:
            return
        wait_for(port, "/healthz")
        time.sleep(0.1)
    raise TimeoutError(f"the symbol was not filled: {body[:200]!r}")


@dataclass(frozen=True, slots=True)
class Measured:
    """The daemon that is measured, and a folder for what is written on the way."""

    port: int
    pid: int
    folder: Path


def answers(daemon: Measured) -> list[Row]:
    first = weekdays(BARS + 60)[-BARS]
    history = f"/cache/historical/AAPL?start={first}"
    gzip = {**KEY, "Accept-Encoding": "gzip"}
    rows = versus(daemon, "GET /cache/live/{symbol}", "/cache/live/AAPL", KEY, least=1.0)
    rows += versus(daemon, f"GET /cache/historical, {BARS} bars", history, KEY, least=0.9)
    rows += versus(daemon, "  columns; plain rows", f"{history}&format=columns", KEY, least=1.25, reference=history)
    rows += versus(daemon, "  stored gzip; plain rows", history, gzip, least=1.25, reference=history)
    etag = {**KEY, "If-None-Match": etag_of(daemon.port, history)}
    rows += versus(daemon, "  not modified (304); plain rows", history, etag, reference=history)
    return rows


def etag_of(port: int, path: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=KEY)) as answer:
        return str(answer.headers["ETag"])


def versus(
    daemon: Measured,
    what: str,
    path: str,
    headers: Mapping[str, str],
    *,
    least: float | None = None,
    reference: str | None = None,
) -> list[Row]:
    """Requests a second, p99 and processor time a request, of ours and of the bare handler.

    The bare handler returns the bytes that ours answers `reference` with, or else `path`.
    """
    body = daemon.folder / "body.json"
    body.write_bytes(get(daemon.port, reference or path, KEY)[1])
    other = free_port()
    rates, tails, costs = [], [], []
    with running(["-m", "benchmarks.reference_server", str(other), str(body)]) as bare:
        wait_for(other, "/healthz")
        for _ in range(ROUNDS):
            ours, theirs = window(daemon.pid, daemon.port, path, headers), window(bare.pid, other, "/", {})
            rates.append((ours["rate"], theirs["rate"]))
            tails.append((ours["p99_ms"], theirs["p99_ms"]))
            costs.append((ours["cpu_us"], theirs["cpu_us"]))
    found = [row(what, rates, "req/s", least=least)]
    if reference is None:
        found += [row("  p99", tails, "ms", most=1.5), row("  server's processor time a request", costs, "us")]
    return found


def window(pid: int, port: int, path: str, headers: Mapping[str, str]) -> dict[str, float]:
    """One window of load, with the processor time that the server spent on each request."""
    before = cpu_seconds(pid)
    figures = load(port, path, dict(headers))
    assert set(figures["statuses"]) <= {"200", "304"}, figures["statuses"]
    return figures | {"cpu_us": 1e6 * (cpu_seconds(pid) - before) / sum(figures["statuses"].values())}


if __name__ == "__main__":
    from benchmarks.measure import load as machine_load
    from benchmarks.measure import print_table

    print(machine_load())
    print_table("prices: HTTP", run())
