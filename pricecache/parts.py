"""The concrete parts of a daemon, named and put together; nothing here is started."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.api.auth import Identity
from pricecache.api.dispatch import Dispatcher
from pricecache.api.kept import KeptResponses
from pricecache.api.origins import Origins, is_loopback
from pricecache.api.routes import ROUTES
from pricecache.api.runs import REFRESH_JOB, SYNC_JOB
from pricecache.api.services import Services
from pricecache.api.tokens import TokenVerifier
from pricecache.background import BackgroundTasks
from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.cache.reader import Reader
from pricecache.cache.wholeness import Wholeness
from pricecache.calendars import CalendarLoader
from pricecache.clock import Clock
from pricecache.core.catalog import Catalog
from pricecache.core.quotes import Quote, QuoteBatch
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Misconfigured
from pricecache.health import Health
from pricecache.jobs import JobDefinition, Jobs
from pricecache.metrics import Metrics
from pricecache.providers.base import Provider
from pricecache.providers.csvfiles import CsvProvider
from pricecache.providers.pool import ProviderPool
from pricecache.providers.sample import SampleProvider
from pricecache.providers.yahoo import YahooProvider
from pricecache.settings import Settings
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.keys import KeyStore
from pricecache.stores.leases import LeaseStore, new_owner
from pricecache.stores.quotes import QuoteStore
from pricecache.stores.runs import RunStore
from pricecache.stores.sync_state import SyncStateStore
from pricecache.stores.watch import ChangeWatcher
from pricecache.sync.backfill import BACKFILL_JOB, Backfiller, Tracker
from pricecache.sync.examine import Examiner
from pricecache.sync.historical import HistoricalSync
from pricecache.sync.refresh import LiveRefresher
from pricecache.sync.verify import VERIFY_JOB, Verifier

MIB = 1 << 20
REFRESHES_KEPT = 96
"""Runs of `live_price_update` that are kept when nothing happened in them: a day of them by default."""


def provider_of(settings: Settings, clock: Clock, book: CalendarBook) -> Provider:
    """The provider that the settings name. Raises `Misconfigured` with code `bad_providers` or `csv_folder_missing`."""
    if len(settings.providers) != 1:
        raise Misconfigured("Name one provider in PRICECACHE_PROVIDERS: yfinance, csv or sample.", code="bad_providers")
    makers: Mapping[str, Callable[[], Provider]] = {
        "yfinance": lambda: YahooProvider(settings.data_dir / "yfinance", clock, settings.yahoo_url),
        "csv": lambda: CsvProvider(_csv_dir(settings), clock, book),
        "sample": lambda: SampleProvider(clock, book),
    }
    try:
        return makers[settings.providers[0]]()
    except KeyError:
        raise Misconfigured(
            f"There is no provider {settings.providers[0]!r}; there are {', '.join(makers)}.", code="bad_providers"
        ) from None


def _csv_dir(settings: Settings) -> Path:
    if settings.csv_dir is None:
        raise Misconfigured("The csv provider needs a folder: set PRICECACHE_CSV_DIR.", code="csv_folder_missing")
    return settings.csv_dir


class Parts:
    """The parts of one daemon on one database. Loop-only.

    `book` and `pool` may have been given to others before; `background` is what goes on beside these parts.
    """

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase[dict[str, Any]],
        clock: Clock,
        book: CalendarBook,
        pool: ProviderPool,
        metrics: Metrics,
        background: BackgroundTasks,
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._book = book
        self._pool = pool
        self._metrics = metrics
        self._owner = new_owner()
        self._make_stores()
        self._make_caches()
        self._make_jobs()
        self.health = Health(database, clock, background, lambda: self.jobs.is_following_schedule)
        self.dispatcher = self._dispatcher()

    async def load(self) -> None:
        """Fill the memory with what the database holds."""
        await self.calendars.load()
        await self.instruments.load_all()
        self._publish(await self.quotes.load())
        await self.identity.reload()

    def _publish(self, quotes: Sequence[Quote]) -> None:
        self.live.publish(QuoteBatch.of(quotes))

    def _make_stores(self) -> None:
        database, clock = self._database, self._clock
        shared_as = self._owner if self._settings.mongodb_uri is not None else None
        self.catalog = Catalog()
        self.bars = BarStore(database)
        self.instruments = InstrumentStore(database, self.catalog)
        self.states = SyncStateStore(database)
        self.quotes = QuoteStore(database, clock, shared_as=shared_as)
        self.runs = RunStore(database)
        self.keys = KeyStore(database)
        self.calendars = CalendarLoader(clock, database["calendars"], self._book)

    def _make_caches(self) -> None:
        lag = self._pool.provider.final_lag
        self.live = LiveCache()
        self.columns = ColumnCache(self.bars, int(self._settings.column_cache_mb * MIB))
        self.reader = Reader(self.catalog, self.columns, self._book, self._clock, lag)
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
        )

    # ---- jobs

    def _make_jobs(self) -> None:
        settings, concurrency = self._settings, self._pool.provider.pace.concurrency
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
            self._pool,
            self.calendars,
            self.bars,
            self.states,
            self.instruments,
            self._clock,
            random.Random(),
            name=self._pool.provider.name,
            lag=self._pool.provider.final_lag,
            metrics=self._metrics,
        )

    def _refresher(self) -> LiveRefresher:
        return LiveRefresher(
            self.catalog,
            self.live,
            self.quotes,
            self._pool,
            self.calendars,
            self.instruments,
            self._clock,
            name=self._pool.provider.name,
            interval=self._settings.live_seconds,
            lag=self._pool.provider.final_lag,
            always_moving=self._pool.provider.always_moving,
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
            lag=self._pool.provider.final_lag,
            interval=self._settings.sync_seconds,
            concurrency=self._pool.provider.pace.concurrency,
        )

    # ---- the API

    def _dispatcher(self) -> Dispatcher:
        self.identity = self._identity()
        return Dispatcher(
            ROUTES,
            self._services(),
            request_seconds=self._settings.request_seconds,
            body_seconds=self._settings.request_seconds,
            max_body_bytes=self._settings.max_body_kb * 1024,
        )

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
            wholeness=self.wholeness,
            bars=self.bars,
            instruments=self.instruments,
            jobs=self.jobs,
            runs=self.runs,
            keys=self.keys,
            tracker=self.tracker,
            pools=[self._pool],
            status=self.health,
            identity=self.identity,
            kept=KeptResponses(int(self._settings.response_cache_mb * MIB)),
            metrics=self._metrics,
        )
