"""Live prices by push: one stream kept open for what is tracked, opened again whenever it drops."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import FX_CLOSES_EARLY, Quote
from pricecache.errors import ProviderError, ProviderUnavailable, Unavailable
from pricecache.sync.ports import Calendars, has_provider
from pricecache.sync.publish import QuotePublisher

log = structlog.get_logger(__name__)

PUBLISH_SECONDS = 0.25
"""Between two batches of published quotes; the first after a pause goes out at once."""
SAVE_SECONDS = 1.0
FOLLOW_SECONDS = 1.0
"""How often it is looked whether other instruments are tracked, and whether the stream has fallen silent."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
"""Seconds before a stream is opened again: after the first failure, and at most."""
LONGEST_SILENCE = 900.0
BATCH = 1000
"""Quotes that become visible in one step, which holds the event loop for some milliseconds."""
AT_ONCE = 100
"""Quotes that are taken from the stream before the event loop gets its turn."""


class QuoteStream(Protocol):
    """A connection that brings quotes by itself. Loop-only; one that has failed is closed and another one made.

    Iterating gives quotes for ever, and raises `ProviderUnavailable` when it can give no more.
    """

    name: str
    messages: int
    """Messages that came, those passed over too."""
    ignored: Counter[str]
    """Messages passed over, by reason."""

    def symbol(self, instrument: Instrument) -> str | None:
        """What it is subscribed by, or None when the vendor cannot have it."""

    async def subscribe(self, instruments: Iterable[Instrument]) -> None:
        """Ask for these too; connects when it has not yet. Raises `ProviderUnavailable`."""

    async def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        """Ask for these no more. Raises `ProviderUnavailable`."""

    def __aiter__(self) -> AsyncIterator[Quote]:
        """The quotes as they come."""

    async def close(self) -> None:
        """End it."""


class _NothingTracked(Exception):
    """There is nothing to be subscribed to any more."""


