"""The setting of limits: what it changes, and every fault in it told at once."""

from __future__ import annotations

import pytest

from pricecache.core.asking import Pace
from pricecache.errors import Misconfigured
from pricecache.providers.limits import limited, parse_limits

NAMES = ("yfinance", "fmp", "csv")


def test_it_changes_what_it_names_and_leaves_the_rest() -> None:
    found = parse_limits(" yfinance: perSecond=0.5, burst=2 ; fmp:perDay=250,price=0.001; ", NAMES)
    assert found == {"yfinance": {"per_second": 0.5, "burst": 2}, "fmp": {"per_day": 250, "price": 0.001}}
    pace = limited(Pace(per_second=1, burst=5, concurrency=4, timeout=30), found["fmp"])
    assert pace == Pace(per_second=1, burst=5, concurrency=4, timeout=30, per_day=250, price=0.001)


@pytest.mark.parametrize("text", ["", " ", ";", " ; "])
def test_nothing_changes_nothing(text: str) -> None:
    assert parse_limits(text, NAMES) == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("yfinance", "'yfinance' is not written as name:"),
        ("yfinance:", "is not written as name:"),
        ("bloomberg:perDay=1", "there is no provider 'bloomberg'; there are yfinance, fmp, csv"),
        ("fmp:perDay=1;fmp:perDay=2", "fmp stands there twice"),
        ("fmp:perHour=1", "'perHour' is none of perSecond, burst, perDay, price"),
        ("fmp:perDay", "perDay is a whole number from 1 on, not ''"),
        ("fmp:perDay=0", "perDay is a whole number"),
        (f"fmp:perDay={'9' * 5000}", "perDay is a whole number"),
        ("fmp:perDay=1.5", "perDay is a whole number"),
        ("fmp:perDay=٣", "perDay is a whole number"),
        ("fmp:burst=-1", "burst is a whole number"),
        ("fmp:perSecond=0", "perSecond is a number above 0"),
        ("fmp:perSecond=nan", "perSecond is a number above 0"),
        ("fmp:perSecond=inf", "perSecond is a number above 0"),
        ("fmp:price=-1", "price is dollars"),
        ("fmp:price=free", "price is dollars"),
        ("fmp:price=1,price=2", "price stands there twice"),
    ],
)
def test_what_cannot_be_is_told(text: str, fault: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        parse_limits(text, NAMES)
    assert refused.value.code == "bad_provider_limits"
    assert fault in refused.value.detail


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(Misconfigured) as refused:
        parse_limits("fmp:perDay=x,perHour=1;bloomberg:burst=1;csv", NAMES)
    for word in ("perDay", "perHour", "bloomberg", "csv"):
        assert word in refused.value.detail
