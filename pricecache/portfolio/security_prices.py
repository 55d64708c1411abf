"""Sees to it that there are prices of what a user's brokers hold: each fetched once for everybody, or the broker's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog, Entry
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument
from pricecache.portfolio.market import Markets, pair_of
from pricecache.sync.backfill import BACKFILL_JOB, Tracker, backfill_parameters

LOOK_SECONDS = 0.2
"""Between two looks at how many have come, of real time."""
PATIENCE_SECONDS = 150.0
"""How long prices are waited for: what has none by then gets them later, and the history with it."""


@dataclass(frozen=True, slots=True)
class Supply:
    """What there is of prices: `cached` of `needed` instruments were there before. `unpriced`: those that nobody who
    was asked has any price of; `pending`: those that nobody could be asked for, which will come by themselves;
    `awaited`: the ids of the series of both."""

    needed: int
    cached: int
    unpriced: frozenset[Instrument]
    pending: frozenset[Instrument]
    awaited: frozenset[int] = frozenset()


class SecurityPrices:
    """Loop-only. `start_run(job, parameters, requested_by)` starts a run, or joins an equal one."""

    def __init__(
        self,
        tracker: Tracker[Any],
        catalog: Catalog,
        markets: Markets,
        start_run: Callable[[str, dict[str, Any], str], Awaitable[Any]],
        clock: Clock,
    ) -> None:
        self._tracker = tracker
        self._catalog = catalog
        self._markets = markets
        self._start_run = start_run
        self._clock = clock

    async def supply(
        self,
        instruments: Sequence[Instrument],
        currencies: Iterable[str],
        base: str,
        first_day: int,
        by: str,
        told: Callable[[int, str | None], object],
    ) -> Supply:
        """Keep the prices of `instruments`, and the rates of what they and `currencies` are in to `base`, from
        `first_day` on (days since 1970-01-01), and wait until they are there. `told`: how many of `instruments` are,
        and the symbol of the one that came last. Raises `Conflict` with code `too_many_symbols`.
        """
        wanted = [one for one in dict.fromkeys(instruments) if one.place.has_provider]
        cached = {one for one in wanted if self._is_held(self._catalog.find(one), first_day)}
        told(len(cached), None)
        pairs = self._pairs(wanted, currencies, base)
        followed = await self._tracker.follow(dict.fromkeys([*wanted, *pairs], first_day), by)
        runs = [] if followed.run is None else [followed.run]
        # what others have begun to fill, they may not have filled yet
        late = [entry.instrument for entry in followed.entries if _is_untried(entry)]
        if followed.run is None and late:
            runs.append(await self._start_run(BACKFILL_JOB, backfill_parameters(late), by))
        until = self._clock.monotonic() + PATIENCE_SECONDS
        await self._wait(runs, wanted, told, until)
        if followed.run is not None and (late := [e.instrument for e in followed.entries if _is_untried(e)]):
            await self._wait([await self._start_run(BACKFILL_JOB, backfill_parameters(late), by)], wanted, told, until)
        bare = {one: entry for one in wanted if _is_bare(entry := self._catalog.find(one))}
        unpriced = frozenset(one for one, entry in bare.items() if entry is not None and _has_none(entry))
        awaited = frozenset(entry.id for entry in bare.values() if entry is not None)
        return Supply(len(wanted), len(cached), unpriced, frozenset(bare) - unpriced, awaited)

    async def _wait(
        self,
        runs: Iterable[Any],
        wanted: Sequence[Instrument],
        told: Callable[[int, str | None], object],
        until: float,
    ) -> None:
        done = set[Instrument]()
        for run in runs:
            while self._clock.monotonic() < until:
                is_over = await run.finished(LOOK_SECONDS)
                come = [one for one in wanted if one not in done and self._is_settled(one)]
                done.update(come)
                told(len(done), come[-1].symbol if come else None)
                if is_over:
                    break

    def _is_settled(self, one: Instrument) -> bool:
        entry = self._catalog.find(one)
        return entry is not None and not _is_untried(entry)

    def _is_held(self, entry: Entry | None, first_day: int) -> bool:
        if entry is None or not entry.tracked or not entry.head.count:
            return False
        return entry.state.wanted_from <= first_day

    def _pairs(self, instruments: Iterable[Instrument], currencies: Iterable[str], base: str) -> list[Instrument]:
        units = {major(one) for one in currencies} | {major(self._markets.currency_of(one)) for one in instruments}
        return [pair for unit in sorted(units) if (pair := pair_of(unit, base)) is not None]


def _is_bare(entry: Entry | None) -> bool:
    return entry is None or (not entry.head.count and not len(entry.tail))


def _is_untried(entry: Entry) -> bool:
    state = entry.state
    return entry.instrument.place.has_provider and state.last_update is None and state.code is None


def _has_none(entry: Entry) -> bool:
    """Whether those who could be asked have said that there is nothing."""
    state = entry.state
    if state.code == "symbol_not_found" or state.not_found:
        return True
    return state.empty_since is not None or state.quarantined_at is not None
