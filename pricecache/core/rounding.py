"""Many amounts rounded to minor units at once, each as Python's `round` does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DOUBT = 2.3e-16
"""How much of a product may be wrong, with what its distance to the middle adds: a little over two half ulps."""
_LARGE = 2.0**50
"""Minor units from which on there are few digits left behind the point, and none is worth a trick."""
_HALVES = 2.0**27 + 1


def rounded(amounts: Floats, places: int | NDArray[np.int64]) -> Floats:
    """`amounts` (float64, one dimension) to `places` digits after the point, half to even; NaN stays, there is no -0.0.

    `round` looks at the decimal expansion of an amount: 2.675 lies below the middle, though 2.675 x 100 is 267.5. So
    where a product comes out near a middle, its rounding error is worked out too.
    """
    whole = units(amounts, places)
    found = whole / 10.0 ** np.asarray(places) + 0.0
    is_large = np.abs(whole) > _LARGE
    if is_large.any():
        for at in np.flatnonzero(is_large).tolist():
            found[at] = round(float(amounts[at]), places if isinstance(places, int) else int(places[at])) + 0.0
    return np.asarray(found, np.float64)


def units(amounts: Floats, places: int | NDArray[np.int64]) -> Floats:
    """The same in minor units: whole numbers, as float64, that add up without an error. Exact below 2^50."""
    power = 10.0 ** np.asarray(places)
    scaled = amounts * power
    whole = np.rint(scaled)
    off = scaled - whole
    np.abs(off, out=off)
    off += np.abs(scaled) * _DOUBT
    doubtful = np.flatnonzero(off >= 0.5)
    if len(doubtful):
        powers = power[doubtful] if power.ndim else np.full(len(doubtful), power)
        whole[doubtful] = _at_the_middle(amounts[doubtful], scaled[doubtful], powers)
    return np.asarray(whole, np.float64)


def _at_the_middle(amounts: Floats, scaled: Floats, powers: Floats) -> Floats:
    low = np.floor(scaled)
    beyond = (scaled - (low + 0.5)) + _error(amounts, powers, scaled)
    return np.where(beyond == 0, np.rint(low + 0.5), np.where(beyond > 0, low + 1, low))


def _error(a: Floats, b: Floats, product: Floats) -> Floats:
    """What a x b is more than `product`, which it was rounded to: exact (T. J. Dekker, 1971)."""
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _high(a: Floats) -> Floats:
    large = a * _HALVES
    return large - (large - a)
