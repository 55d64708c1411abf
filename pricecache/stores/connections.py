"""Connections: by which broker, or by whose posts, a user's accounts are known here, and how it stands with each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from pricecache.core.broker.account_identity import AccountIdentity, ShownAccounts, followed
from pricecache.errors import Conflict, NotFound
from pricecache.stores.ids import instant_of, new_id
from pricecache.stores.keys import digest_of
from pricecache.stores.ledger import Companion, LedgerMoved

Document = dict[str, Any]
Provider = Literal["plaid", "posted"]
ConnectionState = Literal["new", "active", "login_required", "revoked", "removing"]
CONNECTION_STATES: tuple[str, ...] = get_args(ConnectionState)
MOST_NOTICES = 50
NoticeCode = Literal["expires_soon", "new_accounts", "account_revoked"]


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why the last fetch brought nothing. `at`: of the first failure in a row, in seconds since 1970 UTC;
    `attempts`: how many there were since."""

    code: str
    detail: str
    at: float
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Notice:
    """What its user should know of a connection that works. `at`: since when, `until`: when access ends, seconds since
    1970 UTC; `account`: the one it is about, by the broker's id."""

    code: NoticeCode
    at: float
    until: float | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """A login at Plaid: its name there, what opens it, encrypted, and the token it was opened with, of which only the
    digest is kept. `shown`: the accounts in it, None while nobody knows."""

    item: str
    sealed: bytes = field(repr=False)
    public_token: str = field(repr=False)
    shown: ShownAccounts | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """One user's connection. Times are seconds since 1970-01-01T00:00Z.

    `portfolio`: where its rows go, None until one is made; `portfolio_name`: what that is to be called, if it was said.
    `provider`: `plaid` is fetched, `posted` is what somebody posts under the name `source`. `name`: what the poster
    calls whose accounts these are, None where it was made before that was kept. `item`: Plaid's name of it. `state`:
    `new` (nothing came since it was made), `active`, `login_required` (the user has to log in at the institution
    again), `revoked` (access is gone, connect again), `removing` (deleted here, not yet at Plaid; users do not see it).
    `accounts`: the ledger's account for each of the broker's. `first_day`: from when on all rows are known, days since
    1970-01-01. `fetched_at`: when the broker last said how things stand; `next_fetch_at`: when it is asked again, None
    where that has no use. `wants` counts who asked for a fetch; `wants_all`: of all rows there are, and not of the
    latest only. `version` grows with what came. `linked_at`: when its user was last given what Link is opened with, to
    log in to it again. `shown`: the accounts that its login showed, None while nobody knows; `may_repeat`: they may be
    those of another connection. `renamed`: what accounts are called now, by what an earlier login called them.
    `tried_at`: when the last fetch began.

    What opens it at Plaid is not here: `ConnectionStore.sealed` alone gives that.
    """

    id: str
    user: str
    provider: Provider
    portfolio: str | None = None
    portfolio_name: str | None = None
    source: str | None = None
    name: str | None = None
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
    notices: tuple[Notice, ...] = ()
    linked_at: float | None = None
    shown: ShownAccounts | None = None
    may_repeat: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    tried_at: float | None = None

    @property
    def present_accounts(self) -> dict[str, str]:
        """`accounts` by what they are called now."""
        return {broker: ledger for broker, ledger in self.accounts.items() if broker not in self.renamed}


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
        return None if document is None else _connection(document)

    async def all_of(self, user: str, portfolio: str | None = None) -> list[Connection]:
        """Oldest first; `portfolio`: only those whose rows go there."""
        key: Document = {"user": user, "state": {"$ne": "removing"}}
        if portfolio is not None:
            key["portfolio"] = portfolio
        return [_connection(found) async for found in self._connections.find(key).sort("_id", 1)]

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
                return _connection(known)
        facts = {"user": user, "provider": "posted", "source": source, "name": name, "portfolio": portfolio}
        # one text, as an index over a list has an entry for each of its elements
        key = {"postedAs": "\n".join((user, portfolio or "", source))}
        return await self._upserted(key, {"$setOnInsert": _born(facts, now)})

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
        born = _born(facts, now)
        del born["state"]
        opened = {
            "$setOnInsert": born,
            "$set": _opened(login, now),
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
            **_opened(login, now),
            "accounts": _pairs({**before.accounts, **accounts}),
            "renamed": _pairs(names),
            "wantsAll": True,
            "notices": [],
        }
        update = {"$set": told, "$addToSet": {"publicTokens": digest_of(login.public_token)}, "$inc": {"wants": 1}}
        key = {"_id": before.id, "item": before.item, "accounts": _pairs(before.accounts), "state": before.state}

        async def work(session: AsyncClientSession) -> Document | None:
            former = await self._connections.find_one_and_update(key, update, session=session)
            if former is not None and former.get("sealed") is not None:
                ended = _ended_login(before.user, former["item"], bytes(former["sealed"]), now)
                await self._connections.insert_one(ended, session=session)
            return former

        async with self._client.start_session() as session:
            if await session.with_transaction(work) is None:
                raise Conflict("The connection was changed meanwhile.", code="connection_changed")
        return await self.get(before.user, before.id)

    async def end_login(self, user: str, login: Login, now: float) -> str:
        """Have a login ended at Plaid that is to be no connection; under which id that is kept. Raises `Conflict` as
        `create_plaid` does."""
        ended = _ended_login(user, login.item, login.sealed, now)
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

    async def due(self, now: float, limit: int, among: Collection[str] | None = None) -> list[Connection]:
        """Those to be fetched, or removed at Plaid, by now; who waits longest comes first. `among`: of these alone."""
        key: Document = {"nextFetchAt": {"$lte": instant_of(now)}}
        if among is not None:
            key["_id"] = {"$in": list(among)}
        found = self._connections.find(key).sort("nextFetchAt", 1).limit(limit)
        return [_connection(document) async for document in found]

    async def begin(self, connection_id: str, at: float) -> Connection | None:
        """A fetch of it begins: how it stands. None when it is gone."""
        document = await self._connections.find_one_and_update(
            {"_id": connection_id}, {"$set": {"triedAt": instant_of(at)}}, return_document=ReturnDocument.AFTER
        )
        return None if document is None else _connection(document)

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
        return None if document is None else _connection(document)

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
        shown: ShownAccounts | None = None,
        session: AsyncClientSession | None = None,
    ) -> None:
        """The broker has said how things stand: it is `active`, and nothing failed since."""
        told: Document = {"state": "active", "fetchedAt": instant_of(at), "firstDay": first_day, "failure": None}
        if institution is not None:
            told["institution"] = institution
        if shown is not None:
            told["shown"] = _shown_fields(shown)
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
        told = {"$concatArrays": [others, [{"$literal": _notice_fields(notice)}]]}
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


