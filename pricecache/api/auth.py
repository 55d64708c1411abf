"""Who is asking: API keys with scopes, users by token or page session, and nobody but this machine without either."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

import structlog
from pymongo.errors import PyMongoError

from pricecache.api.origins import Origins, is_loopback, names_loopback
from pricecache.api.tokens import TokenVerifier, is_user_id
from pricecache.api.wire import TooManyAttempts
from pricecache.clock import Clock
from pricecache.errors import Forbidden, Invalid, Misconfigured, Unauthorized, Unavailable
from pricecache.stores.keys import KeyStore, digest_of, implied
from pricecache.stores.tickets import TicketStore

log = structlog.get_logger(__name__)

SESSION_COOKIE = "pricecache_session"
CHALLENGE = 'Bearer realm="pricecache", ApiKey realm="pricecache"'
"""The WWW-Authenticate header of a 401."""

_RELOAD_SECONDS = 30.0
_RELOAD_PATIENCE = 2.0
_RETRY_SECONDS = 5.0
_MOST_SEEN = 4096
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Scope = Literal["user", "read", "ops", "admin"]
Kind = Literal["local", "key", "token", "session"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody known. `name`: for logs and run reports; `scopes`: with everything they include; `user`: on whose
    behalf, which adds scope `user`."""

    name: str
    kind: Kind
    scopes: frozenset[str]
    user: str | None = None

    def require(self, scope: Scope) -> None:
        """Raises `Forbidden` code `user_needed` or `scope_needed`."""
        if scope in self.scopes:
            return
        if scope == "user":
            raise Forbidden("This belongs to a user: send X-User-Id with the key, or a token.", code="user_needed")
        raise Forbidden(f"This needs a key with scope {scope}.", code="scope_needed", needed=scope)


@dataclass(frozen=True, slots=True)
class Credential:
    """By what a user was known, to ask again later whether it still holds. `digest`: of the key or the page session;
    `until`: when a token runs out, in seconds since 1970 UTC. Neither means anything for the user of an open daemon."""

    kind: Kind
    user: str
    digest: bytes = b""
    until: float = float("inf")


LOCAL = Principal("local", "local", frozenset({"read", "ops", "admin", "user"}), "local")


def check_exposure(host: str, has_credentials: bool) -> None:
    """Raises `Misconfigured`, code `exposed_without_keys`, when `host` can be reached from outside and nothing is asked
    of those who come."""
    if not has_credentials and not is_loopback(host):
        raise Misconfigured(
            f"Listening on {host} without any key would serve everybody. Set PRICECACHE_API_KEYS (name:scopes:secret) "
            "or PRICECACHE_JWT_SECRET or PRICECACHE_JWKS_URL, or PRICECACHE_HOST=127.0.0.1.",
            code="exposed_without_keys",
        )


def parse_key(setting: str) -> tuple[bytes, Principal]:
    """`name:scopes:secret`, scopes joined by `+`, as the SHA-256 of the secret and who has it.

    Raises `Misconfigured` code `bad_key_setting`, without saying the secret.
    """
    name, _, rest = setting.partition(":")
    scopes, _, secret = rest.partition(":")
    try:
        included = implied(scopes.split("+"))
    except Invalid:
        included = frozenset()
    if not name or not secret or not included:
        raise Misconfigured(
            f"A key of PRICECACHE_API_KEYS (name {name[:20]!r}) is not of the form name:scopes:secret, where scopes "
            "are read, ops or admin joined by +.",
            code="bad_key_setting",
        )
    return digest_of(secret), Principal(f"key:{name}", "key", included)


