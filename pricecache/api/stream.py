"""Streams over HTTP: the WebSocket, the server-sent stream, tickets for both, and how they fare."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from aiohttp import HttpVersion11, web

from pricecache.api.auth import Credential
from pricecache.api.call import Answer, Call, Stream
from pricecache.api.portfolios import user_of
from pricecache.api.stream_connections import EventsAnswer, SocketAnswer
from pricecache.api.stream_messages import Resume, keys_of, resumes_of
from pricecache.api.stream_talk import Talk
from pricecache.api.wire import Malformed, UpgradeNeeded, camel
from pricecache.stores.tickets import TICKET_SECONDS

if TYPE_CHECKING:
    from pricecache.api.streams import Streams

_MOST_MESSAGE_BYTES = 64 << 10


async def portfolio_socket(call: Call) -> Stream:
    credential, streams, talk = await _admitted(call), call.services.streams, Talk(call.services, user_of(call))

    async def begin(request: web.BaseRequest) -> web.StreamResponse:
        socket = _Socket(compress=False, max_msg_size=_MOST_MESSAGE_BYTES, autoping=False, autoclose=False)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise UpgradeNeeded
        if not socket.can_prepare(request).ok:
            raise Malformed("This is no WebSocket handshake as RFC 6455 has it.", code="bad_handshake")
        streams.take_seat(talk.user)
        try:
            await socket.prepare(request)
            return cast(web.StreamResponse, SocketAnswer(request, socket, streams, talk, credential))
        except BaseException:
            streams.leave_seat(talk.user)
            raise

    return Stream(begin)


async def events(call: Call) -> Stream:
    credential, streams, query = await _admitted(call), call.services.streams, call.query
    talk = Talk(call.services, user_of(call))
    only_symbols = query.symbols is not None and set(query.channels) == {"prices"}
    made = None if query.portfolio_id or only_symbols else streams.newcomers.count
    ids = await talk.portfolios(query.portfolio_id) if query.portfolio_id or not only_symbols else []
    resumes = resumes_of(query, ids, call.headers.get("Last-Event-ID"))
    wanted = [(one, resumes.get(one, Resume())) for one in ids]
    del call

    async def begin(request: web.BaseRequest) -> web.StreamResponse:
        if request.version != HttpVersion11:
            raise Malformed("A stream of events needs HTTP/1.1.", code="http_1_1_needed")
        streams.take_seat(talk.user)
        answer = EventsAnswer(streams, talk, credential, wanted, query.channels, keys_of(query.symbols), made)
        return cast(web.StreamResponse, answer)

    return Stream(begin)


async def make_ticket(call: Call) -> Answer:
    call.services.streams.require_admitted(user_of(call))
    ticket = await call.services.identity.make_ticket(call.principal, call.headers)
    return Answer({"ticket": ticket, "expiresInSeconds": TICKET_SECONDS})


async def stats(call: Call) -> Answer:
    return Answer(camel(call.services.streams.status()))


async def _admitted(call: Call) -> Credential:
    """By what the sender is known, once its page and its user may have a stream."""
    identity, headers = call.services.identity, call.headers
    _check_origin(call)
    streams: Streams = call.services.streams
    streams.require_admitted(user_of(call))
    return call.credential or await identity.credential_of(call.principal, headers)


def _check_origin(call: Call) -> None:
    origin, host, origins = call.headers.get("Origin"), call.headers.get("Host"), call.services.identity.origins
    if origin is not None:
        origins.require(origin, host)
    elif call.credential is None and call.principal.kind == "session" and not _is_of_own_page(call):
        origins.require(None, host)


def _is_of_own_page(call: Call) -> bool:
    # a browser names the origin of every WebSocket, but not that of a page that reads from its own host; then it says
    # so in a header that no page can set
    return call.headers.get("Sec-Fetch-Site") == "same-origin"


class _Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, which leaves it to the connection's end to close the transport: a client that has just been
    told why would find a reset instead of the reason while it is still sending."""

    def _close_transport(self) -> None:
        return
