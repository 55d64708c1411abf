"""Sends what was published: when the window ends, to everybody in step, and later to those who were behind."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from pricecache.clock import Clock
from pricecache.realtime.connection import Connection, Topic
from pricecache.realtime.messages import Message, channel_of, encoded
from pricecache.realtime.register import Register
from pricecache.realtime.stats import StreamStats
from pricecache.realtime.topics import Event, ListenedPortfolio, PortfolioTopic, PriceTopic
from pricecache.realtime.windows import Window

log = structlog.get_logger(__name__)

PORTION = 250
"""Writes between two looks at the clock: 1 to 3 ms."""
HOLD_SECONDS = 0.01
"""How long a flush holds the event loop at a time. A turn in between costs as much as fifty writes."""
_MESSAGE_WORTH = 8
"""Making and encoding one message, counted in writes."""
Waiting = tuple[Topic, Message, Any]


class Delivery:
    """Gathers what is published and sends it. Loop-only.

    Memberships, and what connections lack, change only while no flush goes on (`between_flushes`). So a flush may let
    others run between its portions, and still everybody gets each numbered event once.
    """

    def __init__(self, register: Register, clock: Clock, stats: StreamStats, window: float) -> None:
        self._register = register
        self._clock = clock
        self._stats = stats
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._waiting: list[asyncio.Future[None]] = []
        self._began = self._cost = 0.0
        self._spending = 0
        self._portfolios: dict[ListenedPortfolio, None] = {}
        self._prices: dict[str, tuple[Event, int]] = {}
        self._prices_since: float | None = None
        self.window = Window(window)
        self.behind: set[Connection] = set()
        self.on_short_memory: Any = None
        """Called with a connection and a topic of whose events since then not all are remembered."""

    # ---- what is to be sent

    def want(self, portfolio: ListenedPortfolio, now: float) -> None:
        """Something of this portfolio is to be sent."""
        if portfolio.since is None:
            portfolio.since = now
        self._portfolios[portfolio] = None
        self._wanted.set()

    def want_price(self, key: str, event: Event, now: float) -> bool:
        """The latest price of an instrument is to be sent. Whether it takes the place of one that was not sent yet."""
        _, before = self._prices.get(key, (event, 0))
        self._prices[key] = event, before + 1
        if self._prices_since is None:
            self._prices_since = now
        self._wanted.set()
        return before > 0

    async def run(self) -> None:
        """Flush for ever, until cancelled."""
        while True:
            await self._wanted.wait()
            # those who wait for the end of a flush have their turn before the next one begins
            await self._clock.sleep(self.window.wait(self._clock.monotonic()))
            self._wanted.clear()
            await self.flush()

    async def between_flushes(self) -> None:
        """Return while no flush goes on; until the caller awaits again none begins."""
        while not self._idle.is_set():
            await self._idle.wait()

    async def next_flush(self) -> None:
        """Return after a flush that begins now or later."""
        await self.between_flushes()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wanted.set()
        await done

    def now(self) -> float:
        """Seconds since 1970 UTC."""
        return self._clock.time()

    # ---- a flush

    async def flush(self) -> None:
        """Send everything that was published before this call."""
        began, messages = self._begin(), self._stats.messages
        several: dict[Connection, list[Waiting]] = {}
        try:
            portfolios, self._portfolios = self._portfolios, {}
            for portfolio in portfolios:
                try:
                    await self._flush_portfolio(portfolio, several)
                except Exception:  # the socket writer: what cannot be encoded must not end the stream of everybody
                    log.exception("stream message failed", portfolio=portfolio.id)
                    self._stats.failures += 1
            await self._flush_prices(several)
            for connection, waiting in several.items():
                self._send_together(connection, waiting)
                await self._spent(1)
        finally:
            self._cost += self._clock.monotonic() - self._began
            if self._stats.messages > messages:
                self.window.flushed(began, self._cost)
            self._idle.set()
            ended, self._waiting = self._waiting, []
            for one in ended:
                if not one.done():
                    one.set_result(None)
        self._stats.flushes += 1
        for connection in [one for one in self.behind if one.is_clear]:
            self.recover(connection)

    def _begin(self) -> float:
        self._idle.clear()
        self._spending, self._cost = 0, 0.0
        self._began = self._clock.monotonic()
        return self._began

    async def _spent(self, writes: int) -> None:
        self._spending += writes
        if self._spending >= PORTION:
            self._spending = 0
            held = self._clock.monotonic() - self._began
            if held >= HOLD_SECONDS:
                self._cost += held
                await asyncio.sleep(0)
                self._began = self._clock.monotonic()

    async def _flush_portfolio(self, portfolio: ListenedPortfolio, several: dict[Connection, list[Waiting]]) -> None:
        if portfolio.is_deleted:
            return
        if portfolio.sent is None:
            return  # the first listener is still being told where it stands, and asks again
        before, since, counts = portfolio.sent, portfolio.since, portfolio.counts
        numbered = portfolio.advance()
        changed, portfolio.changed = portfolio.changed, {}
        portfolio.since, portfolio.counts = None, {}
        states = _encoded_once(portfolio, changed)
        for topic in portfolio.topics:
            mine = [one.json for one in numbered if one.channel & topic.mask]
            events = mine + [json for channel, json in states if channel & topic.mask]
            self._stats.expect(sum(n for channel, n in counts.items() if channel & topic.mask), len(topic))
            if not events:
                continue
            message = portfolio.message("update", portfolio.sent, self._clock.time(), events)
            await self._send(topic, message, before, several)
        if since is not None:
            self._stats.delivered(self._clock.monotonic() - since)

    async def _flush_prices(self, several: dict[Connection, list[Waiting]]) -> None:
        prices, self._prices = self._prices, {}
        since, self._prices_since = self._prices_since, None
        concerned: dict[PriceTopic, list[str]] = {}
        for key in prices:
            for topic in self._register.by_symbol.get(key, ()):
                concerned.setdefault(topic, []).append(key)
        json = {key: encoded(event) for key, (event, _) in prices.items()} if concerned else {}
        for topic, keys in concerned.items():
            self._stats.expect(sum(prices[key][1] for key in keys), len(topic))
            message = topic.message([json[key] for key in keys], self._clock.time())
            await self._send(topic, message, keys, several)
        if since is not None and concerned:
            self._stats.delivered(self._clock.monotonic() - since)

    async def _send(
        self, topic: Topic, message: Message, before: Any, several: dict[Connection, list[Waiting]]
    ) -> None:
        self._stats.messages += 1
        await self._spent(_MESSAGE_WORTH)
        transports, others = list(topic.ready), list(topic.others)
        for start in range(0, len(transports), PORTION):
            frames, wire, portion = 0, message.frame, transports[start : start + PORTION]
            if start:  # others have run since: who was told to go meanwhile gets nothing after that
                portion = [one for one in portion if topic.of_transport(one) is not None]
            for transport in portion:
                if transport.get_write_buffer_size():
                    self._leave_behind(topic.of_transport(transport), topic, before)
                else:
                    transport.write(wire)
                    frames += 1
            self._stats.wrote(frames, frames * len(wire))
            await self._spent(len(portion))
        for connection in others:
            if connection.dirty is not None or not connection.is_clear:
                self._leave_behind(connection, topic, before)
            elif len(connection.topics) == 1:
                self._write(connection, connection.wire_of(message), 1)
            elif connection.topics:
                several.setdefault(connection, []).append((topic, message, before))
            await self._spent(1)

    def _send_together(self, connection: Connection, waiting: list[Waiting]) -> None:
        if connection.dirty is not None or not connection.is_clear:
            for topic, _, before in waiting:
                self._leave_behind(connection, topic, before)
            return
        if not connection.topics:
            return
        self._write(connection, b"".join([connection.wire_of(message) for _, message, _ in waiting]), len(waiting))

    def _write(self, connection: Connection, wire: bytes, frames: int) -> None:
        connection.transport.write(wire)
        self._stats.wrote(frames, len(wire))

    # ---- those who are behind

    def fall_behind(self, connection: Connection) -> None:
        """What was written to it is not all sent, so nothing more is written for now."""
        if connection.dirty is None and connection.closing is None:
            connection.dirty = {}
            connection.behind_since = self._clock.monotonic()
            self.behind.add(connection)
            connection.settle()

    async def until_clear(self, connection: Connection) -> None:
        """Return when all that was written is sent. Raises `ConnectionResetError` when the connection is lost."""
        if not connection.is_clear:
            self.fall_behind(connection)
            await connection.drained()
        connection.require_open()

    def _leave_behind(self, connection: Connection | None, topic: Topic, before: Any) -> None:
        if connection is None or connection.closing is not None or topic not in connection.topics:
            return
        self.fall_behind(connection)
        self.lacks(connection, topic, before)

    def lacks(self, connection: Connection, topic: Topic, before: Any) -> None:
        """Note what it did not get: of a portfolio everything after number `before`, of prices these symbols."""
        assert connection.dirty is not None
        if isinstance(topic, PriceTopic):
            connection.dirty.setdefault(topic, set()).update(before)
        else:
            connection.dirty.setdefault(topic, before)

    def recover(self, connection: Connection) -> None:
        """Give it what it lacks, as that is now, in one write. It waits for a flush that goes on to end."""
        if connection.dirty is None or not self._idle.is_set() or not connection.is_clear:
            return
        messages: list[Message] = []
        for topic, lacking in connection.dirty.items():
            message = self._missed(topic, lacking)
            if message is None:
                self.on_short_memory(connection, topic)
                return
            if message.json:
                messages.append(message)
        connection.dirty = None
        connection.settle()
        self.behind.discard(connection)
        if messages and connection.closing is None and not connection.transport.is_closing():
            self._write(connection, b"".join([connection.wire_of(message) for message in messages]), len(messages))

    def _missed(self, topic: Topic, lacking: Any) -> Message | None:
        if isinstance(topic, PriceTopic):
            prices = self._register.prices_of(lacking)
            return topic.message([encoded(event) for event in prices.values()], self._clock.time())
        assert isinstance(topic, PortfolioTopic)
        portfolio = topic.portfolio
        numbered = portfolio.after(lacking)
        if numbered is None:
            return None
        mine = [one.json for one in numbered if one.channel & topic.mask]
        events = mine + topic.latest()
        if not events:
            return Message(b"")
        assert portfolio.sent is not None
        return portfolio.message("update", portfolio.sent, self._clock.time(), events)


def _encoded_once(portfolio: ListenedPortfolio, changed: dict[str, None]) -> list[tuple[int, bytes]]:
    wanted = 0
    for topic in portfolio.topics:
        wanted |= topic.mask
    found = []
    for key in changed:
        event = portfolio.values.get(key)
        if event is not None and (channel := channel_of(event["type"])) & wanted:
            found.append((channel, encoded(event)))
    return found
