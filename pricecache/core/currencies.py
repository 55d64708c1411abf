"""Currencies as money: hundredths that prices are quoted in, and the digits amounts are rounded to."""

from __future__ import annotations

from decimal import Decimal

HUNDREDTHS = {"GBp": "GBP", "GBX": "GBP", "ZAc": "ZAR", "ZAC": "ZAR", "ILA": "ILS"}
"""Units of prices and the currency each is a hundredth of."""

_CODES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHF CLF CLP CNH CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ "
    "GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR "
    "LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK "
    "PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT "
    "TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XAG XAU XCD XCG XDR XOF XPD XPF XPT YER "
    "ZAR ZMW ZWG"
)
ISO = frozenset(_CODES.split())
"""Codes of ISO 4217, and CNH, which is traded beside them."""
COINS = frozenset(("BTC", "ETH", "USDT", "USDC"))
"""Coins that others are priced in."""

_ONE = Decimal(1)
_HUNDREDTH = Decimal("0.01")
_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND"), 0),
    **dict.fromkeys(("XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("BTC", "ETH"), 8),
}  # fmt: skip
"""Digits after the point where they are not two (ISO 4217; coins as their networks count)."""


def major(currency: str) -> str:
    """The currency that `currency` is a hundredth of, or itself."""
    return HUNDREDTHS.get(currency, currency)


def is_known(currency: str) -> bool:
    """Whether prices can be in it: a currency, a hundredth of one, or a coin that others are priced in."""
    return currency in ISO or currency in HUNDREDTHS or currency in COINS


def unit(currency: str) -> Decimal:
    """What one of `currency` is in its `major` one: 1 or 0.01."""
    return _HUNDREDTH if currency in HUNDREDTHS else _ONE


def digits(currency: str) -> int:
    """How many digits after the point an amount of `currency` has."""
    return _DIGITS.get(currency, 2)
