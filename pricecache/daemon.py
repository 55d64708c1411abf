"""The composition root: names every concrete part, puts them together, starts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pymongo
import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache import __version__, logs
from pricecache.api.auth import Identity, check_exposure
from pricecache.api.dispatch import Dispatcher
from pricecache.api.kept import KeptResponses
from pricecache.api.origins import Origins, names_loopback
from pricecache.api.routes import ROUTES
from pricecache.api.server import FrontDoor
from pricecache.api.services import Services
from pricecache.api.tokens import TokenVerifier
from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.cache.reader import Reader
from pricecache.cache.wholeness import ROW_SECONDS, Wholeness
from pricecache.calendars import CalendarLoader
from pricecache.clock import SystemClock
from pricecache.core.catalog import Catalog
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Invalid, Misconfigured, PricecacheError
from pricecache.jobs import JobDefinition, Jobs, RunHandle
from pricecache.loopwatch import LoopWatch
from pricecache.metrics import Metrics
from pricecache.providers.base import Provider
from pricecache.providers.csvfiles import CsvProvider
from pricecache.providers.pool import ProviderPool
from pricecache.providers.sample import SampleProvider
from pricecache.providers.yahoo import YahooProvider
from pricecache.settings import Settings
from pricecache.stores.bars import BarStore
from pricecache.stores.client import connect, prepare, wait_until_writable
from pricecache.stores.embedded import PrivateMongod
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

log = structlog.get_logger(__name__)

MIB = 1 << 20
PING_SECONDS = 2.0
STORAGE_SECONDS = 10.0
LAG_SECONDS = 0.005
"""How often the lag of the loop is taken: half a per cent of a processor, and no stall of 30 ms is missed."""


class Daemon:
    """One daemon, from its settings to its end. Loop-only.

    `door` listens already, or is opened once it is known that somebody has a key. `mongod` is the private server,
    started already, or None with a server of the user's own.
    """

    def __init__(self, settings: Settings, door: FrontDoor, mongod: PrivateMongod | None) -> None:
        logs.configure(settings.log_level, settings.log_format)
        self._settings = settings
        self._door = door
        self._mongod = mongod
        self._owner = new_owner()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mongodb = "starting"
        self._storage: tuple[float, Mapping[str, Any]] = (float("-inf"), {})
        self.clock = SystemClock()
        self.metrics = Metrics(__version__)
        self.catalog = Catalog()
        self.book = CalendarBook()
        self.live = LiveCache()
        self._symbols = _symbols(settings)
        self.pool = self._pool(_provider(settings, self.clock, self.book))
        self.loop_watch = LoopWatch(self.clock, self.metrics.event_loop_lag.observe, interval=LAG_SECONDS)

    def _pool(self, provider: Provider) -> ProviderPool:
        def ended(outcome: str) -> None:
            if pool.calls == 1:
                keep_out_of_collections()  # the vendor's library has been loaded by now
            self.metrics.provider_attempts.labels(provider.name, outcome).inc()

        pool = ProviderPool(provider, self.clock, ended)
        return pool

    async def run(self, stop: asyncio.Event) -> int:
        """Start, serve until `stop` is set, stop; the exit code."""
        starting = asyncio.create_task(self._start(), name="start")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        self.loop_watch.start()
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            await stopping
            return 0
        finally:
            stopping.cancel()
            await self._stop()

    # ---- starting

    async def _start(self) -> None:
        await self._open_database()
        self._build()
        await self._load()
        keep_out_of_collections()
        self._door.open(self._dispatcher)
        if not self._door.is_listening:
            check_exposure(self._settings.host, bool(await self.keys.load_keys()))
            await self._door.start()
        log.info("daemon is ready", url=self.url, symbols=len(self.catalog), version=__version__)
        self._spawn(self._ping(), "ping")
        self._spawn(self.calendars.maintain(), "calendars")
        self._spawn(self._keep_looking(), "coverage")
        if self._mongod is None:
            self._spawn(self._watcher.run(lambda: None), "watch")
        await self.jobs.start()
        if self._symbols:
            await self.tracker.track(self._symbols, "settings")

    @property
    def url(self) -> str:
        host = f"[{self._door.host}]" if ":" in self._door.host else self._door.host
        return f"http://{host}:{self._door.port}"

    async def _open_database(self) -> None:
        self._door.checks = {"mongodb": "starting"}
        if self._mongod is not None:
            uri = await self._mongod.ready()
        else:
            assert self._settings.mongodb_uri is not None
            uri = self._settings.mongodb_uri.get_secret_value()
            self._door.checks = {"mongodb": "waiting for the server"}
        self._client = connect(uri)
        await wait_until_writable(self._client, self.clock)
        self.database: AsyncDatabase[dict[str, Any]] = self._client[self._settings.mongodb_database]
        await prepare(self.database)
        self._mongodb = "ok"

    def _build(self) -> None:
        self._build_stores()
        self._build_jobs()
        self._build_api()

    def _build_stores(self) -> None:
        settings, lag = self._settings, self.pool.provider.final_lag
        self.bars = BarStore(self.database)
        self.instruments = InstrumentStore(self.database, self.catalog)
        self.states = SyncStateStore(self.database)
        self.quotes = QuoteStore(self.database, self._owner)
        self.runs = RunStore(self.database)
        self.keys = KeyStore(self.database)
        self.calendars = CalendarLoader(self.clock, self.database["calendars"], self.book)
        self.columns = ColumnCache(self.bars, int(settings.column_cache_mb * MIB))
        self.reader = Reader(self.catalog, self.columns, self.book, self.clock, lag)
        self.wholeness = Wholeness(self.catalog, self.reader, self.clock)
        self._watcher = ChangeWatcher(
            self.database, self.catalog, self.instruments, self.bars, self._owner, self._hear, self.clock
        )

    def _build_jobs(self) -> None:
        settings, provider = self._settings, self.pool.provider
        self.jobs = Jobs(
            self.runs,
            LeaseStore(self.database, self._owner),
            self.clock,
            drain_seconds=settings.drain_seconds,
            metrics=self.metrics,
        )
        examiner = Examiner(
            self.pool,
            self.calendars,
            self.bars,
            self.states,
            self.instruments,
            self.clock,
            random.Random(),
            name=provider.name,
            lag=provider.final_lag,
            metrics=self.metrics,
        )
        self.refresher = LiveRefresher(
            self.catalog,
            self.live,
            self.quotes,
            self.pool,
            self.calendars,
            self.instruments,
            self.clock,
            name=provider.name,
            interval=settings.live_seconds,
            lag=provider.final_lag,
            always_moving=provider.always_moving,
            metrics=self.metrics,
        )
        self.tracker = Tracker(
            self.catalog,
            self.instruments,
            self.clock,
            depth_days=settings.backfill_days,
            max_symbols=settings.max_symbols,
            start_run=self.jobs.run,
        )
        sync = HistoricalSync(
            self.catalog,
            examiner,
            self.bars,
            self.live,
            self.calendars,
            self.clock,
            lag=provider.final_lag,
            interval=settings.sync_seconds,
            concurrency=provider.pace.concurrency,
        )
        backfiller = Backfiller(self.tracker, examiner, self.refresher, concurrency=provider.pace.concurrency)
        self.jobs.define(
            JobDefinition(
                "historical_sync",
                sync.run,
                every=settings.sync_seconds,
                first_after=settings.sync_start_delay_seconds,
            )
        )
        self.jobs.define(
            JobDefinition(
                "live_price_update",
                self.refresher.run,
                every=settings.live_seconds,
                first_after=1.0,
                uneventful_kept_seconds=96 * settings.live_seconds,
            )
        )
        self.jobs.define(JobDefinition(BACKFILL_JOB, backfiller.run, concurrency=provider.pace.concurrency))
        self.jobs.define(JobDefinition("verify", self._verify))

    def _build_api(self) -> None:
        settings = self._settings
        loopback = names_loopback(settings.host)
        tokens = None
        if settings.jwt_secret is not None or settings.jwks_url is not None:
            secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None
            tokens = TokenVerifier(self.clock, secret=secret, jwks_url=settings.jwks_url)
        self.identity = Identity(
            self.clock,
            keys=[key.get_secret_value() for key in settings.api_keys],
            tokens=tokens,
            store=self.keys,
            origins=Origins(settings.allowed_origins),
            loopback=loopback,
            session_hours=settings.session_hours,
        )
        services = Services(
            clock=self.clock,
            catalog=self.catalog,
            calendars=self.book,
            live=self.live,
            reader=self.reader,
            wholeness=self.wholeness,
            bars=self.bars,
            instruments=self.instruments,
            jobs=self.jobs,
            runs=self.runs,
            keys=self.keys,
            tracker=self.tracker,
            pools=[self.pool],
            status=self,
            identity=self.identity,
            kept=KeptResponses(int(settings.response_cache_mb * MIB)),
            registry=self.metrics.registry,
        )
        self._dispatcher = Dispatcher(
            ROUTES,
            services,
            request_seconds=settings.request_seconds,
            body_seconds=settings.request_seconds,
            max_body_bytes=settings.max_body_kb * 1024,
        )
        self._read_metrics()

    def _read_metrics(self) -> None:
        read = self.metrics.read
        read("pricecache_ready", lambda: float(all(state == "ok" for state in self.checks().values())))
        read("pricecache_coverage_ratio", lambda: _nan_if_none(self.wholeness.total.ratio))
        read("pricecache_symbols_tracked", lambda: float(len(self.catalog.tracked())))
        read("pricecache_live_cache_quotes", lambda: float(len(self.live)))
        read("pricecache_column_cache_bytes", lambda: float(self.columns.nbytes))
        read("pricecache_column_cache_hits_total", lambda: float(self.columns.hits))
        read("pricecache_column_cache_misses_total", lambda: float(self.columns.misses))
        read("pricecache_historical_hits_total", lambda: float(self.reader.hits))
        read("pricecache_historical_misses_total", lambda: float(self.reader.misses))
        read("pricecache_mongod_restarts_total", lambda: float(self._mongod.restarts if self._mongod else 0))
        read("pricecache_event_loop_lag_max_seconds", self.loop_watch.recent_worst)

    async def _load(self) -> None:
        await self.calendars.load()
        await self.instruments.load_all()
        self.live.publish(QuoteBatch.of(await self.quotes.load()))
        await self.identity.reload()

    # ---- running

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task died", task=task.get_name(), exc_info=error)
            self._mongodb = f"{task.get_name()} died"

    def _hear(self, quotes: list[Quote]) -> None:
        self.live.publish(QuoteBatch.of(quotes))

    async def _ping(self) -> None:
        """Keep knowing whether the database answers."""
        while True:
            try:
                with pymongo.timeout(PING_SECONDS):
                    await self.database.command("ping")
                state = "ok"
            except PyMongoError:
                state = "does not answer"
            if state != self._mongodb:
                (log.info if state == "ok" else log.warning)(
                    "database " + ("answers again" if state == "ok" else state)
                )
            self._mongodb = state
            await self.clock.sleep(PING_SECONDS)

    async def _keep_looking(self) -> None:
        """Keep the coverage of everything current for the metrics, whoever asks for it."""
        while True:
            try:
                await self.wholeness.look()
            except (PyMongoError, PricecacheError) as exc:
                log.debug("coverage could not be looked at", error=str(exc))
            await self.clock.sleep(ROW_SECONDS if self.wholeness.total.expected else PING_SECONDS)

    async def _verify(self, handle: RunHandle) -> None:
        """The job `verify`: every series' packed record against its journal; parameter `rebuild` mends."""
        rebuild_at = self.clock.time() if handle.parameters.get("rebuild") else None
        entries = list(self.catalog)
        handle.count("problems", 0)
        for number, entry in enumerate(entries):
            if handle.stopping:
                return
            for problem in await self.bars.verify(entry, rebuild_at=rebuild_at):
                handle.count("problems")
                handle.fail(entry.instrument, problem["code"], problem["detail"])
            handle.progress(number + 1, len(entries), f"{entry.instrument}")

    def checks(self) -> Mapping[str, str]:
        """What readiness depends on: the database answering, and the schedule running."""
        scheduler = "ok" if self.jobs.status()["running"] else "starting"
        return {"mongodb": self._mongodb, "scheduler": scheduler}

    async def storage(self) -> Mapping[str, Any]:
        """Sizes of the database, at most ten seconds old."""
        now = self.clock.monotonic()
        if now - self._storage[0] > STORAGE_SECONDS:
            stats = await self.database.command("dbStats")
            self._storage = (
                now,
                {
                    "data_bytes": int(stats["dataSize"]),
                    "disk_bytes": int(stats["storageSize"] + stats["indexSize"]),
                    "documents": int(stats["objects"]),
                },
            )
        return self._storage[1]

    # ---- stopping

    async def _stop(self) -> None:
        """Say no to new work, end what runs, then close what it used, last made first."""
        self._door.drain()
        if hasattr(self, "jobs"):
            await self.jobs.stop()
        await self._door.stop(self._settings.request_seconds)
        await self._end_tasks()
        await self.pool.close()
        if hasattr(self, "identity"):
            await self.identity.close()
        if hasattr(self, "calendars"):
            await self.calendars.close()
        if hasattr(self, "_client"):
            await self._client.close()
        self.loop_watch.stop()
        log.info("daemon has stopped")

    async def _end_tasks(self) -> None:
        """Cancel until all are gone: the driver may swallow a cancellation that meets it at the end of an operation."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=1.0)


def keep_out_of_collections() -> None:
    """Exempt all that is in memory from garbage collection, and have it collect what comes later.

    A hundred thousand objects of modules and classes live as long as the process; looking through them held the
    interpreter, and with it the event loop, for 35 to 70 ms at a time.
    """
    gc.freeze()
    gc.enable()


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value


def _provider(settings: Settings, clock: SystemClock, book: CalendarBook) -> Provider:
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


def _symbols(settings: Settings) -> list[Instrument]:
    try:
        return [Instrument.parse(text) for text in settings.symbols]
    except Invalid as exc:
        raise Misconfigured(f"PRICECACHE_SYMBOLS: {exc.detail}", code="bad_symbols") from exc


async def verify_offline(settings: Settings, mongod: PrivateMongod | None, rebuild: bool) -> list[dict[str, Any]]:
    """What `pricecache doctor --verify` does when no daemon runs."""
    clock = SystemClock()
    uri = await mongod.start() if mongod is not None else settings.mongodb_uri.get_secret_value()  # type: ignore[union-attr]
    client = connect(uri)
    try:
        await wait_until_writable(client, clock)
        database = client[settings.mongodb_database]
        await prepare(database)
        catalog = Catalog()
        await InstrumentStore(database, catalog).load_all()
        bars = BarStore(database)
        rebuild_at = clock.time() if rebuild else None
        return [problem for entry in catalog for problem in await bars.verify(entry, rebuild_at=rebuild_at)]
    finally:
        await client.close()
        if mongod is not None:
            await mongod.stop()
