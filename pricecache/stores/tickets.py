"""Tickets for streams: one use, half a minute, valid on any daemon; only their SHA-256 digests are stored."""

from __future__ import annotations

import secrets
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from pricecache.stores.keys import digest_of

TICKET_SECONDS = 30
Document = dict[str, Any]


class TicketStore:
    """Tickets not used yet. Loop-only. The server's clock decides what has run out."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._tickets = database["stream_tickets"]

    async def create(self, facts: Document) -> str:
        """A new ticket that stands for `facts`, which nobody can be told again."""
        ticket = secrets.token_urlsafe(32)
        expires_at = {"$add": ["$$NOW", TICKET_SECONDS * 1000]}
        await self._tickets.update_one(
            {"_id": digest_of(ticket)},
            [{"$set": {"facts": {"$literal": facts}, "expiresAt": expires_at}}],
            upsert=True,
        )
        return ticket

    async def take(self, ticket: str) -> Document | None:
        """What a ticket stands for; None when it is unknown, used or has run out. It is used from now on."""
        # The server removes what has run out only once a minute.
        still_on = {"$expr": {"$gt": ["$expiresAt", "$$NOW"]}}
        document = await self._tickets.find_one_and_delete({"_id": digest_of(ticket), **still_on})
        return None if document is None else document["facts"]
