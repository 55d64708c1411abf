"""What happens again and again, told now and then with how often it did."""

from __future__ import annotations


class Repeats:
    """Lines of a log, at most one in `seconds` for each key. Keys are few: they are kept for ever. Pure."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._kept: dict[str, tuple[float, int]] = {}

    def count(self, key: str, now: float) -> int:
        """It happened once more, at `now` (monotonic seconds): how often since it was told last, 0 when it is not to be
        told yet."""
        told_at, before = self._kept.get(key, (float("-inf"), 0))
        if now - told_at < self._seconds:
            self._kept[key] = told_at, before + 1
            return 0
        self._kept[key] = now, 0
        return before + 1
