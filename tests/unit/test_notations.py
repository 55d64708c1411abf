"""Every way of writing an instrument that people use comes to one canonical instrument, or to a refusal that helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.instruments import Instrument
from pricecache.core.markets import COIN_CURRENCIES, CURRENCIES, EXCHANGES, INDICES, MARKETS, ONLY_EXCHANGES, SUFFIXES
from pricecache.errors import Invalid


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("AAPL", "AAPL:US"), (" aapl ", "AAPL:US"), ("ＡＡＰＬ", "AAPL:US"), ("GC=F", "GC=F:US"),
        ("BRK.B", "BRK.B:US"), ("BRK-B", "BRK.B:US"), ("BRK/B", "BRK.B:US"), ("brk  b", "BRK.B:US"),
        ("AAPL-IBM", "AAPL-IBM:US"), ("AAPL3-IBM", "AAPL3-IBM:US"), ("BAC.PR.B", "BAC.PR.B:US"),
        ("BT-A.L", "BT.A:L"), ("BT-A:L", "BT.A:L"), ("NOVO-B.CO", "NOVO.B:CO"), ("VOLV B:ST", "VOLV.B:ST"),
        ("700:HK", "0700:HK"), ("0700.HK", "0700:HK"), ("00700:HK", "0700:HK"), ("80700.HK", "80700:HK"),
        ("SAP.DE", "SAP:DE"), ("NESN.SW", "NESN:SW"), ("005930.KS", "005930:KS"), ("PETR4.SA", "PETR4:SA"),
        ("VOD.L", "VOD:L"), ("LEN-L", "LEN.L:US"), ("LEN.L:US", "LEN.L:US"),
        ("7203.T", "7203:T"), ("130A.T", "130A:T"), ("ABC.T", "ABC.T:US"),
        ("SAP:DE", "SAP:DE"), ("ASX:AX", "ASX:AX"), ("SSE:L", "SSE:L"), ("ETR:US", "ETR:US"),
        ("NASDAQ:AAPL", "AAPL:US"), ("NYSE:BRK.B", "BRK.B:US"), ("NYSE:T", "T:US"), ("EPA:MC", "MC:PA"),
        ("LON:VOD", "VOD:L"), ("ETR:SAP", "SAP:DE"), ("HKG:700", "0700:HK"), ("TYO:7203", "7203:T"),
        ("^GSPC", "^GSPC:US"), ("^FTSE", "^FTSE:L"), ("^N225", "^N225:T"), ("^NOBODYS", "^NOBODYS:US"),
        ("EURUSD=X", "EURUSD=X:FX"), ("EUR/USD", "EURUSD=X:FX"), ("EURUSD:FX", "EURUSD=X:FX"),
        ("EUR-USD:FX", "EURUSD=X:FX"), ("JPY=X", "USDJPY=X:FX"), ("FX:GBPUSD", "GBPUSD=X:FX"),
        ("BTC-USD", "BTC-USD:CRYPTO"), ("BTC/USD", "BTC-USD:CRYPTO"), ("BTCUSD:CRYPTO", "BTC-USD:CRYPTO"),
        ("BTC:CRYPTO", "BTC-USD:CRYPTO"), ("ETH-BTC", "ETH-BTC:CRYPTO"), ("AAPLX-USD:CRYPTO", "AAPLX-USD:CRYPTO"),
        ("BRK-B:CUSTOM", "BRK-B:CUSTOM"), ("NYSE:CUSTOM", "NYSE:CUSTOM"), ("US0378331005", "US0378331005:US"),
    ],
)  # fmt: skip
def test_a_notation_is_read_as_the_canonical_instrument(written: str, canonical: str) -> None:
    assert str(Instrument.parse(written)) == canonical


@pytest.mark.parametrize(
    ("written", "market", "canonical"),
    [
        ("AAPL", "us", "AAPL:US"), ("SAP", "DE", "SAP:DE"), ("SAP.DE", "DE", "SAP:DE"), ("SAP:DE", "DE", "SAP:DE"),
        ("5", "HK", "0005:HK"), ("^FTSE", "L", "^FTSE:L"), ("^OTHER", "L", "^OTHER:L"), ("GBPUSD", "FX", "GBPUSD=X:FX"),
        ("VOD.L", "US", "VOD.L:US"), ("VOD.L", "L", "VOD:L"), ("LON:VOD", "L", "VOD:L"),
        ("SOL", "CRYPTO", "SOL-USD:CRYPTO"),
    ],
)  # fmt: skip
def test_a_market_beside_the_symbol_is_that_of_one_which_names_none(written: str, market: str, canonical: str) -> None:
    assert str(Instrument.parse(written, market)) == canonical


@pytest.mark.parametrize(
    ("written", "market", "instead"),
    [
        ("EURUSD=X", "US", "EURUSD=X:FX"), ("EUR/USD", "DE", "EURUSD=X:FX"), ("SAP.DE", "US", "SAP:DE"),
        ("SAP:DE", "US", "SAP:DE"), ("7203.T", "US", "7203:T"), ("BTC-USD", "US", "BTC-USD:CRYPTO"),
        ("^FTSE", "US", "^FTSE:L"), ("VOD.L", "DE", "VOD:L"), ("NASDAQ:AAPL", "L", "AAPL:US"),
    ],
)  # fmt: skip
def test_a_market_that_contradicts_the_notation_is_refused_with_what_to_write(
    written: str, market: str, instead: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        Instrument.parse(written, market)
    assert refusal.value.code == "symbol_of_another_market"
    assert refusal.value.facts["instead"] == instead
    assert instead in refusal.value.detail
    assert str(Instrument.parse_in(written, market)) == instead


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("", "invalid_symbol"), ("A" * 33, "invalid_symbol"), ("A..B", "invalid_symbol"), ("A B C", "invalid_symbol"),
        ("AAPL;ls", "invalid_symbol"), (".INX", "invalid_symbol"), ("EUR/XYZ", "invalid_symbol"),
        ("USDUSD=X", "invalid_symbol"), ("EURUS=X", "invalid_symbol"), ("GC=F:FX", "invalid_symbol"),
        ("NYSE", "invalid_symbol"), (":US", "invalid_symbol"), ("^:US", "invalid_symbol"),
        ("AAPL:MARS", "unknown_market"), ("AAPL:US:US", "unknown_market"), ("AAPL:", "unknown_market"),
        ("SAP.L.DE", "symbol_of_another_market"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_instrument_is_refused(written: str, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        Instrument.parse(written)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("written", "currency", "kind"),
    [
        ("AAPL", "USD", None), ("VOD.L", "GBp", None), ("NPN.JO", "ZAc", None), ("TEVA.TA", "ILA", None),
        ("EURUSD=X", "USD", "currency"), ("JPY=X", "JPY", "currency"), ("BTC-EUR", "EUR", "crypto"),
        ("^FTSE", "GBP", "index"), ("^OTHER:L", "GBP", "index"), ("^GDAXI", "EUR", "index"), ("^X:CUSTOM", "USD", None),
    ],
)  # fmt: skip
def test_the_notation_tells_currency_and_kind(written: str, currency: str, kind: str | None) -> None:
    instrument = Instrument.parse(written)
    assert (instrument.currency, instrument.kind) == (currency, kind)


PIECES = ("BTC", "L", "T", "B", "X", "AAPL", "7203", "700", "=X", "=F", "^", "1")
WORDS = st.sampled_from([*EXCHANGES, *SUFFIXES, *MARKETS, *ONLY_EXCHANGES, *sorted(CURRENCIES)[:12], *INDICES, *PIECES])
TEXTS = st.one_of(
    st.text(" :/.-=^ABLTX0127", max_size=14),
    st.lists(st.one_of(WORDS, st.sampled_from(list(" :/.-=^"))), max_size=6).map("".join),
)


@given(TEXTS, st.none() | st.sampled_from(list(MARKETS)))
def test_reading_what_was_read_gives_the_same(text: str, market: str | None) -> None:
    try:
        instrument = Instrument.parse(text, market)
    except Invalid:
        return
    assert Instrument.parse(str(instrument)) == instrument
    assert Instrument.parse(instrument.symbol, instrument.market) == instrument
    assert instrument.market == market or market is None


def test_every_name_of_the_tables_stands_for_a_market_there_is() -> None:
    assert {*EXCHANGES.values(), *SUFFIXES.values(), *(market for market, _ in INDICES.values())} <= MARKETS.keys()
    assert EXCHANGES.keys() >= ONLY_EXCHANGES
    assert not ONLY_EXCHANGES & MARKETS.keys()
    assert {currency for _, currency in INDICES.values()} <= COIN_CURRENCIES
    assert all(Instrument.parse(index) == Instrument(index, market) for index, (market, _) in INDICES.items())
