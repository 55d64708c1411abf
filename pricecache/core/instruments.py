"""What can be priced: a symbol on a market, and what is known of each market."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from sys import intern
from typing import NamedTuple

from pricecache.errors import Invalid

_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9.\-=^]{0,31}")


@dataclass(frozen=True, slots=True)
class Market:
    """A place where instruments trade.

    `calendar` is an exchange_calendars name, or `24/7`, or `24/5` (weekdays). `currency` is what most quotes there are
    in, as the provider writes it: `GBp`, `ZAc` and `ILA` are hundredths. `yahoo_suffix` is put behind a symbol when
    Yahoo is asked.
    """

    code: str
    name: str
    calendar: str
    time_zone: str
    currency: str
    yahoo_suffix: str = ""

    @property
    def has_provider(self) -> bool:
        """Whether prices are asked for anywhere; those of `CUSTOM` only come by hand."""
        return self.code != "CUSTOM"


MARKETS: dict[str, Market] = {
    market.code: market
    for market in (
        Market("US", "United States", "XNYS", "America/New_York", "USD"),
        Market("L", "London", "XLON", "Europe/London", "GBp", ".L"),
        Market("DE", "Xetra", "XETR", "Europe/Berlin", "EUR", ".DE"),
        Market("PA", "Paris", "XPAR", "Europe/Paris", "EUR", ".PA"),
        Market("AS", "Amsterdam", "XAMS", "Europe/Amsterdam", "EUR", ".AS"),
        Market("MI", "Milan", "XMIL", "Europe/Rome", "EUR", ".MI"),
        Market("MC", "Madrid", "XMAD", "Europe/Madrid", "EUR", ".MC"),
        Market("SW", "Zurich", "XSWX", "Europe/Zurich", "CHF", ".SW"),
        Market("ST", "Stockholm", "XSTO", "Europe/Stockholm", "SEK", ".ST"),
        Market("TO", "Toronto", "XTSE", "America/Toronto", "CAD", ".TO"),
        Market("HK", "Hong Kong", "XHKG", "Asia/Hong_Kong", "HKD", ".HK"),
        Market("T", "Tokyo", "XTKS", "Asia/Tokyo", "JPY", ".T"),
        Market("AX", "Sydney", "XASX", "Australia/Sydney", "AUD", ".AX"),
        Market("TA", "Tel Aviv", "XTAE", "Asia/Jerusalem", "ILA", ".TA"),
        Market("JO", "Johannesburg", "XJSE", "Africa/Johannesburg", "ZAc", ".JO"),
        Market("CRYPTO", "Crypto-currencies", "24/7", "UTC", "USD"),
        Market("FX", "Currency pairs", "24/5", "UTC", "USD"),
        Market("CUSTOM", "Instruments of one's own", "24/7", "UTC", "USD"),
    )
}


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

    @classmethod
    def parse(cls, symbol: str, market: str | None = None) -> Instrument:
        """`symbol` may carry its market behind a colon (`SAP:DE`) unless `market` is given.

        Raises `Invalid` with code `invalid_symbol` or `unknown_market`.
        """
        if market is None:
            symbol, _, market = symbol.partition(":")
        return cls(canonical_symbol(symbol), canonical_market(market or "US"))


def canonical_symbol(text: str) -> str:
    """Upper case ASCII, at most 32 of `A-Z 0-9 . - = ^`, else `Invalid` with code `invalid_symbol`."""
    symbol = unicodedata.normalize("NFKC", text).strip().upper() if len(text) <= 64 else ""
    if not _SYMBOL.fullmatch(symbol) or ".." in symbol:
        raise Invalid(
            "A symbol is 1 to 32 of A-Z 0-9 . - = ^, such as AAPL, BRK-B, ^GSPC or EURUSD=X.", code="invalid_symbol"
        )
    return symbol


def canonical_market(text: str) -> str:
    """One of `MARKETS`, else `Invalid` with code `unknown_market`."""
    market = text.strip().upper() if len(text) <= 16 else ""
    if market not in MARKETS:
        raise Invalid(f"Markets are {', '.join(MARKETS)}.", code="unknown_market")
    return market
