"""A fake Financial Modeling Prep: a real HTTP server on loopback that answers the stable API from a table of truth.

    with FakeFmp("the-key") as fmp:
        fmp.put("AAPL", {date(2024, 1, 2): (187.15, 188.44, 183.89, 185.64, 82488700)}, splits={...}, dividends={...})
        fmp.fail("rate_limited", "quote", times=1, retry_after=30)
        provider = FmpProvider("the-key", clock, calendars, fmp.url)

Prices in the table are as traded; the server shows them as the vendor does: newest first, worked for every split up to
today. `clock` is what it takes for now: days after today are not there, today's is, however unfinished. An unknown
symbol is an empty list. A request without the right key in its header is refused.

Modes of `fail`, for one endpoint (the last part of its path) or for all, for the next `times` requests (None: until
`heal`): `not_found` (404), `unauthorized` (401), `forbidden` (403), `plan` (402 in plain words), `plan_json` (200 with
an error object), `rate_limited` (429, with `retry_after` if given), `limit` (200 with an error object), `bad_request`
(400), `server_error` (500), `empty`, `html`, `slow` (`seconds` late), `garbage` (rows of another form), `object` (no
list), `words` (not JSON), `disconnect`, `another` (rows of another symbol), `redirect`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Protocol

import numpy as np
from aiohttp import web

from pricecache.clock import SystemClock
from tests.fakes.vendor_server import VendorServer

Row = Sequence[float | None]
"""Open, high, low, close, volume."""


class HasTime(Protocol):
    def time(self) -> float: ...


@dataclass
class Listed:
    """What is true of one symbol. `profile`: its profile, or None where there is none (pairs, coins, indices)."""

    symbol: str
    bars: dict[date, Row]
    splits: dict[date, float] = field(default_factory=dict)
    dividends: dict[date, float] = field(default_factory=dict)
    profile: dict[str, Any] | None = field(default_factory=dict)
    quote: dict[str, Any] = field(default_factory=dict)
    """Laid over the quote, such as `timestamp`."""
    name: str = ""
    currency: str = "USD"
    exchange: str = "NASDAQ"


@dataclass
class _Failure:
    mode: str
    endpoint: str | None
    left: int | None
    options: dict[str, Any]


class FakeFmp(VendorServer):
    """Use it as a context manager. Settable from any thread while it serves."""

    def __init__(self, key: str, clock: HasTime | None = None) -> None:
        super().__init__("fake-fmp")
        self.key = key
        self.clock: HasTime = clock or SystemClock()
        self.log: list[tuple[str, dict[str, str]]] = []
        """Endpoint and query of every request."""
        self._listed: dict[str, Listed] = {}
        self._failures: list[_Failure] = []

    def put(self, symbol: str, bars: Mapping[date, Row], **facts: Any) -> Listed:
        """List `symbol` (in the vendor's spelling) with as-traded bars; `facts` are fields of `Listed`."""
        with self._lock:
            self._listed[symbol] = Listed(symbol, dict(bars), **facts)
            return self._listed[symbol]

    def fail(self, mode: str, endpoint: str | None = None, *, times: int | None = 1, **options: Any) -> None:
        with self._lock:
            self._failures.append(_Failure(mode, endpoint, times, options))

    def heal(self) -> None:
        with self._lock:
            self._failures.clear()

    def requests(self) -> Counter[str]:
        """How often each endpoint was asked."""
        with self._lock:
            return Counter(endpoint for endpoint, _ in self.log)

    def reset_counts(self) -> None:
        with self._lock:
            self.log.clear()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        endpoint, query = request.path.removeprefix("/stable/"), dict(request.query)
        with self._lock:
            self.log.append((endpoint, query))
            failure = self._next_failure(endpoint)
            listed = {symbol: self._listed[symbol] for symbol in self._listed}
        if failure is not None and (answer := await self._failed(failure, request)) is not None:
            return answer
        if request.headers.get("apikey") != self.key:
            return _error(401, "Invalid API KEY. Feel free to create a Free API Key or visit our site.")
        rows = getattr(self, f"_{endpoint.replace('-', '_').replace('/', '_')}", None)
        if rows is None:
            return web.Response(status=404, text="Not Found")
        answered = rows(listed, query)
        if failure is not None and failure.mode == "another":
            answered = [row | {"symbol": "OTHER"} for row in answered]
        return web.json_response(answered)

    def _next_failure(self, endpoint: str) -> _Failure | None:
        for failure in self._failures:
            if failure.endpoint in (None, endpoint.rsplit("/", 1)[-1]) and failure.left != 0:
                if failure.left is not None:
                    failure.left -= 1
                return failure
        return None

    async def _failed(self, failure: _Failure, request: web.BaseRequest) -> web.StreamResponse | None:
        if failure.mode == "slow":
            await asyncio.sleep(failure.options.get("seconds", 1.0))
            return None
        if failure.mode == "disconnect" and request.transport is not None:
            request.transport.close()
            return web.Response()
        if failure.mode == "rate_limited":
            after = failure.options.get("retry_after")
            return _error(429, _LIMIT, None if after is None else {"Retry-After": str(after)})
        return _ANSWERS[failure.mode]() if failure.mode in _ANSWERS else None

    # ---- endpoints

    def _today(self) -> date:
        return datetime.fromtimestamp(self.clock.time(), UTC).date()

    def _historical_price_eod_full(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        one = listed.get(query["symbol"])
        first, last = (date.fromisoformat(query[key]) for key in ("from", "to"))
        if one is None:
            return []
        days = [day for day in sorted(one.bars, reverse=True) if first <= day <= min(last, self._today())]
        return [{"symbol": one.symbol, "date": day.isoformat()} | self._row(one, day) for day in days[:5000]]

    def _row(self, one: Listed, day: date) -> dict[str, float | None]:
        *prices, volume = one.bars[day]
        ratio = self._later(one, day)
        shown = [None if price is None else price / ratio for price in prices]
        names = ("open", "high", "low", "close", "volume")
        return dict(zip(names, [*shown, None if volume is None else volume * ratio], strict=True))

    def _later(self, one: Listed, day: date) -> float:
        return float(np.prod([ratio for at, ratio in one.splits.items() if day < at <= self._today()]))

    def _splits(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        one = listed.get(query["symbol"])
        rows = []
        for day, ratio in sorted(one.splits.items(), reverse=True) if one else ():
            new, old = float(ratio).as_integer_ratio()
            rows.append({"symbol": query["symbol"], "date": day.isoformat(), "numerator": new, "denominator": old})
        return rows

    def _dividends(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        one = listed.get(query["symbol"])
        return [
            {
                "symbol": query["symbol"],
                "date": day.isoformat(),
                "recordDate": "",
                "adjDividend": cash / self._later(one, day),
                "dividend": cash,
            }
            for day, cash in (sorted(one.dividends.items(), reverse=True) if one else ())
            if one is not None
        ]

    def _profile(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        one = listed.get(query["symbol"])
        if one is None or one.profile is None:
            return []
        first = min(one.bars, default=None)
        facts = {"symbol": one.symbol, "companyName": one.name or None, "currency": one.currency, "isEtf": False}
        return [facts | {"isFund": False, "ipoDate": str(first) if first else ""} | one.profile]

    def _quote(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        one = listed.get(query["symbol"])
        return [] if one is None else self._quote_rows(one)

    def _batch_quote(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        asked = query["symbols"].split(",")
        return [row for symbol in asked if symbol in listed for row in self._quote_rows(listed[symbol])]

    def _quote_rows(self, one: Listed) -> list[Any]:
        days = sorted(day for day in one.bars if day <= self._today())
        if not days:
            return []
        row = self._row(one, days[-1])
        quote = {
            "symbol": one.symbol,
            "name": one.name,
            "price": row["close"],
            "volume": row["volume"],
            "open": row["open"],
            "dayHigh": row["high"],
            "dayLow": row["low"],
            "previousClose": self._row(one, days[-2])["close"] if len(days) > 1 else None,
            "exchange": one.exchange,
            "timestamp": int(self.clock.time()),
        }
        return [quote | one.quote]

    def _search_symbol(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        return _hits([one for one in listed.values() if query["query"].upper() in one.symbol], query)

    def _search_name(self, listed: Mapping[str, Listed], query: Mapping[str, str]) -> list[Any]:
        return _hits([one for one in listed.values() if query["query"].lower() in one.name.lower()], query)


def _hits(found: Sequence[Listed], query: Mapping[str, str]) -> list[Any]:
    return [
        {"symbol": one.symbol, "name": one.name, "currency": one.currency, "exchange": one.exchange}
        for one in found[: int(query["limit"])]
    ]


def _error(status: int, words: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"Error Message": words}, status=status, headers=headers)


_LIMIT = "Limit Reach . Please upgrade your plan or visit our documentation for more details"
_PLAN = "Premium Query Parameter: This value set for 'symbol' is not available under your current subscription"
_ANSWERS = {
    "not_found": lambda: web.Response(status=404, text="Not Found"),
    "unauthorized": lambda: _error(401, "Invalid API KEY."),
    "forbidden": lambda: _error(403, "Account suspended"),
    "plan": lambda: web.Response(status=402, text=_PLAN),
    "plan_json": lambda: _error(200, _PLAN),
    "limit": lambda: _error(200, _LIMIT),
    "bad_request": lambda: _error(400, "Query Error: Invalid or missing query parameter"),
    "server_error": lambda: web.Response(status=500, text="Internal Server Error"),
    "empty": lambda: web.json_response([]),
    "html": lambda: web.Response(text="<html><body>Sorry</body></html>", content_type="text/html"),
    "garbage": lambda: web.json_response([{"date": "2024-03-15", "close": "much", "price": [1], "symbol": None}]),
    "object": lambda: web.json_response({"historical": 1}),
    "words": lambda: web.Response(text="not JSON"),
    "redirect": lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/elsewhere"}),
}
