"""Which portfolios a question is about: those it names, or all of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pricecache.api.call import Call
from pricecache.api.portfolios import user_of
from pricecache.errors import Invalid, NotFound

if TYPE_CHECKING:
    from pricecache.stores.portfolios import Portfolio


async def asked_for(call: Call) -> list[Portfolio]:
    """Those that the query names, or all there are; never none.

    Raises `NotFound` with code `unknown_portfolio` or `unknown_account`, `Invalid` with code `portfolio_needed` for an
    account of several.
    """
    store, user, query = call.services.portfolios, user_of(call), call.query
    if query.portfolio_id:
        found = [await store.get(user, one) for one in dict.fromkeys(query.portfolio_id)]
    else:
        found = await store.all_of(user)
    if not found:
        raise NotFound("You have no portfolio yet: POST /api/portfolios.", code="unknown_portfolio")
    if len(found) > 1 and query.account_id is not None:
        raise Invalid("An account is of one portfolio: name it in portfolioId.", code="portfolio_needed")
    if len(found) == 1:
        await require_account(call, found[0])
    return found


async def require_account(call: Call, portfolio: Portfolio) -> None:
    """Raises `NotFound` with code `unknown_account` when the query names one that the portfolio has not."""
    if call.query.account_id is not None:
        await call.services.portfolios.account(portfolio.id, call.query.account_id)


def counted(call: Call, wanted: list[Portfolio]) -> list[Portfolio]:
    """Those that count in a total."""
    return [one for one in wanted if call.query.include_archived or not one.is_archived]
