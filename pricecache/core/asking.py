"""What providers are asked for: what each can do, how it may be called, who goes first, what a search comes upon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pricecache.core.instruments import Instrument, InstrumentKind

Capability = Literal["history", "live", "actions", "search", "stream"]
Lane = Literal["live", "user", "heal", "deep", "search"]
LANES: tuple[Lane, ...] = ("live", "user", "heal", "deep", "search")
"""Who may call first, most urgent first: quotes; what a person waits for; healing and audits; filling far back; and
searches, which anybody may make who may read."""


@dataclass(frozen=True, slots=True)
class Found:
    """An instrument that a search came upon, in the canonical spelling. `currency`, `kind`, `name`: None if unsaid."""

    instrument: Instrument
    name: str | None = None
    kind: InstrumentKind | None = None
    currency: str | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a provider may be called: sustained rate, burst, and how many calls run side by side.

    `timeout`: seconds after which a call counts as failed. `quotes_per_call`: how many instruments one call of
    `quotes` may name, so that a call costs the vendor one request; None is any number. `per_day`: requests allowed a
    UTC day, or None. `costs`: requests that a call of a capability makes as a rule, 1 where nothing is said; a provider
    that is `CountsRequests` says afterwards how many it made. `price`: dollars a request costs. `local`: nothing
    outside this machine is asked, so that daemons need not share the rate.
    """

    per_second: float
    burst: int
    concurrency: int
    timeout: float
    quotes_per_call: int | None = None
    per_day: int | None = None
    costs: Mapping[Capability, int] = field(default_factory=dict)
    price: float = 0.0
    local: bool = False

    def cost(self, capability: Capability) -> int:
        """Requests that one call of `capability` makes."""
        return self.costs.get(capability, 1)
