"""The many ways in which people write an instrument, read as the one way in which it is kept.

What a text names by itself comes first: a market behind a colon, an exchange in front of one, a pair of currencies, a
coin, an index, a suffix of Yahoo's. A market given beside the text must not contradict that. For every canonical
`SYMBOL:MARKET` reading it again gives the same.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NoReturn

from pricecache.core.markets import (
    COIN_CURRENCIES,
    CURRENCIES,
    EXCHANGES,
    INDICES,
    MARKETS,
    ONLY_EXCHANGES,
    SUFFIXES,
    canonical_market,
)
from pricecache.errors import Invalid

Named = tuple[str, str]
"""A canonical symbol and its market."""

_SYMBOL = re.compile(r"(?=.{1,32}$)\^?[A-Z0-9][A-Z0-9.\-=^]*")
_PAIR = re.compile(r"([A-Z]{3})([A-Z]{3})=X|([A-Z]{3})=X|([A-Z]{3})/([A-Z]{3})")
_LOOSE_PAIR = re.compile(r"([A-Z]{3})[/\- ]?([A-Z]{3})")
_COIN = re.compile(r"([A-Z0-9]{1,20})[-/]([A-Z]{3,5})")
_JOINED_COIN = re.compile(r"([A-Z0-9]{3,20})([A-Z]{3})")
_LONE_COIN = re.compile(r"[A-Z0-9]{1,20}")
_CLASS = re.compile(r"(.+)[.\-/ ]([A-Z])")
_SUFFIXED = re.compile(r"(.+)\.([A-Z]{1,3})")
_TOKYO = re.compile(r"[0-9][0-9A-Z][0-9][0-9A-Z][0-9]?")
_DEFAULT_MARKET = "US"


@lru_cache(4096)
def read(text: str, market: str | None = None) -> Named:
    """The instrument that `text` names. `market`: that of a text which names none, US when None.

    Raises `Invalid` with code `invalid_symbol`, `unknown_market`, or, when `text` is of another market than `market`,
    `symbol_of_another_market` with what to write `instead`.
    """
    cleaned = clean(text)
    body, named = _split(cleaned)
    given = None if market is None else canonical_market(market)
    if named is None:
        return _read(body, given)
    found = _read(body, named)
    if given is not None and found[1] != given:
        _contradiction(cleaned, given, found)
    return found


def read_in(text: str, market: str | None) -> Named:
    """The same for a text whose own market wins: `market` is only for one that names none."""
    try:
        return read(text, market)
    except Invalid as exc:
        if exc.code != "symbol_of_another_market":
            raise
        return read(text)


def clean(text: str) -> str:
    """Upper case, without blanks around it, at most 64 characters; anything longer is empty."""
    return " ".join(unicodedata.normalize("NFKC", text).upper().split()) if len(text) <= 64 else ""


def canonical_symbol(text: str) -> str:
    """Upper case ASCII, at most 32 of `A-Z 0-9 . - = ^`, else `Invalid` with code `invalid_symbol`."""
    symbol = clean(text)
    if not _SYMBOL.fullmatch(symbol) or ".." in symbol:
        raise Invalid(
            "A symbol is 1 to 32 of A-Z 0-9 . - = ^, such as AAPL, BRK.B, ^GSPC or EURUSD=X.", code="invalid_symbol"
        )
    return symbol


def _split(text: str) -> tuple[str, str | None]:
    """What stands beside a colon: `SAP:DE` as it always was, else `ETR:SAP`."""
    before, colon, after = text.partition(":")
    if not colon:
        return text, None
    before, after = before.strip(), after.strip()
    if after in MARKETS and (before not in ONLY_EXCHANGES or after == "CUSTOM"):
        return before, after
    if before in EXCHANGES:
        return after, EXCHANGES[before]
    return before, canonical_market(after)


def _read(text: str, given: str | None) -> Named:
    if given == "CUSTOM":
        return canonical_symbol(text), given
    if text in ONLY_EXCHANGES:
        raise Invalid(f"{text} is the name of an exchange; write the symbol behind it.", code="invalid_symbol")
    found = _pair(text, given) or _coin(text, given) or _index(text, given)
    if found is None:
        return _share(text, given)
    if given not in (None, found[1]):
        _contradiction(text, given, found)
    return found


def _pair(text: str, given: str | None) -> Named | None:
    match = _PAIR.fullmatch(text) or (_LOOSE_PAIR.fullmatch(text) if given == "FX" else None)
    if match is None:
        if given == "FX" or text.endswith("=X"):
            raise Invalid("A pair of currencies is written EURUSD=X: dollars for one euro.", code="invalid_symbol")
        return None
    parts = [part for part in match.groups() if part]
    base, quote = parts if len(parts) == 2 else ("USD", parts[0])
    if base == quote:
        raise Invalid(f"{base} against itself is no pair.", code="invalid_symbol")
    if "/" in text and not {base, quote} <= CURRENCIES and given != "FX":
        return None
    return f"{base}{quote}=X", "FX"


def _coin(text: str, given: str | None) -> Named | None:
    match = _COIN.fullmatch(text)
    if match is not None and (given == "CRYPTO" or match[2] in COIN_CURRENCIES):
        return f"{match[1]}-{match[2]}", "CRYPTO"
    if given != "CRYPTO":
        return None
    if (match := _JOINED_COIN.fullmatch(text)) is not None and match[2] in CURRENCIES:
        return f"{match[1]}-{match[2]}", "CRYPTO"
    if _LONE_COIN.fullmatch(text):
        return f"{text}-USD", "CRYPTO"
    raise Invalid("A coin is written BTC-USD, with the currency it is priced in.", code="invalid_symbol")


def _index(text: str, given: str | None) -> Named | None:
    if not text.startswith("^"):
        return None
    market, _ = INDICES.get(text, (given or _DEFAULT_MARKET, ""))
    return canonical_symbol(text), market


def _share(text: str, given: str | None) -> Named:
    symbol, is_dotted = _with_class(text)
    symbol = canonical_symbol(symbol)
    market = _market_of(symbol, is_dotted, given)
    if market is not None:
        found = _share(symbol.rpartition(".")[0], market)
        if given not in (None, market):
            _contradiction(text, given, found)
        return found
    if given == "HK" and symbol.isdigit():
        symbol = symbol.lstrip("0").zfill(4)
    return symbol, given or _DEFAULT_MARKET


def _with_class(text: str) -> tuple[str, bool]:
    """A class of shares behind a point, and whether that is how it was written."""
    match = _CLASS.fullmatch(text)
    return (text, True) if match is None else (f"{match[1]}.{match[2]}", text[-2] == ".")


def _market_of(symbol: str, is_dotted: bool, given: str | None) -> str | None:
    """The market that the suffix of `symbol` names. One letter may be a class of shares instead: `T` is Tokyo behind
    a Tokyo code only; `L` is London, unless the market US is given or another sign than a point stands before it."""
    match = _SUFFIXED.fullmatch(symbol)
    market = SUFFIXES.get(match[2]) if match else None
    if match is None or market is None or market == given:
        return market
    if market == "T":
        return market if _TOKYO.fullmatch(match[1]) else None
    if market == "L":
        return market if given not in (None, "US") or (given is None and is_dotted) else None
    return market


def _contradiction(text: str, given: str | None, found: Named) -> NoReturn:
    instead = ":".join(found)
    raise Invalid(
        f"{text} is not of the market {given}: write {instead}, or leave the market away.",
        code="symbol_of_another_market",
        instead=instead,
    )
