"""What the portfolio engine is told of the market: closes, splits and rates, from the columns in RAM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.actions import Action, in_effect
from pricecache.core.bars import DAY_SECONDS, Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.quotes import Quote
from pricecache.core.restated import TradedRange
from pricecache.core.running import running_session
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.core.stamps import SeriesFacts
from pricecache.errors import Invalid

MOST_KEPT = 10_000
FOR_EVER = 1 << 40
"""The last settled day of what depends on no market."""
AHEAD_SECONDS = 14 * 3600
"""How far ahead of UTC a day begins on Earth."""
EVERY_DAY = frozenset({"24/7", "24/5"})
"""Calendars of no exchange."""
_NO_DAYS: NDArray[np.int64] = np.empty(0, np.int64)
_ALWAYS_TRADED = Column(np.array([-719162]), np.array([1.0]))
"""What has a price on every day needs no valuation at cost, which takes long where there are many lots."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    version: int
    today: int
    due_until: int
    column: PriceColumn


@dataclass(frozen=True, slots=True, eq=False)
class MarketView:
    """What a ledger is told of the market at one moment, and for how long it is still told that.

    `facts`: by key of instrument and pair of currencies, None where nothing is known of one. `settled`: the last day
    (since 1970-01-01) that only a new revision can change: every session up to it is due, and none of them has a
    provisional bar; `awaited_until`: the same of what providers price. `names`, `units`: the instruments and whole
    currencies it has all of. `versions`, `quotes`: of everything that was looked at; `until`: seconds since 1970 UTC.
    """

    market: MarketData
    names: frozenset[Instrument]
    units: frozenset[str]
    facts: Mapping[str, SeriesFacts | None]
    settled: int
    awaited_until: int
    versions: tuple[tuple[Entry, int], ...]
    quotes: tuple[tuple[str, Quote | None], ...]
    until: float


