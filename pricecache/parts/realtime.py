"""The parts that tell portfolio pages what changed, while it changes."""

from __future__ import annotations

from pricecache.api.portfolio_summary import summary_fields
from pricecache.core.livebook import LiveBook
from pricecache.core.updates import UpdateQueue
from pricecache.jobs import JobDefinition
from pricecache.parts.ground import Ground
from pricecache.parts.portfolios import PortfolioParts
from pricecache.parts.prices import REFRESHES_KEPT, PriceParts
from pricecache.portfolio.event_data import order_data
from pricecache.portfolio.reconstruction_data import unfinished_values
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
from pricecache.stores.day_ranges import DayRangeStore
from pricecache.stores.orders import OrderStore
from pricecache.stores.reconstructions import ReconstructionStore
from pricecache.stores.tracked_users import TrackedUserStore
from pricecache.sync.tracked import TRACKING_JOB, TrackedPoller


def realtime_of(ground: Ground, prices: PriceParts, portfolio: PortfolioParts, feeds: Feeds | None = None) -> Realtime:
    """Real time on these parts, which tell it of what they change; nothing is started. `feeds`: what the stream asks
    instead of the database."""
    realtime = _made(ground, prices, portfolio, feeds)
    _define_tracking(ground, prices, realtime)
    prices.on_published = realtime.on_quotes
    prices.publisher.subscribe(realtime.on_quotes)
    prices.bars.announcer.subscribe(realtime.on_bars)
    portfolio.ledgers.on_events, portfolio.ledgers.on_changed = realtime.on_events, realtime.on_own_change
    watcher = prices.watcher
    watcher.on_stream_events, watcher.on_portfolio = realtime.on_events, realtime.on_portfolio
    watcher.on_portfolio_deleted = realtime.on_deleted
    return realtime


def _made(ground: Ground, prices: PriceParts, portfolio: PortfolioParts, feeds: Feeds | None) -> Realtime:
    settings, database, clock, calendars = ground.settings, ground.database, ground.clock, ground.book
    catalog, live, markets, summaries = prices.catalog, prices.live, portfolio.markets, portfolio.summaries
    store = DayRangeStore(database)
    ranges = DayRanges(store, clock)
    orders = OrderStore(database)

    own = PortfolioFeeds(
        portfolio.store, portfolio.stream_events, orders, summaries, ranges, summary_fields, order_data, clock
    )
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
    signatures = Signatures(live, calendars, clock, ground.chain.final_lag)
    watched = WatchedPrices(book, catalog, markets, portfolio.latest, signatures, clock)
    valuer = Valuer(followed, book, watched, ranges, portfolio.store, summaries, hub, summary_fields, clock)
    queue = UpdateQueue(
        settings.debounce_seconds,
        max(settings.debounce_seconds, settings.max_wait_seconds),
        settings.max_updates_per_minute,
    )
    follower = Follower(followed, book, watched, queue, valuer, catalog, clock)
    follower.on_gone = hub.publish_deletion
    own.follow_with(follower, valuer)
    users = TrackedUserStore(database, clock)
    tracking = LiveTracking(
        users, portfolio.store, follower, store, calendars, clock, interval=settings.tracking_seconds
    )  # fmt: skip
    return Realtime(hub, follower, bar_prices, tracking, ranges, clock, is_enabled=settings.enable_realtime_portfolio)


def _define_tracking(ground: Ground, prices: PriceParts, realtime: Realtime) -> None:
    settings, chain = ground.settings, ground.chain
    if not settings.enable_realtime_portfolio:
        return
    poller = TrackedPoller(
        realtime.tracking.held,
        prices.refresher(),
        prices.catalog,
        prices.live,
        ground.book,
        chain.able("live"),
        ground.clock,
        interval=settings.tracking_seconds,
        lag=chain.final_lag,
    )
    prices.jobs.define(
        JobDefinition(
            TRACKING_JOB,
            poller.run,
            every=settings.tracking_seconds,
            uneventful_kept_seconds=REFRESHES_KEPT * settings.tracking_seconds,
            fails_with_all=True,
        )
    )
