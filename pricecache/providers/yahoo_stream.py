"""Prices that Yahoo pushes, through the yfinance library. Nothing of the library is loaded before the first use."""

from __future__ import annotations

import asyncio
import socket
import ssl
from base64 import b64decode
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import isfinite
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson

from pricecache.clock import Clock
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.errors import ProviderUnavailable, SymbolNotFound
from pricecache.providers.spelling import yahoo_symbol
from pricecache.providers.yahoo_library import loaded

PER_CONNECTION = 400
"""Symbols of one connection: Yahoo names no limit, and the library sends all of them anew every 15 seconds."""
CLOSE_SECONDS = 1.0
"""How long a connection that is closed may take to say so: one that is dead never does."""
AT_ONCE = 50
"""Messages that are read before the event loop gets its turn."""
RECEIVE_BUFFER = 64 << 10
"""Bytes that the system keeps for us: all that has come is parsed in one go, so that after a pause of a quarter of a
second a flood of 20,000 messages/s held the loop for 23 ms; with this, for 6 ms."""

_REGULAR = 1
"""`market_hours` of a price made in the regular session; 0 is before, 2 after, 3 and 4 are other hours."""
_ALWAYS_REGULAR = frozenset({"CRYPTO", "FX"})
_LEAST_MILLISECONDS = 100_000_000_000


@dataclass(frozen=True, slots=True)
class _Connection:
    client: Any
    symbols: set[str]
    reader: asyncio.Task[None]


