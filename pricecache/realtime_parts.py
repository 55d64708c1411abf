"""The parts of real time, named and put together for `parts`."""

from __future__ import annotations

from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.api.portfolio_summary import summary_fields
from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.catalog import Catalog
from pricecache.core.livebook import LiveBook
from pricecache.core.sessions import CalendarBook
from pricecache.core.updates import UpdateQueue
from pricecache.portfolio.event_data import order_data
from pricecache.portfolio.latest import LatestSessions
from pricecache.portfolio.market import Markets
from pricecache.portfolio.reconstruction_data import unfinished_values
from pricecache.portfolio.summary import Summaries
from pricecache.realtime.bar_prices import BarPrices
from pricecache.realtime.day_ranges import DayRanges
from pricecache.realtime.feeds import PortfolioFeeds, latest_prices
from pricecache.realtime.followed import FollowedPortfolios
from pricecache.realtime.follower import Follower
from pricecache.realtime.hub import Hub
from pricecache.realtime.realtime import Realtime
from pricecache.realtime.register import Feeds
from pricecache.realtime.signatures import Signatures
from pricecache.realtime.tracking import LiveTracking
from pricecache.realtime.valuing import Valuer
from pricecache.realtime.watched_prices import WatchedPrices
from pricecache.settings import Settings
from pricecache.stores.day_ranges import DayRangeStore
from pricecache.stores.orders import OrderStore
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.reconstructions import ReconstructionStore
from pricecache.stores.stream_events import StreamEventStore
from pricecache.stores.tracked_users import TrackedUserStore


def realtime_of(
    settings: Settings,
    database: AsyncDatabase[dict[str, Any]],
    clock: Clock,
    *,
    catalog: Catalog,
    calendars: CalendarBook,
    live: LiveCache,
    markets: Markets,
    latest: LatestSessions,
    lag: float,
    summaries: Summaries,
    portfolios: PortfolioStore,
    events: StreamEventStore,
    feeds: Feeds | None = None,
) -> Realtime:
    """Real time on these parts of a daemon; nothing is started. `lag`: seconds after a close until a bar is final.
    `feeds`: what the stream asks instead of the database."""
    store = DayRangeStore(database)
    ranges = DayRanges(store, clock)
    orders = OrderStore(database)

    own = PortfolioFeeds(portfolios, events, orders, summaries, ranges, summary_fields, order_data, clock)
    own.more = unfinished_values(ReconstructionStore(database))
    hub = Hub(
        feeds or own,
        clock,
        quotes=latest_prices(live, clock, lambda keys: bar_prices.ask(keys)),
        window=settings.stream_window_ms / 1000,
        slow_seconds=settings.stream_slow_seconds,
        enabled=settings.enable_realtime_portfolio,
    )
    bar_prices = BarPrices(hub, markets, catalog, live, clock)
    book, followed = LiveBook(), FollowedPortfolios(settings.max_followed_portfolios)
    prices = WatchedPrices(book, catalog, markets, latest, Signatures(live, calendars, clock, lag), clock)
    valuer = Valuer(followed, book, prices, ranges, portfolios, summaries, hub, summary_fields, clock)
    queue = UpdateQueue(
        settings.debounce_seconds,
        max(settings.debounce_seconds, settings.max_wait_seconds),
        settings.max_updates_per_minute,
    )
    follower = Follower(followed, book, prices, queue, valuer, catalog, clock)
    follower.on_gone = hub.publish_deletion
    own.follow_with(follower, valuer)
    users = TrackedUserStore(database, clock)
    tracking = LiveTracking(
        users, portfolios, follower, store, calendars, clock, interval=settings.tracking_seconds
    )  # fmt: skip
    return Realtime(hub, follower, bar_prices, tracking, ranges, clock, is_enabled=settings.enable_realtime_portfolio)