class FailedAttempts:
    """Wrong keys by address: ten a minute, then none is looked at for the rest of that minute. Loop-only."""

    LIMIT = 10
    WINDOW = 60.0
    _MOST_ADDRESSES = 10_000

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self.blocking = False
        """Whether some address may be over its limit; a cheap look before the exact one."""

    def check(self, address: str, now: float) -> None:
        """Raises `TooManyAttempts` while `address` is over its limit. `now` in monotonic seconds."""
        if not self.blocking:
            return
        count, since = self._counts.get(address, (0, now))
        if count >= self.LIMIT and now - since < self.WINDOW:
            raise TooManyAttempts(self.WINDOW - (now - since))
        self.blocking = any(c >= self.LIMIT and now - s < self.WINDOW for c, s in self._counts.values())

    def add(self, address: str, now: float) -> None:
        count, since = self._counts.pop(address, (0, now))
        if now - since >= self.WINDOW:
            count, since = 0, now
        if len(self._counts) >= self._MOST_ADDRESSES:
            self._counts.pop(next(iter(self._counts)))
        self._counts[address] = count + 1, since
        self.blocking = self.blocking or count + 1 >= self.LIMIT


class Identity:
    """Decides who sends a request. Loop-only.

    `keys`: settings as `name:scopes:secret`. `store`: keys and page sessions made at run time; read again every 30 s,
    so that a key revoked elsewhere ends within that time. `loopback`: whether the daemon listens on loopback only;
    then, and only then, with no key and no tokens, everybody is user `local` and may do everything.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        keys: Iterable[str] = (),
        tokens: TokenVerifier | None = None,
        store: KeyStore | None = None,
        tickets: TicketStore | None = None,
        origins: Origins | None = None,
        loopback: bool = True,
        session_hours: float = 12.0,
    ) -> None:
        self.origins = origins or Origins()
        self.attempts = FailedAttempts()
        self._clock = clock
        self._configured = dict(parse_key(key) for key in keys)
        self._keys = dict(self._configured)
        self._tokens = tokens
        self._store = store
        self._tickets = tickets
        self._loopback = loopback
        self._session_hours = session_hours
        self._seen: dict[bytes, tuple[Principal, float]] = {}
        self._open = False
        self._fresh_until = float("-inf")
        self._loaded = store is None
        self._reloading: asyncio.Task[None] | None = None
        if store is None:
            self._fresh_until = float("inf")
            self._decide()

    @property
    def is_open(self) -> bool:
        """Whether everybody on this machine is user `local`."""
        return self._open

    async def reload(self) -> None:
        """Take up the keys stored now, and forget every session and token seen. Raises what the store raises."""
        assert self._store is not None
        stored = await self._store.load_keys()
        keys = dict(self._configured)
        for key in stored:
            keys[key.digest] = Principal(f"key:{key.name}", "key", key.scopes | _user_scope(key.user), key.user)
        self._keys = keys
        self._seen.clear()
        self._loaded = True
        self._fresh_until = self._clock.monotonic() + _RELOAD_SECONDS
        self._decide()

    def known(self, headers: Mapping[str, str]) -> Principal | None:
        """Who sends this GET, if that can be told at once; None for anything that needs a closer look."""
        if "Origin" in headers or "X-User-Id" in headers or self._clock.monotonic() >= self._fresh_until:
            return None
        if self._open:
            return LOCAL if names_loopback(headers.get("Host")) else None
        key = headers.get("X-API-Key")
        if key is not None:
            return self._keys.get(digest_of(key))
        return self._remembered(headers.get("Authorization") or headers.get("Cookie"))

    async def authenticate(self, headers: Mapping[str, str], method: str, address: str) -> Principal:
        """Who sends a request. Raises `Unauthorized`, `Forbidden`, `TooManyAttempts`, `Unavailable`."""
        await self._keep_fresh()
        if self._open:
            return self._local(headers)
        principal = await self._principal(headers, method, address)
        wanted = headers.get("X-User-Id")
        return principal if wanted is None else _acting_for(principal, wanted)

    async def open_session(self, principal: Principal, headers: Mapping[str, str]) -> str:
        """A page session for the user of a token: the value of its Set-Cookie header. Raises `Forbidden`."""
        if principal.kind != "token" or principal.user is None or self._store is None:
            raise Forbidden("A session is given for a token: send Authorization: Bearer.", code="token_needed")
        origin, host = headers.get("Origin"), headers.get("Host")
        if origin is not None:
            self.origins.require(origin, host)
        token = await self._store.create_session(principal.user, self._session_hours)
        return _cookie(token, int(self._session_hours * 3600), host)

    async def end_session(self, headers: Mapping[str, str]) -> str:
        """End the session of a request, if it has one: the Set-Cookie header that takes its cookie away."""
        token = _session_token(headers)
        self._seen.clear()
        if token is not None and self._store is not None:
            await self._store.end_session(digest_of(token))
        return _cookie("", 0, headers.get("Host"))

    # ---- connections, which outlast their request

    async def credential_of(self, principal: Principal, headers: Mapping[str, str]) -> Credential:
        """By what the sender of an admitted request is known. Raises `Forbidden` when it acts for no user, and what
        checking a token raises."""
        if principal.user is None:
            principal.require("user")
        assert principal.user is not None
        if principal.kind == "key":
            return Credential("key", principal.user, digest_of(headers["X-API-Key"]))
        if principal.kind == "token" and self._tokens is not None:
            _, until = await self._tokens.verify(headers["Authorization"].partition(" ")[2].strip())
            return Credential("token", principal.user, until=until)
        if principal.kind == "session":
            return Credential("session", principal.user, digest_of(_session_token(headers) or ""))
        return Credential("local", principal.user)

    async def holding(self, credentials: Collection[Credential]) -> set[Credential]:
        """Those of `credentials` that still hold, with one question to the database. Raises what the store raises."""
        await self._keep_fresh()
        sessions = {one.digest: one.user for one in credentials if one.kind == "session"}
        alive = await self._store.living_sessions(sessions) if sessions and self._store is not None else {}
        return {one for one in credentials if self._holds(one, alive)}

    def _holds(self, credential: Credential, sessions: Mapping[bytes, str]) -> bool:
        if credential.kind == "local":
            return self._open
        if credential.kind == "token":
            return self._tokens is not None and self._clock.time() < credential.until
        if credential.kind == "session":
            return sessions.get(credential.digest) == credential.user
        holder = self._keys.get(credential.digest)
        if holder is None:
            return False
        return holder.user == credential.user or (holder.user is None and "ops" in holder.scopes)

    async def make_ticket(self, principal: Principal, headers: Mapping[str, str]) -> str:
        """A ticket for one connection, which holds as long as what the sender is known by."""
        assert self._tickets is not None
        return await self._tickets.create(asdict(await self.credential_of(principal, headers)))

    async def by_ticket(self, ticket: str) -> tuple[Principal, Credential]:
        """Who has been given a ticket, which is used from now on. Raises `Unauthorized` code `bad_ticket`."""
        facts = await self._tickets.take(ticket) if self._tickets is not None else None
        if facts is not None:
            credential = Credential(facts["kind"], facts["user"], bytes(facts["digest"]), facts["until"])
            if await self.holding([credential]):
                kind, scopes = credential.kind, frozenset({"read", "user"})
                return Principal(f"user:{credential.user}", kind, scopes, credential.user), credential
        raise Unauthorized("This ticket is not known, was used, or has run out.", code="bad_ticket")

    def _decide(self) -> None:
        is_open = self._loopback and not self._keys and self._tokens is None
        if is_open != self._open and self._loaded:
            log.info("access is open to this machine" if is_open else "access is by key or token")
        self._open = is_open

    async def close(self) -> None:
        """Wait for what still reads keys."""
        if self._reloading is not None:
            await asyncio.wait([self._reloading])

    async def _keep_fresh(self) -> None:
        if self._clock.monotonic() < self._fresh_until:
            return
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._try_reload(), name="reload-keys")
        if not self._loaded:
            await asyncio.wait([self._reloading])
        if not self._loaded:
            raise Unavailable("The keys cannot be read yet.", code="keys_unavailable")

    async def _try_reload(self) -> None:
        # keys known so far go on meanwhile, and when this fails
        try:
            async with asyncio.timeout(_RELOAD_PATIENCE):
                await self.reload()
        except (PyMongoError, TimeoutError) as exc:
            log.debug("stored keys unreachable", error=str(exc))
            if self._loaded:
                self._fresh_until = self._clock.monotonic() + _RETRY_SECONDS

    def _local(self, headers: Mapping[str, str]) -> Principal:
        host, origin = headers.get("Host"), headers.get("Origin")
        if not names_loopback(host):
            raise Forbidden("Without keys this daemon answers to loopback names only.", code="foreign_host")
        if origin is not None:
            self.origins.require(origin, host)
        if "X-User-Id" in headers:
            raise Forbidden("X-User-Id needs a key beside it; without keys everybody is user local.", code="key_needed")
        return LOCAL

    async def _principal(self, headers: Mapping[str, str], method: str, address: str) -> Principal:
        key = headers.get("X-API-Key")
        if key is not None:
            return self._by_key(key, address)
        authorization = headers.get("Authorization")
        if authorization is not None:
            return await self._by_token(authorization)
        token = _session_token(headers)
        if token is not None:
            if method not in _SAFE:
                self.origins.require(headers.get("Origin"), headers.get("Host"))
            return await self._by_session(token, headers["Cookie"])
        raise Unauthorized

    def _by_key(self, key: str, address: str) -> Principal:
        principal = self._keys.get(digest_of(key))
        if principal is None:
            # the limit is for those who try keys: behind a proxy the rest of the world has the same address
            now = self._clock.monotonic()
            self.attempts.check(address, now)
            self.attempts.add(address, now)
            raise Unauthorized("This key is not known here.", code="bad_key")
        return principal

    async def _by_token(self, authorization: str) -> Principal:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or self._tokens is None:
            raise Unauthorized("Authorization is taken as Bearer with a token only.", code="bad_token")
        principal = self._remembered(authorization)
        if principal is None:
            user, until = await self._tokens.verify(token.strip())
            principal = _user_principal(user, "token")
            self._remember(authorization, principal, until)
        return principal

    async def _by_session(self, token: str, cookies: str) -> Principal:
        principal = self._remembered(cookies)
        if principal is None:
            user = await self._store.get_session(digest_of(token)) if self._store is not None else None
            if user is None:
                raise Unauthorized("The session has ended.", code="session_ended")
            principal = _user_principal(user, "session")
            self._remember(cookies, principal, self._clock.time() + _RELOAD_SECONDS)
        return principal

    def _remembered(self, header: str | None) -> Principal | None:
        if header is None:
            return None
        seen = self._seen.get(digest_of(header))
        return seen[0] if seen is not None and self._clock.time() < seen[1] else None

    def _remember(self, header: str, principal: Principal, until: float) -> None:
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[digest_of(header)] = principal, until


def _user_scope(user: str | None) -> frozenset[str]:
    return frozenset() if user is None else frozenset({"user"})


def _user_principal(user: str, kind: Kind) -> Principal:
    return Principal(f"user:{user}", kind, frozenset({"read", "user"}), user)


def _acting_for(principal: Principal, user: str) -> Principal:
    if principal.user == user:
        return principal
    if principal.kind != "key" or principal.user is not None or "ops" not in principal.scopes:
        raise Forbidden("X-User-Id needs a key with scope ops or admin that is bound to no user.", code="not_your_user")
    if not is_user_id(user):
        raise Forbidden("X-User-Id is 1 to 128 printable characters.", code="bad_user")
    return replace(principal, user=user, scopes=principal.scopes | {"user"})


def _session_token(headers: Mapping[str, str]) -> str | None:
    for part in headers.get("Cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == SESSION_COOKIE and value:
            return value
    return None


def _cookie(value: str, seconds: int, host: str | None) -> str:
    secure = "" if host is not None and names_loopback(host) else "; Secure"
    return f"{SESSION_COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
