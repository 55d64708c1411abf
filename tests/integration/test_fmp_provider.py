"""The fmp provider against a fake server of the vendor's stable API, in every way the vendor goes wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from pricecache.clock import SystemClock
from pricecache.core.actions import Action, adjusted
from pricecache.core.bars import Bars, day_number
from pricecache.core.basis import as_traded
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook
from pricecache.errors import (
    Misconfigured,
    PlanExcludes,
    ProviderAnswerBad,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
)
from pricecache.providers.base import History
from pricecache.providers.chain import ProviderChain
from pricecache.providers.fmp import FmpProvider
from pricecache.providers.pool import ProviderPool
from pricecache.providers.yahoo import YahooProvider
from pricecache.settings import Settings
from pricecache.vendors import chain_of
from tests.fakes.calendars import calendar_of, xnys_book
from tests.fakes.fmp import FakeFmp
from tests.fakes.yahoo import FakeYahoo, sessions_back, utc

KEY = "s3cr3t-key"
AAPL, DEAD = Instrument("AAPL"), Instrument("DEAD")
EURUSD, COIN, INDEX = Instrument("EURUSD=X", "FX"), Instrument("BTC-USD", "CRYPTO"), Instrument("^GSPC")
VOD = Instrument("VOD", "L")
FRIDAY = date(2024, 3, 15)
AFTER = utc(2024, 3, 15, 21, 0)  # the close is 20:00 UTC
BOOK = xnys_book()
BOOK.add(calendar_of("XLON"))


class SetClock(SystemClock):
    def __init__(self, at: float) -> None:
        self.at = at

    def time(self) -> float:
        return self.at


@pytest.fixture
def clock() -> SetClock:
    return SetClock(AFTER)


@pytest.fixture
def fmp(clock: SetClock) -> Iterator[FakeFmp]:
    with FakeFmp(KEY, clock) as server:
        server.put("AAPL", table(), name="Apple Inc.")
        yield server


@pytest.fixture
def provider(fmp: FakeFmp, clock: SetClock) -> Iterator[FmpProvider]:
    provider = FmpProvider(KEY, clock, BOOK, fmp.url, request_timeout=0.3)
    yield provider
    provider.close()


def table(last: date = FRIDAY, count: int = 20) -> dict[date, list[float | None]]:
    return {
        day: [100.0 + i, 102.0 + i, 99.0 + i, 101.0 + i, 1000.0 + i] for i, day in enumerate(sessions_back(last, count))
    }


def every_day(first: date, count: int) -> dict[date, list[float | None]]:
    return {first + timedelta(days=i): [1.0, 1.2, 0.9, 1.1, 0.0] for i in range(count)}


def ask(
    provider: FmpProvider, instrument: Instrument = AAPL, start: date = date(2024, 1, 1), end: date = FRIDAY
) -> History:
    return provider.history(instrument, day_number(start), day_number(end))


def test_importing_the_adapter_loads_no_http_library() -> None:
    code = "import sys, pricecache.providers.fmp; print({'requests', 'urllib3'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_history_is_what_the_vendor_has_by_session(provider: FmpProvider) -> None:
    history = ask(provider)
    truth = table()
    assert history.bars.sessions.tolist() == [day_number(day) for day in truth]
    assert np.allclose(history.bars.values.T, np.array(list(truth.values())))
    assert (history.basis, history.currency, history.rejected) == ("split_adjusted", "USD", ())
    assert (history.kind, history.name) == ("equity", "Apple Inc.")


def test_a_history_is_three_requests_once_the_profile_is_known(provider: FmpProvider, fmp: FakeFmp) -> None:
    ask(provider)
    assert fmp.requests() == {"historical-price-eod/full": 1, "profile": 1, "splits": 1, "dividends": 1}
    fmp.reset_counts()
    ask(provider)
    assert fmp.requests().total() == provider.pace.costs["history"] == 3
    fmp.reset_counts()
    provider.quotes([AAPL])
    assert fmp.requests().total() == 1


def test_coins_pairs_and_indices_are_one_request(provider: FmpProvider, fmp: FakeFmp) -> None:
    for instrument, spelled, kind, currency in (
        (EURUSD, "EURUSD", "currency", "USD"),
        (COIN, "BTCUSD", "crypto", "USD"),
        (INDEX, "^GSPC", "index", None),
    ):
        fmp.put(spelled, every_day(date(2024, 3, 1), 20), profile=None)
        fmp.reset_counts()
        history = ask(provider, instrument)
        assert (history.kind, history.currency) == (kind, currency)
        assert fmp.log == [("historical-price-eod/full", {"symbol": spelled, "from": "2024-01-01", "to": "2024-03-15"})]


def test_a_long_range_is_asked_for_in_parts(provider: FmpProvider, fmp: FakeFmp) -> None:
    """The vendor cuts an answer off at 5,000 rows without saying so."""
    fmp.put("BTCUSD", every_day(date(2004, 3, 16), 20 * 365 + 5), profile=None)
    history = ask(provider, COIN, start=date(1990, 1, 1))
    assert len(history.bars) == 20 * 365 + 4  # today is under way
    assert fmp.requests()["historical-price-eod/full"] == 3


@pytest.mark.parametrize(
    ("at", "last"),
    [
        (utc(2024, 3, 15, 18, 0), date(2024, 3, 14)),
        (utc(2024, 3, 15, 20, 29), date(2024, 3, 14)),
        (utc(2024, 3, 15, 20, 30), date(2024, 3, 15)),
    ],
)
def test_todays_row_is_left_out_until_its_session_is_over(
    provider: FmpProvider, clock: SetClock, at: float, last: date
) -> None:
    clock.at = at
    assert ask(provider).bars.sessions[-1] == day_number(last)


def test_a_fund_has_one_price_final_twelve_hours_later(provider: FmpProvider, fmp: FakeFmp, clock: SetClock) -> None:
    fmp.put("AAPL", {day: [*row[:4], 0.0] for day, row in table().items()}, profile={"isFund": True})
    assert ask(provider).bars.sessions[-1] == day_number(date(2024, 3, 14))
    clock.at = utc(2024, 3, 16, 8, 30)
    history = ask(provider)
    assert (history.kind, history.bars.sessions[-1]) == ("fund", day_number(FRIDAY))
    assert all((column == history.bars.close).all() for column in history.bars.values[:3])
    assert np.isnan(history.bars.volume).all()


def test_a_pair_has_no_sundays_and_no_volume(provider: FmpProvider, fmp: FakeFmp, clock: SetClock) -> None:
    fmp.put("EURUSD", every_day(date(2024, 3, 1), 20), profile=None)
    clock.at = utc(2024, 3, 11, 12)
    history = ask(provider, EURUSD)
    assert history.bars.sessions.tolist() == [day_number(date(2024, 3, day)) for day in (1, 4, 5, 6, 7, 8)]
    assert np.isnan(history.bars.volume).all()


def test_the_vendors_bars_and_actions_give_back_what_was_traded(provider: FmpProvider, fmp: FakeFmp) -> None:
    """A split 4 for 1 in the middle: prices are worked for it, so are dividends before it."""
    truth, ex = table(), date(2024, 3, 6)
    for day, row in truth.items():
        if day >= ex:
            truth[day] = [value / 4 for value in row[:4] if value is not None] + [4000.0]
    announced = {ex: 4.0, date(2024, 4, 1): 2.0}
    fmp.put("AAPL", truth, splits=announced, dividends={date(2024, 2, 28): 0.4, date(2024, 3, 7): 0.1})
    history = ask(provider)
    assert history.actions == (
        Action(day_number(date(2024, 2, 28)), "dividend", 0.1, "USD", "fmp"),
        Action(day_number(ex), "split", 4.0, None, "fmp"),
        Action(day_number(date(2024, 3, 7)), "dividend", 0.1, "USD", "fmp"),
    )
    traded = Bars.of([day_number(day) for day in truth], np.array(list(truth.values()), float).T)
    assert np.allclose(history.bars.values, adjusted(traded, history.actions, "splits").values)
    assert np.allclose(as_traded(history.bars, history.actions[1:2]).values, traded.values)


def test_a_split_after_the_range_is_told_and_a_dividend_is_not(provider: FmpProvider, fmp: FakeFmp) -> None:
    fmp.put("AAPL", table(), splits={FRIDAY: 4.0}, dividends={FRIDAY: 0.1})
    history = ask(provider, end=date(2024, 3, 12))
    assert [(action.ex_date, action.kind) for action in history.actions] == [(day_number(FRIDAY), "split")]


def test_the_same_row_twice_counts_once(provider: FmpProvider, fmp: FakeFmp, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"symbol": "AAPL", "date": "2024-03-07", "dividend": None, "adjDividend": 0.25}
    other = row | {"adjDividend": 1.0}
    monkeypatch.setattr(fmp, "_dividends", lambda *_: [row, row, other, row | {"adjDividend": 0}])
    assert ask(provider).actions == (Action(day_number(date(2024, 3, 7)), "dividend", 1.25, "USD", "fmp"),)


def test_rows_without_a_close_or_a_date_are_named(
    provider: FmpProvider, fmp: FakeFmp, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = table()
    truth[date(2024, 3, 7)] = [None, None, None, None, 5.0]
    truth[date(2024, 3, 8)][4] = None
    fmp.put("AAPL", truth)
    history = ask(provider)
    assert history.rejected == ((day_number(date(2024, 3, 7)), "the close is missing"),)
    assert np.isnan(history.bars.between(day_number(date(2024, 3, 8)), day_number(date(2024, 3, 8))).volume[0])
    monkeypatch.setattr(fmp, "_historical_price_eod_full", lambda *_: [{"symbol": "AAPL", "date": "soon"}])
    assert ask(provider).rejected == ((None, "'soon' is not a date"),)


def test_the_first_session_is_told_only_when_the_profile_bears_it_out(provider: FmpProvider, fmp: FakeFmp) -> None:
    """The free plan's history begins five years back: that is no listing."""
    first = min(table())
    assert ask(provider).first_available == day_number(first)
    assert ask(provider, start=date(2024, 3, 5)).first_available is None
    fmp.put("IBM", table(), profile={"ipoDate": "1962-01-02"})
    fmp.put("MSFT", table(), profile={"ipoDate": None})
    assert ask(provider, Instrument("IBM")).first_available is None
    assert ask(provider, Instrument("MSFT")).first_available is None


