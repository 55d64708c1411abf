"""Prices from Yahoo Finance through the yfinance library. Nothing of the library is loaded before the first call."""

from __future__ import annotations

import copy
import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from pricecache.clock import Clock
from pricecache.core.actions import Action, Kind
from pricecache.core.asking import Capability, Found, Pace
from pricecache.core.bars import CLOSE, DAY_SECONDS, VOLUME, Bars, day_number, day_of
from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.core.quotes import Quote
from pricecache.errors import ProviderAnswerBad, ProviderError, ProviderUnavailable, RateLimited, SymbolNotFound
from pricecache.providers.answers import (
    lag_of,
    may_trade,
    positive,
    read,
    require_same,
    seconds_to_wait,
    text_of,
    values_of_kind,
    volume_of,
)
from pricecache.providers.base import CLOSE_MISSING, History, Quotes
from pricecache.providers.spelling import from_yahoo, kind_of, yahoo_symbol
from pricecache.providers.yahoo_library import LIBRARY, loaded

_CHART = "/v8/finance/chart/"
_SEARCH = "/v1/finance/search"
_OUT_OF_RANGE = "data doesn't exist"
_ROUND_THE_CLOCK = 23 * 3600


class YahooProvider:
    """Daily bars, splits, dividends and quotes of Yahoo Finance. Thread-safe, one instance a process: yfinance keeps
    one session for all.

    Bars are split-adjusted, as Yahoo has no others, and otherwise as given; dividends too. Every history and every
    quote is one request. `base_url` sends all requests there instead, with path and query as they are.
    `request_timeout`: seconds until an unanswered request fails.

    What the vendor does wrong ends here: 404 is `SymbolNotFound`, 429 `RateLimited`, an error of the server or the
    network, HTML and garbage `ProviderUnavailable`, JSON of another form `ProviderAnswerBad`; a known symbol without
    bars in the range is an empty `History`. An answer of another symbol than was asked for is refused with code
    `another_symbol` and the fact `answered_as`: after a renaming that is the new symbol.

    Yahoo's own ways, seen in its answers: a volume of null is unknown (the library would make 0 of it), and so is 0
    for funds, indices and currencies; a fund has one price a day, which is final `FUND_LAG` seconds later than a
    share's; a day of a currency pair is labelled with London's date and may be a Sunday, which is left out; a day of
    a pair or a coin is final when it is over in London and in UTC; a coin's last day may be missing for three hours
    after midnight UTC, and is not in the answer then.
    """

    name = "yfinance"
    capabilities: frozenset[Capability] = frozenset({"history", "live", "actions", "search", "stream"})
    pace = Pace(per_second=1, burst=5, concurrency=4, timeout=30, quotes_per_call=1)
    final_lag = 1800.0
    always_moving = False
    control: Instrument | None = Instrument("SPY")

    def __init__(
        self, cache_dir: Path, clock: Clock, base_url: str | None = None, *, request_timeout: float = 10.0
    ) -> None:
        self._cache_dir = cache_dir
        self._clock = clock
        self._base_url = base_url
        self._request_timeout = request_timeout
        self._lock = threading.Lock()
        self._library: SimpleNamespace | None = None
        self._session: Any = None
        self._seen = threading.local()

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        symbol = yahoo_symbol(instrument)
        library = self._loaded()
        ticker = library.Ticker(symbol, session=self._session)
        # the library would ask for each symbol's time zone first, and for a dead one half the site; only the start of
        # the range depends on it, and that is a day early anyway
        ticker._tz = instrument.place.time_zone
        try:
            # no `end`: with one in the past the library answers from its own cache, failures included
            frame = self._vendor(
                lambda: ticker.history(
                    start=day_of(start) - timedelta(days=1),
                    interval="1d",
                    auto_adjust=False,
                    actions=True,
                    repair=False,
                    keepna=True,  # so that what cannot be used is reported
                    timeout=self._request_timeout,
                )
            )
        except _NoBars:
            return History(Bars.empty(), "split_adjusted")
        body, self._seen.body = self._seen.body, b""
        return read(
            "Yahoo", lambda: self._history_of(instrument, frame, ticker.get_history_metadata(), body, start, end)
        )

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        quotes: list[Quote] = []
        failures: dict[Instrument, ProviderError] = {}
        for i, instrument in enumerate(instruments):
            try:
                quotes.append(self._quote(instrument))
            except RateLimited as exc:
                failures.update(dict.fromkeys(instruments[i:], exc))
                break
            except ProviderError as exc:
                failures[instrument] = exc
        return Quotes(quotes, failures).checked()

    def search(self, text: str, limit: int) -> Sequence[Found]:
        library = self._loaded()
        # more than wanted, as what is on no market of ours is left out
        wanted = {"q": text, "quotesCount": min(50, 2 * limit), "newsCount": 0, "listsCount": 0}
        answer = self._vendor(
            lambda: library.Data(session=self._session).get(
                url=library.search, params=wanted, timeout=self._request_timeout
            )
        )
        if answer.status_code >= 400:
            raise ProviderUnavailable(f"Yahoo answered with status {answer.status_code}.")
        body = self._vendor(answer.json)
        return read("Yahoo", lambda: _found(body, self.name))[:limit]

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _loaded(self) -> SimpleNamespace:
        with self._lock:
            if self._library is None:
                self._session, self._library = self._load()
            return self._library

    def _load(self) -> tuple[Any, SimpleNamespace]:
        library, http, data, const = loaded(LIBRARY, "yfinance._http", "yfinance.data", "yfinance.const")
        # the library has them shown: pandas' deprecations in its own code are nothing our readers can act on
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="yfinance")
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        library.set_tz_cache_location(str(self._cache_dir))
        library.config.debug.hide_exceptions = False
        session = _redirected(self._base_url) if self._base_url else http.new_session()
        session.get = _watched(session.get, self._clock, self._seen)
        base = const._BASE_URL_
        return session, SimpleNamespace(
            Ticker=library.Ticker, Data=data.YfData, chart=base + _CHART, search=base + _SEARCH
        )

    def _vendor(self, call: Callable[[], Any]) -> Any:
        """Run a call of the library; its errors leave as ours, and nothing stays in its cache of answers."""
        library = self._loaded()
        library.Data.cache_get.cache_clear()
        self._seen.status, self._seen.body = 200, b""
        try:
            return call()
        except ProviderError:
            library.Data.cache_get.cache_clear()
            raise
        except Exception as exc:  # a library that scrapes can raise anything
            library.Data.cache_get.cache_clear()
            raise _translated(exc, getattr(self._seen, "status", 200)) from exc

    def _history_of(
        self, instrument: Instrument, frame: Any, meta: Mapping[str, Any], body: bytes, start: int, end: int
    ) -> History:
        require_same("Yahoo", meta.get("symbol"), yahoo_symbol(instrument))
        kind = kind_of(meta.get("instrumentType"))
        sessions = frame.index.tz_localize(None).values.astype("datetime64[D]").astype(np.int64)
        values = values_of_kind(frame[["Open", "High", "Low", "Close", "Volume"]].to_numpy(np.float64).T, kind)
        values[VOLUME, np.isin(sessions, _without_volume(body, meta))] = math.nan
        final = (sessions >= start) & (sessions <= min(end, self._last_final(instrument, kind, meta)))
        final &= may_trade(instrument, sessions)
        priced = np.isfinite(values[CLOSE])
        currency = meta.get("currency") or None
        first = _first_session(meta, sessions[priced])
        return History(
            Bars.of(sessions[final & priced], values[:, final & priced]),
            "split_adjusted",
            _actions(sessions, frame, currency, start, end),
            currency,
            first if first is not None and start < first else None,
            tuple((day, CLOSE_MISSING) for day in sessions[final & ~priced].tolist()),
            kind=kind,
            name=text_of(meta.get("longName")) or text_of(meta.get("shortName")),
        )

    def _last_final(self, instrument: Instrument, kind: InstrumentKind | None, meta: Mapping[str, Any]) -> int:
        now, lag = self._clock.time(), lag_of(kind, self.final_lag)
        last = _last_final(meta, now, lag)
        # there a session is a UTC day, whatever zone Yahoo counts in
        return min(last, int((now - lag) // DAY_SECONDS) - 1) if instrument.place.calendar in ("24/7", "24/5") else last

    def _quote(self, instrument: Instrument) -> Quote:
        symbol = yahoo_symbol(instrument)
        library = self._loaded()
        # one chart of one day: its metadata is the quote (`fast_info` needs two charts)
        answer = self._vendor(
            lambda: library.Data(session=self._session).get(
                url=library.chart + symbol, params={"range": "1d", "interval": "1d"}, timeout=self._request_timeout
            )
        )
        if answer.status_code >= 400:
            raise ProviderUnavailable(f"Yahoo answered with status {answer.status_code}.")
        body = self._vendor(answer.json)
        return read("Yahoo", lambda: _quote_of(instrument, body, self._clock.time(), self.name))


class _NoBars(ProviderAnswerBad):
    """Yahoo knows the symbol and has no bars in the range."""


def _redirected(base_url: str) -> Any:
    import requests

    base = urlsplit(base_url)

    class Redirect(requests.adapters.HTTPAdapter):
        def send(self, request: Any, *positional: Any, **options: Any) -> Any:
            there = copy.copy(request)
            asked = urlsplit(request.url)
            path = base.path.rstrip("/") + (asked.path or "/")
            there.url = asked._replace(scheme=base.scheme, netloc=base.netloc, path=path).geturl()
            answer = super().send(there, *positional, **options)
            answer.request, answer.url = request, request.url
            return answer

    session = requests.Session()
    session.trust_env = False
    for prefix in ("https://", "http://"):
        session.mount(prefix, Redirect())
    return session


def _watched(get: Callable[..., Any], clock: Clock, seen: threading.local) -> Callable[..., Any]:
    """A session's `get` that raises on a bad answer at once, and remembers the thread's last chart: status and body.

    The library would ask a second time with other cookies, and drop the crumb of all threads, before it says so: a
    dead symbol would cost several requests and slow the others, a 429 would be answered by one more request.
    """

    def watched(*positional: Any, **options: Any) -> Any:
        answer = get(*positional, **options)
        is_chart = _CHART in str(answer.url)
        if is_chart:
            seen.status, seen.body = answer.status_code, answer.content
            if answer.status_code == 400:
                raise _NoBars if _OUT_OF_RANGE in answer.text.lower() else ProviderAnswerBad("Yahoo answered 400.")
            if answer.status_code == 404:
                raise SymbolNotFound("Yahoo does not know the symbol.")
        if is_chart or _SEARCH in str(answer.url):
            _raise_for(answer.status_code, answer.headers.get("Retry-After"), clock)
        return answer

    return watched


def _raise_for(status: int, retry_after: str | None, clock: Clock) -> None:
    if status == 429:
        raise RateLimited(retry_after=seconds_to_wait(retry_after, clock.time()))
    if status >= 500:
        raise ProviderUnavailable(f"Yahoo answered with status {status}.")


def _translated(exc: Exception, status: int) -> Exception:
    kind, reason = type(exc).__name__, str(getattr(exc, "yahoo_reason", None) or "")
    if kind == "YFRateLimitError":
        return RateLimited()
    if kind == "YFTzMissingError":
        return SymbolNotFound("Yahoo does not know the symbol.")
    if kind == "YFPricesMissingError":
        if not reason and status < 400:
            return _NoBars()
        if "no data found" in reason.lower() or "not found" in reason.lower():
            return SymbolNotFound(f"Yahoo: {reason}")
        return ProviderUnavailable(f"Yahoo answered with status {status}. {reason}".strip())
    # OSError: every error of requests and of curl_cffi; ValueError: what is not JSON; the last: HTML "will be back"
    if isinstance(exc, OSError | ValueError) or kind == "YFDataException":
        return ProviderUnavailable(f"Yahoo did not answer as it should ({kind}).")
    return ProviderAnswerBad(f"Yahoo's answer could not be read ({kind}).")


def _without_volume(body: bytes, meta: Mapping[str, Any]) -> list[int]:
    """Sessions whose volume is null in the chart itself."""
    if b"null" not in body:
        return []
    result = orjson.loads(body)["chart"]["result"][0]
    volumes = result["indicators"]["quote"][0].get("volume") or ()
    zone = ZoneInfo(meta["exchangeTimezoneName"])
    return [
        day_number(datetime.fromtimestamp(at, zone).date())
        for at, volume in zip(result.get("timestamp") or (), volumes, strict=False)
        if volume is None
    ]


def _last_final(meta: Mapping[str, Any], now: float, lag: float) -> int:
    """The last session label (days since 1970-01-01) that can be final at `now`.

    `currentTradingPeriod` gives the close of the session under way or last over, the half-day's too; days before it
    are taken to close at that time as well. Without it, and where a session lasts all day, a session closes with its
    date.
    """
    zone = ZoneInfo(meta["exchangeTimezoneName"])
    regular = (meta.get("currentTradingPeriod") or {}).get("regular") or {}
    opens, closes = (_instant(regular[key]) for key in ("start", "end")) if regular else (0.0, float(DAY_SECONDS))
    if closes - opens >= _ROUND_THE_CLOCK:
        return day_number(datetime.fromtimestamp(now - lag, zone).date()) - 1
    session = day_number(datetime.fromtimestamp(opens, zone).date())
    today = day_number(datetime.fromtimestamp(now, zone).date())
    return min(today, session + math.floor((now - closes - lag) / DAY_SECONDS))


def _first_session(meta: Mapping[str, Any], priced: np.ndarray[Any, np.dtype[np.int64]]) -> int | None:
    first = meta.get("firstTradeDate")
    if first is None:
        return None
    session = day_number(datetime.fromtimestamp(_instant(first), ZoneInfo(meta["exchangeTimezoneName"])).date())
    return min(session, int(priced[0])) if len(priced) else session


def _instant(value: Any) -> float:
    """Seconds since 1970 of what is a number, or a pandas Timestamp once the library has been over it."""
    return float(value.timestamp() if hasattr(value, "timestamp") else value)


def _actions(sessions: Any, frame: Any, currency: str | None, start: int, end: int) -> tuple[Action, ...]:
    found = []
    columns: tuple[tuple[str, Kind], ...] = (("Dividends", "dividend"), ("Stock Splits", "split"))
    for column, kind in columns:
        amounts = frame[column].to_numpy(np.float64)
        for i in np.flatnonzero(np.isfinite(amounts) & (amounts > 0)).tolist():
            cash = currency if kind == "dividend" else None
            found.append(Action(int(sessions[i]), kind, float(amounts[i]), cash, YahooProvider.name))
    # a split after the range, even today's, is worked into every earlier row too
    wanted = [action for action in found if action.kind == "split" or start <= action.ex_date <= end]
    return tuple(sorted(wanted, key=lambda action: action.key))


def _quote_of(instrument: Instrument, body: Any, now: float, source: str) -> Quote:
    chart = body["chart"]
    if chart.get("error"):
        raise ProviderUnavailable(f"Yahoo: {chart['error'].get('description')}")
    result = chart["result"][0]
    meta = result["meta"]
    require_same("Yahoo", meta.get("symbol"), yahoo_symbol(instrument))
    price, at = positive(meta.get("regularMarketPrice")), meta.get("regularMarketTime")
    if price is None or at is None:
        raise ProviderAnswerBad("Yahoo gave no price.")
    zone = ZoneInfo(meta["exchangeTimezoneName"])
    session = day_number(datetime.fromtimestamp(at, zone).date())
    return Quote(
        instrument,
        price,
        str(meta.get("currency") or instrument.currency),
        as_of=float(at),
        received_at=now,
        source=source,
        session=session,
        previous_close=positive(meta.get("previousClose", meta.get("chartPreviousClose"))),
        open=_open_of(result, session, zone),
        day_high=positive(meta.get("regularMarketDayHigh")),
        day_low=positive(meta.get("regularMarketDayLow")),
        volume=volume_of(meta.get("regularMarketVolume"), kind_of(meta.get("instrumentType"))),
    )


def _open_of(result: Any, session: int, zone: ZoneInfo) -> float | None:
    """From the chart's own row for that session: the metadata has no open."""
    instants = result.get("timestamp") or ()
    opens = (result.get("indicators", {}).get("quote") or [{}])[0].get("open") or ()
    for instant, value in zip(reversed(instants), reversed(opens), strict=False):
        if day_number(datetime.fromtimestamp(instant, UTC).astimezone(zone).date()) == session:
            return positive(value)
    return None


def _found(body: Any, source: str) -> list[Found]:
    found: dict[Instrument, Found] = {}
    for quote in body["quotes"]:
        # hits that are no instruments (news, Crunchbase) have no symbol
        symbol, quote_type = str(quote.get("symbol", "")), str(quote.get("quoteType", ""))
        instrument = from_yahoo(symbol, quote_type, str(quote.get("exchange", "")))
        if instrument is not None and instrument not in found:
            name = text_of(quote.get("longname")) or text_of(quote.get("shortname"))
            currency = instrument.currency if instrument.market in ("FX", "CRYPTO") else None
            found[instrument] = Found(instrument, name, kind_of(quote_type), currency, source)
    return list(found.values())
