"""Answers that are kept: how long each kind is right, and how it tells that it no longer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import TYPE_CHECKING

import orjson

from pricecache.api.encoding import (
    quote_fields,
    weak_etag_of,
)
from pricecache.api.kept import Kept
from pricecache.api.splice import Frame, can_follow
from pricecache.api.wire import encode
from pricecache.core.bars import Bars
from pricecache.core.catalog import Catalog
from pricecache.core.quotes import Quote

if TYPE_CHECKING:
    from pricecache.api.services import Services
    from pricecache.cache.live import LiveCache
    from pricecache.cache.reader import HistoryAnswer, Reader

LIVE_SECONDS = 1.0
"""How old the age in a kept list of quotes may be."""


class KeptQuote(Kept):
    """One quote: right until another takes its place, its age is a second greater, or it becomes stale."""

    __slots__ = ("_key", "_live", "_quote", "_until")

    def __init__(self, live: LiveCache, quote: Quote, now: float) -> None:
        fields = quote_fields(quote, now)
        age = fields.pop("ageSeconds")
        content = orjson.dumps(fields)
        super().__init__(b'%s,"ageSeconds":%d}\n' % (content[:-1], age), weak_etag_of(content))
        self._live = live
        self._key = quote.instrument.key
        self._quote = quote
        self._until = _until_stale([quote], now, max(quote.as_of + age, now - 1.0) + 1.0)

    def current(self, now: float) -> bool:
        return now < self._until and self._live.get(self._key) is self._quote


class KeptQuotes(Kept):
    """Several quotes: right until one is replaced or becomes stale, one more is there, or a second has passed."""

    __slots__ = ("_count", "_keys", "_live", "_quotes", "_until")

    def __init__(self, live: LiveCache, quotes: Sequence[Quote], missing: list[dict[str, str]], now: float) -> None:
        rows = [quote_fields(quote, now) for quote in quotes]
        timeless = [{name: value for name, value in row.items() if name != "ageSeconds"} for row in rows]
        super().__init__(encode({"quotes": rows, "missing": missing}), weak_etag_of(encode([timeless, missing])))
        self._live = live
        self._count = len(live)
        self._quotes = tuple(quotes)
        self._keys = tuple(quote.instrument.key for quote in quotes)
        self._until = _until_stale(quotes, now, now + LIVE_SECONDS)

    def current(self, now: float) -> bool:
        return (
            now < self._until
            and len(self._live) == self._count
            and all(map(is_, map(self._live.get, self._keys), self._quotes))
        )


class KeptHistory(Kept):
    """Bars: right until the entry changes, another session falls due or opens, the market's date changes, or, where
    the session that runs is among them, its quote makes another bar."""

    __slots__ = ("_catalog", "_complete", "_entry", "_key", "_live", "_quote", "_reader", "_until", "_version")

    def __init__(
        self,
        services: Services,
        answer: HistoryAnswer,
        body: bytes,
        etag: str,
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body, etag, content_type=content_type, headers=headers)
        self._catalog: Catalog = services.catalog
        self._reader: Reader = services.reader
        self._entry = answer.entry
        self._version = answer.version
        self._until = (
            min(answer.valid_until, answer.quote.stale_at) if answer.quote and answer.runs else answer.valid_until
        )
        self._complete = answer.coverage.complete
        self._live: LiveCache | None = services.live if answer.watches else None
        self._key = answer.entry.instrument.key
        self._quote = answer.quote

    def current(self, now: float) -> bool:
        entry = self._entry
        return (
            entry.version == self._version
            and now < self._until
            and self._catalog.trusted
            and self._catalog.by_id(entry.id) is entry
            and (self._live is None or self._live.get(self._key) is self._quote)
        )

    def _entry_stands(self) -> bool:
        entry = self._entry
        return entry.version == self._version and self._catalog.trusted and self._catalog.by_id(entry.id) is entry

    def count_read(self) -> None:
        self._reader.count(self._complete)


class KeptRunning(KeptHistory):
    """Bars in rows of which the last one is of the session that runs: another quote changes that row only."""

    __slots__ = ("_answer", "_fields", "_frame", "_services")

    def __init__(
        self,
        services: Services,
        answer: HistoryAnswer,
        body: bytes,
        etag: str,
        content_type: str,
        fields: Sequence[str],
        frame: Frame | None = None,
    ) -> None:
        super().__init__(services, answer, body, etag, content_type)
        self._services = services
        self._answer = replace(answer, bars=answer.bars.between(int(answer.bars.sessions[-1]), None))
        self._fields = fields
        self._frame = frame

    @property
    def nbytes(self) -> int:
        return super().nbytes + (self._frame.nbytes if self._frame is not None else 0)

    def renewed(self, now: float) -> Kept | None:
        quote = self._services.live.get(self._key)
        if quote is None or now >= self._answer.valid_until or not self._entry_stands():
            return None
        made = self._reader.running_bar(self._entry, quote)
        session = int(self._answer.bars.sessions[0])
        if made is None or made[0] != session or not can_follow(made[1], self._fields):
            return None
        frame = self._frame or Frame(self._plain.body, self._fields, self._answer.adjust)
        answer = replace(self._answer, bars=Bars(self._answer.bars.sessions, made[1]), quote=quote)
        body, etag = frame.filled(session, made[1])
        return KeptRunning(self._services, answer, body, etag, "application/json", self._fields, frame)

    def _compressed(self, body: bytes) -> bytes:
        return super()._compressed(body) if self._frame is None else self._frame.gzip(body)


class KeptKnown(KeptHistory):
    """Bars as they were known at an instant: right until something is committed, or learned of the instrument. Whether
    they were complete then says nothing of how well the cache serves now, so they are no reads that count."""

    __slots__ = ()

    def count_read(self) -> None:
        """Not counted."""


def _until_stale(quotes: Sequence[Quote], now: float, until: float) -> float:
    return min([until, *(quote.stale_at for quote in quotes if quote.stale_at > now)])
