"""Plaid through its official library, which blocks: in threads of its own, each call with a deadline."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from types import SimpleNamespace
from typing import Any

import orjson

from pricecache.brokers.plaid_errors import failed_call, refusal
from pricecache.errors import BrokerError, BrokerUnavailable, Unavailable

MOST_PER_PAGE = 500
"""Rows that Plaid answers with at most, from its documents."""
_THREADS = 8
"""More than are fetched side by side, so that who waits for a login is not held up."""
_CONNECT_SECONDS = 5.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LinkToken:
    """What Plaid's Link is opened with in a browser. `expiration`: RFC 3339, as Plaid says it."""

    token: str = field(repr=False)
    expiration: str


@dataclass(frozen=True, slots=True)
class Access:
    """What opens an item, and the item's id."""

    token: str = field(repr=False)
    item: str


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """Who links what. `user`: a name that says nothing of the person. `access_token`: of an item to log in to again,
    where `selects_accounts` lets its user say anew which accounts.
    `webhook`, `redirect_uri`: URLs that Plaid calls or leads back to; the second must be known to it."""

    user: str = ""
    client_name: str = ""
    language: str = "en"
    countries: Sequence[str] = ("US",)
    webhook: str | None = None
    redirect_uri: str | None = None
    access_token: str | None = field(default=None, repr=False)
    selects_accounts: bool = False


