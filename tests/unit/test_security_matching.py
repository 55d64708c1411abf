"""Evidence for a mapping: what it adds up to, and what rules it out whatever else speaks for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricecache.core.broker.data import BrokerSecurity
from pricecache.core.broker.security_matching import MAPPED_FROM, Candidate, judged_of, plain_name
from pricecache.core.instruments import Instrument

APPLE = BrokerSecurity("a", "equity", "Apple Inc.", "AAPL", "XNAS", currency="USD")
LISTED = Candidate(
    Instrument("AAPL"), "exchange", name="Apple Inc.", kind="equity", currency="USD", close=200.0, is_listed=True
)


def judged(candidate: Candidate = LISTED, alike: float | None = 100.0, price: float | None = None, **facts: Any) -> Any:
    return judged_of(replace(APPLE, **facts), [(candidate, alike)], price)


def test_nothing_like_it_is_unmapped_and_says_so() -> None:
    found = judged_of(APPLE, [], None)
    assert (found.instrument, found.state, found.confidence) == (None, "unmapped", 0.0)
    assert found.reasons[0].startswith("no_candidate")


@pytest.mark.parametrize(
    ("candidate", "alike", "state"),
    [
        (LISTED, 100.0, "mapped"),
        (LISTED, None, "mapped"),
        (LISTED, 20.0, "review"),
        (replace(LISTED, is_listed=None), None, "mapped"),
        (replace(LISTED, is_listed=False), None, "review"),
        (replace(LISTED, is_listed=False), 20.0, "unmapped"),
        (replace(LISTED, means="ticker"), None, "review"),
        (replace(LISTED, means="ticker"), 95.0, "mapped"),
        (replace(LISTED, means="ticker"), 20.0, "unmapped"),
        (replace(LISTED, means="identifier"), None, "mapped"),
        (replace(LISTED, means="name"), 100.0, "review"),
        (replace(LISTED, is_renamed=True), 20.0, "mapped"),
        (replace(LISTED, kind="fund"), 20.0, "unmapped"),
    ],
)
def test_the_evidence_decides(candidate: Candidate, alike: float | None, state: str) -> None:
    assert judged(replace(candidate, close=None), alike).state == state


@pytest.mark.parametrize(
    ("price", "code"),
    [(203.0, "price_agrees"), (230.0, "price_near"), (251.0, "price_differs"), (149.0, "price_differs")],
)
def test_a_price_is_held_against_the_close(price: float, code: str) -> None:
    found = judged(price=price)
    assert any(reason.startswith(code) for reason in found.reasons)
    assert found.is_checked
    assert (found.state == "mapped") is (code != "price_differs")


@given(
    means=st.sampled_from(["exchange", "ticker", "coin", "identifier", "name"]),
    alike=st.one_of(st.none(), st.floats(0, 100)),
    conflict=st.sampled_from([{"close": 10.0}, {"currency": "EUR"}, {"ended": True}, {"began": True}]),
    is_listed=st.sampled_from([True, False, None]),
)
def test_what_is_in_conflict_is_never_mapped(means: Any, alike: Any, conflict: Any, is_listed: Any) -> None:
    found = judged(replace(LISTED, means=means, is_listed=is_listed, **conflict), alike, 200.0)
    assert found.confidence < MAPPED_FROM
    assert found.state != "mapped"
    assert 0.0 <= found.confidence <= 1.0


def test_hundredths_are_no_other_currency() -> None:
    found = judged(replace(LISTED, currency="GBp"), currency="GBP")
    assert any(reason.startswith("currency_agrees") for reason in found.reasons)


def test_two_that_are_as_likely_are_for_a_person() -> None:
    one = replace(LISTED, means="ticker", close=None)
    other = replace(one, instrument=Instrument("AAPL", "PA"))
    assert judged_of(APPLE, [(one, 100.0), (other, 100.0)], None).state == "review"
    assert judged_of(APPLE, [(one, 100.0), (other, 20.0)], None).state == "mapped"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Apple Inc. - Common Stock", "APPLE"),
        ("The Coca-Cola Company", "COCA COLA"),
        ("Moody's Corp", "MOODYS"),
        ("Holdings Group", "HOLDINGS GROUP"),
        ("Apple and IBM (sample prices)", None),
        ("...", None),
        (None, None),
    ],
)
def test_a_name_is_what_is_left_without_its_legal_form(name: str | None, plain: str | None) -> None:
    assert plain_name(name) == plain
