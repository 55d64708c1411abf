"""Feeds of a daemon that follows no portfolio: streams open, and nothing comes."""

from __future__ import annotations

from pricecache.core.stream_events import EventsPage
from pricecache.realtime.hub import PortfolioState


class NoFeeds:
    """Implements `register.Feeds`. Pure."""

    async def snapshot(self, portfolio_id: str) -> PortfolioState:
        return PortfolioState("none", 0)

    async def events_after(self, portfolio_id: str, seq: int) -> EventsPage:
        return EventsPage("none", 0, 1, ())

    def listened(self, portfolio_id: str) -> None:
        return

    def unlistened(self, portfolio_id: str) -> None:
        return
