"""Who may open a stream, how many there are of whom, and whether each may still stay."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from pricecache.api.auth import Identity
from pricecache.api.stream_newcomers import Newcomers
from pricecache.api.wire import TooManyConnections
from pricecache.clock import Clock
from pricecache.core.repeats import Repeats
from pricecache.errors import Forbidden, PricecacheError, Unavailable
from pricecache.realtime.connection import Connection
from pricecache.realtime.hub import Hub
from pricecache.realtime.realtime import switched_off

log = structlog.get_logger(__name__)

CHECK_SECONDS = 15.0
"""Between two looks at whether credentials still hold. Keys revoked elsewhere are read every 30 s, so that what is
revoked ends within 45 s."""
REVOKED = 4401
_SHARES = 10_000
_MOST_FULL = 1000
"""Users, beside all of them together (None), of whom it is known that they are refused one more."""


class Streams:
    """The stream's door. Loop-only.

    `enabled`: whether there are streams at all. `percent`: the share of users that are admitted. `most`,
    `most_of_user`: connections at a time.
    """

    def __init__(
        self,
        hub: Hub,
        identity: Identity,
        clock: Clock,
        *,
        enabled: bool = True,
        percent: float = 100.0,
        most: int = 1000,
        most_of_user: int = 20,
    ) -> None:
        self.hub = hub
        self.enabled = enabled
        self.most = most
        self._identity = identity
        self._clock = clock
        self.now = clock.monotonic
        self._percent = percent
        self._most_of_user = most_of_user
        self._of_user: dict[str, int] = {}
        self._full: set[str | None] = set()
        self._refused = Repeats()
        self._recheck = asyncio.Event()
        self.newcomers = Newcomers(clock)

    def require_admitted(self, user: str) -> None:
        """Raises `Unavailable` code `realtime_off` or `stopping`, `Forbidden` code `realtime_not_admitted`."""
        if not self.enabled:
            raise switched_off()
        if self.hub.is_closed:
            raise Unavailable("The daemon is stopping.", code="stopping", retry_after=2.0)
        if not is_admitted(user, self._percent):
            raise Forbidden("Streams are not served to you yet; ask by REST.", code="realtime_not_admitted")

    def take_seat(self, user: str) -> None:
        """Count one more connection of a user, until `leave_seat`. Raises `Unavailable` code `too_many_connections`,
        `TooManyConnections`."""
        self.require_admitted(user)
        taken = self._of_user.get(user, 0)
        if taken >= self._most_of_user:
            error: PricecacheError = TooManyConnections(f"A user may have {self._most_of_user} streams open.")
            self._tell_full(user, error.code, self._most_of_user)
            raise error
        if sum(self._of_user.values()) >= self.most:
            error = Unavailable("All streams are taken.", code="too_many_connections", retry_after=5.0)
            self._tell_full(None, error.code, self.most)
            raise error
        self._of_user[user] = taken + 1
        for whose in (None, user):
            if whose in self._full:
                self._full.discard(whose)
                log.info("streams are taken in again", **_named(whose))

    def leave_seat(self, user: str) -> None:
        left = self._of_user[user] - 1
        if left:
            self._of_user[user] = left
        else:
            del self._of_user[user]

    def tell_refused(self, error: PricecacheError) -> None:
        """Log that somebody was not let in, now and then."""
        if count := self._refused.count(error.code, self.now()):
            log.info("stream refused", code=error.code, count=count)

    def _tell_full(self, whose: str | None, code: str, limit: int) -> None:
        if whose not in self._full and len(self._full) < _MOST_FULL:
            self._full.add(whose)
            log.warning("streams are refused", code=code, limit=limit, **_named(whose))

    def leave(self, connection: Connection) -> None:
        """The connection has ended, and its seat is free."""
        self.hub.lost(connection)
        self.newcomers.forget(connection)
        self.leave_seat(connection.user)

    async def close(self) -> None:
        """Tell everybody to go elsewhere. Nobody is let in again."""
        await self.hub.close()
        await self.newcomers.close()

    # ---- revocation

    def check_soon(self) -> None:
        """Something was revoked here: look at once who has to go."""
        self._recheck.set()

    async def keep_checking(self) -> None:
        """End connections whose credential holds no longer, until cancelled."""
        while True:
            await self._until_due()
            try:
                await self.check()
            except (PricecacheError, PyMongoError, TimeoutError) as exc:
                log.debug("credentials of streams not checked", error=str(exc))

    async def check(self) -> None:
        """Look at the credentials of all connections, and end those that hold no longer."""
        connections = self.hub.connections()
        asked = {connection.credential for connection in connections}
        holding = await self._identity.holding(asked)
        for connection in connections:
            if connection.credential not in holding:
                self.hub.end(connection, REVOKED, "access_revoked")

    async def _until_due(self) -> None:
        due = asyncio.ensure_future(self._clock.sleep(CHECK_SECONDS))
        told = asyncio.ensure_future(self._recheck.wait())
        try:
            await asyncio.wait([due, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()
            told.cancel()
        self._recheck.clear()

    def status(self) -> Mapping[str, Any]:
        """All figures by snake_case name."""
        return {**self.hub.status(), "connection_limit": self.most, "users": len(self._of_user)}


def _named(user: str | None) -> dict[str, str]:
    return {} if user is None else {"user": user}


def is_admitted(user: str, percent: float) -> bool:
    """Whether a user is among the `percent` that are admitted: the same answer on every daemon and day, and those
    admitted stay so when the share grows."""
    place = int.from_bytes(hashlib.sha256(user.encode()).digest()[:8], "big") % _SHARES
    return place < percent / 100 * _SHARES
