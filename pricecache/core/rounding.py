"""Many amounts rounded to minor units at once, each as Python's `round` does it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DOUBT = 2.3e-16
"""How much of a product may be wrong, with what its distance to the middle adds: a little over two half ulps."""


def rounded(amounts: NDArray[np.float64], places: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """`amounts` (float64, one dimension) to `places` digits after the point, half to even; NaN stays, there is no -0.0.

    `round` looks at the decimal expansion of an amount: 2.675 lies below the middle, but 2.675 x 100 is 267.5. So what
    comes out near a middle is rounded by `round` itself, one by one, and nothing else is.
    """
    powers = 10.0 ** np.asarray(places)
    scaled = amounts * powers
    whole = np.rint(scaled)
    is_doubtful = np.abs(scaled - whole) + np.abs(scaled) * _DOUBT >= 0.5
    found = whole / powers + 0.0
    if is_doubtful.any():
        for at in np.flatnonzero(is_doubtful).tolist():
            digits = places if isinstance(places, int) else int(places[at])
            found[at] = round(float(amounts[at]), digits) + 0.0
    return np.asarray(found, np.float64)
