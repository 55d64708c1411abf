"""Durable events of a portfolio: numbered in the order they were committed, and read again from any number on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Channel = Literal["positions", "account", "trades", "orders", "prices"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
_CHANNELS: Mapping[str, Channel] = {
    "position": "positions",
    "account": "account",
    "trade": "trades",
    "trades": "trades",
    "order": "orders",
    "price": "prices",
}


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened to a portfolio. `seq`: 1, 2, 3 ... for each portfolio without a gap, 0 until it is
    committed; `type` as `trade:executed`; `at`: seconds since 1970 UTC; `data`: its fields in camelCase, ready for
    JSON."""

    seq: int
    type: str
    at: float
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Events after some number, in order. `epoch`: text of the database they are numbered in; `last`: the portfolio's
    last number when this was read; `oldest`: the least number from which on all are kept, `last` + 1 for none."""

    epoch: str
    last: int
    oldest: int
    events: tuple[StreamEvent, ...]

    def resumes(self, since: int, epoch: str | None = None) -> bool:
        """Whether who has everything up to `since` misses nothing with these. `epoch`: what they know it by, None: of
        this database."""
        return epoch in (None, self.epoch) and self.oldest - 1 <= since <= self.last

    @property
    def seq(self) -> int:
        """Up to which number these go."""
        return self.events[-1].seq if self.events else self.last

    @property
    def is_complete(self) -> bool:
        """Whether there are no later ones."""
        return self.seq == self.last


def numbered(events: Sequence[StreamEvent], last: int) -> tuple[StreamEvent, ...]:
    """The same with consecutive numbers, the last of which is `last`."""
    first = last - len(events) + 1
    return tuple(StreamEvent(number, one.type, one.at, one.data) for number, one in enumerate(events, first))


def channel_of(event_type: str) -> Channel:
    """The channel that events of a type, such as `trade:executed`, belong to."""
    return _CHANNELS[event_type.partition(":")[0]]
