"""What all parts of a daemon stand on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.clock import Clock
from pricecache.core.sessions import CalendarBook
from pricecache.metrics import Metrics
from pricecache.providers.chain import ProviderChain
from pricecache.settings import Settings

MIB = 1 << 20
UNEVENTFUL_RUNS_KEPT = 144
"""Of a job that looks often and seldom finds something to do: its last runs in which nothing happened."""


@dataclass(frozen=True, slots=True)
class Ground:
    """`owner`: what this daemon is called among those on the same database."""

    settings: Settings
    database: AsyncDatabase[dict[str, Any]]
    clock: Clock
    book: CalendarBook
    chain: ProviderChain
    metrics: Metrics
    owner: str

    @property
    def is_shared(self) -> bool:
        """Whether other daemons may be on the same database."""
        return self.settings.mongodb_uri is not None
