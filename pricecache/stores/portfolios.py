"""Portfolios and the accounts in them: whose they are, how their ledgers are read, and their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from pricecache.core.ledger import Rules
from pricecache.core.portfolios import BEGINNING, Account, Portfolio
from pricecache.errors import Conflict, NotFound, VersionMismatch
from pricecache.stores.commits import pause
from pricecache.stores.history import drop_history
from pricecache.stores.ids import instant_of, new_id
from pricecache.stores.ledger import RACES, Companion, LedgerMoved, as_moved, gave_up, move_on, state_of
from pricecache.stores.ledger_batches import LedgerBatches
from pricecache.stores.portfolio_heads import PortfolioHeads

Document = dict[str, Any]

RULES = ("baseCurrency", "costBasis", "cashTracking", "feesInCost", "allowShort")
"""Fields of a portfolio that its history depends on."""


class PortfolioStore:
    """The collections `portfolios` and `accounts`. Loop-only; safe against writers in any process.

    Every portfolio belongs to a user: to all others it is not there. `version`, where it is given, is what the thing
    has to be at for a change of it, else `VersionMismatch`.
    """

    def __init__(self, database: AsyncDatabase[Document], heads: PortfolioHeads) -> None:
        self._client = database.client
        self._heads = heads
        self._portfolios = database["portfolios"]
        self._accounts = database["accounts"]
        self._transactions = database["transactions"]
        self._beside = database["orders"], database["stream_events"], database["reconstructions"]
        self._states = database["ledger_state"]
        self._batches = LedgerBatches(database)

    # portfolios

    async def create(self, owner: str, facts: Mapping[str, Any], now: float) -> Portfolio:
        """`facts`: the stored fields of a portfolio but for ids, version and times."""
        document = {"_id": new_id(), "owner": owner, **facts, **_born(now)}
        async with self._client.start_session() as session, await session.start_transaction():
            await self._portfolios.insert_one(document, session=session)
            await self._states.insert_one({"_id": document["_id"], "generation": 0, "places": 0}, session=session)
        return _portfolio(document)

    async def create_with(
        self,
        owner: str,
        facts: Mapping[str, Any],
        now: float,
        portfolio_id: str,
        accounts: Mapping[str, Mapping[str, Any]],
        companion: Companion,
    ) -> Portfolio:
        """One with its accounts, by ids that nothing has yet, and what `companion` writes: all of it or nothing.

        Raises `LedgerMoved` when one of the ids is taken, the outcome is not known, or `companion` does.
        """
        document, ticket = {"_id": portfolio_id, "owner": owner, **facts, **_born(now)}, self._heads.ticket
        own = [{"_id": name, "portfolio": portfolio_id, **one, **_born(now)} for name, one in accounts.items()]
        state = {"_id": portfolio_id, "generation": 0, "places": 0}
        try:
            async with self._client.start_session() as session, await session.start_transaction():
                await self._portfolios.insert_one(document, session=session)
                await self._states.insert_one(state, session=session)
                if own:
                    await self._accounts.insert_many(own, session=session)
                await companion(session)
        except PyMongoError as exc:
            raise as_moved(exc) from exc
        self._heads.keep_state(portfolio_id, state_of(state), ticket)
        return self._known(document, ticket)

    async def all_of(self, owner: str) -> list[Portfolio]:
        """Oldest first."""
        ticket = self._heads.ticket
        found = await self._portfolios.find({"owner": owner}).sort("_id", 1).to_list()
        return [self._known(document, ticket) for document in found]

    async def all_of_each(self, owners: Sequence[str]) -> dict[str, list[Portfolio]]:
        """The same of several, with one query; nobody's list is missing."""
        ticket = self._heads.ticket
        by_owner: dict[str, list[Portfolio]] = {owner: [] for owner in owners}
        for document in await self._portfolios.find({"owner": {"$in": list(owners)}}).sort("_id", 1).to_list():
            by_owner[document["owner"]].append(self._known(document, ticket))
        return by_owner

    async def get(self, owner: str, portfolio_id: str) -> Portfolio:
        """Raises `NotFound` with code `unknown_portfolio`."""
        found = self._heads.portfolio(portfolio_id)
        if found is None:
            ticket = self._heads.ticket
            document = await self._portfolios.find_one({"_id": portfolio_id, "owner": owner})
            if document is None:
                raise _unknown_portfolio()
            found = _portfolio(document)
            self._heads.keep_portfolio(found, ticket)
        if found.owner != owner:
            raise _unknown_portfolio()
        return found

    async def find(self, portfolio_id: str) -> Portfolio:
        """Whoever it belongs to. Raises `NotFound` with code `unknown_portfolio`."""
        found = self._heads.portfolio(portfolio_id)
        if found is not None:
            return found
        document = await self._portfolios.find_one({"_id": portfolio_id})
        if document is None:
            raise NotFound("There is no such portfolio.", code="unknown_portfolio")
        return _portfolio(document)

    async def page(self, after: str, count: int) -> list[Portfolio]:
        """The next `count` of all users' portfolios, by id, from that of `after` on without it."""
        ticket = self._heads.ticket
        found = await self._portfolios.find({"_id": {"$gt": after}}).sort("_id", 1).limit(count).to_list()
        return [self._known(document, ticket) for document in found]

    async def of_ids(self, ids: Sequence[str]) -> list[Portfolio]:
        """Those of them that there are, whoever they belong to, by id."""
        ticket = self._heads.ticket
        found = await self._portfolios.find({"_id": {"$in": list(ids)}}).sort("_id", 1).to_list()
        return [self._known(document, ticket) for document in found]

    def _known(self, document: Document, ticket: int) -> Portfolio:
        portfolio = _portfolio(document)
        self._heads.keep_portfolio(portfolio, ticket)
        return portfolio

    async def count(self) -> int:
        """About how many there are, of all users."""
        return await self._portfolios.estimated_document_count()

    async def change(
        self,
        before: Portfolio,
        facts: Mapping[str, Any],
        now: float,
        *,
        version: int | None = None,
        generation: int | None = None,
    ) -> Portfolio:
        """Set some of a portfolio's fields. Where its history depends on one, its ledger is dirty from the beginning
        on. `generation`: what the ledger has to be at, else `LedgerMoved`."""
        if version not in (None, before.version):
            raise VersionMismatch
        key = {"_id": before.id, "owner": before.owner, "version": before.version}
        update = {"$set": {**facts, "updatedAt": instant_of(now)}, "$inc": {"version": 1}}
        with self._heads.changing(before.id):
            try:
                async with self._client.start_session() as session, await session.start_transaction():
                    after = await self._portfolios.find_one_and_update(
                        key, update, session=session, return_document=ReturnDocument.AFTER
                    )
                    if after is None:
                        raise LedgerMoved
                    if facts.keys() & set(RULES):
                        await move_on(self._states, session, before.id, generation, BEGINNING, corrects=True)
                    elif "timeZone" in facts:  # when its days are over, which snapshots go by
                        await move_on(self._states, session, before.id, generation, None)
            except PyMongoError as exc:
                raise as_moved(exc) from exc
        return _portfolio(after)

    async def delete(self, owner: str, portfolio_id: str, version: int | None = None) -> None:
        """With all its accounts, transactions, orders, events and reconstructions. Raises `NotFound`,
        `VersionMismatch`."""
        for attempt in range(RACES):
            before = await self.get(owner, portfolio_id)
            if version not in (None, before.version):
                raise VersionMismatch
            try:
                with self._heads.changing(portfolio_id):
                    await self._delete(before)
            except (PyMongoError, LedgerMoved) as exc:
                await _again(exc, attempt)
            else:
                return
        raise gave_up()

    async def _delete(self, before: Portfolio) -> None:
        async with self._client.start_session() as session, await session.start_transaction():
            key = {"_id": before.id, "version": before.version}
            if not (await self._portfolios.delete_one(key, session=session)).deleted_count:
                raise LedgerMoved
            await self._states.delete_one({"_id": before.id}, session=session)
            await self._portfolios.database["snapshot_gone"].insert_one({"_id": before.id}, session=session)
            await self._batches.delete(before.id, session)
            for collection in (self._accounts, self._transactions, *self._beside):
                await collection.delete_many({"portfolio": before.id}, session=session)
            await drop_history(self._portfolios.database, before.id, session)

    # accounts

    async def create_account(self, portfolio: Portfolio, facts: Mapping[str, Any], now: float) -> Account:
        """`facts`: the stored fields of an account but for ids, version and times. Raises `NotFound` when the portfolio
        goes meanwhile."""
        (made,) = await self.create_accounts(portfolio, {new_id(): facts}, now)
        return made

    async def create_accounts(
        self, portfolio: Portfolio, wanted: Mapping[str, Mapping[str, Any]], now: float
    ) -> list[Account]:
        """The same of several at once, by new ids that somebody may have noted already: to ask again makes no second
        ones."""
        documents = [{"_id": name, "portfolio": portfolio.id, **facts, **_born(now)} for name, facts in wanted.items()]
        missing = documents
        for attempt in range(RACES):
            try:
                with self._heads.changing(portfolio.id):
                    async with self._client.start_session() as session, await session.start_transaction():
                        # so that a deletion of the portfolio going on does not leave them behind
                        await move_on(self._states, session, portfolio.id, None, None)
                        await self._accounts.insert_many(missing, session=session)
            except (PyMongoError, LedgerMoved) as exc:
                await _again(exc, attempt)
                await self.get(portfolio.owner, portfolio.id)
                there = set(await self._accounts.distinct("_id", {"_id": {"$in": list(wanted)}}))
                missing = [one for one in documents if one["_id"] not in there]
                if missing:
                    continue
            return [_account(document) for document in documents]
        raise gave_up()

    async def accounts(self, portfolio_id: str) -> list[Account]:
        """Oldest first."""
        found = await self._accounts.find({"portfolio": portfolio_id}).sort("_id", 1).to_list()
        return [_account(document) for document in found]

    async def account(self, portfolio_id: str, account_id: str) -> Account:
        """Raises `NotFound` with code `unknown_account`."""
        document = await self._accounts.find_one({"_id": account_id, "portfolio": portfolio_id})
        if document is None:
            raise _unknown_account()
        return _account(document)

    async def change_account(
        self, portfolio_id: str, account_id: str, facts: Mapping[str, Any], now: float, version: int | None = None
    ) -> Account:
        """Set some of an account's fields. Raises `NotFound`, `VersionMismatch`."""
        key: Document = {"_id": account_id, "portfolio": portfolio_id}
        if version is not None:
            key["version"] = version
        update = {"$set": {**facts, "updatedAt": instant_of(now)}, "$inc": {"version": 1}}
        after = await self._accounts.find_one_and_update(key, update, return_document=ReturnDocument.AFTER)
        if after is None:
            await self.account(portfolio_id, account_id)
            raise VersionMismatch
        return _account(after)

    async def delete_account(self, portfolio_id: str, account_id: str, version: int | None = None) -> None:
        """Raises `NotFound`, `VersionMismatch`, and `Conflict` with code `account_in_use` while transactions name
        it."""
        for attempt in range(RACES):
            before = await self.account(portfolio_id, account_id)
            if version not in (None, before.version):
                raise VersionMismatch
            try:
                await self._batches.place(portfolio_id)
                with self._heads.changing(portfolio_id):
                    async with self._client.start_session() as session, await session.start_transaction():
                        # whoever writes a row that names it meanwhile has to plan anew, and finds it gone
                        await move_on(self._states, session, portfolio_id, None, None)
                        await self._refuse_in_use(session, portfolio_id, account_id)
                        await self._accounts.delete_one({"_id": account_id}, session=session)
            except (PyMongoError, LedgerMoved) as exc:
                await _again(exc, attempt)
            else:
                return
        raise gave_up()

    async def _refuse_in_use(self, session: Any, portfolio_id: str, account_id: str) -> None:
        if await self._batches.has_any(portfolio_id, session):
            raise LedgerMoved
        names = {"$or": [{"account": account_id}, {"toAccount": account_id}]}
        if await self._transactions.find_one({"portfolio": portfolio_id, **names}, {"_id": 1}, session=session):
            raise Conflict("Transactions name this account: move or delete them first.", code="account_in_use")


