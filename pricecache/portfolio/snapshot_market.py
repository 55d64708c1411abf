"""What the market says on the days that snapshots are taken of: prices, what became of series, what closed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.currencies import major
from pricecache.core.grid import Grid, Layout, lay_out, rate_row
from pricecache.core.marketdata import MarketData
from pricecache.core.sessions import CalendarBook
from pricecache.core.snapshot_blocks import of_code
from pricecache.core.snapshot_values import Flags, Numbers, Prices, Signs
from pricecache.core.stamps import ALWAYS, NEVER, SeriesFacts
from pricecache.portfolio.market import FOR_EVER, Markets
from pricecache.stores.journal import Journal
from pricecache.stores.snapshots import Examined

SKEW_SECONDS = 600.0
"""How far apart the clocks of daemons may be before more has to be read."""
AT_ONCE = 100
"""Instruments that are looked at before the event loop gets its turn."""
HOME = "XNYS"
"""Whose sessions count for a portfolio that names nothing which has any."""


def digest_of(facts: SeriesFacts) -> int:
    """Of what stands beside its bars and decides how many of it are held."""
    return _digest(facts.currency, facts.ratios)


@lru_cache(4096)
def _digest(currency: str, ratios: tuple[tuple[int, str, float], ...]) -> int:
    said = repr((currency, ratios)).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little", signed=True)


class SnapshotMarket:
    """Looks at every series once, when the first block names it. Loop-only.

    `days`: days since 1970-01-01, ascending. `examined`: up to which revision each series had been looked at before.
    `latest`: what changed after that day makes nothing another that is held.
    """

    def __init__(
        self,
        markets: Markets,
        catalog: Catalog,
        calendars: CalendarBook,
        journal: Journal,
        clock: Clock,
        days: Sequence[int],
        examined: Examined,
        latest: int,
    ) -> None:
        self._markets, self._catalog, self._calendars = markets, catalog, calendars
        self._journal, self._clock, self._latest = journal, clock, latest
        self.days = np.array(days, np.int64)
        self._known, self._known_at, self._began_at = examined.facts, examined.at, clock.time()
        self._recent: dict[tuple[int, int], int | None] | None = None
        self.looked_at: dict[int, tuple[int, int]] = {}
        none = np.empty(0, np.int64)
        shape = (0, len(days))
        no_flags = np.empty(shape, np.bool_)
        self.prices = Prices(none, np.empty(shape), no_flags, no_flags)
        self.signs = Signs(none, none, none, np.empty(0, np.bool_), no_flags)
        self._closed_by: dict[str, Flags] = {}
        self.home = self._closed(HOME)

    async def learn(self, codes: Numbers, series: Numbers) -> None:
        """Have all of these, which are new, in `prices` and `signs`. Raises `Unavailable` while a calendar is built."""
        await self._learn_series(series)
        await self._learn_prices(codes)

    # prices

    async def _learn_prices(self, codes: Numbers) -> None:
        if not len(codes):
            return
        shape = (len(codes), len(self.days))
        new = Prices(codes, np.full(shape, np.nan), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_))
        by_base: dict[str, dict[int | str, int]] = {}
        for place, code in enumerate(codes.tolist()):
            what, base = of_code(code)
            by_base.setdefault(base, {})[what] = place
        for base, places in by_base.items():
            each = list(places.items())
            for low in range(0, len(each), AT_ONCE):
                await self._lay(base, dict(each[low : low + AT_ONCE]), new)
                await asyncio.sleep(0)
        old = self.prices
        self.prices = Prices(
            *_merged(old.codes, codes, (old.prices, new.prices), (old.stale, new.stale), (old.awaited, new.awaited))
        )

    async def _lay(self, base: str, places: Mapping[int | str, int], new: Prices) -> None:
        entries = {place: entry for what, place in places.items() if (entry := self._entry(what)) is not None}
        currencies = {place: what for what, place in places.items() if isinstance(what, str)}
        names = [entry.instrument for entry in entries.values()]
        market = await self._markets.closes(list(entries.values()), currencies.values(), base)
        first, last = int(self.days[0]), int(self.days[-1])
        columns = self.days - first
        grid = lay_out(names, market, base, first, last)
        is_awaited = awaited(grid, market, base)
        for row, place in enumerate(entries):
            new.prices[place], new.stale[place] = grid.prices[row, columns], grid.stale[row, columns]
            new.awaited[place] = is_awaited[row, columns]
        for place, currency in currencies.items():
            new.prices[place] = rate_row(market, base, currency, first, last - first + 1)[columns]

    def _entry(self, what: int | str) -> Entry | None:
        return None if isinstance(what, str) else self._catalog.by_id(what)

    # series

    async def _learn_series(self, series: Numbers) -> None:
        if not len(series):
            return
        new = Signs(
            series,
            np.full(len(series), ALWAYS),
            np.full(len(series), FOR_EVER),
            np.zeros(len(series), np.bool_),
            np.zeros((len(series), len(self.days)), np.bool_),
        )
        moved, recent = await asyncio.gather(self._looked_at(new), self._firsts())
        place = {number: at for at, number in enumerate(series.tolist())}
        spans = self._doubtful(moved, recent)
        for low in range(0, len(spans), AT_ONCE):
            found = await self._journal.first_changed(dict(spans[low : low + AT_ONCE]), self._latest)
            for number, day in found.items():
                new.changed_from[place[number]] = ALWAYS if day is None else day
        old = self.signs
        self.signs = Signs(
            *_merged(
                old.ids, series, (old.changed_from, new.changed_from), (old.settled, new.settled),
                (old.has_sessions, new.has_sessions), (old.closed, new.closed),
            )
        )  # fmt: skip

    async def _looked_at(self, new: Signs) -> dict[int, tuple[int, int]]:
        """Fills in `new`, but for the revisions that have to be looked up: these, by series."""
        moved: dict[int, tuple[int, int]] = {}
        for low in range(0, len(new.ids), AT_ONCE):
            some = enumerate(new.ids[low : low + AT_ONCE].tolist(), low)
            there = [(at, entry) for at, one in some if (entry := self._catalog.by_id(one)) is not None]
            found = await self._markets.standings([entry for _, entry in there])
            for (at, entry), (facts, until) in zip(there, found, strict=True):
                place_of = entry.instrument.place
                if place_of.has_provider:
                    new.settled[at] = until
                if place_of.has_sessions:
                    new.has_sessions[at], new.closed[at] = True, self._closed_for(entry)
                new.changed_from[at] = self._compared(entry.id, facts, moved)
            await asyncio.sleep(0)
        return moved

    async def _firsts(self) -> Mapping[tuple[int, int], int | None]:
        """What revisions since the last time changed, at first sight: read once."""
        if self._recent is None:
            self._recent = await self._journal.firsts_since(self._known_at - SKEW_SECONDS) if self._known else {}
        return self._recent

    def _doubtful(
        self, moved: Mapping[int, tuple[int, int]], recent: Mapping[tuple[int, int], int | None]
    ) -> list[tuple[int, tuple[int, int]]]:
        """Those of `moved` of which a revision may have changed what counts; most got the latest session alone."""
        latest = self._latest

        def is_new_only(series: int, after: int, until: int) -> bool:
            firsts = (recent.get((series, rev)) for rev in range(after + 1, until + 1))
            return all(first is not None and first > latest for first in firsts)

        return [(series, span) for series, span in moved.items() if not is_new_only(series, *span)]

    def _compared(self, series: int, facts: SeriesFacts, moved: dict[int, tuple[int, int]]) -> int:
        """`moved`: gets what has to be looked up."""
        now = facts.rev, digest_of(facts)
        self.looked_at[series] = now
        before = self._known.get(series)
        if before is None or before[1] != now[1] or before[0] > now[0]:
            return ALWAYS
        if before[0] < now[0]:
            moved[series] = before[0], now[0]
        return NEVER

    def _closed_for(self, entry: Entry) -> Flags:
        found = self._closed(entry.instrument.place.calendar)
        ended = entry.state.delisted_after
        return found if ended is None else found & (self.days <= ended)

    def _closed(self, name: str) -> Flags:
        """On which of the days a session of this calendar closed, by now."""
        found = self._closed_by.get(name)
        if found is None:
            calendar = self._calendars.get(name)
            last = calendar.last_closed(self._clock.time())
            opened = calendar.between(int(self.days[0]), int(self.days[-1]))
            found = np.isin(self.days, opened) & (self.days <= (-1 if last is None else last))
            self._closed_by[name] = found
        return found

    # what was looked at

    def examined(self, before: Examined, named: Iterable[int]) -> Examined:
        """For the next time: of the series `named` by any block. `before`: with those that are new."""
        known = before.facts | {one: facts for one, facts in self.looked_at.items() if one in self._known}
        return Examined.of(before.version, {one: known[one] for one in named if one in known}, self._began_at)


def awaited(grid: Grid, market: MarketData, base: str) -> Flags:
    """bool, shape (instruments, days): as `grid.stale`, but of what is priced by hand only for want of a rate."""
    found, layout = grid.stale.copy(), Layout(grid.start, grid.days)
    for row in np.flatnonzero(grid.stale_rows).tolist():
        if not grid.instruments[row].place.has_provider:
            currency = major(market.prices[grid.instruments[row]].currency)
            rates = None if currency == base else market.rates.get(currency)
            found[row] = False if rates is None else layout.lay(rates).stale
    return found


def _merged(old: Numbers, new: Numbers, *columns: tuple[NDArray[Any], NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """Both in order, with what stands beside each."""
    keys = np.concatenate([old, new])
    order = keys.argsort(kind="stable")
    return keys[order], *(np.concatenate(pair)[order] for pair in columns)
