"""The concrete parts of a daemon, named and put together; nothing here is started."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.api.auth import Identity
from pricecache.api.dispatch import Dispatcher
from pricecache.api.history_pages import PageCache
from pricecache.api.kept import KeptResponses
from pricecache.api.origins import Origins, is_loopback
from pricecache.api.routes import ROUTES
from pricecache.api.runs import REFRESH_JOB, SYNC_JOB
from pricecache.api.services import Services
from pricecache.api.streams import Streams
from pricecache.api.tokens import TokenVerifier
from pricecache.background import BackgroundTasks
from pricecache.broker_parts import connections_of
from pricecache.cache.as_known import AsKnown
from pricecache.cache.columns import ColumnCache
from pricecache.cache.intraday import IntradayReader
from pricecache.cache.live import LiveCache
from pricecache.cache.reader import Reader
from pricecache.cache.sampled import SampledSessions
from pricecache.cache.wholeness import Wholeness
from pricecache.calendars import CalendarLoader
from pricecache.clock import Clock
from pricecache.core.catalog import Catalog
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch
from pricecache.core.sessions import CalendarBook
from pricecache.health import Health
from pricecache.jobs import JobDefinition, Jobs
from pricecache.metrics import Metrics
from pricecache.portfolio.breakdown import Breakdowns
from pricecache.portfolio.broker_prices import BrokerPriceWriter
from pricecache.portfolio.candidates import Assessor
from pricecache.portfolio.fetching import FETCH_JOB
from pricecache.portfolio.history import Histories
from pricecache.portfolio.importing import Importer
from pricecache.portfolio.latest import LatestSessions
from pricecache.portfolio.ledger import Ledgers
from pricecache.portfolio.mapping import Mapper
from pricecache.portfolio.market import Markets
from pricecache.portfolio.materialiser import MATERIALIZE_JOB, Materialiser
from pricecache.portfolio.orders import Orders
from pricecache.portfolio.price_origins import PriceOrigins
from pricecache.portfolio.reconstruction_data import ReconstructionNews
from pricecache.portfolio.returns import Returns
from pricecache.portfolio.sampler import Sampler
from pricecache.portfolio.snapshot_capture import SNAPSHOT_JOB, SnapshotCapture
from pricecache.portfolio.snapshot_days import SNAPSHOT_AFTER_SECONDS, SNAPSHOT_CRON, SNAPSHOT_ZONE
from pricecache.portfolio.snapshot_members import MemberBuilder
from pricecache.portfolio.snapshots import Snapshots, SnapshotStats
from pricecache.portfolio.summary import Summaries
from pricecache.portfolio.wholes import Wholes
from pricecache.providers.chain import ProviderChain
from pricecache.providers.yahoo_stream import YahooStream
from pricecache.realtime.realtime import Realtime
from pricecache.realtime.register import Feeds
from pricecache.realtime_parts import realtime_of
from pricecache.reconstruction_parts import reconstructions_of
from pricecache.settings import Settings
from pricecache.stores.bars import BarStore
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.history import HistoryStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.keys import KeyStore
from pricecache.stores.leases import LeaseStore, new_owner
from pricecache.stores.ledger import LedgerStore
from pricecache.stores.orders import OrderStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.portfolios import PortfolioStore
from pricecache.stores.quarantine import QuarantineStore
from pricecache.stores.quotes import QuoteStore
from pricecache.stores.runs import RunStore
from pricecache.stores.samples import SampleStore
from pricecache.stores.searches import SearchStore
from pricecache.stores.snapshots import SnapshotStore
from pricecache.stores.stream_events import StreamEventStore
from pricecache.stores.symbol_mappings import SymbolMappingStore
from pricecache.stores.sync_state import SyncStateStore
from pricecache.stores.tickets import TicketStore
from pricecache.stores.watch import ChangeWatcher
from pricecache.sync.backfill import BACKFILL_JOB, Backfiller, Tracker
from pricecache.sync.examine import Examiner
from pricecache.sync.historical import HistoricalSync
from pricecache.sync.publish import QuotePublisher, presently
from pricecache.sync.refresh import LiveRefresher
from pricecache.sync.review import Reviewer
from pricecache.sync.searching import ProviderSearch
from pricecache.sync.streamfeed import StreamFeed
from pricecache.sync.tracked import TRACKING_JOB, TrackedPoller
from pricecache.sync.verify import VERIFY_JOB, Verifier

MIB = 1 << 20
REFRESHES_KEPT = 96
"""Runs of `live_price_update` that are kept when nothing happened in them: a day of them by default."""
RUNS_KEPT = 144
"""The same of `materialize_history`."""
FETCH_SECONDS = 60.0
"""How often it is looked which connections are due; each is fetched by its own time."""
FETCH_AFTER_SECONDS = 5.0
MATERIALIZE_AFTER_SECONDS = 60.0
"""After the start, when the first sync has brought what was missing."""


class Parts:
    """The parts of one daemon on one database. Loop-only.

    `book` and `chain` may have been given to others before; `background` is what goes on beside these parts.
    `feeds`: where streams get what they tell, if not from these parts.
    """

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase[dict[str, Any]],
        clock: Clock,
        book: CalendarBook,
        chain: ProviderChain,
        metrics: Metrics,
        background: BackgroundTasks,
        feeds: Feeds | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._book = book
        self._chain = chain
        self._metrics = metrics
        self._owner = new_owner()
        self._feeds = feeds
        self._make_stores()
        self._make_caches()
        self._make_jobs()
        self._make_portfolios()
        self._make_connections()
        self._make_mapping()
        self._make_reconstructions()
        self.health = Health(database, clock, background, lambda: self.jobs.is_following_schedule)
        self.dispatcher = self._dispatcher()

    async def load(self) -> None:
        """Fill the memory with what the database holds."""
        await self.calendars.load()
        await self.instruments.load_all()
        await self.quotes.adopt(self._series_of)
        quotes = await self.quotes.load()
        self._publish(quotes)
        self.samples.remember(quotes)
        await self.identity.reload()

    def _publish(self, quotes: Sequence[Quote]) -> None:
        """What was stored by this daemon before or by another one now."""
        # by the series: the symbol of one may have become another's since
        present = [named for quote in quotes if (named := presently(self.catalog, quote)) is not None]
        taken = self.live.publish(QuoteBatch.of(sorted(present, key=lambda quote: quote.as_of)))
        self.realtime.on_quotes(list(taken.values()))

    def _series_of(self, instrument: Instrument) -> int | None:
        entry = self.catalog.find(instrument)
        return None if entry is None else entry.id

    def _make_stores(self) -> None:
        database, clock = self._database, self._clock
        shared_as = self._owner if self._settings.mongodb_uri is not None else None
        self.catalog = Catalog()
        self.bars = BarStore(database, clock)
        self.instruments = InstrumentStore(database, self.catalog)
        self.states = SyncStateStore(database)
        self.quarantine = QuarantineStore(database)
        self.quotes = QuoteStore(database, clock, shared_as=shared_as)
        self.samples = SampleStore(
            database, self.catalog, clock, keep_days=self._settings.sample_days, shared=shared_as is not None
        )
        self.runs = RunStore(database)
        self.keys = KeyStore(database)
        self.heads = PortfolioHeads()
        self.heads.trusted = shared_as is None  # else from when the watcher follows
        self.calendars = CalendarLoader(clock, database["calendars"], self._book)
        self._chain.spell(self.catalog.asked_as)

    def _make_caches(self) -> None:
        lag = self._chain.final_lag
        self.live = LiveCache()
        self.instruments.on_renamed = self.live.rename
        self.instruments.on_repriced = lambda entry: self.live.reprice(entry.instrument, entry.currency)
        self.columns = ColumnCache(self.bars, int(self._settings.column_cache_mb * MIB))
        self.sampled = SampledSessions(self.samples, self._book)
        self.reader = Reader(
            self.catalog, self.columns, self._book, self._clock, lag, live=self.live, sampled=self.sampled
        )
        self.intraday = IntradayReader(self.catalog, self.samples, self.reader, self._book, self._clock)
        self.as_known = AsKnown(self.catalog, self.bars, self._book, lag)
        self.wholeness = Wholeness(self.catalog, self.reader, self._clock)
        self.watcher = ChangeWatcher(
            self._database,
            self.catalog,
            self.instruments,
            self.bars,
            self.quotes,
            self._owner,
            self._publish,
            self._clock,
            self.heads,
        )

    # ---- jobs

    def _make_jobs(self) -> None:
        settings, concurrency = self._settings, self._chain.concurrency
        leases = LeaseStore(self._database, self._owner)
        self.jobs = Jobs(self.runs, leases, self._clock, drain_seconds=settings.drain_seconds, metrics=self._metrics)
        self.tracker = Tracker(
            self.catalog,
            self.instruments,
            self._clock,
            depth_days=settings.backfill_days,
            max_symbols=settings.max_symbols,
            start_run=self.jobs.run,
        )
        self.publisher = self._publisher()
        self.stream = self._stream_feed()
        self.publisher.subscribe(self.samples.record)
        examiner, refresher = self._examiner(), self._refresher()
        backfiller = Backfiller(self.tracker, examiner, refresher, concurrency=concurrency)
        verifier = Verifier(self.catalog, self.bars, self._clock)
        for job in (
            JobDefinition(
                SYNC_JOB,
                self._sync(examiner).run,
                every=settings.sync_seconds,
                first_after=settings.sync_start_delay_seconds,
                fails_with_all=True,
            ),
            JobDefinition(
                REFRESH_JOB,
                refresher.run,
                every=settings.live_seconds,
                first_after=1.0,
                uneventful_kept_seconds=REFRESHES_KEPT * settings.live_seconds,
                fails_with_all=True,
            ),
            JobDefinition(BACKFILL_JOB, backfiller.run, concurrency=concurrency, fails_with_all=True),
            JobDefinition(VERIFY_JOB, verifier.run),
        ):
            self.jobs.define(job)

    def _examiner(self) -> Examiner:
        return Examiner(
            self._chain,
            self.calendars,
            self.bars,
            self.states,
            self.instruments,
            self._clock,
            random.Random(),
            name=self._chain.name,
            lag=self._chain.final_lag,
            metrics=self._metrics,
            quarantine=self.quarantine,
            rank=self._chain.rank,
            control_works=self._chain.controls_work,
        )

    def _refresher(self) -> LiveRefresher:
        return LiveRefresher(
            self.catalog,
            self.live,
            self.publisher,
            self._chain,
            self.calendars,
            self._clock,
            interval=self._settings.live_seconds,
            lag=self._chain.final_lag,
            always_moving=self._chain.always_moving,
            streamed=self.stream.streamed if self.stream is not None else lambda key, since: False,
        )

    def _stream_feed(self) -> StreamFeed | None:
        settings = self._settings
        # requests that are sent elsewhere on purpose must not meet Yahoo by another way
        leads_elsewhere = settings.yahoo_url is not None and settings.yahoo_stream_url is None
        streams = any(pool.name == YahooStream.name for pool in self._chain.able("stream"))
        if not settings.stream or not streams or leads_elsewhere:
            return None
        return StreamFeed(
            lambda: YahooStream(self._clock, settings.yahoo_stream_url, spelling=self._yahoo_spelling),
            self.catalog,
            self.publisher,
            self.calendars,
            self._clock,
            random.Random(),
            silence=settings.stream_silence_seconds,
        )

    def _yahoo_spelling(self, instrument: Instrument) -> Instrument:
        return self.catalog.asked_as(instrument, YahooStream.name)

    def _publisher(self) -> QuotePublisher:
        return QuotePublisher(
            self.catalog,
            self.live,
            self.quotes,
            self.bars,
            self.calendars,
            self.instruments,
            self._clock,
            interval=self._settings.live_seconds,
            lag=self._chain.final_lag,
            always_moving=self._chain.always_moving,
            metrics=self._metrics,
        )

    def _sync(self, examiner: Examiner) -> HistoricalSync:
        return HistoricalSync(
            self.catalog,
            examiner,
            self.bars,
            self.live,
            self.calendars,
            self._clock,
            lag=self._chain.final_lag,
            interval=self._settings.sync_seconds,
            concurrency=self._chain.concurrency,
            sampled=self.sampled,
        )

    def _make_portfolios(self) -> None:
        markets = Markets(self.catalog, self.columns, self._book, self.live, self._clock, self._chain.final_lag)
        self.markets = markets
        self.portfolios = PortfolioStore(self._database, self.heads)
        self.stream_events = StreamEventStore(self._database, self._owner, self._settings.stream_event_days)
        ledgers = LedgerStore(self._database, self.heads, self.stream_events)
        self.ledgers = Ledgers(
            ledgers,
            self.portfolios,
            self.catalog,
            self.instruments,
            self.tracker,
            markets,
            self._clock,
        )
        self.orders = Orders(self.ledgers, OrderStore(self._database), self.portfolios, self.catalog, self._clock)
        self.stored_histories = HistoryStore(self._database)
        self.wholes = Wholes(
            self.ledgers,
            markets,
            self.heads,
            self.stored_histories if self._settings.use_materialized else None,
            self._clock,
            int(self._settings.history_cache_mb * MIB),
        )
        self.histories = Histories(self.ledgers, markets, self.wholes)
        self.imports = Importer(self.ledgers, self.histories, markets)
        self.returns = Returns(self.ledgers, markets, self.wholes)
        latest = LatestSessions(self.columns, self._book, self.live, self._chain.final_lag)
        self.summaries = Summaries(self.ledgers, markets, self.wholes, self.catalog, latest, self._clock)
        self.breakdowns = Breakdowns(self.summaries, self.histories, markets)
        self._make_materialiser(ledgers, markets)
        self._make_snapshots(markets)
        self.realtime = self._realtime(markets, latest)
        self._define_tracking()
        self.publisher.subscribe(self.realtime.on_quotes)
        self.bars.announcer.subscribe(self.realtime.on_bars)
        self.ledgers.on_events, self.ledgers.on_changed = self.realtime.on_events, self.realtime.on_own_change
        self.watcher.on_stream_events, self.watcher.on_portfolio = self.realtime.on_events, self.realtime.on_portfolio
        self.watcher.on_portfolio_deleted = self.realtime.on_deleted

    def _make_connections(self) -> None:
        self.broker_data = BrokerDataStore(self._database)
        self.connections = connections_of(
            self._settings,
            self._clock,
            store=ConnectionStore(self._database),
            data=self.broker_data,
            portfolios=self.portfolios,
            ledgers=self.ledgers,
            leases=LeaseStore(self._database, self._owner),
            start_run=self.jobs.run,
        )
        if (fetcher := self.connections.fetcher) is not None:
            self.jobs.define(
                JobDefinition(
                    FETCH_JOB,
                    fetcher.run,
                    every=FETCH_SECONDS,
                    first_after=FETCH_AFTER_SECONDS,
                    concurrency=4,
                    uneventful_kept_seconds=RUNS_KEPT * FETCH_SECONDS,
                )
            )

    def _make_mapping(self) -> None:
        database, clock = self._database, self._clock
        self.search = ProviderSearch(self._chain, SearchStore(database, clock))
        assessor = Assessor(self.catalog, self.columns, self.search, lambda: bool(self._chain.able("search")))
        mappings = SymbolMappingStore(database, clock)
        self.mapper = Mapper(mappings, self.catalog, self.instruments, assessor, clock)
        self.broker_prices = BrokerPriceWriter(self.catalog, self.bars, clock)

    def _make_reconstructions(self) -> None:
        settings = self._settings
        self.reconstructions = reconstructions_of(
            self._database,
            self._clock,
            self._owner,
            concurrency=settings.reconstruction_concurrency,
            connections=self.connections,
            data=self.broker_data,
            mapper=self.mapper,
            own_prices=self.broker_prices,
            tracker=self.tracker,
            start_run=self.jobs.run,
            catalog=self.catalog,
            instruments=self.instruments,
            markets=self.markets,
            ledgers=self.ledgers,
            portfolios=self.portfolios,
            materialiser=self.materialiser if settings.use_materialized else None,
            dollars=lambda: sum(pool.account.dollars for pool in self._chain.pools),
        )
        self.reconstructions.metrics.snapshots = self.snapshot_stats.success_rate
        news = ReconstructionNews(self.reconstructions.queue, self.realtime.hub.publish_values)
        self.reconstructions.queue.on_progress = news.tell
        self.bars.announcer.subscribe(self.reconstructions.rewalking.on_bars)
        self.watcher.on_reconstruction = news.look

    def _define_tracking(self) -> None:
        settings = self._settings
        if not settings.enable_realtime_portfolio:
            return
        poller = TrackedPoller(
            self.realtime.tracking.held,
            self._refresher(),
            self.catalog,
            self.live,
            self._book,
            self._chain.able("live"),
            self._clock,
            interval=settings.tracking_seconds,
            lag=self._chain.final_lag,
        )
        self.jobs.define(
            JobDefinition(
                TRACKING_JOB,
                poller.run,
                every=settings.tracking_seconds,
                uneventful_kept_seconds=REFRESHES_KEPT * settings.tracking_seconds,
                fails_with_all=True,
            )
        )

    def _realtime(self, markets: Markets, latest: LatestSessions) -> Realtime:
        return realtime_of(
            self._settings,
            self._database,
            self._clock,
            catalog=self.catalog,
            calendars=self._book,
            live=self.live,
            markets=markets,
            latest=latest,
            lag=self._chain.final_lag,
            summaries=self.summaries,
            portfolios=self.portfolios,
            events=self.stream_events,
            feeds=self._feeds,
        )

    def _make_materialiser(self, ledgers: LedgerStore, markets: Markets) -> None:
        stored, settings = self.stored_histories, self._settings
        self.materialiser = Materialiser(
            self.wholes, stored, self.portfolios, ledgers, self.ledgers, markets, self.heads, self._clock
        )
        self.sampler = Sampler(stored, self.portfolios, self.ledgers, markets, self.wholes, self._clock)
        if not settings.use_materialized:
            return
        self.wholes.on_advanced = self.materialiser.want
        self.jobs.define(
            JobDefinition(
                MATERIALIZE_JOB,
                self.materialiser.run_job,
                every=settings.materialize_seconds,
                first_after=min(MATERIALIZE_AFTER_SECONDS, settings.materialize_seconds),
                uneventful_kept_seconds=RUNS_KEPT * settings.materialize_seconds,
            )
        )

    def _make_snapshots(self, markets: Markets) -> None:
        store = SnapshotStore(self._database)
        builder = MemberBuilder(self.wholes, self.stored_histories, self.portfolios, self.ledgers, self.catalog)
        self.snapshots = Snapshots(store, self.wholes)
        self.snapshot_capture = SnapshotCapture(
            store, builder, markets, self.catalog, self._book, self._clock, self.bars.journal, self._extend_histories
        )
        self.snapshot_stats = SnapshotStats(store, self._clock, self.snapshot_capture.days)
        self.jobs.define(
            JobDefinition(
                SNAPSHOT_JOB,
                self.snapshot_capture.run_job,
                cron=SNAPSHOT_CRON,
                time_zone=SNAPSHOT_ZONE,
                first_after=SNAPSHOT_AFTER_SECONDS,
            )
        )

    async def _extend_histories(self) -> None:
        if self._settings.use_materialized:
            await self.jobs.run(MATERIALIZE_JOB, {}, SNAPSHOT_JOB)

    # ---- the API

    def _dispatcher(self) -> Dispatcher:
        self.identity = self._identity()
        self.streams = Streams(
            self.realtime.hub,
            self.identity,
            self._clock,
            enabled=self._settings.enable_realtime_portfolio,
            percent=self._settings.realtime_percent,
            most=self._settings.stream_connections,
            most_of_user=self._settings.stream_connections_per_user,
        )
        self.watcher.on_portfolio_created = self.streams.newcomers.created
        self.reconstructions.homes.on_created = self.streams.newcomers.created
        self.watcher.on_reopened = self._look_again
        self.services = self._services()
        return Dispatcher(
            ROUTES,
            self.services,
            request_seconds=self._settings.request_seconds,
            body_seconds=self._settings.request_seconds,
            max_body_bytes=self._settings.max_body_kb * 1024,
        )

    def _look_again(self) -> None:
        """What others did may have gone unseen."""
        self.realtime.on_reopened()
        self.streams.newcomers.look_again()

    def _identity(self) -> Identity:
        settings, tokens = self._settings, None
        if settings.jwt_secret is not None or settings.jwks_url is not None:
            secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None
            tokens = TokenVerifier(self._clock, secret=secret, jwks_url=settings.jwks_url)
        return Identity(
            self._clock,
            keys=[key.get_secret_value() for key in settings.api_keys],
            tokens=tokens,
            store=self.keys,
            tickets=TicketStore(self._database),
            origins=Origins(settings.allowed_origins),
            loopback=is_loopback(settings.host),
            session_hours=settings.session_hours,
        )

    def _services(self) -> Services:
        return Services(
            clock=self._clock,
            catalog=self.catalog,
            calendars=self._book,
            live=self.live,
            reader=self.reader,
            as_known=self.as_known,
            intraday=self.intraday,
            wholeness=self.wholeness,
            bars=self.bars,
            instruments=self.instruments,
            jobs=self.jobs,
            runs=self.runs,
            keys=self.keys,
            tracker=self.tracker,
            stream=self.stream,
            pools=self._chain.pools,
            chain=self._chain,
            status=self.health,
            identity=self.identity,
            kept=KeptResponses(int(self._settings.response_cache_mb * MIB)),
            metrics=self._metrics,
            review=Reviewer(self.catalog, self.bars, self.states, self.quarantine, self._clock),
            portfolios=self.portfolios,
            ledgers=self.ledgers,
            orders=self.orders,
            stream_events=self.stream_events,
            histories=self.histories,
            price_origins=PriceOrigins(self.catalog, self.bars, self.live, self._book),
            imports=self.imports,
            pages=PageCache(int(self._settings.response_cache_mb * MIB / 2)),
            materialiser=self.materialiser,
            sampler=self.sampler,
            stored_histories=self.stored_histories,
            returns=self.returns,
            summaries=self.summaries,
            breakdowns=self.breakdowns,
            realtime=self.realtime,
            streams=self.streams,
            connections=self.connections,
            search=self.search,
            mapper=self.mapper,
            reconstructions=self.reconstructions,
            snapshots=self.snapshots,
        )
