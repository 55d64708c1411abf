"""Asks the providers for instruments by name, once a day for each text, and never longer than a person waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pricecache.core.asking import Found
from pricecache.errors import ProviderError
from pricecache.stores.searches import SearchStore

WAIT_SECONDS = 4.0
MOST_FOUND = 25
"""How many instruments a provider is asked for, however few are wanted: the answer is kept for everybody."""


class SearchSource(Protocol):
    """Several providers that can be searched."""

    @property
    def name(self) -> str:
        """All their names."""

    async def search(self, text: str, limit: int) -> tuple[list[Found], dict[str, ProviderError]]:
        """What they found, and for each that could not be asked why."""


@dataclass(frozen=True, slots=True)
class Searched:
    """`found`: the likeliest first. `failures`: code by name of each provider that did not answer."""

    found: Sequence[Found] = ()
    failures: Mapping[str, str] = field(default_factory=dict)


class ProviderSearch:
    """Searches the providers. Loop-only. `source` None: there is nobody to ask."""

    def __init__(self, source: SearchSource | None, store: SearchStore, wait_seconds: float = WAIT_SECONDS) -> None:
        self._source = source
        self._store = store
        self._wait_seconds = wait_seconds

    async def search(self, text: str) -> Searched:
        """Never raises for a provider's sake. An answer is kept only when nobody failed."""
        source = self._source
        if source is None:
            return Searched()
        if (kept := await self._store.get(text, source.name)) is not None:
            return Searched(kept)
        try:
            async with asyncio.timeout(self._wait_seconds):
                found, failures = await source.search(text, MOST_FOUND)
        except ProviderError as exc:
            return Searched(failures={source.name: exc.code})
        except TimeoutError:
            return Searched(failures={source.name: "no_answer_in_time"})
        if not failures:
            await self._store.put(text, source.name, found)
        return Searched(found, {name: error.code for name, error in failures.items()})
