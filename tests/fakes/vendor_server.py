"""A vendor's server in a thread of its own, on a free port of 127.0.0.1: how it starts and ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from aiohttp import web


class VendorServer:
    """Use it as a context manager, or `start` and `stop` it. What it says may be set from any thread while it serves.

    A subclass answers requests by `_answer`, or brings a `_serve` of its own. `url`: where it is, once it has started.
    """

    def __init__(self, name: str) -> None:
        self.url = ""
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._stopped: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Gives the base URL."""
        self._thread.start()
        self._ready.wait(10)
        return self.url

    def stop(self) -> None:
        if self._stopped is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stopped.wait()
        await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raise NotImplementedError
