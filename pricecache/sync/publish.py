"""The one place where quotes are taken: checked, completed, saved, published, and told to whoever listens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

import structlog
from pymongo.errors import PyMongoError

from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch, fund_stale_from, stale_from
from pricecache.core.sessions import SessionCalendar
from pricecache.errors import Corrupt, NotFound, PricecacheError, ProviderAnswerBad, ProviderError, Unavailable
from pricecache.metrics import Metrics
from pricecache.stores.bars import BarStore
from pricecache.stores.instruments import InstrumentStore
from pricecache.stores.quotes import QuoteStore
from pricecache.sync.judge import currency_is_known
from pricecache.sync.ports import Calendars

log = structlog.get_logger(__name__)

Way = Literal["poll", "stream"]
Listener = Callable[[Sequence[Quote]], object]

FUTURE_SECONDS = 900.0
"""How far a quote's time may lie ahead of our clock before it is refused."""
IMPLAUSIBLE = 20.0
"""A price so many times the last one, or that part of it, is not believed at once; a change of unit is a hundred."""
SAME_PRICE = 0.03
"""By how much two providers' prices may part and still confirm each other."""
REFERENCE_DAYS = 30
"""A price of so many days ago says nothing of what is plausible now."""
QUOTES_AT_ONCE = 50
"""Quotes that are looked through before the event loop gets its turn."""

_DAY = ("open", "day_high", "day_low", "volume")
_OPTIONAL = ("previous_close", *_DAY)


@dataclass(frozen=True, slots=True)
class Published:
    """What became of some quotes. `taken`: what is held of them now, by `Instrument.key`; `news`: those of `taken`
    with a newer or another price than was held; `refused`: why others are not held. The rest was older than what is."""

    taken: Mapping[str, Quote]
    news: Sequence[Quote]
    refused: Mapping[Instrument, PricecacheError]


