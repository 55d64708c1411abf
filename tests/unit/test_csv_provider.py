"""The csv provider: what files say, every row that could not be used, and nothing from outside the folder."""

from __future__ import annotations

import math
import os
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.clock import SystemClock
from pricecache.core.actions import Action
from pricecache.core.bars import day_number
from pricecache.core.instruments import Instrument
from pricecache.core.sessions import CalendarBook
from pricecache.errors import Misconfigured, ProviderAnswerBad, ProviderUnavailable, SymbolNotFound
from pricecache.providers.base import History
from pricecache.providers.csvfiles import CsvProvider
from tests.fakes.calendars import calendar_of, xnys_book
from tests.fakes.yahoo import utc

AAPL = Instrument("AAPL")
HEADER = "date,open,high,low,close,volume\n"
NOW = utc(2024, 1, 8, 12)


class SetClock(SystemClock):
    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def time(self) -> float:
        return self.at


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def provider(tmp_path: Path, clock: SetClock) -> CsvProvider:
    return CsvProvider(tmp_path, clock, xnys_book())


def ask(provider: CsvProvider, instrument: Instrument = AAPL) -> History:
    return provider.history(instrument, day_number(date(2023, 12, 1)), day_number(date(2024, 12, 31)))


def january(day: int) -> int:
    return day_number(date(2024, 1, day))


