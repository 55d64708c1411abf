"""What is done on a user's behalf on a stream: portfolios found, messages answered, errors said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pymongo
import structlog
from pymongo.errors import PyMongoError

from pricecache.api.dispatch import DATABASE_SECONDS, as_ours
from pricecache.api.stream_messages import ClientMessage, Ping, Resume, Subscribe, Unsubscribe, keys_of, parse_message
from pricecache.api.wire import camel
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid, NotFound, PricecacheError
from pricecache.realtime.messages import Message, mask_of, names_of, plain

if TYPE_CHECKING:
    from pricecache.api.services import Services
    from pricecache.realtime.connection import Connection

log = structlog.get_logger(__name__)

_SECONDS = 10.0
INTERNAL = "internal_error"
"""Code of what is our fault."""
_PONG = plain({"type": "pong"})
_NOTHING_YET: dict[str, Any] = {"type": "subscribed", "portfolioId": None, "channels": [], "seq": None, "epoch": None}


class Talk:
    """The streams of one user. Loop-only."""

    __slots__ = ("_catalog", "_hub", "_newcomers", "_portfolios", "user")

    def __init__(self, services: Services, user: str) -> None:
        self._hub = services.streams.hub
        self._newcomers = services.streams.newcomers
        self._portfolios = services.portfolios
        self._catalog = services.catalog
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
        message: ClientMessage | None = None
        try:
            message = parse_message(text)
            if isinstance(message, Ping):
                connection.send(_PONG)
            elif isinstance(message, Unsubscribe):
                await self._unsubscribe(connection, message)
            else:
                await self._subscribe(connection, message)
        except ConnectionError:
            raise
        except Exception as exc:  # the socket's edge: what is our fault is told once, and the connection stays
            self._tell(connection, exc, getattr(message, "portfolio_id", None))

    async def listen(
        self,
        connection: Connection,
        wanted: Sequence[tuple[str, Resume]],
        channels: Sequence[str],
        symbols: list[str] | None,
        made: int | None = None,
    ) -> PricecacheError | None:
        """Let it hear `channels` of these portfolios. `made`: they are all of the user's, read when `Newcomers.count`
        was this, and those made later are to come too; None: they were named.

        What hindered it is said, and given when it ended the rest too: a portfolio that has gone meanwhile does not.
        Raises `ConnectionResetError`.
        """
        if made is not None and (followed := set(channels) - ({"prices"} if symbols is not None else set())):
            known = [portfolio_id for portfolio_id, _ in wanted]
            followed = self._newcomers.follow(connection, self, followed, known, made)
            if not wanted:
                connection.send(plain({**_NOTHING_YET, "channels": names_of(mask_of(followed))}))
        async with self._newcomers.alone(connection):
            return await self._listen(connection, wanted, channels, symbols)

    async def welcome(self, connection: Connection, portfolio_ids: Iterable[str], channels: Iterable[str]) -> None:
        """Let it hear these, which its user made, too. For `Newcomers`."""
        await self._listen(connection, [(one, Resume()) for one in portfolio_ids], sorted(channels), None)

    async def _listen(
        self,
        connection: Connection,
        wanted: Sequence[tuple[str, Resume]],
        channels: Sequence[str],
        symbols: list[str] | None,
    ) -> PricecacheError | None:
        portfolio_id = None
        try:
            if symbols is not None and "prices" in channels:
                await self._hub.subscribe(connection, None, ["prices"], self._visible(symbols))
                channels = [channel for channel in channels if channel != "prices"]
            for portfolio_id, resume in wanted if channels else ():
                try:
                    await self._hub.subscribe(connection, portfolio_id, channels, None, resume.since, resume.epoch)
                except NotFound as exc:
                    self._tell(connection, exc, portfolio_id)
        except ConnectionError:
            raise
        except Exception as exc:  # the stream's edge, as above
            return self._tell(connection, exc, portfolio_id)
        return None

    def _visible(self, symbols: Sequence[str]) -> list[str]:
        """Without instruments of other users' own, and those that may yet become one."""
        instruments = {symbol: Instrument(*symbol.rsplit(":", 1)) for symbol in symbols}
        own = {symbol: one for symbol, one in instruments.items() if not one.place.has_provider}
        entries = {symbol: self._catalog.find(one) for symbol, one in own.items()}
        hidden = {symbol for symbol, entry in entries.items() if entry is None or entry.owner not in (None, self.user)}
        return [symbol for symbol in symbols if symbol not in hidden]

    async def _subscribe(self, connection: Connection, message: Subscribe) -> None:
        channels = set(message.channels)
        only_symbols = message.symbols is not None and channels == {"prices"}
        if message.symbols is not None and "prices" not in channels:
            raise Invalid("symbols are of the channel prices.", code="prices_needed")
        named = [message.portfolio_id] if message.portfolio_id is not None else []
        made = None if named or only_symbols else self._newcomers.count
        ids = await self.portfolios(named) if named or not only_symbols else []
        if message.since is not None and len(ids) > 1:
            raise Invalid("since is of one portfolio: name it in portfolioId.", code="portfolio_needed")
        resume = Resume(message.since, message.epoch)
        await self.listen(connection, [(one, resume) for one in ids], sorted(channels), keys_of(message.symbols), made)

    async def _unsubscribe(self, connection: Connection, message: Unsubscribe) -> None:
        async with self._newcomers.alone(connection):
            if message.portfolio_id is None:
                self._newcomers.narrow(connection, message.channels)
            await self._hub.unsubscribe(connection, message.portfolio_id, message.channels)

    def _tell(self, connection: Connection, error: Exception, portfolio_id: str | None) -> PricecacheError:
        """Say what went wrong, and log what should not have."""
        if isinstance(error, PricecacheError | PyMongoError | TimeoutError):
            ours = as_ours(error)
        else:
            log.error("stream message failed", portfolio=portfolio_id, exc_info=error)
            self._hub.stats.failures += 1
            ours = PricecacheError("Something went wrong here.", code=INTERNAL)
        connection.send(said(ours, portfolio_id))
        return ours


def said(error: PricecacheError, portfolio_id: str | None = None) -> Message:
    """The message that tells of an error, with the codes of REST. `portfolio_id`: of what it is about, if of one."""
    fields = {"type": "error", "code": error.code, "detail": error.detail}
    if portfolio_id is not None:
        fields["portfolioId"] = portfolio_id
    if rows := getattr(error, "rows", None):
        fields["errors"] = camel(rows)
    return plain({**fields, **camel(error.facts), **fields})
