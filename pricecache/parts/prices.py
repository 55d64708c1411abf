"""The parts that keep prices: what is stored, what is kept in memory, and the jobs that keep both whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pricecache.api.runs import REFRESH_JOB, SYNC_JOB
from pricecache.cache.as_known import AsKnown
from pricecache.cache.columns import ColumnCache
from pricecache.cache.intraday import IntradayReader
from pricecache.cache.live import LiveCache
from pricecache.cache.reader import Reader
from pricecache.cache.sampled import SampledSessions
from pricecache.cache.wholeness import Wholeness
from pricecache.calendars import CalendarLoader
from pricecache.core.catalog import Catalog
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch
from pricecache.jobs import JobDefinition, Jobs
from pricecache.parts.ground import MIB, Ground
from pricecache.providers.yahoo_stream import YahooStream
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.leases import LeaseStore
from pricecache.stores.portfolio_heads import PortfolioHeads
from pricecache.stores.quarantine import QuarantineStore
from pricecache.stores.quotes import QuoteStore
from pricecache.stores.runs import RunStore
from pricecache.stores.samples import SampleStore
from pricecache.stores.searches import SearchStore
from pricecache.stores.sync_state import SyncStateStore
from pricecache.stores.watch import ChangeWatcher
from pricecache.sync.backfill import BACKFILL_JOB, Backfiller, Tracker
from pricecache.sync.examine import Examiner
from pricecache.sync.historical import HistoricalSync
from pricecache.sync.publish import QuotePublisher, presently
from pricecache.sync.refresh import LiveRefresher
from pricecache.sync.searching import ProviderSearch
from pricecache.sync.streamfeed import StreamFeed
from pricecache.sync.verify import VERIFY_JOB, Verifier

REFRESHES_KEPT = 96
"""Runs of `live_price_update` that are kept when nothing happened in them: a day of them by default."""


def _nobody(_: list[Quote]) -> None:
    """Who hears of quotes that were published, until somebody does."""


class PriceParts:
    """Loop-only. `on_published`: told which quotes of another daemon's, or of an earlier run, went into the live cache.
    `heads`: of ledgers, which the watcher keeps too."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.on_published: Callable[[list[Quote]], None] = _nobody
        self._make_stores()
        self._make_caches()
        self._make_jobs()

    async def load(self) -> None:
        """Fill the memory with what the database holds."""
        await self.calendars.load()
        await self.instruments.load_all()
        await self.quotes.adopt(self._series_of)
        quotes = await self.quotes.load()
        self._publish(quotes)
        self.samples.remember(quotes)

    def _publish(self, quotes: Sequence[Quote]) -> None:
        """What was stored by this daemon before or by another one now."""
        # by the series: the symbol of one may have become another's since
        present = [named for quote in quotes if (named := presently(self.catalog, quote)) is not None]
        taken = self.live.publish(QuoteBatch.of(sorted(present, key=lambda quote: quote.as_of)))
        self.on_published(list(taken.values()))

    def _series_of(self, instrument: Instrument) -> int | None:
        entry = self.catalog.find(instrument)
        return None if entry is None else entry.id

    def _make_stores(self) -> None:
        ground = self._ground
        database, clock, is_shared = ground.database, ground.clock, ground.is_shared
        self.catalog = Catalog()
        self.bars = BarStore(database, clock)
        self.instruments = InstrumentStore(database, self.catalog)
        self.states = SyncStateStore(database)
        self.quarantine = QuarantineStore(database)
        self.quotes = QuoteStore(database, clock, shared_as=ground.owner if is_shared else None)
        self.samples = SampleStore(
            database, self.catalog, clock, keep_days=ground.settings.sample_days, shared=is_shared
        )
        self.runs = RunStore(database)
        self.heads = PortfolioHeads()
        self.heads.trusted = not is_shared  # else from when the watcher follows
        self.calendars = CalendarLoader(clock, database["calendars"], ground.book)
        ground.chain.spell(self.catalog.asked_as)

    def _make_caches(self) -> None:
        ground = self._ground
        lag, clock, book = ground.chain.final_lag, ground.clock, ground.book
        self.live = LiveCache()
        self.instruments.on_renamed = self.live.rename
        self.instruments.on_repriced = lambda entry: self.live.reprice(entry.instrument, entry.currency)
        self.columns = ColumnCache(self.bars, int(ground.settings.column_cache_mb * MIB))
        self.sampled = SampledSessions(self.samples, book)
        self.reader = Reader(self.catalog, self.columns, book, clock, lag, live=self.live, sampled=self.sampled)
        self.intraday = IntradayReader(self.catalog, self.samples, self.reader, book, clock)
        self.as_known = AsKnown(self.catalog, self.bars, book, lag)
        self.wholeness = Wholeness(self.catalog, self.reader, clock)
        self.watcher = ChangeWatcher(
            ground.database,
            self.catalog,
            self.instruments,
            self.bars,
            self.quotes,
            ground.owner,
            self._publish,
            clock,
            self.heads,
        )

    def _make_jobs(self) -> None:
        ground, settings = self._ground, self._ground.settings
        leases = LeaseStore(ground.database, ground.owner)
        self.jobs = Jobs(self.runs, leases, ground.clock, drain_seconds=settings.drain_seconds, metrics=ground.metrics)
        self.tracker = Tracker(
            self.catalog,
            self.instruments,
            ground.clock,
            depth_days=settings.backfill_days,
            max_symbols=settings.max_symbols,
            start_run=self.jobs.run,
        )
        self.search = ProviderSearch(ground.chain, SearchStore(ground.database, ground.clock))
        self.publisher = self._publisher()
        self.stream = self._stream_feed()
        self.publisher.subscribe(self.samples.record)
        self._define_jobs()

    def _define_jobs(self) -> None:
        settings, concurrency = self._ground.settings, self._ground.chain.concurrency
        examiner, refresher = self._examiner(), self.refresher()
        backfiller = Backfiller(self.tracker, examiner, refresher, concurrency=concurrency)
        verifier = Verifier(self.catalog, self.bars, self._ground.clock)
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
        chain = self._ground.chain
        return Examiner(
            chain,
            self.calendars,
            self.bars,
            self.states,
            self.instruments,
            self._ground.clock,
            random.Random(),
            name=chain.name,
            lag=chain.final_lag,
            metrics=self._ground.metrics,
            quarantine=self.quarantine,
            rank=chain.rank,
            control_works=chain.controls_work,
        )

    def refresher(self) -> LiveRefresher:
        """Another one of those that fetch quotes, for another job."""
        chain = self._ground.chain
        return LiveRefresher(
            self.catalog,
            self.live,
            self.publisher,
            chain,
            self.calendars,
            self._ground.clock,
            interval=self._ground.settings.live_seconds,
            lag=chain.final_lag,
            always_moving=chain.always_moving,
            streamed=self.stream.streamed if self.stream is not None else lambda key, since: False,
        )

    def _stream_feed(self) -> StreamFeed | None:
        settings, clock = self._ground.settings, self._ground.clock
        # requests that are sent elsewhere on purpose must not meet Yahoo by another way
        leads_elsewhere = settings.yahoo_url is not None and settings.yahoo_stream_url is None
        streams = any(pool.name == YahooStream.name for pool in self._ground.chain.able("stream"))
        if not settings.stream or not streams or leads_elsewhere:
            return None
        return StreamFeed(
            lambda: YahooStream(clock, settings.yahoo_stream_url, spelling=self._yahoo_spelling),
            self.catalog,
            self.publisher,
            self.calendars,
            clock,
            random.Random(),
            silence=settings.stream_silence_seconds,
        )

    def _yahoo_spelling(self, instrument: Instrument) -> Instrument:
        return self.catalog.asked_as(instrument, YahooStream.name)

    def _publisher(self) -> QuotePublisher:
        chain = self._ground.chain
        return QuotePublisher(
            self.catalog,
            self.live,
            self.quotes,
            self.bars,
            self.calendars,
            self.instruments,
            self._ground.clock,
            interval=self._ground.settings.live_seconds,
            lag=chain.final_lag,
            always_moving=chain.always_moving,
            metrics=self._ground.metrics,
        )

    def _sync(self, examiner: Examiner) -> HistoricalSync:
        chain = self._ground.chain
        return HistoricalSync(
            self.catalog,
            examiner,
            self.bars,
            self.live,
            self.calendars,
            self._ground.clock,
            lag=chain.final_lag,
            interval=self._ground.settings.sync_seconds,
            concurrency=chain.concurrency,
            sampled=self.sampled,
        )
