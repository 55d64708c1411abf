"""What the routines of this room are given: where prices and calendars come from, and the run they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pricecache.core.asking import Lane
from pricecache.core.catalog import Entry
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import SessionCalendar
from pricecache.providers.base import History, Quotes

FORCED = {"force": True}
"""Parameters of a run that somebody wants now. As parameters, so that it does not join a scheduled one."""


class PriceSource(Protocol):
    """Where prices are asked for: a provider behind its pool, or several as a chain."""

    async def history(
        self, instrument: Instrument, start: int, end: int, *, lane: Lane = "heal", turn: int = 0
    ) -> History:
        """As `Provider.history`, without blocking. `turn`: asked again for the same, who is asked first moves on."""

    async def quotes(self, instruments: Sequence[Instrument], *, lane: Lane = "live") -> Quotes:
        """As `Provider.quotes`, without blocking."""


class Calendars(Protocol):
    """Where the sessions of a market come from."""

    async def get(self, name: str) -> SessionCalendar:
        """Raises `Unavailable` with code `calendar_loading` when they cannot be had now."""


class Requested(Protocol):
    """A run as far as a routine looks at it."""

    @property
    def requested_by(self) -> str:
        """`schedule`, `start`, or who asked."""


class Handle(Protocol):
    """What a routine is given of the run it is."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the run was asked for with."""

    @property
    def run(self) -> Requested:
        """The run as it is recorded."""

    @property
    def stopping(self) -> bool:
        """Whether to come to an early end."""

    def progress(self, done: int, total: int | None, message: str = "") -> object:
        """Say how far it is."""

    def count(self, name: str, number: int = 1) -> object:
        """Add to one of the run's counts."""

    def fail(self, instrument: Instrument, code: str, detail: str) -> object:
        """Note that one instrument failed."""


def is_forced(handle: Handle) -> bool:
    """Whether the run was asked for with `FORCED`."""
    return bool(handle.parameters.get("force"))


def has_provider(entry: Entry) -> bool:
    """Whether any provider can be asked: not for instruments of one's own."""
    return entry.instrument.place.has_provider