def test_an_unknown_symbol_is_told_from_one_without_prices(provider: FmpProvider, fmp: FakeFmp) -> None:
    fmp.put("IBM", {})
    assert len(ask(provider, Instrument("IBM")).bars) == 0
    assert len(ask(provider, AAPL, end=date(2024, 1, 31)).bars) == 0
    fmp.reset_counts()
    with pytest.raises(SymbolNotFound):
        ask(provider, DEAD)
    assert fmp.requests() == {"historical-price-eod/full": 1, "profile": 1}
    with pytest.raises(SymbolNotFound):
        ask(provider, EURUSD)
    fmp.put("EURUSD", every_day(date(2024, 3, 1), 20), profile=None)
    assert len(ask(provider, EURUSD, end=date(2024, 1, 31)).bars) == 0


def test_prices_without_a_profile_are_prices(provider: FmpProvider, fmp: FakeFmp) -> None:
    fmp.put("IBM", table(), profile=None)
    history = ask(provider, Instrument("IBM"))
    assert (len(history.bars), history.kind, history.currency) == (20, None, None)


MODES: list[tuple[str, type[ProviderError], str]] = [
    ("not_found", ProviderUnavailable, "provider_unavailable"),
    ("unauthorized", ProviderUnavailable, "provider_key_refused"),
    ("forbidden", ProviderUnavailable, "provider_key_refused"),
    ("plan", PlanExcludes, "provider_plan_excludes"),
    ("plan_json", PlanExcludes, "provider_plan_excludes"),
    ("rate_limited", RateLimited, "rate_limited"),
    ("limit", RateLimited, "rate_limited"),
    ("bad_request", ProviderAnswerBad, "provider_answer_bad"),
    ("server_error", ProviderUnavailable, "provider_unavailable"),
    ("html", ProviderUnavailable, "provider_unavailable"),
    ("words", ProviderUnavailable, "provider_unavailable"),
    ("slow", ProviderUnavailable, "provider_unavailable"),
    ("disconnect", ProviderUnavailable, "provider_unavailable"),
    ("redirect", ProviderUnavailable, "provider_unavailable"),
    ("object", ProviderAnswerBad, "provider_answer_bad"),
    ("garbage", ProviderAnswerBad, "provider_answer_bad"),
    ("another", ProviderAnswerBad, "another_symbol"),
]


