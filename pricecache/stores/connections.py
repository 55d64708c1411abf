"""Connections: by which broker, or by whose posts, a user's accounts are known here, and how it stands with each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from pricecache.errors import Conflict, NotFound
from pricecache.stores.ids import instant_of, new_id
from pricecache.stores.keys import digest_of
from pricecache.stores.ledger import Companion, LedgerMoved

Document = dict[str, Any]
Provider = Literal["plaid", "posted"]
ConnectionState = Literal["new", "active", "login_required", "revoked", "removing"]
CONNECTION_STATES: tuple[str, ...] = get_args(ConnectionState)


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why the last fetch brought nothing. `at`: of the first failure in a row, in seconds since 1970 UTC;
    `attempts`: how many there were since."""

    code: str
    detail: str
    at: float
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Connection:
    """One user's connection. Times are seconds since 1970-01-01T00:00Z.

    `portfolio`: where its rows go, None until one is made; `portfolio_name`: what that is to be called, if it was said.
    `provider`: `plaid` is fetched, `posted` is what somebody posts under the name `source`. `item`: Plaid's name of it.
    `state`: `new` (nothing came since it was made), `active`, `login_required` (the user has to log in at the
    institution again), `revoked` (access is gone, connect again),
    `removing` (deleted here, not yet at Plaid; users do not see it). `accounts`: the ledger's account for each of the
    broker's. `first_day`: from when on all rows are known, days since 1970-01-01. `fetched_at`: when the broker last
    said how things stand; `next_fetch_at`: when it is asked again, None where that has no use. `wants` counts who
    asked for a fetch; `wants_all`: of all rows there are, and not of the latest only. `version` grows with what came.

    What opens it at Plaid is not here: `ConnectionStore.sealed` alone gives that.
    """

    id: str
    user: str
    provider: Provider
    portfolio: str | None = None
    portfolio_name: str | None = None
    source: str | None = None
    item: str | None = None
    institution: str | None = None
    state: ConnectionState = "new"
    accounts: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    fetched_at: float | None = None
    next_fetch_at: float | None = None
    failure: FetchFailure | None = None
    first_day: int | None = None
    wants: int = 0
    wants_all: bool = False
    version: int = 1


