"""A fake Yahoo Finance: a real HTTP server on loopback that answers the yfinance library from a table of truth.

    with FakeYahoo() as yahoo:
        yahoo.put("AAPL", {date(2024, 1, 2): (187.15, 188.44, 183.89, 185.64, 82488700)}, splits={...}, dividends={...})
        yahoo.fail("server_error", "AAPL", times=1)
        provider = YahooProvider(folder, clock, base_url=yahoo.url)

Prices in the table are as traded. The server shows them as Yahoo does: divided by every later split, dividends too,
rounded to float32, stamped with the session's opening instant; a session that has opened is there, with what is in the
table, and one still to come is not. `clock` (anything with `time()`) is what the server takes for now. The library
itself asks for the range up to the machine's own present, so sessions later than that stay invisible.

A search finds what is listed by a part of its symbol or name. Modes of `fail`, for one symbol (`search` for searches)
or for all, for the next `times` requests for a chart or a search (None: until `heal`):
`not_found` (404), `rate_limited` (429, with `retry_after` if given), `server_error` (500), `unauthorized` (401), `html`
("Will be right back", status 200), `garbage` (200, JSON of another form), `empty` (200 without bars), `out_of_range`
(400, "Data doesn't exist"), `slow` (`seconds` late), `disconnect`, `nan_last` (the last finished session has a volume
and no prices), `split_not_applied` (splits listed, prices of before as traded).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from aiohttp import web

from pricecache.clock import SystemClock
from pricecache.core.bars import Bars, day_of
from tests.fakes.vendor_server import VendorServer

Row = Sequence[float | None]
"""Open, high, low, close, volume."""

_RANGES = {"1d": 1, "5d": 5, "1mo": 22, "3mo": 66, "6mo": 130, "1y": 260, "2y": 520, "5y": 1300, "10y": 2600}


class HasTime(Protocol):
    def time(self) -> float: ...


@dataclass
class Listed:
    """What is true of one symbol; change it at will between requests."""

    symbol: str
    bars: dict[date, Row]
    splits: dict[date, float] = field(default_factory=dict)
    dividends: dict[date, float] = field(default_factory=dict)
    currency: str = "USD"
    time_zone: str = "America/New_York"
    opens: time = time(9, 30)
    closes: time = time(16, 0)
    first_trade: date | None = None
    kind: str = "EQUITY"
    name: str | None = None
    exchange: str = "NMS"
    trading_period: bool = True
    meta: dict[str, Any] = field(default_factory=dict)
    """Laid over the metadata, such as `regularMarketPrice`; a value of None takes a key away."""

    def instant(self, day: date, at: time) -> int:
        return int(datetime.combine(day, at, ZoneInfo(self.time_zone)).timestamp())


@dataclass
class _Failure:
    mode: str
    symbol: str | None
    left: int | None
    options: dict[str, Any]


class FakeYahoo(VendorServer):
    """Start and stop it, or use it as a context manager. Settable from any thread while it serves."""

    def __init__(self, clock: HasTime | None = None, *, float32: bool = True) -> None:
        super().__init__("fake-yahoo")
        self.clock: HasTime = clock or SystemClock()
        self.float32 = float32
        self.log: list[tuple[str, dict[str, str]]] = []
        """Path and query of every request, charts or not."""
        self._listed: dict[str, Listed] = {}
        self._failures: list[_Failure] = []

    def put(self, symbol: str, bars: Mapping[date, Row] | Bars, **facts: Any) -> Listed:
        """List `symbol` (in Yahoo's spelling) with as-traded bars; `facts` are fields of `Listed`."""
        if isinstance(bars, Bars):
            rows = [[None if np.isnan(value) else value for value in row] for row in bars.values.T.tolist()]
            bars = {day_of(day): row for day, row in zip(bars.sessions.tolist(), rows, strict=True)}
        with self._lock:
            self._listed[symbol] = Listed(symbol, dict(bars), **facts)
            return self._listed[symbol]

    def remove(self, symbol: str) -> None:
        """Delist: 404 from now on."""
        with self._lock:
            self._listed.pop(symbol, None)

    def fail(self, mode: str, symbol: str | None = None, *, times: int | None = 1, **options: Any) -> None:
        """Let the next `times` chart requests go wrong; `retry_after` and `seconds` are options of their modes."""
        if mode not in _MODES:
            raise ValueError(f"modes are {', '.join(_MODES)}")
        with self._lock:
            self._failures.append(_Failure(mode, symbol, times, options))

    def heal(self) -> None:
        """Forget every failure."""
        with self._lock:
            self._failures.clear()

    def requests(self, symbol: str | None = None) -> int:
        """Requests for the chart of `symbol`, or of all symbols."""
        return sum(self.charts().values()) if symbol is None else self.charts()[symbol]

    def charts(self) -> Counter[str]:
        """Chart requests by symbol."""
        with self._lock:
            return Counter(path.rsplit("/", 1)[1] for path, _ in self.log if path.startswith("/v8/finance/chart/"))

    def others(self) -> Counter[str]:
        """Requests for anything but charts, by path."""
        with self._lock:
            return Counter(path for path, _ in self.log if not path.startswith("/v8/finance/chart/"))

    def reset_counts(self) -> None:
        with self._lock:
            self.log.clear()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._lock:
            self.log.append((request.path, dict(request.query)))
        if request.path == "/":
            answer = web.Response(text="")
            answer.set_cookie("A3", "fake", domain="yahoo.com", max_age=31536000)
            return answer
        if request.path == "/v1/test/getcrumb":
            return web.Response(text="crumb")
        if request.path.startswith("/v8/finance/chart/"):
            return await self._chart(request)
        if request.path == "/v1/finance/search":
            return await self._search(request)
        return web.json_response({"finance": {"result": None, "error": {"code": "Not Found"}}}, status=404)

    async def _chart(self, request: web.BaseRequest) -> web.StreamResponse:
        symbol = request.path.rsplit("/", 1)[1]
        failure = self._next_failure(symbol)
        mode = failure.mode if failure else None
        if mode == "slow" and failure is not None:
            await asyncio.sleep(failure.options.get("seconds", 1.0))
        if mode == "disconnect" and request.transport is not None:
            request.transport.close()
            return web.Response()
        with self._lock:
            listed = self._listed.get(symbol)
        if mode in _ANSWERS and failure is not None:
            return _ANSWERS[mode](failure)
        if listed is None or mode == "not_found":
            return _error(404, "Not Found", "No data found, symbol may be delisted")
        return web.json_response(_Chart(listed, self.clock.time(), self.float32, mode).answer(request.query))

    async def _search(self, request: web.BaseRequest) -> web.StreamResponse:
        failure = self._next_failure("search")
        if failure is not None and failure.mode == "slow":
            await asyncio.sleep(failure.options.get("seconds", 1.0))
        if failure is not None and failure.mode in _ANSWERS:
            return _ANSWERS[failure.mode](failure)
        if failure is not None and failure.mode == "not_found":
            return _error(404, "Not Found", "")
        wanted = request.query["q"].upper()
        with self._lock:
            hits = [one for one in self._listed.values() if wanted in f"{one.symbol} {one.name}".upper()]
        quotes: list[dict[str, Any]] = [
            {"symbol": one.symbol, "quoteType": one.kind, "exchange": one.exchange, "longname": one.name}
            for one in hits[: int(request.query["quotesCount"])]
        ]
        return web.json_response({"quotes": [{"index": "x", "name": "no instrument"}, *quotes], "news": []})

    def _next_failure(self, symbol: str) -> _Failure | None:
        with self._lock:
            for failure in self._failures:
                if failure.symbol in (None, symbol) and failure.left != 0:
                    if failure.left is not None:
                        failure.left -= 1
                    return failure
        return None


class _Chart:
    """One answer of `/v8/finance/chart/{symbol}` at the instant `now`."""

    def __init__(self, listed: Listed, now: float, float32: bool, mode: str | None) -> None:
        self.listed, self.now, self.float32, self.mode = listed, now, float32, mode
        self.today = datetime.fromtimestamp(now, ZoneInfo(listed.time_zone)).date()
        self.days = sorted(day for day in listed.bars if listed.instant(day, listed.opens) <= now)

    def answer(self, query: Mapping[str, str]) -> dict[str, Any]:
        days = [] if self.mode == "empty" else self._asked(query)
        result: dict[str, Any] = {"meta": self._meta(days), "indicators": {"quote": [{}], "adjclose": [{}]}}
        if days:
            columns = list(zip(*(self._row(day) for day in days), strict=True))
            names = ("open", "high", "low", "close", "volume")
            result["timestamp"] = [self._stamp(day) for day in days]
            result["indicators"]["quote"] = [dict(zip(names, columns, strict=True))]
            result["indicators"]["adjclose"] = [{"adjclose": columns[3]}]
            result["events"] = self._events(days)
        return {"chart": {"result": [result], "error": None}}

    def _asked(self, query: Mapping[str, str]) -> list[date]:
        if "range" in query:
            return self.days[-_RANGES.get(query["range"], len(self.days)) :]
        first, last = int(query["period1"]), int(query["period2"])
        return [day for day in self.days if first <= self.listed.instant(day, self.listed.opens) < last]

    def _stamp(self, day: date) -> int:
        # the session under way carries the time of its last trade
        opens = self.listed.instant(day, self.listed.opens)
        return int(self.now) if opens <= self.now < self._close_instant(day) else opens

    def _ended(self, day: date) -> bool:
        return self._close_instant(day) <= self.now

    def _close_instant(self, day: date) -> int:
        opens, closes = (self.listed.instant(day, at) for at in (self.listed.opens, self.listed.closes))
        return closes if closes > opens else closes + 86400

    def _row(self, day: date) -> list[float | None]:
        *prices, volume = self.listed.bars[day]
        ratio = self._later_splits(day)
        if self.mode == "nan_last" and day == max(d for d in self.days if self._ended(d)):
            prices = [None] * 4
        return [
            *(None if price is None else self._shown(price / ratio) for price in prices),
            None if volume is None else int(volume * ratio),
        ]

    def _later_splits(self, day: date) -> float:
        if self.mode == "split_not_applied":
            return 1.0
        # a split is worked into the past once its session has opened
        known = [
            r
            for d, r in self.listed.splits.items()
            if d > day and self.listed.instant(d, self.listed.opens) <= self.now
        ]
        return float(np.prod(known)) if known else 1.0

    def _shown(self, price: float) -> float:
        return float(np.float32(price)) if self.float32 else price

    def _events(self, days: list[date]) -> dict[str, Any]:
        events: dict[str, Any] = {}
        for day, amount in self._dated(self.listed.dividends, days):
            at = self.listed.instant(day, self.listed.opens)
            shown = self._shown(amount / self._later_splits(day))
            events.setdefault("dividends", {})[str(at)] = {"amount": shown, "date": at}
        for day, ratio in self._dated(self.listed.splits, days):
            at = self.listed.instant(day, self.listed.opens)
            new, old = float(ratio).as_integer_ratio()
            split = {"date": at, "numerator": new, "denominator": old, "splitRatio": f"{new}:{old}"}
            events.setdefault("splits", {})[str(at)] = split
        return events

    def _dated(self, facts: Mapping[date, float], days: list[date]) -> list[tuple[date, float]]:
        return [(day, value) for day, value in sorted(facts.items()) if days[0] <= day <= days[-1]]

    def _meta(self, days: list[date]) -> dict[str, Any]:
        listed, zone = self.listed, ZoneInfo(self.listed.time_zone)
        offset = int(datetime.fromtimestamp(self.now, zone).utcoffset().total_seconds())  # type: ignore[union-attr]
        meta: dict[str, Any] = {
            "currency": listed.currency,
            "symbol": listed.symbol,
            "instrumentType": listed.kind,
            "longName": listed.name,
            "exchangeTimezoneName": listed.time_zone,
            "gmtoffset": offset,
            "firstTradeDate": self._first_trade(),
            "priceHint": 2,
            "dataGranularity": "1d",
            "validRanges": [*_RANGES, "ytd", "max"],
            **self._live(days),
        }
        if listed.trading_period:
            start = listed.instant(self.today, listed.opens)
            regular = {"start": start, "end": self._close_instant(self.today), "gmtoffset": offset, "timezone": "X"}
            meta["currentTradingPeriod"] = {"pre": dict(regular), "regular": regular, "post": dict(regular)}
        meta.update(listed.meta)
        return {key: value for key, value in meta.items() if value is not None}

    def _first_trade(self) -> int | None:
        first = self.listed.first_trade or min(self.listed.bars, default=None)
        return None if first is None else self.listed.instant(first, self.listed.opens)

    def _live(self, days: list[date]) -> dict[str, Any]:
        priced = [day for day in self.days if self.listed.bars[day][3] is not None]
        if not priced:
            return {}
        last = priced[-1]
        _, high, low, close, volume = self._row(last) if self.mode != "nan_last" else self.listed.bars[last]
        earlier = [day for day in priced if day < (days[0] if days else last)]
        return {
            "regularMarketPrice": close,
            "regularMarketTime": min(int(self.now), self._close_instant(last)),
            "regularMarketDayHigh": high,
            "regularMarketDayLow": low,
            "regularMarketVolume": volume,
            "chartPreviousClose": self._row(earlier[-1])[3] if earlier else None,
        }


def _error(status: int, code: str, description: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"chart": {"result": None, "error": {"code": code, "description": description}}}
    return web.json_response(body, status=status, headers=headers)


def _limited(failure: _Failure) -> web.Response:
    after = failure.options.get("retry_after")
    return web.Response(
        text="Too Many Requests\r\n", status=429, headers=None if after is None else {"Retry-After": str(after)}
    )


_HTML = "<html><body><h1>Will be right back...</h1></body></html>"
_ANSWERS = {
    "rate_limited": _limited,
    "server_error": lambda _: web.Response(text="Internal Server Error", status=500),
    "unauthorized": lambda _: web.json_response({"finance": {"error": {"code": "Unauthorized"}}}, status=401),
    "html": lambda _: web.Response(text=_HTML, content_type="text/html"),
    "garbage": lambda _: web.json_response(
        {"chart": {"result": [{"meta": {}, "indicators": {"quote": [[1]]}}], "error": None}}
    ),
    "out_of_range": lambda _: _error(400, "Bad Request", "Data doesn't exist for startDate = 1, endDate = 2"),
}
_MODES = (*_ANSWERS, "not_found", "empty", "slow", "disconnect", "nan_last", "split_not_applied")


def sessions_back(last: date, count: int) -> list[date]:
    """`count` weekdays up to `last`, ascending: enough of a calendar for a table of truth."""
    days: list[date] = []
    while len(days) < count:
        if last.weekday() < 5:
            days.append(last)
        last -= timedelta(days=1)
    return days[::-1]


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    """Seconds since 1970 of an instant in UTC."""
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()
