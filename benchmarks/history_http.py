"""Histories over HTTP at one connection, against a bare aiohttp handler that returns bytes of the same length."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable
from itertools import count
from pathlib import Path

from benchmarks.http_answers import weekdays
from benchmarks.measure import Row, row
from benchmarks.processes import LOAD_CPU, free_port, get, running, wait_for, write_csv

SYMBOLS, TRANSACTIONS = 50, 2000
BARS = 1300
ROUNDS = 200


class Connection:
    """One keep-alive connection, a request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path: str) -> float:
        """Milliseconds until the last byte is there."""
        begin = time.perf_counter()
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        data = self._socket.recv(1 << 20)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._socket.recv(1 << 20)
        assert data[9:12] == b"200", data[:200]
        found = re.search(rb"\r\ncontent-length: *(\d+)", data[:end], re.IGNORECASE)
        assert found is not None
        missing = int(found[1]) + end + 4 - len(data)
        while missing > 0:
            missing -= len(self._socket.recv(1 << 20))
        return (time.perf_counter() - begin) * 1e3


def run() -> list[Row]:
    os.sched_setaffinity(0, {LOAD_CPU})
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return measured(Path(scratch))
    finally:
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))


def measured(folder: Path) -> list[Row]:
    (folder / "csv").mkdir()
    days = weekdays(BARS)
    names = [f"S{i:03}" for i in range(SYMBOLS)]
    for number, name in enumerate(names):
        write_csv(folder / "csv", name, days, 50.0 + number)
    port = free_port()
    environment = {
        "PRICECACHE_DATA_DIR": str(folder / "data"),
        "PRICECACHE_PORT": str(port),
        "PRICECACHE_PROVIDERS": "csv",
        "PRICECACHE_CSV_DIR": str(folder / "csv"),
        "PRICECACHE_SYMBOLS": ",".join(names),
        "PRICECACHE_RESPONSE_CACHE_MB": "64",
    }
    with running(["-m", "pricecache", "serve"], environment) as daemon:
        wait_for(port, "/readyz")
        wait_until_filled(port, names)
        portfolio = filled(port, names, days)
        target = f"/api/portfolio/history?portfolioId={portfolio}"
        get(port, target)
        time.sleep(2.5)  # until its rows are stored
        rows = answers(port, target, days, folder)
        assert daemon.poll() is None
        return [*rows, lag(port)]


def wait_until_filled(port: int, names: list[str]) -> None:
    for _ in range(600):
        status = json.loads(get(port, "/cache/status")[1])
        if sum(one["present"] > 1000 for one in status["symbols"]) == len(names):
            return
        time.sleep(0.2)
    raise TimeoutError("the symbols were not filled")


def filled(port: int, names: list[str], days: list[str]) -> str:
    portfolio: str = post(port, "/api/portfolios", {"name": "bench"})["id"]
    rows = []
    for number in range(TRANSACTIONS):
        day = days[40 + number * (BARS - 60) // TRANSACTIONS]
        one = {"date": day, "symbol": names[number % SYMBOLS], "quantity": 3 + number % 5, "price": 50 + number % 9}
        rows.append(one | {"type": "sell" if number >= 200 and number % 4 == 0 else "buy"})
    for low in range(0, TRANSACTIONS, 1000):
        post(port, f"/api/portfolios/{portfolio}/transactions", {"transactions": rows[low : low + 1000]})
    return portfolio


def post(port: int, path: str, body: object) -> dict[str, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def answers(port: int, target: str, days: list[str], folder: Path) -> list[Row]:
    first = days[60:80]
    last = days[-20:-1]
    ranges = [f"&start={one}&end={other}" for one in first for other in last]
    turn = count()

    def another() -> str:
        return ranges[next(turn) % len(ranges)]

    everything = f"{target}&start={days[60]}&end={days[-2]}"
    rows = []
    for what, path, most in (
        ("the same range again (kept); the bytes", lambda: everything, 1.1),
        ("  as columns", lambda: everything + "&format=columns", 1.1),
        ("another range each time (rows kept, answer made); the bytes", lambda: target + another(), 3.0),
        ("  as columns", lambda: target + another() + "&format=columns", 3.0),
        ("  as CSV", lambda: target + another() + "&format=csv", 3.0),
        ("all computed from the ledger (useMaterialized=false); the bytes",
         lambda: everything + "&useMaterialized=false", None),
    ):  # fmt: skip
        rows.append(versus(port, what, path, folder, most))
    return rows


def versus(port: int, what: str, path: Callable[[], str], folder: Path, most: float | None) -> Row:
    body = folder / "body"
    body.write_bytes(get(port, path())[1])
    other = free_port()
    with running(["-m", "benchmarks.reference_server", str(other), str(body)]):
        wait_for(other, "/healthz")
        ours, theirs = Connection(port), Connection(other)
        for _ in range(20):
            ours.get(path())
            theirs.get("/")
        pairs = [(ours.get(path()), theirs.get("/")) for _ in range(ROUNDS)]
    return row(what, pairs, "ms", most=most)


def lag(port: int) -> Row:
    text = get(port, "/metrics")[1].decode()
    found = re.search(r"^pricecache_event_loop_lag_max_seconds (\S+)", text, re.MULTILINE)
    assert found is not None
    worst = float(found[1]) * 1e3
    return Row("longest lag of the loop meanwhile; the bound", worst, 30.0, "ms", worst / 30, "under 30 ms", worst < 30)
