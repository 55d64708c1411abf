"""Whole encoded answers, kept as the bytes that go on the wire until what they tell of changes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import web
from cachetools import LRUCache

from pricecache.api.problem import SERVER

if TYPE_CHECKING:
    from pricecache.api.auth import Principal, Scope
    from pricecache.metrics import RouteCounter

GZIP_FROM = 1024
"""Shorter bodies are sent as they are, in bytes."""
_DATE_LENGTH = 29


class HttpDate:
    """The text of the Date header, made once a second. Loop-only."""

    def __init__(self) -> None:
        self.second = -1
        self.text = b""

    def at(self, now: float) -> HttpDate:
        second = int(now)
        if second != self.second:
            self.second, self.text = second, formatdate(second, usegmt=True).encode()
        return self


class Wire:
    """Status line, headers and body in one piece, with the Date in it patched once a second."""

    __slots__ = ("_body_at", "_bytes", "_date_at", "_second")

    def __init__(self, status_line: bytes, headers: dict[str, str], body: bytes) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
        head = b"%s\r\n%sDate: " % (status_line, lines)
        self._date_at = len(head)
        self._body_at = len(head) + _DATE_LENGTH + 4
        self._bytes = b"".join((head, b" " * _DATE_LENGTH, b"\r\n\r\n", body))
        self._second = -1

    def __len__(self) -> int:
        return len(self._bytes)

    def dated(self, date: HttpDate) -> bytes:
        if date.second != self._second:
            view = memoryview(self._bytes)
            self._bytes = b"".join((view[: self._date_at], date.text, view[self._date_at + _DATE_LENGTH :]))
            self._second = date.second
        return self._bytes

    @property
    def body(self) -> bytes:
        return self._bytes[self._body_at :]


class WireResponse:
    """Bytes written as they are. Stands in for a `StreamResponse` where aiohttp's connection finishes an answer: it
    asks for `prepare`, `write_eof` and `keep_alive` only (`RequestHandler.finish_response`). HTTP/1.1 GET only."""

    __slots__ = ("_request", "_wire")
    keep_alive = True
    status = 200

    def __init__(self, request: web.BaseRequest, wire: bytes) -> None:
        self._request = request
        self._wire = wire

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        transport.write(self._wire)

    async def write_eof(self) -> None:
        if self._request.protocol.writing_paused:
            await self._request.writer.drain()


class Kept:
    """One answer to keep: how it is sent, and (in subclasses) how it knows that it is still right. Loop-only.

    `may_last`: whether it can be right a second time. `etag`: quoted, weak with W/ before it. `user`: whose it is,
    None: everybody's who has the scope. `scope` and `counter` are filled in by the dispatcher.
    """

    __slots__ = ("_gzip", "_headers", "_plain", "_unchanged", "_unchanged_gzip", "counter", "etag", "scope", "user")

    def __init__(
        self,
        body: bytes,
        etag: str,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.etag = etag
        self.scope: Scope | None = None
        self.user: str | None = None
        self.counter: RouteCounter | None = None
        self._headers = {
            "Content-Type": content_type,
            "ETag": etag,
            "Cache-Control": "private, no-cache",
            "Vary": "Accept-Encoding, Origin",
            "X-Content-Type-Options": "nosniff",
            "Server": SERVER,
            **(headers or {}),
        }
        self._plain = Wire(b"HTTP/1.1 200 OK", {**self._headers, "Content-Length": str(len(body))}, body)
        self._unchanged = Wire(b"HTTP/1.1 304 Not Modified", self._headers, b"")
        self._unchanged_gzip = Wire(b"HTTP/1.1 304 Not Modified", {**self._headers, "ETag": gzip_etag(etag)}, b"")
        self._gzip: Wire | None = None

    @property
    def nbytes(self) -> int:
        return len(self._plain) + 2 * len(self._unchanged) + (len(self._gzip) if self._gzip else 0) + 1000

    may_last = True

    def is_for(self, principal: Principal) -> bool:
        """Whether `principal` may have it."""
        return (self.scope is None or self.scope in principal.scopes) and self.user in (None, principal.user)

    def current(self, now: float) -> bool:
        """Whether this is still the answer at instant `now`. Cheap: it stands before every request."""
        raise NotImplementedError

    def renewed(self, now: float) -> Kept | None:
        """What is the answer at instant `now` in place of this one, where that costs much less than to make it anew;
        else None."""
        return None

    def count_read(self) -> None:
        """This was read once more without being made anew."""

    def wire(self, if_none_match: str | None, accept_encoding: str | None, date: HttpDate) -> tuple[int, bytes] | None:
        """Status and bytes for a request with these headers; None when the gzip twin is wanted and not made yet."""
        packed = accept_encoding is not None and len(self._plain) >= GZIP_FROM and accepts_gzip(accept_encoding)
        if if_none_match is not None and matches(if_none_match, self.etag):
            return 304, (self._unchanged_gzip if packed else self._unchanged).dated(date)
        if not packed:
            return 200, self._plain.dated(date)
        return None if self._gzip is None else (200, self._gzip.dated(date))

    def make_gzip(self) -> None:
        """Make the twin for those who take gzip. Heavy for long bodies: about 30 ms a megabyte; safe in a thread."""
        body = self._compressed(self._plain.body)
        headers = {**self._headers, "ETag": gzip_etag(self.etag), "Content-Encoding": "gzip"}
        self._gzip = Wire(b"HTTP/1.1 200 OK", {**headers, "Content-Length": str(len(body))}, body)

    def _compressed(self, body: bytes) -> bytes:
        packer = zlib.compressobj(6, wbits=31)
        return packer.compress(body) + packer.flush()

    def response(self, if_none_match: str | None) -> web.Response:
        """The same as an ordinary answer, for HEAD, HTTP/1.0, `Connection: close` and answers with CORS headers."""
        if if_none_match is not None and matches(if_none_match, self.etag):
            headers = {name: value for name, value in self._headers.items() if name != "Content-Type"}
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._plain.body, headers=self._headers)


class KeptForever(Kept):
    """An answer that never changes while the daemon runs."""

    __slots__ = ()

    def current(self, now: float) -> bool:
        return True


class KeptResponses:
    """Kept answers by request target, the least recently asked for leaving first. Loop-only.

    `max_bytes` bounds what is kept; one answer may have an eighth of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._largest = max_bytes // 8
        self._kept: LRUCache[str, Kept] = LRUCache(max_bytes, getsizeof=lambda kept: kept.nbytes)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        return int(self._kept.currsize)

    def get(self, target: str) -> Kept | None:
        return self._kept.get(target)

    def put(self, target: str, kept: Kept) -> None:
        """Keep `kept`, or count its size anew; what is too large is not kept."""
        if kept.nbytes + len(target) <= self._largest:
            self._kept[target] = kept


def gzip_etag(etag: str) -> str:
    return etag[:-1] + '-gz"'


@lru_cache(256)
def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names `etag` or its gzip twin (the weak comparison of RFC 9110)."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    bare = etag.removeprefix("W/")
    return "*" in tags or bare in tags or gzip_etag(bare) in tags


@lru_cache(256)
def accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        coding, _, parameter = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            return parameter.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
