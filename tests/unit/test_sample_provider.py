"""The sample provider: real bars under other dates, the same for ever, and a live walk that keeps to its bar."""

from __future__ import annotations

import sys
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.clock import SystemClock
from pricecache.core.actions import adjusted
from pricecache.core.bars import Bars, day_number
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook, SessionCalendar
from pricecache.errors import Misconfigured, ProviderUnavailable, SymbolNotFound
from pricecache.providers.base import History
from pricecache.providers.sample import NOTICE, SYMBOLS, SampleProvider
from tests.fakes.calendars import calendar_of, xnys_book
from tests.fakes.yahoo import utc

AAPL, IBM, MSFT, FB = (Instrument(name) for name in ("AAPL", "IBM", "MSFT", "FB"))
COIN = Instrument("AAPLX-USD", "CRYPTO")
NOW = utc(2026, 11, 20, 12)
WHOLE = day_number(date(1980, 1, 1)), day_number(date(2030, 1, 1))


class SetClock(SystemClock):
    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def time(self) -> float:
        return self.at


BOOK = xnys_book()
CLOCK = SetClock()
PROVIDER = SampleProvider(CLOCK, BOOK)
symbols = st.sampled_from(SYMBOLS)


@pytest.fixture(autouse=True)
def at_noon() -> None:
    CLOCK.at = NOW


def whole(instrument: Instrument) -> History:
    return PROVIDER.history(instrument, *WHOLE)


def same(a: Bars, b: Bars) -> bool:
    return np.array_equal(a.sessions, b.sessions) and a.values.tobytes() == b.values.tobytes()


def days(*dates: date) -> list[int]:
    return [day_number(day) for day in dates]


def test_there_are_twenty_symbols_and_some_trade_at_any_hour() -> None:
    assert len(SYMBOLS) == 20
    assert sum(instrument.market == "CRYPTO" for instrument in SYMBOLS) == 3
    assert all(Instrument.parse(str(instrument)) == instrument for instrument in SYMBOLS)


@pytest.mark.parametrize("instrument", SYMBOLS, ids=str)
def test_every_session_has_a_valid_bar_and_none_other_has(instrument: Instrument) -> None:
    history = whole(instrument)
    bars, calendar = history.bars, BOOK.get(instrument.place.calendar)
    listed = history.first_available
    assert listed is not None
    assert bars.sessions.tolist() == calendar.between(listed, calendar.last_closed(NOW, 60) or 0).tolist()
    assert np.isfinite(bars.values).all()
    assert (bars.low > 0).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.volume > 0).all()
    assert np.array_equal(bars.values[:4], bars.values[:4].round(4))
    assert (history.notice, history.basis, history.currency) == (NOTICE, "as_traded", "USD")


@pytest.mark.parametrize("instrument", SYMBOLS, ids=str)
def test_prices_go_on_across_splits_and_repetitions(instrument: Instrument) -> None:
    """No day moves by more than AAPL did by itself on 2000-09-29, its fall to less than half, in split-adjusted
    terms; an unmarked split or a broken seam would show as more or at another row."""
    history = whole(instrument)
    close = adjusted(history.bars, history.actions, "splits").close
    moves = np.abs(np.diff(np.log(close)))
    assert moves.max() < 0.74
    assert (moves > 0.2).sum() <= 3 * 4  # days on which the source itself moved so much, times the repetitions


def test_a_repetition_opens_where_the_last_one_closed() -> None:
    """The anchor of AAPL is 2018-01-02; 3,270 weekdays before it the source's first row stood, scaled down."""
    bars = whole(AAPL).bars.between(*days(date(2017, 12, 29), date(2018, 1, 2)))
    assert bars.sessions.tolist() == days(date(2017, 12, 29), date(2018, 1, 2))
    assert bars.open[1] == 118.56
    assert bars.close[0] == pytest.approx(430.47 * 118.56 / 430.47, rel=0.05)  # New Year's row lies between


def test_round_the_clock_the_seam_is_exact() -> None:
    bars = PROVIDER.history(COIN, *days(date(2019, 12, 31), date(2020, 1, 1))).bars
    assert bars.close[0] == pytest.approx(bars.open[1], abs=1e-4)