class PlaidClient:
    """The calls of Plaid's API that are in use. Loop-only; nothing of the library is loaded before the first one.

    `secret` and access tokens go into requests and nowhere else: into no log, no error, no `repr`. `url` takes the
    place of Plaid's own scheme and host. `deadline`: seconds until a call counts as failed. Answers are decoded from
    what Plaid sent, and not by the library's models: those take half a millisecond a row, and refuse a word that Plaid
    has added since.

    Raises `BrokerUnavailable` for what passes (no answer, 429, 5xx, `PRODUCT_NOT_READY`), `LoginRequired`,
    `AccessRevoked`, `BrokerError` for every other refusal and for answers that are no JSON object, and `Unavailable`
    with code `plaid_not_installed` without the library.
    """

    def __init__(self, client_id: str, secret: str, url: str, *, deadline: float = 60.0) -> None:
        self._client_id = client_id
        self._secret = secret
        self._url = url.rstrip("/")
        self._deadline = deadline
        self._threads = ThreadPoolExecutor(_THREADS, "plaid")
        self._lock = threading.Lock()
        self._library: SimpleNamespace | None = None

    async def create_link_token(self, wanted: LinkRequest) -> LinkToken:
        body = await self._call("link_token_create", _link_body(wanted))
        return LinkToken(_text(body, "link_token"), _text(body, "expiration"))

    async def exchange(self, public_token: str) -> Access:
        """Raises `BrokerError` with code `bad_public_token` too."""
        body = await self._call("item_public_token_exchange", {"public_token": public_token})
        return Access(_text(body, "access_token"), _text(body, "item_id"))

    async def remove(self, access_token: str) -> None:
        """End access to an item at Plaid."""
        await self._call("item_remove", {"access_token": access_token})

    async def accounts(self, access_token: str) -> Json:
        """The accounts of an item, without asking the institution."""
        return await self._call("accounts_get", {"access_token": access_token})

    async def holdings(self, access_token: str) -> Json:
        return await self._call("investments_holdings_get", {"access_token": access_token})

    async def transactions(
        self, access_token: str, start: date, end: date, *, offset: int, count: int = MOST_PER_PAGE
    ) -> Json:
        """A page of the rows from `start` to `end`, both included, newest first."""
        options = {"count": count, "offset": offset}
        wanted = {"access_token": access_token, "start_date": start, "end_date": end, "options": options}
        return await self._call("investments_transactions_get", wanted)

    async def verification_key(self, key_id: str) -> Json:
        """The public key, as a JWK, that webhooks signed with `key_id` are verified by."""
        body = await self._call("webhook_verification_key_get", {"key_id": key_id})
        key = body.get("key")
        if not isinstance(key, dict):
            raise _no_such("key")
        return key

    async def close(self) -> None:
        """Take no more calls; those that go on end by their deadlines."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, operation: str, wanted: Json) -> Json:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline + _CONNECT_SECONDS):
                return await loop.run_in_executor(self._threads, partial(self._blocking_call, operation, wanted))
        except TimeoutError:
            raise BrokerUnavailable("Plaid does not answer in time.", code="plaid_unavailable") from None

    def _blocking_call(self, operation: str, wanted: Json) -> Json:
        library = self._loaded()
        request = library.requests[operation](wanted)
        try:
            answer = getattr(library.api, operation)(
                request, _preload_content=False, _request_timeout=(_CONNECT_SECONDS, self._deadline)
            )
            body = orjson.loads(answer.data)
        except library.ApiException as exc:
            found = refusal(exc.status, exc.body, exc.headers)
            # the library's own words show headers and bodies
            raise found from None
        except Exception as exc:  # what the library, urllib3 and the network may raise
            raise failed_call(exc) from None
        if not isinstance(body, dict):
            raise BrokerError("Plaid's answer is no JSON object.", code="plaid_answer_bad")
        return body

    def _loaded(self) -> SimpleNamespace:
        with self._lock:
            if self._library is None:
                self._library = _load(self._client_id, self._secret, self._url)
            return self._library


def _load(client_id: str, secret: str, url: str) -> SimpleNamespace:
    try:
        import plaid
        from plaid.api.plaid_api import PlaidApi
    except ImportError as exc:
        raise Unavailable(
            "The plaid-python library is not installed: pip install 'pricecache[plaid]'.",
            code="plaid_not_installed",
            retry_after=3600.0,
        ) from exc
    import urllib3

    class RawClient(plaid.ApiClient):
        def request(self, *positional: Any, **options: Any) -> Any:
            # read at once, so that a refusal has a body too; `_preload_content` False further out keeps it undecoded
            return super().request(*positional, **{**options, "_preload_content": True})

    configuration = plaid.Configuration(host=url, api_key={"clientId": client_id, "secret": secret})
    configuration.retries = urllib3.Retry(0, redirect=False, raise_on_redirect=False)
    for name in ("plaid", "plaid.rest", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)  # at debug the library writes whole answers, tokens too
    return SimpleNamespace(
        api=PlaidApi(RawClient(configuration)), ApiException=plaid.ApiException, requests=_request_makers()
    )


def _request_makers() -> Mapping[str, Callable[[Json], Any]]:
    from plaid.model.accounts_get_request import AccountsGetRequest
    from plaid.model.country_code import CountryCode
    from plaid.model.investments_holdings_get_request import InvestmentsHoldingsGetRequest
    from plaid.model.investments_transactions_get_request import InvestmentsTransactionsGetRequest
    from plaid.model.investments_transactions_get_request_options import InvestmentsTransactionsGetRequestOptions
    from plaid.model.item_public_token_exchange_request import ItemPublicTokenExchangeRequest
    from plaid.model.item_remove_request import ItemRemoveRequest
    from plaid.model.link_token_create_request import LinkTokenCreateRequest
    from plaid.model.link_token_create_request_update import LinkTokenCreateRequestUpdate
    from plaid.model.link_token_create_request_user import LinkTokenCreateRequestUser
    from plaid.model.products import Products
    from plaid.model.webhook_verification_key_get_request import WebhookVerificationKeyGetRequest

    def transactions(wanted: Json) -> Any:
        options = InvestmentsTransactionsGetRequestOptions(**wanted["options"])
        return InvestmentsTransactionsGetRequest(**{**wanted, "options": options})

    def link_token(wanted: Json) -> Any:
        given: Json = {
            "user": LinkTokenCreateRequestUser(**wanted["user"]),
            "country_codes": [CountryCode(code) for code in wanted["country_codes"]],
        }
        if "products" in wanted:
            given["products"] = [Products(name) for name in wanted["products"]]
        if "update" in wanted:
            given["update"] = LinkTokenCreateRequestUpdate(**wanted["update"])
        return LinkTokenCreateRequest(**{**wanted, **given})

    return {
        "accounts_get": lambda wanted: AccountsGetRequest(**wanted),
        "investments_holdings_get": lambda wanted: InvestmentsHoldingsGetRequest(**wanted),
        "investments_transactions_get": transactions,
        "item_public_token_exchange": lambda wanted: ItemPublicTokenExchangeRequest(**wanted),
        "item_remove": lambda wanted: ItemRemoveRequest(**wanted),
        "link_token_create": link_token,
        "webhook_verification_key_get": lambda wanted: WebhookVerificationKeyGetRequest(**wanted),
    }


def _link_body(wanted: LinkRequest) -> Json:
    body: Json = {
        "client_name": wanted.client_name,
        "language": wanted.language,
        "country_codes": list(wanted.countries),
        "user": {"client_user_id": wanted.user},
        "webhook": wanted.webhook,
        "redirect_uri": wanted.redirect_uri,
    }
    if wanted.access_token is None:
        body["products"] = ["investments"]
    else:  # Plaid takes no products when a login is to be repaired
        body["access_token"] = wanted.access_token
        if wanted.selects_accounts:
            body["update"] = {"account_selection_enabled": True}
    return {name: value for name, value in body.items() if value is not None}


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _no_such(name)
    return value


def _no_such(name: str) -> BrokerError:
    return BrokerError(f"Plaid's answer has no {name}.", code="plaid_answer_bad")
