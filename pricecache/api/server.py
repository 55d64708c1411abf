"""The door: listens before anything heavy is loaded, says it is alive, and hands requests on once there is someone.

Imports aiohttp.web and nothing else of weight: the time from the process's start to the first answer depends on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from pricecache.api.problem import SERVER, problem_fields, problem_response
from pricecache.errors import Misconfigured

Dispatch = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who writes to the transport of a connection itself."""

    def on_writable(self) -> None:
        """The kernel has taken everything, or little enough is left."""

    def on_lost(self) -> None:
        """The connection has ended."""

    def may_say(self, count: int) -> bool:
        """Whether so many bytes more that came from the client are to be looked at."""


class Connection(web.RequestHandler):
    """One connection. What cannot be parsed is answered as a problem too, without echoing it.

    `listener`: who is told when everything written is sent, and when the connection is lost, or None.
    """

    __slots__ = ("listener",)

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.listener: Listener | None = None

    def data_received(self, data: bytes) -> None:
        # the parser takes empty fragments without end, of which none ever becomes a message that could be counted
        if self.listener is None or self.listener.may_say(len(data)):
            super().data_received(data)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.listener is not None:
            self.listener.on_writable()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.listener is not None:
            self.listener.on_lost()
            self.listener = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun already.")
        if isinstance(exc, LineTooLong):
            fields = problem_fields(431, "header_too_long", "The request line or a header is longer than 8190 bytes.")
        elif status < 500:
            fields = problem_fields(status, "bad_request", "This is not HTTP as RFC 9112 has it.")
        else:
            _log.error("request failed", exc_info=exc)
            fields = problem_fields(status, "internal_error", "Something went wrong here. The log says what.")
        response = problem_response(fields)
        response.force_close()
        return response


class _Connections(web.Server):
    def __init__(self, handler: Dispatch, request_factory: Callable[..., web.BaseRequest], **options: Any) -> None:
        super().__init__(handler, request_factory=request_factory)
        self._options = options

    def __call__(self) -> Connection:
        return Connection(self, loop=asyncio.get_running_loop(), **self._options)


class FrontDoor:
    """Listens on `host` and `port` (0 takes a free one). Loop-only.

    Until `open` it answers `/healthz` with 200, `/health` and `/readyz` with 503 and `checks`, all else with 503.
    `max_body_bytes`: a longer body is refused with 413. `keepalive_seconds`: the connection of an idle or half-sent
    request is closed after this long; what is sent within a body is the dispatcher's to time.
    """

    def __init__(self, host: str, port: int, *, max_body_bytes: int = 8 << 20, keepalive_seconds: float = 30.0) -> None:
        self.host = host
        self.port = port
        self.checks: dict[str, str] = {"start": "starting"}
        """What is waited for, by name; the one who starts the parts writes here."""
        self._max_body_bytes = max_body_bytes
        self._keepalive_seconds = keepalive_seconds
        self._dispatch: Dispatch = self._starting
        self._status = "starting"
        self._listener: asyncio.Server | None = None
        self._connections: _Connections | None = None

    async def start(self) -> None:
        """Listen. Raises `Misconfigured` with code `address_unusable`."""
        self._connections = _Connections(
            self._hand_over,
            self._request,
            keepalive_timeout=self._keepalive_seconds,
            lingering_time=2.0,
            access_log=None,
        )
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connections, self.host, self.port, backlog=1024
            )
        except OSError as exc:
            raise Misconfigured(
                f"Cannot listen on {self.host}:{self.port}: {exc.strerror or exc}. Choose another PRICECACHE_PORT, or "
                "stop the process that has it.",
                code="address_unusable",
            ) from exc
        self.port = int(self._listener.sockets[0].getsockname()[1])

    @property
    def is_listening(self) -> bool:
        return self._listener is not None and self._listener.is_serving()

    def open(self, dispatch: Dispatch) -> None:
        """From now on `dispatch` answers everything, on connections that are open already too."""
        self._dispatch = dispatch
        self._status = "open"

    def drain(self) -> None:
        """Say 503 on `/readyz` from now on; everything else goes on."""
        if self._status == "stopping":
            return
        inside = self._dispatch

        async def draining(request: web.BaseRequest) -> web.StreamResponse:
            if request.rel_url.raw_path == "/readyz":
                return self._not_ready()
            return await inside(request)

        self.checks = {"stop": "stopping"}
        self._status = "stopping"
        self._dispatch = draining

    async def stop(self, seconds: float) -> None:
        """Accept nothing more, let requests under way finish for at most `seconds`, then cut."""
        self.drain()
        if self._listener is not None:
            self._listener.close()
        if self._connections is not None:
            self._connections.pre_shutdown()
            await self._connections.shutdown(max(seconds, 0.01))  # aiohttp takes 0 for no limit

    def _hand_over(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        # no coroutine of its own: this stands before every request
        return self._dispatch(request)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message, payload, protocol, writer, task, task.get_loop(), client_max_size=self._max_body_bytes
        )

    async def _starting(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path == "/healthz":
            return _json_response({"status": "ok"}, 200)
        if path in ("/health", "/readyz"):
            return self._not_ready()
        return problem_response(
            problem_fields(
                503, "starting", "The daemon is starting; /readyz says what it waits for.", instance=path, retryAfter=1
            )
        )

    def _not_ready(self) -> web.Response:
        return _json_response({"status": self._status, "checks": self.checks}, 503, {"Retry-After": "1"})


def _json_response(value: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> web.Response:
    heads = {"Server": SERVER, "Cache-Control": "no-store", **(headers or {})}
    return web.json_response(value, status=status, headers=heads)
