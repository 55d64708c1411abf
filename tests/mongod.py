"""A real mongod for tests: started and stopped by its pid, synchronous, on a Unix socket in a short folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from pricecache.errors import Misconfigured
from pricecache.stores.embedded import find_mongod


def mongod_or_reason() -> tuple[Path | None, str]:
    """The mongod program, or None and why there is none."""
    try:
        return find_mongod(Path(named) if (named := os.environ.get("PRICECACHE_MONGOD")) else None), ""
    except Misconfigured as exc:
        return None, exc.detail


class TestMongod:
    """A replica set of one, or a standalone server. Its socket lies in a folder of its own under the system's
    temporary folder, because a socket's path may have 107 bytes at most and pytest's folders are long."""

    __test__ = False

    def __init__(self, program: Path, folder: Path, *options: str, standalone: bool = False) -> None:
        self.program = program
        self.folder = folder
        self.options = options
        self.standalone = standalone
        self._sockets = Path(tempfile.mkdtemp(prefix="pc"))
        self.socket = self._sockets / "mongod.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://{quote(str(self.socket), safe='')}/?directConnection=true"

    def start(self) -> None:
        fresh = self.launch()
        if self.standalone:
            return
        with MongoClient(self.uri, serverSelectionTimeoutMS=20000) as client:
            if fresh:
                client.admin.command(
                    "replSetInitiate", {"_id": "pricecache", "members": [{"_id": 0, "host": str(self.socket)}]}
                )
        self._await_primary()

    def launch(self) -> bool:
        """Start the program without waiting for it; whether it has never run here."""
        data = self.folder / "db"
        fresh = not data.exists()
        data.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                str(self.program),
                *("--dbpath", str(data), "--bind_ip", str(self.socket), "--nounixsocket"),
                *(() if self.standalone else ("--replSet", "pricecache")),
                *("--logpath", str(self.folder / "mongod.log"), "--logappend"),
                *("--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.5"),
                *("--setParameter", "diagnosticDataCollectionEnabled=false"),
                *("--setParameter", "enableTestCommands=1"),
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
        )
        return fresh

    def _await_primary(self) -> None:
        deadline = time.monotonic() + 30
        with MongoClient(self.uri, serverSelectionTimeoutMS=20000) as client:
            while time.monotonic() < deadline:
                try:
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return
                except PyMongoError:
                    pass
                time.sleep(0.01)
        raise TimeoutError("mongod did not become primary")

    def kill(self) -> None:
        """kill -9, by pid."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        shutil.rmtree(self._sockets, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
