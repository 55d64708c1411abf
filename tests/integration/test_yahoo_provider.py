"""The yahoo provider: the real yfinance library against a fake Yahoo server, in every way the vendor goes wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, time
from pathlib import Path

import numpy as np
import pytest

from pricecache.clock import SystemClock
from pricecache.core.actions import Action, adjusted
from pricecache.core.bars import Bars, day_number
from pricecache.core.instruments import Instrument
from pricecache.core.markets import MARKETS
from pricecache.errors import ProviderAnswerBad, ProviderError, ProviderUnavailable, RateLimited, SymbolNotFound
from pricecache.providers.base import History
from pricecache.providers.pool import ProviderPool
from pricecache.providers.yahoo import YahooProvider
from tests.fakes.yahoo import FakeYahoo, sessions_back, utc

AAPL = Instrument("AAPL")
FRIDAY = date(2024, 3, 15)
AFTER = utc(2024, 3, 15, 21, 0)  # the close is 20:00 UTC
DURING = utc(2024, 3, 15, 18, 0)


class SetClock(SystemClock):
    def __init__(self, at: float) -> None:
        self.at = at

    def time(self) -> float:
        return self.at


@pytest.fixture
def clock() -> SetClock:
    return SetClock(AFTER)


@pytest.fixture
def yahoo(clock: SetClock) -> Iterator[FakeYahoo]:
    with FakeYahoo(clock) as server:
        server.put("AAPL", table())
        yield server


@pytest.fixture
def provider(yahoo: FakeYahoo, clock: SetClock, tmp_path: Path) -> Iterator[YahooProvider]:
    provider = YahooProvider(tmp_path / "yfinance", clock, yahoo.url, request_timeout=0.5)
    yield provider
    provider.close()


def table(last: date = FRIDAY, count: int = 20) -> dict[date, list[float | None]]:
    return {
        day: [100.0 + i, 102.0 + i, 99.0 + i, 101.0 + i, 1000.0 + i] for i, day in enumerate(sessions_back(last, count))
    }


def ask(provider: YahooProvider, start: date = date(2024, 1, 1), end: date = FRIDAY) -> History:
    return provider.history(AAPL, day_number(start), day_number(end))


def closes(bars: Bars) -> list[float]:
    return bars.close.round(4).tolist()


def test_importing_the_adapter_loads_no_heavy_library() -> None:
    code = (
        "import sys, pricecache.providers.yahoo; print({'yfinance','pandas','requests','curl_cffi'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_history_is_what_the_vendor_has_by_session(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    history = ask(provider)
    truth = table()
    assert history.basis == "split_adjusted"
    assert history.currency == "USD"
    assert history.bars.sessions.tolist() == [day_number(day) for day in truth]
    assert np.allclose(history.bars.values.T, np.array(list(truth.values())), rtol=1e-7)
    assert history.rejected == ()


def test_a_history_and_a_quote_cost_one_request_each(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    ask(provider)
    assert yahoo.requests("AAPL") == 1
    provider.quotes([AAPL])
    assert yahoo.requests("AAPL") == 2
    once = yahoo.others()  # the cookie and the crumb, once for the process
    assert sum(once.values()) <= 2
    ask(provider)
    assert yahoo.others() == once


def test_only_the_range_asked_for_comes_back(provider: YahooProvider) -> None:
    history = ask(provider, date(2024, 3, 5), date(2024, 3, 7))
    assert history.bars.sessions.tolist() == [day_number(date(2024, 3, day)) for day in (5, 6, 7)]


def test_the_first_trade_date_is_told_when_the_range_begins_before_it(provider: YahooProvider) -> None:
    assert ask(provider).first_available == day_number(min(table()))
    assert ask(provider, date(2024, 3, 5)).first_available is None


@pytest.mark.parametrize(
    ("at", "last"),
    [
        (utc(2024, 3, 15, 18, 0), date(2024, 3, 14)),
        (utc(2024, 3, 15, 20, 29), date(2024, 3, 14)),
        (utc(2024, 3, 15, 20, 30), date(2024, 3, 15)),
        (utc(2024, 3, 16, 3, 0), date(2024, 3, 15)),
    ],
)
def test_a_session_is_there_half_an_hour_after_its_close(
    provider: YahooProvider, clock: SetClock, at: float, last: date
) -> None:
    clock.at = at
    history = ask(provider, end=date(2024, 3, 18))
    assert history.bars.sessions[-1] == day_number(last)
    assert history.rejected == ()


def test_without_a_close_time_today_is_never_final(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    yahoo.put("AAPL", table(), trading_period=False)
    assert ask(provider).bars.sessions[-1] == day_number(date(2024, 3, 14))


def test_a_half_day_is_final_after_its_own_close(provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock) -> None:
    yahoo.put("AAPL", table(), closes=time(13, 0))
    clock.at = utc(2024, 3, 15, 17, 30)
    assert ask(provider).bars.sessions[-1] == day_number(FRIDAY)


def test_round_the_clock_a_day_is_final_half_an_hour_after_midnight(
    provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock
) -> None:
    coin = Instrument("BTC-USD", "CRYPTO")
    days = {date(2024, 3, day): (1.0, 3.0, 0.5, 2.0, 9.0) for day in range(8, 18)}
    yahoo.put("BTC-USD", days, time_zone="UTC", opens=time(0), closes=time(23, 59), kind="CRYPTOCURRENCY")
    for minute, last in ((20, 15), (30, 16)):
        clock.at = utc(2024, 3, 17, 0, minute)
        history = provider.history(coin, day_number(date(2024, 3, 1)), day_number(date(2024, 3, 17)))
        assert history.bars.sessions[-1] == day_number(date(2024, 3, last))


def test_a_split_comes_as_an_action_beside_split_adjusted_bars(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    """What is as traded in the table is continuous in the answer, and the action says by how much."""
    truth = table()
    ex = date(2024, 3, 6)
    for day, row in truth.items():
        if day >= ex:
            truth[day] = [value / 4 for value in row[:4] if value is not None] + [4000.0]
    yahoo.put("AAPL", truth, splits={ex: 4.0})
    history = ask(provider)
    assert history.actions == (Action(day_number(ex), "split", 4.0, None, "yfinance"),)
    as_traded = Bars.of([day_number(day) for day in truth], np.array(list(truth.values()), float).T)
    assert np.allclose(history.bars.close, adjusted(as_traded, history.actions, "splits").close, rtol=1e-6)


def test_todays_split_is_told_though_the_range_ends_before_it(
    provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock
) -> None:
    """On its ex-date, before the session is final, it is worked into every row of the answer already."""
    truth = table()
    truth[FRIDAY] = [value / 4 for value in truth[FRIDAY][:4] if value is not None] + [4000.0]
    yahoo.put("AAPL", truth, splits={FRIDAY: 4.0}, dividends={date(2024, 3, 12): 0.4, FRIDAY: 0.1})
    clock.at = DURING
    history = ask(provider, date(2024, 3, 11), date(2024, 3, 12))
    assert [(a.ex_date, a.kind) for a in history.actions] == [
        (day_number(date(2024, 3, 12)), "dividend"),
        (day_number(FRIDAY), "split"),
    ]
    assert history.bars.close[-1] == pytest.approx((truth[date(2024, 3, 12)][3] or 0.0) / 4)


def test_a_split_that_is_listed_but_not_applied_is_given_as_it_is(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    yahoo.put("AAPL", table(), splits={date(2024, 3, 6): 4.0})
    yahoo.fail("split_not_applied")
    history = ask(provider)
    assert [action.value for action in history.actions] == [4.0]
    assert closes(history.bars) == [row[3] for row in table().values()]


def test_dividends_come_as_the_vendor_gives_them(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    yahoo.put("AAPL", table(), dividends={date(2024, 3, 7): 0.25})
    assert ask(provider).actions == (Action(day_number(date(2024, 3, 7)), "dividend", 0.25, "USD", "yfinance"),)


def test_an_action_on_a_session_without_a_close_is_kept(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    truth = table()
    truth[date(2024, 3, 7)] = [None, None, None, None, 5.0]
    yahoo.put("AAPL", truth, dividends={date(2024, 3, 7): 0.25})
    history = ask(provider)
    assert [action.ex_date for action in history.actions] == [day_number(date(2024, 3, 7))]
    assert [session for session, _ in history.rejected] == [day_number(date(2024, 3, 7))]


def test_a_finished_session_without_prices_is_rejected_and_named(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    yahoo.fail("nan_last")
    history = ask(provider)
    assert history.bars.sessions[-1] == day_number(date(2024, 3, 14))
    assert [session for session, _ in history.rejected] == [day_number(FRIDAY)]


def test_no_bars_for_a_known_symbol_is_an_empty_history(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    for mode in ("empty", "out_of_range"):
        yahoo.fail(mode)
        assert len(ask(provider).bars) == 0


MODES: list[tuple[str, type[ProviderError]]] = [
    ("not_found", SymbolNotFound),
    ("rate_limited", RateLimited),
    ("server_error", ProviderUnavailable),
    ("unauthorized", ProviderUnavailable),
    ("html", ProviderUnavailable),
    ("slow", ProviderUnavailable),
    ("disconnect", ProviderUnavailable),
    ("garbage", ProviderAnswerBad),
]


@pytest.mark.parametrize(("mode", "error"), MODES)
def test_a_history_that_fails_heals_on_the_next_call(
    provider: YahooProvider, yahoo: FakeYahoo, mode: str, error: type[ProviderError]
) -> None:
    """The library keeps failed answers for fixed past ranges and time zones; nothing of that may be left."""
    yahoo.fail(mode, times=None, seconds=2.0)
    with pytest.raises(error):
        ask(provider, end=date(2024, 3, 8))
    yahoo.heal()
    assert len(ask(provider, end=date(2024, 3, 8)).bars) == 15


@pytest.mark.parametrize(("symbol", "mode"), [("ONE", "server_error"), ("TWO", "html"), ("THREE", "disconnect")])
def test_a_failed_look_up_of_the_time_zone_is_not_remembered(
    provider: YahooProvider, yahoo: FakeYahoo, monkeypatch: pytest.MonkeyPatch, symbol: str, mode: str
) -> None:
    """The library keeps that answer, good or bad, in a cache of its own: without care it would never ask again."""
    monkeypatch.setitem(MARKETS, "US", replace(MARKETS["US"], time_zone=None))  # type: ignore[arg-type]
    yahoo.put(symbol, table())
    yahoo.fail(mode)
    start, end = day_number(date(2024, 1, 1)), day_number(date(2024, 3, 8))
    with pytest.raises(ProviderUnavailable):
        provider.history(Instrument(symbol), start, end)
    assert len(provider.history(Instrument(symbol), start, end).bars) == 15
    assert [query.get("range") for _, query in yahoo.log if "interval" in query] == ["1d", "1d", None]


@pytest.mark.parametrize(("mode", "error"), [m for m in MODES if m[0] not in ("not_found", "garbage")])
def test_quotes_fail_as_a_whole_when_the_provider_fails_and_heal(
    provider: YahooProvider, yahoo: FakeYahoo, mode: str, error: type[ProviderError]
) -> None:
    yahoo.fail(mode, times=None, seconds=2.0)
    with pytest.raises(error):
        provider.quotes([AAPL])
    yahoo.heal()
    assert provider.quotes([AAPL]).quotes[0].price == 120.0


def test_a_single_failure_of_the_server_is_not_hidden_by_a_second_request(
    provider: YahooProvider, yahoo: FakeYahoo
) -> None:
    yahoo.fail("server_error", times=1)
    with pytest.raises(ProviderUnavailable):
        ask(provider)
    assert yahoo.requests() == 1


def test_a_dead_symbol_costs_one_request(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    ask(provider)
    yahoo.reset_counts()
    with pytest.raises(SymbolNotFound):
        provider.history(Instrument("DEAD"), 0, 20000)
    assert yahoo.requests() == 1
    assert not yahoo.others()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), (17, 17.0), ("Fri, 15 Mar 2024 21:02:00 GMT", 120.0), ("soon", None), ("-5", None)],
)
def test_a_429_ends_at_once_and_tells_how_long_to_wait(
    provider: YahooProvider, yahoo: FakeYahoo, header: object, seconds: float | None
) -> None:
    yahoo.fail("rate_limited", times=None, retry_after=header)
    with pytest.raises(RateLimited) as caught:
        ask(provider)
    assert caught.value.retry_after == seconds
    assert yahoo.requests() == 1


def test_a_quote_has_everything_the_chart_knows(provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock) -> None:
    clock.at = DURING
    quote = provider.quotes([AAPL]).quotes[0]
    assert replace(quote, stale_at=0.0) == quote
    assert (quote.price, quote.open, quote.day_high, quote.day_low) == (120.0, 119.0, 121.0, 118.0)
    assert (quote.previous_close, quote.volume, quote.currency) == (119.0, 1019.0, "USD")
    assert (quote.as_of, quote.received_at, quote.session) == (DURING, DURING, day_number(FRIDAY))
    assert quote.source == "yfinance"


def test_the_quote_of_a_finished_session_is_of_its_close(provider: YahooProvider, clock: SetClock) -> None:
    clock.at = utc(2024, 3, 17, 12)
    quote = provider.quotes([AAPL]).quotes[0]
    assert (quote.as_of, quote.session) == (utc(2024, 3, 15, 20), day_number(FRIDAY))


def test_pence_stay_pence(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    yahoo.put("VOD.L", table(), currency="GBp", time_zone="Europe/London", opens=time(8), closes=time(16, 30))
    vodafone = Instrument("VOD", "L")
    assert provider.quotes([vodafone]).quotes[0].currency == "GBp"
    history = provider.history(vodafone, day_number(date(2024, 3, 1)), day_number(FRIDAY))
    assert history.currency == "GBp"
    assert history.bars.close[-1] == 120.0


def test_quotes_name_what_failed_beside_what_came(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    dead, broken = Instrument("DEAD"), Instrument("BROKEN")
    yahoo.put("BROKEN", table(), meta={"regularMarketPrice": None})
    answer = provider.quotes([dead, AAPL, broken])
    assert [quote.instrument for quote in answer.quotes] == [AAPL]
    assert {i: type(error) for i, error in answer.failures.items()} == {dead: SymbolNotFound, broken: ProviderAnswerBad}


def test_after_a_429_no_further_quote_is_asked_for(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    second, third = Instrument("MSFT"), Instrument("IBM")
    yahoo.put("IBM", table())
    yahoo.fail("rate_limited", "MSFT")
    answer = provider.quotes([AAPL, second, third])
    assert [quote.instrument for quote in answer.quotes] == [AAPL]
    assert set(answer.failures) == {second, third}
    assert yahoo.requests("IBM") == 0


async def test_side_by_side_every_symbol_gets_its_own_prices(yahoo: FakeYahoo, clock: SetClock, tmp_path: Path) -> None:
    """Through the pool, four threads share the library's one session; dead symbols among them disturb nobody."""
    provider = YahooProvider(tmp_path, clock, yahoo.url)
    provider.pace = replace(provider.pace, per_second=10_000)
    pool = ProviderPool(provider, SystemClock())
    instruments = [Instrument(f"S{i}") for i in range(24)]
    for i, instrument in enumerate(instruments):
        if i % 6:
            yahoo.put(instrument.symbol, {FRIDAY: (i, i, i, i, i)})
    histories = await asyncio.gather(*(pool.history(i, 19000, 20000) for i in instruments), return_exceptions=True)
    for i, history in enumerate(histories):
        if i % 6:
            assert isinstance(history, History)
            assert history.bars.close.tolist() == [i]
        else:
            assert isinstance(history, SymbolNotFound)
    answer = await pool.quotes(instruments)
    assert {quote.instrument.symbol: quote.price for quote in answer.quotes} == {f"S{i}": i for i in range(24) if i % 6}
    assert set(answer.failures) == set(instruments[::6])
    assert set(yahoo.charts().values()) == {2}
    await pool.close()


