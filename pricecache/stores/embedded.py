"""A private mongod of the daemon's own: found, started, watched and stopped.

Nothing heavy is imported at the top, so that mongod can be started before anything else is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pricecache.errors import Misconfigured
from pricecache.stores.child import dying_with_parent, end, ended, locked, make_private
from pricecache.stores.mongod_program import find_mongod

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient

REPLICA_SET = "pricecache"

_STOP_SECONDS = 15.0
_LEFT_OVER_SECONDS = 2.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0  # between starts of a mongod that never comes to listen
_LONGEST_PAUSE_AFTER_SERVICE = 1.0  # of one that does, and ends again
_STEADY_SECONDS = 5.0  # one that ran so long before it ended is restarted without a growing pause
_FUTILE_STARTS = 3
_LOG_BYTES = 20_000_000
_LOG_CHECK_SECONDS = 3600.0
_POLL_SECONDS = 0.005
_ALREADY_INITIALIZED = 23

# A socket's path has 107 bytes at most, and --bind_ip splits at commas.
_SOCKET_PATH = re.compile(r"[A-Za-z0-9_./-]{1,100}")


class PrivateMongod:
    """A replica set of one that lives in a folder, listens on a Unix socket only and is restarted when it dies.

    Loop-only; start it on the main thread. `data_dir` (made with mode 0700) belongs to one `PrivateMongod` at a time,
    over all processes of the machine. `cache_gb`: WiredTiger's cache in GiB; `oplog_mb`: size of the oplog in MiB.
    mongod ends with this process, even when that is killed.
    """

    def __init__(
        self, data_dir: Path, *, mongod: Path | None = None, cache_gb: float = 0.5, oplog_mb: int = 512
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.socket = _socket_path(self.data_dir)
        self.restarts = 0
        self._configured = mongod
        self._cache_gb = cache_gb
        self._oplog_mb = oplog_mb
        self._program: Path | None = None
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._is_ready = False
        self._futile_starts = 0

    @property
    def pid(self) -> int | None:
        """The pid of the running mongod, or None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def uri(self) -> str:
        return f"mongodb://{quote(str(self.socket), safe='')}/?directConnection=true"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> str:
        """`spawn` and `ready`."""
        self.spawn()
        return await self.ready()

    def spawn(self) -> None:
        """Take the data directory and start mongod without waiting for it. Needs no event loop. Idempotent.

        Raises `Misconfigured` with code `data_dir_in_use`, `data_dir_unusable` or `mongod_missing`.
        """
        if self._lock is not None:
            return
        make_private(self.data_dir, may_be_lent=True)
        self._lock = locked(self.data_dir / "lock", self.data_dir)
        try:
            self._program = find_mongod(self._configured, self.data_dir / "bin")
            if self._left_over() is None:
                self._launch()
        except BaseException:
            self._release()
            raise

    async def ready(self) -> str:
        """Wait until mongod is primary, making it the replica set it has to be; the URI to connect to.

        Raises `Misconfigured` with code `mongod_failed` when it ends again and again, and what `spawn` raises.
        """
        began = time.monotonic()
        self.spawn()
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name="mongod-supervisor")
        try:
            await self._until(self._listens, "mongod is still starting")
            await self._until_primary()
        except BaseException:
            await self.stop()
            raise
        self._is_ready = True
        _log().info("private mongod is ready", pid=self.pid, seconds=round(time.monotonic() - began, 2))
        return self.uri

    async def stop(self) -> None:
        """End mongod in good order, by force after 15 s, and give the data directory back. Idempotent."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None
        if self._process is not None:
            pid = self._process.pid
            if not await end(self._process, _STOP_SECONDS):
                _log().warning("mongod did not end and was killed", pid=pid)
        self._release()

    def _release(self) -> None:
        if self._process is not None:  # else a left-over one may still need them
            (self.data_dir / "mongod.pid").unlink(missing_ok=True)
            self.socket.unlink(missing_ok=True)
            if self.socket.parent != self.data_dir:
                with contextlib.suppress(OSError):
                    self.socket.parent.rmdir()
        if self._lock is not None:
            self._lock.close()
        self._process = self._lock = None
        self._is_ready = False
        self._futile_starts = 0

    # Starting

    def _launch(self) -> None:
        database, log_path = self.data_dir / "mongod" / "db", self.data_dir / "mongod.log"
        database.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.socket.parent != self.data_dir:
            make_private(self.socket.parent)
        self.socket.unlink(missing_ok=True)  # a killed mongod leaves its own; nobody may take it for the new one's
        self._rotate_log()
        with log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [str(self._program), *self._arguments(database, log_path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a terminal's Ctrl-C is for the daemon, which then still needs its database
                preexec_fn=dying_with_parent(),
            )
        written = self.data_dir / "mongod.pid.new"
        written.write_text(f"{self._process.pid}\n")
        written.replace(self.data_dir / "mongod.pid")  # whole or not at all, for whoever reads it meanwhile

    def _arguments(self, database: Path, log_path: Path) -> list[str]:
        return [
            *("--dbpath", str(database)),
            *("--bind_ip", str(self.socket)),
            "--nounixsocket",  # no second socket in /tmp, which all mongods of the machine would fight over
            *("--replSet", REPLICA_SET),
            *("--logpath", str(log_path), "--logappend", "--logRotate", "reopen", "--quiet"),
            *("--oplogSize", str(self._oplog_mb)),
            *("--wiredTigerCacheSizeGB", str(self._cache_gb)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]

    def _rotate_log(self) -> None:
        log_path = self.data_dir / "mongod.log"
        with contextlib.suppress(FileNotFoundError):
            if log_path.stat().st_size > _LOG_BYTES:
                log_path.replace(self.data_dir / "mongod.log.1")
                if self.pid is not None:
                    os.kill(self.pid, signal.SIGUSR1)  # mongod opens a new file

    def _left_over(self) -> int | None:
        try:
            pid = int((self.data_dir / "mongod.pid").read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.data_dir / "mongod" / "db") in arguments else None

    async def _end_left_over(self) -> None:
        # Its daemon is gone: we hold the lock. It was told to end when that died, unless both were stopped by a fault.
        began = time.monotonic()
        told: signal.Signals | None = None
        while (pid := self._left_over()) is not None:
            waited = time.monotonic() - began
            due = signal.SIGTERM if waited > _LEFT_OVER_SECONDS else None
            due = signal.SIGKILL if waited > _LEFT_OVER_SECONDS + _STOP_SECONDS else due
            if due is not None and due is not told:
                _log().warning("ending a left-over mongod", pid=pid, signal=due.name)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, due)
                told = due
            await asyncio.sleep(0.01)

    # Watching

    async def _supervise(self) -> None:
        if self._process is None:
            await self._end_left_over()
            self._launch()
        pause, is_repeat = _FIRST_PAUSE, False
        while self._process is not None:
            began = time.monotonic()
            await self._until_ended(self._process)
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            self._tell_end(self._process, is_repeat)
            await asyncio.sleep(pause)
            is_repeat = not await self._restart()
            pause = min(pause * 2, _LONGEST_PAUSE if is_repeat else _LONGEST_PAUSE_AFTER_SERVICE)

    async def _until_ended(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOG_CHECK_SECONDS):
                    await ended(process)
            if process.poll() is None:
                self._rotate_log()

    def _tell_end(self, process: subprocess.Popen[bytes], is_repeat: bool) -> None:
        self._futile_starts += not self._is_ready
        tell = _log().debug if is_repeat else _log().warning
        tell("mongod ended and is restarted", pid=process.pid, exit_code=process.returncode, last_words=self._words())

    async def _restart(self) -> bool:
        try:
            self._launch()
        except (OSError, Misconfigured) as exc:  # no memory, no room, no file handles: as passing as an end of mongod
            _log().debug("mongod cannot be started", error=str(exc))
            return False
        self.restarts += 1
        while (pid := self.pid) is not None:
            if self._listens():
                _log().info("mongod is back", pid=pid, restarts=self.restarts)
                return True
            await asyncio.sleep(0.02)
        return False

    def _listens(self) -> bool:
        if self._process is None:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            return probe.connect_ex(str(self.socket)) in (0, errno.EAGAIN)

    async def _until(self, condition: Callable[[], bool], event: str) -> None:
        began, told = time.monotonic(), False
        while not condition():
            self._give_up_when_futile()
            if not told and time.monotonic() - began > 10:
                told = True
                _log().warning(event, data_dir=str(self.data_dir))
            await asyncio.sleep(_POLL_SECONDS)

    def _give_up_when_futile(self) -> None:
        if self._supervisor is not None and self._supervisor.done():
            self._supervisor.result()
        if self._futile_starts >= _FUTILE_STARTS:
            raise Misconfigured(
                f"mongod does not start. Its last words, in {self.data_dir / 'mongod.log'}: {self._words()}",
                code="mongod_failed",
            )

    def _words(self) -> str:
        with contextlib.suppress(OSError), (self.data_dir / "mongod.log").open("rb") as lines:
            lines.seek(max(0, lines.seek(0, os.SEEK_END) - 20_000))
            return _last_words(lines.read().decode(errors="replace"))
        return "(none)"

    # Being a replica set

    async def _until_primary(self) -> None:
        from pymongo.errors import PyMongoError

        while True:
            try:
                if await self._try_primary():
                    return
            except PyMongoError as exc:
                _log().debug("mongod does not answer yet", error=str(exc))
            self._give_up_when_futile()
            await asyncio.sleep(_POLL_SECONDS)

    async def _try_primary(self) -> bool:
        from pymongo import AsyncMongoClient

        # A client that connected before replSetInitiate believes that there are no sessions: it is not used again.
        async with AsyncMongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=1000) as client:
            hello = await client.admin.command("hello")
            if "setName" not in hello:
                await self._initiate(client)
                return False
            while not hello["isWritablePrimary"]:
                self._give_up_when_futile()
                await asyncio.sleep(_POLL_SECONDS)
                hello = await client.admin.command("hello")
            return True

    async def _initiate(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        from pymongo.errors import OperationFailure

        config = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": str(self.socket)}]}
        try:
            await client.admin.command("replSetInitiate", config)
        except OperationFailure as exc:
            if exc.code != _ALREADY_INITIALIZED:
                raise
            await self._follow_move(client)

    async def _follow_move(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        # The data directory was moved or copied: the replica set's only member has the old path for its name.
        config = await client["local"]["system.replset"].find_one()
        if config is None or config["members"][0]["host"] == str(self.socket):
            return
        config["version"] += 1
        config["members"][0]["host"] = str(self.socket)
        await client.admin.command("replSetReconfig", config, force=True)


def _log() -> Any:
    # Imported when there is something to say: structlog takes longer to load than mongod to be forked.
    import structlog

    return structlog.get_logger(__name__)


def _socket_path(data_dir: Path) -> Path:
    path = data_dir / "mongod.sock"
    if _SOCKET_PATH.fullmatch(str(path)):
        return path
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    path = Path(tempfile.gettempdir()).resolve() / f"pricecache-{os.getuid()}-{name}" / "mongod.sock"
    if not _SOCKET_PATH.fullmatch(str(path)):
        raise Misconfigured(
            f"Neither {data_dir} nor {path.parent} can hold a Unix socket: the path is too long or has characters "
            "other than A-Z a-z 0-9 _ . / -. Give another PRICECACHE_DATA_DIR, or a shorter TMPDIR.",
            code="data_dir_unusable",
        )
    return path


def _last_words(text: str) -> str:
    # mongod logs JSON; severities E and F say why it ends. The dynamic loader writes plain lines.
    lines = text.splitlines()
    grave = [line for line in lines if '"s":"F"' in line or '"s":"E"' in line or not line.startswith("{")]
    return " | ".join(line[:400] for line in (grave or lines)[-3:]) or "(none)"
