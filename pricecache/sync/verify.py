"""Holds the packed record of every series against its journal, and mends what differs when asked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pricecache.clock import Clock
from pricecache.core.catalog import Catalog, Entry
from pricecache.stores.bars import BarStore
from pricecache.stores.restating import Fault
from pricecache.sync.ports import Handle

VERIFY_JOB = "verify"


class Verifier:
    """The job `verify`. Loop-only."""

    def __init__(self, catalog: Catalog, bars: BarStore, clock: Clock) -> None:
        self._catalog = catalog
        self._bars = bars
        self._clock = clock

    async def run(self, handle: Handle) -> None:
        """Look at every series there is; each difference is a failure of the run, of which a series may have several.

        Parameter `rebuild`: write anew from the journal what differs from it.
        """
        rebuild = bool(handle.parameters.get("rebuild"))
        entries = list(self._catalog)
        handle.count("problems", 0)
        for number, entry in enumerate(entries):
            if handle.stopping:
                return
            for problem in await self._faults(entry, rebuild):
                handle.count("problems")
                handle.fail(entry.instrument, problem.code, problem.detail)
            handle.progress(number + 1, len(entries), f"{entry.instrument}")

    async def differences(self, rebuild: bool) -> list[dict[str, Any]]:
        """The same at once, for whoever has no run: symbol, market, code and detail of every fault of every series."""
        return [_fields(fault) for entry in self._catalog for fault in await self._faults(entry, rebuild)]

    async def _faults(self, entry: Entry, rebuild: bool) -> Sequence[Fault]:
        return (await self._bars.verify(entry, rebuild_at=self._clock.time() if rebuild else None)).faults


def _fields(fault: Fault) -> dict[str, Any]:
    symbol, market = fault.instrument.symbol, fault.instrument.market
    return {"symbol": symbol, "market": market, "code": fault.code, "detail": fault.detail}
