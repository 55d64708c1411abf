"""Counts and durations of requests, as plain integers, turned into Prometheus metrics only when they are scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the duration buckets, in seconds."""


class RouteCounter:
    """Of one route: answers by status, durations by bucket. Loop-only."""

    __slots__ = ("buckets", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class RequestMetrics(Collector):
    """`pricecache_http_requests_total` and `pricecache_http_request_seconds` by method and route (its pattern, so
    that symbols never become labels). Registers itself with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._routes: dict[tuple[str, str], RouteCounter] = {}
        registry.register(self)

    def of(self, method: str, route: str) -> RouteCounter:
        """The counter of one route, the same object each time."""
        return self._routes.setdefault((method, route), RouteCounter())

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "pricecache_http_requests", "Requests answered.", labels=("method", "route", "status")
        )
        seconds = HistogramMetricFamily(
            "pricecache_http_request_seconds", "Time from the request's head to its answer.", labels=("method", "route")
        )
        for (method, route), counter in list(self._routes.items()):
            for status, count in list(counter.statuses.items()):
                requests.add_metric((method, route, str(status)), count)
            seconds.add_metric((method, route), _cumulative(counter.buckets), counter.seconds)
        yield requests
        yield seconds


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total, rows = 0, []
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows
