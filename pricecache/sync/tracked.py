"""Refreshes what tracked portfolios hold more often than the rest, as far as the providers' rate and budget go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Unavailable
from pricecache.providers.pool import ProviderPool
from pricecache.sync.ports import Handle, has_provider
from pricecache.sync.refresh import COUNTS, LiveRefresher

TRACKING_JOB = "live_tracking"
SHARE = 0.5
"""Of a provider's rate, and of what its day's budget still has for live prices: the rest is for everything else."""
_EARLY = 0.95
"""Part of an interval after which a price counts as an interval old."""


class TrackedPoller:
    """The job `live_tracking`. Loop-only.

    `held`: what tracked portfolios hold now. `pools`: who is asked for live prices, in order. `interval`: seconds
    between two runs.
    """

    def __init__(
        self,
        held: Callable[[], Collection[Instrument]],
        refresher: LiveRefresher,
        catalog: Catalog,
        live: LiveCache,
        calendars: CalendarBook,
        pools: Sequence[ProviderPool],
        clock: Clock,
        *,
        interval: float,
        lag: float,
    ) -> None:
        self._held = held
        self._refresher = refresher
        self._catalog = catalog
        self._live = live
        self._calendars = calendars
        self._pools = pools
        self._clock = clock
        self._interval = interval
        self._lag = lag
        self._saved = 0.0

    async def run(self, handle: Handle) -> None:
        """Refresh those whose market is open and whose price is oldest, as many as one run may ask for."""
        due, most = self.due(), self.most_now()
        chosen = due[:most]
        report = await self._refresher.refresh([entry.instrument for entry in chosen], wanted=False)
        for name in COUNTS:
            handle.count(name, getattr(report, name))
        handle.count("put_off", len(due) - len(chosen))
        for instrument, error in report.failures.items():
            handle.fail(instrument, error.code, error.detail)
        handle.progress(report.asked, report.asked)

    def due(self) -> list[Entry]:
        """Those held whose market is open and whose price is an interval old, the oldest first."""
        now = self._clock.time()
        found = [entry for one in self._held() if (entry := self._catalog.find(one)) is not None]
        open_ones = [entry for entry in found if has_provider(entry) and self._is_open(entry, now)]
        ages = [(self._received(entry), entry.id, entry) for entry in open_ones]
        return [entry for at, _, entry in sorted(ages) if now - at >= _EARLY * self._interval]

    def most_now(self) -> int:
        """How many instruments the next run may ask for; asking counts as that run."""
        pool = next(iter(self._pools), None)
        if pool is None:
            return 0
        now, pace = self._clock.time(), pool.pace
        calls = SHARE * pace.per_second * self._interval
        left = pool.account.remaining(pace, "live", now)
        if left is not None:
            runs_left = max((DAY_SECONDS - now % DAY_SECONDS) / self._interval, 1.0)
            calls = min(calls, SHARE * left / runs_left / pace.cost("live"))
        each = len(self._catalog) if pace.quotes_per_call is None else pace.quotes_per_call
        # what is less than a whole call is saved for the runs after this one
        self._saved = min(self._saved + calls, max(calls, 1.0))
        whole = int(self._saved)
        self._saved -= whole
        return whole * each

    def _received(self, entry: Entry) -> float:
        quote = self._live.get(entry.instrument.key)
        return -inf if quote is None else quote.received_at

    def _is_open(self, entry: Entry, now: float) -> bool:
        try:
            return self._calendars.get(entry.instrument.place.calendar).is_open(now, self._lag)
        except Unavailable:
            return False
