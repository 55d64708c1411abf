"""Collections of garbage: put off while much is loaded, then as before, and not through what was loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pricecache import garbage
from pricecache.brokers.plaid_payload import read_plaid
from tests.broker_data import LAST, much


@pytest.fixture(autouse=True)
def collections_as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_while_it_is_put_off_and_what_was_made_is_exempt() -> None:
    gc.unfreeze()
    with garbage.put_off():
        assert not gc.isenabled()
        made = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(made)


def test_collections_go_on_after_a_failure() -> None:
    with pytest.raises(ImportError), garbage.put_off():
        raise ImportError
    assert gc.isenabled()


def test_old_objects_are_not_looked_through_as_long_as_anybody_makes_many() -> None:
    gc.unfreeze()
    usual = gc.get_threshold()
    with garbage.young_only():
        with pytest.raises(ValueError, match="within"), garbage.young_only():
            raise ValueError("within")
        assert gc.isenabled()
        assert gc.get_threshold()[:2] == usual[:2]
        before = gc.get_stats()[2]["collections"]
        made = [[number] for number in range(100_000)]
        assert gc.get_stats()[2]["collections"] == before
        assert not gc.get_freeze_count()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() >= len(made)


def test_no_look_is_at_all_rows_at_once_while_many_are_made_of_others_that_go() -> None:
    given, looked_at = much(20_000), list[int]()

    def noted(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] < 2:
            looked_at.append(sum(len(gc.get_objects(young)) for young in range(info["generation"] + 1)))

    garbage.exempt_what_is_there()
    with garbage.young_only():
        gc.callbacks.append(noted)
        try:
            data = read_plaid(given, [given], today=LAST)
        finally:
            gc.callbacks.remove(noted)
    assert len(data.transactions) == 20_000
    assert max(looked_at) < 13_000
