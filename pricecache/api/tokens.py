"""JSON Web Tokens of portfolio pages: checked by a shared secret, or by keys published at a URL."""

from __future__ import annotations

import asyncio
import json
import urllib.request
import warnings
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import structlog

from pricecache.clock import Clock
from pricecache.errors import Misconfigured, Unauthorized, Unavailable

log = structlog.get_logger(__name__)

LEEWAY = 10.0
"""Seconds by which clocks may differ."""
_KEYS_LIVE = 600.0
_ASK_AGAIN = 30.0
_PUBLISHED = ("RS256", "ES256")


class TokenVerifier:
    """Says whose token this is. Loop-only; PyJWT is loaded, and keys are fetched, in threads.

    `secret`: of HS256 tokens. `jwks_url`: where the keys of RS256 and ES256 tokens are; fetched when first needed,
    again after ten minutes or for an unknown key id. A token must have `exp` and `sub`. Raises `Misconfigured` code
    `bad_jwks_url`.
    """

    def __init__(self, clock: Clock, secret: str | None = None, jwks_url: str | None = None) -> None:
        if jwks_url is not None and urlsplit(jwks_url).scheme not in ("http", "https"):
            raise Misconfigured("PRICECACHE_JWKS_URL must be an http or https URL.", code="bad_jwks_url")
        self._clock = clock
        self._secret = secret or None
        self._jwks_url = jwks_url
        self._keys: dict[str | None, Any] = {}
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._failing = False
        self._jwt: Any = None

    async def verify(self, token: str) -> tuple[str, float]:
        """The user and the instant until which the token holds (seconds since 1970 UTC).

        Raises `Unauthorized` code `bad_token` or `token_expired`, `Unavailable` code `jwks_unavailable`.
        """
        if self._jwt is None:
            self._jwt = await asyncio.to_thread(_load_jwt)
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(token)
            key, algorithms = await self._key_for(header)
            claims = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                # times are held against the daemon's clock below
                options={"require": ["exp", "sub"], "verify_aud": False, "verify_exp": False, "verify_nbf": False,
                         "verify_iat": False},
            )  # fmt: skip
        except jwt.PyJWTError as exc:
            raise Unauthorized("The token is not valid here.", code="bad_token") from exc
        return self._checked(claims)

    def _checked(self, claims: dict[str, Any]) -> tuple[str, float]:
        now = self._clock.time()
        user, until, since = claims["sub"], claims["exp"], claims.get("nbf", 0)
        if not _is_number(until) or not _is_number(since) or not is_user_id(user):
            raise Unauthorized("The token's sub, exp or nbf is of no use.", code="bad_token")
        if now >= until + LEEWAY:
            raise Unauthorized("The token has expired.", code="token_expired")
        if now < since - LEEWAY:
            raise Unauthorized("The token is not valid yet.", code="bad_token")
        return user, float(until) + LEEWAY

    async def _key_for(self, header: dict[str, Any]) -> tuple[Any, list[str]]:
        # each kind of key only ever checks its own algorithms, else a public key would pass as a shared secret
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._secret is not None:
            return self._secret, ["HS256"]
        if algorithm in _PUBLISHED and self._jwks_url is not None:
            return await self._published(header.get("kid")), [algorithm]
        raise Unauthorized("Tokens signed in this way are not taken here.", code="bad_token")

    async def _published(self, key_id: str | None) -> Any:
        now = self._clock.monotonic()
        if now - self._fetched_at > _KEYS_LIVE or (key_id not in self._keys and now - self._asked_at > _ASK_AGAIN):
            async with self._fetching:
                if self._asked_at < now:
                    await self._fetch()
        key = self._keys.get(key_id)
        if key is None and key_id is None and len(self._keys) == 1:
            key = next(iter(self._keys.values()))
        if key is None and not self._keys:
            raise Unavailable("The keys of the tokens cannot be fetched.", code="jwks_unavailable", retry_after=5.0)
        if key is None:
            raise Unauthorized("The token is signed by an unknown key.", code="bad_token")
        return key

    async def _fetch(self) -> None:
        self._asked_at = self._clock.monotonic()
        try:
            self._keys = await asyncio.to_thread(_fetch_keys, self._jwks_url)
        except (OSError, ValueError, HTTPException, self._jwt.PyJWTError) as exc:  # the old keys go on
            if not self._failing:
                log.warning("token keys unreachable", error=str(exc))
            self._failing = True
            return
        self._fetched_at = self._asked_at
        if self._failing:
            log.info("token keys reachable again")
        self._failing = False


def is_user_id(value: object) -> bool:
    """Whether this can name a user: 1 to 128 printable characters without spaces at the ends."""
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable() and value.strip() == value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _load_jwt() -> Any:
    import jwt

    if short := getattr(jwt, "InsecureKeyLengthWarning", None):
        # whoever sets a short secret is told once, by the settings' check, not at each request
        warnings.simplefilter("ignore", short)
    return jwt


def _fetch_keys(url: str | None) -> dict[str | None, Any]:
    jwt = _load_jwt()
    assert url is not None
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        document = json.loads(response.read(1 << 20))
    return {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys}
