"""What the daemon knows of every instrument without asking the database: the RAM twin of the small collections."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pricecache.core.actions import Action
from pricecache.core.bars import DAY_SECONDS, Bars
from pricecache.core.coverage import SyncState
from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.errors import NotFound

FUND_LAG = 12 * 3600.0
"""Further seconds after a close until the price of a fund is final: it is worked out that evening or night."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A symbol that an instrument had on `market` from session `since` to `until` (None: no bound), both included."""

    symbol: str
    market: str
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class SeriesHead:
    """The committed state of one series: which revision it is at, and which revision each year was last changed in.

    `first`, `last`: sessions, days since 1970-01-01; `count`: bars; all of the packed record, without the tail.
    `actions_rev`: the revision in which the actions were last changed; 0 for those of before this was kept, and none.
    """

    rev: int = 0
    years: dict[int, int] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None
    count: int = 0
    actions_rev: int = 0


BEGINNING = -719162
"""The day 0001-01-01: since when an instrument had its first currency."""


def currencies_with(
    known: Sequence[tuple[int, str]], currency: str, since: int, code: str
) -> tuple[tuple[int, str], ...]:
    """The currencies of an instrument whose prices are in `code` from session `since` on, up to the next change that
    is known. `currency`: of all that came before when none is dated yet. Neighbours that are equal become one."""
    dated = dict(known or [(BEGINNING, currency)]) | {since: code}
    merged: list[tuple[int, str]] = []
    for day in sorted(dated):
        if not merged or merged[-1][1] != dated[day]:
            merged.append((day, dated[day]))
    return tuple(merged) if len(merged) > 1 else ()


@dataclass(slots=True)
class Entry:
    """All that is known of one instrument. Loop-only: written by `Catalog`, read by anybody on the loop.

    `tail`: provisional bars of sessions newer than anything committed. `currency`: of its prices. `notice`: what every
    reader is to be told. `sessions`: the sessions held in the packed record (int64), or None until first needed.
    `manual`: those of them put in by hand, likewise.
    `version` grows with every change of any of it; whoever keeps something derived compares it. `current` is False
    while a commit's outcome is unknown: whoever answers from here then asks the database first. `state_version` is
    the stored version of `state`. `kind` and `name`: what a provider said it is. `aliases`: symbols it had before.
    `spellings`: by provider, the symbol to ask that one for instead. `currencies`: `(since, currency)` ascending, of
    an instrument whose prices changed their currency; empty where they never did. `fixed`: names of facts that a person
    set, which no provider changes. `owner`: the user whose own it is, None of what is everybody's.
    """

    id: int
    instrument: Instrument
    currency: str
    state: SyncState
    tracked: bool = False
    tracked_since: float | None = None
    tracked_by: str | None = None
    source: str | None = None
    notice: str | None = None
    head: SeriesHead = field(default_factory=SeriesHead)
    tail: Bars = field(default_factory=Bars.empty)
    actions: tuple[Action, ...] = ()
    sessions: NDArray[np.int64] | None = None
    manual: NDArray[np.int64] | None = None
    version: int = 0
    current: bool = True
    state_version: int = 0
    kind: InstrumentKind | None = None
    name: str | None = None
    aliases: tuple[Alias, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=dict)
    currencies: tuple[tuple[int, str], ...] = ()
    fixed: frozenset[str] = frozenset()
    owner: str | None = None

    def touch(self) -> None:
        self.version += 1

    @property
    def named_since(self) -> int | None:
        """The first day on which it had its present symbol, days since 1970-01-01; None: it never had another."""
        ends = [alias.until for alias in self.aliases if alias.until is not None]
        return max(ends) + 1 if ends else None

    def currency_on(self, session: int) -> str:
        """What its prices of `session` (days since 1970-01-01) are in."""
        return next((code for since, code in reversed(self.currencies) if since <= session), self.currency)

    def has_ended(self, now: float) -> bool:
        """Whether it trades no longer at instant `now`, seconds since 1970 UTC: its last session is over everywhere."""
        last = self.state.delisted_after
        return last is not None and now >= (last + 2) * DAY_SECONDS

    def lag(self, provider_lag: float) -> float:
        """Seconds after a close until a bar of it is final, with a provider whose bars are `provider_lag` after."""
        return provider_lag + FUND_LAG if self.kind == "fund" else provider_lag

    def doubt(self) -> None:
        """The database may be ahead of this."""
        self.current = False
        self.touch()


