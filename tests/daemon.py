"""A real daemon as a process of its own: started, asked over HTTP, killed, stopped, always by its pid."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


_ports = itertools.count(20000 + os.getpid() * 64 % 10000)


def free_port() -> int:
    """One that nobody is given who asks for any (from 32768 on), and far from those of other workers: a daemon that is
    started later, or again, finds it free, whatever is opened beside it in between."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def _variable(name: str) -> str:
    return name if name.isupper() else f"PRICECACHE_{name.upper()}"


class DaemonProcess:
    """`pricecache serve` with settings of its own (a name in capitals is the variable itself); its log is
    `<folder>/daemon.log`, its data `<folder>/data`.

    The environment of the tests is not handed on, so that no setting of the machine leaks in.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.settings = {
            "PRICECACHE_DATA_DIR": str(folder / "data"),
            "PRICECACHE_PORT": str(self.port),
            "PRICECACHE_LOG_FORMAT": "json",
        } | {_variable(name): value for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PRICECACHE_MONGOD") if name in os.environ}
        return kept | {"PYTHONPATH": str(ROOT)} | self.settings

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, ready: bool = True) -> DaemonProcess:
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pricecache", "serve"],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait(lambda: self.get("/readyz")[0] == 200, "ready")
        return self

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Poll until `condition`; a refused connection counts as not yet."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                if self.process is not None and self.process.poll() is not None:
                    break
            time.sleep(0.02)
        raise AssertionError(f"not {what}; the daemon said:\n{self.log()[-4000:]}")

    def log(self) -> str:
        path = self.folder / "daemon.log"
        return path.read_text() if path.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """Its log lines so far."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            heads = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, heads | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and decoded JSON."""
        status, body, _ = self.request("GET", path, headers=headers)
        return status, json.loads(body) if body[:1] in (b"{", b"[") else body

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, answer, _ = self.request("POST", path, body, headers)
        return status, json.loads(answer) if answer[:1] in (b"{", b"[") else answer

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `pricecache ARGUMENTS` beside it."""
        return subprocess.run(
            [sys.executable, "-m", "pricecache", *arguments],
            env=self.environment | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def mongod_pid(self) -> int:
        return int((self.folder / "data" / "mongod.pid").read_text())

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None or self.process.poll() is not None:
            return 0 if self.process is None else self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
