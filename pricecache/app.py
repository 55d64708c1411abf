"""What `pricecache serve` does: open the door and start mongod first, then load the rest, run until told to stop."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from pricecache import garbage
from pricecache.api.origins import is_loopback
from pricecache.api.server import FrontDoor
from pricecache.errors import Misconfigured
from pricecache.stores.embedded import PrivateMongod

if TYPE_CHECKING:
    from pricecache.settings import Settings

EXIT_CONFIG = 2
"""A setting is wrong, as for every command: a supervisor need not try again with the same settings."""

SWITCH_SECONDS = 0.0002


def serve(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; the exit code of the process."""
    # Vendors' libraries compute in threads; with the default of 5 ms each of them may hold the loop up for that long.
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        code = asyncio.run(_serve(settings))
    except Misconfigured as exc:
        print(f"pricecache: {exc.detail} ({exc.code})", file=sys.stderr)
        code = EXIT_CONFIG
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        # A vendor's call that hangs cannot be stopped, and the interpreter would wait for its thread for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def verify(settings: Settings, rebuild: bool) -> list[dict[str, Any]]:
    """Replay the journal of every series against what is read, with no daemon running; every difference found."""
    from pricecache import offline

    return asyncio.run(offline.verify(settings, _private_mongod(settings), rebuild))


async def _serve(settings: Settings) -> int:
    stop = _stop_signal()
    async with AsyncExitStack() as ending:
        mongod = _private_mongod(settings)
        if mongod is not None:
            ending.push_async_callback(mongod.stop)
            mongod.spawn()
        door = FrontDoor(settings.host, settings.port, max_body_bytes=settings.max_body_kb * 1024)
        ending.push_async_callback(door.stop, 0)
        if _may_listen_at_once(settings):
            await door.start()
        # On a thread, so that /healthz is answered while half a second of imports goes on. What they make stays to the
        # end, so nothing is gained by looking through it for garbage; the wait for a database that may follow can be
        # long, so from then on garbage is collected, first of all that of the requests that are answered meanwhile.
        with garbage.put_off():
            daemon = await asyncio.to_thread(importlib.import_module, "pricecache.daemon")
        running = daemon.Daemon(settings, door, mongod)
        return int(await running.run(stop))


def _private_mongod(settings: Settings) -> PrivateMongod | None:
    if settings.mongodb_uri is not None:
        return None
    return PrivateMongod(settings.data_dir, mongod=settings.mongod, cache_gb=settings.mongod_cache_gb)


def _may_listen_at_once(settings: Settings) -> bool:
    """Elsewhere than on loopback somebody has to be known first; without keys in the settings the database says."""
    return is_loopback(settings.host) or bool(settings.api_keys or settings.jwt_secret or settings.jwks_url)


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told, name)
    return stop