def test_the_present_repetition_has_the_prices_of_the_source() -> None:
    """AAPL on 2000-03-01 to 2000-03-03, as the data package has them, from its anchor on."""
    bars = PROVIDER.history(AAPL, *days(date(2018, 1, 2), date(2018, 1, 4))).bars
    assert bars.values[:, :2].T.tolist() == [
        [118.56, 132.06, 118.5, 130.31, 9616100.0],
        [127.0, 127.94, 120.69, 122.0, 2779100.0],
    ]


def test_the_real_splits_are_there_as_jumps_and_as_actions() -> None:
    for instrument, ex_dates in ((AAPL, (date(2018, 4, 20), date(2022, 10, 24))), (MSFT, (date(2020, 11, 6),))):
        history = PROVIDER.history(instrument, *days(date(2018, 1, 2), date(2026, 1, 1)))
        splits = [action for action in history.actions if action.kind == "split"]
        assert [(action.ex_date, action.value) for action in splits] == [(day, 2.0) for day in days(*ex_dates)]
        for split in splits:
            i = int(history.bars.sessions.searchsorted(split.ex_date))
            assert 1.7 < history.bars.close[i - 1] / history.bars.close[i] < 2.1


def test_dividends_are_the_declared_cents() -> None:
    """IBM paid 0.18 a quarter in 2004 and 0.20 in 2005; Microsoft 3.08 on 2004-11-15."""
    paid = PROVIDER.history(IBM, *days(date(2022, 1, 1), date(2023, 6, 30))).actions
    assert [action.value for action in paid] == [0.18, 0.18, 0.18, 0.18, 0.2, 0.2, 0.2]
    assert all(action.kind == "dividend" and action.currency == "USD" for action in paid)
    assert 3.08 in [action.value for action in whole(MSFT).actions]