class ConnectionStore:
    """The collection `connections`. Loop-only; safe against writers in any process.

    Every connection belongs to a user: to all others it is not there, and neither is one in state `removing`.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._connections = database["connections"]

    # who has which

    async def get(self, user: str, connection_id: str) -> Connection:
        """Raises `NotFound` with code `unknown_connection`."""
        found = await self.find(connection_id)
        if found is None or found.user != user or found.state == "removing":
            raise NotFound("There is no such connection.", code="unknown_connection")
        return found

    async def find(self, connection_id: str) -> Connection | None:
        """Whoever's it is."""
        document = await self._connections.find_one({"_id": connection_id})
        return None if document is None else _connection(document)

    async def all_of(self, user: str, portfolio: str | None = None) -> list[Connection]:
        """Oldest first; `portfolio`: only those whose rows go there."""
        key: Document = {"user": user, "state": {"$ne": "removing"}}
        if portfolio is not None:
            key["portfolio"] = portfolio
        return [_connection(found) async for found in self._connections.find(key).sort("_id", 1)]

    # beginning

    async def create_posted(self, user: str, source: str, portfolio: str | None, now: float) -> Connection:
        """The connection for what `user` posts as `source` into `portfolio`: made if there is none.

        `portfolio` None: the one that such a post had made for it before, or will have. What is posted without a
        portfolio and what names the one made for it then is one connection.
        """
        if portfolio is not None:
            key = {"user": user, "provider": "posted", "source": source, "portfolio": portfolio}
            if (known := await self._connections.find_one(key, sort=[("_id", 1)])) is not None:
                return _connection(known)
        facts = {"user": user, "provider": "posted", "source": source, "portfolio": portfolio}
        # one text, as an index over a list has an entry for each of its elements
        key = {"postedAs": "\n".join((user, portfolio or "", source))}
        return await self._upserted(key, {"$setOnInsert": _born(facts, now)})

    async def create_plaid(
        self,
        user: str,
        item: str,
        sealed: bytes,
        public_token: str,
        now: float,
        *,
        portfolio: str | None = None,
        portfolio_name: str | None = None,
    ) -> Connection:
        """The connection of an item that the user has opened, to be fetched at once. `sealed`: what opens it,
        encrypted; of `public_token` only the digest is kept.

        One that is there already is opened by `sealed` from now on. Raises `Conflict` with code
        `connected_by_another` when it is another user's, `connection_being_removed` while it is taken back at Plaid,
        which ends what opens it whatever is said here.
        """
        facts = {"provider": "plaid", "portfolio": portfolio, "portfolioName": portfolio_name}
        born = _born(facts, now)
        del born["state"]
        opened = {
            "$setOnInsert": born,
            "$set": {"sealed": sealed, "state": "new", "nextFetchAt": instant_of(now), "failure": None},
            "$addToSet": {"publicTokens": digest_of(public_token)},
            "$inc": {"wants": 1},
        }
        try:
            return await self._upserted({"item": item, "user": user, "state": {"$ne": "removing"}}, opened)
        except DuplicateKeyError:
            raise await self._held(item, user) from None

    async def _held(self, item: str, user: str) -> Conflict:
        found = await self.by_item(item)
        if found is not None and found.user != user:
            return Conflict("Somebody else has connected these accounts.", code="connected_by_another")
        return Conflict(
            "This connection is being removed at Plaid: link the accounts anew in a minute.",
            code="connection_being_removed",
        )

    async def _upserted(self, key: Document, update: Document) -> Connection:
        for is_last in (False, True):
            try:
                document = await self._connections.find_one_and_update(
                    key, update, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # two made it at once
                if is_last:
                    raise
                continue
            assert document is not None  # an upsert that returns the document after it
            return _connection(document)
        raise AssertionError("unreachable")

    async def by_public_token(self, user: str, public_token: str) -> Connection | None:
        """The user's connection that this token has opened."""
        key = {"user": user, "publicTokens": digest_of(public_token), "state": {"$ne": "removing"}}
        document = await self._connections.find_one(key)
        return None if document is None else _connection(document)

    async def by_item(self, item: str) -> Connection | None:
        """Whoever's it is."""
        document = await self._connections.find_one({"item": item})
        return None if document is None else _connection(document)

    # what opens it

    async def sealed(self, connection_id: str) -> bytes | None:
        """What opens it, encrypted."""
        document = await self._connections.find_one({"_id": connection_id}, {"sealed": 1})
        return None if document is None or "sealed" not in document else bytes(document["sealed"])

    async def reseal(self, connection_id: str, before: bytes, after: bytes) -> None:
        """Put the same under another key in the place of `before`, if that still stands there."""
        await self._connections.update_one({"_id": connection_id, "sealed": before}, {"$set": {"sealed": after}})

    # when it is fetched

    async def due(self, now: float, limit: int) -> list[Connection]:
        """Those to be fetched, or removed at Plaid, by now; who waits longest comes first."""
        found = self._connections.find({"nextFetchAt": {"$lte": instant_of(now)}}).sort("nextFetchAt", 1).limit(limit)
        return [_connection(document) async for document in found]

    async def want(self, connection_id: str, at: float, *, everything: bool = False) -> None:
        """Have it fetched at an instant, if it is not to be sooner, and again if one goes on now."""
        when = instant_of(at)
        told: Document = {
            "nextFetchAt": {"$min": [{"$ifNull": ["$nextFetchAt", when]}, when]},
            "wants": {"$add": [{"$ifNull": ["$wants", 0]}, 1]},
        }
        if everything:
            told["wantsAll"] = True
        await self._connections.update_one({"_id": connection_id, "provider": "plaid"}, [{"$set": told}])

    # what becomes of it

    async def settle(self, before: Connection, portfolio: str, accounts: Mapping[str, str]) -> Connection:
        """Say where its rows go: the portfolio, and the ledger's account for each of the broker's.

        Raises `Conflict` with code `connection_changed` when that was said otherwise since `before` was read, or the
        connection is gone.
        """
        return await self._settle(before, portfolio, accounts)

    def settling(self, before: Connection, portfolio: str, accounts: Mapping[str, str]) -> Companion:
        """The same within a transaction of somebody else's, where `LedgerMoved` is raised instead."""

        async def write(session: AsyncClientSession) -> None:
            try:
                await self._settle(before, portfolio, accounts, session)
            except Conflict as exc:
                raise LedgerMoved from exc

        return write

    async def _settle(
        self,
        before: Connection,
        portfolio: str,
        accounts: Mapping[str, str],
        session: AsyncClientSession | None = None,
    ) -> Connection:
        told = {"portfolio": portfolio, "accounts": _pairs(accounts)}
        document = await self._connections.find_one_and_update(
            {"_id": before.id, "portfolio": before.portfolio, "accounts": _pairs(before.accounts)},
            {"$set": told},
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if document is None:
            raise Conflict("The connection was changed meanwhile.", code="connection_changed")
        return _connection(document)

    def receiving(self, connection_id: str, at: float, first_day: int) -> Companion:
        """`received`, within a transaction of somebody else's."""

        async def write(session: AsyncClientSession) -> None:
            await self.received(connection_id, at, first_day, session=session)

        return write

    async def received(
        self,
        connection_id: str,
        at: float,
        first_day: int,
        *,
        institution: str | None = None,
        session: AsyncClientSession | None = None,
    ) -> None:
        """The broker has said how things stand: it is `active`, and nothing failed since."""
        told: Document = {"state": "active", "fetchedAt": instant_of(at), "firstDay": first_day, "failure": None}
        if institution is not None:
            told["institution"] = institution
        key = {"_id": connection_id, "state": {"$ne": "removing"}}
        await self._connections.update_one(key, {"$set": told, "$inc": {"version": 1}}, session=session)

    async def fetch_again(self, before: Connection, at: float | None, sooner: float, *, has_all: bool = False) -> None:
        """A fetch that began with `before` is over: the next one is `at` an instant, None for none, or at `sooner` if
        somebody has asked for one meanwhile. `has_all`: it brought all that was wanted."""
        unasked = {"$eq": [{"$ifNull": ["$wants", 0]}, before.wants]}
        when = None if at is None else instant_of(at)
        told: Document = {"nextFetchAt": {"$cond": [unasked, when, instant_of(sooner)]}}
        if has_all:
            told["wantsAll"] = {"$cond": [unasked, False, {"$ifNull": ["$wantsAll", False]}]}
        await self._connections.update_one({"_id": before.id}, [{"$set": told}])

    async def failed(self, before: Connection, code: str, detail: str, now: float) -> FetchFailure:
        """Note that a fetch brought nothing, once more if the last one did neither. The state says the rest."""
        last = before.failure
        found = FetchFailure(code, detail, now if last is None else last.at, 1 if last is None else last.attempts + 1)
        noted = {"code": code, "detail": detail, "at": instant_of(found.at), "attempts": found.attempts}
        await self._connections.update_one({"_id": before.id}, {"$set": {"failure": noted}})
        return found

    async def put_in(self, connection_id: str, state: ConnectionState) -> None:
        """Set its state; one that is being removed stays so."""
        await self._connections.update_one(
            {"_id": connection_id, "state": {"$ne": "removing"}}, {"$set": {"state": state}}
        )

    async def remove(self, connection_id: str, at: float) -> None:
        """Hide it from its user, until it is taken back at Plaid too, which is tried from `at` on."""
        told = {"state": "removing", "nextFetchAt": instant_of(at), "failure": None}
        await self._connections.update_one({"_id": connection_id}, {"$set": told, "$inc": {"wants": 1}})

    async def delete(self, connection_id: str) -> None:
        """Forget it, and what opens it. Idempotent."""
        await self._connections.delete_one({"_id": connection_id})


def _born(facts: Document, now: float) -> Document:
    return {"_id": new_id(), **facts, "state": "new", "accounts": [], "createdAt": instant_of(now), "version": 1}


def _pairs(accounts: Mapping[str, str]) -> list[list[str]]:
    # a broker's ids may hold what a field's name may not
    return [[broker, ledger] for broker, ledger in sorted(accounts.items())]


def _connection(document: Document) -> Connection:
    get = document.get
    failure = get("failure")
    return Connection(
        id=document["_id"],
        user=document["user"],
        provider=document["provider"],
        portfolio=get("portfolio"),
        portfolio_name=get("portfolioName"),
        source=get("source"),
        item=get("item"),
        institution=get("institution"),
        state=document["state"],
        accounts=dict(document["accounts"]),
        created_at=document["createdAt"].timestamp(),
        fetched_at=_seconds(get("fetchedAt")),
        next_fetch_at=_seconds(get("nextFetchAt")),
        failure=None if failure is None else FetchFailure(**{**failure, "at": failure["at"].timestamp()}),
        first_day=get("firstDay"),
        wants=get("wants", 0),
        wants_all=get("wantsAll", False),
        version=document["version"],
    )


def _seconds(instant: Any) -> float | None:
    return None if instant is None else instant.timestamp()
