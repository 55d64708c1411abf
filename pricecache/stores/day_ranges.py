"""How high and how low the day change of a portfolio has been in its latest session, and what it closed at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from pricecache.stores.ledger import instant_of

Document = dict[str, Any]

RANGES_AT_ONCE = 500
"""Ranges of one write: the driver encodes them while the event loop waits."""


@dataclass(frozen=True, slots=True)
class DayRange:
    """Of one portfolio in the session of `day` (days since 1970-01-01).

    `high`, `low`: of the day change, in base currency, rounded to its minor unit. `since`: from when on it was looked
    at, `at`: when it was stretched last, both seconds since 1970 UTC. `corrections`: how many the ledger had had when
    this began: what was seen before a later one counts no more.
    """

    portfolio: str
    day: int
    high: float
    low: float
    since: float
    at: float
    corrections: int = 0


@dataclass(frozen=True, slots=True)
class Close:
    """What a portfolio was worth when the last of its exchanges had closed, in base currency. `at`: when it was seen,
    `closed_at`: when that exchange closed, both seconds since 1970 UTC."""

    portfolio: str
    day: int
    value: float
    change: float | None
    high: float | None
    low: float | None
    at: float
    closed_at: float


class DayRangeStore:
    """The collection `day_ranges`: one document a portfolio and session, gone after 35 days. Loop-only.

    Several daemons may write the same range: high and low take in what each of them has seen.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._ranges = database["day_ranges"]

    async def save(self, ranges: Sequence[DayRange]) -> None:
        """Durable when it returns."""
        for i in range(0, len(ranges), RANGES_AT_ONCE):
            await self._ranges.bulk_write(list(map(_widening, ranges[i : i + RANGES_AT_ONCE])), ordered=False)

    async def load(self, portfolios: Iterable[str], since_day: int) -> dict[str, DayRange]:
        """The latest of each since a day, by portfolio."""
        wanted = {"portfolio": {"$in": list(portfolios)}, "day": {"$gte": since_day}, "high": {"$exists": True}}
        documents = await self._ranges.find(wanted).sort("day", 1).to_list()
        return {document["portfolio"]: _range_of(document) for document in documents}

    async def close(self, closes: Sequence[Close]) -> None:
        """Keep what portfolios closed at. What was seen after the same close before stays."""
        for i in range(0, len(closes), RANGES_AT_ONCE):
            await self._ranges.bulk_write(list(map(_closing, closes[i : i + RANGES_AT_ONCE])), ordered=False)

    async def closes(self, portfolios: Iterable[str]) -> dict[str, Close]:
        """The last one of each."""
        wanted = {"portfolio": {"$in": list(portfolios)}, "close": {"$exists": True}}
        documents = await self._ranges.find(wanted).sort("day", 1).to_list()
        return {document["portfolio"]: _close_of(document) for document in documents}


def _key(portfolio: str, day: int) -> Document:
    return {"_id": f"{portfolio}:{day}"}


def _widening(one: DayRange) -> UpdateOne:
    """An update that another daemon's may precede or follow: the later correction wins, and of the same the widest."""
    seen: Document = {"high": one.high, "low": one.low, "since": instant_of(one.since), "corrections": one.corrections}
    held = {"$ifNull": ["$corrections", -1]}
    kept: Document = {
        "high": {"$max": ["$high", one.high]},
        "low": {"$min": ["$low", one.low]},
        "since": {"$min": ["$since", seen["since"]]},
        "corrections": "$corrections",
    }
    facts: Document = {"portfolio": one.portfolio, "day": one.day, "at": instant_of(one.at)}
    for name in seen:
        by_correction = {"case": {"$gt": [held, one.corrections]}, "then": f"${name}"}
        widest = {"case": {"$eq": [held, one.corrections]}, "then": kept[name]}
        facts[name] = {"$switch": {"branches": [by_correction, widest], "default": seen[name]}}
    return UpdateOne(_key(one.portfolio, one.day), [{"$set": facts}], upsert=True)


def _closing(one: Close) -> UpdateOne:
    at, closed_at = instant_of(one.at), instant_of(one.closed_at)
    figures = {"value": one.value, "change": one.change, "high": one.high, "low": one.low}
    is_there = {"$gte": [{"$ifNull": ["$close.closedAt", None]}, closed_at]}  # any instant is more than null
    facts = {
        "portfolio": one.portfolio, "day": one.day, "at": at,
        "close": {"$cond": [is_there, "$close", {"$literal": {**figures, "at": at, "closedAt": closed_at}}]},
    }  # fmt: skip
    return UpdateOne(_key(one.portfolio, one.day), [{"$set": facts}], upsert=True)


def _range_of(document: Document) -> DayRange:
    times = document["since"].timestamp(), document["at"].timestamp()
    seen = document["high"], document["low"]
    return DayRange(document["portfolio"], document["day"], *seen, *times, document["corrections"])


def _close_of(document: Document) -> Close:
    close = document["close"]
    figures = close["value"], close["change"], close["high"], close["low"]
    times = close["at"].timestamp(), close["closedAt"].timestamp()
    return Close(document["portfolio"], document["day"], *figures, *times)