@pytest.mark.parametrize(("mode", "error", "code"), MODES)
def test_what_goes_wrong_is_told_by_kind_and_heals(
    provider: FmpProvider, fmp: FakeFmp, mode: str, error: type[ProviderError], code: str
) -> None:
    fmp.fail(mode, times=None, seconds=0.4)
    with pytest.raises(error) as caught:
        ask(provider)
    assert (type(caught.value), caught.value.code) == (error, code)
    if issubclass(error, RateLimited | ProviderUnavailable):
        with pytest.raises(error):
            provider.quotes([AAPL])
    elif mode != "another":
        assert [type(one) for one in provider.quotes([AAPL]).failures.values()] == [error]
    fmp.heal()
    assert len(ask(provider).bars) == 20


@pytest.mark.parametrize("mode", [mode for mode, *_ in MODES])
def test_the_key_is_in_no_error_and_no_log(
    provider: FmpProvider, fmp: FakeFmp, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    caplog.set_level(logging.DEBUG)
    fmp.fail(mode, times=None, seconds=0.4)
    with pytest.raises(ProviderError) as caught:
        ask(provider)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.facts) + caplog.text
    assert KEY not in told
    assert all(KEY not in f"{path}{query}" for path, query in fmp.log)
    assert KEY not in repr(vars(provider) | {"_key": ""})


def test_a_key_that_the_vendor_repeats_is_blacked_out(
    provider: FmpProvider, fmp: FakeFmp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.fakes import fmp as fakes

    monkeypatch.setitem(fakes._ANSWERS, "plan", lambda: fakes._error(402, f"Not for {KEY}"))
    fmp.fail("plan")
    with pytest.raises(ProviderAnswerBad, match=r"Not for \*\*\*"):
        ask(provider)


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), (17, 17.0), ("Fri, 15 Mar 2024 21:02:00 GMT", 120.0), ("soon", None)]
)
def test_a_429_tells_how_long_to_wait(
    provider: FmpProvider, fmp: FakeFmp, header: object, seconds: float | None
) -> None:
    fmp.fail("rate_limited", retry_after=header)
    with pytest.raises(RateLimited) as caught:
        ask(provider)
    assert caught.value.retry_after == seconds
    assert fmp.requests().total() == 1


def test_a_wrong_key_is_refused(fmp: FakeFmp, clock: SetClock) -> None:
    provider = FmpProvider("wrong", clock, BOOK, fmp.url)
    with pytest.raises(ProviderUnavailable) as caught:
        ask(provider)
    assert caught.value.code == "provider_key_refused"
    provider.close()


@pytest.mark.parametrize("key", [None, "", "  ", "two words", "line\nbreak", "schlüssel"])
def test_without_a_key_it_is_misconfigured_without_telling_it(clock: SetClock, key: str | None) -> None:
    with pytest.raises(Misconfigured) as caught:
        FmpProvider(key, clock, BOOK)
    assert caught.value.code == "fmp_key_missing"
    assert not key or not key.strip() or key not in str(caught.value)


def test_while_its_sessions_are_loading_it_is_unavailable(fmp: FakeFmp, clock: SetClock) -> None:
    provider = FmpProvider(KEY, clock, CalendarBook(), fmp.url)
    with pytest.raises(ProviderUnavailable):
        ask(provider)
    provider.close()


def test_a_quote_has_everything_the_vendor_knows(provider: FmpProvider, clock: SetClock) -> None:
    quote = provider.quotes([AAPL]).quotes[0]
    assert (quote.price, quote.open, quote.day_high, quote.day_low) == (120.0, 119.0, 121.0, 118.0)
    assert (quote.previous_close, quote.volume, quote.currency) == (119.0, 1019.0, "USD")
    assert (quote.as_of, quote.received_at, quote.session) == (AFTER, AFTER, day_number(FRIDAY))
    assert quote.source == "fmp"


def test_a_quote_elsewhere_is_in_the_currency_of_its_profile(provider: FmpProvider, fmp: FakeFmp) -> None:
    """A listing in London may be in dollars, and a quote does not say."""
    fmp.put("VOD.L", table(), currency="GBp")
    dollars = Instrument("VUSD", "L")
    fmp.put("VUSD.L", table(), currency="USD")
    fmp.put("EURUSD", table(), profile=None)
    found = {quote.instrument: quote.currency for quote in provider.quotes([VOD, dollars, EURUSD]).quotes}
    assert found == {VOD: "GBp", dollars: "USD", EURUSD: "USD"}
    provider.quotes([VOD])
    assert fmp.requests()["profile"] == 2


def test_quotes_name_what_failed_beside_what_came(provider: FmpProvider, fmp: FakeFmp) -> None:
    fmp.put("IBM", table(), quote={"price": None})
    custom, broken = Instrument("FUND", "CUSTOM"), Instrument("IBM")
    answer = provider.quotes([DEAD, AAPL, custom, broken])
    assert [quote.instrument for quote in answer.quotes] == [AAPL]
    assert {i: type(error) for i, error in answer.failures.items()} == {
        DEAD: SymbolNotFound,
        custom: SymbolNotFound,
        broken: ProviderAnswerBad,
    }


def test_after_a_429_no_further_quote_is_asked_for(provider: FmpProvider, fmp: FakeFmp) -> None:
    fmp.fail("rate_limited")
    with pytest.raises(RateLimited):
        provider.quotes([AAPL, DEAD])
    assert fmp.requests().total() == 1


def test_quotes_in_batches_are_one_request(fmp: FakeFmp, clock: SetClock) -> None:
    provider = FmpProvider(KEY, clock, BOOK, fmp.url, batch_quotes=True)
    fmp.put("BRK-B", table())
    class_b = Instrument("BRK.B")
    answer = provider.quotes([AAPL, DEAD, class_b])
    assert [quote.instrument for quote in answer.quotes] == [AAPL, class_b]
    assert list(answer.failures) == [DEAD]
    assert fmp.log == [("batch-quote", {"symbols": "AAPL,DEAD,BRK-B"})]
    assert provider.pace.quotes_per_call == 50
    provider.close()


def test_a_search_goes_by_symbol_and_then_by_name(provider: FmpProvider, fmp: FakeFmp) -> None:
    fmp.put("SAP.DE", {}, name="SAP SE", currency="EUR", exchange="XETRA")
    fmp.put("BTCUSD", {}, name="Bitcoin USD", exchange="CRYPTO")
    fmp.put("EURUSD", {}, name="EUR/USD", exchange="FOREX")
    fmp.put("^GSPC", {}, name="S&P 500", exchange="INDEX")
    fmp.put("GCUSD", {}, name="Gold Futures", exchange="COMMODITY")
    (apple,) = provider.search("AAPL", 5)
    assert (apple.instrument, apple.name, apple.currency, apple.source) == (AAPL, "Apple Inc.", "USD", "fmp")
    assert fmp.requests() == {"search-symbol": 1}
    assert [str(one.instrument) for one in provider.search("sap se", 5)] == ["SAP:DE"]
    found = {str(one.instrument): (one.kind, one.currency) for one in provider.search("USD", 5)}
    assert found == {"BTC-USD:CRYPTO": ("crypto", "USD"), "EURUSD=X:FX": ("currency", "USD")}
    assert [one.kind for one in provider.search("^GSPC", 5)] == ["index"]
    assert provider.search("gold", 5) == []
    fmp.fail("rate_limited")
    with pytest.raises(RateLimited):
        provider.search("gold", 5)


def test_the_setting_reaches_the_provider_and_a_missing_key_is_told(clock: SetClock) -> None:
    settings = Settings(providers=("fmp",))
    with pytest.raises(Misconfigured) as caught:
        chain_of(settings, clock, BOOK, None, lambda _: lambda _: None)  # type: ignore[arg-type]
    assert caught.value.code == "fmp_key_missing"


async def test_the_account_has_the_requests_that_the_vendor_saw(
    provider: FmpProvider, fmp: FakeFmp, clock: SetClock
) -> None:
    """Whatever a call makes: a profile for the first time, long ranges, pairs, dead symbols, failures."""
    fmp.put("VOD.L", table(), currency="GBp")
    fmp.put("BTCUSD", every_day(date(2024, 3, 1), 10), exchange="CRYPTO")
    pool = ProviderPool(provider, clock, pace=replace(provider.pace, per_second=1000, burst=1000))

    async def agrees() -> None:
        account, seen = pool.account, sum(fmp.requests().values())
        remaining = account.remaining(pool.pace, "live", clock.time())
        assert (account.requests, remaining) == (seen, 250 - seen)

    for instrument, first in (
        (AAPL, date(2024, 1, 1)),
        (AAPL, date(1990, 1, 1)),
        (COIN, date(2024, 3, 1)),
        (DEAD, date(2024, 1, 1)),
        (Instrument("MYFUND", "CUSTOM"), date(2024, 1, 1)),
    ):
        with suppress(SymbolNotFound):
            await pool.history(instrument, day_number(first), day_number(FRIDAY), lane="live")
        await agrees()
    await pool.quotes([AAPL, VOD])
    await agrees()
    await pool.search("AAPL", 5)
    await pool.search("nothing at all", 5)
    await agrees()
    fmp.fail("server_error", times=1)
    with pytest.raises(ProviderUnavailable):
        await pool.history(AAPL, 0, 1, lane="live")
    await agrees()
    await pool.close()


async def test_when_yahoo_fails_fmp_answers_with_the_same_prices(
    provider: FmpProvider, fmp: FakeFmp, clock: SetClock, tmp_path: Path
) -> None:
    """Both real adapters in a chain; a split in the middle shows alike in both."""
    truth, ex = table(), date(2024, 3, 6)
    for day, row in truth.items():
        if day >= ex:
            truth[day] = [value / 4 for value in row[:4] if value is not None] + [4000.0]
    facts = {"splits": {ex: 4.0}, "dividends": {date(2024, 2, 28): 0.4}}
    fmp.put("AAPL", truth, **facts)
    with FakeYahoo(clock) as yahoo:
        yahoo.put("AAPL", truth, **facts)
        first = YahooProvider(tmp_path, clock, yahoo.url)
        chain = ProviderChain([ProviderPool(one, SystemClock()) for one in (first, provider)])
        start, end = day_number(date(2024, 1, 1)), day_number(FRIDAY)
        usual = await chain.history(AAPL, start, end)
        yahoo.fail("server_error", times=None)
        other = await chain.history(AAPL, start, end)
        quotes = await chain.quotes([AAPL])
        await chain.close()
    assert (usual.source, other.source) == ("yfinance", "fmp")
    assert np.allclose(usual.bars.values, other.bars.values, rtol=1e-6)
    assert [(a.ex_date, a.kind) for a in usual.actions] == [(a.ex_date, a.kind) for a in other.actions]
    assert np.allclose([a.value for a in usual.actions], [a.value for a in other.actions])
    assert [quote.source for quote in quotes.quotes] == ["fmp"]
