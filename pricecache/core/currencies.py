"""Currencies as money: hundredths that prices are quoted in, and the digits amounts are rounded to."""

from __future__ import annotations

from decimal import Decimal

HUNDREDTHS = {"GBp": "GBP", "GBX": "GBP", "ZAc": "ZAR", "ZAC": "ZAR", "ILA": "ILS"}
"""Units of prices and the currency each is a hundredth of."""

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


def unit(currency: str) -> Decimal:
    """What one of `currency` is in its `major` one: 1 or 0.01."""
    return _HUNDREDTH if currency in HUNDREDTHS else _ONE


def digits(currency: str) -> int:
    """How many digits after the point an amount of `currency` has."""
    return _DIGITS.get(currency, 2)
