"""API keys and page sessions, of which only SHA-256 digests are stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from pricecache.errors import Invalid, NotFound

SCOPES = ("read", "ops", "admin")
Document = dict[str, Any]


def digest_of(secret: str) -> bytes:
    """The SHA-256 digest by which a key or a session token is looked up.

    A lookup by digest gives nothing away by how long it takes, and 256 random bits need no slow hash. Never raises:
    what a header had that is not UTF-8 comes as lone surrogates, which no secret has.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def implied(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes with all they include: `admin` includes `ops`, which includes `read`.

    Raises `Invalid` with code `invalid_scope` when there is none, or one that is not of `SCOPES`.
    """
    wanted = set(scopes)
    if not wanted or not wanted <= set(SCOPES):
        raise Invalid("Scopes are read, ops and admin; a key has at least one.", code="invalid_scope")
    return frozenset(SCOPES[: 1 + max(SCOPES.index(scope) for scope in wanted)])


def widest(scopes: Iterable[str]) -> list[str]:
    """The scope that includes all of `scopes`: what a person has to be told of them. Empty when there are none."""
    return sorted(scopes, key=SCOPES.index)[-1:]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key without its secret. Times are seconds since 1970-01-01T00:00Z.

    `scopes`: all it may, those that others include among them. `user`: whom it acts for, or None. `revoked_at`: since
    when it is refused, or None.
    """

    id: str
    name: str
    scopes: frozenset[str]
    digest: bytes
    user: str | None
    created_at: float
    revoked_at: float | None = None


class KeyStore:
    """API keys and the sessions of pages. Loop-only. The server's clock decides what has run out."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._keys = database["api_keys"]
        self._sessions = database["page_sessions"]

    async def load_keys(self, *, with_revoked: bool = False) -> list[StoredKey]:
        """The keys that are valid, in order of their making; those revoked too when asked for."""
        found = self._keys.find({} if with_revoked else {"revokedAt": None}).sort("createdAt", 1)
        return [_key(document) async for document in found]

    async def create_key(self, name: str, scopes: Iterable[str], user: str | None = None) -> tuple[StoredKey, str]:
        """A new key and its secret, `pc_<id>_<43 characters>`, which nobody can be told again.

        Raises `Invalid` with code `invalid_scope`, `invalid_name` or `invalid_user`.
        """
        granted = sorted(implied(scopes))
        _check_text(name, 64, "invalid_name")
        if user is not None:
            _check_text(user, 256, "invalid_user")
        while True:
            key_id = secrets.token_hex(4)
            secret = f"pc_{key_id}_{secrets.token_urlsafe(32)}"
            facts = {"name": name, "scopes": granted, "user": user, "revokedAt": None}
            try:
                return await self._insert_key(key_id, digest_of(secret), facts), secret
            except DuplicateKeyError:  # of 4 billion ids, one that was taken
                continue

    async def _insert_key(self, key_id: str, digest: bytes, facts: Document) -> StoredKey:
        # An upsert, because only an update can ask the server for its time.
        document = await self._keys.find_one_and_update(
            {"_id": key_id, "digest": digest},
            {"$setOnInsert": facts, "$currentDate": {"createdAt": True}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert document is not None  # an upsert that returns the document after it
        return _key(document)

    async def revoke_key(self, key_id: str) -> StoredKey:
        """Refuse the key from now on. Idempotent. Raises `NotFound` with code `unknown_key`."""
        document = await self._keys.find_one_and_update(
            {"_id": key_id},
            [{"$set": {"revokedAt": {"$ifNull": ["$revokedAt", "$$NOW"]}}}],
            return_document=ReturnDocument.AFTER,
        )
        if document is None:
            raise NotFound("There is no such key. `pricecache keys` lists them.", code="unknown_key")
        return _key(document)

    async def create_session(self, user: str, hours: float) -> str:
        """A new session of a page; its token, which is stored nowhere. Raises `Invalid` with code `invalid_user`."""
        _check_text(user, 256, "invalid_user")
        token = secrets.token_urlsafe(32)
        expires_at = {"$add": ["$$NOW", round(hours * 3_600_000)]}
        await self._sessions.update_one(
            {"_id": digest_of(token)}, [{"$set": {"user": {"$literal": user}, "expiresAt": expires_at}}], upsert=True
        )
        return token

    async def get_session(self, token_digest: bytes) -> str | None:
        """The user of a session, or None when it is unknown or has run out."""
        # The server removes what has run out only once a minute.
        still_on = {"$expr": {"$gt": ["$expiresAt", "$$NOW"]}}
        document = await self._sessions.find_one({"_id": token_digest, **still_on})
        return None if document is None else document["user"]

    async def living_sessions(self, token_digests: Iterable[bytes]) -> dict[bytes, str]:
        """The users of those of these sessions that are known and have not run out, by digest."""
        still_on = {"$expr": {"$gt": ["$expiresAt", "$$NOW"]}}
        found = self._sessions.find({"_id": {"$in": list(token_digests)}, **still_on}, {"user": 1})
        return {bytes(document["_id"]): document["user"] async for document in found}

    async def end_session(self, token_digest: bytes) -> None:
        """Forget a session. Idempotent."""
        await self._sessions.delete_one({"_id": token_digest})


def _check_text(text: str, longest: int, code: str) -> None:
    if not (0 < len(text) <= longest and text.isprintable() and text.strip() == text):
        raise Invalid(f"A name has 1 to {longest} printable characters and no space at its ends.", code=code)


def _key(document: Document) -> StoredKey:
    revoked_at = document["revokedAt"]
    return StoredKey(
        id=document["_id"],
        name=document["name"],
        scopes=frozenset(document["scopes"]),
        digest=bytes(document["digest"]),
        user=document["user"],
        created_at=document["createdAt"].timestamp(),
        revoked_at=None if revoked_at is None else revoked_at.timestamp(),
    )