def test_rows_become_bars_in_order_of_date(provider: CsvProvider, tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text(HEADER + "2024-01-03,3,5,2,4,200\n2024-01-02,1,3,.5,2,100\n")
    history = ask(provider)
    assert history.bars.sessions.tolist() == [january(2), january(3)]
    assert history.bars.values.T.tolist() == [[1, 3, 0.5, 2, 100], [3, 5, 2, 4, 200]]
    assert (history.basis, history.currency, history.rejected, history.notice) == ("as_traded", None, (), None)


def test_the_header_is_read_by_name(provider: CsvProvider, tmp_path: Path) -> None:
    """Any case and order, spaces, a byte-order mark, columns nobody knows; what is missing or empty is unknown."""
    (tmp_path / "AAPL.csv").write_text("\ufeff Close , Comment,DATE,High\n2,x,2024-01-02,\n\n,,,\n4,y,2024-01-03,5\n")
    bars = ask(provider).bars
    assert bars.close.tolist() == [2, 4]
    assert math.isnan(bars.high[0])
    assert bars.high[1] == 5
    assert all(math.isnan(value) for value in [*bars.open, *bars.low, *bars.volume])


def test_every_bad_row_is_reported_with_its_line(provider: CsvProvider, tmp_path: Path) -> None:
    rows = (
        "2024-01-02,1,3,1,2,100",
        "yesterday,1,3,1,2,100",
        "2024-02-30,1,3,1,2,100",
        "2024-01-03,1,3,1,,100",
        "2024-01-04,1,3,1,two,100",
        "2024-01-05,1,3,1,NaN,100",
        "2024-01-05,1,inf,1,2,100",
        "2024-01-05,1,3,0,2,100",
        "2024-01-05,1,3,1,2,-1",
        "2024-01-05,1,3,1,1_0,100",
        "2024-01-05",
    )
    (tmp_path / "AAPL.csv").write_text(HEADER + "\n".join(rows))
    history = ask(provider)
    assert history.bars.sessions.tolist() == [january(2)]
    lines = [(session, reason.split(":")[0]) for session, reason in history.rejected if "stands" not in reason]
    assert lines == [
        (None, "line 3"),
        (None, "line 4"),
        (january(3), "line 5"),
        (january(4), "line 6"),
        *((january(5), f"line {line}") for line in range(7, 13)),
    ]


def test_of_two_rows_for_a_date_the_later_stands_and_the_other_is_reported(
    provider: CsvProvider, tmp_path: Path
) -> None:
    (tmp_path / "AAPL.csv").write_text("date,close,dividend\n2024-01-02,1,0.5\n2024-01-02,2,\n")
    history = ask(provider)
    assert history.bars.close.tolist() == [2]
    assert history.actions == ()
    assert history.rejected == ((january(2), "line 2: line 3 has the same date and stands"),)


def test_dividends_and_splits_become_actions(provider: CsvProvider, tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text(
        "date,close,dividend,split\n2024-01-02,8,0.24,\n2024-01-03,2,0,4\n2024-01-04,4,,1:2\n2024-01-05,,0.1,1\n"
    )
    history = ask(provider)
    assert history.actions == (
        Action(january(2), "dividend", 0.24, None, "csv"),
        Action(january(3), "split", 4.0, None, "csv"),
        Action(january(4), "split", 0.5, None, "csv"),
        Action(january(5), "dividend", 0.1, None, "csv"),
    )
    assert history.rejected == ((january(5), "line 5: no close"),)
    assert provider.history(AAPL, january(3), january(3)).actions == history.actions[1:2]


@pytest.mark.parametrize("split", ["-4", "4:0", "4:", "four", "1:-2", "4:1:1"])
def test_a_split_that_is_no_ratio_is_a_bad_row(provider: CsvProvider, tmp_path: Path, split: str) -> None:
    (tmp_path / "AAPL.csv").write_text(f"date,close,split\n2024-01-02,8,{split}\n")
    history = ask(provider)
    assert (len(history.bars), history.actions, len(history.rejected)) == (0, (), 1)


def test_other_markets_have_their_market_in_the_name(provider: CsvProvider, tmp_path: Path) -> None:
    for name, close in (("SAP_DE.csv", 1), ("BTC-USD_CRYPTO.csv", 2), ("BRK.B.csv", 3)):
        (tmp_path / name).write_text(f"date,close\n2024-01-02,{close}\n")
    book = xnys_book()
    assert CsvProvider(tmp_path, SetClock(), book).history(Instrument("BRK.B"), 0, 99999).bars.close.tolist() == [3]
    coin = Instrument("BTC-USD", "CRYPTO")
    assert provider.history(coin, 0, 99999).bars.close.tolist() == [2]
    with pytest.raises(ProviderUnavailable):  # the sessions of Xetra are not loaded in this book
        ask(provider, Instrument("SAP", "DE"))


def test_no_file_is_no_symbol(provider: CsvProvider) -> None:
    with pytest.raises(SymbolNotFound):
        ask(provider)


@pytest.mark.parametrize("symbol", ["../secret", "..", ".", "a/b", "A\x00B", "", "aapl", "A" * 200, "A_DE"])
def test_nothing_outside_the_folder_can_be_named(tmp_path: Path, symbol: str) -> None:
    """Even by an instrument that was never parsed."""
    folder = tmp_path / "prices"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text("date,close\n2024-01-02,1\n")
    with pytest.raises(SymbolNotFound):
        ask(CsvProvider(folder, SetClock(), xnys_book()), Instrument(symbol, "DE" if symbol == "A_DE" else "US"))


@pytest.mark.parametrize("content", [b"", b"day,price\n2024-01-02,1\n", b"\xff\xfe\x00", b"date,open\n2024-01-02,1\n"])
def test_what_is_no_table_of_prices_is_a_bad_answer(provider: CsvProvider, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "AAPL.csv").write_bytes(content)
    with pytest.raises(ProviderAnswerBad):
        ask(provider)


def test_a_folder_in_the_place_of_a_file_is_unavailable(provider: CsvProvider, tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").mkdir()
    with pytest.raises(ProviderUnavailable):
        ask(provider)


def test_a_missing_folder_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        CsvProvider(tmp_path / "none", SetClock(), CalendarBook())


def test_a_session_that_is_not_over_is_left_alone(provider: CsvProvider, tmp_path: Path, clock: SetClock) -> None:
    (tmp_path / "AAPL.csv").write_text("date,close\n2024-01-05,1\n2024-01-08,2\n")
    for at, closes in ((utc(2024, 1, 8, 20, 59), [1]), (utc(2024, 1, 8, 21), [1, 2])):
        clock.at = at
        assert ask(provider).bars.close.tolist() == closes
        assert provider.quotes([AAPL]).quotes[0].price == closes[-1]


def test_a_range_from_before_the_file_tells_where_it_begins(provider: CsvProvider, tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text("date,close\n2024-01-03,1\n2024-01-04,2\n")
    assert ask(provider).first_available == january(3)
    assert provider.history(AAPL, january(3), january(4)).first_available is None


def test_the_quote_is_the_last_finished_row(provider: CsvProvider, tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text(HEADER.strip() + ",split\n2024-01-04,1,3,1,2,10\n2024-01-05,3,5,2,4,20,2\n")
    missing = Instrument("NONE")
    answer = provider.quotes([AAPL, missing])
    (quote,) = answer.quotes
    assert (quote.price, quote.open, quote.day_high, quote.day_low, quote.volume) == (4, 3, 5, 2, 20)
    assert (quote.session, quote.as_of, quote.received_at) == (january(5), utc(2024, 1, 5, 21), NOW)
    assert (quote.currency, quote.source) == ("USD", "csv")
    assert quote.previous_close == 1  # 2, before the split
    assert isinstance(answer.failures[missing], SymbolNotFound)


def test_unknown_fields_of_a_quote_are_none(provider: CsvProvider, tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text("date,close\n2024-01-05,4\n")
    quote = provider.quotes([AAPL]).quotes[0]
    assert (quote.open, quote.day_high, quote.day_low, quote.volume, quote.previous_close) == (None,) * 5


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(provider: CsvProvider, tmp_path: Path) -> None:
    path = tmp_path / "AAPL.csv"
    path.write_text("date,close\n2024-01-05,4\n")
    first = ask(provider).bars
    stamp = path.stat().st_mtime_ns
    path.write_text("date,close\n2024-01-05,5\n")
    os.utime(path, ns=(stamp, stamp))
    assert ask(provider).bars.close.tolist() == first.close.tolist()
    os.utime(path, ns=(stamp, stamp + 1))
    assert ask(provider).bars.close.tolist() == [5]
    path.unlink()
    with pytest.raises(SymbolNotFound):
        ask(provider)


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("BRK.B.csv", "BRK.B"),
        ("BRK-B.csv", "BRK-B"),
        ("0001_HK.csv", "1:HK"),
        ("1_HK.csv", "0001:HK"),
        ("EURUSD=X_FX.csv", "EURUSD=X"),
        ("^GSPC.csv", "^GSPC"),
        ("BTC-USD_CRYPTO.csv", "BTC-USD"),
    ],
)
def test_an_instrument_has_its_file_however_that_is_spelled(tmp_path: Path, file: str, asked: str) -> None:
    (tmp_path / file).write_text("date,close\n2024-01-02,1\n")
    book = xnys_book()
    book.add(calendar_of("XHKG"))
    assert len(ask(CsvProvider(tmp_path, SetClock(), book), Instrument.parse(asked)).bars) == 1


def test_the_file_spelled_as_the_instrument_counts(provider: CsvProvider, tmp_path: Path) -> None:
    (tmp_path / "BRK-B.csv").write_text("date,close\n2024-01-02,1\n")
    assert ask(provider, Instrument("BRK.B")).bars.close.tolist() == [1]
    (tmp_path / "BRK.B.csv").write_text("date,close\n2024-01-02,2\n")
    assert ask(provider, Instrument("BRK.B")).bars.close.tolist() == [2]
    with pytest.raises(SymbolNotFound, match=r"BRK\.A\.csv or BRK-A\.csv"):
        ask(provider, Instrument("BRK.A"))


def test_a_search_finds_files_by_their_symbols(provider: CsvProvider, tmp_path: Path) -> None:
    for name in (
        "SAP_DE.csv",
        "BRK-B.csv",
        "BRK.B.csv",
        "AAPL.csv",
        "XAAPL.csv",
        "AAPLX_L.csv",
        "notes.txt",
        "X_??.csv",
    ):
        (tmp_path / name).write_text("")
    (tmp_path / "A_NOWHERE.csv").write_text("")
    found = provider.search(" aapl ", 10)
    assert [str(one.instrument) for one in found] == ["AAPL:US", "AAPLX:L", "XAAPL:US"]
    assert {(one.source, one.name, one.kind) for one in found} == {("csv", None, None)}
    assert [str(one.instrument) for one in provider.search("brk", 10)] == ["BRK.B:US"]
    assert len(provider.search("A", 2)) == 2
    assert provider.search("zzz", 2) == []


def test_a_folder_that_is_gone_is_no_empty_folder(provider: CsvProvider, tmp_path: Path) -> None:
    tmp_path.rmdir()
    with pytest.raises(ProviderUnavailable):
        provider.search("aapl", 5)


@given(st.text(max_size=200))
def test_any_text_is_rows_or_rejections(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever stands in a file: finite closes come out, or a bad answer; nothing else is raised."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "AAPL.csv").write_text(
        "date,close,split,dividend\n2024-01-02,1\n" + text, encoding="utf-8", errors="replace"
    )
    try:
        bars = ask(CsvProvider(folder, SetClock(), xnys_book())).bars
    except ProviderAnswerBad:
        return
    assert bars.close.tolist()[:1] == [1] or len(bars) == 0
