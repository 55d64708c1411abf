"""The daemon's metrics: every name, unit, label and help text, in a registry of their own."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST


@dataclass(frozen=True, slots=True)
class Description:
    """One metric as a scrape shows it: its full name, its type, its labels, and what it means."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric without a value of its own: it is read, at each scrape, from the part that counts it anyway."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str


READINGS = (
    Reading("pricecache_ready", "gauge", "1 when the daemon can serve (/readyz answers 200), else 0."),
    Reading("pricecache_coverage_ratio", "gauge", "Bars present of bars expected, over all tracked symbols, 0 to 1."),
    Reading("pricecache_quarantine_parked", "gauge", "Bars and whole answers that wait for a person's review."),
    Reading("pricecache_divergences", "gauge", "Tracked symbols' disagreements between a provider and what is held."),
    Reading("pricecache_symbols_tracked", "gauge", "Symbols that are tracked."),
    Reading("pricecache_live_cache_quotes", "gauge", "Quotes in the live cache."),
    Reading("pricecache_column_cache_bytes", "gauge", "RAM held by decoded bars, in bytes."),
    Reading("pricecache_column_cache_hits_total", "counter", "Reads of bars answered from RAM."),
    Reading("pricecache_column_cache_misses_total", "counter", "Reads of bars that went to MongoDB."),
    Reading("pricecache_historical_hits_total", "counter", "Historical reads that were complete and fresh."),
    Reading("pricecache_historical_misses_total", "counter", "Historical reads that were incomplete or out of date."),
    Reading("pricecache_samples_stored_total", "counter", "Samples of live prices that were stored."),
    Reading("pricecache_samples_dropped_total", "counter", "Samples dropped while MongoDB was away for long."),
    Reading("pricecache_samples_pending", "gauge", "Samples in RAM that are not stored yet."),
    Reading("pricecache_mongod_restarts_total", "counter", "Times the private mongod died and was started again."),
    Reading("pricecache_stream_connected", "gauge", "1 while a price stream is connected and subscribed, else 0."),
    Reading("pricecache_stream_messages_total", "counter", "Messages that price streams have brought."),
    Reading("pricecache_stream_reconnects_total", "counter", "Times a price stream was opened again after a drop."),
    Reading("pricecache_realtime_enabled", "gauge", "1 when streams are served, else 0."),
    Reading("pricecache_realtime_connections", "gauge", "Streams that are open, WebSocket and server-sent."),
    Reading("pricecache_realtime_connections_limit", "gauge", "Most streams that may be open."),
    Reading("pricecache_realtime_connections_behind", "gauge", "Streams whose client has not read what was sent."),
    Reading("pricecache_realtime_connections_opened_total", "counter", "Streams that were opened."),
    Reading("pricecache_realtime_connections_closed_total", "counter", "Streams that ended, for whatever reason."),
    Reading("pricecache_realtime_slow_dropped_total", "counter", "Streams dropped because their client did not read."),
    Reading("pricecache_realtime_events_total", "counter", "Events published for somebody who listens."),
    Reading("pricecache_realtime_events_expected_total", "counter", "The same, times the listeners each was for."),
    Reading("pricecache_realtime_messages_total", "counter", "Messages made, each once for all its listeners."),
    Reading("pricecache_realtime_failures_total", "counter", "Messages that failed by a fault of the daemon's own."),
    Reading("pricecache_realtime_frames_total", "counter", "Messages written, of all streams."),
    Reading("pricecache_realtime_sent_bytes_total", "counter", "Bytes of messages written."),
    Reading("pricecache_realtime_batch_efficiency", "gauge", "1 - frames / events expected, since the start, 0 to 1."),
    Reading("pricecache_realtime_updates_pending", "gauge", "Followed portfolios that wait to be valued anew."),
    Reading(
        "pricecache_realtime_updates_oldest_seconds", "gauge", "How long the one of them has waited that came first."
    ),
    Reading("pricecache_realtime_updates_computed_total", "counter", "Portfolios that were valued anew."),
    Reading("pricecache_realtime_updates_deferred_total", "counter", "Times the limit a minute put one off."),
    Reading("pricecache_realtime_updates_failed_total", "counter", "Times one could not be valued; it is tried again."),
    Reading("pricecache_realtime_followed_portfolios", "gauge", "Portfolios kept at their present value."),
    Reading("pricecache_realtime_window_seconds", "gauge", "How long messages are gathered at present, under load."),
    Reading(
        "pricecache_realtime_latency_p95_seconds",
        "gauge",
        "From an event's publication to its last write, 95th percentile of the recent flushes.",
    ),
    Reading("pricecache_history_cache_bytes", "gauge", "RAM held by histories of portfolios, in bytes."),
    Reading("pricecache_history_days_computed_total", "counter", "Days of histories that were computed for readers."),
    Reading("pricecache_history_stored_total", "counter", "Times the settled rows of a portfolio were stored."),
    Reading("pricecache_history_store_failures_total", "counter", "Times they could not be stored."),
    Reading("pricecache_history_sampled_total", "counter", "Stored histories held against computed ones."),
    Reading("pricecache_history_drift_total", "counter", "Those of them that differed; each is a fault."),
    Reading("pricecache_reconstructions_running", "gauge", "Reconstructions that are being done by this daemon."),
    Reading(
        "pricecache_reconstructions_pending", "gauge", "Those queued or waiting to be tried again, on all daemons."
    ),
    Reading("pricecache_reconstructions_done_total", "counter", "Reconstructions that this daemon has done."),
    Reading("pricecache_reconstructions_failed_total", "counter", "Those that failed for good."),
    Reading("pricecache_reconstructions_retried_total", "counter", "Attempts that failed and are made again."),
    Reading(
        "pricecache_event_loop_lag_max_seconds", "gauge", "Longest lag of the event loop in the last minute or two."
    ),
)

