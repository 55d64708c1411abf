"""Events of a portfolio that are numbered and stored, as a stream replays them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened in a portfolio, once, durably.

    `seq`: its number, 1, 2, 3, ... without a gap within its portfolio. `type`: such as `trade:executed`. `at`: seconds
    since 1970-01-01T00:00Z. `data`: its facts, camelCase and ready for JSON.
    """

    seq: int
    type: str
    at: float
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Stored events of a portfolio after some number, in order; the first of them when there are many.

    `epoch`: which database counted them. `last`: the number of the latest event there is, 0 before the first.
    `oldest`: the least number still kept, `last + 1` when none is.
    """

    epoch: str
    last: int
    oldest: int
    events: tuple[StreamEvent, ...]
