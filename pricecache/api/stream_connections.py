"""Streams as answers that aiohttp's connection sends: it asks them for `prepare`, which lasts as long as they do.

So nothing of how the request was dispatched is kept in memory meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from pricecache.api.problem import SERVER
from pricecache.api.stream_talk import INTERNAL
from pricecache.realtime.frames import close_frame, pong_frame
from pricecache.realtime.places import Places

if TYPE_CHECKING:
    from pricecache.api.auth import Credential
    from pricecache.api.server import Connection as HttpConnection
    from pricecache.api.stream_messages import Resume
    from pricecache.api.stream_talk import Talk
    from pricecache.api.streams import Streams
    from pricecache.realtime.connection import Connection

MESSAGES_PER_SECOND = 10.0
BURST = 20.0
_SPENT = -0.5
"""What is left of one's messages when one was too many; between it and 0 lie errors of rounding."""
_LINGER_SECONDS = 1.0
_TEXT, _BINARY, _PING, _PONG, _CLOSE = (
    WSMsgType.TEXT,
    WSMsgType.BINARY,
    WSMsgType.PING,
    WSMsgType.PONG,
    WSMsgType.CLOSE,
)


class SocketAnswer:
    """A WebSocket whose handshake is done."""

    __slots__ = ("_allowance", "_connection", "_socket", "_streams", "_talk")
    keep_alive = False
    status = 101

    def __init__(
        self,
        request: web.BaseRequest,
        socket: web.WebSocketResponse,
        streams: Streams,
        talk: Talk,
        credential: Credential,
    ) -> None:
        self._socket = socket
        self._streams = streams
        self._talk = talk
        self._allowance = BURST
        self._connection = _taken_in(request, streams, talk, credential, is_websocket=True)

    @property
    def headers(self) -> dict[str, str]:
        """Sent already, so what is put in here goes nowhere."""
        return {}

    async def prepare(self, request: web.BaseRequest) -> None:
        try:
            await self._listen()
        except ConnectionError:
            pass
        finally:
            self._streams.leave(self._connection)

    async def write_eof(self) -> None:
        return

    async def _listen(self) -> None:
        connection, receive, now = self._connection, self._socket.receive, self._streams.now
        while True:
            message = await receive()
            at = now()
            self._allowance = min(BURST, self._allowance + (at - connection.heard_at) * MESSAGES_PER_SECOND) - 1.0
            connection.heard_at = at
            if message.type in (_TEXT, _PING, _PONG) and self._allowance < _SPENT:
                self._streams.hub.end(connection, WSCloseCode.POLICY_VIOLATION, "too_many_messages")
                return await self._linger()
            if message.type is _TEXT:
                if connection.closing is None:
                    await self._talk.answer(connection, message.data)
                    await self._streams.hub.until_clear(connection)
            elif not await self._control(message):
                return None

    async def _control(self, message: WSMessage) -> bool:
        """Whether the connection goes on."""
        connection = self._connection
        if message.type is _PONG:
            return True
        if message.type is _PING:
            if connection.is_clear and connection.closing is None:
                connection.transport.write(pong_frame(message.data))
            return True
        if message.type is _CLOSE:
            if connection.closing is None and not connection.transport.is_closing():
                connection.transport.write(close_frame(message.data or 1000))
                connection.closing = "client"
        elif message.type is _BINARY:
            self._streams.hub.end(connection, WSCloseCode.UNSUPPORTED_DATA, "binary")
            await self._linger()
        elif message.type is WSMsgType.ERROR:
            connection.closing = connection.closing or "bad_frame"
            await self._linger()
        return False

    async def _linger(self) -> None:
        """Read on for a moment and do nothing: a transport closed over unread bytes takes the reason with it."""
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while (await self._socket.receive()).type in (_TEXT, _BINARY, _PING, _PONG):
                    pass
                await self._connection.lost()
        except TimeoutError:
            pass


class EventsAnswer:
    """A server-sent stream, from its head to its end."""

    __slots__ = ("_channels", "_credential", "_made", "_streams", "_symbols", "_talk", "_wanted", "headers")
    keep_alive = False
    status = 200

    def __init__(
        self,
        streams: Streams,
        talk: Talk,
        credential: Credential,
        wanted: Sequence[tuple[str, Resume]],
        channels: Sequence[str],
        symbols: list[str] | None,
        made: int | None,
    ) -> None:
        self._streams = streams
        self._talk = talk
        self._credential = credential
        self._wanted = wanted
        self._channels = channels
        self._symbols = symbols
        self._made = made
        self.headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "Server": SERVER,
            "X-Content-Type-Options": "nosniff",
            "X-Accel-Buffering": "no",  # nginx would keep messages back
            "Transfer-Encoding": "chunked",
            "Connection": "close",
        }

    async def prepare(self, request: web.BaseRequest) -> None:
        try:
            connection = _taken_in(request, self._streams, self._talk, self._credential, is_websocket=False)
        except ConnectionError:
            self._streams.leave_seat(self._talk.user)
            raise
        try:
            head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            connection.transport.write(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode("latin-1"))
            await self._begin(connection)
            await connection.ended()
        except ConnectionError:
            pass
        finally:
            self._streams.leave(connection)

    async def write_eof(self) -> None:
        return

    async def _begin(self, connection: Connection) -> None:
        if self._made is not None or len(self._wanted) > 1:
            came = {one: (resume.since, resume.epoch) for one, resume in self._wanted if resume.since is not None}
            connection.places = Places(came)
        error = await self._talk.listen(connection, self._wanted, self._channels, self._symbols, self._made)
        if error is not None and error.code == INTERNAL:
            self._streams.hub.end(connection, WSCloseCode.INTERNAL_ERROR, "failed")
        elif error is not None:
            self._streams.hub.end(connection, WSCloseCode.TRY_AGAIN_LATER, "unavailable")


def _taken_in(
    request: web.BaseRequest, streams: Streams, talk: Talk, credential: Credential, *, is_websocket: bool
) -> Connection:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    connection = streams.hub.open(transport, talk.user, credential, is_websocket=is_websocket)
    protocol: HttpConnection = request.protocol  # type: ignore[assignment]
    protocol.listener = connection
    return connection