PROVIDER_READINGS = (
    Reading("pricecache_provider_spend_dollars_total", "counter", "Dollars spent on requests, by all daemons."),
    Reading("pricecache_provider_budget_remaining", "gauge", "Requests left of the UTC day, where days have a bound."),
    Reading("pricecache_provider_breaker_open", "gauge", "1 while calls to a provider are stopped by its breaker."),
)

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_REQUEST_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """All metrics of one daemon. Thread-safe. No label names a symbol, so their number is bounded.

    What happens rarely is counted here by the part it happens in; what happens at every read is counted by the part
    itself as a plain number and handed over with `read`, so that a read pays for no lock.
    """

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # twice the lines for a time nobody asks for
        self.registry = CollectorRegistry()
        self._sources: dict[str, Callable[[], float]] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        self.bars_stored = self._counter("bars_stored_total", "Bars stored for sessions that had none.")
        self.bars_corrected = self._counter("bars_corrected_total", "Bars replaced by a provider's correction.")
        self.bars_quarantined = self._counter(
            "bars_quarantined_total", "Bars and whole answers refused, or parked for review, by reason.", "code"
        )
        self.provider_disagreements = self._counter(
            "provider_disagreements_total",
            "Closes of a provider that differ by more than 0.5 % from those held of another.",
            "provider",
            "other",
        )
        self.job_runs = self._counter("job_runs_total", "Finished runs of a job, by outcome.", "job", "outcome")
        self.job_last_success = self._gauge(
            "job_last_success_timestamp_seconds", "When a job last succeeded, in seconds since 1970 UTC.", "job"
        )
        self.provider_attempts = self._counter(
            "provider_attempts_total",
            "Calls to a provider; outcome is answered, passed_on (to the next provider), or the code of the failure.",
            "provider",
            "outcome",
        )
        self.live_updates = self._counter("live_updates_total", "Quotes that replaced an older one.", "provider")
        self.quotes_refused = self._counter(
            "quotes_refused_total", "Quotes that were not believed, by the code of the reason.", "provider", "code"
        )
        self.event_loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop ran a timer, in seconds.", _LAG_BUCKETS
        )
        build = self._gauge("build_info", "1, with the version of the program and of Python.", "version", "python")
        build.labels(version, platform.python_version()).set(1)
        self.requests = RequestMetrics()
        self._labels |= {"pricecache_http_requests_total": _BY_STATUS, "pricecache_http_request_seconds": _BY_ROUTE}
        self.registry.register(self.requests)
        self.registry.register(_Readings(self._sources))
        self._of_providers: dict[str, Callable[[], Mapping[str, float]]] = {}
        self._labels |= {reading.name: ("provider",) for reading in PROVIDER_READINGS}
        self.registry.register(_ProviderReadings(self._of_providers))
        ProcessCollector(namespace="pricecache", registry=self.registry)

    def read(self, name: str, source: Callable[[], float]) -> None:
        """Take the value of the reading `name` from `source` at each scrape. `KeyError` when there is none such."""
        if name not in {reading.name for reading in READINGS}:
            raise KeyError(name)
        self._sources[name] = source

    def read_by_provider(self, name: str, source: Callable[[], Mapping[str, float]]) -> None:
        """The same for one of `PROVIDER_READINGS`: `source` gives a value for each provider that has one."""
        if name not in {reading.name for reading in PROVIDER_READINGS}:
            raise KeyError(name)
        self._of_providers[name] = source

    def exposition(self) -> bytes:
        """Everything in the text format of Prometheus; its type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def describe(self) -> list[Description]:
        """Every metric there is, in order of its name, those that have no value yet included."""
        declared = [self._description(family) for family in self.registry.collect()]
        return sorted(declared, key=lambda description: description.name)

    def _description(self, family: Metric) -> Description:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        return Description(name, family.type, self._labels.get(name, ()), family.documentation)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._labels[f"pricecache_{name}"] = labels
        return Counter(f"pricecache_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._labels[f"pricecache_{name}"] = labels
        return Gauge(f"pricecache_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self._labels[f"pricecache_{name}"] = labels
        return Histogram(f"pricecache_{name}", meaning, labels, buckets=buckets, registry=self.registry)


class RouteCounter:
    """Answers of one route by status, and their durations by bucket, as plain integers. Loop-only."""

    __slots__ = ("buckets", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(_REQUEST_BUCKETS) + 1)
        self.seconds = 0.0

    def observe(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buckets[bisect_left(_REQUEST_BUCKETS, seconds)] += 1
        self.seconds += seconds


_BY_ROUTE, _BY_STATUS = ("method", "route"), ("method", "route", "status")


class RequestMetrics(Collector):
    """Requests by method and route (its pattern, so that symbols never become labels). Loop-only."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], RouteCounter] = {}

    def of(self, method: str, route: str) -> RouteCounter:
        """The counter of one route, the same object each time."""
        return self._routes.setdefault((method, route), RouteCounter())

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("pricecache_http_requests", "Requests answered.", labels=_BY_STATUS)
        seconds = HistogramMetricFamily(
            "pricecache_http_request_seconds", "Time from the request's head to its answer.", labels=_BY_ROUTE
        )
        for (method, route), counter in self._routes.items():
            for status, count in counter.statuses.items():
                requests.add_metric((method, route, str(status)), count)
            seconds.add_metric((method, route), _cumulative(counter.buckets), counter.seconds)
        yield requests
        yield seconds


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total, rows = 0, []
    for bound, count in zip((*map(str, _REQUEST_BUCKETS), "+Inf"), buckets, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows


class _ProviderReadings(Collector):
    def __init__(self, sources: dict[str, Callable[[], Mapping[str, float]]]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        for reading in PROVIDER_READINGS:
            family = (CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily)(
                reading.name, reading.help, labels=("provider",)
            )
            if source := self._sources.get(reading.name):
                for provider, value in source().items():
                    family.add_metric((provider,), value)
            yield family


class _Readings(Collector):
    def __init__(self, sources: dict[str, Callable[[], float]]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        for reading in READINGS:
            family = (CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily)(
                reading.name, reading.help
            )
            if source := self._sources.get(reading.name):
                family.add_metric((), source())
            yield family
