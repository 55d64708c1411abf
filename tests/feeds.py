"""Where a stream's content comes from in tests: portfolios kept in a dictionary, told to a hub as the daemon would."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pricecache.core.stream_events import EventsPage, StreamEvent
from pricecache.realtime.hub import Hub, PortfolioState

EPOCH = "e1"


def position(symbol: str, value: float, **more: Any) -> dict[str, Any]:
    return {"type": "position:updated", "symbol": symbol, "market": "US", "value": value, **more}


def account(value: float) -> dict[str, Any]:
    return {"type": "account:updated", "totalValue": value}


def price(symbol: str, value: float) -> dict[str, Any]:
    return {"type": "price:updated", "symbol": symbol, "market": "US", "price": value}


class MemoryFeeds:
    """Implements `pricecache.realtime.register.Feeds` over what tests put in.

    `hold_back`: while it is set to an event, reads wait for it. `page_size`: most events given at a time. `quiet`:
    numbers of events that are stored and not told to the hub, as if the news of them were lost.
    """

    def __init__(self, epoch: str = EPOCH, page_size: int = 1000) -> None:
        self.epoch = epoch
        self.page_size = page_size
        self.hub: Hub | None = None
        self.events: dict[str, list[StreamEvent]] = {}
        self.oldest: dict[str, int] = {}
        self.values: dict[str, dict[str, dict[str, Any]]] = {}
        self.holdings: dict[str, frozenset[str]] = {}
        self.followed: set[str] = set()
        self.hold_back: asyncio.Event | None = None
        self.waiting = asyncio.Event()
        self.reads = 0

    # ---- what the hub asks

    async def snapshot(self, portfolio_id: str) -> PortfolioState:
        await self._read()
        values = dict(self.values.get(portfolio_id, {}))
        state = PortfolioState(self.epoch, self.last(portfolio_id), values, self.held(portfolio_id))
        await asyncio.sleep(0)  # the answer travels
        return state

    async def events_after(self, portfolio_id: str, seq: int) -> EventsPage:
        await self._read()
        last, oldest = self.last(portfolio_id), self.oldest.get(portfolio_id, 1)
        kept = [event for event in self.events.get(portfolio_id, ()) if event.seq >= max(oldest, seq + 1)]
        page = EventsPage(self.epoch, last, min(oldest, last + 1), tuple(kept[: self.page_size]))
        await asyncio.sleep(0)
        return page

    def listened(self, portfolio_id: str) -> None:
        assert portfolio_id not in self.followed
        self.followed.add(portfolio_id)

    def unlistened(self, portfolio_id: str) -> None:
        self.followed.remove(portfolio_id)

    # ---- what tests do

    def last(self, portfolio_id: str) -> int:
        events = self.events.get(portfolio_id)
        return events[-1].seq if events else 0

    def held(self, portfolio_id: str) -> frozenset[str]:
        return self.holdings.get(portfolio_id, frozenset())

    def store(self, portfolio_id: str, event_type: str = "trade:executed", **data: Any) -> StreamEvent:
        """Store an event, of which the hub hears later or never."""
        event = StreamEvent(self.last(portfolio_id) + 1, event_type, 1_795_000_000.0, data)
        self.events.setdefault(portfolio_id, []).append(event)
        return event

    def happen(self, portfolio_id: str, event_type: str = "trade:executed", **data: Any) -> StreamEvent:
        """Store an event and tell the hub."""
        event = self.store(portfolio_id, event_type, **data)
        assert self.hub is not None
        self.hub.publish_events(portfolio_id, [event])
        return event

    def set(self, portfolio_id: str, values: Mapping[str, dict[str, Any]]) -> None:
        """Values are these now; the hub is told when somebody listens."""
        self.values.setdefault(portfolio_id, {}).update(values)
        if self.hub is not None and self.hub.is_listened(portfolio_id):
            self.hub.publish_values(portfolio_id, values)

    async def _read(self) -> None:
        self.reads += 1
        self.waiting.set()
        if self.hold_back is not None:
            await self.hold_back.wait()
