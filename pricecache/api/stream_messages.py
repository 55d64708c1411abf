"""What clients of a stream say, checked: messages of a WebSocket, parameters of a server-sent stream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, field_validator

from pricecache.api.inputs import MOST_SYMBOLS, Input, Named, split_names
from pricecache.api.wire import invalid_input
from pricecache.core.instruments import Instrument
from pricecache.errors import Invalid

Channel = Literal["positions", "account", "trades", "orders", "prices"]
BY_DEFAULT: tuple[Channel, ...] = ("positions", "account", "trades", "orders")
_MOST_PORTFOLIOS = 100
_LAST_NUMBER = (1 << 53) - 1
_SINCE = re.compile(r"(?:([^:]{1,64}):)?([0-9]{1,15})")
_LAST_EVENT_ID = re.compile(r"([^:]{1,64}):(?:([0-9]{1,15})|((?:[^=,:]{1,64}=[0-9]{1,15},?){1,100}))")

PortfolioId = Annotated[str, Field(min_length=1, max_length=64)]
Epoch = Annotated[str, Field(min_length=1, max_length=64)]
Number = Annotated[int, Field(strict=True, ge=0, le=_LAST_NUMBER)]


class Subscribe(Input):
    type: Literal["subscribe"]
    channels: list[Channel] = Field(list(BY_DEFAULT), min_length=1, max_length=20)
    portfolio_id: PortfolioId | None = None
    symbols: list[Named] | None = Field(None, min_length=1, max_length=MOST_SYMBOLS)
    since: Number | None = None
    epoch: Epoch | None = None


class Unsubscribe(Input):
    type: Literal["unsubscribe"]
    channels: list[Channel] | None = Field(None, min_length=1, max_length=20)
    portfolio_id: PortfolioId | None = None


class Ping(Input):
    type: Literal["ping"]


ClientMessage = Subscribe | Unsubscribe | Ping
_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


def parse_message(text: str) -> ClientMessage:
    """A message of a client. Raises `Invalid`: code `malformed_json`, `unknown_type`, or that of the field."""
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError as exc:
        if exc.errors()[0]["type"].startswith("union_tag"):
            raise Invalid("A message's type is subscribe, unsubscribe or ping.", code="unknown_type") from exc
        raise invalid_input(exc, "body", within=1) from exc  # the type stands before every field


class StreamQuery(Input):
    portfolio_id: list[PortfolioId] = Field(
        [], max_length=_MOST_PORTFOLIOS, description="Repeatable; all portfolios of the user by default."
    )
    channels: Annotated[list[Channel], BeforeValidator(split_names)] = Field(
        list(BY_DEFAULT), min_length=1, max_length=20, description="Comma-separated; prices are left out by default."
    )
    symbols: Annotated[list[Named] | None, BeforeValidator(split_names)] = Field(
        None, max_length=MOST_SYMBOLS, description="Prices of these, comma-separated; by default of what is held."
    )
    since: list[str] = Field(
        [],
        max_length=_MOST_PORTFOLIOS,
        description="The last number that is known: N, or portfolioId:N, repeatable. A header Last-Event-ID wins.",
    )
    epoch: Epoch | None = Field(None, description="The epoch in which since was counted.")
    ticket: str | None = Field(None, max_length=100, description="A ticket instead of a credential.")

    @field_validator("since")
    @classmethod
    def _readable(cls, since: list[str]) -> list[str]:
        if not all(_SINCE.fullmatch(text) for text in since):
            raise ValueError("since is N or portfolioId:N")
        return since


class SocketQuery(Input):
    ticket: str | None = Field(None, max_length=100, description="A ticket instead of a credential.")


@dataclass(frozen=True, slots=True)
class Resume:
    """From where a portfolio's events are wanted; `since` None: what holds now is enough."""

    since: int | None = None
    epoch: str | None = None


LOST = Resume(0, "")
"""Of a portfolio whose place is not known any more: an epoch that no database has, so that it begins anew."""


def resumes_of(query: StreamQuery, portfolio_ids: list[str], last_event_id: str | None) -> dict[str, Resume]:
    """From where each portfolio goes on. Raises `Invalid` code `bad_last_event_id`, or `portfolio_needed` for one
    number of several portfolios."""
    if last_event_id:
        return _of_last_event(last_event_id, portfolio_ids)
    found: dict[str, Resume] = {}
    for text in query.since:
        matched = _SINCE.fullmatch(text)
        assert matched is not None  # the model has checked it
        portfolio_id = matched[1]
        if portfolio_id is None:
            if len(portfolio_ids) != 1:
                raise Invalid("since of several portfolios is portfolioId:N.", code="portfolio_needed")
            portfolio_id = portfolio_ids[0]
        found[portfolio_id] = Resume(int(matched[2]), query.epoch)
    return found


def _of_last_event(text: str, portfolio_ids: list[str]) -> dict[str, Resume]:
    matched = _LAST_EVENT_ID.fullmatch(text)
    if matched is None:
        raise Invalid("Last-Event-ID is the id of a message of this stream.", code="bad_last_event_id")
    epoch, number, several = matched.groups()
    if number is not None and len(portfolio_ids) == 1:
        return {portfolio_ids[0]: Resume(int(number), epoch)}
    if several is None:
        return dict.fromkeys(portfolio_ids, LOST)
    sent = dict(part.split("=") for part in several.strip(",").split(","))
    return {one: Resume(int(sent[one]), epoch) for one in portfolio_ids if one in sent}  # of others nothing was told


def keys_of(symbols: list[Any] | None) -> list[str] | None:
    """Instruments by the key that the stream knows them by."""
    return None if symbols is None else [one.key for one in symbols if isinstance(one, Instrument)]
