"""What is answered about streams, as models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pricecache.api.answers import Output


class TicketOut(Output):
    ticket: str = Field(description="For one use, as the parameter ticket.")
    expires_in_seconds: int


class StreamStatsOut(Output):
    status: Literal["healthy", "degraded", "offline"] = Field(description="offline: nobody connected, or switched off.")
    enabled: bool
    active_connections: int
    connections_by_transport: dict[str, int]
    connection_limit: int
    users: int = Field(description="Users with a connection.")
    opened: int = Field(description="Connections since the start.")
    closed: dict[str, int] = Field(description="Those that ended, by reason.")
    behind: int = Field(description="Connections that have not read what was sent.")
    dropped_slow: int
    events: int = Field(description="Published for somebody.")
    events_merged: int = Field(description="Those of them that a later one replaced before they were sent.")
    messages: int = Field(description="Made, each for all its listeners.")
    failures: int = Field(description="Messages that could not be made or answered, by a fault of the daemon.")
    frames_written: int
    bytes_written: int
    batch_efficiency: float | None = Field(description="1 - frames written / (events x listeners they were for).")
    disconnect_rate_per_minute: float
    avg_connection_duration_seconds: float | None
    window_ms: float = Field(description="How long messages are gathered now, under load.")
    latency_p50_ms: float | None = Field(description="From publication to the last write, in the last minute.")
    latency_p95_ms: float | None
