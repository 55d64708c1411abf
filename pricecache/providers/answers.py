"""What the answers of all vendors over HTTP have in common: how long to wait, numbers that may be none, bad shapes, and
what the numbers of a fund, an index or a pair of currencies mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pricecache.core.bars import CLOSE, OPEN, VOLUME
from pricecache.core.catalog import FUND_LAG
from pricecache.core.instruments import Instrument, InstrumentKind
from pricecache.errors import ProviderAnswerBad, ProviderError
from pricecache.providers.spelling import is_same_pair

T = TypeVar("T")

NO_VOLUME: frozenset[InstrumentKind | None] = frozenset({"fund", "index", "currency"})
"""Kinds for which vendors write 0 where there is no volume."""


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


def volume_of(value: Any, kind: InstrumentKind | None) -> float | None:
    """A volume of something of that kind, or None for what is none. Raises `TypeError` for what is no number."""
    return None if value is None or (value == 0 and kind in NO_VOLUME) else known(value)


def values_of_kind(values: NDArray[np.float64], kind: InstrumentKind | None) -> NDArray[np.float64]:
    """`values` of bars (5, n), which it changes: volumes that are none unknown, a fund's one price in all four."""
    if kind in NO_VOLUME:
        values[VOLUME, values[VOLUME] == 0] = math.nan
    if kind == "fund":
        values[OPEN:CLOSE] = values[CLOSE]
    return values


def lag_of(kind: InstrumentKind | None, lag: float) -> float:
    """Seconds after a close until a bar of that kind is final, where one of a share is after `lag`."""
    return lag + FUND_LAG if kind == "fund" else lag


def may_trade(instrument: Instrument, sessions: Any) -> Any:
    """Whether a session, or each in an array (days since 1970-01-01, a Thursday), can be one: vendors have rows of
    Sundays for pairs of currencies."""
    return (instrument.place.calendar != "24/5") | ((sessions + 3) % 7 < 5)


def require_same(vendor: str, answered: Any, asked: str) -> None:
    """Raises `ProviderAnswerBad` with code `another_symbol` and the fact `answered_as` when the symbol in an answer
    says that it is of something else. One that is None says nothing."""
    if answered is None or str(answered).upper() == asked.upper() or is_same_pair(str(answered), asked):
        return
    told = str(answered)[:64]
    raise ProviderAnswerBad(
        f"{vendor} was asked for {asked} and answered for {told!r}: a new symbol of it, if it was renamed.",
        code="another_symbol",
        answered_as=told,
    )


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
