"""What a daemon takes in memory while six users post 33 MiB each at once, beside what it took before.

All are sent at the same moment; who is told `uploads_busy` sends again a second later, as the answer says. Looked at is
the most that the process was resident with (`VmHWM`), until the last post is answered, and until all is reconstructed.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.broker_users import listed, payload
from benchmarks.http_answers import KEY
from benchmarks.measure import Row
from benchmarks.processes import free_port, get, running, wait_for
from benchmarks.reconstruct_users import LONG, TODAY

USERS, ROWS = 6, 94_000
PATH = "/api/portfolio/reconstruction/request"
LONGEST = 900.0
"""Seconds until all has to be done."""


def rows() -> list[Row]:
    market = listed(130, TODAY)
    bodies = [json.dumps(payload(f"u{n}", n, market, TODAY, LONG, ROWS)).encode() for n in range(USERS)]
    size = len(bodies[0]) / 2**20
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "csv").mkdir()
        port = free_port()
        environment = {
            "PRICECACHE_DATA_DIR": f"{scratch}/data",
            "PRICECACHE_PORT": str(port),
            "PRICECACHE_PROVIDERS": "csv",
            "PRICECACHE_CSV_DIR": f"{scratch}/csv",
            "PRICECACHE_API_KEYS": "operator:ops:bench-secret",
        }
        with running(["-m", "pricecache", "serve"], environment, pinned=False) as process:
            wait_for(port, "/readyz")
            time.sleep(2)
            idle = _mebibytes(process.pid, "VmRSS")
            with ThreadPoolExecutor(USERS) as senders:
                attempts = list(senders.map(lambda n: _post(port, n, bodies[n]), range(USERS)))
            answered = _mebibytes(process.pid, "VmHWM")
            _wait(lambda: all(_is_done(port, n) for n in range(USERS)))
            done = _mebibytes(process.pid, "VmHWM")
            after = _mebibytes(process.pid, "VmRSS")
    return [
        Row(f"{USERS} posts of {size:.0f} MiB at once, until answered; idle", answered, idle, "MiB", answered / idle,
            "", None),
        Row("  over idle; the bodies together", answered - idle, size * USERS, "MiB",
            (answered - idle) / (size * USERS), "", None),
        Row("  times they were sent; posts", sum(attempts), USERS, "", sum(attempts) / USERS, "", None),
        Row("until all is reconstructed; idle", done, idle, "MiB", done / idle, "", None),
        Row("  afterwards", after, idle, "MiB", after / idle, "", None),
    ]  # fmt: skip


def _post(port: int, number: int, body: bytes) -> int:
    """How often it had to be sent."""
    headers = {**KEY, "X-User-Id": f"u{number}", "Content-Type": "application/json"}
    for attempt in range(1, 600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            told = answer.read()
        except OSError:  # a refusal may come while the body is still on its way
            answer, told = None, b""
        finally:
            connection.close()
        if answer is not None and answer.status == 202:
            return attempt
        if answer is not None and answer.status != 503:
            raise RuntimeError(told[:300])
        time.sleep(1)
    raise TimeoutError("it was never taken")


def _is_done(port: int, number: int) -> bool:
    status, answer = get(port, "/api/portfolio/reconstruction/status", {**KEY, "X-User-Id": f"u{number}"})
    return status == 200 and b'"state":"done"' in answer.replace(b" ", b"")


def _wait(is_over: Callable[[], bool]) -> None:
    until = time.monotonic() + LONGEST
    while not is_over():
        if time.monotonic() > until:
            raise TimeoutError("it takes too long")
        time.sleep(1)


def _mebibytes(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
