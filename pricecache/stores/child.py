"""A child process and the folder it works in: for this user only, with one owner, not left behind."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pricecache.errors import Misconfigured

_PR_SET_PDEATHSIG = 1


def make_private(folder: Path, *, may_be_lent: bool = False) -> None:
    """Make the folder, or an existing one, readable for this user only.

    `may_be_lent`: another user's is taken as it is, as a volume mounted into a container often is. Raises
    `Misconfigured` with code `data_dir_unusable`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat().st_uid
        if owner == os.getuid():
            folder.chmod(0o700)
        elif not may_be_lent:
            raise PermissionError(f"it belongs to user {owner}")
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"it belongs to user {owner} and is not writable")
    except OSError as exc:
        raise Misconfigured(
            f"The folder {folder} cannot be used: {exc.strerror or exc}. Give the daemon a folder that its user may "
            "write to.",
            code="data_dir_unusable",
        ) from exc


def locked(path: Path, data_dir: Path) -> IO[str]:
    """The lock file of a data directory, locked until it is closed, with this process's pid in it.

    Raises `Misconfigured` with code `data_dir_in_use` and the pid of the process that has it.
    """
    lock = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise Misconfigured(
            f"The data directory {data_dir} is in use by process {owner}. Stop that daemon, or give this one another "
            "PRICECACHE_DATA_DIR.",
            code="data_dir_in_use",
            pid=owner,
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def dying_with_parent() -> Callable[[], None] | None:
    """What a child runs between fork and exec to be sent SIGTERM when this process dies, however it dies.

    None off the main thread, because the signal comes when the thread that forked ends.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return None
    # All is looked up before the fork: in the child, little is safe.
    parent, get_parent, leave, term = os.getpid(), os.getppid, os._exit, int(signal.SIGTERM)

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, term, 0, 0, 0)
        if get_parent() != parent:  # it died before the request stood
            leave(1)

    return prepare


async def end(process: subprocess.Popen[bytes], patience: float) -> bool:
    """End a child by SIGTERM, after `patience` seconds by SIGKILL; whether the first was enough."""
    process.terminate()
    try:
        async with asyncio.timeout(patience):
            await ended(process)
        return True
    except TimeoutError:
        process.kill()
        await ended(process)
        return False
    finally:
        process.poll()


async def ended(process: subprocess.Popen[bytes]) -> None:
    """Return once the child has ended. Needs a running event loop that is this thread's."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # already reaped, or a kernel or a sandbox without it
        while process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
