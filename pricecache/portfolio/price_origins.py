"""Where single prices and rates came from: which source, when, put in by hand or still provisional."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pricecache.cache.live import LiveCache
from pricecache.core.bars import day_of
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook
from pricecache.stores.bars import BarStore


@dataclass(frozen=True, slots=True)
class PriceOrigin:
    """`source`: the provider, or `manual`; `fetched_at`: seconds since 1970 UTC, when it was fetched, or its quote was
    made. `is_provisional`: from a quote, until a final bar takes its place."""

    source: str | None
    fetched_at: float | None
    is_provisional: bool


class PriceOrigins:
    """Loop-only."""

    def __init__(self, catalog: Catalog, bars: BarStore, live: LiveCache, calendars: CalendarBook) -> None:
        self._catalog = catalog
        self._bars = bars
        self._live = live
        self._calendars = calendars

    async def of(self, wanted: Iterable[tuple[Instrument, int]]) -> dict[tuple[Instrument, int], PriceOrigin]:
        """Of the close of each instrument in each session (days since 1970-01-01), with one query. Raises `Corrupt`."""
        entries = {one: entry for one in set(wanted) if (entry := self._catalog.find(one[0])) is not None}
        stored = await self._bars.years_of({(entry.id, day_of(day).year) for (_, day), entry in entries.items()})
        found = {}
        for (instrument, day), entry in entries.items():
            year = stored.get((entry.id, day_of(day).year))
            row = -1 if year is None else int(year.bars.sessions.searchsorted(day))
            if year is not None and row < len(year.bars) and year.bars.sessions[row] == day:
                by_hand = bool(year.provenance.by_hand[row])
                source = "manual" if by_hand else str(year.provenance.names()[row])
                found[instrument, day] = PriceOrigin(source, float(year.provenance.fetched_at[row]) / 1000, False)
            else:
                found[instrument, day] = self._provisional(entry, day)
        return found

    def _provisional(self, entry: Entry, day: int) -> PriceOrigin:
        quote = self._live.get(entry.instrument.key)
        calendar = self._calendars.get(entry.instrument.place.calendar)
        if quote is None or calendar.current(quote.as_of) != day:  # of a quote that another has taken the place of
            return PriceOrigin(None, None, True)
        return PriceOrigin(quote.source, quote.as_of, True)
