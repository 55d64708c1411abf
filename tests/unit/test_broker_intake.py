"""Which connection goes on with what is posted: the one of the same source that has one of its accounts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pricecache.core.broker.data import BrokerAccount, BrokerData
from pricecache.portfolio.broker_intake import PLAIDS, UNNAMED, Posted
from pricecache.stores.connection_documents import Connection


def posted(name: str, accounts: Sequence[str]) -> Posted:
    of = {one: BrokerAccount(one, one, None, None, "USD") for one in accounts}
    return Posted(BrokerData(20_000, 20_000, of, {}, (), {}, ()), name, "d")


@pytest.mark.parametrize(
    ("name", "accounts", "goes_on"),
    [
        ("Fidelity", ["1"], True),
        ("Fidelity", ["2", "3"], True),
        ("Fidelity", ["3"], False),
        ("Schwab", ["1", "2"], False),
        (UNNAMED, ["1"], False),
        (PLAIDS, ["1"], False),
    ],
)
@pytest.mark.parametrize("is_old", [False, True])
def test_it_takes_the_same_source_and_one_of_its_accounts(
    name: str, accounts: list[str], goes_on: bool, is_old: bool
) -> None:
    known = Connection(
        "c", "ann", "posted", source="Fidelity/1", name=None if is_old else "Fidelity", accounts={"1": "a", "2": "b"}
    )
    assert posted(name, accounts).is_more_of(known) is goes_on


def test_what_is_fetched_goes_on_with_no_post() -> None:
    known = Connection("c", "ann", "plaid", item="i", accounts={"1": "a"})
    assert not posted(PLAIDS, ["1"]).is_more_of(known)


def test_a_source_whose_name_begins_like_another_is_another() -> None:
    known = Connection("c", "ann", "posted", source="A/B/1", name="A/B", accounts={"1": "a"})
    assert not posted("A", ["1"]).is_more_of(known)
    assert posted("A/B", ["1"]).is_more_of(known)
