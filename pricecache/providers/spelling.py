"""How each vendor spells a canonical instrument, and which instrument a vendor's spelling means."""

from __future__ import annotations

import re

from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.core.markets import INDICES, MARKETS, SUFFIXES
from pricecache.errors import Invalid, SymbolNotFound

_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")
_PAIR = re.compile(r"([A-Z]{3})?([A-Z]{3})=X")
_CSV_NAME = re.compile(r"(?P<symbol>[A-Z0-9^][A-Z0-9.\-=^]{0,31})(_(?P<market>[A-Z]{1,8}))?\.csv")

_KINDS: dict[str, InstrumentKind] = {
    "EQUITY": "equity",
    "ETF": "etf",
    "MUTUALFUND": "fund",
    "INDEX": "index",
    "CURRENCY": "currency",
    "CRYPTOCURRENCY": "crypto",
}

# Yahoo's codes of the exchanges that its indices are filed under
_INDEX_EXCHANGES = {
    "US": "SNP DJI NIM NYQ NYS NMS NGM WCB CBO ASE PCX CXI",
    "L": "FGI LSE",
    "DE": "GER",
    "PA": "PAR",
    "AS": "AMS",
    "MI": "MIL",
    "MC": "MCE",
    "SW": "EBS",
    "ST": "STO",
    "TO": "TOR",
    "HK": "HKG",
    "T": "OSA",
    "AX": "ASX",
    "TA": "TLV",
    "JO": "JNB",
    "BR": "BRU",
    "LS": "LIS",
    "IR": "ISE",
    "VI": "VIE",
    "CO": "CPH",
    "HE": "HEL",
    "OL": "OSL",
    "WA": "WSE",
    "PR": "PRA",
    "BD": "BUD",
    "IS": "IST",
    "SA": "SAO",
    "MX": "MEX",
    "SS": "SHH",
    "SZ": "SHZ",
    "KS": "KSC",
    "KQ": "KOE",
    "TW": "TAI",
    "SI": "SES",
    "NS": "NSI",
    "BO": "BSE",
    "BK": "SET",
    "JK": "JKT",
    "KL": "KLS",
    "NZ": "NZE",
}
_MARKET_OF_INDEX = {code: market for market, codes in _INDEX_EXCHANGES.items() for code in codes.split()}


def yahoo_symbol(instrument: Instrument) -> str:
    """How Yahoo spells it: BRK.B is `BRK-B`, 700:HK is `0700.HK`, SAP:DE is `SAP.DE`; indices, currencies and coins as
    they are. Raises `SymbolNotFound` for what Yahoo cannot have."""
    _require_listed(instrument, "Yahoo")
    if instrument.symbol.startswith("^") or instrument.market in ("CRYPTO", "FX"):
        return instrument.symbol
    return _suffixed(instrument)


def fmp_symbol(instrument: Instrument) -> str:
    """How Financial Modeling Prep spells it: shares as Yahoo does, `^GSPC`, `EURUSD`, `BTCUSD` (the examples of its
    documents: site.financialmodelingprep.com/developer/docs/stable). Raises `SymbolNotFound` for what it cannot
    have."""
    _require_listed(instrument, "Financial Modeling Prep")
    if instrument.symbol.startswith("^"):
        return instrument.symbol
    if instrument.market == "FX":
        return instrument.symbol.removesuffix("=X")
    return instrument.symbol.replace("-", "") if instrument.market == "CRYPTO" else _suffixed(instrument)


def csv_names(instrument: Instrument) -> tuple[str, ...]:
    """Names a file of it may have, the first there counts: as the symbol is, with `-` for `.` and the other way round,
    and a number of Hong Kong's without its leading zeros."""
    symbol, market = instrument
    spelled = [symbol, symbol.replace(".", "-"), symbol.replace("-", ".")]
    if market == "HK" and symbol.isdigit():
        spelled += [symbol.lstrip("0")]
    names = [name + ("" if market == "US" else f"_{market}") + ".csv" for name in spelled]
    return tuple(name for name in dict.fromkeys(names) if _CSV_NAME.fullmatch(name))


