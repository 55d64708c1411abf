"""How a connection comes to listen to a portfolio: what it missed, what holds now, then live, each event once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from pricecache.core.stream_events import EventsPage
from pricecache.errors import NotFound, Unavailable
from pricecache.realtime.connection import Connection
from pricecache.realtime.delivery import Delivery
from pricecache.realtime.mending import Mender
from pricecache.realtime.messages import PRICES, Message, Numbered, channel_of, encoded, names_of, plain
from pricecache.realtime.register import Feeds, PortfolioState, Register, topics_of
from pricecache.realtime.topics import ListenedPortfolio, PortfolioTopic

REPLAYED_AT_ONCE = 200
"""Events in one message of a replay; the next is sent when the kernel has taken it."""
_MOST_ROUNDS = 20
_FEED_SECONDS = 10.0
_T = TypeVar("_T")


class Joiner:
    """Takes connections into topics. Loop-only.

    The order is what makes it exact: the portfolio counts as listened to first; then its state is read, which is
    complete up to its number; then the stored events, which reach at least so far. What is published meanwhile is
    either among them or comes live, and the numbers tell which.
    """

    def __init__(self, register: Register, delivery: Delivery, mender: Mender, feeds: Feeds) -> None:
        self._register = register
        self._delivery = delivery
        self._mender = mender
        self._feeds = feeds

    async def join(
        self, connection: Connection, portfolio_id: str, mask: int, since: int | None, epoch: str | None
    ) -> None:
        """Let `connection` hear the channels of `mask` of this portfolio, beside those it hears already.

        `since`: the last number it has, with the epoch it was counted in. Raises `ConnectionResetError` when it is
        lost meanwhile, and what the feeds raise.
        """
        portfolio = self._register.listen(portfolio_id)
        try:
            published = portfolio.version
            state = await _in_time(self._feeds.snapshot(portfolio_id))
            is_newer = portfolio.version != published
            self._take_up(portfolio, state)
            version = portfolio.version
            _require_there(connection, portfolio)
            had, _ = topics_of(connection, portfolio_id)
            if mask & ~PRICES or had is not None:
                cursor, topic = await self._bring_up(connection, portfolio, state, mask & ~PRICES, since, epoch)
                self._catch_up(connection, topic, cursor, is_newer or portfolio.version != version)
            else:
                fields = {"type": "subscribed", "portfolioId": portfolio_id, "channels": names_of(mask)}
                connection.send(plain({**fields, "seq": state.seq, "epoch": state.epoch}))
            if mask & PRICES:
                _require_there(connection, portfolio)
                self.tell_prices(connection, portfolio)
        finally:
            self._register.release(portfolio)

    def tell_prices(self, connection: Connection, portfolio: ListenedPortfolio) -> None:
        """Let it hear the prices of what the portfolio holds, and say what they are."""
        topic = self._register.enter_holdings(connection, portfolio)
        prices = self._register.prices_of(topic.symbols)
        if prices:
            connection.send(topic.message([encoded(event) for event in prices.values()], self._delivery.now()))

    def _take_up(self, portfolio: ListenedPortfolio, state: PortfolioState) -> None:
        portfolio.epoch = state.epoch
        portfolio.adopt(state.values)
        if not portfolio.is_held:
            self._register.hold(portfolio, state.holdings)

    async def _bring_up(
        self,
        connection: Connection,
        portfolio: ListenedPortfolio,
        state: PortfolioState,
        mask: int,
        since: int | None,
        epoch: str | None,
    ) -> tuple[int, PortfolioTopic]:
        had, _ = topics_of(connection, portfolio.id)
        if had is not None and since is None:
            return await self._add_channels(connection, portfolio, state, mask)
        page = None
        if since is not None and epoch in (None, state.epoch):
            page = await _in_time(self._feeds.events_after(portfolio.id, since))
        resumes = page is not None and since is not None and _is_whole(page, since)
        cursor = since if resumes and since is not None else state.seq
        await self._delivery.between_flushes()
        if had is not None:
            mask |= had.mask
            self._register.leave(connection, had)
        channels = names_of(mask | (PRICES if topics_of(connection, portfolio.id)[1] is not None else 0))
        connection.send(
            plain({"type": "subscribed", "portfolioId": portfolio.id, "channels": channels, "seq": cursor,
                   "epoch": state.epoch})
        )  # fmt: skip
        if resumes and page is not None:
            cursor = await self._replay(connection, portfolio, mask, cursor, state.seq, page)
        connection.send(self._snapshot(portfolio, state, mask, cursor, resync=since is not None and not resumes))
        await self._delivery.until_clear(connection)
        await self._meet(portfolio, cursor)
        _require_there(connection, portfolio)
        return cursor, self._register.enter(connection, portfolio, mask)

    async def _add_channels(
        self, connection: Connection, portfolio: ListenedPortfolio, state: PortfolioState, mask: int
    ) -> tuple[int, PortfolioTopic]:
        """More channels of what it hears already: it stays where it is in the numbers."""
        await self._delivery.between_flushes()
        _require_there(connection, portfolio)
        had, _ = topics_of(connection, portfolio.id)
        assert had is not None
        assert portfolio.sent is not None
        lacking = self._register.leave(connection, had)
        cursor = portfolio.sent if lacking is None else int(lacking)
        mask |= had.mask
        topic = self._register.enter(connection, portfolio, mask)
        connection.send(
            plain({"type": "subscribed", "portfolioId": portfolio.id, "channels": names_of(mask), "seq": cursor,
                   "epoch": state.epoch})
        )  # fmt: skip
        connection.send(self._snapshot(portfolio, state, mask, min(cursor, state.seq), resync=False))
        return cursor, topic

    async def _replay(
        self, connection: Connection, portfolio: ListenedPortfolio, mask: int, cursor: int, until: int, page: EventsPage
    ) -> int:
        while cursor < until:
            events = [Numbered(event) for event in page.events if cursor < event.seq <= until]
            if not events:
                page = await _in_time(self._feeds.events_after(portfolio.id, cursor))
                if not any(event.seq == cursor + 1 for event in page.events):
                    raise Unavailable("Stored events cannot be read on.", code="events_unavailable")
                continue
            for start in range(0, len(events), REPLAYED_AT_ONCE):
                portion = events[start : start + REPLAYED_AT_ONCE]
                cursor = portion[-1].seq
                mine = [one.json for one in portion if one.channel & mask]
                if mine:
                    connection.send(portfolio.message("update", cursor, self._delivery.now(), mine))
                    await self._delivery.until_clear(connection)
        return cursor

    def _snapshot(
        self, portfolio: ListenedPortfolio, state: PortfolioState, mask: int, seq: int, *, resync: bool
    ) -> Message:
        values = [encoded(event) for event in state.values.values() if channel_of(event["type"]) & mask]
        return portfolio.message("snapshot", seq, self._delivery.now(), values, resync=resync)

    async def _meet(self, portfolio: ListenedPortfolio, cursor: int) -> None:
        """Return between two flushes, when those who are in step were sent at least the events up to `cursor`."""
        for _ in range(_MOST_ROUNDS):
            await self._delivery.between_flushes()
            if portfolio.sent is None:
                self._mender.begin_at(portfolio, cursor)
            assert portfolio.sent is not None
            if cursor <= portfolio.sent or portfolio.is_deleted:
                return
            await self._mender.mend(portfolio)
            await self._delivery.next_flush()
        raise Unavailable("Stored events cannot be read on.", code="events_unavailable")

    def _catch_up(self, connection: Connection, topic: PortfolioTopic, cursor: int, values_moved: bool) -> None:
        assert topic.portfolio.sent is not None
        if cursor < topic.portfolio.sent or values_moved or not connection.is_clear:
            self._delivery.fall_behind(connection)
            self._delivery.lacks(connection, topic, cursor)
            self._delivery.recover(connection)


async def _in_time(answer: Awaitable[_T]) -> _T:
    async with asyncio.timeout(_FEED_SECONDS):
        return await answer


def _require_there(connection: Connection, portfolio: ListenedPortfolio) -> None:
    connection.require_open()
    if portfolio.is_deleted:
        raise NotFound("This portfolio was deleted just now.", code="unknown_portfolio")


def _is_whole(page: EventsPage, since: int) -> bool:
    """Whether every event after `since` is still there."""
    return since <= page.last and page.oldest <= since + 1