def _born(facts: Document, now: float) -> Document:
    return {"_id": new_id(), **facts, "state": "new", "accounts": [], "createdAt": instant_of(now), "version": 1}


def _opened(login: Login, now: float) -> Document:
    told = {"item": login.item, "sealed": login.sealed, "state": "new", "nextFetchAt": instant_of(now), "failure": None}
    return told if login.shown is None else {**told, "shown": _shown_fields(login.shown)}


def _ended_login(user: str, item: str, sealed: bytes, now: float) -> Document:
    facts = {"user": user, "provider": "plaid", "portfolio": None, "item": item, "sealed": sealed, "wants": 1}
    return {**_born(facts, now), "state": "removing", "nextFetchAt": instant_of(now)}


def _shown_fields(shown: ShownAccounts) -> Document:
    rows = [[one.id, one.persistent, one.mask, one.name, one.kind] for one in shown.accounts]
    return {"institution": shown.institution, "accounts": rows}


def _shown(fields: Document | None) -> ShownAccounts | None:
    if fields is None:
        return None
    return ShownAccounts(fields["institution"], tuple(AccountIdentity(*row) for row in fields["accounts"]))


def _notice_fields(notice: Notice) -> Document:
    until = None if notice.until is None else instant_of(notice.until)
    return {"code": notice.code, "at": instant_of(notice.at), "until": until, "account": notice.account}


def _notice(fields: Document) -> Notice:
    return Notice(fields["code"], fields["at"].timestamp(), _seconds(fields["until"]), fields["account"])


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
        name=get("name"),
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
        notices=tuple(map(_notice, get("notices") or ())),
        linked_at=_seconds(get("linkedAt")),
        shown=_shown(get("shown")),
        may_repeat=bool(get("mayRepeat")),
        renamed=dict(get("renamed") or ()),
        tried_at=_seconds(get("triedAt")),
    )


def _seconds(instant: Any) -> float | None:
    return None if instant is None else instant.timestamp()
