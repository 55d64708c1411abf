"""Prices from Financial Modeling Prep over its stable HTTP API, with a key of the user's own."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from cachetools import LRUCache

from pricecache.clock import Clock
from pricecache.core.actions import Action
from pricecache.core.asking import Capability, Found, Pace
from pricecache.core.bars import CLOSE, FIELDS, Bars, day_number, day_of
from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.core.quotes import Quote
from pricecache.core.sessions import CalendarBook
from pricecache.errors import (
    Misconfigured,
    PlanExcludes,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
    Unavailable,
)
from pricecache.providers.answers import (
    known,
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
from pricecache.providers.spelling import fmp_symbol, from_fmp

VENDOR = "Financial Modeling Prep"
BASE_URL = "https://financialmodelingprep.com"

_FREE_PER_DAY = 250
_DAYS_A_REQUEST = 5000
_LISTING_SLACK = 10
_BATCH = 50
_LIMIT_WORDS = ("limit reach", "too many requests")
_PLAN_WORDS = (
    *("premium", "exclusive endpoint", "special endpoint", "restricted endpoint", "legacy endpoint"),
    *("subscription", "upgrade your plan"),
)
_KEY_WORDS = ("api key",)
_ERROR_KEYS = ("Error Message", "message", "error")
_KIND_OF_EXCHANGE: dict[str, InstrumentKind] = {"CRYPTO": "crypto", "FOREX": "currency", "INDEX": "index"}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _About:
    """What the vendor says a security is. `listed_on`: its first day of trading, days since 1970-01-01."""

    kind: InstrumentKind | None
    name: str | None = None
    currency: str | None = None
    listed_on: int | None = None


class FmpProvider:
    """Daily bars, splits, dividends, quotes and search of Financial Modeling Prep. Thread-safe.

    `key` goes into the header `apikey` of each request and nowhere else: no address, log or error has it. `base_url`
    takes the place of the vendor's scheme and host. `per_day`: requests that the plan allows a day. `batch_quotes`:
    ask for up to 50 quotes with one request, which the free plan refuses. `request_timeout`: seconds until an
    unanswered request fails.

    The vendor's rules. From its documents (site.financialmodelingprep.com/developer/docs, 2026): the key is a header
    or a query parameter; the free plan has 250 requests a day; `historical-price-eod/full` has at most 5,000 rows and
    is worked for splits, as the unadjusted and the dividend-adjusted prices are endpoints of their own; a dividend
    has `dividend` and `adjDividend`, of which the second is in the units of those prices; a split is `numerator` new
    shares for `denominator` old. From what its users report: the free plan refuses batches and the prices of many
    markets with 402; a used-up limit is 429 with `Limit Reach`; the rows begin with today's, unfinished. Not
    established: how many splits and dividends are told when no `limit` is asked for (the free plan refuses some).

    A history is three requests (prices, splits, dividends), one for pairs of currencies, coins and indices, and one
    more for each further 5,000 days and, once for each instrument, for its profile (name, kind, currency, first day of
    trading). A quote is one, and the profile once where the market is not the US, as a quote does not say its
    currency. A search is one, by symbol, or two when it goes on by name. All of them are counted (`CountsRequests`).

    The vendor has no status for an unknown symbol: it answers with an empty list, as it does for a range without
    prices. So where there are no prices, an instrument that has no profile (pair, coin, index: no quote) either is
    `SymbolNotFound`, any other an empty `History`.

    Errors: 401, 403 and a refused key are `ProviderUnavailable` with code `provider_key_refused`; 402 and what the
    plan does not include `PlanExcludes` (it is of this request alone, others go on); 429 and a used-up limit
    `RateLimited`; other statuses, HTML, the network `ProviderUnavailable`; JSON of another form `ProviderAnswerBad`.

    Raises `Misconfigured` with code `fmp_key_missing` when `key` is none or cannot be one.
    """

    name = "fmp"
    capabilities: frozenset[Capability] = frozenset({"history", "live", "actions", "search"})
    final_lag = 1800.0
    always_moving = False
    control: Instrument | None = Instrument("SPY")

    def __init__(
        self,
        key: str | None,
        clock: Clock,
        calendars: CalendarBook,
        base_url: str | None = None,
        *,
        per_day: int | None = _FREE_PER_DAY,
        batch_quotes: bool = False,
        request_timeout: float = 10.0,
    ) -> None:
        self._key = _usable(key)
        self._clock = clock
        self._calendars = calendars
        self._base_url = (base_url or BASE_URL).rstrip("/")
        self._is_redirected = base_url is not None
        self._batches = batch_quotes
        self._request_timeout = request_timeout
        self.pace = Pace(
            per_second=1,
            burst=5,
            concurrency=2,
            timeout=60,
            quotes_per_call=_BATCH if batch_quotes else 1,
            per_day=per_day,
            costs={"history": 3, "search": 2},
        )
        self._lock = threading.Lock()
        self._about: LRUCache[Instrument, _About] = LRUCache(10_000)
        self._mine = threading.local()
        self._sessions: list[Any] = []

    def history(self, instrument: Instrument, start: int, end: int) -> History:
        symbol = fmp_symbol(instrument)
        rows = self._prices(symbol, start, end)
        about = self._known(instrument, symbol, has_prices=bool(rows))
        bars, rejected = read(VENDOR, lambda: self._bars(instrument, about, rows, start, end))
        return History(
            bars,
            "split_adjusted",
            self._actions(instrument, symbol, about.currency, start, end),
            about.currency,
            _first_available(bars, about, start),
            rejected,
            kind=about.kind,
            name=about.name,
        )

    def quotes(self, instruments: Sequence[Instrument]) -> Quotes:
        quotes: list[Quote] = []
        failures: dict[Instrument, ProviderError] = {}
        size = _BATCH if self._batches else 1
        for i in range(0, len(instruments), size):
            try:
                self._portion(instruments[i : i + size], quotes, failures)
            except RateLimited as exc:
                failures.update(dict.fromkeys(instruments[i:], exc))
                break
            except ProviderError as exc:
                failures.update(dict.fromkeys(instruments[i : i + size], exc))
        return Quotes(quotes, failures).checked()

    def search(self, text: str, limit: int) -> Sequence[Found]:
        """By symbol; by name when no symbol fits."""
        for path in ("search-symbol", "search-name"):
            # more than wanted, as what is on no market of ours is left out
            rows = self._get(path, query=text, limit=min(50, 2 * limit))
            if found := read(VENDOR, lambda rows=rows: self._found(rows)):  # type: ignore[misc]
                return found[:limit]
        return []

    def requests_of_thread(self) -> int:
        return getattr(self._mine, "requests", 0)

    def close(self) -> None:
        with self._lock:
            for session in self._sessions:
                session.close()
            self._sessions.clear()

    # ---- history

    def _prices(self, symbol: str, start: int, end: int) -> list[Row]:
        rows: list[Row] = []
        for last in range(end, start - 1, -_DAYS_A_REQUEST):
            first = max(start, last - _DAYS_A_REQUEST + 1)
            dates = {"from": day_of(first).isoformat(), "to": day_of(last).isoformat()}
            part = self._get("historical-price-eod/full", symbol=symbol, **dates)
            _require_same(part, symbol)
            rows += part
            if rows and not part:
                break
        return rows

    def _known(self, instrument: Instrument, symbol: str, *, has_prices: bool) -> _About:
        """Raises `SymbolNotFound` when nothing shows that the vendor knows it."""
        if _is_security(instrument):
            about = self._profile(instrument, symbol)
            if about is None and not has_prices:
                raise SymbolNotFound(f"{VENDOR} has neither prices nor a profile of {symbol}.")
            return about or _About(None)
        if not has_prices and not self._get("quote", symbol=symbol):
            raise SymbolNotFound(f"{VENDOR} has neither prices nor a quote of {symbol}.")
        return _About(instrument.kind, currency=None if instrument.kind == "index" else instrument.currency)

    def _profile(self, instrument: Instrument, symbol: str) -> _About | None:
        with self._lock:
            about = self._about.get(instrument)
        if about is None and (rows := self._get("profile", symbol=symbol)):
            _require_same(rows, symbol)
            about = read(VENDOR, lambda: _about_of(rows[0]))
            with self._lock:
                self._about[instrument] = about
        return about

    def _bars(
        self, instrument: Instrument, about: _About, rows: list[Row], start: int, end: int
    ) -> tuple[Bars, tuple[tuple[int | None, str], ...]]:
        last = min(end, self._last_final(instrument, about.kind))
        bars: dict[int, list[float]] = {}
        rejected: list[tuple[int | None, str]] = []
        for row in rows:
            session = _session_of(row)
            if session is None:
                rejected.append((None, f"{str(row.get('date'))[:40]!r} is not a date"))
            elif start <= session <= last and may_trade(instrument, session):
                bar = [known(row.get(field)) for field in FIELDS]
                if math.isfinite(bar[CLOSE]):
                    bars[session] = bar
                else:
                    rejected.append((session, CLOSE_MISSING))
        values = np.array(list(bars.values()), np.float64).reshape(-1, 5).T
        return Bars.of(bars, values_of_kind(values, about.kind)), tuple(rejected)

    def _last_final(self, instrument: Instrument, kind: InstrumentKind | None) -> int:
        lag = lag_of(kind, self.final_lag)
        try:
            last = self._calendars.get(instrument.place.calendar).last_closed(self._clock.time(), lag)
        except Unavailable as exc:
            raise ProviderUnavailable(exc.detail) from exc
        return -(10**9) if last is None else last

    def _actions(
        self, instrument: Instrument, symbol: str, currency: str | None, start: int, end: int
    ) -> tuple[Action, ...]:
        if not _is_security(instrument):
            return ()
        zone = ZoneInfo(instrument.place.time_zone)
        today = day_number(datetime.fromtimestamp(self._clock.time(), zone).date())
        splits = self._dated("splits", symbol, _ratio_of)
        dividends = self._dated("dividends", symbol, _cash_of)
        # a split after the range is worked into every earlier row too, but not one that is only announced
        found = [
            *(Action(day, "split", math.prod(ratios), None, self.name) for day, ratios in splits if day <= today),
            *(Action(day, "dividend", sum(cash), currency, self.name) for day, cash in dividends if day <= end),
        ]
        return tuple(sorted((action for action in found if action.ex_date >= start), key=lambda action: action.key))

    def _dated(self, path: str, symbol: str, value_of: Callable[[Row], float | None]) -> list[tuple[int, set[float]]]:
        """Values by day; the same row twice, which the vendor has at times, counts once."""
        rows = self._get(path, symbol=symbol)
        _require_same(rows, symbol)
        return read(VENDOR, lambda: list(_by_day(rows, value_of).items()))

    # ---- quotes and search

    def _portion(
        self, instruments: Sequence[Instrument], quotes: list[Quote], failures: dict[Instrument, ProviderError]
    ) -> None:
        asked: dict[str, Instrument] = {}
        for instrument in instruments:
            try:
                asked[fmp_symbol(instrument)] = instrument
            except SymbolNotFound as exc:
                failures[instrument] = exc
        if not asked:
            return
        path, parameter = ("batch-quote", "symbols") if self._batches else ("quote", "symbol")
        answered = self._get(path, **{parameter: ",".join(asked)})
        rows = read(VENDOR, lambda: {row["symbol"].upper(): row for row in answered})
        if not self._batches:
            _require_same(answered, next(iter(asked)))
        for symbol, instrument in asked.items():
            try:
                quotes.append(self._quote(instrument, symbol, rows.get(symbol)))
            except RateLimited:
                raise
            except ProviderError as exc:
                failures[instrument] = exc

    def _quote(self, instrument: Instrument, symbol: str, row: Row | None) -> Quote:
        if row is None:
            raise SymbolNotFound(f"{VENDOR} has no quote of {symbol}.")
        currency = self._currency(instrument, symbol)
        return read(VENDOR, lambda: _quote_of(instrument, row, currency, self._clock.time(), self.name))

    def _currency(self, instrument: Instrument, symbol: str) -> str:
        """A quote does not say it. Elsewhere than in the US a listing may be in another currency than its market."""
        about = None
        if instrument.market != "US" and _is_security(instrument):
            about = self._profile(instrument, symbol)
        return (about.currency if about else None) or instrument.currency

    def _found(self, rows: list[Row]) -> list[Found]:
        found: dict[Instrument, Found] = {}
        for row in rows:
            exchange, currency = str(row.get("exchange") or ""), text_of(row.get("currency"))
            instrument = from_fmp(str(row["symbol"]), exchange, currency)
            if instrument is not None and instrument not in found:
                found[instrument] = Found(
                    instrument,
                    text_of(row.get("name")),
                    _KIND_OF_EXCHANGE.get(exchange),
                    currency,
                    self.name,
                )
        return list(found.values())

    # ---- requests

    def _get(self, path: str, **parameters: str | int) -> list[Row]:
        """The rows of an answer."""
        import requests

        session = self._session()
        self._mine.requests = self.requests_of_thread() + 1
        try:
            answer = session.get(
                f"{self._base_url}/stable/{path}",
                params=parameters,
                headers={"apikey": self._key},
                timeout=self._request_timeout,
                allow_redirects=False,  # the key is for the vendor's own host
            )
        except requests.RequestException as exc:
            raise ProviderUnavailable(f"{VENDOR} did not answer ({type(exc).__name__}).") from exc
        return self._rows(answer)

    def _session(self) -> Any:
        session = getattr(self._mine, "session", None)
        if session is None:
            import requests

            session = self._mine.session = requests.Session()
            session.trust_env = not self._is_redirected
            with self._lock:
                self._sessions.append(session)
        return session

    def _rows(self, answer: Any) -> list[Row]:
        status, retry_after = answer.status_code, answer.headers.get("Retry-After")
        try:
            body = json.loads(answer.content)
        except ValueError as exc:
            # 402 is answered in plain words
            self._refuse(status, answer.text[:2000] if status >= 400 else "", retry_after)
            raise ProviderUnavailable(f"{VENDOR} answered with something that is not JSON.") from exc
        is_rows = isinstance(body, list) and all(isinstance(row, dict) for row in body)
        if is_rows and status in (200, 404):
            return list(body)
        words = next((str(body[k]) for k in _ERROR_KEYS if k in body), "") if isinstance(body, dict) else ""
        self._refuse(status, words, retry_after)
        raise ProviderAnswerBad(f"{VENDOR} answered with no list. {self._quoted(words)}".strip())

    def _refuse(self, status: int, words: str, retry_after: str | None) -> None:
        """Raise what a status or the words of an error mean; nothing for status 200 with words of no known kind."""
        said = words.lower()
        if status == 429 or any(phrase in said for phrase in _LIMIT_WORDS):
            raise RateLimited(
                f"{VENDOR}: the limit of the plan is reached.",
                retry_after=seconds_to_wait(retry_after, self._clock.time()),
            )
        if status == 402 or (status < 500 and any(phrase in said for phrase in _PLAN_WORDS)):
            raise PlanExcludes(f"The plan of this key does not include it. {self._quoted(words)}".strip())
        if status in (401, 403) or (status < 500 and any(phrase in said for phrase in _KEY_WORDS)):
            raise ProviderUnavailable(
                f"{VENDOR} refused the key in FINANCIAL_MODELING_PREP_API_KEY.", code="provider_key_refused"
            )
        if status == 400:
            raise ProviderAnswerBad(f"{VENDOR} answered with status 400. {self._quoted(words)}".strip())
        if status != 200:
            raise ProviderUnavailable(f"{VENDOR} answered with status {status}.")

    def _quoted(self, words: str) -> str:
        return (text_of(words.replace(self._key, "***"), 160) or "") if "<" not in words else ""


def _usable(key: str | None) -> str:
    key = (key or "").strip()
    # what no header can carry would stand in the text of an error
    if not key or not (key.isascii() and key.isprintable()) or " " in key:
        raise Misconfigured(
            "The fmp provider needs a key: set FINANCIAL_MODELING_PREP_API_KEY.", code="fmp_key_missing"
        )
    return key


def _is_security(instrument: Instrument) -> bool:
    return instrument.kind is None


def _require_same(rows: Sequence[Row], asked: str) -> None:
    for row in rows:
        require_same(VENDOR, row.get("symbol"), asked)


def _about_of(row: Row) -> _About:
    kind: InstrumentKind = "fund" if row.get("isFund") else "etf" if row.get("isEtf") else "equity"
    listed = _day_of_text(row.get("ipoDate"))
    return _About(kind, text_of(row.get("companyName")), text_of(row.get("currency")), listed)


def _first_available(bars: Bars, about: _About, start: int) -> int | None:
    """Only when the first bar is of the days in which it was listed: other histories begin where the plan has them
    begin."""
    if not len(bars) or about.listed_on is None:
        return None
    first = int(bars.sessions[0])
    return first if start < first and 0 <= first - about.listed_on <= _LISTING_SLACK else None


def _session_of(row: Row) -> int | None:
    return _day_of_text(row.get("date"))


def _day_of_text(text: Any) -> int | None:
    try:
        return day_number(date.fromisoformat(str(text)[:10]))
    except ValueError:
        return None


def _by_day(rows: Sequence[Row], value_of: Callable[[Row], float | None]) -> dict[int, set[float]]:
    values: dict[int, set[float]] = {}
    for row in rows:
        day, value = _session_of(row), value_of(row)
        if day is not None and value is not None:
            values.setdefault(day, set()).add(value)
    return values


def _ratio_of(row: Row) -> float | None:
    new, old = positive(row.get("numerator")), positive(row.get("denominator"))
    return new / old if new and old and new != old else None


def _cash_of(row: Row) -> float | None:
    return positive(row.get("adjDividend")) or positive(row.get("dividend"))


def _quote_of(instrument: Instrument, row: Row, currency: str, now: float, source: str) -> Quote:
    price, at = positive(row.get("price")), positive(row.get("timestamp"))
    if price is None or at is None:
        raise ProviderAnswerBad(f"{VENDOR} gave no price.")
    zone = ZoneInfo(instrument.place.time_zone)
    return Quote(
        instrument,
        price,
        currency,
        as_of=at,
        received_at=now,
        source=source,
        session=day_number(datetime.fromtimestamp(at, UTC).astimezone(zone).date()),
        previous_close=positive(row.get("previousClose")),
        open=positive(row.get("open")),
        day_high=positive(row.get("dayHigh")),
        day_low=positive(row.get("dayLow")),
        volume=volume_of(row.get("volume"), instrument.kind),
    )