class StreamFeed:
    """A background task that publishes what a stream brings. Loop-only.

    Everything tracked that the stream can have and that still trades is subscribed to. Quotes are conflated: the
    latest of each instrument, in one batch every `PUBLISH_SECONDS` at most, so that a flood costs no more than that. A
    stream that ends, fails, or in market hours says nothing for `silence` seconds is closed and opened again after a
    pause with full jitter, from a second to five minutes. Until then nothing counts as `streamed`, and the polls ask
    for everything. Whoever tracks only what seldom trades has silences that mean nothing: each one in a row doubles
    the time that is waited.

    `open_stream` makes a stream that is not connected yet.
    """

    def __init__(
        self,
        open_stream: Callable[[], QuoteStream],
        catalog: Catalog,
        publisher: QuotePublisher,
        calendars: Calendars,
        clock: Clock,
        randomness: random.Random,
        *,
        silence: float = 60.0,
    ) -> None:
        self.connected = False
        self.published = 0
        """Quotes published since the start."""
        self.reconnects = 0
        """Times it was opened again after a drop."""
        self.last_error: str | None = None
        self.last_message_at: float | None = None
        self._open_stream = open_stream
        self._catalog = catalog
        self._publisher = publisher
        self._calendars = calendars
        self._clock = clock
        self._random = randomness
        self._silence = silence
        self._stream: QuoteStream | None = None
        self._subscribed: dict[Instrument, str] = {}
        self._symbols: dict[int, tuple[int, str | None]] = {}
        self._latest: dict[str, Quote] = {}
        self._news = asyncio.Event()
        self._brought: dict[str, float] = {}
        self._earlier_messages = 0
        self._earlier_ignored: Counter[str] = Counter()
        self._heard = 0
        self._quiet_since = self._connected_at = 0.0
        self._failures = 0
        self._silences = 0
        self._is_down = self._has_stood = self._was_lost = False

    @property
    def messages(self) -> int:
        """Messages since the start."""
        return self._earlier_messages + (self._stream.messages if self._stream is not None else 0)

    def streamed(self, key: str, since: float) -> bool:
        """Whether the stream is up and has brought a quote of `Instrument.key` since that instant."""
        return self.connected and self._brought.get(key, -1.0) >= since

    def state(self) -> Mapping[str, Any]:
        """For `/cache/status`; instants are seconds since 1970-01-01T00:00Z or None."""
        ignored = self._earlier_ignored + (self._stream.ignored if self._stream is not None else Counter())
        return {
            "connected": self.connected,
            "subscribed": len(self._subscribed),
            "messages": self.messages,
            "ignored": dict(ignored),
            "published": self.published,
            "reconnects": self.reconnects,
            "last_message_at": self.last_message_at,
            "last_error": self.last_error,
        }

    async def run(self) -> None:
        """Keep a stream while anything is tracked that it can have; until cancelled."""
        while True:
            if not self._wanted(stream := self._open_stream()):
                await self._clock.sleep(FOLLOW_SECONDS)
                continue
            try:
                await self._keep(stream)
            except _NothingTracked:
                continue
            except ProviderError as exc:
                self._note_drop(exc.detail)
            except Exception as exc:  # the polls go on meanwhile, so a surprise is a drop like any other
                tell = log.debug if self._is_down else log.error
                tell("price stream broke", exc_info=True)
                self._note_drop(f"{type(exc).__name__}: {exc}"[:300])
            await self._clock.sleep(self._pause())

    def _wanted(self, stream: QuoteStream) -> dict[Instrument, str]:
        """What to be subscribed to, and by which symbol."""
        now, wanted = self._clock.time(), {}
        for entry in self._catalog.tracked():
            version, symbol = self._symbols.get(entry.id, (None, None))
            if version != entry.version:
                symbol = stream.symbol(entry.instrument) if has_provider(entry) else None
                self._symbols[entry.id] = entry.version, symbol
            if symbol is not None and not entry.has_ended(now):
                wanted[entry.instrument] = symbol
        return wanted

    async def _keep(self, stream: QuoteStream) -> None:
        self._stream = stream
        try:
            await self._follow_tracking(stream)
            self._heard, self._connected_at = 0, self._clock.monotonic()
            self._quiet_since, self.connected = self._connected_at, True
            self._note_connection()
            await self._together(self._read(stream), self._publish(), self._save(), self._watch(stream))
        finally:
            self.connected = False
            self._earlier_messages += stream.messages
            self._earlier_ignored += stream.ignored
            self._stream = None
            self._subscribed = {}
            self._symbols.clear()
            self._latest.clear()
            await stream.close()

    async def _together(self, *works: Any) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for work in works:
                    group.create_task(work, name="price-stream")
        except BaseExceptionGroup as exc:
            raise exc.exceptions[0] from None

    async def _read(self, stream: QuoteStream) -> None:
        taken = 0
        async for quote in stream:
            held = self._latest.get(quote.instrument.key)
            if held is None or quote.as_of >= held.as_of:
                self._latest[quote.instrument.key] = quote
                self._news.set()
            taken += 1
            if taken % AT_ONCE == 0:
                await asyncio.sleep(0)
        raise ProviderUnavailable("The stream ended.", code="stream_lost")

    async def _publish(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._latest = list(self._latest.values()), {}
            for i in range(0, len(batch), BATCH):
                await self._publish_batch(batch[i : i + BATCH])
            await self._clock.sleep(PUBLISH_SECONDS)

    async def _publish_batch(self, batch: Sequence[Quote]) -> None:
        try:
            published = await self._publisher.publish(batch, way="stream")
        except PyMongoError as exc:
            log.debug("pushed quotes not published", error=str(exc)[:300])  # the next push or poll heals it
            return
        self.published += len(published.taken)
        self._brought.update(dict.fromkeys(published.taken, self._clock.time()))

    async def _save(self) -> None:
        while True:
            await self._clock.sleep(SAVE_SECONDS)
            try:
                await self._publisher.save_pushed()
            except PyMongoError as exc:
                log.debug("pushed quotes not saved", error=str(exc)[:300])  # told by whoever pings; saved later

    async def _watch(self, stream: QuoteStream) -> None:
        while True:
            await self._clock.sleep(FOLLOW_SECONDS)
            await self._follow_tracking(stream)
            await self._listen_for_silence(stream)

    async def _follow_tracking(self, stream: QuoteStream) -> None:
        wanted = self._wanted(stream)
        if not wanted:
            raise _NothingTracked
        gone = dict(self._subscribed.items() - wanted.items())
        more = dict(wanted.items() - self._subscribed.items())
        if gone:  # before the others, as one whose spelling is new is among both
            await stream.unsubscribe(gone.keys())
            for instrument in gone:
                self._brought.pop(instrument.key, None)
                self._latest.pop(instrument.key, None)
        if more:
            await stream.subscribe(sorted(more))
        self._subscribed = wanted

    async def _listen_for_silence(self, stream: QuoteStream) -> None:
        now = self._clock.monotonic()
        if stream.messages > self._heard:
            self._heard, self._quiet_since, self.last_message_at = stream.messages, now, self._clock.time()
            self._silences = 0
            self._note_health()
        elif not await self._is_any_open(self._clock.time()):
            self._quiet_since = now
            if now - self._connected_at > self._silence and not self._silences:
                self._note_health()
        elif now - self._quiet_since > (limit := min(LONGEST_SILENCE, self._silence * 2**self._silences)):
            self._silences = min(self._silences + 1, 10)
            raise ProviderUnavailable(f"The stream said nothing for {limit:g} seconds.", code="stream_silent")

    async def _is_any_open(self, now: float) -> bool:
        for name in {instrument.place.calendar for instrument in self._subscribed}:
            try:
                calendar = await self._calendars.get(name)
            except Unavailable:
                continue
            if calendar.is_open(now, -FX_CLOSES_EARLY if name == "24/5" else 0.0):
                return True
        return False

    def _note_connection(self) -> None:
        self.reconnects += self._was_lost
        self._has_stood, self._was_lost = True, False

    def _note_health(self) -> None:
        self._failures = 0
        if self._is_down:
            self._is_down = False
            log.info("price stream is back", subscribed=len(self._subscribed))

    def _note_drop(self, why: str) -> None:
        self.last_error = why
        self._was_lost = self._has_stood
        self._failures += 1
        tell = log.debug if self._is_down else log.warning
        tell("price stream lost", error=why, connected_again=self.reconnects)
        self._is_down = True

    def _pause(self) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 20))
        return max(FIRST_PAUSE, self._random.uniform(0, longest))