class QuotePublisher:
    """Takes quotes from whoever fetched them or had them pushed. Loop-only.

    What was polled is saved before anybody sees it. What was pushed is seen at once and saved by the next
    `save_pushed`, so that a stream costs the database a batch a second at most: a kill loses a pushed quote of the
    last second, and the next push or poll, of a price as new or newer, heals that. Only acknowledged writes are never
    lost, and nobody was told that a pushed quote is stored.

    `interval`: seconds between two polls, which is what freshness is measured by. `lag`: seconds after a close in
    which a price may still come. `always_moving`: the source has news outside market hours too.
    """

    def __init__(
        self,
        catalog: Catalog,
        live: LiveCache,
        quotes: QuoteStore,
        bars: BarStore,
        calendars: Calendars,
        instruments: InstrumentStore,
        clock: Clock,
        *,
        interval: float,
        lag: float,
        always_moving: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self.refusals: Counter[str] = Counter()
        """Quotes refused since the start, by code."""
        self._catalog = catalog
        self._live = live
        self._quotes = quotes
        self._bars = bars
        self._calendars = calendars
        self._instruments = instruments
        self._clock = clock
        self._interval = interval
        self._lag = lag
        self._always_moving = always_moving
        self._metrics = metrics
        self._listeners: list[Listener] = []
        self._silenced: set[Listener] = set()
        self._doubted: dict[int, Quote] = {}
        self._unsaved: dict[int | None, Quote] = {}

    def subscribe(self, listener: Listener) -> None:
        """Let `listener` be told, on the loop, of each batch of quotes with a newer or another price, once they are
        published. It must neither raise nor block."""
        self._listeners.append(listener)

    async def publish(self, quotes: Iterable[Quote], *, way: Way) -> Published:
        """Take what can be believed and is not older than what is held; it becomes visible in one step.

        What is of one instrument alone is in `refused`. Raises the database's errors for `poll`; then nothing of the
        batch is published.
        """
        accepted: list[Quote] = []
        refused: dict[Instrument, PricecacheError] = {}
        for number, quote in enumerate(quotes, 1):
            try:
                if (completed := await self._accepted(quote)) is not None:
                    accepted.append(completed)
            except (ProviderError, Unavailable, NotFound) as exc:
                refused[quote.instrument] = exc
                self._count_refusal(quote, exc)
            if number % QUOTES_AT_ONCE == 0:
                await asyncio.sleep(0)
        if way == "poll":
            await self._quotes.save(accepted)
        # a symbol may have changed while the database was waited for
        accepted = [named for quote in accepted if (named := presently(self._catalog, quote)) is not None]
        before = {quote.instrument.key: self._live.get(quote.instrument.key) for quote in accepted}
        taken = self._live.publish(QuoteBatch.of(accepted))
        if way == "stream":
            self._unsaved.update({quote.series: quote for quote in taken.values()})
        news = [quote for key, quote in taken.items() if _says_more(quote, before[key])]
        self._tell(news)
        return Published(taken, news, refused)

    async def save_pushed(self) -> None:
        """Save what was pushed since the last time; what cannot be saved now waits for the next time."""
        waiting, self._unsaved = self._unsaved, {}
        try:
            await self._quotes.save(waiting.values())
        except BaseException:
            self._unsaved = waiting | self._unsaved
            raise

    async def close(self) -> None:
        """Save what was pushed last, if the database takes it."""
        try:
            await self.save_pushed()
        except PyMongoError as exc:
            log.debug("pushed quotes not saved", error=str(exc)[:300])

    async def _accepted(self, quote: Quote) -> Quote | None:
        now = self._clock.time()
        entry = self._catalog.require(quote.instrument)
        calendar = await self._calendars.get(entry.instrument.place.calendar)
        _require_possible(quote, now)
        # a vendor's clock that is a little ahead must not make what comes next look old
        quote = replace(
            quote, instrument=entry.instrument, series=entry.id, as_of=min(quote.as_of, now), **_known(quote)
        )
        quote = replace(quote, session=_session(quote, calendar, now))
        held = self._live.get(entry.instrument.key)
        if held is not None and _is_older(quote, held):
            return None
        quote = await self._in_currency(quote, entry)
        await self._require_plausible(quote, entry, held)
        return self._completed(quote, entry, held, calendar, now)

    async def _in_currency(self, quote: Quote, entry: Entry) -> Quote:
        if not quote.currency:
            return replace(quote, currency=entry.currency)
        if quote.currency != entry.currency:
            if currency_is_known(entry):
                raise ProviderAnswerBad(
                    f"Prices were in {entry.currency} and came in {quote.currency} now.", code="currency_changed"
                )
            await self._instruments.set_facts(entry, currency=quote.currency)
        return quote

    async def _require_plausible(self, quote: Quote, entry: Entry, held: Quote | None) -> None:
        key = entry.id
        reference = _reference(quote, entry, held)
        if reference is not None and _agree(quote.price, reference):
            self._doubted.pop(key, None)
            return
        recorded = await self._recorded(quote, entry)
        if recorded is None:
            recorded = quote.previous_close if reference is None else None
        if (recorded is None and reference is None) or (recorded is not None and _agree(quote.price, recorded)):
            self._doubted.pop(key, None)
            return
        doubted = self._doubted.get(key)
        if doubted is not None and doubted.source != quote.source and _confirms(quote, doubted):
            self._doubted.pop(key)
            log.info("implausible quote confirmed", instrument=str(quote.instrument), price=quote.price)
            return
        if doubted is None or doubted.source == quote.source:
            self._doubted[key] = quote
        last = reference if reference is not None else recorded
        assert last is not None
        raise ProviderAnswerBad(
            f"{quote.price:g} after {last:g} is {_how_far(quote.price / last)}, and nothing else says so.",
            code="implausible_quote",
        )

    async def _recorded(self, quote: Quote, entry: Entry) -> float | None:
        """The last daily close in the units of `quote`, when it is not too old to say anything."""
        if not entry.head.count:
            return None
        try:
            bars = await self._bars.read(entry)
        except Corrupt:
            return None
        session = quote.session
        if not len(bars) or session is None or session - int(bars.sessions[-1]) > REFERENCE_DAYS:
            return None
        return float(bars.close[-1]) / _splits(entry, int(bars.sessions[-1]), session)

    def _completed(
        self, quote: Quote, entry: Entry, held: Quote | None, calendar: SessionCalendar, now: float
    ) -> Quote:
        quote = replace(quote, **_believed(quote))
        known: dict[str, Any] = {}
        if held is not None and held.session == quote.session:
            known = {name: getattr(held, name) for name in _OPTIONAL if getattr(quote, name) is None}
        known |= _day_range(replace(quote, **known))
        return replace(quote, received_at=now, stale_at=self._stale_at(quote, entry, calendar, now), **known)

    def _stale_at(self, quote: Quote, entry: Entry, calendar: SessionCalendar, now: float) -> float:
        if self._always_moving:
            return now + 2 * self._interval
        if entry.kind == "fund":
            return fund_stale_from(quote.session, now, calendar, entry.lag(self._lag))
        return stale_from(quote.as_of, now, calendar, self._interval, self._lag)

    def _count_refusal(self, quote: Quote, error: PricecacheError) -> None:
        self.refusals[error.code] += 1
        if self._metrics is not None:
            self._metrics.quotes_refused.labels(quote.source, error.code).inc()

    def _tell(self, news: Sequence[Quote]) -> None:
        if not news:
            return
        if self._metrics is not None:
            for provider, count in Counter(quote.source for quote in news).items():
                self._metrics.live_updates.labels(provider).inc(count)
        for listener in self._listeners:
            try:
                listener(news)
            except Exception:  # who listens must not cost others their prices
                if listener not in self._silenced:
                    self._silenced.add(listener)
                    log.exception("a listener to quotes failed")


def _require_possible(quote: Quote, now: float) -> None:
    if not (isfinite(quote.price) and quote.price > 0 and isfinite(quote.as_of)):
        raise ProviderAnswerBad(f"{quote.price} is no price.", code="bad_quote")
    if quote.as_of > now + FUTURE_SECONDS:
        raise ProviderAnswerBad("The quote is from the future.", code="bad_quote")
    if quote.session is not None and quote.session > now // DAY_SECONDS + 1:
        raise ProviderAnswerBad("The quote is of a session that has not come.", code="bad_quote")


def _session(quote: Quote, calendar: SessionCalendar, now: float) -> int | None:
    # where a session is a UTC day the vendor's own day may be another zone's, and before the open no session's
    opened = calendar.current(now)
    if quote.session is None or calendar.name in ("24/7", "24/5") or (opened is not None and quote.session > opened):
        return calendar.current(quote.as_of)
    return quote.session


def presently(catalog: Catalog, quote: Quote) -> Quote | None:
    """`quote` under the symbol that its series has now, and stale when its prices are in another currency now; None
    when the series is not known here. One that an earlier release published has no series and is its symbol's."""
    entry = catalog.find(quote.instrument) if quote.series is None else catalog.by_id(quote.series)
    if entry is None:
        return None
    stale_at = quote.stale_at if quote.currency == entry.currency else 0.0
    if (quote.instrument, quote.series, quote.stale_at) == (entry.instrument, entry.id, stale_at):
        return quote
    return replace(quote, instrument=entry.instrument, series=entry.id, stale_at=stale_at)


def _is_older(quote: Quote, held: Quote) -> bool:
    if quote.as_of < held.as_of:
        return True
    return quote.session is not None and held.session is not None and quote.session < held.session


def _known(quote: Quote) -> dict[str, Any]:
    values = {name: getattr(quote, name) for name in _OPTIONAL}
    return {name: value if value is not None and isfinite(value) else None for name, value in values.items()}


def _believed(quote: Quote) -> dict[str, Any]:
    """The prices of the day and of the one before, unknown where they are of another order than the price; and the
    volume."""
    prices = {name: getattr(quote, name) for name in _OPTIONAL if name != "volume"}
    known = {n: p if p is not None and p > 0 and _agree(quote.price, p) else None for n, p in prices.items()}
    return known | {"volume": quote.volume if quote.volume is not None and quote.volume >= 0 else None}


def _day_range(quote: Quote) -> dict[str, float]:
    """High and low of the day, which the price itself may have moved since they were given."""
    day = {}
    if quote.day_high is not None:
        day["day_high"] = max(quote.day_high, quote.price)
    if quote.day_low is not None:
        day["day_low"] = min(quote.day_low, quote.price)
    return day


def _reference(quote: Quote, entry: Entry, held: Quote | None) -> float | None:
    """The last price held, in the units of `quote`, when it is not too old to say anything."""
    if held is None or quote.as_of - held.as_of > REFERENCE_DAYS * DAY_SECONDS or held.currency != quote.currency:
        return None
    if held.session is None or quote.session is None:
        return held.price
    return held.price / _splits(entry, held.session, quote.session)


def _splits(entry: Entry, after: int, until: int) -> float:
    """New units for one old one, by the splits after day `after` up to day `until`."""
    product = 1.0
    for action in entry.actions:
        if action.kind in ("split", "rebase") and after < action.ex_date <= until:
            product *= action.value
    return product


def _agree(price: float, reference: float) -> bool:
    return 1 / IMPLAUSIBLE <= price / reference <= IMPLAUSIBLE


def _confirms(quote: Quote, doubted: Quote) -> bool:
    return quote.currency == doubted.currency and abs(quote.price / doubted.price - 1) <= SAME_PRICE


def _how_far(ratio: float) -> str:
    times = max(ratio, 1 / ratio)
    unit = ", as if the unit had changed" if abs(times / 100 - 1) <= SAME_PRICE else ""
    return f"{'up' if ratio > 1 else 'down'} by a factor of {times:.4g}{unit}"


def _says_more(quote: Quote, held: Quote | None) -> bool:
    return held is None or quote.as_of > held.as_of or quote.price != held.price