class YahooStream:
    """Pushed quotes of the instruments subscribed to. Loop-only; good for one life: once it has failed, make another.

    Iterating gives the latest price of one instrument after the other, who has waited longest first; one that is
    replaced before it is taken is skipped, so however many messages come there are never more quotes than instruments.
    Several instruments that Yahoo spells alike each get a quote. It raises `ProviderUnavailable` when a connection is
    refused, ends, or can no longer be kept.

    A quote says what the message said: what Yahoo left out is None, and the currency then empty.

    Prices from outside the regular session are passed over, except of currencies and coins, which have none. What is
    passed over is counted in `ignored`: `unknown_symbol`, `extended_hours`, `no_price`, `unreadable`.

    `url`: where to connect instead, past any proxy. `spelling`: what to ask Yahoo for instead of an instrument.

    Of the library it uses the client's subscriptions with their heartbeat, and the message format. Not its `listen`:
    when the server ends the connection in good order that turns in circles for ever without waiting; after another
    error it connects again by itself after 3 seconds and for ever, or raises, by a setting that the whole process
    shares. Not its `_connect` either, which makes a TLS context on the event loop (20 ms). And not its decoder, which
    makes a dictionary of each message at twenty times the cost of reading the two fields that most are judged by.
    """

    name = "yfinance"

    def __init__(
        self,
        clock: Clock,
        url: str | None = None,
        *,
        spelling: Callable[[Instrument], Instrument] = lambda instrument: instrument,
    ) -> None:
        self.messages = 0
        self.heard_at: float | None = None
        """When the last message came, seconds since 1970-01-01T00:00Z."""
        self.ignored: Counter[str] = Counter()
        self._clock = clock
        self._url = url
        self._spelling = spelling
        self._library: SimpleNamespace | None = None
        self._connections: list[_Connection] = []
        self._instruments: dict[str, list[Instrument]] = {}
        self._latest: OrderedDict[Instrument, Any] = OrderedDict()
        self._news = asyncio.Event()
        self._failure: ProviderUnavailable | None = None

    def symbol(self, instrument: Instrument) -> str | None:
        """How Yahoo spells it, or None when Yahoo cannot have it."""
        try:
            return yahoo_symbol(self._spelling(instrument))
        except SymbolNotFound:
            return None

    async def subscribe(self, instruments: Iterable[Instrument]) -> None:
        """Ask for the prices of these too. Raises `ProviderUnavailable`."""
        waiting = self._added(instruments)
        for connection in self._connections:
            room = PER_CONNECTION - len(connection.symbols)
            portion, waiting = waiting[:room], waiting[room:]
            await self._ask(connection, portion)
        for i in range(0, len(waiting), PER_CONNECTION):
            await self._ask(await self._connect(), waiting[i : i + PER_CONNECTION])

    async def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        """Ask for the prices of these no more. Raises `ProviderUnavailable`."""
        gone = self._removed(instruments)
        for connection in self._connections:
            if mine := connection.symbols & gone:
                connection.symbols.difference_update(mine)
                await self._told(connection.client.unsubscribe(sorted(mine)))

    def __aiter__(self) -> AsyncIterator[Quote]:
        return self

    async def __anext__(self) -> Quote:
        while not self._latest:
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            await self._news.wait()
        instrument, pricing = self._latest.popitem(last=False)
        return _quote_of(instrument, pricing, self._clock.time(), self.name)

    async def close(self) -> None:
        """End all connections; takes about a second when the other side is gone."""
        connections, self._connections = self._connections, []
        await asyncio.gather(*(_ended(connection) for connection in connections))

    def _added(self, instruments: Iterable[Instrument]) -> list[str]:
        """The symbols to ask for that have not been asked for yet."""
        waiting = []
        for instrument in instruments:
            if (symbol := self.symbol(instrument)) is None:
                continue
            if symbol not in self._instruments:
                self._instruments[symbol] = []
                waiting.append(symbol)
            if instrument not in self._instruments[symbol]:
                self._instruments[symbol].append(instrument)
        return waiting

    def _removed(self, instruments: Collection[Instrument]) -> set[str]:
        """The symbols that are asked for by nobody any more. Those of old: the spelling may be another one by now."""
        kept = {
            symbol: [instrument for instrument in meant if instrument not in instruments]
            for symbol, meant in self._instruments.items()
        }
        for instrument in instruments:
            self._latest.pop(instrument, None)
        self._instruments = {symbol: meant for symbol, meant in kept.items() if meant}
        return {symbol for symbol, meant in kept.items() if not meant}

    async def _connect(self) -> _Connection:
        if self._library is None:
            # half a second of imports; not under the loop
            self._library = await asyncio.to_thread(_load, self._url)
        client = self._library.client()
        client._ws = await self._told(self._library.connect(client.url))
        buffer = client._ws.transport.get_extra_info("socket")
        buffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        reader = asyncio.create_task(self._read(client._ws), name="yahoo-stream")
        reader.add_done_callback(self._lost)
        connection = _Connection(client, set(), reader)
        self._connections.append(connection)
        return connection

    async def _ask(self, connection: _Connection, symbols: Collection[str]) -> None:
        if not symbols:
            return
        connection.symbols.update(symbols)
        has_heartbeat = connection.client._heartbeat_task is not None
        await self._told(connection.client.subscribe(list(symbols)))
        if not has_heartbeat:
            # without it Yahoo falls silent after a while, and it ends at its first error without a word
            connection.client._heartbeat_task.add_done_callback(self._lost)

    async def _told(self, saying: Any) -> Any:
        try:
            return await saying
        except Exception as exc:  # the libraries', the system's, of TLS: it is one thing, the stream cannot be had
            raise _unavailable(exc) from exc

    async def _read(self, socket: Any) -> None:
        while True:
            for _ in range(AT_ONCE):
                self._hear(await socket.recv(decode=False))
            await asyncio.sleep(0)

    def _hear(self, message: bytes) -> None:
        assert self._library is not None
        self.messages += 1
        self.heard_at = self._clock.time()
        try:
            pricing = self._library.parse(b64decode(orjson.loads(message)["message"]))
        except (ValueError, TypeError, KeyError, self._library.unreadable):
            self.ignored["unreadable"] += 1
            return
        if (reason := self._why_not(pricing)) is not None:
            self.ignored[reason] += 1
            return
        for instrument in self._instruments[pricing.id]:
            waiting = self._latest.get(instrument)
            if waiting is None or pricing.time >= waiting.time:
                self._latest[instrument] = pricing  # in the place of the one that waited
                self._news.set()

    def _why_not(self, pricing: Any) -> str | None:
        meant = self._instruments.get(pricing.id)
        if meant is None:
            return "unknown_symbol"
        if pricing.market_hours != _REGULAR and meant[0].market not in _ALWAYS_REGULAR:
            return "extended_hours"
        return None if isfinite(pricing.price) and pricing.price > 0 and pricing.time > 0 else "no_price"

    def _lost(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and self._failure is None:
            self._failure = _unavailable(task.exception())
            self._news.set()
        elif not task.cancelled():
            task.exception()


@cache  # a TLS context takes 20 ms to make, and each stream is opened many times
def _load(url: str | None) -> SimpleNamespace:
    live, pricing, protobuf, client = loaded(
        "yfinance.live", "yfinance.pricing_pb2", "google.protobuf.message", "websockets.asyncio.client"
    )
    options: dict[str, Any] = {"compression": None, "close_timeout": CLOSE_SECONDS}
    given = {} if url is None else {"url": url}
    if url is not None:
        options["proxy"] = None
    if live.AsyncWebSocket(verbose=False, **given).url.startswith("wss:"):
        options["ssl"] = ssl.create_default_context()
    return SimpleNamespace(
        client=lambda: live.AsyncWebSocket(verbose=False, **given),
        connect=lambda there: client.connect(there, **options),
        parse=pricing.PricingData.FromString,
        unreadable=protobuf.DecodeError,
    )


async def _ended(connection: _Connection) -> None:
    tasks = [task for task in (connection.reader, connection.client._heartbeat_task) if task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # a socket that fails to close in good order is gone all the same
    with suppress(Exception):
        await connection.client._ws.close()


def _unavailable(exc: BaseException | None) -> ProviderUnavailable:
    said = "its heartbeat ended" if exc is None else str(exc) or type(exc).__name__
    return ProviderUnavailable(f"Yahoo's stream cannot be had: {said[:200]}.", code="stream_lost")


def _quote_of(instrument: Instrument, pricing: Any, now: float, source: str) -> Quote:
    instant = float(pricing.time)
    price = _short(pricing.price)
    assert price is not None
    previous = _short(pricing.previous_close)
    if previous is None and pricing.change:
        previous = _positive(float(f"{price - _decimal(pricing.change):.10g}"))
    return Quote(
        instrument,
        price,
        pricing.currency,
        as_of=instant / 1000 if instant >= _LEAST_MILLISECONDS else instant,
        received_at=now,
        source=source,
        previous_close=previous,
        open=_short(pricing.open_price),
        day_high=_short(pricing.day_high),
        day_low=_short(pricing.day_low),
        volume=_positive(float(pricing.day_volume)),
    )


def _short(value: float) -> float | None:
    return _decimal(value) if isfinite(value) and value > 0 else None


def _decimal(value: float) -> float:
    """A float32 as the decimal it was made of: 187.15, not 187.1499939."""
    return float(str(np.float32(value)))


def _positive(value: float) -> float | None:
    return value if value > 0 else None