@given(symbols, st.floats(utc(2023, 6, 1), utc(2026, 11, 20)), st.floats(utc(2023, 6, 1), utc(2026, 11, 20)))
@settings(deadline=None, max_examples=40)
def test_what_was_told_once_is_told_for_ever(instrument: Instrument, one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    CLOCK.at = earlier
    before = whole(instrument)
    CLOCK.at = later
    after = whole(instrument)
    last = before.bars.sessions[-1] if len(before.bars) else 0
    assert same(before.bars, after.bars.between(None, int(last)))
    assert set(before.actions) <= set(after.actions)


@given(symbols, st.integers(*WHOLE), st.integers(*WHOLE))
@settings(deadline=None, max_examples=60)
def test_a_part_is_the_part_of_the_whole(instrument: Instrument, one: int, other: int) -> None:
    start, end = sorted((one, other))
    part, full = PROVIDER.history(instrument, start, end), whole(instrument)
    assert same(part.bars, full.bars.between(start, end))
    assert part.actions == tuple(action for action in full.actions if start <= action.ex_date <= end)


@given(symbols, st.integers(0, 900), st.integers(0, 200))
@settings(deadline=None, max_examples=40)
def test_the_span_of_the_calendar_moves_nothing(instrument: Instrument, from_front: int, from_back: int) -> None:
    """An array that begins after the anchor and ends early gives the same bars for the sessions it has."""
    name = instrument.place.calendar
    all_of_it = calendar_of(name)
    first = int(all_of_it.sessions.searchsorted(day_number(date(2021, 1, 1)))) + from_front
    cut = slice(first, len(all_of_it.sessions) - 200 - from_back)
    part = SessionCalendar(name, all_of_it.sessions[cut], all_of_it.opens[cut], all_of_it.closes[cut])
    shown = SampleProvider(CLOCK, CalendarBook({name: part})).history(instrument, *WHOLE)
    full = whole(instrument)
    assert same(shown.bars, full.bars.between(int(part.sessions[0]), int(part.sessions[-1])))
    inside = {action for action in full.actions if part.sessions[0] < action.ex_date <= part.sessions[-1]}
    assert inside <= set(shown.actions)


def test_a_closure_that_becomes_known_later_moves_no_other_bar() -> None:
    """Exchanges close for days of mourning on short notice; the bars of all other sessions stay."""
    known = calendar_of("XNYS")
    kept = known.sessions != day_number(date(2025, 6, 17))
    later = SessionCalendar("XNYS", known.sessions[kept], known.opens[kept], known.closes[kept])
    shown = SampleProvider(CLOCK, CalendarBook({"XNYS": later})).history(AAPL, *WHOLE).bars
    full = whole(AAPL).bars
    there = full.sessions != day_number(date(2025, 6, 17))
    assert same(shown, Bars(full.sessions[there], np.ascontiguousarray(full.values[:, there])))


def test_a_session_is_there_a_minute_after_its_close() -> None:
    thursday, friday = days(date(2026, 11, 19), date(2026, 11, 20))
    for at, last in ((utc(2026, 11, 20, 21) + 59, thursday), (utc(2026, 11, 20, 21) + 60, friday)):
        CLOCK.at = at
        assert whole(AAPL).bars.sessions[-1] == last


def test_fb_is_listed_late_and_says_so() -> None:
    listed = day_number(date(2023, 5, 18))
    history = whole(FB)
    assert history.first_available == history.bars.sessions[0] == listed
    assert history.bars.values[:4, 0].tolist() == [42.05, 45.0, 38.0, 38.2318]
    assert PROVIDER.history(FB, listed, listed + 10).first_available is None
    before = PROVIDER.history(FB, listed - 100, listed - 1)
    assert (len(before.bars), before.first_available) == (0, listed)


def test_an_unknown_symbol_is_not_found_with_a_list_of_what_there_is() -> None:
    with pytest.raises(SymbolNotFound, match="AAPL"):
        PROVIDER.history(Instrument("NONE"), *WHOLE)
    answer = PROVIDER.quotes([Instrument("NONE"), AAPL])
    assert [quote.instrument for quote in answer.quotes] == [AAPL]
    assert isinstance(answer.failures[Instrument("NONE")], SymbolNotFound)


def test_while_its_sessions_are_loading_it_is_unavailable() -> None:
    with pytest.raises(ProviderUnavailable):
        SampleProvider(CLOCK, CalendarBook()).history(AAPL, *WHOLE)


def test_without_the_data_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Misconfigured, match="demo"):
        SampleProvider(CLOCK, BOOK)


