"""What the stream asks when somebody comes: how a portfolio stands now, and what happened to it since."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.portfolios import Portfolio
from pricecache.core.quotes import Quote
from pricecache.core.stream_events import EventsPage
from pricecache.errors import Unavailable
from pricecache.portfolio.summary import Summaries, Summarised
from pricecache.realtime.day_ranges import DayRanges
from pricecache.realtime.follower import Follower
from pricecache.realtime.hub import PortfolioState
from pricecache.realtime.messages import instant
from pricecache.realtime.shapes import Event, values_of
from pricecache.realtime.valuing import Shape, Valuer
from pricecache.stores.orders import OrderStore
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.stream_events import StreamEventStore

PATIENCE, RETRY_SECONDS = 16, 0.5
"""How often and how soon it is tried again while a calendar is built."""
OPEN_ORDERS = 1000
"""Open orders of a snapshot, the latest; who has more reads the others from /orders."""


class PortfolioFeeds:
    """Answers from the database and from what is followed. Loop-only. Raises `NotFound` when the portfolio has gone,
    `Unavailable` while a calendar is built, and what the database raises. `more`: further values of a portfolio."""

    def __init__(
        self,
        portfolios: PortfolioStore,
        events: StreamEventStore,
        orders: OrderStore,
        summaries: Summaries,
        ranges: DayRanges,
        shape: Shape,
        order_fields: Callable[[Any], Mapping[str, Any]],
        clock: Clock,
    ) -> None:
        self._portfolios = portfolios
        self._events = events
        self._orders = orders
        self._summaries = summaries
        self._ranges = ranges
        self._shape = shape
        self._order_fields = order_fields
        self._clock = clock
        self._following: tuple[Follower, Valuer] | None = None
        self.more: Callable[[str], Awaitable[Mapping[str, Event]]] = _nothing

    def follow_with(self, follower: Follower, valuer: Valuer) -> None:
        """Who is to follow what somebody listens to; it tells the stream, which asks here, so it comes last."""
        self._following = follower, valuer

    async def snapshot(self, portfolio_id: str) -> PortfolioState:
        """The number comes first: what is read after it has at least all that was numbered by then."""
        assert self._following is not None
        follower, valuer = self._following
        epoch, seq = await self._events.epoch(), await self._events.last(portfolio_id)
        portfolio = await self._portfolios.find(portfolio_id)
        summarised = await self._summarised(portfolio)
        await self._ranges.load([portfolio_id])  # at last: until it is listened to it may be dropped, and its range
        values = values_of(self._shape(summarised, valuer.noted(summarised)))
        found = follower.listen(portfolio_id)
        if not found.values:  # else others have been told older ones, and what is told next starts from these
            found.begin_telling(dict(values))
        held = frozenset(one.instrument.key for one in summarised.summary.positions if one.quantity)
        beside = {**await self._open_orders(portfolio_id), **await self.more(portfolio_id)}
        return PortfolioState(epoch, seq, values | beside, held)

    async def _summarised(self, portfolio: Portfolio) -> Summarised:
        """On a new database calendars are built first, which takes some seconds: worth waiting for."""
        for _ in range(PATIENCE):
            try:
                return await self._summaries.of(portfolio)
            except Unavailable as exc:
                if exc.code != "calendar_loading":
                    raise
            await self._clock.sleep(RETRY_SECONDS)
        return await self._summaries.of(portfolio)

    async def events_after(self, portfolio_id: str, seq: int) -> EventsPage:
        return await self._events.after(portfolio_id, seq)

    def listened(self, portfolio_id: str) -> None:
        """Its snapshot is asked for next, which begins to follow it."""

    def unlistened(self, portfolio_id: str) -> None:
        assert self._following is not None
        self._following[0].unlisten(portfolio_id)

    async def _open_orders(self, portfolio_id: str) -> dict[str, Event]:
        orders = await self._orders.page(portfolio_id, OPEN_ORDERS, is_open=True)
        return {f"order:{one.id}": {"type": "order:updated", **self._order_fields(one)} for one in orders}


async def _nothing(portfolio_id: str) -> Mapping[str, Event]:
    return {}


def price_events(quotes: Iterable[Quote], now: float) -> dict[str, Event]:
    """`price:updated` events of these, by `Instrument.key`."""
    return {
        quote.instrument.key: {
            "type": "price:updated",
            "symbol": quote.instrument.symbol,
            "market": quote.instrument.market,
            "price": quote.price,
            "previousClose": quote.previous_close,
            "open": quote.open,
            "dayHigh": quote.day_high,
            "dayLow": quote.day_low,
            "volume": quote.volume,
            "currency": quote.currency,
            "asOf": instant(quote.as_of),
            "source": quote.source,
            "stale": now >= quote.stale_at,
        }
        for quote in quotes
    }


def latest_prices(
    live: LiveCache, clock: Clock, ask: Callable[[Iterable[str]], object]
) -> Callable[[Iterable[str]], Mapping[str, Event]]:
    """The same of what is known now of the instruments with these keys; those without a quote are `ask`ed for."""

    def told(keys: Iterable[str]) -> Mapping[str, Event]:
        keys = list(keys)
        quotes = {key: quote for key in keys if (quote := live.get(key)) is not None}
        ask([key for key in keys if key not in quotes])
        return price_events(quotes.values(), clock.time())

    return told
