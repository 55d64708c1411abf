"""Bars of a minute to an hour: what is asked for, and the answer in its four formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from pricecache.api.encoding import (
    arrow_of,
    columns_of,
    coverage_headers,
    csv_of,
    currency_facts,
    currency_fields,
    listed,
    weak_etag_of,
)
from pricecache.api.inputs import HistoryQuery
from pricecache.api.kept import Kept
from pricecache.api.wire import encode, instant
from pricecache.cache.intraday import Span
from pricecache.core.bars import day_number
from pricecache.core.catalog import Entry

if TYPE_CHECKING:
    from pricecache.api.services import Services
    from pricecache.cache.intraday import IntradayAnswer, SampleCoverage


class KeptIntraday(Kept):
    """Intraday bars: right until another sample or another version of the entry comes, or another bar may begin.

    With other daemons on the database never: their samples are not heard of here.
    """

    __slots__ = ("_answer", "_services")

    def __init__(
        self,
        services: Services,
        answer: IntradayAnswer,
        body: bytes,
        etag: str,
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(body, etag, content_type=content_type, headers=headers)
        self._services = services
        self._answer = answer

    def current(self, now: float) -> bool:
        services, answer = self._services, self._answer
        samples = services.intraday.samples
        return (
            now < answer.valid_until
            and not samples.shared
            and services.catalog.trusted
            and answer.entry.version == answer.version
            and samples.version(answer.entry) == answer.samples_version
            and services.catalog.by_id(answer.entry.id) is answer.entry
        )


async def intraday_history(
    services: Services, entry: Entry, query: HistoryQuery, requested: str | None = None
) -> KeptIntraday:
    """`requested`: the former symbol it was asked for by, or None."""
    answer = await services.intraday.bars(entry, _span(query), query.interval, query.adjust)
    if not query.provisional:
        answer = answer.final()
    fields = list(dict.fromkeys(query.fields))
    if query.format in ("json", "columns"):
        body, etag = _json(answer, fields, columns=query.format == "columns", requested=requested)
        return KeptIntraday(services, answer, body, etag, "application/json")
    times = _times(answer)
    said = coverage_headers(answer.coverage, _provisional(answer, times))
    said |= currency_facts(entry, "X-Pricecache-Currencies")
    if query.format == "csv":
        body, etag = csv_of("time", times, fields, columns_of(answer.bars.values, answer.adjust, fields))
        return KeptIntraday(services, answer, body, etag, "text/csv; charset=utf-8", said)
    facts = {"symbol": entry.instrument.symbol, "market": entry.instrument.market, "currency": entry.currency,
             "interval": answer.interval, "adjust": answer.adjust}  # fmt: skip
    facts |= currency_facts(entry, "currencies")
    starts = answer.bars.starts.view("datetime64[ms]")
    body, etag = await arrow_of("time", starts, answer.bars.values, fields, facts)
    return KeptIntraday(services, answer, body, etag, "application/vnd.apache.arrow.stream", said)


def _span(query: HistoryQuery) -> Span:
    start, first = _bound(query.start)
    end, last = _bound(query.end)
    return Span(start, first, end, last, query.period)


def _bound(bound: date | datetime | None) -> tuple[int | None, int | None]:
    if isinstance(bound, datetime):
        return round(bound.timestamp() * 1000), None
    return None, None if bound is None else day_number(bound)


def _json(answer: IntradayAnswer, fields: Sequence[str], *, columns: bool, requested: str | None) -> tuple[bytes, str]:
    entry, times = answer.entry, _times(answer)
    values = columns_of(answer.bars.values, answer.adjust, fields)
    content: dict[str, Any] = {
        "symbol": entry.instrument.symbol,
        "market": entry.instrument.market,
        "currency": entry.currency,
        "interval": answer.interval,
        "adjust": answer.adjust,
        "start": instant(answer.start / 1000),
        "end": instant(answer.end / 1000),
    }
    if columns:
        content |= {"time": times, **dict(zip(fields, values, strict=True))}
    else:
        names = ("time", *fields)
        rows = zip(times, *(listed(column) for column in values), strict=True)
        content["bars"] = [dict(zip(names, row, strict=True)) for row in rows]
    content |= {
        "provisional": _provisional(answer, times),
        "coverage": _coverage_fields(answer.coverage),
        "source": ",".join(answer.sources) or entry.source,
        "notice": entry.notice,
    }
    if requested is not None:
        content["requested"] = requested
    if entry.currencies:
        content["currencies"] = currency_fields(entry)
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    last_update = encode(instant(entry.state.last_update)).rstrip()
    return b'%s,"lastUpdate":%s}\n' % (body[:-1], last_update), weak_etag_of(body)


def _coverage_fields(coverage: SampleCoverage) -> dict[str, Any]:
    return {
        "from": _instant(coverage.first),
        "to": _instant(coverage.last),
        "samples": coverage.samples,
        "expected": coverage.expected,
        "present": coverage.present,
        "complete": coverage.complete,
        "reason": coverage.reason,
    }


def _times(answer: IntradayAnswer) -> list[str]:
    seconds = answer.bars.starts.view("datetime64[ms]").astype("datetime64[s]")
    return [f"{text}Z" for text in np.datetime_as_string(seconds).tolist()]


def _provisional(answer: IntradayAnswer, times: Sequence[str]) -> list[str]:
    return [times[at] for at in np.flatnonzero(answer.provisional).tolist()]


def _instant(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else instant(milliseconds / 1000)