def test_reading_the_data_loads_no_pandas() -> None:
    import subprocess

    code = (
        "import sys; from pricecache.clock import SystemClock; from pricecache.core.sessions import *;"
        "from pricecache.providers.sample import *; b = CalendarBook({'24/7': every_day('24/7', 18000, 22000)});"
        "SampleProvider(SystemClock(), b).history(SYMBOLS[-1], 18000, 19000);"
        "print({'pandas', 'bokeh_sampledata', 'exchange_calendars'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


# 2026-11-19 is a Thursday, open from 14:30 to 21:00 UTC
OPENS, CLOSES = utc(2026, 11, 19, 14, 30), utc(2026, 11, 19, 21)


def bar_to_be(instrument: Instrument) -> list[float]:
    CLOCK.at, session = NOW, day_number(date(2026, 11, 19))
    values: list[float] = PROVIDER.history(instrument, session, session).bars.values[:, 0].tolist()
    return values


def test_in_session_the_walk_becomes_the_bar() -> None:
    for instrument in (AAPL, IBM, FB, Instrument("GOOG3-MSFT")):
        low, high, volume = 1e9, 0.0, 0.0
        opening, top, bottom, closing, whole_volume = bar_to_be(instrument)
        for at in np.arange(OPENS, CLOSES, 2.0).tolist():
            CLOCK.at = at
            quote = PROVIDER.quotes([instrument]).quotes[0]
            low, high = min(low, quote.price), max(high, quote.price)
            assert (quote.day_low, quote.day_high, quote.open) == (low, high, opening)
            assert quote.volume is not None
            assert quote.volume >= volume
            volume = quote.volume
            assert (quote.as_of, quote.received_at, quote.source) == (at, at, "sample")
        assert (low, high, quote.price, volume) == (bottom, top, closing, whole_volume)
        CLOCK.at = OPENS
        assert PROVIDER.quotes([instrument]).quotes[0].price == opening


def test_just_after_the_close_the_quote_is_the_close() -> None:
    """So that a provisional bar made of it is right; later prices are not the close, and their instant says so."""
    bar = bar_to_be(AAPL)
    for seconds in (0, 30, 59):
        CLOCK.at = CLOSES + seconds
        quote = PROVIDER.quotes([AAPL]).quotes[0]
        assert [quote.open, quote.day_high, quote.day_low, quote.price, quote.volume] == bar
        assert quote.as_of == CLOSES
    CLOCK.at = CLOSES + 3600
    later = PROVIDER.quotes([AAPL]).quotes[0]
    assert later.as_of == CLOSES + 3600
    assert later.price != bar[3]


@given(symbols, st.integers(0, 200_000))
@settings(deadline=None, max_examples=200)
def test_at_any_moment_the_quote_is_near_the_bar(instrument: Instrument, seconds: int) -> None:
    CLOCK.at = utc(2026, 11, 18) + seconds
    quote = PROVIDER.quotes([instrument]).quotes[0]
    again = SampleProvider(SetClock(CLOCK.at), BOOK).quotes([instrument]).quotes[0]
    assert quote == again
    assert quote.day_low is not None
    assert quote.day_high is not None
    assert quote.day_low * 0.998 <= quote.price <= quote.day_high * 1.002
    assert quote.session == BOOK.get(instrument.place.calendar).current(CLOCK.at)


def test_out_of_session_prices_move_by_at_most_a_thousandth() -> None:
    """Saturday noon, one hour: the session stays Friday's."""
    start = utc(2026, 11, 21, 12)
    CLOCK.at = start
    close = whole(AAPL).bars.close[-1]
    prices = set()
    for second in range(0, 3600, 2):
        CLOCK.at = start + second
        quote = PROVIDER.quotes([AAPL]).quotes[0]
        assert abs(quote.price / close - 1) <= 0.00101
        assert (quote.session, quote.as_of) == (day_number(date(2026, 11, 20)), CLOCK.at)
        prices.add(quote.price)
    assert len(prices) > 300


def test_the_previous_close_is_in_the_units_of_the_session() -> None:
    """On AAPL's ex-date, 2022-10-24, yesterday's close counts half."""
    before = PROVIDER.history(AAPL, *days(date(2022, 10, 21), date(2022, 10, 21))).bars.close[0]
    CLOCK.at = utc(2022, 10, 24, 15)
    quote = PROVIDER.quotes([AAPL]).quotes[0]
    assert quote.previous_close == pytest.approx(before / 2, abs=1e-4)
    CLOCK.at = utc(2022, 10, 25, 15)
    day = days(date(2022, 10, 24))[0]
    assert PROVIDER.quotes([AAPL]).quotes[0].previous_close == PROVIDER.history(AAPL, day, day).bars.close[0]


def test_a_search_finds_symbols_and_names() -> None:
    assert PROVIDER.search("aapl", 3)[0].instrument == AAPL
    assert PROVIDER.search("ibm", 20)[0].name == "IBM (sample prices)"
    microsoft = {str(one.instrument): one.name for one in PROVIDER.search("Microsoft", 20)}
    assert microsoft["AAPL-MSFT:US"] == "Apple and Microsoft (sample prices)"
    assert "IBM:US" not in microsoft
    assert [one.kind for one in PROVIDER.search("^sample4", 5)] == ["index"]
    (coin,) = PROVIDER.search("AAPLX-USD", 5)
    assert (coin.instrument, coin.kind, coin.currency, coin.source) == (COIN, "crypto", "USD", "sample")
    assert len(PROVIDER.search("a", 4)) == 4
    assert PROVIDER.search("nothing", 5) == []


def test_a_history_says_what_it_is_of() -> None:
    assert (whole(FB).kind, whole(FB).name) == ("equity", "Facebook (sample prices)")
    assert whole(COIN).kind == "crypto"