class Markets:
    """Makes `MarketData` for ledgers. Never calls a provider. Loop-only.

    `lag`: seconds after a close until its bar is final. The column of an instrument is kept for as long as nothing
    of it changes. A session that runs has the price of its latest quote.
    """

    def __init__(
        self,
        catalog: Catalog,
        columns: ColumnCache,
        calendars: CalendarBook,
        live: LiveCache,
        clock: Clock,
        lag: float,
    ) -> None:
        self._catalog = catalog
        self._columns = columns
        self._calendars = calendars
        self._live = live
        self._clock = clock
        self._lag = lag
        self._kept: dict[int, _Kept] = {}
        self._known: dict[int, tuple[int, int, SeriesFacts]] = {}

    def currency_of(self, instrument: Instrument) -> str:
        """What its prices are in, as far as is known."""
        entry = self._catalog.find(instrument)
        return entry.currency if entry is not None else instrument.currency

    def splits(self, instruments: Iterable[Instrument]) -> MarketData:
        """Their splits without true prices: all that it takes to tell whether a ledger can be."""
        found, today = {}, self._today()
        for instrument in instruments:
            entry = self._catalog.find(instrument)
            actions = () if entry is None else _ratios(entry, today)
            found[instrument] = PriceColumn(_ALWAYS_TRADED, self.currency_of(instrument), actions)
        return MarketData(found)

    def ratios(self, entry: Entry) -> tuple[tuple[int, float], ...]:
        """`(ex-date, new units for one old)` of its splits and rebases in effect, ascending."""
        return tuple((action.ex_date, action.value) for action in _ratios(entry, self._today()))

    async def of(self, ledger: Ledger) -> MarketData:
        """All that `ledger` needs; what is not known is left out. Raises `Unavailable` while a calendar is built."""
        return (await self.view(ledger)).market

    async def view(
        self,
        ledger: Ledger,
        *,
        more: Iterable[Instrument] = (),
        currencies: Iterable[str] = (),
        watched: Iterable[str] = (),
    ) -> MarketView:
        """The same, with what tells how long it holds.

        `more`, `currencies`: instruments and whole currencies that are needed beside those of the ledger; `watched`:
        keys of what nothing is needed of but when it changes.
        """
        base = ledger.rules.currency
        names = sorted({*ledger.instruments(), *more})
        units = {
            *currencies_of(ledger, self.currency_of),
            *(major(self.currency_of(one)) for one in names),
            *currencies,
        }
        pairs = {unit: pair for unit in sorted(units) if (pair := pair_of(unit, base)) is not None}
        needed = self._found((*names, *pairs.values()))
        looked_at = needed | self._found(map(_named, watched))
        await self._load(list(needed.values()))
        kept = await self._current(needed.values())
        now, today = self._clock.time(), self._today()
        quotes = {one: self._live.get(entry.instrument.key) for one, entry in needed.items()}
        columns = {
            one: self._with_running(entry, kept[entry.id].column, quotes[one], now) for one, entry in needed.items()
        }
        asked = {one.key: one for one in (*names, *pairs.values(), *map(_named, watched))}
        entries = looked_at.values()
        return MarketView(
            MarketData(
                {one: columns[one] for one in names if one in needed},
                {unit: columns[pair].closes for unit, pair in pairs.items() if pair in needed},
            ),
            frozenset(names),
            frozenset(units),
            {key: self._facts(looked_at[one], today) if one in looked_at else None for key, one in asked.items()},
            self._settled(entries, now),
            self._settled((entry for entry in entries if entry.instrument.place.has_provider), now),
            tuple((entry, entry.version) for entry in entries),
            tuple((entry.instrument.key, quotes[one]) for one, entry in needed.items()),
            self._until(entries, quotes.values(), now),
        )

    def _found(self, instruments: Iterable[Instrument]) -> dict[Instrument, Entry]:
        return {one: entry for one in instruments if (entry := self._catalog.find(one)) is not None}

    def _facts(self, entry: Entry, today: int) -> SeriesFacts:
        known = self._known.get(entry.id)
        if known is None or known[:2] != (entry.version, today):
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            known = self._known[entry.id] = entry.version, today, _facts(entry, today)
        return known[2]

    def _settled(self, entries: Iterable[Entry], now: float) -> int:
        """The last day up to which every session of every one is due, and has no provisional bar."""
        by_calendar: dict[tuple[str, float], int] = {}
        return min((self._settled_of(entry, now, by_calendar) for entry in entries), default=FOR_EVER)

    def _settled_of(self, entry: Entry, now: float, by_calendar: dict[tuple[str, float], int]) -> int:
        name, lag = entry.instrument.place.calendar, entry.lag(self._lag)
        last = by_calendar.get((name, lag))
        if last is None:
            calendar, due_until = self._calendars.get(name), self._due_until(entry, self._calendars.get(name), now)
            following = int(calendar.sessions.searchsorted(due_until, side="right"))
            is_known = following < len(calendar.sessions)
            last = by_calendar[name, lag] = int(calendar.sessions[following]) - 1 if is_known else due_until
        return min(last, int(entry.tail.sessions[0]) - 1) if len(entry.tail) else last

    def holds(self, view: MarketView, now: float) -> bool:
        """Whether a ledger would be told the same at instant `now`. Cheap: it stands before every answer."""
        return (
            now < view.until
            and self._catalog.trusted
            and all(entry.version == version and entry.current for entry, version in view.versions)
            and all(self._live.get(key) is quote for key, quote in view.quotes)
        )

    def suffices(self, view: MarketView, ledger: Ledger) -> bool:
        """Whether `ledger` would be told nothing else now than `view` has."""
        return (
            ledger.instruments() <= view.names
            and {major(one) for one in ledger.currencies()} <= view.units
            and self.holds(view, self._clock.time())
        )

    def settled(self, facts: Mapping[str, SeriesFacts | None]) -> tuple[dict[str, SeriesFacts | None], int] | None:
        """What is known now of what `facts` are of, and until which day that is settled, without any bars; None while
        some of it has to be read first."""
        today, found = self._today(), {key: self._catalog.find(_named(key)) for key in facts}
        entries = [entry for entry in found.values() if entry is not None]
        if not self._catalog.trusted or not all(entry.current for entry in entries):
            return None
        known = {key: None if entry is None else self._facts(entry, today) for key, entry in found.items()}
        return known, self._settled(entries, self._clock.time())

    def is_renamed(self, keys: Iterable[str]) -> bool:
        """Whether any of what was called so has another symbol now."""
        entries = ((key, self._catalog.find(_named(key))) for key in keys)
        return any(entry is not None and entry.instrument.key != key for key, entry in entries)

    async def standings(self, entries: Sequence[Entry]) -> list[tuple[SeriesFacts, int]]:
        """What is known of each now, and the last day that only a new revision of it can change. Raises `Unavailable`
        while a calendar is built."""
        doubted = [entry for entry in entries if not self._catalog.trusted or not entry.current]
        if doubted:
            await self._columns.store.refresh(doubted)
        today, now = self._today(), self._clock.time()
        by_calendar: dict[tuple[str, float], int] = {}
        return [(self._facts(entry, today), self._settled_of(entry, now, by_calendar)) for entry in entries]

    async def closes(self, entries: Sequence[Entry], currencies: Iterable[str], base: str) -> MarketData:
        """Of these instruments, and the rates of their and of these whole currencies into `base`, without what it takes
        to tell how long that holds. Raises `Unavailable` while a calendar is built."""
        units = sorted({*currencies, *(major(entry.currency) for entry in entries)})
        pairs = {unit: entry for unit in units if (entry := self._pair(unit, base)) is not None}
        needed = [*entries, *pairs.values()]
        await self._load(needed)
        columns = {entry.id: await self._column(entry) for entry in needed}
        return MarketData(
            {entry.instrument: columns[entry.id] for entry in entries},
            {unit: columns[entry.id].closes for unit, entry in pairs.items()},
        )

    async def rates(self, currencies: Iterable[str], base: str) -> MarketData:
        """How much of `base` one of each of these whole currencies was."""
        pairs = {c: entry for c in currencies if (entry := self._pair(c, base)) is not None}
        await self._load(list(pairs.values()))
        return MarketData({}, {currency: (await self._column(entry)).closes for currency, entry in pairs.items()})

    async def benchmark(self, instrument: Instrument, base: str, *, dividends: bool = False) -> MarketData:
        """Its prices, and what its currency is in `base`; with `dividends` as if they were reinvested on their ex-dates
        (the CRSP method), in units of today. Raises `NotFound` with code `unknown_symbol`."""
        entry = self._catalog.require(instrument)
        pair = self._pair(entry.currency, base)
        await self._load([entry] if pair is None else [entry, pair])
        column = await self._column(entry)
        if dividends:
            column = await self._with_dividends(entry, column)
        rates = {} if pair is None else {major(entry.currency): (await self._column(pair)).closes}
        return MarketData({entry.instrument: column}, rates)

    async def _with_dividends(self, entry: Entry, column: PriceColumn) -> PriceColumn:
        bars = await self._columns.get(entry, "all", in_effect(entry.actions, self._today()))
        closes = column.closes
        later = closes.sessions > (bars.sessions[-1] if len(bars) else -1)  # provisional ones: in today's units as well
        sessions = np.concatenate([bars.sessions, closes.sessions[later]])
        values = np.concatenate([bars.close, closes.values[later]])
        return PriceColumn(Column(sessions, values, closes.due), column.currency)

    def sessions(self, instruments: Iterable[Instrument], start: int, end: int) -> NDArray[np.int64] | None:
        """Days from `start` to `end` that an exchange of theirs opened on, so far: int64, ascending. None where all of
        them trade every day, or every weekday: then nothing says what a session is."""
        names = {instrument.place.calendar for instrument in instruments} - EVERY_DAY
        found = [self._opened(self._calendars.get(name), start, end) for name in sorted(names)]
        return np.unique(np.concatenate(found)) if found else None

    def _opened(self, calendar: SessionCalendar, start: int, end: int) -> NDArray[np.int64]:
        last = calendar.current(self._clock.time())
        return calendar.between(start, end if last is None else min(end, last))

    def _pair(self, currency: str, base: str) -> Entry | None:
        pair = pair_of(currency, base)
        return self._catalog.find(pair) if pair is not None else None

    async def _load(self, entries: list[Entry]) -> None:
        doubted = [entry for entry in entries if not self._catalog.trusted or not entry.current]
        if doubted:
            await self._columns.store.refresh(doubted)
        cold = [e for e in entries if (kept := self._kept.get(e.id)) is None or kept.version != e.version]
        if cold:
            await self._columns.load(cold)

    async def _current(self, entries: Iterable[Entry]) -> dict[int, _Kept]:
        """By id what each is at, all at one moment."""
        while True:
            kept = {entry.id: await self._kept_of(entry) for entry in entries}
            if all(kept[entry.id].version == entry.version for entry in entries):
                return kept

    async def _kept_of(self, entry: Entry) -> _Kept:
        calendar = self._calendars.get(entry.instrument.place.calendar)
        due_until = self._due_until(entry, calendar, self._clock.time())
        kept = self._kept.get(entry.id)
        state = entry.version, self._today(), due_until
        if kept is None or (kept.version, kept.today, kept.due_until) != state:
            kept = await self._made(entry, calendar, due_until)
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[entry.id] = kept
        return kept

    async def _column(self, entry: Entry) -> PriceColumn:
        kept, quote = await self._kept_of(entry), self._live.get(entry.instrument.key)
        return self._with_running(entry, kept.column, quote, self._clock.time())

    def _due_until(self, entry: Entry, calendar: SessionCalendar, now: float) -> int:
        closed = calendar.last_closed(now, entry.lag(self._lag))
        return -1 if closed is None else closed

    async def ranges(self, instruments: Iterable[Instrument]) -> dict[Instrument, TradedRange]:
        """What each of them traded at, as traded, and its splits; without prices where there never was a split, and
        without those of which nothing is known."""
        entries = {i: entry for i in instruments if (entry := self._catalog.find(i)) is not None}
        await self._load([entry for entry in entries.values() if _ratios(entry, self._today())])
        return {instrument: await self._range(entry) for instrument, entry in entries.items()}

    async def _range(self, entry: Entry) -> TradedRange:
        actions = _ratios(entry, self._today())
        bars = (await self._bars(entry))[1] if actions else Bars.empty()
        is_known = bool(entry.head.count) or entry.state.last_update is not None
        return TradedRange.of(bars, entry.currency, actions, is_known=is_known, currencies=entry.currencies)

    async def _bars(self, entry: Entry) -> tuple[int, Bars]:
        """As traded, provisional ones too, and the version of the entry that they are of."""
        while True:
            version, tail = entry.version, entry.tail
            bars = await self._columns.get(entry)
            if entry.version == version:
                break
        if len(tail):  # a final bar stands before a provisional one
            bars = Bars.of(
                np.concatenate([tail.sessions, bars.sessions]), np.concatenate([tail.values, bars.values], axis=1)
            )
        return version, bars

    async def _made(self, entry: Entry, calendar: SessionCalendar, due_until: int) -> _Kept:
        version, bars = await self._bars(entry)
        closes = Column(bars.sessions, bars.close, _due(entry, calendar, bars, due_until))
        today = self._today()
        return _Kept(version, today, due_until, PriceColumn(closes, entry.currency, _ratios(entry, today)))

    def _with_running(self, entry: Entry, column: PriceColumn, quote: Quote | None, now: float) -> PriceColumn:
        if quote is None:
            return column
        calendar = self._calendars.get(entry.instrument.place.calendar)
        session = running_session(quote, calendar, entry.currency, now, entry.lag(self._lag))
        held = column.closes.sessions
        if session is None or (len(held) and session <= held[-1]):
            return column
        closes = Column(
            np.append(held, session), np.append(column.closes.values, quote.price), column.closes.due
        )  # fmt: skip
        return PriceColumn(closes, column.currency, column.actions)

    def _until(self, entries: Iterable[Entry], quotes: Iterable[Quote | None], now: float) -> float:
        """When the next session opens or is due, a quote becomes stale, or a day begins on which a split may be."""
        moments = [float((self._today() + 1) * DAY_SECONDS - AHEAD_SECONDS)]
        moments += [quote.stale_at for quote in quotes if quote is not None and quote.stale_at > now]
        for name, lag in {(entry.instrument.place.calendar, entry.lag(self._lag)) for entry in entries}:
            calendar = self._calendars.get(name)
            moments += [one for one in (calendar.next_due(now, lag), calendar.next_open(now)) if one is not None]
        return min(moments)

    def _today(self) -> int:
        return int((self._clock.time() + AHEAD_SECONDS) // DAY_SECONDS)


@lru_cache(4096)
def pair_of(currency: str, base: str) -> Instrument | None:
    """What the rate of `currency` into `base` is kept as (`EURUSD=X`: dollars for one euro); None where none can be."""
    whole = major(currency)
    if whole == base:
        return None
    with suppress(Invalid):
        return Instrument.parse(f"{whole}{base}=X")
    return None


def currencies_of(ledger: Ledger, currency_of: Callable[[Instrument], str]) -> set[str]:
    """Every whole currency that an amount or a price of `ledger` is in."""
    found = {currency_of(instrument) for instrument in ledger.instruments()}
    found |= ledger.currencies()
    return {major(currency) for currency in found}


def _ratios(entry: Entry, today: int) -> tuple[Action, ...]:
    return tuple(action for action in in_effect(entry.actions, today) if action.kind != "dividend")


def _due(entry: Entry, calendar: SessionCalendar, bars: Bars, until: int) -> NDArray[np.int64]:
    """The sessions since the first bar that there should be a close of by now."""
    if not len(bars):
        return _NO_DAYS
    last = entry.state.delisted_after
    due = calendar.between(int(bars.sessions[0]), until if last is None else min(until, last))
    absent = entry.state.absent
    return due[~np.isin(due, list(absent))] if absent else due


def _facts(entry: Entry, today: int) -> SeriesFacts:
    ratios = tuple((action.ex_date, action.kind, action.value) for action in _ratios(entry, today))
    state = entry.state
    return SeriesFacts(
        entry.id, entry.head.rev, entry.currency, ratios, tuple(sorted(state.absent)), state.delisted_after
    )


def _named(key: str) -> Instrument:
    symbol, _, market = key.rpartition(":")
    return Instrument(symbol, market)
