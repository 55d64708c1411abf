"""Fetching what a broker says: one connection at a time in all daemons, each on its own, tried again when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from pymongo.errors import PyMongoError

from pricecache.background import cancelled
from pricecache.brokers.plaid_accounts import shown_accounts
from pricecache.brokers.plaid_client import PlaidClient
from pricecache.brokers.plaid_errors import of_code
from pricecache.brokers.plaid_pages import gathered
from pricecache.brokers.plaid_payload import plaids_day, read_plaid
from pricecache.brokers.plaid_webhooks import instant_in
from pricecache.brokers.secrets import SecretBox
from pricecache.clock import Clock
from pricecache.core.bars import DAY_SECONDS, day_of
from pricecache.core.broker.account_identity import ShownAccounts, renamed
from pricecache.core.broker.data import BrokerData
from pricecache.core.broker.merge import merged
from pricecache.errors import (
    AccessRevoked,
    BrokerUnavailable,
    Conflict,
    Corrupt,
    Invalid,
    LoginRequired,
    PricecacheError,
    Unavailable,
)
from pricecache.portfolio.fetching_soon import SOON_SECONDS, SoonFetches
from pricecache.portfolio.repeated_accounts import already_connected, repeated
from pricecache.stores.connection_documents import Connection, ConnectionState, Notice
from pricecache.stores.connections import ConnectionStore
from pricecache.stores.leases import Lease, LeaseStore

if TYPE_CHECKING:
    from pricecache.stores.broker_data import BrokerDataStore
    from pricecache.stores.runs import RunHandle

log = structlog.get_logger(__name__)

FETCH_JOB = "broker_fetch"
FIRST_DAYS = 730
"""How far back Plaid goes: 24 months."""
OVERLAP_DAYS = 30
"""How far back later fetches go: rows are posted late, and mended."""
AT_ONCE = 4
"""Side by side of those that are due; half as many more that somebody waits for."""
MOST_AT_A_TIME = 1000
ROUND_SECONDS = 40.0
"""How long after its beginning a run begins to fetch one that is due: the rest is for the next run, a minute later."""
EXPIRES_SECONDS = 7 * DAY_SECONDS
"""How long before its end a user is told that access ends: as long as Plaid tells of it before."""
_EARLY_SECONDS = 1.0
"""How much sooner than its time one is fetched that was told to be due: clocks differ."""
_USERS_TURN = frozenset({"portfolio_gone", "already_connected"})
"""Codes of what no time mends."""
_OUR_FAULT = "Something went wrong here. It is tried again; the log says what it was."
_LONGEST_WAIT = 4 * 3600.0
_STATES: dict[type[PricecacheError], ConnectionState] = {LoginRequired: "login_required", AccessRevoked: "revoked"}


@dataclass(frozen=True, slots=True)
class Plaid:
    """How Plaid is reached, and by what access tokens are kept."""

    client: PlaidClient
    box: Callable[[], Awaitable[SecretBox]]


class Fetcher:
    """Fetches connections. Loop-only. `interval`: seconds between two fetches of one that nobody asks for.

    `soon`: begins those that are wanted a few seconds from now.

    `on_fetched` is awaited with each connection of which new data is stored; as long as it fails, so does the fetch.
    """

    def __init__(
        self,
        plaid: Plaid,
        connections: ConnectionStore,
        data: BrokerDataStore,
        leases: LeaseStore,
        clock: Clock,
        chance: random.Random,
        soon: SoonFetches,
        *,
        interval: float = DAY_SECONDS,
    ) -> None:
        self._plaid = plaid
        self._connections = connections
        self._data = data
        self._leases = leases
        self._clock = clock
        self._chance = chance
        self.soon = soon
        self._interval = interval
        self._going: set[str] = set()
        self._slots, self._slots_asked = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE // 2)
        self.on_fetched: Callable[[Connection], Awaitable[object]] = _nobody

    async def run(self, handle: RunHandle) -> None:
        """The job: those that the run names, with `ifDue` if they still are, or all that are due."""
        named, if_due = handle.parameters.get("connections"), handle.parameters.get("ifDue")
        if named is None or if_due:
            now = self._clock.time() + (_EARLY_SECONDS if if_due else 0.0)
            wanted = [found.id for found in await self._connections.due(now, MOST_AT_A_TIME, named)]
        else:
            wanted = list(named)
        handle.progress(0, len(wanted))
        slots = self._slots if named is None else self._slots_asked
        until = self._clock.monotonic() + ROUND_SECONDS

        async def one(connection_id: str) -> None:
            async with slots:
                is_late = named is None and self._clock.monotonic() > until
                if not handle.stopping and not is_late:
                    await self._one_of(handle, connection_id)
                if not handle.stopping:
                    handle.progress(handle.run.done + 1, len(wanted))

        async with asyncio.TaskGroup() as tasks:
            for connection_id in wanted:
                tasks.create_task(one(connection_id), name=f"fetch {connection_id}")

    async def _one_of(self, handle: RunHandle, connection_id: str) -> None:
        try:
            handle.count(await self.fetch(connection_id))
        except PricecacheError as exc:
            handle.fail_connection(connection_id, exc.code, _for_all(exc))
        except PyMongoError as exc:
            handle.fail_connection(connection_id, "database_unavailable", type(exc).__name__)
        except Exception as exc:  # a fault of ours in one user's data is no reason to leave out the others
            log.exception("a connection could not be fetched", connection=connection_id)
            handle.fail_connection(connection_id, "internal_error", type(exc).__name__)

    async def want_soon(self, connection_id: str, *, everything: bool = False) -> None:
        """Have it fetched in a few seconds, and again if a fetch goes on now. `everything`: with all rows there are."""
        await self._connections.want(connection_id, self._clock.time() + SOON_SECONDS, everything=everything)
        self.soon.add(connection_id)

    def is_going(self, connection_id: str) -> bool:
        """Whether it is fetched here now."""
        return connection_id in self._going

    async def fetch(self, connection_id: str) -> str:
        """Fetch it now, or end its removal: `fetched`, `removed`, or `left` where there is nothing to do or it is
        being done already.

        Raises what went wrong, which is noted in the connection, with the time of the next attempt.
        """
        if connection_id in self._going:  # two tasks of one daemon are one owner of a lease
            return "left"
        self._going.add(connection_id)
        try:
            name = f"fetch:{connection_id}"
            epoch = await self._leases.acquire(name)
            if epoch is None:
                return "left"
            return await self._leased(connection_id, Lease(self._leases, name, epoch, self._clock))
        finally:
            self._going.discard(connection_id)

    async def _leased(self, connection_id: str, lease: Lease) -> str:
        working = asyncio.create_task(self._attempt(connection_id), name=f"fetching {connection_id}")
        keeping = asyncio.create_task(self._keep(lease, working), name=f"lease of {connection_id}")
        try:
            return await working
        except asyncio.CancelledError:
            if working.cancelled() and not _is_cancelled():
                return "left"  # another daemon has the lease
            raise
        finally:
            await cancelled([working, keeping])
            await lease.give_back()

    async def _keep(self, lease: Lease, working: asyncio.Task[str]) -> None:
        while await lease.keep():
            await self._clock.sleep(self._leases.ttl / 3)
        working.cancel()

    async def _attempt(self, connection_id: str) -> str:
        connection = await self._connections.begin(connection_id, self._clock.time())
        if connection is None or connection.provider != "plaid":
            return "left"
        try:
            if connection.state == "removing":
                await self.remove_at_broker(connection)
                return "removed"
            await self._bring(connection)
        except PricecacheError as exc:
            await self._failed(connection, exc)
            raise
        except PyMongoError:
            raise  # nothing can be noted, so it stays due
        except Exception:
            # whatever it is, it must not be tried without end, and its user is told that nothing new is here
            await self._connections.failed(connection, "internal_error", _OUR_FAULT, self._clock.time())
            await self.fetch_again(connection, self._later(self._interval))
            raise
        if connection.failure is not None:
            log.info("a connection is fetched again", connection=connection.id)
        await self.fetch_again(connection, self._later(self._interval), has_all=True)
        return "fetched"

    async def _bring(self, connection: Connection) -> None:
        token = await self._token(connection)
        now = self._clock.time()
        today = plaids_day(now)
        start = await self._first_day(connection, today)
        holdings, pages = await gathered(self._plaid.client, token, day_of(start), day_of(today))
        institution, shown = _institution(holdings), shown_accounts(holdings)
        if connection.shown is not None:
            shown = shown.with_earlier(connection.shown)
        await self._refuse_repeated(connection, shown)
        fetched = await asyncio.to_thread(
            read_plaid, holdings, pages, today=today, first_day=start, institution=institution
        )
        try:
            kept = await self._store(connection, fetched)
        except Corrupt as exc:
            log.error("broker data cannot be read and is replaced", connection=connection.id, error=exc.detail)
            await self._data.delete(connection.id)
            await self._bring(connection)  # with nothing there, all there is
            return
        await self._connections.received(connection.id, now, kept.first_day, institution=institution, shown=shown)
        await self._note_expiry(connection, holdings, now)
        present = await self._connections.find(connection.id)
        if present is not None and present.state != "removing":
            await self.on_fetched(present)
        if (error := _item_error(holdings)) is not None:
            raise error

    async def _note_expiry(self, connection: Connection, holdings: Mapping[str, Any], now: float) -> None:
        until = _consent_until(holdings)
        if until is not None and until - now > EXPIRES_SECONDS:
            await self._connections.attended(connection.id, now, "expires_soon")
        elif until is not None and not any(one.until == until for one in connection.notices):
            await self._connections.notice(connection.id, Notice("expires_soon", now, until=until))
        elif any(one.until is not None and one.until < now for one in connection.notices):
            await self._connections.attended(connection.id, now, "expires_soon")  # it has not come to that

    async def _first_day(self, connection: Connection, today: int) -> int:
        first, last = today - FIRST_DAYS, connection.fetched_at
        if last is None or connection.wants_all or not await self._data.version(connection.id):
            return first
        return max(first, plaids_day(last) - OVERLAP_DAYS)

    async def _refuse_repeated(self, connection: Connection, shown: ShownAccounts) -> None:
        """What could not be told when it was made: whether another has its accounts, earlier or fetched by now."""
        if connection.fetched_at is not None or connection.may_repeat:
            return
        # of two that are new the earlier one stays, or each would be refused for the other
        others = await self._connections.all_of(connection.user)
        before = [one for one in others if one.id < connection.id or one.fetched_at is not None]
        if (found := repeated(shown, before)) is not None:
            raise already_connected(found[0])

    async def _store(self, connection: Connection, fetched: BrokerData) -> BrokerData:
        found = await self._data.load(connection.id)

        def joined(before: BrokerData) -> BrokerData:
            return merged(renamed(before, connection.renamed), fetched)

        kept = fetched if found is None else await asyncio.to_thread(joined, found[0])
        await self._data.save(connection.id, kept, 0 if found is None else found[1])
        return kept

    async def _token(self, connection: Connection) -> str:
        sealed = await self._connections.sealed(connection.id)
        if sealed is None or connection.item is None:
            raise AccessRevoked
        box = await self._plaid.box()
        token = box.open(sealed, connection.item)
        if (renewed := box.renewed(sealed)) is not None:
            await self._connections.reseal(connection.id, sealed, renewed)
        return token

    async def remove_at_broker(self, connection: Connection) -> None:
        """End the access at Plaid, then forget the connection, what opens it, and what it brought."""
        with contextlib.suppress(AccessRevoked):  # it has ended there already
            await self._plaid.client.remove(await self._token(connection))
        await self._data.delete(connection.id)
        await self._connections.delete(connection.id)

    # ---- when it fails

    async def _failed(self, connection: Connection, error: PricecacheError) -> None:
        last = connection.failure
        found = await self._connections.failed(connection, error.code, error.detail, self._clock.time())
        tell = log.debug if last is not None and last.code == error.code else log.warning
        state = _STATES.get(type(error))
        if state is not None and connection.state != "removing":
            await self._connections.put_in(connection.id, state)
            tell = log.debug if tell == log.debug else log.info  # it is the user's to mend
        tell("a connection cannot be fetched", connection=connection.id, code=error.code, detail=_for_all(error))
        wait = self._wait(error, found.attempts)
        await self.fetch_again(connection, None if wait is None else self._later(wait))

    def _wait(self, error: PricecacheError, attempts: int) -> float | None:
        if isinstance(error, AccessRevoked) or error.code in _USERS_TURN:
            return None
        if not isinstance(error, BrokerUnavailable | Unavailable | Conflict):
            return self._interval  # a login that was mended elsewhere is noticed too
        first = 30.0 if error.code == "plaid_not_ready" else 60.0
        wait = min(first * 2.0 ** min(attempts - 1, 16), _LONGEST_WAIT)
        return max(wait, getattr(error, "retry_after", None) or 0.0)

    def _later(self, seconds: float) -> float:
        """Not all at once, and never sooner."""
        return self._clock.time() + seconds * self._chance.uniform(1.0, 1.1)

    async def fetch_again(self, connection: Connection, at: float | None, *, has_all: bool = False) -> None:
        """What began with `connection` is over: the next fetch is `at` an instant, None for none, or soon if somebody
        has asked for one meanwhile. `has_all`: it brought all that was wanted."""
        soon = self._clock.time() + SOON_SECONDS
        if await self._connections.fetch_again(connection, at, soon, has_all=has_all):
            self.soon.add(connection.id)


async def _nobody(connection: Connection) -> None:
    pass


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _for_all(error: PricecacheError) -> str:
    """What others than the user may read: the faults of a payload quote what is in it."""
    return "Its user is told what is wrong." if isinstance(error, Invalid) else error.detail


def _item_error(holdings: Mapping[str, Any]) -> PricecacheError | None:
    """What Plaid says is wrong with the login beside data that it has from before."""
    item = holdings.get("item")
    error = item.get("error") if isinstance(item, dict) else None
    if not isinstance(error, dict):
        return None
    return of_code(str(error.get("error_code")), "", "")


def _consent_until(holdings: Mapping[str, Any]) -> float | None:
    item = holdings.get("item")
    return instant_in(item.get("consent_expiration_time")) if isinstance(item, dict) else None


def _institution(holdings: Mapping[str, Any]) -> str | None:
    item = holdings.get("item")
    name = item.get("institution_name") if isinstance(item, dict) else None
    return name[:200] if isinstance(name, str) and name else None
