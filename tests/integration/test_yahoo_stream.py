"""Yahoo's price stream: the real client library against a fake server, in every way the vendor goes wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from math import isfinite
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricecache.core.instruments import Instrument
from pricecache.errors import ProviderUnavailable
from pricecache.providers import yahoo_stream
from pricecache.providers.yahoo_stream import YahooStream
from tests.clock import ManualClock
from tests.fakes.yahoo_stream import FakeYahooStream, frame

AAPL, SAP, BTC, FUND = (Instrument.parse(text) for text in ("AAPL", "SAP:DE", "BTC-USD:CRYPTO", "MYFUND:CUSTOM"))


@pytest.fixture
def server() -> Iterator[FakeYahooStream]:
    with FakeYahooStream() as server:
        yield server


@pytest.fixture
async def stream(server: FakeYahooStream) -> AsyncIterator[YahooStream]:
    stream = YahooStream(ManualClock(), server.url)
    yield stream
    await stream.close()


async def when(server: FakeYahooStream, *symbols: str) -> None:
    """Wait until exactly these are subscribed to."""
    await asyncio.to_thread(server.until, lambda: server.subscribed == set(symbols))


async def ended(stream: YahooStream) -> ProviderUnavailable:
    """What the iteration ends with."""
    with pytest.raises(ProviderUnavailable) as raised:
        await asyncio.wait_for(_drained(stream), 5)
    return raised.value


async def _drained(stream: YahooStream) -> None:
    async for _ in stream:
        pass


async def until_heard(stream: YahooStream, messages: int) -> None:
    async with asyncio.timeout(5):
        while stream.messages < messages:
            await asyncio.sleep(0.001)


def test_importing_the_adapter_loads_no_heavy_library() -> None:
    code = (
        "import sys, pricecache.providers.yahoo_stream; print({'yfinance', 'websockets', 'google'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


async def test_what_is_subscribed_to_comes_as_quotes(server: FakeYahooStream, stream: YahooStream) -> None:
    await stream.subscribe([AAPL, SAP, FUND])
    await when(server, "AAPL", "SAP.DE")
    server.push(
        "SAP.DE",
        231.45,
        at=1_700_000_000.25,
        currency="EUR",
        day_volume=1234,
        day_high=232.1,
        day_low=229.9,
        open_price=230.05,
        change=1.45,
    )
    quote = await anext(stream)
    assert (quote.instrument, quote.price, quote.currency, quote.as_of) == (SAP, 231.45, "EUR", 1_700_000_000.25)
    assert (quote.open, quote.day_high, quote.day_low, quote.volume) == (230.05, 232.1, 229.9, 1234.0)
    assert quote.previous_close == pytest.approx(230.0)
    assert (quote.session, quote.source) == (None, "yfinance")


async def test_who_has_waited_longest_comes_first(server: FakeYahooStream, stream: YahooStream) -> None:
    """However often others are told anew."""
    await stream.subscribe([AAPL, SAP, BTC])
    await when(server, "AAPL", "SAP.DE", "BTC-USD")
    for symbol in ("SAP.DE", "AAPL", "BTC-USD", "AAPL", "SAP.DE"):
        server.push(symbol, 100.0, at=1_700_000_000)
    await until_heard(stream, 5)
    assert [(await anext(stream)).instrument for _ in range(3)] == [SAP, AAPL, BTC]


async def test_instruments_that_are_spelled_alike_each_get_the_quote(server: FakeYahooStream) -> None:
    other = Instrument("OTHER")
    stream = YahooStream(ManualClock(), server.url, spelling=lambda one: AAPL if one == other else one)
    await stream.subscribe([AAPL, other])
    await when(server, "AAPL")
    server.push("AAPL", 187.15, at=1_700_000_000)
    assert {(await anext(stream)).instrument for _ in range(2)} == {AAPL, other}
    await stream.unsubscribe([AAPL])
    server.push("AAPL", 188.0, at=1_700_000_001)
    assert (await anext(stream)).instrument == other
    await stream.subscribe([SAP])
    await stream.unsubscribe([other])
    await when(server, "SAP.DE")
    await stream.close()


async def test_what_the_vendor_leaves_out_is_unknown_and_not_zero(server: FakeYahooStream, stream: YahooStream) -> None:
    await stream.subscribe([AAPL])
    await when(server, "AAPL")
    server.push("AAPL", 187.15, at=1_700_000_000, currency="")
    quote = await anext(stream)
    assert (quote.price, quote.currency) == (187.15, "")
    assert {quote.previous_close, quote.open, quote.day_high, quote.day_low, quote.volume} == {None}


async def test_only_prices_of_the_regular_session_count_but_for_what_trades_always(
    server: FakeYahooStream, stream: YahooStream
) -> None:
    await stream.subscribe([AAPL, BTC])
    await when(server, "AAPL", "BTC-USD")
    for hours in (0, 2, 3):
        server.push("AAPL", 190.0, at=1_700_000_000, market_hours=hours)
    server.push("BTC-USD", 60000.0, at=1_700_000_000, market_hours=0)
    assert (await anext(stream)).instrument == BTC
    assert stream.ignored == {"extended_hours": 3}


async def test_garbage_and_strangers_are_counted_and_passed_over(server: FakeYahooStream, stream: YahooStream) -> None:
    await stream.subscribe([AAPL])
    await when(server, "AAPL")
    server.send(["no JSON", "[]", "{}", '{"error": "slow down"}', '{"message": 5}', '{"message": "%%%"}', b"\xff\xfe"])
    server.push_anyway("MSFT", 400.0, at=1_700_000_000)
    server.push("AAPL", float("nan"), at=1_700_000_000)
    server.push("AAPL", -1.0, at=1_700_000_000)
    server.push("AAPL", 187.15, at=1_700_000_000)
    assert (await anext(stream)).price == 187.15
    assert stream.messages == 11
    assert stream.ignored["no_price"] == 2
    assert stream.ignored["unknown_symbol"] + stream.ignored["unreadable"] == 8


async def test_the_latest_price_of_an_instrument_replaces_one_not_taken_yet(
    server: FakeYahooStream, stream: YahooStream
) -> None:
    await stream.subscribe([AAPL, BTC])
    await when(server, "AAPL", "BTC-USD")
    server.send([frame("AAPL", 100.0 + i, at=1_700_000_000 + i) for i in range(20)])
    server.push("AAPL", 1.0, at=1_600_000_000)
    server.push("BTC-USD", 60000.0, at=1_700_000_000)
    while stream.messages < 22:
        await asyncio.sleep(0.001)
    taken = [await anext(stream), await anext(stream)]
    assert {quote.instrument: quote.price for quote in taken} == {AAPL: 119.0, BTC: 60000.0}


async def test_unsubscribing_is_told_to_the_vendor_and_ends_the_quotes(
    server: FakeYahooStream, stream: YahooStream
) -> None:
    await stream.subscribe([AAPL, BTC])
    await when(server, "AAPL", "BTC-USD")
    await stream.unsubscribe([AAPL])
    await when(server, "BTC-USD")
    server.push_anyway("AAPL", 1.0, at=1_700_000_000)
    server.push("BTC-USD", 2.0, at=1_700_000_000)
    assert (await anext(stream)).instrument == BTC


async def test_more_than_a_connection_may_carry_is_spread_over_several(
    server: FakeYahooStream, stream: YahooStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yahoo_stream, "PER_CONNECTION", 3)
    await stream.subscribe([Instrument(f"S{i}") for i in range(4)])
    await stream.subscribe([Instrument(f"S{i}") for i in range(8)])
    await when(server, *(f"S{i}" for i in range(8)))
    assert server.connections == 3
    assert all(len(message["subscribe"]) <= 3 for message in server.heard)
    server.push("S7", 1.0, at=1_700_000_000)
    assert (await anext(stream)).instrument == Instrument("S7")


async def test_an_end_in_good_order_ends_the_iteration(server: FakeYahooStream, stream: YahooStream) -> None:
    """The library's own loop would turn in circles for ever here."""
    await stream.subscribe([AAPL])
    await when(server, "AAPL")
    server.end()
    assert (await ended(stream)).code == "stream_lost"


