"""From a request to its answer: kept bytes if they still stand, else the row of the table with all its checks."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl

import pymongo
import structlog
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError
from pydantic import BaseModel, ValidationError
from pymongo.errors import PyMongoError

from pricecache.api.auth import CHALLENGE
from pricecache.api.call import Answer, Call, Document, Stream
from pricecache.api.kept import GZIP_FROM, HttpDate, Kept, WireResponse, accepts_gzip
from pricecache.api.ownership import names_own
from pricecache.api.problem import SERVER, problem_response
from pricecache.api.routing import MethodNotAllowed, Route, Router
from pricecache.api.uploads import Upload, read_upload
from pricecache.api.wire import (
    Malformed,
    TooLarge,
    TooManyAttempts,
    TooSlow,
    UnsupportedBody,
    encode,
    invalid_input,
    problem_of,
    status_of,
)
from pricecache.background import cancelled
from pricecache.errors import Forbidden, Invalid, PricecacheError, Unauthorized, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pricecache.api.services import Services

log = structlog.get_logger(__name__)

DATABASE_SECONDS = 3.0
"""How long the database may keep a read waiting; one that hangs is not waited for to the request's deadline."""
_GZIP_INLINE = 256 << 10
"""Longer bodies are compressed in a thread."""
_BODY_INLINE = 64 << 10
"""Longer ones are checked in a thread."""
_HEADERS = {"Server": SERVER, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_UNMATCHED = "(none)"
_MOST_TOLD = 1000
_Read = TypeVar("_Read")


class Dispatcher:
    """Answers every request of an open front door. Loop-only.

    `request_seconds`: how long a handler may take, waiting for runs aside. `body_seconds`: how long a body may take to
    arrive. `max_body_bytes`: of any body but a file, where the route does not say less.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        services: Services,
        *,
        request_seconds: float = 10.0,
        body_seconds: float = 10.0,
        max_body_bytes: int = 8 << 20,
    ) -> None:
        self.router = Router(routes)
        self._services = services
        self._identity = services.identity
        self._kept = services.kept
        self._clock = services.clock
        self._date = HttpDate()
        self._request_seconds = request_seconds
        self._body_seconds = body_seconds
        self._max_body_bytes = max_body_bytes
        self._changes: set[asyncio.Task[Any]] = set()
        self._told: set[tuple[str, str]] = set()
        counter_of = services.metrics.requests.of
        self._counters = {route: counter_of(route.method, route.path) for route in self.router.routes}
        self._unmatched = counter_of(_UNMATCHED, _UNMATCHED)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        kept = self._kept.get(request.raw_path)
        if kept is not None and request.method == "GET":
            response = self._from_kept(kept, request)
            if response is not None:
                return response
        return await self._counted(request)

    def _from_kept(self, kept: Kept, request: web.BaseRequest) -> web.StreamResponse | None:
        """The kept bytes, when nothing about this request asks for a closer look."""
        started = time.perf_counter()
        now = self._clock.time()
        if not kept.current(now) or not request.keep_alive or request.version != HttpVersion11:
            return None
        headers = request.headers
        if kept.scope is not None:
            principal = self._identity.known(headers)
            if principal is None or not kept.is_for(principal):
                return None
        elif "Origin" in headers:
            return None
        found = kept.wire(headers.get("If-None-Match"), headers.get("Accept-Encoding"), self._date.at(now))
        if found is None:
            return None
        kept.count_read()
        assert kept.counter is not None
        kept.counter.observe(found[0], time.perf_counter() - started)
        # a response to aiohttp's connection, which asks no more of it than it has
        return cast(web.StreamResponse, WireResponse(request, found[1]))

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        route: Route | None = None
        try:
            if request.method == "OPTIONS":
                return self._options(request)
            route, path = self.router.match(request.method, request.rel_url.raw_path)
            response = await self._serve(request, route, path)
        except (PricecacheError, PyMongoError, TimeoutError) as exc:
            response = self._refusal(request, as_ours(exc), request_id)
            if route is not None and route.takes_ticket and isinstance(exc, Unauthorized | Forbidden | TooManyAttempts):
                self._services.streams.tell_refused(exc)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # the edge: whatever else is our fault, told once and answered
            log.exception("request failed", request_id=request_id, path=request.rel_url.raw_path[:200])
            response = self._refusal(request, PricecacheError(_OUR_FAULT, code="internal_error"), request_id)
        seconds = time.perf_counter() - started
        counter = self._unmatched if route is None else self._counters[route]
        counter.observe(response.status, seconds)
        log.debug(
            "request",
            method=request.method,
            path=request.rel_url.raw_path[:200],
            status=response.status,
            ms=round(seconds * 1000, 2),
            request_id=request_id,
        )
        response.headers.update(self._identity.origins.answer_headers(request.headers.get("Origin")))
        return response

    async def _serve(self, request: web.BaseRequest, route: Route, path: Mapping[str, str]) -> web.StreamResponse:
        call = Call(self._services, request.headers, path)
        if route.scope is not None:
            await self._admit(call, request, route)
        call.query = _query(route, request.rel_url.raw_query_string)
        call.body = await self._body(request, route, call.principal.user or call.principal.name)
        kept = self._standing(request.raw_path) if request.method == "GET" else None
        if kept is None or not kept.is_for(call.principal):
            answer = await self._answer(route, call)
            if isinstance(answer, Stream):
                return await self._begun(request, answer)
            if not isinstance(answer, Kept):
                return await self._response(request, answer)
            kept = answer
            kept.scope, kept.counter = route.scope, self._counters[route]
            if request.method == "GET" and kept.may_last:
                self._kept.put(request.raw_path, kept)
        else:
            kept.count_read()
        return await self._kept_response(request, kept)

    def _standing(self, target: str) -> Kept | None:
        kept, now = self._kept.get(target), self._clock.time()
        if kept is None or kept.current(now):
            return kept
        renewed = kept.renewed(now)
        if renewed is not None:
            renewed.scope, renewed.counter, renewed.user = kept.scope, kept.counter, kept.user
            self._kept.put(target, renewed)
        return renewed

    async def _admit(self, call: Call, request: web.BaseRequest, route: Route) -> None:
        assert route.scope is not None
        async with asyncio.timeout(self._request_seconds):
            ticket = request.rel_url.query.get("ticket") if route.takes_ticket else None
            if ticket is not None:
                call.principal, call.credential = await self._identity.by_ticket(ticket)
            else:
                call.principal = await self._identity.authenticate(
                    request.headers, request.method, request.remote or ""
                )
        if not (route.owner_may and "user" in call.principal.scopes and _names_own(call, request)):
            call.principal.require(route.scope)

    async def _begun(self, request: web.BaseRequest, stream: Stream) -> web.StreamResponse:
        if request.method == "HEAD":
            raise MethodNotAllowed(["GET"])  # there is no answer whose head it could be
        return await stream.begin(request)

    async def _answer(self, route: Route, call: Call) -> Answer | Document | Kept | Stream | web.StreamResponse:
        seconds = self._request_seconds + route.more_seconds + (call.query.wait if route.waits else 0.0)
        if route.method == "GET":
            async with asyncio.timeout(seconds):
                with pymongo.timeout(DATABASE_SECONDS + route.more_seconds):
                    return await route.handler(call)
        # A change is cut off by nothing: half of one would be in the database and not in memory. Who asked for it is
        # told when it takes too long, and it goes on as a task of its own.
        change: asyncio.Task[Any] = asyncio.ensure_future(route.handler(call))
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)
        if isinstance(call.body, Upload):
            who, size = call.principal.user or call.principal.name, len(call.body.content)
            change.add_done_callback(lambda _: self._services.uploads.give_back(who, size))
        try:
            await asyncio.wait([change], timeout=seconds)
        finally:
            if not change.done():
                change.add_done_callback(_tell_late_end)
        if not change.done():
            raise Unavailable(_STILL_GOES_ON, code="deadline_exceeded")
        return change.result()

    async def close(self) -> None:
        """Wait for changes that outlast their requests, then cancel them. Nothing may be handed in any more."""
        if self._changes:
            await asyncio.wait(self._changes, timeout=self._request_seconds)
            await cancelled(list(self._changes))

    async def _body(self, request: web.BaseRequest, route: Route, who: str) -> BaseModel | Upload | bytes | None:
        most = route.max_body_bytes if route.takes_file else min(route.max_body_bytes, self._max_body_bytes)
        declared = request.content_length
        if declared is not None and declared > most:
            raise TooLarge(f"A body may have {most} bytes here.")
        if route.takes_file and route.body_optional and not request.body_exists:
            return None
        if route.takes_file:
            read = partial(read_upload, request, most, self._services.uploads, who)
            return await self._read(request, read, route.more_seconds)
        raw = await self._read(request, request.read) if request.body_exists else b""
        if len(raw) > most:
            raise TooLarge(f"A body may have {most} bytes here.")
        if route.body is None:
            if raw:
                raise Invalid("This takes no body.", code="unexpected_body")
            return None
        if not raw:
            if route.body_optional:
                return route.body()
            raise Malformed("This takes a JSON body, and none was sent.", code="missing_body")
        if request.content_type != "application/json":
            raise UnsupportedBody
        if route.keeps_bytes:
            return raw
        try:
            body: BaseModel = await _maybe_in_thread(
                len(raw), partial(route.body.model_validate_json, raw), _BODY_INLINE
            )
            return body
        except ValidationError as exc:
            raise invalid_input(exc, "body") from exc

    async def _read(
        self, request: web.BaseRequest, read: Callable[[], Awaitable[_Read]], more_seconds: float = 0.0
    ) -> _Read:
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version == HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # an interim answer is not the beginning of the answer
        try:
            async with asyncio.timeout(self._body_seconds + more_seconds):
                return await read()
        except TimeoutError as exc:
            raise TooSlow from exc
        except web.HTTPRequestEntityTooLarge as exc:
            raise TooLarge from exc
        except (RequestPayloadError, HttpProcessingError) as exc:
            raise Malformed("The body does not arrive as its headers say.") from exc

    async def _kept_response(self, request: web.BaseRequest, kept: Kept) -> web.StreamResponse:
        headers = request.headers
        plain = request.version != HttpVersion11 or not request.keep_alive or "Origin" in headers
        if plain or request.method == "HEAD":
            return kept.response(headers.get("If-None-Match"))
        now = self._clock.time()
        date = self._date.at(now)
        found = kept.wire(headers.get("If-None-Match"), headers.get("Accept-Encoding"), date)
        if found is None:
            await _maybe_in_thread(kept.nbytes, kept.make_gzip)
            if kept.may_last:
                self._kept.put(request.raw_path, kept)
            found = kept.wire(None, headers.get("Accept-Encoding"), date)
            assert found is not None
        return cast(web.StreamResponse, _CountedWire(request, *found))

    async def _response(self, request: web.BaseRequest, answer: Answer | Document | web.StreamResponse) -> web.Response:
        if isinstance(answer, Answer):
            body, content_type = encode(answer.value), "application/json"
        elif isinstance(answer, Document):
            body, content_type = answer.body, answer.content_type
        else:
            return cast(web.Response, answer)
        headers = {**_HEADERS, "Content-Type": content_type, **answer.headers}
        if len(body) >= GZIP_FROM and accepts_gzip(request.headers.get("Accept-Encoding", "")):
            body = await _maybe_in_thread(len(body), lambda: _gzip(body))
            headers["Content-Encoding"] = "gzip"
            headers["Vary"] = "Accept-Encoding, Origin"
        return web.Response(body=body, status=answer.status, headers=headers)

    def _options(self, request: web.BaseRequest) -> web.Response:
        allowed = self.router.allowed(request.rel_url.raw_path)
        headers = {"Allow": allowed, "Server": SERVER}
        if "Access-Control-Request-Method" in request.headers:
            headers |= self._identity.origins.preflight_headers(request.headers.get("Origin"), allowed)
        return web.Response(status=204, headers=headers)

    def _tell(self, error: PricecacheError, status: int, request_id: str) -> None:
        say = log.debug
        fault = (error.code, f"{error.facts.get('series', error.detail)}")
        if status == 500 and fault not in self._told:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told.add(fault)
            say = log.error
        say("request refused", code=error.code, detail=error.detail, request_id=request_id)

    def _refusal(self, request: web.BaseRequest, error: PricecacheError, request_id: str) -> web.Response:
        headers: dict[str, str] = {}
        status = 405 if isinstance(error, MethodNotAllowed) else status_of(error)
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = error.allowed
        if isinstance(error, Unauthorized):
            headers["WWW-Authenticate"] = CHALLENGE
        if status >= 500 and error.code != "internal_error":
            self._tell(error, status, request_id)
        fields = problem_of(error, status, request.rel_url.raw_path[:2048], request_id)
        response = problem_response(fields, headers)
        if isinstance(error, TooLarge | TooSlow | Malformed) or request.version == HttpVersion10:
            response.force_close()
        return response


_OUR_FAULT = "Something went wrong here. The log says what, under this requestId."
_STILL_GOES_ON = "This takes too long to wait for, and goes on. Look what became of it before you send it again."


class _CountedWire(WireResponse):
    """A wire response whose status is known, and which takes no headers any more."""

    __slots__ = ("headers", "status")

    def __init__(self, request: web.BaseRequest, status: int, wire: bytes) -> None:
        super().__init__(request, wire)
        self.status = status
        self.headers: dict[str, str] = {}


def _tell_late_end(change: asyncio.Task[Any]) -> None:
    if change.cancelled():
        log.debug("late change cancelled")
    elif (error := change.exception()) is None:
        log.debug("late change done")
    elif isinstance(error, PricecacheError | PyMongoError):
        log.debug("late change refused", error=f"{error!r}")
    else:
        log.error("request failed", exc_info=error)


def _names_own(call: Call, request: web.BaseRequest) -> bool:
    return names_own(call.path["symbol"], request.rel_url.query.get("market"))


def as_ours(exc: PricecacheError | PyMongoError | TimeoutError) -> PricecacheError:
    """What callers are told of what went wrong."""
    if isinstance(exc, PricecacheError):
        return exc
    if isinstance(exc, TimeoutError):
        return Unavailable("This took too long.", code="deadline_exceeded")
    return Unavailable("The database does not answer now.", code="database_unavailable", retry_after=2.0)


def _query(route: Route, raw: str) -> BaseModel | None:
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=100)
    except ValueError as exc:
        raise Malformed("The query cannot be decoded.", code="bad_query") from exc
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    if route.query is None:
        rows = [_query_row(name, "unknown_parameter", "this takes no parameters") for name in given]
        if rows:
            raise Invalid("This takes no parameters.", code="unknown_parameter", rows=rows)
        return None
    lists = list_parameters(route.query)
    twice = [name for name, values in given.items() if len(values) > 1 and name not in lists]
    if twice:
        rows = [_query_row(name, "repeated_parameter", "given more than once") for name in twice]
        raise Invalid(f"{twice[0][:64]} is given more than once.", code="repeated_parameter", rows=rows)
    try:
        return route.query.model_validate({n: v if n in lists else v[0] for n, v in given.items()})
    except ValidationError as exc:
        raise invalid_input(exc, "query") from exc


def _query_row(name: str, code: str, detail: str) -> dict[str, str]:
    return {"field": name[:120], "code": code, "detail": detail}


_LISTS: dict[type[BaseModel], frozenset[str]] = {}


def list_parameters(model: type[BaseModel]) -> frozenset[str]:
    """The parameters of a query model that take several values."""
    if model not in _LISTS:
        _LISTS[model] = frozenset(
            field.alias or name for name, field in model.model_fields.items() if "list[" in str(field.annotation)
        )
    return _LISTS[model]


def _gzip(body: bytes) -> bytes:
    import gzip

    return gzip.compress(body, 5, mtime=0)


async def _maybe_in_thread(size: int, work: Any, inline: int = _GZIP_INLINE) -> Any:
    return work() if size <= inline else await asyncio.to_thread(work)
