"""Answers a question for intraday bars from the samples that were kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pricecache.cache.reader import Reader
from pricecache.clock import Clock
from pricecache.core.actions import Action, Adjust, dividend_factors, in_effect, split_factors
from pricecache.core.bars import CLOSE, DAY_SECONDS, VOLUME, Bars, day_number, day_of
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.intraday import (
    INTERVALS,
    IntradayBars,
    Samples,
    after_close_seconds,
    expected_bars,
    intraday_bars,
)
from pricecache.core.periods import period_start
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.errors import Invalid, TooMuch
from pricecache.stores.samples import SampleStore

MOST_BARS = 10_000
"""Bars that one answer may have."""
_INLINE = 20_000
"""More samples than this take the event loop more than 5 ms; a thread makes bars of them."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for. An instant (ms since 1970 UTC) bounds the starts of bars, a session (days since 1970-01-01)
    whole sessions; both are included. `period`: how far back from the end, instead of a start."""

    start: int | None = None
    first_session: int | None = None
    end: int | None = None
    last_session: int | None = None
    period: str | None = None


@dataclass(frozen=True, slots=True)
class SampleCoverage:
    """Which samples there are of a range: the first and last (ms since 1970 UTC) and how many; bars that could be
    there by now and that are; and why some are not."""

    first: int | None
    last: int | None
    samples: int
    expected: int
    present: int
    reason: str | None

    @property
    def complete(self) -> bool:
        return self.present >= self.expected


@dataclass(frozen=True, slots=True, eq=False)
class IntradayAnswer:
    """Bars that start from `start` to `end` (ms since 1970 UTC, both included).

    `provisional`: bool, one a bar: a later sample may still change it. `version` and `samples_version` tell whether
    the entry and its samples are still what this was made from; `valid_until`: seconds since 1970 UTC.
    """

    entry: Entry
    interval: str
    adjust: Adjust
    start: int
    end: int
    bars: IntradayBars
    provisional: NDArray[np.bool_]
    coverage: SampleCoverage
    sources: tuple[str, ...]
    version: int
    samples_version: int
    valid_until: float

    def final(self) -> IntradayAnswer:
        """Without bars that a later sample may still change."""
        kept = len(self.bars) - int(self.provisional.sum())  # they are the last ones
        bars = self.bars
        short = IntradayBars(
            bars.starts[:kept], bars.ends[:kept], bars.sessions[:kept], bars.values[:, :kept], bars.counted[:kept]
        )
        return replace(self, bars=short, provisional=self.provisional[:kept])


class IntradayReader:
    """Reads samples and makes bars of them. Never calls a provider. Loop-only."""

    def __init__(
        self, catalog: Catalog, samples: SampleStore, daily: Reader, calendars: CalendarBook, clock: Clock
    ) -> None:
        self.samples = samples
        self._catalog = catalog
        self._daily = daily
        self._calendars = calendars
        self._clock = clock

    async def bars(self, entry: Entry, span: Span, interval: str, adjust: Adjust = "splits") -> IntradayAnswer:
        """Bars of `interval`, one of `INTERVALS`; without a start those of the last session with samples.

        Raises `Invalid` with code `start_after_end`, `TooMuch` with code `too_many_bars` or `too_many_samples`.
        """
        calendar = self._calendars.get(entry.instrument.place.calendar)
        if not self._catalog.trusted or not entry.current:
            await self._daily.columns.store.refresh([entry])
        seconds, now = INTERVALS[interval], self._clock.time()
        version, samples_version = entry.version, self.samples.version(entry)
        start, end = await self._bounds(entry, calendar, span, now)
        samples = await self._read(entry, calendar, start, end, seconds)
        made = intraday_bars(samples, calendar, seconds) if len(samples) < _INLINE else None
        if made is None:
            made = await asyncio.to_thread(intraday_bars, samples, calendar, seconds)
        bars = made.between(start, end)
        covered = await self._covered(entry, calendar, samples, bars, start, end, seconds)
        return IntradayAnswer(
            entry,
            interval,
            adjust,
            start,
            end,
            await self._adjusted(entry, bars, adjust),
            _still_open(bars, calendar, end, now),
            covered,
            samples.sources,
            version,
            samples_version,
            min(_next_bar(calendar, seconds, now), self._daily.day_ends(entry)),
        )

    # ---- which range

    async def _bounds(self, entry: Entry, calendar: SessionCalendar, span: Span, now: float) -> tuple[int, int]:
        end = span.end
        if end is None:
            last = span.last_session if span.last_session is not None else calendar.current(now)
            end = round(now * 1000) if last is None else _close_of(calendar, last) - 1
        start = span.start
        if start is None and span.first_session is not None:
            start = _open_of(calendar, span.first_session)
        if start is None:
            start = await self._start_of(entry, calendar, span.period, end)
        if start > end:
            raise Invalid(
                "start lies after end, or after now without one.",
                code="start_after_end",
                rows=[{"field": "start", "code": "start_after_end", "detail": "start lies after end"}],
            )
        return start, end

    async def _start_of(self, entry: Entry, calendar: SessionCalendar, period: str | None, end: int) -> int:
        if period is not None and period != "1D":
            session = calendar.current(end / 1000)
            first = None if session is None else period_start(period, day_of(session))
            if first is not None:
                return _open_of(calendar, day_number(first))
            kept = await self.samples.first(entry)
        else:
            kept = await self.samples.last(entry, end)
        session = calendar.current((end if kept is None else kept) / 1000)
        return min(end, end if session is None else _open_of(calendar, session))

    # ---- what there is

    async def _read(self, entry: Entry, calendar: SessionCalendar, start: int, end: int, seconds: int) -> Samples:
        first = await self.samples.first(entry, start)
        if first is None or first > end + after_close_seconds(calendar) * 1000:
            return Samples.empty()
        count = expected_bars(calendar, max(start, first), min(end, round(self._clock.time() * 1000)), seconds)
        if count > MOST_BARS:
            raise TooMuch(
                f"These would be up to {count} bars, and one answer has {MOST_BARS} at most. Ask for a later start, "
                "an earlier end or a longer interval.",
                code="too_many_bars",
            )
        # from the open on, because the volume of a bar is counted from there, and to the end of the last bar
        session = calendar.current(start / 1000)
        opened = start if session is None else min(start, _open_of(calendar, session))
        over = end + max(seconds, after_close_seconds(calendar)) * 1000
        return await self.samples.read(entry, opened, over)

    async def _covered(
        self,
        entry: Entry,
        calendar: SessionCalendar,
        samples: Samples,
        bars: IntradayBars,
        start: int,
        end: int,
        seconds: int,
    ) -> SampleCoverage:
        now = round(self._clock.time() * 1000)
        expected = expected_bars(calendar, start, min(end, now), seconds)
        # what was read beyond the bars asked for counts for nothing
        over = max(end, _last_instant(bars, calendar)) if len(bars) else end
        inside = samples.instants[(samples.instants >= start) & (samples.instants <= over)]
        reason = None if len(bars) >= expected else await self._why(entry, start, expected - len(bars))
        if not len(inside):
            return SampleCoverage(None, None, 0, expected, 0, reason)
        return SampleCoverage(int(inside.min()), int(inside.max()), len(inside), expected, len(bars), reason)

    async def _why(self, entry: Entry, start: int, missing: int) -> str:
        first = await self.samples.first(entry)
        if first is None:
            kept = "none are kept: PRICECACHE_SAMPLE_DAYS is 0" if not self.samples.keep_days else "none are there yet"
            return f"bars are made of samples of live prices, and {kept}"
        told = f"no price was sampled in {missing} of the bars"
        if first > start:
            told += f"; samples are there from {np.datetime64(first // 1000, 's')}Z on"
        return told

    async def _adjusted(self, entry: Entry, bars: IntradayBars, adjust: Adjust) -> IntradayBars:
        actions = in_effect(entry.actions, self._daily.today(entry))
        if adjust == "none" or not actions or not len(bars):
            return bars
        shares = split_factors(bars.sessions, [action for action in actions if action.kind == "split"])
        prices = 1.0 / split_factors(bars.sessions, actions)
        if adjust == "all":
            daily = await self._daily.columns.get(entry)
            prices = prices * _dividends(daily, bars, actions, entry.currency)
        values = bars.values * prices
        values[VOLUME] = bars.values[VOLUME] * shares
        return IntradayBars(bars.starts, bars.ends, bars.sessions, values, bars.counted)


def _dividends(daily: Bars, bars: IntradayBars, actions: Sequence[Action], currency: str) -> NDArray[np.float64]:
    """The factor of each bar's session, as the daily bars have it; a session without one takes part with its last
    intraday close."""
    last = np.append(np.flatnonzero(np.diff(bars.sessions)), len(bars) - 1)
    closes = np.full((5, len(last)), np.nan)
    closes[CLOSE] = bars.values[CLOSE, last]
    # of two bars of one session the later given stands: the daily one
    both = Bars.of(np.append(bars.sessions[last], daily.sessions), np.concatenate([closes, daily.values], axis=1))
    return dividend_factors(both, actions, currency)[both.sessions.searchsorted(bars.sessions)]


def _last_instant(bars: IntradayBars, calendar: SessionCalendar) -> int:
    """The last instant whose price can be of these bars, ms since 1970 UTC: after the close those of the session's
    last one only."""
    ends = int(bars.ends[-1])
    is_last = ends >= _close_of(calendar, int(bars.sessions[-1]))
    return ends + after_close_seconds(calendar) * 1000 if is_last else ends - 1


def _still_open(bars: IntradayBars, calendar: SessionCalendar, end: int, now: float) -> NDArray[np.bool_]:
    """The newest bar is while its time is not over, or while its session runs: prices may come late."""
    is_open = np.zeros(len(bars), bool)
    if not len(bars):
        return is_open
    at = int(calendar.sessions.searchsorted(bars.sessions[-1]))
    over = calendar.closes[at] + after_close_seconds(calendar)
    follows = calendar.next_open(float(calendar.closes[at]) - 1)
    if follows is not None:
        over = min(over, max(int(calendar.closes[at]), int(follows)))
    is_open[-1] = bars.ends[-1] > now * 1000 or (end >= now * 1000 and now < over)
    return is_open


def _next_bar(calendar: SessionCalendar, seconds: int, now: float) -> float:
    """When another bar may begin next, or the last one is over."""
    grace = after_close_seconds(calendar)
    session, opens = calendar.current(now), calendar.next_open(now) or now + DAY_SECONDS
    if session is None or not calendar.is_open(now, grace):
        return opens
    opened, closed = _open_of(calendar, session) / 1000, _close_of(calendar, session) / 1000
    if now >= closed:
        return min(closed + grace, opens)
    return min(opened + ((now - opened) // seconds + 1) * seconds, closed)


def _open_of(calendar: SessionCalendar, session: int) -> int:
    """When the first session from this day on opens, in ms since 1970 UTC."""
    at = min(int(calendar.sessions.searchsorted(session)), len(calendar.sessions) - 1)
    return int(calendar.opens[at]) * 1000


def _close_of(calendar: SessionCalendar, session: int) -> int:
    """When the last session up to this day closes."""
    at = max(int(calendar.sessions.searchsorted(session, side="right")) - 1, 0)
    return int(calendar.closes[at]) * 1000