async def test_a_connection_that_breaks_ends_the_iteration(server: FakeYahooStream, stream: YahooStream) -> None:
    await stream.subscribe([AAPL])
    await when(server, "AAPL")
    server.drop()
    assert (await ended(stream)).code == "stream_lost"
    assert server.handshakes == 1


async def test_one_of_several_connections_that_breaks_ends_the_iteration(
    server: FakeYahooStream, stream: YahooStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yahoo_stream, "PER_CONNECTION", 1)
    await stream.subscribe([AAPL, BTC])
    await when(server, "AAPL", "BTC-USD")
    server.drop("AAPL")
    assert (await ended(stream)).code == "stream_lost"


async def test_a_refused_connection_is_unavailable(server: FakeYahooStream, stream: YahooStream) -> None:
    server.refusing = True
    with pytest.raises(ProviderUnavailable):
        await stream.subscribe([AAPL])


async def test_nobody_listening_is_unavailable() -> None:
    stream = YahooStream(ManualClock(), "ws://127.0.0.1:9")
    with pytest.raises(ProviderUnavailable):
        await stream.subscribe([AAPL])
    await stream.close()


async def test_a_heartbeat_that_dies_ends_the_iteration(server: FakeYahooStream, stream: YahooStream) -> None:
    """The library lets it end without a word, and the vendor falls silent."""
    await stream.subscribe([AAPL])
    await when(server, "AAPL")

    async def fail(*_: object) -> None:
        raise OSError("no route")

    (connection,) = stream._connections
    connection.client._subscription_interval = 0
    connection.client._heartbeat_task.cancel()
    connection.client._heartbeat_task = None
    await stream.subscribe([BTC])
    connection.client._ws.send = fail
    assert (await ended(stream)).code == "stream_lost"


