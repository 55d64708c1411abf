"""Portfolios and accounts of the user who asks: made, listed, changed, archived, deleted."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pricecache.api.call import Answer, Call
from pricecache.api.wire import instant
from pricecache.core.portfolios import Account, Portfolio
from pricecache.errors import Forbidden, Invalid


async def create(call: Call) -> Answer:
    facts = {**call.body.model_dump(by_alias=True), "isArchived": False}
    made = await call.services.portfolios.create(user_of(call), facts, call.services.clock.time())
    call.services.streams.newcomers.created(made.owner, made.id)
    return Answer(portfolio_fields(made), 201, {"Location": f"/api/portfolios/{made.id}", **etag(made.version)})


async def list_all(call: Call) -> Answer:
    found = await call.services.portfolios.all_of(user_of(call))
    return Answer({"portfolios": [portfolio_fields(one) for one in found]})


async def one(call: Call) -> Answer:
    return _portfolio_answer(await portfolio_of(call))


async def change(call: Call) -> Answer:
    before, version = await portfolio_of(call), if_match(call)
    services, by = call.services, call.principal.name
    after = await services.ledgers.change_portfolio(before, _given(call.body), by, version)
    await services.reconstructions.intake.rules_changed(before, after, by)
    return _portfolio_answer(after)


async def delete(call: Call) -> Answer:
    await call.services.portfolios.delete(user_of(call), call.path["id"], if_match(call))
    call.services.realtime.on_deleted(call.path["id"])
    return Answer({"deleted": call.path["id"]})


async def create_account(call: Call) -> Answer:
    portfolio = await portfolio_of(call)
    facts = {**call.body.model_dump(by_alias=True), "isArchived": False}
    made = await call.services.portfolios.create_account(portfolio, facts, call.services.clock.time())
    where = f"/api/portfolios/{portfolio.id}/accounts/{made.id}"
    return Answer(account_fields(made), 201, {"Location": where, **etag(made.version)})


async def accounts(call: Call) -> Answer:
    portfolio = await portfolio_of(call)
    found = await call.services.portfolios.accounts(portfolio.id)
    return Answer({"accounts": [account_fields(one) for one in found]})


async def change_account(call: Call) -> Answer:
    portfolio, version = await portfolio_of(call), if_match(call)
    after = await call.services.portfolios.change_account(
        portfolio.id, call.path["accountId"], _given(call.body), call.services.clock.time(), version
    )
    return Answer(account_fields(after), headers=etag(after.version))


async def delete_account(call: Call) -> Answer:
    portfolio = await portfolio_of(call)
    await call.services.portfolios.delete_account(portfolio.id, call.path["accountId"], if_match(call))
    return Answer({"deleted": call.path["accountId"]})


# what other handlers of portfolios use


def user_of(call: Call) -> str:
    """On whose behalf. Raises `Forbidden`."""
    if call.principal.user is None:
        raise Forbidden("This belongs to a user: send X-User-Id with the key, or a token.", code="user_needed")
    return call.principal.user


async def portfolio_of(call: Call) -> Portfolio:
    """The portfolio that the path names. Raises `NotFound` when it is another's."""
    return await call.services.portfolios.get(user_of(call), call.path["id"])


def etag(version: int) -> dict[str, str]:
    return {"ETag": f'"{version}"'}


def if_match(call: Call) -> int | None:
    """The version that If-Match asks for, None for any. Raises `Invalid` with code `bad_if_match`."""
    given = call.headers.get("If-Match", "*").strip()
    if given == "*":
        return None
    number = given.removeprefix("W/").strip('"')
    if not number.isdecimal() or len(number) > 12:
        raise Invalid("If-Match is the ETag of an answer, or *.", code="bad_if_match")
    return int(number)


def portfolio_fields(one: Portfolio) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "baseCurrency": one.rules.currency,
        "costBasis": one.rules.cost_basis,
        "cashTracking": one.rules.cash_tracking,
        "feesInCost": one.rules.fees_in_cost,
        "allowShort": one.rules.allow_short,
        "quantityBasis": one.quantity_basis,
        "timeZone": one.time_zone,
        "isArchived": one.is_archived,
        "version": one.version,
        "createdAt": instant(one.created_at),
        "updatedAt": instant(one.updated_at),
    }


def account_fields(one: Account) -> dict[str, Any]:
    return {
        "id": one.id,
        "portfolioId": one.portfolio,
        "name": one.name,
        "institution": one.institution,
        "kind": one.kind,
        "isArchived": one.is_archived,
        "version": one.version,
        "createdAt": instant(one.created_at),
        "updatedAt": instant(one.updated_at),
    }


def _portfolio_answer(one: Portfolio) -> Answer:
    return Answer(portfolio_fields(one), headers=etag(one.version))


def _given(body: BaseModel) -> dict[str, Any]:
    return body.model_dump(by_alias=True, exclude_unset=True)
