"""What a handler is given, and what it may give back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pricecache.api.auth import LOCAL, Credential, Principal
from pricecache.api.ownership import require_visible, require_writer
from pricecache.core.instruments import Instrument

if TYPE_CHECKING:
    from aiohttp import web

    from pricecache.api.services import Services


@dataclass(slots=True)
class Call:
    """One request, checked. `path`: its parameters decoded; `query`, `body`: as the route's models, or None;
    `headers`: as they came. `principal` is nobody in particular on a route that is open to everybody; `credential`:
    what stands behind the ticket that the request came with, if it did."""

    services: Services
    headers: Mapping[str, str]
    path: Mapping[str, str]
    query: Any = None
    body: Any = None
    principal: Principal = LOCAL
    credential: Credential | None = None

    @property
    def instrument(self) -> Instrument:
        """The instrument named by path and query. Raises `Invalid`, and `NotFound` for another user's own."""
        instrument = Instrument.parse(self.path["symbol"], self.query.market)
        require_visible(self.services.catalog, instrument, self.principal)
        return instrument

    @property
    def writable(self) -> Instrument:
        """The same, where whoever asks may write its prices. Raises `Invalid`, `Forbidden`, `Conflict`."""
        instrument = Instrument.parse(self.path["symbol"], self.query.market)
        require_writer(self.services.catalog, instrument, self.principal)
        return instrument


@dataclass(frozen=True, slots=True)
class Answer:
    """A value to encode as JSON with camelCase keys, its status, and further headers."""

    value: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes to send as they are."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on for as long as its connection does. `begin` is called once the request is admitted and
    checked, with no limit on its time; it may refuse, and gives what aiohttp's connection then asks to be sent."""

    begin: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