async def _again(error: Exception, attempt: int) -> None:
    if isinstance(error, PyMongoError) and not isinstance(as_moved(error), LedgerMoved):
        raise error
    await pause(attempt)


def _born(now: float) -> Document:
    return {"version": 1, "createdAt": instant_of(now), "updatedAt": instant_of(now)}


def _portfolio(document: Document) -> Portfolio:
    rules = Rules(
        document["baseCurrency"],
        document["costBasis"],
        document["cashTracking"],
        document["feesInCost"],
        document["allowShort"],
    )
    return Portfolio(
        document["_id"],
        document["owner"],
        document["name"],
        rules,
        document["quantityBasis"],
        document["timeZone"],
        document["isArchived"],
        document["version"],
        document["createdAt"].timestamp(),
        document["updatedAt"].timestamp(),
    )


def _account(document: Document) -> Account:
    return Account(
        document["_id"],
        document["portfolio"],
        document["name"],
        document["institution"],
        document["kind"],
        document["isArchived"],
        document["version"],
        document["createdAt"].timestamp(),
        document["updatedAt"].timestamp(),
    )


def _unknown_portfolio() -> NotFound:
    return NotFound("There is no such portfolio of yours. GET /api/portfolios lists them.", code="unknown_portfolio")


def _unknown_account() -> NotFound:
    return NotFound("There is no such account in this portfolio.", code="unknown_account")
