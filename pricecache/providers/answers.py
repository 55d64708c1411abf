"""What the answers of all vendors over HTTP have in common: how long to wait, numbers that may be none, bad shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pricecache.errors import ProviderAnswerBad, ProviderError

T = TypeVar("T")


def seconds_to_wait(retry_after: str | None, now: float) -> float | None:
    """A Retry-After header as RFC 9110 has it, in seconds from `now` (seconds since 1970): a number, or a date."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        return None


def positive(value: Any) -> float | None:
    """A price, or None for what is none: nothing, 0, below 0, not finite. Raises `TypeError` for what is no number."""
    return float(value) if value is not None and math.isfinite(value) and value > 0 else None


def known(value: Any) -> float:
    """A number of an answer, NaN for null. Raises `TypeError` for what is no number."""
    if isinstance(value, bool | str):
        raise TypeError(f"{value!r} is no number")
    return math.nan if value is None else float(value)


def text_of(value: Any, longest: int = 200) -> str | None:
    """A name in an answer, on one line and cut to `longest`; None when there is none."""
    return " ".join(value.split())[:longest] or None if isinstance(value, str) else None


def read(vendor: str, parse: Callable[[], T]) -> T:
    """What `parse` makes of an answer; `ProviderAnswerBad` when the answer has another shape than it expects."""
    try:
        return parse()
    except ProviderError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as exc:
        raise ProviderAnswerBad(f"{vendor}'s answer could not be read ({type(exc).__name__}: {exc}).") from exc
