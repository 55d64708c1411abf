"""What brokers said is kept to the digit, whole or not at all, and big ones never hold the event loop up."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from pricecache.brokers.plaid_payload import read_plaid
from pricecache.core.broker.data import BrokerData, Cancellation
from pricecache.core.broker.windows import Window
from pricecache.errors import Corrupt, VersionMismatch
from pricecache.garbage import young_only
from pricecache.stores.broker_data import BrokerDataStore
from pricecache.stores.packed_broker_data import pack, unpack
from tests.broker_data import LAST, broker_data, much


@pytest.fixture
def store(database: Any) -> BrokerDataStore:
    return BrokerDataStore(database)


@pytest.fixture(scope="module")
def small() -> BrokerData:
    given = much(2500)
    return read_plaid(given, [given], today=LAST)


@given(broker_data())
def test_what_is_packed_comes_back_to_the_digit(data: BrokerData) -> None:
    found = unpack(pack(data))
    assert found == data
    assert found.remarks == data.remarks
    assert [str(row.cash) for row in found.transactions] == [str(row.cash) for row in data.transactions]


def test_what_was_stored_before_there_were_cancellations_is_read(small: BrokerData) -> None:
    *before, words = pack(replace(small, cancellations=(Cancellation("c", "a", 5, "t", parts=("fee",)),)))
    assert unpack(before) == small
    assert unpack([*before, words]).cancellations[0].parts == ("fee",)


def test_the_days_that_an_account_was_told_of_come_back(small: BrokerData) -> None:
    name, account = next(iter(small.accounts.items()))
    windows = Window(5, 9, 12), Window(20, small.day, small.day)
    data = replace(small, accounts={**small.accounts, name: replace(account, windows=windows)})
    assert unpack(pack(data)).accounts[name].windows == windows


def test_a_bit_that_flips_is_noticed(small: BrokerData) -> None:
    pieces = pack(small)
    for number, piece in enumerate(pieces):
        damaged = bytearray(piece)
        damaged[len(piece) // 2] ^= 4
        with pytest.raises(Corrupt):
            unpack([*pieces[:number], bytes(damaged), *pieces[number + 1 :]])


async def test_what_is_saved_is_loaded_with_its_version(
    store: BrokerDataStore, database: Any, small: BrokerData
) -> None:
    assert (await store.load("c"), await store.version("c")) == (None, 0)
    assert await store.save("c", small, 0) == 1
    assert await BrokerDataStore(database).load("c") == await store.load("c") == (small, 1)
    changed = replace(small, day=small.day + 1, transactions=small.transactions[:10])
    assert await store.save("c", changed, 1) == 2
    assert await store.load("c") == (changed, 2)
    assert await store.load("d") is None


async def test_of_two_writers_one_is_told_that_it_was_late(store: BrokerDataStore, small: BrokerData) -> None:
    for expected in (0, 1):
        both = await asyncio.gather(*(store.save("c", small, expected) for _ in range(2)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in both) == ["VersionMismatch", "int"]
    with pytest.raises(VersionMismatch):
        await store.save("c", small, 1)
    assert await store.load("c") == (small, 2)


async def test_what_is_deleted_leaves_nothing(store: BrokerDataStore, small: BrokerData, database: Any) -> None:
    await store.save("c", small, 0)
    await store.save("d", small, 0)
    await store.delete("c")
    assert (await store.load("c"), await store.load("d")) == (None, (small, 1))
    await store.delete("d")
    assert await database["broker_data"].count_documents({}) == 0


async def test_pieces_that_are_missing_are_corruption(store: BrokerDataStore, small: BrokerData, database: Any) -> None:
    await store.save("c", small, 0)
    await database["broker_data"].delete_one({"connection": "c"})
    with pytest.raises(Corrupt):
        await BrokerDataStore(database).load("c")


async def test_more_than_a_document_holds_is_kept_in_several(small: BrokerData, database: Any) -> None:
    store = BrokerDataStore(database, bytes_in_one=5000)
    await store.save("c", small, 0)
    assert await database["broker_data"].count_documents({"connection": "c"}) > 3
    assert await BrokerDataStore(database).load("c") == (small, 1)


@pytest.mark.slow
async def test_a_hundred_thousand_rows_are_read_and_kept_while_the_loop_goes_on(store: BrokerDataStore) -> None:
    given = much(100_000)
    loop = asyncio.get_running_loop()
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            gaps.append(loop.time() - before)

    ticking = asyncio.create_task(tick())
    started = loop.time()
    with young_only():
        data = await asyncio.to_thread(lambda: read_plaid(given, [given], today=LAST))
        took = loop.time() - started
        assert max(gaps) < took / 4
        assert await store.save("c", data, 0) == 1
        assert await store.load("c") == (data, 1)
    ticking.cancel()
    assert len(data.transactions) == 100_000
    assert len(gaps) > 100


async def test_who_reads_first_what_was_saved_here_gets_the_very_values(
    store: BrokerDataStore, small: BrokerData
) -> None:
    await store.save("c", small, 0)
    first, second = await store.load("c"), await store.load("c")
    assert first is not None
    assert second is not None
    assert first[0] is small
    assert second[0] is not small
    assert second == first == (small, 1)


async def test_what_another_daemon_has_saved_since_is_read_instead(
    store: BrokerDataStore, database: Any, small: BrokerData
) -> None:
    await store.save("c", small, 0)
    other, changed = BrokerDataStore(database), replace(small, day=small.day + 1)
    await other.delete("c")
    await other.save("c", changed, 0)
    assert await store.load("c") == (changed, 1)


async def test_what_is_saved_together_with_something_else_is_there_with_it_or_not_at_all(
    store: BrokerDataStore, database: Any, small: BrokerData
) -> None:
    async def fails(session: Any) -> None:
        await database["beside"].insert_one({"_id": 1}, session=session)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.save("c", small, 0, fails)
    assert (await store.load("c"), await database["beside"].count_documents({})) == (None, 0)
