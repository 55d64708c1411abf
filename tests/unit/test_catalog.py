"""The catalog finds an instrument by its symbol, by those it had, and knows what its prices were in on which day."""

from __future__ import annotations

import pytest

from pricecache.core.catalog import BEGINNING, Alias, Catalog, Entry, currencies_with
from pricecache.core.coverage import SyncState
from pricecache.core.instruments import Instrument
from pricecache.errors import NotFound

FB, META, NEW = Instrument("FB"), Instrument("META"), Instrument("NEW")


def entry(series_id: int, instrument: Instrument, *aliases: Alias) -> Entry:
    return Entry(series_id, instrument, "USD", SyncState(0), aliases=aliases)


def test_a_former_symbol_leads_to_the_instrument_that_had_it() -> None:
    catalog = Catalog()
    catalog.add(entry(1, FB))
    catalog.rename(catalog.require(FB), META, (Alias("FB", "US", None, 99),))
    assert catalog.get(FB) is None
    assert catalog.find(FB) is catalog.find(META) is catalog.require(FB)
    assert catalog.present(FB) == META
    assert catalog.present(NEW) == NEW
    assert catalog.require(FB).named_since == 100
    with pytest.raises(NotFound):
        catalog.require(NEW)


def test_a_symbol_used_again_is_the_new_holders_except_on_the_old_ones_days() -> None:
    catalog = Catalog()
    old, new = entry(1, META, Alias("FB", "US", None, 99)), entry(2, FB)
    catalog.add(old)
    version = old.version
    catalog.add(new)
    assert old.version > version  # what was answered from it under this symbol is no longer right
    assert catalog.find(FB) is new
    assert catalog.find(FB, 100) is new
    assert catalog.find(FB, 99) is old
    catalog.remove(new)
    assert catalog.find(FB) is old


def test_of_two_that_had_a_symbol_the_last_is_found_and_on_a_day_the_one_of_that_day() -> None:
    catalog = Catalog()
    first, second = entry(1, META, Alias("FB", "US", None, 99)), entry(2, NEW, Alias("FB", "US", 100, 199))
    catalog.add(second)
    catalog.add(first)
    assert catalog.find(FB) is second
    assert catalog.find(FB, 50) is first
    assert catalog.find(FB, 150) is second


def test_one_that_took_its_symbol_back_is_found_by_all_it_had() -> None:
    catalog = Catalog()
    catalog.add(entry(1, FB))
    one = catalog.require(FB)
    catalog.rename(one, META, (Alias("FB", "US", None, 99),))
    catalog.rename(one, FB, (Alias("FB", "US", None, 99), Alias("META", "US", 100, 199)))
    assert catalog.get(FB) is one is catalog.find(META) is catalog.find(FB, 150)
    assert catalog.get(META) is None
    assert one.named_since == 200


def test_a_provider_is_asked_by_its_own_spelling() -> None:
    catalog = Catalog()
    one = entry(1, META)
    one.spellings = {"sample": "FB", "csv": "FB2A:DE"}
    catalog.add(one)
    assert catalog.asked_as(META, "sample") == FB
    assert catalog.asked_as(META, "csv") == Instrument("FB2A", "DE")
    assert catalog.asked_as(META, "yfinance") == META
    assert catalog.asked_as(NEW, "sample") == NEW


@pytest.mark.parametrize(
    ("known", "since", "code", "then"),
    [
        ((), 100, "EUR", ((BEGINNING, "GBp"), (100, "EUR"))),
        ((), 100, "GBp", ()),
        (((BEGINNING, "GBp"), (100, "EUR")), 200, "USD", ((BEGINNING, "GBp"), (100, "EUR"), (200, "USD"))),
        (((BEGINNING, "GBp"), (100, "EUR")), 100, "USD", ((BEGINNING, "GBp"), (100, "USD"))),
        (((BEGINNING, "GBp"), (100, "EUR")), 100, "GBp", ()),
        (((BEGINNING, "GBp"), (100, "EUR")), 50, "EUR", ((BEGINNING, "GBp"), (50, "EUR"))),
    ],
)
def test_a_change_of_currency_is_laid_over_those_known(
    known: tuple[tuple[int, str], ...], since: int, code: str, then: tuple[tuple[int, str], ...]
) -> None:
    assert currencies_with(known, "GBp", since, code) == then


def test_the_currency_of_a_session_is_that_of_its_day() -> None:
    one = entry(1, META)
    assert one.currency_on(-5000) == "USD"
    one.currencies, one.currency = ((BEGINNING, "GBp"), (100, "EUR")), "EUR"
    assert [one.currency_on(day) for day in (-5000, 99, 100, 101)] == ["GBp", "GBp", "EUR", "EUR"]
