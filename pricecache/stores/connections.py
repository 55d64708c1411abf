"""Connections: by which broker, or by whose posts, a user's accounts are known here, and how it stands with each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from pricecache.core.broker.account_identity import ShownAccounts, followed
from pricecache.errors import Conflict, NotFound
from pricecache.stores.connection_documents import (
    Connection,
    ConnectionState,
    Document,
    FetchFailure,
    Login,
    Notice,
    NoticeCode,
    connection_of,
    ended_login,
    new_document,
    notice_fields,
    opened_by,
    pairs,
    shown_fields,
)
from pricecache.stores.ids import instant_of
from pricecache.stores.keys import digest_of
from pricecache.stores.ledger import Companion, LedgerMoved

MOST_NOTICES = 50


class ConnectionStore:
    """The collection `connections`. Loop-only; safe against writers in any process.

    Every connection belongs to a user: to all others it is not there, and neither is one in state `removing`.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._client = database.client
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
        return None if document is None else connection_of(document)

    async def all_of(self, user: str, portfolio: str | None = None) -> list[Connection]:
        """Oldest first; `portfolio`: only those whose rows go there."""
        key: Document = {"user": user, "state": {"$ne": "removing"}}
        if portfolio is not None:
            key["portfolio"] = portfolio
        return [connection_of(found) async for found in self._connections.find(key).sort("_id", 1)]

    # beginning

    async def create_posted(
        self, user: str, source: str, portfolio: str | None, now: float, *, name: str | None = None
    ) -> Connection:
        """The connection for what `user` posts as `source` into `portfolio`: made if there is none.

        `portfolio` None: the one that such a post had made for it before, or will have. What is posted without a
        portfolio and what names the one made for it then is one connection.
        """
        if portfolio is not None:
            key = {"user": user, "provider": "posted", "source": source, "portfolio": portfolio}
            if (known := await self._connections.find_one(key, sort=[("_id", 1)])) is not None:
                return connection_of(known)
        facts = {"user": user, "provider": "posted", "source": source, "name": name, "portfolio": portfolio}
        # one text, as an index over a list has an entry for each of its elements
        key = {"postedAs": "\n".join((user, portfolio or "", source))}
        return await self._upserted(key, {"$setOnInsert": new_document(facts, now)})

    async def create_plaid(
        self,
        user: str,
        login: Login,
        now: float,
        *,
        portfolio: str | None = None,
        portfolio_name: str | None = None,
        may_repeat: bool = False,
    ) -> Connection:
        """The connection of a login that the user has opened, to be fetched at once.

        One that is there already is opened by this login from now on. Raises `Conflict` with code
        `connected_by_another` when it is another user's, `connection_being_removed` while it is taken back at Plaid,
        which ends what opens it whatever is said here.
        """
        facts = {"provider": "plaid", "portfolio": portfolio, "portfolioName": portfolio_name, "mayRepeat": may_repeat}
        born = new_document(facts, now)
        del born["state"]
        opened = {
            "$setOnInsert": born,
            "$set": opened_by(login, now),
            "$addToSet": {"publicTokens": digest_of(login.public_token)},
            "$inc": {"wants": 1},
        }
        try:
            return await self._upserted({"item": login.item, "user": user, "state": {"$ne": "removing"}}, opened)
        except DuplicateKeyError:
            raise await self._held(login.item, user) from None

    async def replace_login(self, before: Connection, login: Login, same: Mapping[str, str], now: float) -> Connection:
        """`before` goes on by another login, to be fetched at once with all there is; the former one is ended at Plaid.
        `same`: the former ids of the accounts that both show, by their present ones.

        Raises `Conflict` with code `connection_changed` when it was changed since `before` was read.
        """
        accounts = {new: before.accounts[old] for new, old in same.items() if old in before.accounts}
        names = followed(before.renamed, {old: new for new, old in same.items()})
        told = {
            **opened_by(login, now),
            "accounts": pairs({**before.accounts, **accounts}),
            "renamed": pairs(names),
            "wantsAll": True,
            "notices": [],
        }
        update = {"$set": told, "$addToSet": {"publicTokens": digest_of(login.public_token)}, "$inc": {"wants": 1}}
        key = {"_id": before.id, "item": before.item, "accounts": pairs(before.accounts), "state": before.state}

        async def work(session: AsyncClientSession) -> Document | None:
            former = await self._connections.find_one_and_update(key, update, session=session)
            if former is not None and former.get("sealed") is not None:
                ended = ended_login(before.user, former["item"], bytes(former["sealed"]), now)
                await self._connections.insert_one(ended, session=session)
            return former

        async with self._client.start_session() as session:
            if await session.with_transaction(work) is None:
                raise Conflict("The connection was changed meanwhile.", code="connection_changed")
        return await self.get(before.user, before.id)

    async def end_login(self, user: str, login: Login, now: float) -> str:
        """Have a login ended at Plaid that is to be no connection; under which id that is kept. Raises `Conflict` as
        `create_plaid` does."""
        ended = ended_login(user, login.item, login.sealed, now)
        try:
            await self._connections.insert_one(ended)
        except DuplicateKeyError:
            raise await self._held(login.item, user) from None
        return str(ended["_id"])

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
            return connection_of(document)
        raise AssertionError("unreachable")

    async def by_public_token(self, user: str, public_token: str) -> Connection | None:
        """The user's connection that this token has opened."""
        key = {"user": user, "publicTokens": digest_of(public_token), "state": {"$ne": "removing"}}
        document = await self._connections.find_one(key)
        return None if document is None else connection_of(document)

    async def by_item(self, item: str) -> Connection | None:
        """Whoever's it is."""
        document = await self._connections.find_one({"item": item})
        return None if document is None else connection_of(document)

    # what opens it

    async def sealed(self, connection_id: str) -> bytes | None:
        """What opens it, encrypted."""
        document = await self._connections.find_one({"_id": connection_id}, {"sealed": 1})
        return None if document is None or "sealed" not in document else bytes(document["sealed"])

    async def reseal(self, connection_id: str, before: bytes, after: bytes) -> None:
        """Put the same under another key in the place of `before`, if that still stands there."""
        await self._connections.update_one({"_id": connection_id, "sealed": before}, {"$set": {"sealed": after}})

    # when it is fetched

    async def due(self, now: float, limit: int, among: Collection[str] | None = None) -> list[Connection]:
        """Those to be fetched, or removed at Plaid, by now; who waits longest comes first. `among`: of these alone."""
        key: Document = {"nextFetchAt": {"$lte": instant_of(now)}}
        if among is not None:
            key["_id"] = {"$in": list(among)}
        found = self._connections.find(key).sort("nextFetchAt", 1).limit(limit)
        return [connection_of(document) async for document in found]

    async def begin(self, connection_id: str, at: float) -> Connection | None:
        """A fetch of it begins: how it stands. None when it is gone."""
        document = await self._connections.find_one_and_update(
            {"_id": connection_id}, {"$set": {"triedAt": instant_of(at)}}, return_document=ReturnDocument.AFTER
        )
        return None if document is None else connection_of(document)

    async def want(
        self, connection_id: str, at: float, *, everything: bool = False, again: bool = True
    ) -> Connection | None:
        """Have it fetched at an instant, if it is not to be sooner, and, with `again`, once more if a fetch goes on
        now; how it stands then."""
        when = instant_of(at)
        told: Document = {"nextFetchAt": {"$min": [{"$ifNull": ["$nextFetchAt", when]}, when]}}
        if again:
            told["wants"] = {"$add": [{"$ifNull": ["$wants", 0]}, 1]}
        if everything:
            told["wantsAll"] = True
        document = await self._connections.find_one_and_update(
            {"_id": connection_id, "provider": "plaid"}, [{"$set": told}], return_document=ReturnDocument.AFTER
        )
        return None if document is None else connection_of(document)

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
        told = {"portfolio": portfolio, "accounts": pairs(accounts)}
        document = await self._connections.find_one_and_update(
            {"_id": before.id, "portfolio": before.portfolio, "accounts": pairs(before.accounts)},
            {"$set": told},
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if document is None:
            raise Conflict("The connection was changed meanwhile.", code="connection_changed")
        return connection_of(document)

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
        shown: ShownAccounts | None = None,
        session: AsyncClientSession | None = None,
    ) -> None:
        """The broker has said how things stand: it is `active`, and nothing failed since."""
        told: Document = {"state": "active", "fetchedAt": instant_of(at), "firstDay": first_day, "failure": None}
        if institution is not None:
            told["institution"] = institution
        if shown is not None:
            told["shown"] = shown_fields(shown)
        key = {"_id": connection_id, "state": {"$ne": "removing"}}
        await self._connections.update_one(key, {"$set": told, "$inc": {"version": 1}}, session=session)

    async def fetch_again(self, before: Connection, at: float | None, sooner: float, *, has_all: bool = False) -> bool:
        """A fetch that began with `before` is over: the next one is `at` an instant, None for none, or at `sooner` if
        somebody has asked for one meanwhile; whether somebody has. `has_all`: it brought all that was wanted."""
        unasked = {"$eq": [{"$ifNull": ["$wants", 0]}, before.wants]}
        when = None if at is None else instant_of(at)
        told: Document = {"nextFetchAt": {"$cond": [unasked, when, instant_of(sooner)]}}
        if has_all:
            told["wantsAll"] = {"$cond": [unasked, False, {"$ifNull": ["$wantsAll", False]}]}
        found = await self._connections.find_one_and_update(
            {"_id": before.id}, [{"$set": told}], {"wants": 1}, return_document=ReturnDocument.AFTER
        )
        return found is not None and (found.get("wants") or 0) != before.wants

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

    # what its user should know

    async def notice(self, connection_id: str, notice: Notice) -> None:
        """Tell its user, in the place of one of the same code about the same account."""
        same = {
            "$and": [{"$eq": ["$$one.code", notice.code]}, {"$eq": ["$$one.account", {"$literal": notice.account}]}]
        }
        others = {"$filter": {"input": {"$ifNull": ["$notices", []]}, "as": "one", "cond": {"$not": same}}}
        told = {"$concatArrays": [others, [{"$literal": notice_fields(notice)}]]}
        await self._connections.update_one(
            {"_id": connection_id}, [{"$set": {"notices": {"$slice": [told, -MOST_NOTICES]}}}]
        )

    async def linking(self, connection_id: str, at: float) -> None:
        """Its user was given what Link is opened with."""
        await self._connections.update_one({"_id": connection_id}, {"$set": {"linkedAt": instant_of(at)}})

    async def attended(self, connection_id: str, until: float, code: NoticeCode | None = None) -> None:
        """What its user was told up to an instant is done with; `code`: that alone."""
        which: Document = {"at": {"$lte": instant_of(until)}}
        if code is not None:
            which["code"] = code
        await self._connections.update_one({"_id": connection_id}, {"$pull": {"notices": which}})

    async def remove(self, connection_id: str, at: float) -> None:
        """Hide it from its user, until it is taken back at Plaid too, which is tried from `at` on."""
        told = {"state": "removing", "nextFetchAt": instant_of(at), "failure": None}
        await self._connections.update_one({"_id": connection_id}, {"$set": told, "$inc": {"wants": 1}})

    async def delete(self, connection_id: str) -> None:
        """Forget it, and what opens it. Idempotent."""
        await self._connections.delete_one({"_id": connection_id})