@pytest.mark.parametrize("instrument", [Instrument("FUND", "CUSTOM"), Instrument("US0378331005")])
def test_what_yahoo_cannot_have_is_not_asked_for(
    provider: YahooProvider, yahoo: FakeYahoo, instrument: Instrument
) -> None:
    with pytest.raises(SymbolNotFound):
        provider.history(instrument, 0, 20000)
    assert not yahoo.log


def test_what_the_vendor_says_it_is_comes_with_the_history(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    for said, kind in (
        ("EQUITY", "equity"),
        ("ETF", "etf"),
        ("MUTUALFUND", "fund"),
        ("INDEX", "index"),
        ("CURRENCY", "currency"),
        ("CRYPTOCURRENCY", "crypto"),
        ("FUTURE", None),
    ):
        yahoo.put("AAPL", table(), kind=said, name=" Apple\n Inc. ")
        assert (ask(provider).kind, ask(provider).name) == (kind, "Apple Inc.")
    yahoo.put("AAPL", table(), meta={"shortName": "Apple"})
    assert ask(provider).name == "Apple"


def test_a_volume_of_null_is_unknown_and_one_of_nothing_is_zero(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    """The library itself makes 0 of null."""
    truth = table()
    truth[date(2024, 3, 7)][4], truth[date(2024, 3, 8)][4] = None, 0.0
    yahoo.put("AAPL", truth)
    bars = ask(provider).bars.between(day_number(date(2024, 3, 7)), day_number(date(2024, 3, 11)))
    assert np.isnan(bars.volume[0])
    assert bars.volume[1:].tolist() == [0.0, 1015.0]


@pytest.mark.parametrize("kind", ["MUTUALFUND", "INDEX", "CURRENCY"])
def test_where_there_is_no_volume_zero_is_unknown(provider: YahooProvider, yahoo: FakeYahoo, kind: str) -> None:
    yahoo.put("AAPL", {day: [*row[:4], 0.0] for day, row in table().items()}, kind=kind)
    assert np.isnan(ask(provider).bars.volume).all()
    assert provider.quotes([AAPL]).quotes[0].volume is None


def test_a_fund_has_one_price_a_day(provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock) -> None:
    yahoo.put("AAPL", table(), kind="MUTUALFUND")
    clock.at = utc(2024, 3, 18, 12)
    bars = ask(provider).bars
    assert bars.close[-1] == 120.0
    assert all((column == bars.close).all() for column in (bars.open, bars.high, bars.low))


@pytest.mark.parametrize(
    ("at", "last"),
    [
        (
            utc(2024, 3, 15, 8, 29),
            date(2024, 3, 13),
        ),  # Thursday's close, 20:00 UTC, half an hour and twelve hours later
        (utc(2024, 3, 15, 8, 30), date(2024, 3, 14)),
        (utc(2024, 3, 15, 23, 0), date(2024, 3, 14)),
        (utc(2024, 3, 16, 8, 29), date(2024, 3, 14)),
        (utc(2024, 3, 16, 8, 30), date(2024, 3, 15)),
        (utc(2024, 3, 17, 12, 0), date(2024, 3, 15)),
    ],
)
def test_the_price_of_a_fund_is_final_twelve_hours_later_than_a_shares(
    provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock, at: float, last: date
) -> None:
    yahoo.put("AAPL", table(), kind="MUTUALFUND")
    clock.at = at
    history = ask(provider, end=date(2024, 3, 18))
    assert history.bars.sessions[-1] == day_number(last)
    assert history.rejected == ()


def pair_table() -> dict[date, list[float | None]]:
    """London's days of June 2024, Sundays among them; 2024-06-09 is a Sunday."""
    return {date(2024, 6, day): [1.0, 1.2, 0.9, 1.1, 0.0] for day in range(3, 15) if day != 8}


@pytest.mark.parametrize(
    ("at", "last"),
    [
        (utc(2024, 6, 12, 23, 45), 11),  # in London Thursday has begun, in UTC Wednesday goes on
        (utc(2024, 6, 13, 0, 29), 11),
        (utc(2024, 6, 13, 0, 30), 12),
        (utc(2024, 6, 10, 12, 0), 7),  # Monday: neither today's nor Sunday's
    ],
)
def test_a_pair_has_weekdays_and_each_when_it_is_over_in_london_and_in_utc(
    provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock, at: float, last: int
) -> None:
    yahoo.put("EURUSD=X", pair_table(), kind="CURRENCY", time_zone="Europe/London", opens=time(0), closes=time(23, 59))
    clock.at = at
    history = provider.history(
        Instrument("EURUSD=X", "FX"), day_number(date(2024, 6, 3)), day_number(date(2024, 6, 20))
    )
    days = [day for day in (3, 4, 5, 6, 7, 10, 11, 12) if day <= last]
    assert history.bars.sessions.tolist() == [day_number(date(2024, 6, day)) for day in days]
    assert np.isnan(history.bars.volume).all()
    assert history.rejected == ()


def test_a_pair_by_its_other_name_is_the_same_pair(provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock) -> None:
    yahoo.put("USDJPY=X", pair_table(), kind="CURRENCY", time_zone="Europe/London", meta={"symbol": "JPY=X"})
    clock.at = utc(2024, 6, 14, 12)
    assert provider.quotes([Instrument("USDJPY=X", "FX")]).quotes[0].price == pytest.approx(1.1)


def test_a_coins_last_day_may_be_missing_for_a_while(
    provider: YahooProvider, yahoo: FakeYahoo, clock: SetClock
) -> None:
    coin = Instrument("BTC-USD", "CRYPTO")
    days = {date(2024, 3, day): (1.0, 3.0, 0.5, 2.0, 9.0) for day in (14, 15, 17)}
    yahoo.put("BTC-USD", days, time_zone="UTC", opens=time(0), closes=time(23, 59), kind="CRYPTOCURRENCY")
    clock.at = utc(2024, 3, 17, 1)
    history = provider.history(coin, day_number(date(2024, 3, 1)), day_number(date(2024, 3, 17)))
    assert history.bars.sessions.tolist() == [day_number(date(2024, 3, day)) for day in (14, 15)]


def test_an_answer_of_another_symbol_is_refused_and_tells_which(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    yahoo.put("FB", table(), meta={"symbol": "META"})
    renamed = Instrument("FB")
    with pytest.raises(ProviderAnswerBad) as caught:
        provider.history(renamed, 19000, 20000)
    assert (caught.value.code, caught.value.facts) == ("another_symbol", {"answered_as": "META"})
    answer = provider.quotes([AAPL, renamed])
    assert answer.failures[renamed].facts == {"answered_as": "META"}


def test_a_search_finds_instruments_of_our_markets_in_our_spelling(provider: YahooProvider, yahoo: FakeYahoo) -> None:
    for symbol, kind, exchange in (
        ("BRK-B", "EQUITY", "NYQ"),
        ("SAP.DE", "EQUITY", "GER"),
        ("0700.HK", "EQUITY", "HKG"),
        ("VFIAX", "MUTUALFUND", "NAS"),
        ("^GSPC", "INDEX", "SNP"),
        ("^FTSE", "INDEX", "FGI"),
        ("EURUSD=X", "CURRENCY", "CCY"),
        ("JPY=X", "CURRENCY", "CCY"),
        ("BTC-USD", "CRYPTOCURRENCY", "CCC"),
        ("SAP.XX", "EQUITY", "XXX"),
        ("ES=F", "FUTURE", "CME"),
    ):
        yahoo.put(symbol, {}, kind=kind, exchange=exchange, name="Anything")
    found = provider.search("anything", 20)
    assert [(str(one.instrument), one.kind, one.currency) for one in found] == [
        ("BRK.B:US", "equity", None),
        ("SAP:DE", "equity", None),
        ("0700:HK", "equity", None),
        ("VFIAX:US", "fund", None),
        ("^GSPC:US", "index", None),
        ("^FTSE:L", "index", None),
        ("EURUSD=X:FX", "currency", "USD"),
        ("USDJPY=X:FX", "currency", "JPY"),
        ("BTC-USD:CRYPTO", "crypto", "USD"),
    ]
    assert {(one.name, one.source) for one in found} == {("Anything", "yfinance")}
    assert len(provider.search("anything", 2)) == 2
    assert provider.search("nothing", 5) == []


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("not_found", ProviderUnavailable),
        ("rate_limited", RateLimited),
        ("server_error", ProviderUnavailable),
        ("unauthorized", ProviderUnavailable),
        ("html", ProviderUnavailable),
        ("slow", ProviderUnavailable),
        ("garbage", ProviderAnswerBad),
    ],
)
def test_a_search_that_fails_heals_on_the_next_call(
    provider: YahooProvider, yahoo: FakeYahoo, mode: str, error: type[ProviderError]
) -> None:
    yahoo.fail(mode, "search", times=None, seconds=2.0)
    with pytest.raises(error):
        provider.search("aapl", 5)
    yahoo.heal()
    assert [one.instrument for one in provider.search("aapl", 5)] == [AAPL]
