"""Sample prices: real daily bars of 2000 to 2013 under other dates, and a live walk inside them. No network.

The bars come from the package `bokeh_sampledata` (AAPL, IBM, MSFT, GOOG, FB). Each symbol has a *tape*, a run of real
rows that repeats for ever. Which row a session shows is a fixed function of its date alone: days (weekdays where the
market keeps week-ends) counted from an anchor date, modulo the length of the tape. Nothing else enters, so neither the
passing of time, nor the span of a calendar, nor a closure that becomes known later moves a bar that is stored already.
On a holiday a row is passed over and its splits and dividends take effect on the next session, as a real ex-date
never falls on a closed day.

Each repetition is scaled so that it opens where the last one closed; the repetition that begins at the anchor has the
source's own prices. Splits and dividends stay inside the tape: a split shows as the jump it was, and as an action.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pricecache.clock import Clock
from pricecache.core.actions import Action, Kind
from pricecache.core.asking import Capability, Found, Pace
from pricecache.core.bars import CLOSE, HIGH, LOW, OPEN, VOLUME, Bars, day_number
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.errors import Misconfigured, ProviderError, ProviderUnavailable, SymbolNotFound, Unavailable
from pricecache.providers.base import History, Quotes

NOTICE = "sample prices: real daily prices of 2000-2013 under other dates; not market data"

_SLOT_SECONDS = 2
_WOBBLE = 0.001


@dataclass(frozen=True, slots=True)
class _Event:
    row: int
    kind: Kind
    value: float


@dataclass(frozen=True, slots=True)
class _Tape:
    """`values`: float64 (5, n), unrounded, as traded; `events`: what takes effect at the start of a row."""

    values: NDArray[np.float64]
    events: tuple[_Event, ...] = ()

    @property
    def step(self) -> float:
        return float(self.values[CLOSE, -1] / self.values[OPEN, 0])


@dataclass(frozen=True, slots=True)
class _Listing:
    """Where a symbol comes from: `recipe` names its sources, the tape's row 0 is at `anchor`, nothing is before
    `listed`."""

    instrument: Instrument
    recipe: tuple[str, ...]
    anchor: int
    listed: int


_ANCHOR = day_number(date(2018, 1, 2))
_GOOG_ANCHOR = day_number(date(2020, 1, 2))
_FB_ANCHOR = day_number(date(2023, 5, 18))
_CRYPTO_ANCHOR = day_number(date(2020, 1, 1))
_FIRST = day_number(date(1990, 1, 2))
_GOOG_FIRST = day_number(date(2004, 8, 19))
_CRYPTO_FIRST = day_number(date(2012, 1, 1))


def _us(symbol: str, *recipe: str) -> _Listing:
    young = "GOOG" in recipe
    anchor, first = (_GOOG_ANCHOR, _GOOG_FIRST) if young else (_ANCHOR, _FIRST)
    return _Listing(Instrument(symbol), recipe, anchor, first)


def _crypto(symbol: str, *recipe: str) -> _Listing:
    return _Listing(Instrument(symbol, "CRYPTO"), recipe, _CRYPTO_ANCHOR, _CRYPTO_FIRST)


# A recipe of one name is the series itself; of two or four, the geometric mean of the split-adjusted series, a name
# given twice weighing double. Powers of two only: the mean is then square roots, which every machine rounds alike.
_LISTINGS: dict[Instrument, _Listing] = {
    listing.instrument: listing
    for listing in (
        _us("AAPL", "AAPL"),
        _us("IBM", "IBM"),
        _us("MSFT", "MSFT"),
        _us("GOOG", "GOOG"),
        # FB's own 196 rows fall by a quarter: repeated alone they would fade to nothing, so GOOG's changes follow them
        _Listing(Instrument("FB"), ("FB", ">", "GOOG"), _FB_ANCHOR, _FB_ANCHOR),
        _us("AAPL-IBM", "AAPL", "IBM"),
        _us("AAPL-MSFT", "AAPL", "MSFT"),
        _us("AAPL-GOOG", "AAPL", "GOOG"),
        _us("IBM-MSFT", "IBM", "MSFT"),
        _us("GOOG-IBM", "GOOG", "IBM"),
        _us("GOOG-MSFT", "GOOG", "MSFT"),
        _us("AAPL3-IBM", "AAPL", "AAPL", "AAPL", "IBM"),
        _us("IBM3-AAPL", "IBM", "IBM", "IBM", "AAPL"),
        _us("IBM3-MSFT", "IBM", "IBM", "IBM", "MSFT"),
        _us("MSFT3-AAPL", "MSFT", "MSFT", "MSFT", "AAPL"),
        _us("GOOG3-MSFT", "GOOG", "GOOG", "GOOG", "MSFT"),
        _us("^SAMPLE4", "AAPL", "GOOG", "IBM", "MSFT"),
        _crypto("AAPLX-USD", "AAPL", "AAPL"),
        _crypto("IBMX-USD", "IBM", "IBM"),
        _crypto("AIMX-USD", "AAPL", "IBM", "MSFT", "MSFT"),
    )
}

_NAMES = {"AAPL": "Apple", "FB": "Facebook", "GOOG": "Google", "IBM": "IBM", "MSFT": "Microsoft"}

SYMBOLS: tuple[Instrument, ...] = tuple(_LISTINGS)
"""Every instrument the sample provider has, in the order in which a reader would want to see them."""


class SampleProvider:
    """Real prices under other dates, for trying things out. Thread-safe.

    Bars are as traded, rounded to 4 decimals, the same to the bit on every call. Splits are the source's own (AAPL
    2:1 twice, MSFT 2:1 once). Dividends of AAPL, IBM and MSFT are what the source's adjusted close reveals (it steps
    by 1 + D ÷ close on an ex-date, which gives back the declared cents); pairs pay none.

    A quote in session walks from the session's open to its close inside its low and high. For `final_lag` seconds
    after the close it is the close, with the close as its `as_of`. Then it keeps moving by up to 0.1 % around the
    close, `as_of` the present: such a price is *not* the close, and a bar must not be made of it. Tell them apart by
    `as_of` being later than the session's close plus `final_lag`. `previous_close` is in the session's own units
    (divided by a split that took effect at its start).

    Raises `Misconfigured` with code `sample_data_missing` when the data package is not installed.
    """

    name = "sample"
    capabilities: frozenset[Capability] = frozenset({"history", "live", "actions", "search"})
    pace = Pace(per_second=1000, burst=1000, concurrency=2, timeout=30, local=True)
    final_lag = 60.0
    always_moving = True
    control: Instrument | None = Instrument("AAPL")

    def __init__(self, clock: Clock, calendars: CalendarBook) -> None:
        self._clock = clock
        self._calendars = calendars
        self._source = _source_path()
        self._days: dict[Instrument, _Day] = {}

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        listing, calendar = self._listing(instrument), self._calendar(instrument)
        now = self._clock.time()
        last = calendar.last_closed(now, self.final_lag)
        about = self._found(listing)
        opened = calendar.current(now)
        sessions = calendar.between(max(start, listing.listed), min(end, start - 1 if last is None else last))
        return History(
            Bars(sessions, self._values(listing, sessions)),
            actions=self._actions(listing, calendar, start, min(end, start - 1 if opened is None else opened)),
            currency=instrument.place.currency,
            first_available=_first_session(calendar, listing.listed) if start < listing.listed else None,
            notice=NOTICE,
            kind=about.kind,
            name=about.name,
        )

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        now = self._clock.time()
        quotes: list[Quote] = []
        failures: dict[Instrument, ProviderError] = {}
        for instrument in instruments:
            try:
                quotes.append(self._quote(instrument, now))
            except ProviderError as exc:
                failures[instrument] = exc
        return Quotes(quotes, failures)

    def search(self, text: str, limit: int) -> Sequence[Found]:
        """Those whose symbol or name has `text` in it, in the order of `SYMBOLS`, the symbol itself first."""
        wanted = text.strip().upper()
        known = map(self._found, _LISTINGS.values())
        hits = [hit for hit in known if wanted in f"{hit.instrument.symbol} {hit.name}".upper()]
        hits.sort(key=lambda hit: (hit.instrument.symbol != wanted, not hit.instrument.symbol.startswith(wanted)))
        return hits[:limit]

    def close(self) -> None:
        """Nothing is held open."""

    def _found(self, listing: _Listing) -> Found:
        names = dict.fromkeys(_NAMES[source] for source in listing.recipe if source != ">")
        made_of = " and ".join(list(names)[:1] if ">" in listing.recipe else names)
        crypto, index = listing.instrument.market == "CRYPTO", listing.instrument.symbol.startswith("^")
        return Found(
            listing.instrument,
            f"{made_of} (sample prices)",
            "crypto" if crypto else "index" if index else "equity",
            listing.instrument.place.currency,
            self.name,
        )

    def _listing(self, instrument: Instrument) -> _Listing:
        try:
            return _LISTINGS[instrument]
        except KeyError:
            raise SymbolNotFound(
                f"The sample prices have no {instrument}. They have {', '.join(i.symbol for i in SYMBOLS)}."
            ) from None

    def _calendar(self, instrument: Instrument) -> SessionCalendar:
        try:
            return self._calendars.get(instrument.place.calendar)
        except Unavailable as exc:
            raise ProviderUnavailable(exc.detail) from exc

    def _values(self, listing: _Listing, sessions: NDArray[np.int64]) -> NDArray[np.float64]:
        tape = _tapes(self._source)[listing.recipe]
        turns, rows = np.divmod(_positions(listing, sessions), tape.values.shape[1])
        values = tape.values[:, rows]
        for turn in np.unique(turns).tolist():
            values[:VOLUME, turns == turn] *= _scale(tape, turn)
        values[:VOLUME] = np.round(values[:VOLUME], 4)
        return values

    def _actions(self, listing: _Listing, calendar: SessionCalendar, start: int, end: int) -> tuple[Action, ...]:
        tape = _tapes(self._source)[listing.recipe]
        start = max(start, listing.listed)
        if start > end or not tape.events:
            return ()
        length = tape.values.shape[1]
        # a week before the start: an ex-date moved on by closed days falls in the range
        first, last = _positions(listing, np.array([start - 7, end], np.int64)).tolist()
        found: dict[tuple[int, Kind], float] = {}
        for turn in range(first // length, last // length + 1):
            for event in tape.events:
                session = _first_session(calendar, _date_at(listing, turn * length + event.row))
                if session is not None and start <= session <= end:
                    _add(found, session, event, _scale(tape, turn))
        currency = listing.instrument.place.currency
        return tuple(
            Action(session, kind, value, currency if kind == "dividend" else None, self.name)
            for (session, kind), value in sorted(found.items())
        )

    def _quote(self, instrument: Instrument, now: float) -> Quote:
        listing, calendar = self._listing(instrument), self._calendar(instrument)
        session = calendar.current(now)
        if session is None or session < listing.listed:
            raise SymbolNotFound(f"{instrument} is not listed yet.")
        day = self._day(listing, calendar, session)
        quote = partial(
            Quote,
            instrument=instrument,
            currency=instrument.place.currency,
            received_at=now,
            source=self.name,
            session=session,
            previous_close=day.previous_close,
        )
        whole = day.bar
        ended = partial(quote, open=whole[OPEN], day_high=whole[HIGH], day_low=whole[LOW], volume=whole[VOLUME])
        if now < day.closes:
            price, high, low, volume = day.at(now)
            return quote(price=price, as_of=now, open=whole[OPEN], day_high=high, day_low=low, volume=volume)
        if now < day.closes + self.final_lag:
            return ended(price=whole[CLOSE], as_of=day.closes)
        noise = int(_noise(day.seed, np.array([int(now // _SLOT_SECONDS)], np.uint64))[0])
        return ended(price=round(whole[CLOSE] * (1 + _WOBBLE * noise / _NOISE_TOP), 4), as_of=now)

    def _day(self, listing: _Listing, calendar: SessionCalendar, session: int) -> _Day:
        day = self._days.get(listing.instrument)
        if day is None or day.session != session:
            day = self._days[listing.instrument] = self._new_day(listing, calendar, session)
        return day

    def _new_day(self, listing: _Listing, calendar: SessionCalendar, session: int) -> _Day:
        i = int(calendar.sessions.searchsorted(session))
        bar = self._values(listing, calendar.sessions[i : i + 1])[:, 0]
        previous = None
        if i and calendar.sessions[i - 1] >= listing.listed:
            previous = float(self._values(listing, calendar.sessions[i - 1 : i])[CLOSE, 0])
            for action in self._actions(listing, calendar, session, session):
                if action.kind == "split":
                    previous = round(previous / action.value, 4)
        seed = crc32(f"{listing.instrument}/{session}".encode())
        return _Day(session, int(calendar.opens[i]), int(calendar.closes[i]), bar.tolist(), previous, seed)


class _Day:
    """One session as it unfolds: the price of every slot of two seconds, and high and low so far. Immutable."""

    def __init__(
        self, session: int, opens: int, closes: int, bar: list[float], previous_close: float | None, seed: int
    ) -> None:
        self.session, self.closes, self.bar = session, float(closes), bar
        self.previous_close, self.seed = previous_close, seed
        self._opens = opens
        self._prices = _walk(bar, max(2, (closes - opens) // _SLOT_SECONDS), seed)
        self._highs = np.maximum.accumulate(self._prices)
        self._lows = np.minimum.accumulate(self._prices)

    def at(self, now: float) -> tuple[float, float, float, float]:
        n = len(self._prices)
        i = min(n - 1, max(0, int((now - self._opens) // _SLOT_SECONDS)))
        volume = self.bar[VOLUME] * (i + 1) / n
        return float(self._prices[i]), float(self._highs[i]), float(self._lows[i]), float(int(volume))


_NOISE_TOP = 1 << 20


def _noise(seed: int, counters: NDArray[np.uint64]) -> NDArray[np.int64]:
    # splitmix64 (Steele, Lea, Flood 2014), kept to 21 bits around zero: whole numbers, so the same everywhere
    x = (counters + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(43)).astype(np.int64) - _NOISE_TOP


def _walk(bar: list[float], slots: int, seed: int) -> NDArray[np.float64]:
    """From open to close by way of both extremes, each step random, never outside low and high."""
    noise = _noise(seed, np.arange(slots, dtype=np.uint64))
    first, second = ((LOW, HIGH), (HIGH, LOW))[seed % 2]
    at_first = slots * (15 + seed // 2 % 30) // 100
    at_second = slots * (55 + seed // 64 % 30) // 100
    corners = [0, at_first, at_second, slots - 1]
    base = np.interp(np.arange(slots), corners, [bar[OPEN], bar[first], bar[second], bar[CLOSE]])
    prices: NDArray[np.float64] = base + _bridges(noise, corners) * 0.3 * (bar[HIGH] - bar[LOW])
    return np.asarray(np.round(np.clip(prices, bar[LOW], bar[HIGH]), 4), np.float64)


def _bridges(noise: NDArray[np.int64], corners: list[int]) -> NDArray[np.float64]:
    swing = np.zeros(len(noise))
    for begin, end in itertools.pairwise(corners):
        if end - begin > 1:
            path = np.cumsum(noise[begin:end]).astype(np.float64)
            path -= path[0] + (path[-1] - path[0]) * np.linspace(0, 1, end - begin)
            swing[begin:end] = path / max(1.0, float(np.abs(path).max()))
    return swing


def _weekdays(days: NDArray[np.int64]) -> NDArray[np.int64]:
    weeks, weekday = np.divmod(days + 3, 7)  # 1970-01-01 was a Thursday
    return weeks * 5 + np.minimum(weekday, 5)


def _positions(listing: _Listing, days: NDArray[np.int64]) -> NDArray[np.int64]:
    anchor = np.int64(listing.anchor)
    if listing.instrument.place.calendar == "24/7":
        return days - anchor
    return _weekdays(days) - _weekdays(np.array(anchor))


def _date_at(listing: _Listing, position: int) -> int:
    if listing.instrument.place.calendar == "24/7":
        return listing.anchor + position
    weeks, weekday = divmod(int(_weekdays(np.array(listing.anchor))) + position, 5)
    return weeks * 7 + weekday - 3


def _first_session(calendar: SessionCalendar, day: int) -> int | None:
    """The first session on or after `day`; None when the calendar's arrays do not reach it."""
    i = int(calendar.sessions.searchsorted(day))
    if i == len(calendar.sessions) or (i == 0 and calendar.sessions[0] - day > 7):
        return None
    return int(calendar.sessions[i])


