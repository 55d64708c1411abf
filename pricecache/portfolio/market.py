"""What the portfolio engine is told of the market: closes, splits and rates, from the columns in RAM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricecache.cache.columns import ColumnCache
from pricecache.cache.live import LiveCache
from pricecache.clock import Clock
from pricecache.core.actions import Action, in_effect
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument
from pricecache.core.ledger import Ledger
from pricecache.core.marketdata import Column, MarketData, PriceColumn
from pricecache.core.running import running_session
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.errors import Invalid

MOST_KEPT = 10_000
EVERY_DAY = frozenset({"24/7", "24/5"})
"""Calendars of no exchange."""
_NO_DAYS: NDArray[np.int64] = np.empty(0, np.int64)
_NO_PRICES: NDArray[np.float64] = np.empty(0, np.float64)
_NEVER_TRADED = Column(_NO_DAYS, _NO_PRICES)


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    due_until: int
    column: PriceColumn


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

    def currency_of(self, instrument: Instrument) -> str:
        """What its prices are in, as far as is known."""
        entry = self._catalog.find(instrument)
        return entry.currency if entry is not None else instrument.currency

    def splits(self, instruments: Iterable[Instrument]) -> MarketData:
        """Their splits without any price: all that it takes to tell whether a ledger can be."""
        found = {}
        for instrument in instruments:
            entry = self._catalog.find(instrument)
            if entry is not None:
                found[instrument] = PriceColumn(_NEVER_TRADED, entry.currency, _ratios(entry, self._today()))
        return MarketData(found)

    async def of(self, ledger: Ledger) -> MarketData:
        """All that `ledger` needs; what is not known is left out. Raises `Unavailable` while a calendar is built."""
        entries, pairs = self._named(ledger)
        await self._load([*entries.values(), *pairs.values()])
        prices = {instrument: await self._column(entry) for instrument, entry in entries.items()}
        rates = {currency: (await self._column(entry)).closes for currency, entry in pairs.items()}
        return MarketData(prices, rates)

    def entries(self, ledger: Ledger) -> list[Entry]:
        """What is kept of everything that `of` looks at: instruments and pairs of currencies."""
        entries, pairs = self._named(ledger)
        return [*entries.values(), *pairs.values()]

    def _named(self, ledger: Ledger) -> tuple[dict[Instrument, Entry], dict[str, Entry]]:
        base = ledger.rules.currency
        entries = {i: entry for i in sorted(ledger.instruments()) if (entry := self._catalog.find(i)) is not None}
        pairs = {c: entry for c in self._currencies(ledger) if (entry := self._pair(c, base)) is not None}
        return entries, pairs

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

    def _currencies(self, ledger: Ledger) -> list[str]:
        return sorted(currencies_of(ledger, self.currency_of))

    def _pair(self, currency: str, base: str) -> Entry | None:
        pair = pair_of(currency, base)
        return self._catalog.find(pair) if pair is not None else None

    async def _load(self, entries: list[Entry]) -> None:
        doubted = [entry for entry in entries if not self._catalog.trusted or not entry.current]
        if doubted:
            await self._columns.store.refresh(doubted)
        cold = [e for e in entries if (kept := self._kept.get(e.id)) is None or kept.version != e.version]
        # side by side; whatever goes wrong is told by the second look
        await asyncio.gather(*(self._columns.get(entry) for entry in cold), return_exceptions=True)

    async def _column(self, entry: Entry) -> PriceColumn:
        now = self._clock.time()
        calendar = self._calendars.get(entry.instrument.place.calendar)
        closed = calendar.last_closed(now, entry.lag(self._lag))
        due_until = -1 if closed is None else closed
        kept = self._kept.get(entry.id)
        if kept is None or kept.version != entry.version or kept.due_until != due_until:
            kept = await self._made(entry, calendar, due_until)
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[entry.id] = kept
        return self._with_running(entry, kept.column, calendar, now)

    async def _made(self, entry: Entry, calendar: SessionCalendar, due_until: int) -> _Kept:
        while True:
            version, tail = entry.version, entry.tail
            bars = await self._columns.get(entry)
            if entry.version == version:
                break
        if len(tail):  # a final bar stands before a provisional one
            bars = Bars.of(
                np.concatenate([tail.sessions, bars.sessions]), np.concatenate([tail.values, bars.values], axis=1)
            )
        closes = Column(bars.sessions, bars.close, _due(entry, calendar, bars, due_until))
        column = PriceColumn(closes, entry.currency, _ratios(entry, self._today()))
        return _Kept(version, due_until, column)

    def _with_running(self, entry: Entry, column: PriceColumn, calendar: SessionCalendar, now: float) -> PriceColumn:
        quote = self._live.get(entry.instrument.key)
        if quote is None:
            return column
        session = running_session(quote, calendar, entry.currency, now, entry.lag(self._lag))
        held = column.closes.sessions
        if session is None or (len(held) and session <= held[-1]):
            return column
        closes = Column(
            np.append(held, session), np.append(column.closes.values, quote.price), column.closes.due
        )  # fmt: skip
        return PriceColumn(closes, column.currency, column.actions)

    def _today(self) -> int:
        return int((self._clock.time() + 14 * 3600) // 86400)


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
    found |= {row.currency for row in ledger.transactions if row.currency is not None}
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
