"""Connections of the user who asks: linked, made, listed, fetched, deleted; and the webhooks of Plaid."""

from __future__ import annotations

from typing import Any

from pricecache.api import connection_models as models
from pricecache.api.call import Answer, Call
from pricecache.api.portfolios import user_of
from pricecache.api.routing import Route
from pricecache.api.wire import instant, iso_day
from pricecache.brokers.plaid_client import LinkRequest
from pricecache.portfolio.repeated_accounts import is_unreadable
from pricecache.stores.connection_documents import Connection

PLAID_SECONDS = 20.0
"""How much longer than others a call may take that Plaid answers."""
_MOST_WEBHOOK_BYTES = 64 << 10


async def link_token(call: Call) -> Answer:
    body: models.LinkTokenBody = call.body
    wanted = LinkRequest(
        language=body.language,
        countries=tuple(body.country_codes),
        redirect_uri=body.redirect_uri,
    )
    made = await call.services.connections.link_token(user_of(call), wanted, body.connection_id)
    return Answer({"linkToken": made.token, "expiration": made.expiration})


async def connect(call: Call) -> Answer:
    body: models.ConnectBody = call.body
    connection, is_new = await call.services.connections.connect(
        user_of(call),
        body.public_token,
        body.portfolio_id,
        body.portfolio_name,
        call.principal.name,
        may_repeat=body.allow_duplicate,
    )
    where = {"Location": f"/api/portfolio/connections/{connection.id}"}
    return Answer(connection_fields(connection), 201 if is_new else 200, where)


async def list_all(call: Call) -> Answer:
    found = await call.services.connections.store.all_of(user_of(call))
    return Answer({"connections": [connection_fields(one) for one in found]})


async def one(call: Call) -> Answer:
    return Answer(connection_fields(await call.services.connections.store.get(user_of(call), call.path["id"])))


async def fetch(call: Call) -> Answer:
    connection, ticket = await call.services.connections.fetch(user_of(call), call.path["id"], call.principal.name)
    fields = connection_fields(connection)
    if ticket is None:
        return Answer({**fields, "runId": None})
    return Answer({**fields, "runId": ticket.run.id}, 202, {"Location": f"/cache/runs/{ticket.run.id}"})


async def delete(call: Call) -> Answer:
    removed = await call.services.connections.delete(
        user_of(call), call.path["id"], call.principal.name, rows=call.query.delete_rows
    )
    return Answer({"deleted": call.path["id"], "rowsDeleted": removed})


async def plaid_webhook(call: Call) -> Answer:
    signed = call.headers.get("Plaid-Verification")
    return Answer({"status": await call.services.connections.webhook(signed, call.body)})


def connection_fields(connection: Connection) -> dict[str, Any]:
    """A connection as it is answered everywhere."""
    failure = connection.failure
    return {
        "id": connection.id,
        "provider": connection.provider,
        "source": connection.source,
        "institution": connection.institution,
        "state": connection.state,
        "portfolioId": connection.portfolio,
        "accounts": [
            {"brokerAccountId": broker, "accountId": ledger}
            for broker, ledger in sorted(connection.present_accounts.items())
        ],
        "firstDate": iso_day(connection.first_day),
        "createdAt": instant(connection.created_at),
        "fetchedAt": instant(connection.fetched_at),
        "nextFetchAt": instant(connection.next_fetch_at),
        "failure": None
        if failure is None
        else {
            "code": failure.code,
            "detail": failure.detail,
            "since": instant(failure.at),
            "attempts": failure.attempts,
        },
        "notices": [
            {
                "code": one.code,
                "since": instant(one.at),
                "until": instant(one.until),
                "brokerAccountId": one.account,
            }
            for one in connection.notices
        ],
        "action": _action(connection),
    }


def _action(connection: Connection) -> str | None:
    """What its user has to do."""
    if connection.state == "revoked" or is_unreadable(connection):
        return "connect"
    return "link" if connection.state == "login_required" or connection.notices else None


_TAGS, _BASE = ("connections",), "/api/portfolio/connections"
CONNECTION_ROUTES: tuple[Route, ...] = (
    Route(
        "POST", _BASE + "/link-token", link_token, scope="user", body=models.LinkTokenBody, body_optional=True,
        more_seconds=PLAID_SECONDS, answers={200: models.LinkTokenOut}, tags=_TAGS,
        summary="What Plaid's Link is opened with, to connect accounts or to log in again.",
    ),
    Route(
        "POST", _BASE, connect, scope="user", body=models.ConnectBody, more_seconds=PLAID_SECONDS,
        answers={200: models.ConnectionOut, 201: models.ConnectionOut}, tags=_TAGS,
        summary="Connect the accounts that a public token of Plaid stands for; their history is made by itself.",
    ),
    Route(
        "GET", _BASE, list_all, scope="user", answers={200: models.ConnectionsOut}, tags=_TAGS,
        summary="The user's connections, the oldest first.",
    ),
    Route(
        "GET", _BASE + "/{id}", one, scope="user", answers={200: models.ConnectionOut}, tags=_TAGS,
        summary="One connection: how it stands, and when it is fetched next.",
    ),
    Route(
        "POST", _BASE + "/{id}/fetch", fetch, scope="user", more_seconds=PLAID_SECONDS,
        answers={200: models.FetchOut, 202: models.FetchOut}, tags=_TAGS,
        summary="Fetch it now, or soon where it was fetched a moment ago.",
    ),
    Route(
        "DELETE", _BASE + "/{id}", delete, scope="user", query=models.DeleteConnectionQuery,
        more_seconds=PLAID_SECONDS, answers={200: models.ConnectionDeletedOut}, tags=_TAGS,
        summary="End it, here and at Plaid; its rows stay unless deleteRows=true.",
    ),
    Route(
        "POST", "/api/plaid/webhook", plaid_webhook, scope=None, body=models.WebhookBody, keeps_bytes=True,
        max_body_bytes=_MOST_WEBHOOK_BYTES, more_seconds=PLAID_SECONDS, answers={200: models.WebhookOut}, tags=_TAGS,
        summary="For Plaid, which signs what it sends.",
    ),
)  # fmt: skip
