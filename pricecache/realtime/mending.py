"""Keeps the numbered events of a listened portfolio without a gap: what was not heard of is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from pricecache.background import cancelled
from pricecache.clock import Clock
from pricecache.core.stream_events import StreamEvent
from pricecache.errors import PricecacheError
from pricecache.realtime.connection import Connection, Topic
from pricecache.realtime.delivery import Delivery
from pricecache.realtime.messages import Numbered
from pricecache.realtime.register import Feeds
from pricecache.realtime.topics import ListenedPortfolio, PortfolioTopic

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 1.0
_AT_ONCE = 4
"""Portfolios whose events are read at a time when all are doubted."""


class Mender:
    """Takes numbered events in, in whatever order they are told. Loop-only.

    `lose`: called with a connection for which stored events are gone that it has not got; it has to come again.
    """

    def __init__(self, delivery: Delivery, feeds: Feeds, clock: Clock, lose: Any) -> None:
        self._delivery = delivery
        self._feeds = feeds
        self._clock = clock
        self._lose = lose
        self._tasks: set[asyncio.Task[None]] = set()
        self._recalled: set[Connection] = set()
        self._doubted: dict[ListenedPortfolio, None] = {}
        self._menders = 0
        delivery.on_short_memory = self.recall

    def take(self, portfolio: ListenedPortfolio, events: Sequence[StreamEvent]) -> None:
        """These were stored. Those heard of are passed over; a gap is filled from the feeds first."""
        for event in events:
            last = portfolio.last
            if last is not None and event.seq <= last:
                continue
            if last is not None and event.seq > last + 1 and portfolio.sent is not None:
                self._mend_soon(portfolio)
                return
            one = Numbered(event)
            portfolio.pending.append(one)
            portfolio.counts[one.channel] = portfolio.counts.get(one.channel, 0) + 1
            self._delivery.want(portfolio, self._clock.monotonic())

    def begin_at(self, portfolio: ListenedPortfolio, seq: int) -> None:
        """Its first listener has everything up to `seq`."""
        early, portfolio.pending = portfolio.pending, []
        portfolio.sent = seq
        portfolio.counts, portfolio.since = {}, None
        if portfolio.changed:
            self._delivery.want(portfolio, self._clock.monotonic())
        self.take(portfolio, [one.event for one in early])
        if portfolio.is_doubted:
            portfolio.is_doubted = False
            self._mend_soon(portfolio)

    def doubt(self, portfolios: Iterable[ListenedPortfolio]) -> None:
        """Of these, events may have been stored that nobody told of: read on, a few portfolios at a time."""
        for portfolio in portfolios:
            if portfolio.sent is None:
                portfolio.is_doubted = True  # what its first listener is being told may be from before
            else:
                self._doubted[portfolio] = None
        for _ in range(min(_AT_ONCE, len(self._doubted)) - self._menders):
            self._menders += 1
            self._start(self._mend_doubted(), "stream-mend-doubted")

    async def mend(self, portfolio: ListenedPortfolio) -> bool:
        """Read what is stored after the last event heard of; whether that was all. Raises what the feeds raise."""
        last = portfolio.last
        assert last is not None
        page = await self._feeds.events_after(portfolio.id, last)
        if page.oldest > last + 1 and portfolio.last == last:
            log.warning("stream events are gone", portfolio=portfolio.id, after=last, oldest=page.oldest)
            for topic in portfolio.topics:
                for connection in topic.members:
                    self._lose(connection)
            return True
        self.take(portfolio, page.events)
        return portfolio.last is None or portfolio.last >= page.last

    def recall(self, connection: Connection, topic: Topic) -> None:
        """A connection lacks more events than are remembered: read them for it."""
        if connection not in self._recalled:
            self._recalled.add(connection)
            self._start(self._recall(connection, topic), f"stream-recall-{id(connection)}")

    async def close(self) -> None:
        await cancelled(list(self._tasks))

    def _mend_soon(self, portfolio: ListenedPortfolio) -> None:
        if not portfolio.is_mending:
            portfolio.is_mending = True
            self._start(self._mend_until_whole(portfolio), f"stream-mend-{portfolio.id}")

    async def _mend_until_whole(self, portfolio: ListenedPortfolio) -> None:
        try:
            await self._read_on(portfolio)
        finally:
            portfolio.is_mending = False

    async def _mend_doubted(self) -> None:
        try:
            while self._doubted:
                portfolio = next(iter(self._doubted))
                del self._doubted[portfolio]
                await self._read_on(portfolio)
        finally:
            self._menders -= 1

    async def _read_on(self, portfolio: ListenedPortfolio) -> None:
        while portfolio.is_wanted:
            try:
                if await self.mend(portfolio):
                    return
            except (PricecacheError, PyMongoError, TimeoutError) as exc:
                log.debug("stream events unreadable", portfolio=portfolio.id, error=str(exc))
                await self._clock.sleep(_AGAIN_SECONDS)

    async def _recall(self, connection: Connection, topic: Topic) -> None:
        assert isinstance(topic, PortfolioTopic)
        try:
            while (cursor := (connection.dirty or {}).get(topic)) is not None:
                if topic.portfolio.after(cursor) is not None:
                    break
                page = await self._feeds.events_after(topic.portfolio.id, cursor)
                await connection.drained()
                await self._delivery.between_flushes()
                if connection.dirty is None or connection.dirty.get(topic) != cursor:
                    continue
                if not self._resend(connection, topic, cursor, [Numbered(event) for event in page.events]):
                    self._lose(connection)
        except (PricecacheError, PyMongoError, TimeoutError) as exc:
            log.debug("stream events unreadable", portfolio=topic.portfolio.id, error=str(exc))
            self._lose(connection)
        finally:
            self._recalled.discard(connection)
        self._delivery.recover(connection)

    def _resend(self, connection: Connection, topic: PortfolioTopic, cursor: int, events: list[Numbered]) -> bool:
        assert topic.portfolio.sent is not None
        assert connection.dirty is not None
        events = [one for one in events if one.seq <= topic.portfolio.sent]
        if not events or events[0].seq != cursor + 1:
            return False
        mine = [one.json for one in events if one.channel & topic.mask]
        connection.dirty[topic] = events[-1].seq
        if mine:
            seq, now = events[-1].seq, self._clock.time()
            connection.send(topic.portfolio.message("update", seq, now, mine))
        return True

    def _start(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
