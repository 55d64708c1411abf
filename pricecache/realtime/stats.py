"""What the stream counts of itself: plain numbers that writing pays next to nothing for."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pricecache.clock import Clock
from pricecache.realtime.connection import Connection

_RING = 1024
_MINUTE = 60
Health = Literal["healthy", "degraded", "offline"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds from an event's publication to its last write, over the flushes of the last minute; None without any."""

    p50: float | None
    p95: float | None


class StreamStats:
    """Counters of one hub. Loop-only.

    `events`: published for somebody; `merged`: those of them that a later one replaced before they were sent.
    `messages`: made; `frames`: written, of all connections. `expected`: events times the listeners they were for.
    `failures`: messages that could not be made or answered, by a fault of ours.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.events = self.merged = self.messages = self.frames = self.bytes = self.expected = self.flushes = 0
        self.failures = self.dropped_slow = 0
        self.opened = {"websocket": 0, "sse": 0}
        self.active = {"websocket": 0, "sse": 0}
        self.closed: dict[str, int] = {}
        self._opened_at_sum = 0.0
        self._durations = 0.0
        self._seconds = [0] * _MINUTE
        self._second = 0
        self._latencies, self._told_at = array("d"), array("d")
        self._next = 0

    def open(self, connection: Connection) -> None:
        transport = _transport_of(connection)
        self.opened[transport] += 1
        self.active[transport] += 1
        self._opened_at_sum += connection.opened_at

    def close(self, connection: Connection, reason: str) -> None:
        now = self._clock.monotonic()
        self.active[_transport_of(connection)] -= 1
        self.closed[reason] = self.closed.get(reason, 0) + 1
        self._opened_at_sum -= connection.opened_at
        self._durations += now - connection.opened_at
        self._move_on(now)
        self._seconds[self._second % _MINUTE] += 1

    def wrote(self, frames: int, size: int) -> None:
        self.frames += frames
        self.bytes += size

    def expect(self, events: int, listeners: int) -> None:
        self.expected += events * listeners

    def delivered(self, seconds: float) -> None:
        """A flush was done so long after the first of its events was published."""
        now = self._clock.monotonic()
        if len(self._latencies) < _RING:
            self._latencies.append(seconds)
            self._told_at.append(now)
        else:
            self._latencies[self._next] = seconds
            self._told_at[self._next] = now
        self._next = (self._next + 1) % _RING

    @property
    def connections(self) -> int:
        return sum(self.active.values())

    @property
    def batch_efficiency(self) -> float | None:
        """The share of frames that batching spared: 1 - frames ÷ (events × listeners). None before the first event."""
        return max(0.0, 1.0 - self.frames / self.expected) if self.expected else None

    @property
    def disconnects_per_minute(self) -> int:
        """Connections that ended in the last minute."""
        self._move_on(self._clock.monotonic())
        return sum(self._seconds)

    @property
    def average_duration(self) -> float | None:
        """Seconds, over all connections there were, those that go on included as long as they have."""
        count = self.connections + sum(self.closed.values())
        running = self.connections * self._clock.monotonic() - self._opened_at_sum
        return (self._durations + running) / count if count else None

    @property
    def latency(self) -> Percentiles:
        since = self._clock.monotonic() - _MINUTE
        recent = zip(self._latencies, self._told_at, strict=True)
        ordered = sorted(seconds for seconds, at in recent if at > since)
        if not ordered:
            return Percentiles(None, None)
        return Percentiles(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))])

    def _move_on(self, now: float) -> None:
        second = int(now)
        for passed in range(self._second + 1, min(second, self._second + _MINUTE) + 1):
            self._seconds[passed % _MINUTE] = 0
        self._second = second


def health_of(connections: int, behind: int, window: float, p95: float | None) -> Health:
    """How the stream is: nobody there, some not keeping up, or well."""
    if not connections:
        return "offline"
    late = p95 is not None and p95 > 1.0
    return "degraded" if behind > 0.1 * connections or window > 0.5 or late else "healthy"


def snapshot_of(stats: StreamStats, behind: int, window: float, enabled: bool) -> Mapping[str, Any]:
    """All figures by snake_case name; seconds and milliseconds say so in their names."""
    latency = stats.latency
    return {
        "status": health_of(stats.connections, behind, window, latency.p95),
        "enabled": enabled,
        "active_connections": stats.connections,
        "connections_by_transport": dict(stats.active),
        "opened": sum(stats.opened.values()),
        "closed": dict(sorted(stats.closed.items())),
        "behind": behind,
        "dropped_slow": stats.dropped_slow,
        "events": stats.events,
        "events_merged": stats.merged,
        "messages": stats.messages,
        "failures": stats.failures,
        "frames_written": stats.frames,
        "bytes_written": stats.bytes,
        "batch_efficiency": stats.batch_efficiency,
        "disconnect_rate_per_minute": stats.disconnects_per_minute,
        "avg_connection_duration_seconds": stats.average_duration,
        "window_ms": window * 1000,
        "latency_p50_ms": _milliseconds(latency.p50),
        "latency_p95_ms": _milliseconds(latency.p95),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _transport_of(connection: Connection) -> str:
    return "websocket" if connection.is_websocket else "sse"
