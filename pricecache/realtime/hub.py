"""The stream's face: takes what happened, and connections that want to hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from pricecache.clock import Clock
from pricecache.core.repeats import Repeats
from pricecache.core.stream_events import StreamEvent
from pricecache.errors import Invalid
from pricecache.realtime.connection import MOST_BYTES, Connection
from pricecache.realtime.delivery import Delivery
from pricecache.realtime.heartbeat import Heartbeat
from pricecache.realtime.joining import Joiner
from pricecache.realtime.leaving import Leaver, owner_of
from pricecache.realtime.mending import Mender
from pricecache.realtime.messages import CHANNELS, PRICES, channel_of, encoded, mask_of, plain
from pricecache.realtime.register import Feeds, Register, symbols_topic
from pricecache.realtime.stats import StreamStats, snapshot_of
from pricecache.realtime.topics import Event

log = structlog.get_logger(__name__)

MOST_PORTFOLIOS = 100
MOST_SYMBOLS = 1000
GOING_AWAY, POLICY_VIOLATION, TRY_LATER = 1001, 1008, 1013
_CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class PortfolioState:
    """A portfolio as it is. `seq`: its last numbered event, which everything here includes; `values`: the latest events
    by key (`account`, `position:AAPL:US`, `order:<id>` for open orders); `holdings`: by `Instrument.key`."""

    epoch: str
    seq: int
    values: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    holdings: frozenset[str] = frozenset()


class Hub:
    """Everybody who listens on this daemon. Loop-only.

    `quotes`: the latest prices there are of instruments, by `Instrument.key`, for who begins to listen to them.
    `window`: seconds for which messages are gathered under load. `slow_seconds`: how long a client may leave what was
    written to it unread. Numbered events reach each listener once and in order; of values the latest.
    """

    def __init__(
        self,
        feeds: Feeds,
        clock: Clock,
        *,
        quotes: Callable[[Iterable[str]], Mapping[str, Event]] = lambda symbols: {},
        window: float = 0.02,
        slow_seconds: float = 30.0,
        enabled: bool = True,
    ) -> None:
        self._clock = clock
        self._enabled = enabled
        self._connections: dict[Connection, None] = {}
        self._register = Register(feeds, quotes)
        self.stats = StreamStats(clock)
        self._delivery = Delivery(self._register, clock, self.stats, window)
        self._mender = Mender(self._delivery, feeds, clock, self._lose)
        self._joiner = Joiner(self._register, self._delivery, self._mender, feeds)
        self._leaver = Leaver(self._register, self._delivery)
        self._heartbeat = Heartbeat(
            self._connections, self._delivery.behind, clock, self._abort, self._delivery.fall_behind, slow_seconds
        )
        self._emptied = asyncio.Event()
        self._slow = Repeats()
        self.is_closed = False

    async def run(self) -> None:
        """Send what is published, until cancelled."""
        await self._delivery.run()

    async def watch(self) -> None:
        """Ping everybody, and end what is dead or too slow, until cancelled."""
        await self._heartbeat.run()

    # ---- what happened

    def is_listened(self, portfolio_id: str) -> bool:
        return portfolio_id in self._register.portfolios

    def wants_price(self, key: str) -> bool:
        """Whether somebody listens to the price of this instrument (`Instrument.key`)."""
        return key in self._register.by_symbol

    def publish_values(self, portfolio_id: str, values: Mapping[str, dict[str, Any]]) -> None:
        """These values of a portfolio are others now; those of no event type we know are passed over."""
        portfolio = self._register.portfolios.get(portfolio_id)
        if portfolio is None or portfolio.is_deleted or not values:
            return
        for key, event in values.items():
            if channel := channel_of(event["type"]):
                self.stats.merged += key in portfolio.changed
                portfolio.changed[key] = None
                portfolio.values[key] = event
                portfolio.counts[channel] = portfolio.counts.get(channel, 0) + 1
        self.stats.events += len(values)
        portfolio.version += 1
        self._delivery.want(portfolio, self._clock.monotonic())

    def publish_events(self, portfolio_id: str, events: Sequence[StreamEvent]) -> None:
        """These events of a portfolio are stored. In any order, and more than once if need be."""
        portfolio = self._register.portfolios.get(portfolio_id)
        if portfolio is not None and not portfolio.is_deleted:
            self.stats.events += len(events)
            self._mender.take(portfolio, events)

    def publish_deletion(self, portfolio_id: str) -> None:
        """A portfolio is no more: who listens is told so, and hears nothing of it after that. Idempotent."""
        portfolio = self._register.portfolios.get(portfolio_id)
        if portfolio is not None:
            self._leaver.dismiss(portfolio)

    def mend_all(self) -> None:
        """Events may have been stored that nobody told of: what is missing is read, and told. Returns at once."""
        self._mender.doubt(self._register.portfolios.values())

    def publish_prices(self, prices: Mapping[str, dict[str, Any]]) -> None:
        """The latest `price:updated` events by `Instrument.key`; those that nobody wants cost a look-up each."""
        now, wanted, latest = self._clock.monotonic(), self._register.by_symbol, self._register.latest_prices
        for key, event in prices.items():
            if key in wanted:
                latest[key] = event
                self.stats.events += 1
                self.stats.merged += self._delivery.want_price(key, event, now)

    def hold(self, portfolio_id: str, holdings: Iterable[str]) -> None:
        """A portfolio holds these instruments now."""
        portfolio = self._register.portfolios.get(portfolio_id)
        if portfolio is not None:
            portfolio.is_held = True
            self._register.hold(portfolio, frozenset(holdings))

    # ---- connections

    def open(self, transport: asyncio.Transport, user: str, credential: Any, *, is_websocket: bool) -> Connection:
        """Take in a connection, which hears nothing yet. Its protocol has to call `on_writable` and `on_lost`."""
        now = self._clock.monotonic()
        connection = Connection(self, transport, user, credential, now, is_websocket=is_websocket)
        self._connections[connection] = None
        self._emptied.clear()
        self.stats.open(connection)
        return connection

    async def until_clear(self, connection: Connection) -> None:
        """Return when it has read what was written. Raises `ConnectionResetError` when it is lost."""
        await self._delivery.until_clear(connection)

    def lost(self, connection: Connection, reason: str = "gone") -> None:
        """The connection has ended. Idempotent."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        self._leave_all(connection)
        connection.dirty = None
        self._delivery.behind.discard(connection)
        self.stats.close(connection, connection.closing or reason)
        connection.wake()
        if not self._connections:
            self._emptied.set()

    def writable(self, connection: Connection) -> None:
        """The kernel has taken all that was written to it."""
        connection.wake()
        self._delivery.recover(connection)

    def said(self, connection: Connection, count: int) -> bool:
        """Its client has sent so many bytes; whether they are within what it may send."""
        now = self._clock.monotonic()
        refilled = connection.bytes_left + (now - connection.counted_at) * MOST_BYTES
        connection.bytes_left, connection.counted_at = min(float(MOST_BYTES), refilled) - count, now
        if connection.bytes_left >= 0:
            return True
        if connection.closing is None:
            self.end(connection, POLICY_VIOLATION, "too_many_bytes")
        return False

    def end(self, connection: Connection, code: int, reason: str) -> None:
        """Close it in good order: it is told why, and is cut off when it has not gone two seconds later."""
        if connection.closing is None:
            connection.say_goodbye(code, reason)
            connection.closing = reason
            self._leave_all(connection)
            self._heartbeat.closing[connection] = self._clock.monotonic() + _CLOSE_SECONDS
            connection.wake()

    def _leave_all(self, connection: Connection) -> None:
        for topic in connection.topics:
            self._register.leave(connection, topic)

    def connections(self) -> list[Connection]:
        return list(self._connections)

    # ---- subscriptions

    async def subscribe(
        self,
        connection: Connection,
        portfolio_id: str | None,
        channels: Iterable[str],
        symbols: Iterable[str] | None = None,
        since: int | None = None,
        epoch: str | None = None,
    ) -> None:
        """Let it hear `channels` of a portfolio it may see, beside what it hears; `prices` are those of `symbols`
        (`Instrument.key`), without them those of what the portfolio holds.

        Answers `subscribed`, then the events after `since`, then a snapshot. Raises `Invalid` code
        `too_many_subscriptions`, `ConnectionResetError`, and what the feeds raise.
        """
        connection.require_open()
        mask = mask_of(channels)
        if mask & PRICES and symbols is not None:
            mask &= ~PRICES
            self._listen_to_symbols(connection, frozenset(symbols))
        if portfolio_id is not None and mask:
            heard = {owner.id for topic in connection.topics if (owner := owner_of(topic)) is not None}
            if portfolio_id not in heard and len(heard) >= MOST_PORTFOLIOS:
                raise _too_many(f"A connection may listen to {MOST_PORTFOLIOS} portfolios.")
            await self._joiner.join(connection, portfolio_id, mask, since, epoch)

    async def unsubscribe(
        self, connection: Connection, portfolio_id: str | None = None, channels: Iterable[str] | None = None
    ) -> None:
        """Stop `channels`, all by default, of a portfolio, of everything by default. Answers `unsubscribed`."""
        mask = mask_of(CHANNELS if channels is None else channels)
        await self._leaver.unsubscribe(connection, portfolio_id, mask)

    def _listen_to_symbols(self, connection: Connection, symbols: frozenset[str]) -> None:
        before = symbols_topic(connection)
        wanted = symbols if before is None else symbols | before.symbols
        if len(wanted) > MOST_SYMBOLS:
            raise _too_many(f"A connection may listen to the prices of {MOST_SYMBOLS} instruments.")
        lacking = None if before is None else self._register.leave(connection, before)
        topic = self._register.enter_symbols(connection, wanted)
        if lacking is not None:
            self._delivery.lacks(connection, topic, lacking)
        fields = {"type": "subscribed", "portfolioId": None, "channels": ["prices"], "symbols": sorted(wanted)}
        connection.send(plain({**fields, "seq": None, "epoch": None}))
        if prices := self._register.prices_of(sorted(symbols)):
            connection.send(topic.message([encoded(event) for event in prices.values()], self._clock.time()))

    # ---- the end

    async def close(self) -> None:
        """Tell everybody to go elsewhere, and cut off who has not gone after two seconds. Nobody is let in again."""
        self.is_closed = True
        for connection in self.connections():
            self.end(connection, GOING_AWAY, "stopping")
        if self._connections:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._emptied.wait()
            except TimeoutError:
                for connection in self.connections():
                    self._abort(connection, "stopping")
        await self._mender.close()
        await self._leaver.close()

    def status(self) -> Mapping[str, Any]:
        """All figures by snake_case name."""
        return snapshot_of(self.stats, self.behind, self.window, self._enabled)

    @property
    def behind(self) -> int:
        """Connections that have not read what was written to them."""
        return len(self._delivery.behind)

    @property
    def window(self) -> float:
        """Seconds for which messages are gathered under load, at present."""
        return self._delivery.window.at(self._clock.monotonic())

    def _abort(self, connection: Connection, reason: str) -> None:
        if reason == "slow" and connection.closing is None:
            self.stats.dropped_slow += 1
            now = self._clock.monotonic()
            if count := self._slow.count("slow", now):
                seconds = round(now - connection.behind_since, 1)
                log.warning("stream client dropped: too slow", user=connection.user, seconds=seconds, count=count)
        connection.closing = connection.closing or reason
        connection.transport.abort()

    def _lose(self, connection: Connection) -> None:
        self.end(connection, TRY_LATER, "events_gone")


def _too_many(detail: str) -> Invalid:
    return Invalid(detail, code="too_many_subscriptions")