def from_yahoo(symbol: str, quote_type: str, exchange: str) -> Instrument | None:
    """The instrument that Yahoo means by `symbol`; None when it is on no market of ours or cannot be asked for again.

    `quote_type`, `exchange`: Yahoo's words for them, such as `EQUITY` and `NMS`.
    """
    kind = _KINDS.get(quote_type)
    found = None
    if kind == "currency":
        found = _parsed(symbol, "FX")
    elif kind == "crypto":
        found = _parsed(symbol, "CRYPTO")
    elif kind == "index" and symbol.startswith("^"):
        found = _index(symbol, _MARKET_OF_INDEX.get(exchange))
    elif kind is not None:
        found = _listed(symbol)
    return found if found is not None and _same_yahoo(found, symbol) else None


def from_fmp(symbol: str, exchange: str, currency: str | None) -> Instrument | None:
    """The instrument that Financial Modeling Prep means by `symbol`; None when it is on no market of ours.

    `exchange`, `currency`: its own words, such as `NASDAQ`, `CRYPTO`, `FOREX`, `INDEX` and `USD`.
    """
    if exchange == "CRYPTO":
        coin = symbol.removesuffix(currency) if currency else symbol
        found = _parsed(f"{coin}-{currency}", "CRYPTO") if coin and coin != symbol else None
    elif exchange == "FOREX":
        found = _parsed(f"{symbol}=X", "FX") if len(symbol) == 6 else None
    elif exchange == "COMMODITY":
        found = None
    elif symbol.startswith("^"):
        found = _index(symbol, "US" if currency == "USD" else None)
    else:
        found = _listed(symbol)
    return found if found is not None and _fits_fmp(found, symbol) else None


def from_csv(name: str) -> Instrument | None:
    """The instrument that a file of this name is of, or None when it is none of ours."""
    match = _CSV_NAME.fullmatch(name)
    return _parsed(match["symbol"], match["market"] or "US") if match is not None else None


def kind_of(quote_type: str | None) -> InstrumentKind | None:
    """What Yahoo's `instrumentType` or `quoteType` is in our words; None for anything else (futures, options)."""
    return _KINDS.get(quote_type or "")


def is_same_pair(one: str, other: str) -> bool:
    """Whether two of Yahoo's spellings are one pair of currencies: `EUR=X` and `USDEUR=X`."""
    pairs = [_PAIR.fullmatch(symbol.upper()) for symbol in (one, other)]
    return len({(pair[1] or "USD", pair[2]) for pair in pairs if pair}) == 1 and None not in pairs


def _require_listed(instrument: Instrument, vendor: str) -> None:
    if instrument.market == "CUSTOM" or _ISIN.fullmatch(instrument.symbol):
        raise SymbolNotFound(f"{instrument} is not a symbol of {vendor}.")


def _suffixed(instrument: Instrument) -> str:
    symbol = instrument.symbol
    if instrument.market == "HK" and symbol.isdigit():
        symbol = symbol.lstrip("0").zfill(4)
    return symbol.replace(".", "-") + instrument.place.yahoo_suffix


def _listed(symbol: str) -> Instrument | None:
    bare, dot, suffix = symbol.rpartition(".")
    return _parsed(bare, SUFFIXES.get(suffix)) if dot else _parsed(symbol, "US")


def _index(symbol: str, market: str | None) -> Instrument | None:
    return _parsed(symbol, INDICES[symbol][0] if symbol in INDICES else market)


def _parsed(symbol: str, market: str | None) -> Instrument | None:
    if market not in MARKETS:
        return None
    try:
        return Instrument.parse(symbol, market)
    except Invalid:
        return None


def _same_yahoo(found: Instrument, symbol: str) -> bool:
    try:
        spelled = yahoo_symbol(found)
    except SymbolNotFound:
        return False
    return spelled == symbol.upper() or is_same_pair(spelled, symbol)


def _fits_fmp(found: Instrument, symbol: str) -> bool:
    try:
        return fmp_symbol(found) == symbol.upper()
    except SymbolNotFound:
        return False
