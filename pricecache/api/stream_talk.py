"""What is done on a user's behalf on a stream: portfolios found, messages answered, errors said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pymongo
import structlog
from pymongo.errors import PyMongoError

from pricecache.api.dispatch import DATABASE_SECONDS, as_ours
from pricecache.api.stream_messages import Ping, Resume, Subscribe, Unsubscribe, keys_of, parse_message
from pricecache.api.wire import camel
from pricecache.errors import Invalid, PricecacheError
from pricecache.realtime.messages import Message, plain

if TYPE_CHECKING:
    from pricecache.api.services import Services
    from pricecache.realtime.connection import Connection

log = structlog.get_logger(__name__)

_SECONDS = 10.0
_PONG = plain({"type": "pong"})


class Talk:
    """The streams of one user. Loop-only."""

    __slots__ = ("_hub", "_portfolios", "user")

    def __init__(self, services: Services, user: str) -> None:
        self._hub = services.streams.hub
        self._portfolios = services.portfolios
        self.user = user

    async def portfolios(self, named: Sequence[str]) -> list[str]:
        """Those that are named, all of the user's without names. Raises `NotFound` code `unknown_portfolio` for one
        that is another's or does not exist."""
        async with asyncio.timeout(_SECONDS):
            with pymongo.timeout(DATABASE_SECONDS):
                if not named:
                    return [one.id for one in await self._portfolios.all_of(self.user)]
                return [(await self._portfolios.get(self.user, one)).id for one in dict.fromkeys(named)]

    async def answer(self, connection: Connection, text: str) -> None:
        """Do what a client's message asks for; whatever is wrong with it is said. Raises `ConnectionResetError`."""
        try:
            message = parse_message(text)
            if isinstance(message, Ping):
                connection.send(_PONG)
            elif isinstance(message, Unsubscribe):
                await self._hub.unsubscribe(connection, message.portfolio_id, message.channels)
            else:
                await self._subscribe(connection, message)
        except (PricecacheError, PyMongoError, TimeoutError) as exc:
            connection.send(said(as_ours(exc)))
        except ConnectionError:
            raise
        except Exception:  # the socket's edge: our fault, told once, and the connection stays
            log.exception("stream message failed")
            connection.send(said(PricecacheError("Something went wrong here.", code="internal_error")))

    async def listen(
        self,
        connection: Connection,
        wanted: Sequence[tuple[str, Resume]],
        channels: Sequence[str],
        symbols: list[str] | None,
    ) -> None:
        """Let it hear `channels` of these portfolios. Raises what the hub raises."""
        if symbols is not None and "prices" in channels:
            await self._hub.subscribe(connection, None, ["prices"], symbols)
            channels = [channel for channel in channels if channel != "prices"]
        for portfolio_id, resume in wanted:
            if channels:
                await self._hub.subscribe(connection, portfolio_id, channels, None, resume.since, resume.epoch)

    async def _subscribe(self, connection: Connection, message: Subscribe) -> None:
        channels = set(message.channels)
        only_symbols = message.symbols is not None and channels == {"prices"}
        if message.symbols is not None and "prices" not in channels:
            raise Invalid("symbols are of the channel prices.", code="prices_needed")
        named = [message.portfolio_id] if message.portfolio_id is not None else []
        ids = await self.portfolios(named) if named or not only_symbols else []
        if message.since is not None and len(ids) > 1:
            raise Invalid("since is of one portfolio: name it in portfolioId.", code="portfolio_needed")
        resume = Resume(message.since, message.epoch)
        await self.listen(connection, [(one, resume) for one in ids], sorted(channels), keys_of(message.symbols))


def said(error: PricecacheError) -> Message:
    """The message that tells of an error, with the codes of REST."""
    rows = getattr(error, "rows", None)
    more = {"errors": camel(rows)} if rows else {}
    return plain({**camel(error.facts), **more, "type": "error", "code": error.code, "detail": error.detail})
