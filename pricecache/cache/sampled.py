"""What samples say of the running session of a series: read once, then brought forward."""

from __future__ import annotations

from dataclasses import dataclass

from pricecache.core.catalog import Entry
from pricecache.core.intraday import Sampled, after_close_seconds, sampled
from pricecache.core.sessions import CalendarBook
from pricecache.stores.samples import SampleStore


@dataclass(frozen=True, slots=True)
class _Known:
    session: int
    version: int
    read_to: int
    said: Sampled | None


class SampledSessions:
    """Loop-only. Samples made before the last one read, that another daemon wrote since, are not seen."""

    def __init__(self, samples: SampleStore, calendars: CalendarBook) -> None:
        self._samples = samples
        self._calendars = calendars
        self._known: dict[int, _Known] = {}

    async def of(self, entry: Entry, session: int) -> Sampled | None:
        """What is known of `session` by its samples; None without any."""
        version, known = self._samples.version(entry), self._known.get(entry.id)
        if known is None or known.session != session:
            known = _Known(session, -1, -1, None)
        if known.version != version:
            known = await self._forward(entry, known, version)
            self._known[entry.id] = known
        return known.said

    async def _forward(self, entry: Entry, known: _Known, version: int) -> _Known:
        calendar = self._calendars.get(entry.instrument.place.calendar)
        at = int(calendar.sessions.searchsorted(known.session))
        opened = int(calendar.opens[at]) * 1000
        over = (int(calendar.closes[at]) + after_close_seconds(calendar)) * 1000
        new = await self._samples.read(entry, max(opened, known.read_to + 1), over)
        read_to = int(new.instants.max()) if len(new) else known.read_to
        return _Known(known.session, version, read_to, _both(known.said, sampled(new, calendar, known.session)))


def _both(earlier: Sampled | None, later: Sampled | None) -> Sampled | None:
    if earlier is None or later is None:
        return later if earlier is None else earlier
    return Sampled(earlier.open, max(earlier.high, later.high), min(earlier.low, later.low))
