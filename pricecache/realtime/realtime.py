"""Real time as the rest of the daemon sees it: what portfolios are now, who is told, what waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pricecache.clock import Clock
from pricecache.core.events import BarsChanged
from pricecache.core.portfolios import Portfolio
from pricecache.core.quotes import Quote
from pricecache.core.stream_events import StreamEvent
from pricecache.errors import Unavailable
from pricecache.portfolio.summary import Summarised
from pricecache.realtime.bar_prices import BarPrices
from pricecache.realtime.day_ranges import DayRanges, RangeNow
from pricecache.realtime.feeds import price_events
from pricecache.realtime.follower import Follower
from pricecache.realtime.hub import Hub
from pricecache.realtime.tracking import LiveTracking


def switched_off() -> Unavailable:
    """Code `realtime_off`. Nothing but a start with other settings ends it, so there is no haste to ask again."""
    detail = "Real-time portfolios are switched off here; ask by REST."
    return Unavailable(detail, code="realtime_off", retry_after=3600.0)


class Realtime:
    """Loop-only. `is_enabled` False: nothing is followed and nobody is told; everything is answered on request."""

    def __init__(
        self,
        hub: Hub,
        follower: Follower,
        bar_prices: BarPrices,
        tracking: LiveTracking,
        ranges: DayRanges,
        clock: Clock,
        *,
        is_enabled: bool,
    ) -> None:
        self.is_enabled = is_enabled
        self.hub = hub
        self.follower = follower
        self.bar_prices = bar_prices
        self.tracking = tracking
        self.ranges = ranges
        self._clock = clock

    def require(self) -> None:
        """Raises `Unavailable` with code `realtime_off` where it is switched off."""
        if not self.is_enabled:
            raise switched_off()

    # what happens elsewhere

    def on_quotes(self, quotes: Sequence[Quote]) -> None:
        """Prices that are newer or other than before, whoever took them. Neither raises nor blocks."""
        if self.is_enabled and quotes:
            wanted = [quote for quote in quotes if self.hub.wants_price(quote.instrument.key)]
            if wanted:
                self.hub.publish_prices(price_events(wanted, self._clock.time()))
            self.follower.on_quotes(quotes)

    def on_bars(self, event: BarsChanged) -> None:
        if self.is_enabled:
            self.bar_prices.on_bars(event)
            self.follower.on_bars(event)

    def on_events(self, portfolio_id: str, events: Sequence[StreamEvent]) -> None:
        """Numbered events of a portfolio have been stored."""
        self.hub.publish_events(portfolio_id, events)

    def on_own_change(self, portfolio_id: str) -> None:
        """The same, by this daemon: whoever changes a portfolio will want to see it."""
        if self.is_enabled:
            self.follower.touch(portfolio_id)
            self.follower.on_ledger(portfolio_id)

    def on_portfolio(self, portfolio_id: str) -> None:
        """A ledger, or the rules of a portfolio, have changed, or it has gone."""
        if self.is_enabled:
            self.follower.on_ledger(portfolio_id)

    def on_deleted(self, portfolio_id: str) -> None:
        """A portfolio is no more, whoever deleted it."""
        if self.is_enabled:
            self.hub.publish_deletion(portfolio_id)
            self.follower.on_ledger(portfolio_id)

    def on_reopened(self) -> None:
        """Changes by other daemons may have gone unseen."""
        if self.is_enabled:
            self.hub.mend_all()
            self.follower.on_reopened()

    # what is asked

    async def range_of(self, summarised: Summarised) -> RangeNow | None:
        """How high and low a portfolio was in its latest session, with what it is now; followed from now on."""
        if not self.is_enabled:
            return None
        self.follower.touch(summarised.portfolio.id)
        await self.ranges.load([summarised.portfolio.id])
        return self.follower.valuer.noted(summarised)

    def refresh(self, portfolio: Portfolio) -> None:
        """Value it at once, and tell those who listen."""
        if self.is_enabled:
            self.follower.ask(portfolio.id)

    def queue_stats(self) -> dict[str, Any]:
        """By snake_case name."""
        stats, counts = self.follower.queue.stats(self._clock.monotonic()), self.follower.valuer.counts
        return {
            "pending_updates": stats.pending + self.follower.waiting,
            "is_processing": self.follower.is_processing,
            **{name: value for name, value in asdict(stats).items() if name != "pending"},
            "waiting_for_ledger": self.follower.waiting,
            "passes": counts.passes,
            "valued": counts.valued,
            "summed_up": counts.summed_up,
            "latest_pass_ms": round(counts.seconds * 1000, 3),
            "followed_portfolios": len(self.follower),
            "tracked_portfolios": self.follower.tracked,
            "tracked_users": self.tracking.users,
            "watched_instruments": self.follower.watched,
        }
