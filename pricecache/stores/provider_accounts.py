"""The accounts of the providers, one document each, which all daemons on one database share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import pymongo
import structlog
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

from pricecache.clock import Clock
from pricecache.core.asking import Lane, Pace
from pricecache.core.bars import DAY_SECONDS
from pricecache.core.provider_accounts import Account, Admission, Change, Hour
from pricecache.stores.commits import pause

log = structlog.get_logger(__name__)

KEPT_SOON, KEPT_LATER = 1.0, 15.0
"""Seconds after which what was noted is stored, if no call stored it before: of shared accounts, of local ones."""
FRESH_SECONDS = 1.0
LOOKED_AT_SECONDS = 60.0
PATIENCE = 2.0
"""Seconds that a call waits for the database; when it does not answer, calls go on without it for `AWAY_SECONDS`."""
AWAY_SECONDS = 5.0
ATTEMPTS = 12
WRITERS_KEPT_SECONDS = 2.0 * DAY_SECONDS


class SharedAccount:
    """Keeps the account of one provider in the database. Loop-only; a `Keeper`.

    Every call is let in by a compare-and-set on the stored account, so that rate, budget, breaker and cool-down hold
    for all daemons together; what became of earlier calls is stored with it. Between, and while the database is away,
    the account is kept in memory, and what was noted there is later done to whatever the stored account has become.

    Each change has a number, and the stored account says up to which number the changes of a writer are in it. So a
    write of which it is not known whether it happened neither loses nor doubles anything.

    With a pace that is local and no budget, nothing is asked before a call: notes are stored now and then.
    """

    def __init__(self, name: str, pace: Pace, clock: Clock) -> None:
        self.name = name
        self.account = Account()
        self._pace = pace
        self._clock = clock
        self._documents: AsyncCollection[dict[str, Any]] | None = None
        self._me = secrets.token_hex(8)
        self._stored = Account()
        self._version = 0
        self._writers: dict[str, list[float]] = {}
        self._number = 0
        self._pending: list[tuple[int, Change]] = []
        self._turn = asyncio.Lock()
        self._saving: asyncio.Task[None] | None = None
        self._looked_at = self._saved_at = self._away_until = float("-inf")

    @property
    def is_shared(self) -> bool:
        """Whether a call asks the database before it is made."""
        return not self._pace.local or self._pace.per_day is not None

    def open(self, documents: AsyncCollection[dict[str, Any]], document: Mapping[str, Any] | None) -> None:
        """Keep it in `documents` from now on; `document` is what is there."""
        self._documents = documents
        self._take(document)

    # ---- what a pool asks

    async def admit(self, lane: Lane, cost: int, trial_cost: int) -> Admission:
        if not self.is_shared or not self._is_there:
            return self._admitted(lane, cost, trial_cost)
        async with self._turn:
            for attempt in range(ATTEMPTS):
                admission = self._admitted(lane, cost, trial_cost)
                if admission.wait or await self._kept(self._number):
                    return admission
                await pause(attempt)
        log.debug("account overtaken", provider=self.name)
        return self._admitted(lane, cost, trial_cost)

    def give_back(self, admission: Admission) -> None:
        self.note(partial(_returned, pace=self._pace, admission=admission))

    def note(self, change: Change) -> tuple[Account, Account]:
        before = self.account
        self._number += 1
        self._pending.append((self._number, change))
        self.account = change(before)
        if before.guard != self.account.guard:
            self._save_soon()
        return before, self.account

    async def apply(self, change: Change) -> None:
        self.note(change)
        await self.save()

    async def freshen(self) -> None:
        await self._look(FRESH_SECONDS)

    # ---- what goes on beside

    async def maintain(self) -> None:
        """Store what was noted, and look at what others have, when it is time to."""
        soon = KEPT_SOON if self.is_shared else KEPT_LATER
        if not self._is_there:
            return
        if self._pending and self._clock.monotonic() - self._saved_at >= soon:
            await self.save()
        elif self.is_shared:
            await self._look(LOOKED_AT_SECONDS)

    async def save(self) -> None:
        """Store what was noted. When the database does not answer it stays noted."""
        async with self._turn:
            try:
                with pymongo.timeout(PATIENCE):
                    await self._save()
            except PyMongoError as exc:
                self._went_away(exc)

    async def close(self) -> None:
        """Store what was noted; nothing more comes."""
        if self._saving is not None:
            await asyncio.wait([self._saving])
        await self.save()

    # ---- the stored account

    @property
    def _is_there(self) -> bool:
        return self._documents is not None and self._clock.monotonic() >= self._away_until

    def _admitted(self, lane: Lane, cost: int, trial_cost: int) -> Admission:
        account, admission = self.account.admit(self._pace, lane, cost, trial_cost, self._clock.time())
        if not admission.wait:
            self._number += 1
            self._pending.append((self._number, partial(_entered, pace=self._pace, admission=admission)))
            self.account = account
        return admission

    async def _kept(self, number: int) -> bool:
        """Store an admission, the change `number`; False when it was overtaken, and is undone. While the database is
        away it stands."""
        try:
            with pymongo.timeout(PATIENCE):
                if await self._write(number):
                    return True
                self._pending = [(n, change) for n, change in self._pending if n != number]
                self._settle(self._stored, 0)
                await self._load()
        except PyMongoError as exc:
            self._went_away(exc)
            return any(n == number for n, _ in self._pending)
        return False

    async def _save(self) -> None:
        for attempt in range(ATTEMPTS):
            if not self._pending or await self._write(self._number):
                return
            await self._load()
            await pause(attempt)

    async def _write(self, number: int) -> bool:
        """Store the account with all changes up to `number`, the latest; False when another daemon was faster."""
        if self._documents is None:
            return True
        account, now = self.account, self._clock.time()
        known = {name: seen for name, seen in self._writers.items() if now - seen[1] < WRITERS_KEPT_SECONDS}
        writers = known | {self._me: [number, now]}
        document = {"_id": self.name, "version": self._version + 1, "writers": writers, **account_document(account)}
        try:
            result = await self._documents.replace_one(
                {"_id": self.name, "version": self._version}, document, upsert=self._version == 0
            )
        except DuplicateKeyError:
            return False  # another daemon made it
        if not result.matched_count and result.upserted_id is None:
            return False
        self._version += 1
        self._writers = writers
        self._settle(account, number)
        self._looked_at = self._saved_at = self._clock.monotonic()
        return True

    async def _look(self, seconds: float) -> None:
        if not self._is_there or self._clock.monotonic() - self._looked_at < seconds:
            return
        async with self._turn:
            try:
                with pymongo.timeout(PATIENCE):
                    await self._load()
            except PyMongoError as exc:
                self._went_away(exc)

    async def _load(self) -> None:
        if self._documents is not None:
            self._take(await self._documents.find_one({"_id": self.name}))

    def _take(self, document: Mapping[str, Any] | None) -> None:
        self._looked_at = self._clock.monotonic()
        if document is None:
            self._version = 0  # it was taken away: what is known here is put there again
            return
        self._version = document["version"]
        self._writers = dict(document["writers"])
        number = int(self._writers.get(self._me, (0, 0.0))[0])
        self._settle(account_from(document), number)

    def _settle(self, stored: Account, number: int) -> None:
        """`stored` has the changes up to `number`; the others are still to be done to it."""
        self._stored = account = stored
        self._pending = [(n, change) for n, change in self._pending if n > number]
        for _, change in self._pending:
            account = change(account)
        self.account = account

    def _save_soon(self) -> None:
        if self._documents is not None and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self.save(), name=f"{self.name}-account")

    def _went_away(self, error: PyMongoError) -> None:
        # that the database is away is told by whoever pings it
        log.debug("account kept in memory", provider=self.name, error=f"{type(error).__name__}: {error}"[:300])
        self._away_until = self._clock.monotonic() + AWAY_SECONDS


class ProviderAccounts:
    """The collection `provider_accounts`. Loop-only. Accounts are in memory only until `open`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[str, SharedAccount] = {}

    def account(self, name: str, pace: Pace) -> SharedAccount:
        """The account of one provider, which is called at `pace`."""
        return self._accounts.setdefault(name, SharedAccount(name, pace, self._clock))

    async def open(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        """Take up what is stored, and keep all of them there from now on."""
        documents = database["provider_accounts"]
        found = await documents.find({"_id": {"$in": list(self._accounts)}}).to_list()
        stored = {document["_id"]: document for document in found}
        for name, account in self._accounts.items():
            account.open(documents, stored.get(name))

    async def keep(self) -> None:
        """Store what was noted, for as long as it is not cancelled."""
        while True:
            await self._clock.sleep(KEPT_SOON)
            for account in self._accounts.values():
                await account.maintain()

    async def close(self) -> None:
        """Store what was noted, if the database answers."""
        for account in self._accounts.values():
            await account.close()


def account_document(account: Account) -> dict[str, Any]:
    plain = {f.name: getattr(account, f.name) for f in fields(Account) if f.name not in ("spent", "hours")}
    return plain | {"spent": dict(account.spent), "hours": [asdict(hour) for hour in account.hours]}


def account_from(document: Mapping[str, Any]) -> Account:
    known = {f.name: document[f.name] for f in fields(Account) if f.name in document}
    hours = tuple(Hour(**hour) for hour in document.get("hours", ()))
    return Account(**{**known, "hours": hours})


def _entered(account: Account, *, pace: Pace, admission: Admission) -> Account:
    return account.entered(pace, admission, late=True)


def _returned(account: Account, *, pace: Pace, admission: Admission) -> Account:
    return account.returned(pace, admission)