def _scale(tape: _Tape, turn: int) -> float:
    # by multiplying, not by a power: every machine gets the same bits
    scale = 1.0
    for _ in range(abs(turn)):
        scale *= tape.step
    return scale if turn >= 0 else 1.0 / scale


def _add(found: dict[tuple[int, Kind], float], session: int, event: _Event, scale: float) -> None:
    key = session, event.kind
    if event.kind == "split":
        found[key] = found.get(key, 1.0) * event.value
    elif cash := round(event.value * scale, 4):
        found[key] = round(found.get(key, 0.0) + cash, 4)


def _source_path() -> Path:
    found = importlib.util.find_spec("bokeh_sampledata")
    if found is None or found.origin is None:
        raise Misconfigured(
            "The sample provider needs its data package: pip install 'pricecache[demo]'.", code="sample_data_missing"
        )
    return Path(found.origin).parent / "_data" / "stocks.csv.gz"


def _read_source(path: Path) -> dict[str, dict[str, list[float]]]:
    """ISO date → open, high, low, close, volume, adjusted close, for each name, ascending."""
    series: dict[str, dict[str, list[float]]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for ticker, day, *fields in rows:
            series.setdefault(ticker, {})[day] = [float(field) for field in fields]
    return series


@cache
def _tapes(path: Path) -> dict[tuple[str, ...], _Tape]:
    source = _read_source(path)
    return {recipe: _tape_of(source, recipe) for recipe in {listing.recipe for listing in _LISTINGS.values()}}


def _tape_of(source: dict[str, dict[str, list[float]]], recipe: tuple[str, ...]) -> _Tape:
    if ">" in recipe:
        return _joined(_plain(source[recipe[0]]), _plain(source[recipe[2]]))
    return _plain(source[recipe[0]]) if len(recipe) == 1 else _mean([source[name] for name in recipe])


def _plain(rows: dict[str, list[float]]) -> _Tape:
    block = np.array(list(rows.values())).T
    return _Tape(np.ascontiguousarray(block[:5]), _events(block[CLOSE], block[5]))


def _events(close: NDArray[np.float64], adjusted: NDArray[np.float64]) -> tuple[_Event, ...]:
    """What steps of adjusted ÷ unadjusted close reveal, by the source's rule: a split multiplies by its ratio, a
    dividend D by 1 + D ÷ close of the ex-date."""
    step = np.ones(len(close))
    step[1:] = (adjusted[1:] / close[1:]) / (adjusted[:-1] / close[:-1])
    events = []
    for row in np.flatnonzero(np.abs(step - 1) > 1e-5).tolist():
        if abs(step[row] - round(step[row])) < 1e-6:
            events.append(_Event(row, "split", float(round(step[row]))))
        else:
            events.append(_Event(row, "dividend", round(float(close[row] * (step[row] - 1)), 4)))
    return tuple(events)


def _without_splits(tape: _Tape) -> NDArray[np.float64]:
    values = tape.values.copy()
    for event in tape.events:
        if event.kind == "split":
            values[:VOLUME, : event.row] /= event.value
            values[VOLUME, : event.row] *= event.value
    return values


def _mean(parts: list[dict[str, list[float]]]) -> _Tape:
    """Day by day the geometric mean over the days all have: of lows below that of opens, so every bar stays valid."""
    days = [day for day in parts[0] if all(day in part for part in parts)]
    blocks = []
    for part in parts:
        index = {day: i for i, day in enumerate(part)}
        blocks.append(_without_splits(_plain(part))[:, [index[day] for day in days]])
    while len(blocks) > 1:
        blocks = [np.sqrt(a * b) for a, b in zip(blocks[::2], blocks[1::2], strict=True)]
    blocks[0][VOLUME] = np.rint(blocks[0][VOLUME])
    return _Tape(blocks[0])


def _joined(first: _Tape, second: _Tape) -> _Tape:
    tail = second.values.copy()
    tail[:VOLUME] *= first.values[CLOSE, -1] / tail[OPEN, 0]
    return _Tape(np.concatenate([first.values, tail], axis=1), first.events)
