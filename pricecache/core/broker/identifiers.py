"""Numbers that securities go by: ISIN, CUSIP and SEDOL, believed only where their check digit is right."""

from __future__ import annotations

import re

_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}[0-9]")
_CUSIP = re.compile(r"[A-Z0-9*@#]{8}[0-9]")
_SEDOL = re.compile(r"[B-DF-HJ-NP-TV-Z0-9]{6}[0-9]")
_CUSIP_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ*@#"
_SEDOL_WEIGHTS = (1, 3, 1, 7, 3, 9)
NORTH_AMERICA = ("US", "CA")
"""Countries whose ISINs are made of CUSIPs; which of the two a CUSIP is of, it does not say."""


def isin_of(text: str | None) -> str | None:
    """The ISIN (ISO 6166) that `text` is, else None."""
    code = _cleaned(text)
    return code if _ISIN.fullmatch(code) and _luhn(code[:-1]) == code[-1] else None


def cusip_of(text: str | None) -> str | None:
    """The CUSIP (ANSI X9.6), or CINS, that `text` is, else None."""
    code = _cleaned(text)
    return code if _CUSIP.fullmatch(code) and _cusip_digit(code[:8]) == code[8] else None


def sedol_of(text: str | None) -> str | None:
    """The SEDOL that `text` is, else None."""
    code = _cleaned(text)
    return code if _SEDOL.fullmatch(code) and _sedol_digit(code[:6]) == code[6] else None


def isins_of_cusip(cusip: str) -> tuple[str, ...]:
    """The ISINs that the security of a CUSIP can have; none of a CINS, whose first character is a letter."""
    if not cusip[0].isdigit() or not cusip.isalnum():
        return ()
    return tuple(f"{country}{cusip}{_luhn(country + cusip)}" for country in NORTH_AMERICA)


def cusip_in_isin(isin: str) -> str | None:
    """The CUSIP that an ISIN is made of, where it is of a country that does so."""
    return cusip_of(isin[2:11]) if isin[:2] in NORTH_AMERICA else None


def sedol_in_isin(isin: str) -> str | None:
    """The SEDOL that an ISIN of the United Kingdom or Ireland is made of."""
    return sedol_of(isin[4:11]) if isin[:4] in ("GB00", "IE00") else None


def _cleaned(text: str | None) -> str:
    return "" if text is None or len(text) > 32 else text.replace(" ", "").replace("-", "").upper()


def _luhn(code: str) -> str:
    digits = "".join(str(int(character, 36)) for character in code)
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return str(-total % 10)


def _cusip_digit(code: str) -> str:
    total = 0
    for place, character in enumerate(code):
        value = _CUSIP_ALPHABET.index(character) * (1 + place % 2)
        total += value // 10 + value % 10
    return str(-total % 10)


def _sedol_digit(code: str) -> str:
    total = sum(int(character, 36) * weight for character, weight in zip(code, _SEDOL_WEIGHTS, strict=True))
    return str(-total % 10)
