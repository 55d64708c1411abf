"""Messages of the stream as JSON, put together from events that are encoded once each, and sent as the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from pricecache.core.stream_events import StreamEvent
from pricecache.realtime.frames import event_chunk, text_frame
from pricecache.realtime.places import Place

CHANNELS = ("positions", "account", "trades", "orders", "prices")
"""By the bit of each in a mask, from the lowest on."""
PRICES = 1 << CHANNELS.index("prices")
_BITS = {"position": 1, "account": 2, "reconstruction": 2, "trade": 4, "trades": 4, "order": 8, "price": PRICES}
STATES = _BITS["position"] | _BITS["account"]
"""Channels of values whose latest is all there is to know. What became of an order is told by numbered events."""


def mask_of(channels: Iterable[str]) -> int:
    """Channels as bits. `KeyError` never: the names were checked at the edge."""
    return sum(1 << CHANNELS.index(channel) for channel in set(channels))


def names_of(mask: int) -> list[str]:
    """The channels of a mask by their names."""
    return [name for bit, name in enumerate(CHANNELS) if mask >> bit & 1]


def channel_of(event_type: str) -> int:
    """The bit of the channel that an event belongs to; 0 for a type that no channel carries."""
    return _BITS.get(event_type.partition(":")[0], 0)


class Numbered:
    """A stored event with the bytes it is sent as, made when first asked for. Loop-only."""

    __slots__ = ("_json", "channel", "event", "seq")

    def __init__(self, event: StreamEvent) -> None:
        self.event = event
        self.seq = event.seq
        self.channel = channel_of(event.type)
        self._json: bytes | None = None

    @property
    def json(self) -> bytes:
        if self._json is None:
            event = self.event
            self._json = orjson.dumps(
                {"type": event.type, "seq": event.seq, "at": instant(event.at), **event.data},
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
        return self._json


class Message:
    """One message for many: its JSON, and the bytes of each kind of connection made once. Loop-only.

    `place`: from where a server-sent stream resumes after it, or None when it moves nothing on.
    """

    __slots__ = ("_bare_chunk", "_chunk", "_frame", "json", "place")

    def __init__(self, json: bytes, place: Place | None = None) -> None:
        self.json = json
        self.place = place
        self._frame: bytes | None = None
        self._chunk: bytes | None = None
        self._bare_chunk: bytes | None = None

    @property
    def frame(self) -> bytes:
        if self._frame is None:
            self._frame = text_frame(self.json)
        return self._frame

    @property
    def chunk(self) -> bytes:
        """For server-sent streams of one portfolio, whose place it says."""
        if self._chunk is None:
            self._chunk = event_chunk(self.json, None if self.place is None else str(self.place))
        return self._chunk

    @property
    def bare_chunk(self) -> bytes:
        """For those of several, each of which has an id of its own in front."""
        if self._bare_chunk is None:
            self._bare_chunk = event_chunk(self.json)
        return self._bare_chunk


def encoded(event: Mapping[str, Any]) -> bytes:
    """The JSON of one value event."""
    return orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)


def batch(head: Mapping[str, Any], events: list[bytes]) -> bytes:
    """The JSON of a message with `head` before its events, which are encoded already."""
    return orjson.dumps(head)[:-1] + b',"events":[' + b",".join(events) + b"]}"


def plain(fields: Mapping[str, Any]) -> Message:
    """A message without events: an acknowledgement, an error, a farewell."""
    return Message(orjson.dumps(fields))


def instant(seconds: float) -> str:
    """`2026-11-20T10:00:00.125Z`, to the millisecond."""
    milliseconds = round(seconds * 1000)
    text = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds % 1000:03}Z" if milliseconds % 1000 else f"{text}Z"
