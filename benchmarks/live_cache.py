"""The live cache under eight threads against a bare dictionary and a dictionary behind a lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from benchmarks.measure import Row, in_turn, row
from pricecache.cache.live import LiveCache
from pricecache.core.instruments import Instrument
from pricecache.core.quotes import Quote, QuoteBatch

THREADS, KEYS, LOOKUPS = 8, 500, 40_000


class LockedDict:
    """The usual way: one dictionary, one lock, taken for each read and each write."""

    def __init__(self) -> None:
        self._quotes: dict[str, Quote] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Quote | None:
        with self._lock:
            return self._quotes.get(key)

    def set(self, key: str, quote: Quote) -> None:
        with self._lock:
            self._quotes[key] = quote


def quotes(as_of: float) -> list[Quote]:
    return [
        Quote(Instrument(f"S{i:03}"), 100.0 + i, "USD", as_of, as_of, "bench", stale_at=as_of + 1e9)
        for i in range(KEYS)
    ]


def rate(worker: Callable[[], object]) -> float:
    """Look-ups a second, in millions, of all threads together."""
    begin_together = threading.Barrier(THREADS + 1)

    def work() -> None:
        begin_together.wait()
        worker()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    begin_together.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return THREADS * LOOKUPS / (time.perf_counter() - begin) / 1e6


def run() -> list[Row]:
    now = time.time()
    batch = QuoteBatch.of(quotes(now))
    cache, locked = LiveCache(), LockedDict()
    cache.publish(batch)
    bare = dict(batch.quotes)
    for key, quote in bare.items():
        locked.set(key, quote)
    keys = [list(bare)[i % KEYS] for i in range(LOOKUPS)]

    def read_ours() -> None:
        fresh = cache.fresh
        for key in keys:
            _ = fresh(key, now).price  # type: ignore[union-attr]

    def read_bare() -> None:
        get = bare.get
        for key in keys:
            _ = get(key).price  # type: ignore[union-attr]

    def read_locked() -> None:
        get = locked.get
        for key in keys:
            _ = get(key).price  # type: ignore[union-attr]

    rounds = 9
    ours_bare = [(rate(read_ours), rate(read_bare)) for _ in range(rounds)]
    ours_locked = [(rate(read_ours), rate(read_locked)) for _ in range(rounds)]
    batches, others = (iter([QuoteBatch.of(quotes(now + i)) for i in range(1, 400)]) for _ in range(2))

    def set_one_by_one() -> None:
        for key, quote in next(others).quotes.items():
            locked.set(key, quote)

    def publish() -> None:
        cache.publish(next(batches))

    def contended(call: Callable[[], None]) -> Callable[[], None]:
        """Five at once, so that the clock's grain is nothing."""
        return lambda: [call() for _ in range(5)] and None

    written = in_turn(contended(publish), contended(set_one_by_one), 60, 2e5)
    return [
        row("prices read with staleness check, 8 threads; bare dict", ours_bare, "M/s", least=0.4),
        row("the same; dict behind a lock", ours_locked, "M/s", least=15),
        row("batch of 500 published; 500 locked sets", written, "us", most=0.15),
    ]


if __name__ == "__main__":
    from benchmarks.measure import print_table

    print_table("live cache", run())
