"""What can be priced: a symbol on a market."""

from __future__ import annotations

from sys import intern
from typing import Literal, NamedTuple

from pricecache.core.markets import INDICES, MARKETS, Market
from pricecache.core.notations import read, read_in

InstrumentKind = Literal["equity", "etf", "fund", "index", "currency", "crypto"]
"""What an instrument is. A `fund` is priced once a day, some hours after the close."""


class Instrument(NamedTuple):
    """A symbol on a market, both already canonical: build it with `Instrument.parse` from anything a person typed."""

    symbol: str
    market: str = "US"

    def __str__(self) -> str:
        return f"{self.symbol}:{self.market}"

    @property
    def key(self) -> str:
        """`SYMBOL:MARKET`, one string object for each instrument however often it is asked for.

        Hot dictionaries are keyed by it: CPython looks an interned string up twice as fast as a tuple.
        """
        return intern(f"{self.symbol}:{self.market}")

    @property
    def place(self) -> Market:
        return MARKETS[self.market]

    @property
    def kind(self) -> InstrumentKind | None:
        """What the notation says it is, or None where it leaves that open."""
        if self.market == "FX":
            return "currency"
        if self.market == "CRYPTO":
            return "crypto"
        return "index" if self.symbol.startswith("^") and self.market != "CUSTOM" else None

    @property
    def currency(self) -> str:
        """What its prices are in as long as no provider has said: of a pair or a coin what it is priced in, of an
        index the market's whole unit, else what most quotes of the market are in."""
        if self.market == "FX" and self.symbol.endswith("=X"):
            return self.symbol.removesuffix("=X")[-3:]
        if self.market == "CRYPTO" and "-" in self.symbol:
            return self.symbol.rpartition("-")[2]
        if self.kind == "index":
            return INDICES[self.symbol][1] if self.symbol in INDICES else self.place.major_currency
        return self.place.currency

    @classmethod
    def parse(cls, symbol: str, market: str | None = None) -> Instrument:
        """Any notation: `AAPL`, `SAP:DE`, `SAP.DE`, `BRK-B`, `LON:VOD`, `^FTSE`, `EUR/USD`, `BTC-USD`. `market`: that
        of a symbol which names none, US when None.

        Raises `Invalid` with code `invalid_symbol`, `unknown_market` or `symbol_of_another_market`.
        """
        return cls(*read(symbol, market))

    @classmethod
    def parse_in(cls, symbol: str, market: str | None) -> Instrument:
        """The same, but a market that `symbol` names itself wins over `market`."""
        return cls(*read_in(symbol, market))
