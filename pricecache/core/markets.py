"""The markets: what is known of each, and what each is called elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pricecache.errors import Invalid


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

    @property
    def has_sessions(self) -> bool:
        """Whether a day is one on which something closed because of it; rates and what comes by hand close nothing."""
        return self.code not in ("FX", "CUSTOM")

    @property
    def major_currency(self) -> str:
        """What `currency` is a hundredth of, or `currency` itself: what an index of this market is in."""
        return _MAJOR.get(self.currency, self.currency)


_MAJOR = {"GBp": "GBP", "ZAc": "ZAR", "ILA": "ILS"}

MARKETS: dict[str, Market] = {
    market.code: market
    for market in (
        Market("US", "United States", "XNYS", "America/New_York", "USD"),
        Market("L", "London", "XLON", "Europe/London", "GBp", ".L"),
        Market("DE", "Xetra", "XETR", "Europe/Berlin", "EUR", ".DE"),
        Market("PA", "Paris", "XPAR", "Europe/Paris", "EUR", ".PA"),
        Market("AS", "Amsterdam", "XAMS", "Europe/Amsterdam", "EUR", ".AS"),
        Market("BR", "Brussels", "XBRU", "Europe/Brussels", "EUR", ".BR"),
        Market("LS", "Lisbon", "XLIS", "Europe/Lisbon", "EUR", ".LS"),
        Market("IR", "Dublin", "XDUB", "Europe/Dublin", "EUR", ".IR"),
        Market("MI", "Milan", "XMIL", "Europe/Rome", "EUR", ".MI"),
        Market("MC", "Madrid", "XMAD", "Europe/Madrid", "EUR", ".MC"),
        Market("SW", "Zurich", "XSWX", "Europe/Zurich", "CHF", ".SW"),
        Market("VI", "Vienna", "XWBO", "Europe/Vienna", "EUR", ".VI"),
        Market("ST", "Stockholm", "XSTO", "Europe/Stockholm", "SEK", ".ST"),
        Market("CO", "Copenhagen", "XCSE", "Europe/Copenhagen", "DKK", ".CO"),
        Market("HE", "Helsinki", "XHEL", "Europe/Helsinki", "EUR", ".HE"),
        Market("OL", "Oslo", "XOSL", "Europe/Oslo", "NOK", ".OL"),
        Market("WA", "Warsaw", "XWAR", "Europe/Warsaw", "PLN", ".WA"),
        Market("PR", "Prague", "XPRA", "Europe/Prague", "CZK", ".PR"),
        Market("BD", "Budapest", "XBUD", "Europe/Budapest", "HUF", ".BD"),
        Market("IS", "Istanbul", "XIST", "Europe/Istanbul", "TRY", ".IS"),
        Market("TO", "Toronto", "XTSE", "America/Toronto", "CAD", ".TO"),
        Market("SA", "Sao Paulo", "BVMF", "America/Sao_Paulo", "BRL", ".SA"),
        Market("MX", "Mexico", "XMEX", "America/Mexico_City", "MXN", ".MX"),
        Market("HK", "Hong Kong", "XHKG", "Asia/Hong_Kong", "HKD", ".HK"),
        Market("SS", "Shanghai", "XSHG", "Asia/Shanghai", "CNY", ".SS"),
        Market("SZ", "Shenzhen", "XSHG", "Asia/Shanghai", "CNY", ".SZ"),
        Market("T", "Tokyo", "XTKS", "Asia/Tokyo", "JPY", ".T"),
        Market("KS", "Korea", "XKRX", "Asia/Seoul", "KRW", ".KS"),
        Market("KQ", "Korea, KOSDAQ", "XKRX", "Asia/Seoul", "KRW", ".KQ"),
        Market("TW", "Taiwan", "XTAI", "Asia/Taipei", "TWD", ".TW"),
        Market("SI", "Singapore", "XSES", "Asia/Singapore", "SGD", ".SI"),
        Market("NS", "India, National Stock Exchange", "XBOM", "Asia/Kolkata", "INR", ".NS"),
        Market("BO", "India, Bombay Stock Exchange", "XBOM", "Asia/Kolkata", "INR", ".BO"),
        Market("BK", "Bangkok", "XBKK", "Asia/Bangkok", "THB", ".BK"),
        Market("JK", "Jakarta", "XIDX", "Asia/Jakarta", "IDR", ".JK"),
        Market("KL", "Kuala Lumpur", "XKLS", "Asia/Kuala_Lumpur", "MYR", ".KL"),
        Market("AX", "Sydney", "XASX", "Australia/Sydney", "AUD", ".AX"),
        Market("NZ", "New Zealand", "XNZE", "Pacific/Auckland", "NZD", ".NZ"),
        Market("TA", "Tel Aviv", "XTAE", "Asia/Jerusalem", "ILA", ".TA"),
        Market("JO", "Johannesburg", "XJSE", "Africa/Johannesburg", "ZAc", ".JO"),
        Market("CRYPTO", "Crypto-currencies", "24/7", "UTC", "USD"),
        Market("FX", "Currency pairs", "24/5", "UTC", "USD"),
        Market("CUSTOM", "Instruments of one's own", "24/7", "UTC", "USD"),
    )
}

SUFFIXES: Mapping[str, str] = {m.yahoo_suffix.removeprefix("."): m.code for m in MARKETS.values() if m.yahoo_suffix}
"""The market that each suffix of Yahoo's stands for."""

