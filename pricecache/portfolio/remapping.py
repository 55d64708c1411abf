"""Has the histories made again of those whose security was decided to be something else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from pymongo.errors import PyMongoError

from pricecache.clock import Clock
from pricecache.portfolio.reconstruction_queue import ReconstructionQueue

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0
BY = "mapping"


class Remapping:
    """Loop-only. `users_of`: who has a security that is the one of a mapping.

    What a daemon that ends had heard of and not asked for yet comes with the next reconstruction of those concerned.
    """

    def __init__(
        self, users_of: Callable[[str], Awaitable[list[str]]], queue: ReconstructionQueue, clock: Clock
    ) -> None:
        self._users_of = users_of
        self._queue = queue
        self._clock = clock
        self._decided: dict[tuple[str | None, str], None] = {}
        self._is_wanted = asyncio.Event()
        self._is_failing = False

    def decided(self, user: str | None, mapping_id: str) -> None:
        """Something was decided, or taken back, by a user for themselves, or for everybody (None). Returns at once."""
        self._decided[user, mapping_id] = None
        self._is_wanted.set()

    async def run(self) -> None:
        """Ask for what is concerned, until cancelled."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            while self._decided:
                user, mapping_id = one = next(iter(self._decided))
                del self._decided[one]  # before it is asked for: what is decided meanwhile has to be asked for again
                try:
                    await self._ask(user, mapping_id)
                except PyMongoError as exc:
                    self._decided[one] = None
                    tell = log.debug if self._is_failing else log.warning
                    tell("reconstructions after a decision wait for the database", error=str(exc)[:300])
                    self._is_failing = True
                    await self._clock.sleep(RETRY_SECONDS)
                else:
                    self._is_failing = False

    async def _ask(self, user: str | None, mapping_id: str) -> None:
        for one in await self._users_of(mapping_id) if user is None else [user]:
            for record in await self._queue.store.all_of(one):
                await self._queue.request(record.connection, one, record.portfolio, BY)
