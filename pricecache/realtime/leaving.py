"""How connections come to hear less: because they say so, or because a portfolio is no more."""

from __future__ import annotations

import asyncio

from pricecache.background import cancelled
from pricecache.realtime.connection import Connection, Topic
from pricecache.realtime.delivery import PORTION, Delivery
from pricecache.realtime.messages import CHANNELS, PRICES, names_of, plain
from pricecache.realtime.register import Register
from pricecache.realtime.topics import ListenedPortfolio, PortfolioTopic, PriceTopic

DELETED = "portfolio_deleted"


class Leaver:
    """Takes connections out of topics, between two flushes, and tells them. Loop-only."""

    def __init__(self, register: Register, delivery: Delivery) -> None:
        self._register = register
        self._delivery = delivery
        self._tasks: set[asyncio.Task[None]] = set()

    async def unsubscribe(self, connection: Connection, portfolio_id: str | None, mask: int) -> None:
        """End the channels of `mask`, of everything without a portfolio."""
        await self._delivery.between_flushes()
        for topic in connection.topics:
            owner = owner_of(topic)
            if portfolio_id is None or (owner is not None and owner.id == portfolio_id):
                self._stop(connection, topic, mask)
        connection.send(plain({"type": "unsubscribed", "portfolioId": portfolio_id, "channels": names_of(mask)}))

    def dismiss(self, portfolio: ListenedPortfolio) -> None:
        """A portfolio is no more: its listeners are told soon, and nothing of it is told after that. Idempotent."""
        if not portfolio.is_deleted:
            portfolio.is_deleted = True
            task = asyncio.create_task(self._dismiss(portfolio), name=f"stream-dismiss-{portfolio.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        await cancelled(list(self._tasks))

    async def _dismiss(self, portfolio: ListenedPortfolio) -> None:
        fields = {"type": "unsubscribed", "portfolioId": portfolio.id, "channels": list(CHANNELS), "reason": DELETED}
        farewell = plain(fields)
        await self._delivery.between_flushes()
        while members := _members_of(portfolio)[:PORTION]:
            for connection in members:
                for topic in connection.topics:
                    if owner_of(topic) is portfolio:
                        self._register.leave(connection, topic)
                if connection.places is not None:
                    connection.places.forget(portfolio.id)
                connection.send(farewell)
            await asyncio.sleep(0)
            await self._delivery.between_flushes()

    def _stop(self, connection: Connection, topic: Topic, mask: int) -> None:
        if isinstance(topic, PriceTopic) and mask & PRICES:
            self._register.leave(connection, topic)
        elif isinstance(topic, PortfolioTopic) and topic.mask & mask:
            rest = topic.mask & ~mask
            portfolio = topic.portfolio
            portfolio.joining += 1
            lacking = self._register.leave(connection, topic)
            if rest:
                stays = self._register.enter(connection, portfolio, rest)
                if lacking is not None:
                    self._delivery.lacks(connection, stays, lacking)
            self._register.release(portfolio)


def owner_of(topic: Topic) -> ListenedPortfolio | None:
    """The portfolio whose channels or prices these are."""
    return topic.portfolio if isinstance(topic, PortfolioTopic | PriceTopic) else None


def _members_of(portfolio: ListenedPortfolio) -> list[Connection]:
    topics: list[Topic] = [*portfolio.topics]
    if portfolio.prices is not None:
        topics.append(portfolio.prices)
    return list(dict.fromkeys(connection for topic in topics for connection in topic.members))
