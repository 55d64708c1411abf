"""Follows portfolios: what concerns them goes through the update queue, and what is due is valued."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray
from pymongo.errors import PyMongoError

from pricecache.background import cancelled
from pricecache.clock import Clock
from pricecache.core.catalog import Catalog
from pricecache.core.events import BarsChanged
from pricecache.core.instruments import Instrument
from pricecache.core.livebook import LiveBook
from pricecache.core.quotes import Quote
from pricecache.core.updates import Priority, Reason, Taken, UpdateQueue
from pricecache.errors import NotFound, PricecacheError
from pricecache.realtime.followed import Followed, FollowedPortfolios, PresentNow
from pricecache.realtime.valuing import Valuer
from pricecache.realtime.waiting import Waiting
from pricecache.realtime.watched_prices import WatchedPrices

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 20_000
"""Portfolios of one pass."""
LOOK_SECONDS = 5.0
"""How often it is asked whether something else than a price has changed: a session that opened, a quote grown old."""
SUMMED_UP_AT_ONCE = 50
"""Portfolios that are computed from their ledgers before the next pass."""

_LEDGER, _MANUAL = int(Reason.LEDGER), int(Reason.MANUAL)
"""As the bits that they are: an enum's `&` takes ten times as long."""


class Follower:
    """Loop-only.

    Whatever concerns a followed portfolio puts it in the queue. What is due and has changed by prices alone is valued
    in one pass for all of it; what has changed by more is summed up anew, one after the other, those first that
    somebody listens to.
    """

    def __init__(
        self,
        followed: FollowedPortfolios,
        book: LiveBook,
        prices: WatchedPrices,
        queue: UpdateQueue,
        valuer: Valuer,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self.queue = queue
        self.valuer = valuer
        self.is_processing = False
        self._followed = followed
        self._book = book
        self._prices = prices
        self._catalog = catalog
        self._clock = clock
        self._wake = asyncio.Event()
        self._anew = Waiting()
        self._looked_at = clock.monotonic()
        self._renames = catalog.renames
        self._minute = int(clock.time() // 60)
        self._failing = False
        self.on_gone: Callable[[str], object] = lambda portfolio_id: None
        """Called with the id of a followed portfolio that is found to be no more."""

    # who is followed

    def __len__(self) -> int:
        return len(self._followed)

    @property
    def tracked(self) -> int:
        return sum(one.is_tracked for one in self._followed)

    @property
    def waiting(self) -> int:
        """Portfolios that wait to be summed up from their ledgers."""
        return len(self._anew)

    @property
    def watched(self) -> int:
        """Instruments whose prices are kept for them."""
        return len(self._prices)

    def present(self, portfolio_id: str) -> PresentNow | None:
        """What it is now, as far as it is followed and computed."""
        found = self._followed.get(portfolio_id)
        return None if found is None else self.valuer.present(found)

    def held(self, portfolio_id: str) -> frozenset[Instrument]:
        """What it holds, as far as it is followed and computed."""
        found = self._followed.get(portfolio_id)
        return frozenset() if found is None else found.held

    def touch(self, portfolio_id: str) -> Followed:
        """Somebody looked at it or changed it: followed from now on, for as long as there is room."""
        found = self._followed.get(portfolio_id)
        if found is not None:
            self._followed.rest(found)
            return found
        found = self._followed.follow(portfolio_id)
        self._mark([found], Priority.BULK, Reason.LEDGER)
        for surplus in self._followed.surplus():
            self.drop(surplus)
        return found

    def track(self, portfolio_id: str) -> None:
        """Followed until `untrack`."""
        self._need(self.touch(portfolio_id), is_tracked=True)

    def untrack(self, portfolio_id: str) -> None:
        self._need(self._followed.get(portfolio_id), is_tracked=False)

    def listen(self, portfolio_id: str) -> Followed:
        """Followed until `unlisten`, and its values told."""
        found = self.touch(portfolio_id)
        self._need(found, is_listened=True)
        return found

    def unlisten(self, portfolio_id: str) -> None:
        self._need(self._followed.get(portfolio_id), is_listened=False)

    def drop(self, found: Followed) -> None:
        """Follow it no more. Nothing when it was dropped before: its slot may be another's now."""
        if self._followed.at(found.slot) is not found:
            return
        self._followed.drop(found)
        self._book.drop(found.slot)
        self.queue.forget(found.slot)
        self._anew.drop(found.slot)
        self.valuer.forget(found)

    def _need(self, found: Followed | None, *, is_tracked: bool | None = None, is_listened: bool | None = None) -> None:
        if found is None:
            return
        if is_tracked is not None:
            found.is_tracked = is_tracked
        if is_listened is not None and is_listened != found.is_listened:  # else what the others were told stands
            found.is_listened = is_listened
            found.begin_telling({})
            self._anew.hurry(found.slot)
        self._followed.rest(found)

    # what concerns them

    def on_quotes(self, quotes: Sequence[Quote]) -> None:
        """Prices that are newer or other than before. Neither raises nor blocks."""
        slots = self._book.holders(self._prices.take(quotes))
        irregular = self._followed.irregular(quote.instrument for quote in quotes)
        self._mark_slots(slots, Priority.MARKET, Reason.PRICE)
        self._mark_slots(irregular, Priority.MARKET, Reason.PRICE)

    def on_bars(self, event: BarsChanged) -> None:
        """Bars or actions of a series are others. With a split even what was sold long ago reads differently."""
        if event.actions_changed:
            named = [one.slot for one in self._followed if event.entry.instrument in one.names]
            self._doubt(np.array(named, np.int64))
        irregular = self._followed.irregular([event.entry.instrument])
        self._mark_slots(irregular, Priority.MARKET, Reason.SCHEDULE)
        self._doubt(self._book.holders(self._prices.depending_on(event.entry.instrument)))
        concerned = self._book.holders(self._prices.look_at(event.entry.instrument))
        self._mark_slots(concerned, Priority.MARKET, Reason.SCHEDULE)

    def on_ledger(self, portfolio_id: str) -> None:
        """Its ledger or its rules have changed, or it has gone."""
        if (found := self._followed.get(portfolio_id)) is not None:
            self._mark([found], Priority.BULK, Reason.LEDGER)

    def on_reopened(self) -> None:
        """Changes may have gone unseen: look at everything."""
        for found in self._followed:
            found.is_doubted = True
        self._mark(self._followed, Priority.BULK, Reason.LEDGER)

    def look(self, portfolio_ids: Collection[str]) -> None:
        """Value these anew soon, whether or not a price came."""
        found = [one for name in portfolio_ids if (one := self._followed.get(name)) is not None]
        self._mark(found, Priority.MARKET, Reason.SCHEDULE)

    def ask(self, portfolio_id: str) -> None:
        """Value it anew at once."""
        self._mark([self.touch(portfolio_id)], Priority.MANUAL, Reason.MANUAL | Reason.LEDGER)

    def _mark(self, followed: Iterable[Followed], priority: Priority, reason: Reason) -> None:
        self._mark_slots(np.array([one.slot for one in followed], np.int64), priority, reason)

    def _mark_slots(self, slots: NDArray[np.int64], priority: Priority, reason: Reason) -> None:
        if len(slots):
            self.queue.mark(slots, self._clock.monotonic(), priority, reason)
            self._wake.set()

    def _look(self) -> None:
        """At what else than a price has changed."""
        self._looked_at = self._clock.monotonic()
        if self._renames != self._catalog.renames:
            self._renames = self._catalog.renames
            self.on_reopened()
        self._mark_slots(self._book.holders(self._prices.look()), Priority.MARKET, Reason.SCHEDULE)
        minute = int(self._clock.time() // 60)
        if minute != self._minute:
            self._look_at_the_day(minute)

    def _look_at_the_day(self, minute: int) -> None:
        """Once a minute: at what a new day changes."""
        if minute // 1440 != self._minute // 1440:
            self._mark_slots(self._book.holders(self._prices.doubt_all()), Priority.MARKET, Reason.SCHEDULE)
        self._minute = minute
        self._doubt(np.array([found.slot for found in self.valuer.over(self._followed)], np.int64))

    def _doubt(self, slots: NDArray[np.int64]) -> None:
        """Their rows have to be made anew."""
        there = [found for slot in slots.tolist() if (found := self._followed.at(slot)) is not None]
        for found in there:
            found.is_doubted = True
        self._mark(there, Priority.MARKET, Reason.SCHEDULE)

    # the work

    async def run(self) -> None:
        """Value what is due, until cancelled."""
        while not len(self._followed):
            self._wake.clear()
            await self._wake.wait()
        await asyncio.to_thread(_load_sparse)
        while True:
            await self._until_due()
            await self.work()

    async def work(self) -> None:
        """Look, when it is time to, and compute what is due now."""
        if self._clock.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._look()
        await self._turn()
        await self._sum_up_some()
        if self._prices.doubted:  # what is held since just now
            await self._refresh_safely()

    async def _turn(self) -> None:
        """Value all that is due now and has changed by prices alone; what has changed by more waits for its turn."""
        taken = self.queue.take(self._clock.monotonic(), MOST_AT_ONCE)
        if not len(taken):
            return
        self.is_processing = True
        try:
            await self._value(taken)
            self._recovered()
        except (PyMongoError, PricecacheError) as exc:
            self._put_back(taken.slots, taken.reasons, exc)
        except Exception as exc:  # one fault must not end all updates
            self._put_back(taken.slots, taken.reasons, exc)
            log.exception("live values could not be computed")
        finally:
            self.is_processing = False

    async def _value(self, taken: Taken) -> None:
        await self._refresh_prices()
        quick = []
        for slot, reasons in zip(taken.slots.tolist(), taken.reasons.tolist(), strict=True):
            found = self._followed.at(slot)
            if found is None:
                continue
            if found.row is None or found.is_doubted or reasons & _LEDGER:
                self._anew.add(slot, reasons, is_urgent=found.is_listened or bool(reasons & _MANUAL))
            else:
                quick.append(found)
        if quick:
            await self.valuer.value(quick)

    async def _refresh_prices(self) -> None:
        await self._prices.refresh()
        days = self._prices.take_rolled()
        if days:
            self.valuer.rolled(self._book.holders(np.array(days, np.int64)))
        slots = self._prices.take_rebuilt()
        if slots:
            self._doubt(np.array(slots, np.int64))

    async def _sum_up_some(self) -> None:
        for _ in range(SUMMED_UP_AT_ONCE):
            taken = self._anew.take()
            if taken is None:
                return
            slot, reasons = taken
            found = self._followed.at(slot)
            if found is None:
                continue
            self.is_processing = True
            try:
                if not await self.valuer.sum_up(found):
                    self._mark([found], Priority.MARKET, Reason.SCHEDULE)
                self._recovered()
            except NotFound:
                self.drop(found)
                self.on_gone(found.id)
            except (PyMongoError, PricecacheError) as exc:
                self._put_back_one(found, reasons, exc)
            except Exception as exc:  # as above
                self._put_back_one(found, reasons, exc)
                log.exception("a live value could not be computed", portfolio=found.id)
            finally:
                self.is_processing = False
            await asyncio.sleep(0)

    async def _until_due(self) -> None:
        """Return when something is due, or may be, or it is time to look."""
        now = self._clock.monotonic()
        due = self.queue.next_due(now)
        looks_at = self._looked_at + LOOK_SECONDS
        until = looks_at if due is None else min(due, looks_at)
        if until <= now or self._anew:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        tasks = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._clock.sleep(until - now))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancelled(tasks)

    async def _refresh_safely(self) -> None:
        try:
            await self._refresh_prices()
        except (PyMongoError, PricecacheError) as exc:  # tried again at the next look, and told by whoever is due
            log.debug("live prices not worked out", error=str(exc)[:300])
        except Exception:  # one fault must not end all updates
            if not self._failing:
                log.exception("live prices could not be worked out")
            self._failing = True

    def _put_back_one(self, found: Followed, reasons: int, error: Exception) -> None:
        found.is_doubted = True
        slots = [found.slot] if self._followed.at(found.slot) is found else []
        self._put_back(np.array(slots, np.int64), np.array([reasons] * len(slots), np.uint8), error)

    def _put_back(self, slots: NDArray[np.int64], reasons: NDArray[np.uint8], error: Exception) -> None:
        there = np.array([self._followed.at(slot) is not None for slot in slots.tolist()], np.bool_)
        self.queue.put_back(slots[there], reasons[there], self._clock.monotonic())
        if getattr(error, "code", None) == "calendar_loading":  # on a new database, for some seconds
            log.debug("live values wait for a calendar", error=str(error))
            return
        if not self._failing:
            log.warning("live values are held up", error=f"{type(error).__name__}: {error}"[:300])
        self._failing = True

    def _recovered(self) -> None:
        if self._failing:
            log.info("live values go on")
        self._failing = False


def _load_sparse() -> None:
    import scipy.sparse  # noqa: F401
