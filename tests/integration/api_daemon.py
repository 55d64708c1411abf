"""A daemon for API tests: the real stores on the test's mongod, the scripted provider, a clock that stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import numpy as np
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.api.dispatch import Dispatcher
from pricecache.api.routes import ROUTES
from pricecache.api.routing import Route
from pricecache.api.server import FrontDoor
from pricecache.api.services import Services
from pricecache.background import BackgroundTasks
from pricecache.core.actions import Action
from pricecache.core.bars import Bars
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch
from pricecache.metrics import Metrics
from pricecache.parts.whole import Parts
from pricecache.providers.chain import ProviderChain
from pricecache.providers.pool import ProviderPool
from pricecache.settings import Settings
from pricecache.stores.bars import Change
from pricecache.stores.searches import SearchStore
from pricecache.sync.searching import ProviderSearch, SearchSource
from tests.clock import ManualClock
from tests.fakes.calendars import xnys_book
from tests.fakes.provider import ScriptedProvider, Truth
from tests.feeds import MemoryFeeds

AAPL = Instrument("AAPL")
TODAY = 20777
"""2026-11-20, a Friday: what the clock of these tests shows at first (10:00 UTC, before New York opens)."""


@dataclass
class ApiDaemon:
    """The parts a test may want to look at or to prepare. `base`: the URL in front of every path."""

    clock: ManualClock
    provider: ScriptedProvider
    services: Services
    door: FrontDoor
    session: aiohttp.ClientSession
    dispatcher: Dispatcher
    checks_now: dict[str, str]
    parts: Parts
    feeds: MemoryFeeds | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.door.port}"

    async def get(self, target: str, **options: Any) -> tuple[int, Any]:
        return await self.call("GET", target, **options)

    async def call(self, method: str, target: str, **options: Any) -> tuple[int, Any]:
        """Status and decoded JSON (text when it is none). The target is sent as it is, nothing is quoted."""
        from yarl import URL

        async with self.session.request(method, URL(self.base + target, encoded=True), **options) as response:
            if "json" in response.content_type:
                return response.status, await response.json()
            return response.status, await response.text()

    async def stored(
        self, instrument: Instrument = AAPL, count: int = 30, *, last: int = TODAY - 1, tracked: bool = True
    ) -> Entry:
        """An instrument with `count` made-up bars in the store, on the sessions up to `last`."""
        book = self.services.calendars.get(instrument.place.calendar)
        sessions = book.between(last - 4000, last)[-count:]
        (entry,) = await self.services.instruments.add(
            [instrument], wanted_from=int(sessions[0]), tracked=tracked, by="test", now=self.clock.time()
        )
        close = 100.0 + np.arange(count) * 0.25
        values = np.array([close - 0.5, close + 1, close - 1, close, 1e6 + np.arange(count)])
        await self.services.bars.commit([Change(entry, Bars(sessions, values), "scripted", self.clock.time())])
        return entry

    def quoted(self, instrument: Instrument = AAPL, price: float = 185.64, **facts: Any) -> Quote:
        """A quote that is ten seconds old and in the live cache."""
        now = self.clock.time()
        quote = Quote(
            **{
                "instrument": instrument,
                "price": price,
                "currency": "USD",
                "as_of": now - 10,
                "received_at": now - 10,
                "source": "scripted",
                "stale_at": now + 1800,
                "previous_close": 184.0,
                **facts,
            }
        )
        self.services.live.publish(QuoteBatch.of([quote]))
        return quote

    def truth(self, instrument: Instrument, count: int = 30, actions: Sequence[Action] = ()) -> None:
        """What the provider knows of an instrument, history and quote."""
        book = self.services.calendars.get(instrument.place.calendar)
        sessions = book.between(TODAY - 4000, TODAY - 1)[-count:]
        values = np.tile(50.0 + np.arange(count) * 0.5, (5, 1))
        self.provider.truth[instrument] = Truth(Bars(sessions, values), tuple(actions))
        now = self.clock.time()
        self.provider.prices[instrument] = Quote(instrument, 51.0, "USD", now - 5, now - 5, "scripted")


@dataclass
class _Status:
    checks_now: dict[str, str] = field(default_factory=lambda: {"mongodb": "ok"})

    def checks(self) -> Mapping[str, str]:
        return self.checks_now

    @property
    def is_ready(self) -> bool:
        return all(state == "ok" for state in self.checks_now.values())

    async def storage(self) -> Mapping[str, Any]:
        return {"data_bytes": 1000, "documents": 3}


@asynccontextmanager
async def api_daemon(
    database: AsyncDatabase[dict[str, Any]],
    *,
    keys: Iterable[str] = (),
    jwt_secret: str | None = None,
    jwks_url: str | None = None,
    origins: Iterable[str] = (),
    loopback: bool = True,
    max_body_bytes: int = 1 << 20,
    body_seconds: float = 10.0,
    request_seconds: float = 10.0,
    routes: Sequence[Route] = ROUTES,
    clock: Any = None,
    search: SearchSource | None = None,
    use_materialized: bool = True,
    feeds: MemoryFeeds | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[ApiDaemon]:
    """The parts as the daemon composes them, with their door. `search`: whom a search asks instead of the provider.
    `feeds`: what streams tell; `settings`: more of them, or others."""
    clock = clock or ManualClock()
    provider = ScriptedProvider()
    chain = ProviderChain([ProviderPool(provider, clock)])
    configured = Settings(
        _env_file=None,  # type: ignore[call-arg]
        host="127.0.0.1" if loopback else "0.0.0.0",
        api_keys=",".join(keys),
        jwt_secret=jwt_secret,
        jwks_url=jwks_url,
        allowed_origins=",".join(origins),
        backfill_days=60,
        max_symbols=50,
        drain_seconds=1,
        response_cache_mb=8,
        use_materialized=use_materialized,
        **(settings or {}),
    )
    background = BackgroundTasks()
    parts = Parts(configured, database, clock, xnys_book(), chain, Metrics("0"), background, feeds)
    if feeds is not None:
        feeds.hub = parts.realtime.hub
        background.start(parts.realtime.hub.run(), "realtime")
        background.start(parts.realtime.hub.watch(), "realtime-heartbeat")
        background.start(parts.api.streams.keep_checking(), "realtime-access")
    status = _Status()
    services = replace(
        parts.api.services,
        status=status,
        search=ProviderSearch(search, SearchStore(database, clock)) if search else parts.api.services.search,
    )
    door = FrontDoor("127.0.0.1", 0, max_body_bytes=max_body_bytes)
    await door.start()
    dispatcher = Dispatcher(
        routes,
        services,
        request_seconds=request_seconds,
        body_seconds=body_seconds,
        max_body_bytes=max_body_bytes,
    )
    door.open(dispatcher)
    async with aiohttp.ClientSession() as session:
        yield ApiDaemon(clock, provider, services, door, session, dispatcher, status.checks_now, parts, feeds)
    await parts.api.streams.close()
    await parts.prices.jobs.stop()
    await door.stop(1)
    await dispatcher.close()
    await background.end()
    await chain.close()
