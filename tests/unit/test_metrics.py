"""Metrics: names that follow the rules of the field, and values that are read when they are asked for."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pricecache.metrics import READINGS, Description, Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3")


def described() -> list[Description]:
    return Metrics("1.2.3").describe()


@pytest.mark.parametrize("metric", described(), ids=lambda metric: metric.name)
def test_a_name_is_ours_and_says_its_unit(metric: Description) -> None:
    assert re.fullmatch(r"pricecache_[a-z0-9]+(_[a-z0-9]+)+|pricecache_(ready|divergences)", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert not re.search(r"(_ms|_millis|_mb|_kb|_percent|_minutes)(_|$)", metric.name)


@pytest.mark.parametrize("metric", described(), ids=lambda metric: metric.name)
def test_a_metric_says_what_it_means(metric: Description) -> None:
    assert metric.help.endswith(".")


@pytest.mark.parametrize("metric", described(), ids=lambda metric: metric.name)
def test_no_label_names_a_symbol(metric: Description) -> None:
    assert not {"symbol", "instrument", "series", "portfolio", "user"} & set(metric.labels)


def test_the_exposition_is_what_prometheus_reads(metrics: Metrics) -> None:
    metrics.bars_stored.inc(251)
    metrics.provider_attempts.labels("yfinance", "rate_limited").inc()
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert families["pricecache_bars_stored"].samples[0].value == 251
    assert families["pricecache_provider_attempts"].samples[0].labels == {
        "provider": "yfinance",
        "outcome": "rate_limited",
    }
    assert families["pricecache_build_info"].samples[0].labels["version"] == "1.2.3"


def test_requests_are_counted_without_a_symbol_in_sight(metrics: Metrics) -> None:
    counter = metrics.requests.of("GET", "/cache/live/{symbol}")
    assert metrics.requests.of("GET", "/cache/live/{symbol}") is counter
    for status, seconds in ((200, 0.00005), (200, 0.002), (304, 0.9)):
        counter.observe(status, seconds)
    text = metrics.exposition().decode()
    assert 'requests_total{method="GET",route="/cache/live/{symbol}",status="200"} 2.0' in text
    assert 'le="0.0001",method="GET",route="/cache/live/{symbol}"} 1.0' in text
    assert 'le="+Inf",method="GET",route="/cache/live/{symbol}"} 3.0' in text
    assert 'seconds_count{method="GET",route="/cache/live/{symbol}"} 3.0' in text


def test_a_reading_is_taken_at_each_scrape(metrics: Metrics) -> None:
    hits = iter((1, 2))
    metrics.read("pricecache_column_cache_hits_total", lambda: next(hits))
    assert "pricecache_column_cache_hits_total 1.0" in metrics.exposition().decode()
    assert "pricecache_column_cache_hits_total 2.0" in metrics.exposition().decode()


def test_a_reading_nobody_supplies_shows_no_value(metrics: Metrics) -> None:
    assert metrics.registry.get_sample_value("pricecache_ready") is None


def test_a_reading_that_is_not_declared_is_refused(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.read("pricecache_surprises_total", lambda: 1)


def test_describing_does_not_take_the_readings(metrics: Metrics) -> None:
    """The list of metrics stands in the manual; making it must not need a daemon behind it."""
    assert {reading.name for reading in READINGS} <= {metric.name for metric in metrics.describe()}


def test_readings_of_providers_have_a_value_for_each_that_has_one(metrics: Metrics) -> None:
    metrics.read_by_provider("pricecache_provider_budget_remaining", lambda: {"fmp": 249.0})
    assert 'pricecache_provider_budget_remaining{provider="fmp"} 249.0' in metrics.exposition().decode()
    with pytest.raises(KeyError):
        metrics.read_by_provider("pricecache_ready", dict)
