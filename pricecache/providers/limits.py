"""The setting that changes how providers may be called: `yfinance:perSecond=2,perDay=5000;fmp:price=0.001`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

from pricecache.core.asking import Pace
from pricecache.errors import Misconfigured

Limits = Mapping[str, Any]
"""Fields of `Pace` and their new values."""


def parse_limits(text: str, providers: Collection[str]) -> dict[str, Limits]:
    """What `text` says, by provider. Raises `Misconfigured` with code `bad_provider_limits` and every fault there is.

    `providers`: the names of all there are.
    """
    found: dict[str, Limits] = {}
    faults: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, colon, limits = (piece.strip() for piece in part.partition(":"))
        if not colon or not limits:
            faults.append(f"{part!r} is not written as name:perSecond=2,perDay=5000")
        elif name not in providers:
            faults.append(f"there is no provider {name!r}; there are {', '.join(providers)}")
        elif name in found:
            faults.append(f"{name} stands there twice")
        else:
            found[name] = _limits(name, limits, faults)
    if faults:
        raise Misconfigured(f"PRICECACHE_PROVIDER_LIMITS: {'; '.join(faults)}.", code="bad_provider_limits")
    return found


def limited(pace: Pace, limits: Limits) -> Pace:
    """`pace` with its fields changed to `limits`."""
    return replace(pace, **limits)


def _limits(name: str, text: str, faults: list[str]) -> Limits:
    limits: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in _KEYS:
            faults.append(f"{name}: {key!r} is none of {', '.join(_KEYS)}")
            continue
        field, read, meaning = _KEYS[key]
        number = read(value)
        if number is None:
            faults.append(f"{name}: {key} is {meaning}, not {value!r}")
        elif field in limits:
            faults.append(f"{name}: {key} stands there twice")
        limits[field] = number
    return limits


def _rate(text: str) -> float | None:
    number = _number(text)
    return number if number is not None and number > 0 else None


def _price(text: str) -> float | None:
    number = _number(text)
    return number if number is not None and number >= 0 else None


def _count(text: str) -> int | None:
    # Python refuses to read a number of thousands of digits
    is_whole = text.isascii() and text.isdecimal() and len(text) <= 20
    return int(text) if is_whole and 1 <= int(text) <= 10**9 else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


_KEYS: Mapping[str, tuple[str, Callable[[str], float | int | None], str]] = {
    "perSecond": ("per_second", _rate, "a number above 0"),
    "burst": ("burst", _count, "a whole number from 1 on"),
    "perDay": ("per_day", _count, "a whole number from 1 on"),
    "price": ("price", _price, "dollars, 0 or more"),
}
