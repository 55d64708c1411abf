"""A user's connection as a value, and as the document that is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pricecache.core.broker.account_identity import AccountIdentity, ShownAccounts
from pricecache.stores.ids import instant_of, new_id

Document = dict[str, Any]
Provider = Literal["plaid", "posted"]
ConnectionState = Literal["new", "active", "login_required", "revoked", "removing"]
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


def new_document(facts: Document, now: float) -> Document:
    """One of `facts`, of which nothing came yet."""
    return {"_id": new_id(), **facts, "state": "new", "accounts": [], "createdAt": instant_of(now), "version": 1}


def opened_by(login: Login, now: float) -> Document:
    """What a login sets in one: it is to be fetched at once."""
    told = {"item": login.item, "sealed": login.sealed, "state": "new", "nextFetchAt": instant_of(now), "failure": None}
    return told if login.shown is None else {**told, "shown": shown_fields(login.shown)}


def ended_login(user: str, item: str, sealed: bytes, now: float) -> Document:
    """Of a login that is to be no connection, and to be ended at Plaid."""
    facts = {"user": user, "provider": "plaid", "portfolio": None, "item": item, "sealed": sealed, "wants": 1}
    return {**new_document(facts, now), "state": "removing", "nextFetchAt": instant_of(now)}


def shown_fields(shown: ShownAccounts) -> Document:
    """As `connection_of` reads them."""
    rows = [[one.id, one.persistent, one.mask, one.name, one.kind] for one in shown.accounts]
    return {"institution": shown.institution, "accounts": rows}


def _shown(fields: Document | None) -> ShownAccounts | None:
    if fields is None:
        return None
    return ShownAccounts(fields["institution"], tuple(AccountIdentity(*row) for row in fields["accounts"]))


def notice_fields(notice: Notice) -> Document:
    """As `connection_of` reads them."""
    until = None if notice.until is None else instant_of(notice.until)
    return {"code": notice.code, "at": instant_of(notice.at), "until": until, "account": notice.account}


def _notice(fields: Document) -> Notice:
    return Notice(fields["code"], fields["at"].timestamp(), _seconds(fields["until"]), fields["account"])


def pairs(accounts: Mapping[str, str]) -> list[list[str]]:
    """As `connection_of` reads them."""
    # a broker's ids may hold what a field's name may not
    return [[broker, ledger] for broker, ledger in sorted(accounts.items())]


def connection_of(document: Document) -> Connection:
    """What a document says."""
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