async def test_closing_one_that_is_half_open_takes_about_a_second(server: FakeYahooStream, stream: YahooStream) -> None:
    await stream.subscribe([AAPL])
    await when(server, "AAPL")
    server.freeze()
    async with asyncio.timeout(5):
        await stream.close()
    assert not [task for task in asyncio.all_tasks() if "yahoo" in task.get_name()]


def test_the_fakes_frames_are_the_librarys_messages() -> None:
    """What the real decoder of the library makes of them."""
    from yfinance.live import AsyncWebSocket

    decoded = AsyncWebSocket(verbose=False)._decode_message(json.loads(frame("AAPL", 187.15, at=5.0))["message"])
    assert (decoded["id"], decoded["price"], decoded["time"], decoded["market_hours"]) == ("AAPL", 187.15, "5000", 1)


ANY_FLOAT = st.floats(width=32)
ANY_INTEGER = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=200, deadline=None)
@given(
    price=ANY_FLOAT,
    time=ANY_INTEGER,
    fields=st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("day_high", "day_low", "change", "open_price", "previous_close"), ANY_FLOAT),
            **dict.fromkeys(("day_volume",), ANY_INTEGER),
            "market_hours": st.integers(-(2**31), 2**31 - 1),
            "currency": st.text(max_size=5),
        },
    ),
)
def test_whatever_numbers_a_message_has_a_price_is_finite_and_positive(price: float, time: int, fields: Any) -> None:
    from yfinance.pricing_pb2 import PricingData

    pricing = PricingData(id="BTC-USD", price=price, time=time, **fields)
    stream = deaf()
    stream._hear(json.dumps({"message": b64encode(pricing.SerializeToString()).decode()}).encode())
    for instrument, latest in stream._latest.items():
        quote = yahoo_stream._quote_of(instrument, latest, 0.0, "yfinance")
        numbers = (quote.price, quote.as_of, quote.previous_close, quote.open, quote.day_high, quote.day_low)
        assert all(number is None or number > 0 for number in (*numbers, quote.volume))
        assert isfinite(quote.price)
        assert isfinite(quote.as_of)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(max_size=40).map(lambda text: json.dumps({"message": text}).encode()),
        st.binary(max_size=60).map(lambda raw: json.dumps({"message": b64encode(raw).decode()}).encode()),
    )
)
def test_no_message_whatever_it_is_ends_the_reading(message: bytes) -> None:
    stream = deaf()
    stream._hear(message)
    assert stream.messages == 1
    assert sum(stream.ignored.values()) + len(stream._latest) == 1


def deaf() -> YahooStream:
    """A stream that is not connected, and would understand what it is told."""
    stream = YahooStream(ManualClock())
    stream._library = yahoo_stream._load("ws://127.0.0.1:9")
    stream._instruments["BTC-USD"] = [BTC]
    return stream