EXCHANGES: Mapping[str, str] = {
    exchange: market
    for market, exchanges in {
        "US": "NASDAQ NYSE NYSEARCA NYSEAMERICAN AMEX BATS ARCA XNAS XNYS ARCX",
        "L": "LON LSE XLON",
        "DE": "ETR XETRA XETR",
        "PA": "EPA XPAR",
        "AS": "AMS XAMS",
        "BR": "EBR XBRU",
        "LS": "ELI XLIS",
        "IR": "XDUB",
        "MI": "BIT XMIL",
        "MC": "BME XMAD",
        "SW": "SWX VTX XSWX",
        "VI": "VIE XWBO",
        "ST": "STO XSTO",
        "CO": "CPH XCSE",
        "HE": "HEL XHEL",
        "OL": "OSL XOSL",
        "WA": "WSE XWAR",
        "IS": "IST BIST XIST",
        "TO": "TSX XTSE",
        "SA": "BVMF",
        "MX": "BMV XMEX",
        "HK": "HKG HKEX SEHK XHKG",
        "SS": "SHA SSE XSHG",
        "SZ": "SHE SZSE XSHE",
        "T": "TYO XTKS",
        "KS": "KRX XKRX",
        "KQ": "KOSDAQ",
        "TW": "TPE TWSE XTAI",
        "SI": "SGX XSES",
        "NS": "NSE XNSE",
        "BO": "BOM XBOM",
        "AX": "ASX XASX",
        "NZ": "NZE NZX XNZE",
        "TA": "TLV TASE XTAE",
        "JO": "JSE XJSE",
        "FX": "FX",
        "CRYPTO": "CRYPTO",
    }.items()
    for exchange in exchanges.split()
}
"""The market of each name of an exchange that people put in front of a symbol. `TSE` is Toronto to some and Tokyo to
others, `BSE` Bombay or Bulgaria: such are left out."""

ONLY_EXCHANGES = frozenset({"NASDAQ", "NYSE", "NYSEARCA", "NYSEAMERICAN", "AMEX", "EPA", "TSX"})
"""Names that are never symbols, so that `NYSE:T` and `EPA:MC`, which end in codes of markets, are AT&T and LVMH."""

INDICES: Mapping[str, tuple[str, str]] = {
    symbol: (market, currency)
    for market, currency, symbols in (
        ("US", "USD", "^GSPC ^DJI ^IXIC ^NDX ^RUT ^VIX ^NYA ^XAX ^OEX ^MID ^SP600 ^SOX ^DJT ^DJU ^W5000 ^RUI ^RUA"),
        ("US", "USD", "^IRX ^FVX ^TNX ^TYX ^VXN ^SPX ^SP500TR"),
        ("L", "GBP", "^FTSE ^FTMC ^FTAS"),
        ("DE", "EUR", "^GDAXI ^MDAXI ^SDAXI ^TECDAX ^STOXX50E ^STOXX"),
        ("PA", "EUR", "^FCHI ^SBF120 ^N100"),
        ("AS", "EUR", "^AEX ^AMX"),
        ("BR", "EUR", "^BFX"),
        ("MC", "EUR", "^IBEX"),
        ("SW", "CHF", "^SSMI"),
        ("VI", "EUR", "^ATX"),
        ("ST", "SEK", "^OMX ^OMXSPI"),
        ("HE", "EUR", "^OMXH25 ^OMXHPI"),
        ("CO", "DKK", "^OMXC25 ^OMXC20"),
        ("TO", "CAD", "^GSPTSE"),
        ("SA", "BRL", "^BVSP"),
        ("MX", "MXN", "^MXX"),
        ("HK", "HKD", "^HSI ^HSCE"),
        ("T", "JPY", "^N225"),
        ("KS", "KRW", "^KS11 ^KS200"),
        ("KQ", "KRW", "^KQ11"),
        ("TW", "TWD", "^TWII"),
        ("SI", "SGD", "^STI"),
        ("NS", "INR", "^NSEI ^NSEBANK"),
        ("BO", "INR", "^BSESN"),
        ("JK", "IDR", "^JKSE"),
        ("KL", "MYR", "^KLSE"),
        ("AX", "AUD", "^AXJO ^AORD"),
        ("NZ", "NZD", "^NZ50"),
        ("JO", "ZAR", "^J203"),
    )
    for symbol in symbols.split()
}  # fmt: skip
"""Market and currency of indices that are asked for by their name alone; any other one is the US market's."""

CURRENCIES = frozenset(
    {
        "AED", "ARS", "AUD", "BDT", "BGN", "BHD", "BRL", "CAD", "CHF", "CLP", "CNH", "CNY", "COP", "CZK", "DKK", "EGP",
        "EUR", "GBP", "HKD", "HUF", "IDR", "ILS", "INR", "ISK", "JPY", "KES", "KRW", "KWD", "KZT", "LKR", "MAD", "MXN",
        "MYR", "NGN", "NOK", "NZD", "OMR", "PEN", "PHP", "PKR", "PLN", "QAR", "RON", "RUB", "SAR", "SEK", "SGD", "THB",
        "TRY", "TWD", "UAH", "USD", "UYU", "VND", "ZAR",
    }
)  # fmt: skip
"""Currencies (ISO 4217) that pairs are made of."""

COIN_CURRENCIES = CURRENCIES | {"BTC", "ETH", "USDT", "USDC"}
"""What coins are quoted in."""


def canonical_market(text: str) -> str:
    """One of `MARKETS`, else `Invalid` with code `unknown_market`."""
    market = text.strip().upper() if len(text) <= 16 else ""
    if market not in MARKETS:
        raise Invalid(f"Markets are {', '.join(MARKETS)}.", code="unknown_market")
    return market