class Catalog:
    """Every instrument the database holds, by name and by id. Loop-only.

    `trusted` is False while changes by other daemons may be going unseen: whoever answers from here then asks the
    database first. `renames` grows with every instrument that gets another symbol, or goes.
    """

    def __init__(self) -> None:
        self.trusted = True
        self.renames = 0
        self._by_instrument: dict[Instrument, Entry] = {}
        self._by_id: dict[int, Entry] = {}
        self._by_alias: dict[Instrument, list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_id.values())

    def get(self, instrument: Instrument) -> Entry | None:
        """The one that has this symbol now."""
        return self._by_instrument.get(instrument)

    def find(self, instrument: Instrument, on: int | None = None) -> Entry | None:
        """The one that has this symbol now, else the one that had it last. `on` (days since 1970-01-01): the one that
        had it on that day, where that is known."""
        former = self._by_alias.get(instrument)
        present = self._by_instrument.get(instrument)
        if former is None:
            return present
        if on is not None and (then := next((e for e in former if _had(e, instrument, on)), None)) is not None:
            return then
        return present or max(former, key=lambda entry: _had_until(entry, instrument))

    def had(self, instrument: Instrument, on: int) -> Entry | None:
        """The one that is known to have had this symbol on that day, and has another now."""
        return next((entry for entry in self._by_alias.get(instrument, ()) if _had(entry, instrument, on)), None)

    def formers(self, instrument: Instrument) -> list[Entry]:
        """Those that had this symbol and have another now, the one that had it last first."""
        present = self._by_instrument.get(instrument)
        found = [entry for entry in self._by_alias.get(instrument, ()) if entry is not present]
        return sorted(found, key=lambda entry: -_had_until(entry, instrument))

    def by_id(self, series_id: int) -> Entry | None:
        return self._by_id.get(series_id)

    def present(self, instrument: Instrument) -> Instrument:
        """What it is called now; itself when it is not known."""
        entry = self.find(instrument)
        return instrument if entry is None else entry.instrument

    def asked_as(self, instrument: Instrument, provider: str) -> Instrument:
        """What `provider` is to be asked for instead of `instrument`: itself where nothing else is set."""
        entry = self._by_instrument.get(instrument)
        spelling = entry.spellings.get(provider) if entry is not None else None
        return instrument if spelling is None else Instrument.parse_in(spelling, instrument.market)

    def require(self, instrument: Instrument) -> Entry:
        """What `find` finds. Raises `NotFound` with code `unknown_symbol` and what to do next."""
        entry = self.find(instrument)
        if entry is None:
            raise unknown_symbol(instrument)
        return entry

    def tracked(self) -> list[Entry]:
        return [entry for entry in self._by_id.values() if entry.tracked]

    def add(self, entry: Entry) -> None:
        self._by_id[entry.id] = entry
        self._name(entry)

    def rename(self, entry: Entry, instrument: Instrument, aliases: tuple[Alias, ...]) -> None:
        """Give an entry another symbol, and the symbols it had before."""
        self.renames += 1
        self._forget_names(entry)
        entry.instrument, entry.aliases = instrument, aliases
        entry.touch()
        self._name(entry)

    def remove(self, entry: Entry) -> None:
        """Know it no longer."""
        self.renames += 1
        self._by_id.pop(entry.id, None)
        self._forget_names(entry)
        entry.touch()

    def _name(self, entry: Entry) -> None:
        self._by_instrument[entry.instrument] = entry
        for instrument in {Instrument(alias.symbol, alias.market) for alias in entry.aliases}:
            self._by_alias.setdefault(instrument, []).append(entry)
        for former in self._by_alias.get(entry.instrument, ()):
            former.touch()  # what was answered from it by this name is another's now

    def _forget_names(self, entry: Entry) -> None:
        if self._by_instrument.get(entry.instrument) is entry:
            del self._by_instrument[entry.instrument]
        for instrument in {Instrument(alias.symbol, alias.market) for alias in entry.aliases}:
            if holders := [other for other in self._by_alias.get(instrument, ()) if other is not entry]:
                self._by_alias[instrument] = holders
            else:
                self._by_alias.pop(instrument, None)


def unknown_symbol(instrument: Instrument) -> NotFound:
    """The error of an instrument that is not known here, with what to do next."""
    named = f'{{"symbol": "{instrument.symbol}", "market": "{instrument.market}"}}'
    by_hand = f"Put its prices with PUT /cache/historical/{instrument.symbol}?market={instrument.market}."
    asked = f"Track it with POST /cache/symbols, or POST /cache/backfill-symbol with {named}."
    return NotFound(
        f"{instrument} is not known here. {asked if instrument.place.has_provider else by_hand}",
        code="unknown_symbol",
        symbol=instrument.symbol,
        market=instrument.market,
    )


def _had(entry: Entry, instrument: Instrument, on: int) -> bool:
    return any(
        (alias.symbol, alias.market) == instrument
        and (alias.since is None or alias.since <= on)
        and (alias.until is None or on <= alias.until)
        for alias in entry.aliases
    )


def _had_until(entry: Entry, instrument: Instrument) -> float:
    ends = [alias.until for alias in entry.aliases if (alias.symbol, alias.market) == instrument]
    return max(math.inf if end is None else end for end in ends)
