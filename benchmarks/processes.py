"""Starting what is measured: servers on one processor, the load on the other, everything ended by its pid."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SERVER_CPU, LOAD_CPU = 0, min(1, (os.cpu_count() or 1) - 1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    arguments: list[str], environment: dict[str, str] | None = None, *, pinned: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, on the servers' processor if `pinned`, ended by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=(lambda: os.sched_setaffinity(0, {SERVER_CPU})) if pinned else None,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read()


def wait_for(port: int, path: str, seconds: float = 60.0) -> float:
    """Poll until `path` answers 200; seconds it took."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as raw:
                raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                if raw.recv(64)[9:12] == b"200":
                    return time.perf_counter() - begin
        except OSError:
            pass
        time.sleep(0.002)
    raise TimeoutError(f"no answer at {path}")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(
    port: int, path: str, headers: dict[str, str] | None = None, *, seconds: float = 2.0, connections: int = 32
) -> dict[str, Any]:
    """One window of load on `path`, from a process on the other processor."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in (headers or {}).items()), "", ""]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", str(port), str(connections), str(seconds)],
        input="\r\n".join(lines).encode(),
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}),
    )
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def write_csv(folder: Path, symbol: str, sessions: list[str], base: float = 100.0) -> None:
    """A file of the csv provider with one bar for each of `sessions`."""
    with (folder / f"{symbol}.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["date", "open", "high", "low", "close", "volume"])
        for i, day in enumerate(sessions):
            price = base + (i * 7919 % 1000) / 100
            writer.writerow([day, price, price + 1.25, price - 1.25, round(price + 0.31, 4), 100_000 + i])
