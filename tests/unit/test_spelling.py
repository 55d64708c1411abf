"""Notations: how each provider spells an instrument, and what a provider's spelling means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.instruments import Instrument
from pricecache.core.markets import MARKETS
from pricecache.errors import SymbolNotFound
from pricecache.providers.spelling import (
    csv_names,
    fmp_symbol,
    from_csv,
    from_fmp,
    from_yahoo,
    is_same_pair,
    kind_of,
    yahoo_symbol,
)

TABLE = [
    # canonical, Yahoo, Financial Modeling Prep, first file name
    ("AAPL:US", "AAPL", "AAPL", "AAPL.csv"),
    ("BRK.B:US", "BRK-B", "BRK-B", "BRK.B.csv"),
    ("SAP:DE", "SAP.DE", "SAP.DE", "SAP_DE.csv"),
    ("BT.A:L", "BT-A.L", "BT-A.L", "BT.A_L.csv"),
    ("0700:HK", "0700.HK", "0700.HK", "0700_HK.csv"),
    ("80700:HK", "80700.HK", "80700.HK", "80700_HK.csv"),
    ("7203:T", "7203.T", "7203.T", "7203_T.csv"),
    ("^GSPC:US", "^GSPC", "^GSPC", "^GSPC.csv"),
    ("^FTSE:L", "^FTSE", "^FTSE", "^FTSE_L.csv"),
    ("EURUSD=X:FX", "EURUSD=X", "EURUSD", "EURUSD=X_FX.csv"),
    ("USDJPY=X:FX", "USDJPY=X", "USDJPY", "USDJPY=X_FX.csv"),
    ("BTC-USD:CRYPTO", "BTC-USD", "BTCUSD", "BTC-USD_CRYPTO.csv"),
]


@pytest.mark.parametrize(("canonical", "yahoo", "fmp", "file"), TABLE)
def test_an_instrument_is_spelled_as_each_provider_does(canonical: str, yahoo: str, fmp: str, file: str) -> None:
    instrument = Instrument.parse(canonical)
    assert str(instrument) == canonical
    assert (yahoo_symbol(instrument), fmp_symbol(instrument), csv_names(instrument)[0]) == (yahoo, fmp, file)


@pytest.mark.parametrize(
    ("typed", "yahoo"),
    [
        *((spelled, "BRK-B") for spelled in ("BRK.B", "BRK-B", "brk-b:us")),
        *((spelled, "0700.HK") for spelled in ("0700.HK", "700:HK", "00700:HK")),
        *((spelled, "^GSPC") for spelled in ("^GSPC", "^gspc")),
        *((spelled, "EURUSD=X") for spelled in ("EURUSD=X", "EUR/USD", "EURUSD:FX")),
        *((spelled, "BTC-USD") for spelled in ("BTC-USD", "btc-usd:crypto")),
    ],
)
def test_any_notation_is_asked_for_in_one_spelling(typed: str, yahoo: str) -> None:
    assert yahoo_symbol(Instrument.parse(typed)) == yahoo


@pytest.mark.parametrize("spelled", [yahoo_symbol, fmp_symbol])
@pytest.mark.parametrize("instrument", [Instrument("FUND", "CUSTOM"), Instrument("US0378331005")])
def test_what_a_vendor_cannot_have_is_not_found(spelled: object, instrument: Instrument) -> None:
    with pytest.raises(SymbolNotFound):
        spelled(instrument)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("symbol", "names"),
    [
        ("BRK.B:US", ("BRK.B.csv", "BRK-B.csv")),
        ("0700:HK", ("0700_HK.csv", "700_HK.csv")),
        ("BT.A:L", ("BT.A_L.csv", "BT-A_L.csv")),
        ("AAPL:US", ("AAPL.csv",)),
    ],
)
def test_a_file_may_be_spelled_in_several_ways(symbol: str, names: tuple[str, ...]) -> None:
    assert csv_names(Instrument.parse(symbol)) == names
    assert {str(from_csv(name)) for name in names} == {symbol}


KINDS = {"^": "INDEX", "=X": "CURRENCY", "USD": "CRYPTOCURRENCY"}


def quote_type(symbol: str) -> str:
    return next((kind for mark, kind in KINDS.items() if symbol.startswith(mark) or symbol.endswith(mark)), "EQUITY")


@pytest.mark.parametrize(("canonical", "yahoo", "fmp", "file"), TABLE)
def test_what_is_spelled_is_understood_again(canonical: str, yahoo: str, fmp: str, file: str) -> None:
    instrument = Instrument.parse(canonical)
    exchange = {"FX": "FOREX", "CRYPTO": "CRYPTO"}.get(instrument.market, "INDEX" if yahoo[0] == "^" else "X")
    assert from_yahoo(yahoo, quote_type(yahoo), "SNP") == instrument
    assert from_fmp(fmp, exchange, instrument.currency) == instrument
    assert from_csv(file) == instrument


@pytest.mark.parametrize(
    ("symbol", "kind", "exchange"),
    [
        ("ES=F", "FUTURE", "CME"),
        ("SAP.XX", "EQUITY", "XXX"),
        ("^SOMETHING", "INDEX", "XXX"),
        ("", "EQUITY", "NMS"),
        ("A B", "EQUITY", "NMS"),
        ("AAPL240621C00100000", "OPTION", "OPR"),
    ],
)
def test_what_is_on_no_market_of_ours_is_left_out(symbol: str, kind: str, exchange: str) -> None:
    assert from_yahoo(symbol, kind, exchange) is None


@pytest.mark.parametrize(
    ("symbol", "exchange", "currency"),
    [
        ("GCUSD", "COMMODITY", "USD"),
        ("SAP.XX", "XXX", "EUR"),
        ("BTCUSD", "CRYPTO", None),
        ("EUR", "FOREX", "EUR"),
        ("^SOMETHING", "INDEX", "EUR"),
    ],
)
def test_of_fmp_too(symbol: str, exchange: str, currency: str | None) -> None:
    assert from_fmp(symbol, exchange, currency) is None


@given(st.text(max_size=40), st.sampled_from(["EQUITY", "INDEX", "CURRENCY", "CRYPTOCURRENCY", "?"]))
def test_whatever_a_vendor_says_is_an_instrument_that_can_be_asked_for_or_none(symbol: str, kind: str) -> None:
    found = from_yahoo(symbol, kind, "SNP")
    if found is not None:
        assert found.market in MARKETS
        assert Instrument.parse(str(found)) == found
        assert yahoo_symbol(found) == symbol.upper() or is_same_pair(yahoo_symbol(found), symbol)
    assert from_csv(symbol) is None or symbol.endswith(".csv")


def test_two_names_of_a_pair() -> None:
    assert is_same_pair("JPY=X", "USDJPY=X")
    assert not is_same_pair("JPY=X", "EURJPY=X")
    assert not is_same_pair("AAPL", "AAPL")


def test_kinds_in_our_words() -> None:
    assert kind_of("MUTUALFUND") == "fund"
    assert kind_of(None) is None
