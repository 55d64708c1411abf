"""The hub: who gets what, once and as the same bytes; batches; those who do not read; resuming; the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from pricecache.core.stream_events import StreamEvent
from pricecache.errors import Invalid, NotFound, Unavailable
from pricecache.realtime import delivery, messages
from pricecache.realtime.frames import close_frame, event_chunk, text_frame
from pricecache.realtime.hub import MOST_PORTFOLIOS, MOST_SYMBOLS, Hub
from pricecache.realtime.places import Places
from pricecache.realtime.topics import TAIL
from pricecache.realtime.windows import Window
from tests.clock import ManualClock
from tests.feeds import MemoryFeeds, account, position, price
from tests.streams import Client, body_in, frames_in, settle

WINDOW = 0.02


class Running:
    """A hub that sends what is published, on a clock that stands still."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.feeds = MemoryFeeds()
        self.hub = Hub(self.feeds, self.clock, window=WINDOW, **options)
        self.feeds.hub = self.hub
        self.tasks = [asyncio.create_task(self.hub.run()), asyncio.create_task(self.hub.watch())]

    def client(self, **options: Any) -> Client:
        return Client(self.hub, **options)

    async def listener(self, portfolio_id: str | None = "p", *channels: str, **options: Any) -> Client:
        """A client that has been told what holds."""
        client = self.client()
        await client.listen(portfolio_id, *channels, **options)
        client.wire()
        return client

    async def pass_time(self, seconds: float = 1.0) -> None:
        await settle()
        self.clock.advance(seconds)
        await settle()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.hub.close()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    found = Running(slow_seconds=30.0)
    yield found
    for connection in found.hub.connections():
        found.hub.lost(connection)
    await found.stop()


# ---- on the wire


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_frame_has_the_shortest_length_that_says_it(length: int) -> None:
    wire = text_frame(b"x" * length)
    assert frames_in(wire) == [(0x81, b"x" * length)]
    assert len(wire) - length == (2 if length < 126 else 4 if length < 65536 else 10)


def test_a_close_frame_never_cuts_a_character_in_two() -> None:
    ((first, payload),) = frames_in(close_frame(1001, "é" * 100))
    assert first == 0x88
    assert payload[:2] == b"\x03\xe9"
    assert payload[2:].decode() == "é" * 61


def test_a_server_sent_event_is_one_chunk_with_the_place_to_resume_from() -> None:
    assert event_chunk(b"{}", "e:4") == b"12\r\nid: e:4\ndata: {}\n\n\r\n"


# ---- delivery


async def test_a_listener_is_told_what_holds_and_then_what_changes(running: Running) -> None:
    running.feeds.set("p", {"account": account(5), "position:AAPL:US": position("AAPL", 5)})
    client = running.client()
    await client.listen()
    subscribed, snapshot = client.messages()
    assert subscribed == {
        "type": "subscribed",
        "portfolioId": "p",
        "channels": ["positions", "account", "trades", "orders"],
        "seq": 0,
        "epoch": "e1",
    }
    assert (snapshot["type"], snapshot["resync"], snapshot["seq"]) == ("snapshot", False, 0)
    assert [event["type"] for event in snapshot["events"]] == ["account:updated", "position:updated"]
    running.feeds.happen("p", symbol="AAPL")
    running.feeds.set("p", {"account": account(6)})
    await settle()
    (update,) = client.messages()
    assert (update["type"], update["seq"], update["portfolioId"]) == ("update", 1, "p")
    assert [event["type"] for event in update["events"]] == ["trade:executed", "account:updated"]


async def test_everybody_on_a_topic_gets_the_very_same_bytes_that_were_encoded_once(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [await running.listener() for _ in range(50)]
    encodings = []
    whole = messages.text_frame
    monkeypatch.setattr(messages, "text_frame", lambda payload: encodings.append(payload) or whole(payload))
    running.feeds.set("p", {"account": account(7)})
    await settle()
    wires = [client.wire() for client in clients]
    assert len(encodings) == 1
    assert all(len(wire) == 1 and wire[0] is wires[0][0] for wire in wires)


async def test_a_client_gets_the_channels_it_asked_for_and_no_others(running: Running) -> None:
    trades, positions = await running.listener("p", "trades"), await running.listener("p", "positions")
    running.feeds.happen("p", "trade:executed")
    running.feeds.happen("p", "position:closed", symbol="AAPL")
    running.feeds.set("p", {"account": account(1), "position:AAPL:US": position("AAPL", 2)})
    await settle()
    assert [e["type"] for m in trades.messages() for e in m["events"]] == ["trade:executed"]
    assert [e["type"] for m in positions.messages() for e in m["events"]] == ["position:closed", "position:updated"]


async def test_nothing_is_encoded_or_kept_for_a_portfolio_nobody_listens_to(running: Running) -> None:
    client = await running.listener("p")
    running.hub.publish_values("q", {"account": account(1)})
    running.hub.publish_events("q", [StreamEvent(1, "trade:executed", 0.0, {})])
    assert running.hub.is_listened("p")
    assert not running.hub.is_listened("q")
    await settle()
    assert running.hub.stats.messages == 0
    assert client.wire() == []
    assert running.feeds.followed == {"p"}
    client.leave()
    assert running.feeds.followed == set()
    assert not running.hub.is_listened("p")


async def test_a_portfolio_is_nobody_elses(running: Running) -> None:
    alice, bob = await running.listener("p"), await running.listener("q")
    running.feeds.set("p", {"account": account(1)})
    await settle()
    assert len(alice.messages()) == 1
    assert bob.messages() == []


async def test_several_portfolios_of_one_connection_are_one_write(running: Running) -> None:
    client = running.client()
    for portfolio_id in ("p", "q"):
        await client.listen(portfolio_id)
    client.wire()
    running.feeds.set("p", {"account": account(1)})
    running.feeds.set("q", {"account": account(2)})
    await settle()
    (wire,) = client.pipe.sent[-1:]
    assert client.pipe.sent.count(wire) == 1
    assert [m["portfolioId"] for m in client.messages()] == ["p", "q"]


async def test_prices_reach_those_who_named_the_instrument_or_hold_it(running: Running) -> None:
    running.feeds.holdings["p"] = frozenset({"MSFT:US"})
    holder, named, other = running.client(), running.client(), running.client()
    await holder.listen("p", "prices")
    await named.listen(None, "prices", symbols=["AAPL:US", "MSFT:US"])
    await other.listen(None, "prices", symbols=["SAP:DE"])
    for client in (holder, named, other):
        client.wire()
    assert running.hub.wants_price("AAPL:US")
    assert not running.hub.wants_price("TSLA:US")
    running.hub.publish_prices({"AAPL:US": price("AAPL", 1.0), "MSFT:US": price("MSFT", 2.0), "TSLA:US": price("T", 3)})
    await settle()
    (held,), (seen,) = holder.messages(), named.messages()
    assert (held["type"], held["portfolioId"], held["seq"]) == ("prices", "p", None)
    assert [event["symbol"] for event in held["events"]] == ["MSFT"]
    assert [event["symbol"] for event in seen["events"]] == ["AAPL", "MSFT"]
    assert other.messages() == []


async def test_prices_follow_what_a_portfolio_comes_to_hold(running: Running) -> None:
    running.feeds.holdings["p"] = frozenset({"MSFT:US"})
    client = await running.listener("p", "prices")
    running.hub.hold("p", {"AAPL:US"})
    running.hub.publish_prices({"MSFT:US": price("MSFT", 2.0)})
    await settle()
    assert client.messages() == []
    running.hub.publish_prices({"AAPL:US": price("AAPL", 2.0)})
    await running.pass_time()
    assert [event["symbol"] for message in client.messages() for event in message["events"]] == ["AAPL"]
    client.leave()
    assert not running.hub.wants_price("AAPL:US")


async def test_who_begins_to_listen_to_prices_is_told_the_latest(running: Running) -> None:
    await running.listener(None, "prices", symbols=["AAPL:US"])
    running.hub.publish_prices({"AAPL:US": price("AAPL", 9.0)})
    late = running.client()
    await late.listen(None, "prices", symbols=["AAPL:US"])
    subscribed, prices = late.messages()
    assert subscribed["symbols"] == ["AAPL:US"]
    assert prices["events"] == [price("AAPL", 9.0)]


# ---- batches


async def test_after_a_quiet_moment_a_message_goes_out_at_once_and_the_next_with_the_window(running: Running) -> None:
    client = await running.listener()
    running.feeds.set("p", {"account": account(1)})
    await settle()
    assert len(client.messages()) == 1
    for value in range(2, 12):
        running.feeds.set("p", {"account": account(value)})
        await settle()
    assert client.messages() == []
    await running.pass_time(WINDOW)
    (update,) = client.messages()
    assert update["events"] == [account(11)]
    assert running.hub.stats.merged == 9
    assert running.hub.stats.batch_efficiency == 1 - 2 / 11


async def test_a_thousand_events_a_second_are_as_many_messages_as_windows(running: Running) -> None:
    client = await running.listener()
    for millisecond in range(1000):
        running.feeds.set("p", {f"position:S{millisecond % 40}:US": position(f"S{millisecond % 40}", millisecond)})
        await settle(4)
        running.clock.advance(0.001)
        await settle(4)
    assert 40 <= len(client.messages()) <= 51
    assert running.hub.stats.batch_efficiency is not None
    assert running.hub.stats.batch_efficiency > 0.94


async def test_the_window_widens_with_what_sending_costs_and_narrows_again(running: Running) -> None:
    clients = [await running.listener() for _ in range(10)]
    for client in clients:
        client.pipe.on_write = lambda: running.clock.advance(0.006)
    running.feeds.set("p", {"account": account(1)})
    await settle()
    assert running.hub.window == pytest.approx(0.06 / 0.3, rel=1e-4)
    for client in clients:
        client.pipe.on_write = None
    running.feeds.set("p", {"account": account(2)})
    await running.pass_time(0.2)
    assert running.hub.window == WINDOW


def test_the_window_is_never_wider_than_a_second() -> None:
    window = Window(0.02)
    window.flushed(10.0, 5.0)
    assert window.seconds == 1.0
    assert window.wait(10.25) == 0.75
    assert window.wait(11.5) == 0.0
    assert (window.at(11.5), window.at(12.0)) == (1.0, 0.02)


async def test_a_flush_over_thousands_holds_the_loop_for_ten_milliseconds_at_a_time(running: Running) -> None:
    clients = [await running.listener() for _ in range(8 * delivery.PORTION)]
    for client in clients:
        client.pipe.on_write = lambda: running.clock.advance(10e-6)
    turns: list[float] = []

    async def somebody_else() -> None:
        while len(clients[-1].pipe.sent) < 3:
            turns.append(running.clock.monotonic())
            await asyncio.sleep(0)

    task = asyncio.create_task(somebody_else())
    running.feeds.set("p", {"account": account(1)})
    await asyncio.wait_for(task, 5)
    assert running.clock.monotonic() > 0.019
    assert max(b - a for a, b in pairwise(turns)) < 0.0126


async def test_a_value_that_cannot_be_encoded_costs_the_others_nothing(running: Running) -> None:
    bad, good = await running.listener("p"), await running.listener("q")
    running.feeds.set("p", {"account": account(object())})  # type: ignore[arg-type]
    running.feeds.set("q", {"account": account(1)})
    await settle()
    assert bad.messages() == []
    assert len(good.messages()) == 1
    assert running.hub.stats.failures == 1


# ---- those who do not read


async def test_who_does_not_read_costs_one_message_and_delays_nobody(running: Running) -> None:
    slow, quick = await running.listener(), await running.listener()
    slow.stop_reading()
    for value in range(200):
        running.feeds.set("p", {"account": account(value), "position:A:US": position("A", value)})
        await running.pass_time(WINDOW)
    assert len(slow.pipe.unsent) == 1
    assert len(quick.messages()) == 200
    assert running.hub.behind == 1
    slow.read_on()
    stale, latest = slow.messages()
    assert stale["events"] == [account(0), position("A", 0)]
    assert latest["events"] == [account(199), position("A", 199)]
    assert running.hub.behind == 0


async def test_who_was_behind_gets_every_numbered_event_once_and_in_order(running: Running) -> None:
    client = await running.listener()
    client.stop_reading()
    for _ in range(30):
        running.feeds.happen("p")
        await running.pass_time(WINDOW)
    client.read_on()
    running.feeds.happen("p")
    await running.pass_time(WINDOW)
    assert client.numbers() == list(range(1, 32))


async def test_more_events_than_are_remembered_are_read_for_who_was_behind(running: Running) -> None:
    running.feeds.page_size = 50
    client = await running.listener()
    client.stop_reading()
    for _ in range(3 * TAIL):
        running.feeds.happen("p")
        await settle(2)
        running.clock.advance(WINDOW)
        await settle(2)
    assert running.feeds.reads == 1
    client.read_on()
    await settle(400)
    assert client.numbers() == list(range(1, 3 * TAIL + 1))
    assert running.feeds.reads > 1
    assert running.hub.behind == 0


async def test_prices_that_a_slow_client_missed_are_those_and_no_others(running: Running) -> None:
    client = await running.listener(None, "prices", symbols=["A:US", "B:US", "C:US"])
    running.hub.publish_prices({"C:US": price("C", 1)})
    await settle()
    client.wire()
    client.stop_reading()
    for value in (1, 2, 3):
        running.hub.publish_prices({"A:US": price("A", value), "B:US": price("B", value)})
        await running.pass_time(WINDOW)
    client.read_on()
    _, latest = client.messages()
    assert sorted(event["symbol"] for event in latest["events"]) == ["A", "B"]
    assert {event["price"] for event in latest["events"]} == {3}


async def test_who_never_reads_is_dropped_and_counted(running: Running) -> None:
    client = await running.listener()
    client.stop_reading()
    for value in range(2):
        running.feeds.set("p", {"account": account(value)})
        await running.pass_time(1.0)
    for _ in range(27):
        await running.pass_time(1.0)
    assert not client.pipe.closed
    for _ in range(4):
        await running.pass_time(1.0)
    assert client.pipe.closed
    client.leave()
    assert running.hub.stats.dropped_slow == 1
    assert running.hub.stats.closed == {"slow": 1}
    assert running.hub.behind == 0


async def test_clients_that_are_too_slow_are_logged_once_a_minute_with_their_count(running: Running) -> None:
    with capture_logs() as logs:
        for number in range(3):
            client = await running.listener()
            client.stop_reading()
            for value in range(2):
                running.feeds.set("p", {"account": account(10 * number + value)})
                await running.pass_time(1.0)
            await running.pass_time(31.0)
            client.leave()
    told = [(line["event"], line["user"], line["seconds"] >= 30, line["count"]) for line in logs]
    line = "stream client dropped: too slow"
    assert told == [(line, "alice", True, 1), (line, "alice", True, 2)]


async def test_a_slow_reader_of_a_replay_is_waited_for_and_gets_it_all(running: Running) -> None:
    for _ in range(1000):
        running.feeds.store("p")
    client = running.client()
    client.stop_reading()
    joining = asyncio.create_task(client.listen(since=0))
    await settle()
    assert len(client.pipe.unsent) == 2
    while not joining.done():
        client.read_on()
        client.stop_reading()
        await settle()
    await joining
    client.read_on()
    assert client.numbers() == list(range(1, 1001))


# ---- resuming


async def test_what_was_missed_is_replayed_before_the_snapshot(running: Running) -> None:
    for _ in range(5):
        running.feeds.store("p", "order:updated")
    running.feeds.set("p", {"account": account(1)})
    client = running.client()
    await client.listen(since=2, epoch="e1")
    subscribed, replay, snapshot = client.messages()
    assert subscribed["seq"] == 2
    assert [event["seq"] for event in replay["events"]] == [3, 4, 5]
    assert (snapshot["seq"], snapshot["resync"]) == (5, False)


@pytest.mark.parametrize(
    ("since", "epoch", "oldest"),
    [(3, "e0", 1), (6, "e1", 1), (1, "e1", 3), (0, "e1", 6)],
    ids=["another database", "from the future", "pruned", "all pruned"],
)
async def test_what_cannot_be_replayed_whole_begins_anew(running: Running, since: int, epoch: str, oldest: int) -> None:
    for _ in range(5):
        running.feeds.store("p")
    running.feeds.oldest["p"] = oldest
    client = running.client()
    await client.listen(since=since, epoch=epoch)
    subscribed, snapshot = client.messages()
    assert (subscribed["seq"], subscribed["epoch"]) == (5, "e1")
    assert (snapshot["type"], snapshot["seq"], snapshot["resync"]) == ("snapshot", 5, True)


async def test_a_replay_may_begin_right_after_what_was_pruned(running: Running) -> None:
    for _ in range(5):
        running.feeds.store("p")
    running.feeds.oldest["p"] = 3
    client = running.client()
    await client.listen(since=2, epoch="e1")
    assert client.numbers() == [3, 4, 5]


@pytest.mark.parametrize("since", [None, 0, 2, 4])
@pytest.mark.parametrize("told", ["before", "after", "never"])
async def test_events_stored_while_somebody_joins_reach_it_once(running: Running, since: int | None, told: str) -> None:
    feeds = running.feeds
    for _ in range(4):
        feeds.store("p")
    feeds.hold_back = asyncio.Event()
    client = running.client()
    joining = asyncio.create_task(client.listen(since=since))
    await feeds.waiting.wait()
    during = [feeds.store("p"), feeds.store("p")]
    if told == "before":
        running.hub.publish_events("p", during)
    feeds.hold_back.set()
    await settle(1)
    during.append(feeds.store("p"))
    while not joining.done():
        await running.pass_time(WINDOW)
    if told == "after":
        running.hub.publish_events("p", during[::-1])
    await running.pass_time()
    feeds.happen("p")
    await running.pass_time()
    numbers = client.numbers()
    assert numbers == list(range(since + 1 if since is not None else numbers[0], 9))
    assert since is not None or numbers[0] in (7, 8)


async def test_what_was_stored_unseen_is_read_of_all_portfolios_a_few_at_a_time(running: Running) -> None:
    names = [f"p{number}" for number in range(10)]
    clients = [await running.listener(name) for name in names]
    running.feeds.page_size = 2
    for name in names[1:]:
        for _ in range(3):
            running.feeds.store(name)
    running.feeds.hold_back = asyncio.Event()
    before = running.feeds.reads
    running.hub.mend_all()
    running.hub.mend_all()
    await settle()
    assert running.feeds.reads == before + 4
    running.feeds.hold_back.set()
    await running.pass_time()
    await running.pass_time()
    assert [client.numbers() for client in clients] == [[], *([[1, 2, 3]] * 9)]


async def test_what_was_stored_unseen_while_the_first_listener_came_is_read(running: Running) -> None:
    running.feeds.hold_back = asyncio.Event()
    client = running.client()
    joining = asyncio.create_task(client.listen())
    await running.feeds.waiting.wait()
    running.feeds.hold_back.set()
    await settle(1)  # its state is read, and not told yet
    running.feeds.store("p")
    running.hub.mend_all()
    await joining
    await running.pass_time()
    assert client.numbers() == [1]


async def test_what_was_stored_unseen_is_read_when_the_database_answers_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await running.listener()
    running.feeds.store("p")
    with monkeypatch.context() as patched:
        patched.setattr(running.feeds, "events_after", _unavailable)
        running.hub.mend_all()
        await settle()
    await running.pass_time()
    await running.pass_time()
    assert client.numbers() == [1]


async def _unavailable(portfolio_id: str, seq: int) -> Any:
    raise Unavailable("Not now.")


async def test_events_that_come_in_disorder_or_twice_are_sent_once_and_in_order(running: Running) -> None:
    client = await running.listener()
    events = [running.feeds.store("p") for _ in range(6)]
    running.hub.publish_events("p", [events[1]])
    running.hub.publish_events("p", [events[0], events[2]])
    await running.pass_time()
    running.hub.publish_events("p", events)
    await running.pass_time()
    assert client.numbers() == [1, 2, 3, 4, 5, 6]


async def test_a_gap_that_cannot_be_read_now_is_filled_when_it_can(running: Running) -> None:
    client = await running.listener()
    feeds, whole = running.feeds, running.feeds.events_after
    failures = 0

    async def failing(portfolio_id: str, seq: int) -> Any:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise Unavailable
        return await whole(portfolio_id, seq)

    feeds.events_after = failing  # type: ignore[method-assign]
    feeds.store("p")
    feeds.happen("p")
    for _ in range(4):
        await running.pass_time()
    assert client.numbers() == [1, 2]


async def test_listeners_join_and_leave_while_thousands_are_written_to_and_nobody_gets_an_event_twice(
    running: Running,
) -> None:
    crowd = [await running.listener() for _ in range(4 * delivery.PORTION)]
    for client in crowd:
        client.pipe.on_write = lambda: running.clock.advance(20e-6)
    late: list[Client] = []

    async def come_and_go() -> None:
        for number in range(20):
            client = running.client()
            await client.listen(since=0)
            late.append(client)
            crowd[number].leave()

    joining = asyncio.create_task(come_and_go())
    for _ in range(20):
        running.feeds.happen("p")
        await running.pass_time(WINDOW)
    while not joining.done():
        await running.pass_time(WINDOW)
    await running.pass_time()
    assert len(late) == 20
    for client in late:
        assert client.numbers() == list(range(1, 21))
    assert {tuple(client.numbers()) for client in crowd[20:]} == {tuple(range(1, 21))}


async def test_values_that_change_while_somebody_joins_are_told_after_its_snapshot(running: Running) -> None:
    running.feeds.set("p", {"account": account(1)})
    await running.listener()
    running.feeds.hold_back = asyncio.Event()
    client = running.client()
    joining = asyncio.create_task(client.listen())
    await settle()
    running.hub.publish_values("p", {"account": account(2)})
    running.feeds.hold_back.set()
    await joining
    await running.pass_time()
    assert client.messages()[-1]["events"][-1] == account(2)


async def test_more_channels_of_a_portfolio_lose_nothing_of_those_it_had(running: Running) -> None:
    client = await running.listener("p", "trades")
    running.feeds.happen("p")
    await client.listen("p", "account")
    await running.pass_time()
    running.feeds.happen("p")
    running.feeds.set("p", {"account": account(3)})
    await running.pass_time()
    found = client.messages()
    assert next(m["channels"] for m in found if m["type"] == "subscribed") == ["account", "trades"]
    assert [e["seq"] for m in found for e in m.get("events", ()) if "seq" in e] == [1, 2]
    assert found[-1]["events"][-1] == account(3)


async def test_channels_can_be_left_one_by_one(running: Running) -> None:
    client = await running.listener()
    await running.hub.unsubscribe(client.connection, "p", ["account"])
    running.feeds.set("p", {"account": account(3), "position:A:US": position("A", 1)})
    await running.pass_time()
    left, update = client.messages()
    assert left == {"type": "unsubscribed", "portfolioId": "p", "channels": ["account"]}
    assert [event["type"] for event in update["events"]] == ["position:updated"]
    await running.hub.unsubscribe(client.connection)
    assert running.feeds.followed == set()


async def test_a_subscription_that_fails_leaves_nothing_behind(running: Running) -> None:
    async def failing(portfolio_id: str) -> Any:
        raise Unavailable

    running.feeds.snapshot = failing  # type: ignore[method-assign]
    client = running.client()
    with pytest.raises(Unavailable):
        await client.listen()
    assert running.feeds.followed == set()
    assert client.connection.topics == ()


async def test_who_is_gone_before_it_is_told_leaves_nothing_behind(running: Running) -> None:
    running.feeds.hold_back = asyncio.Event()
    client = running.client()
    joining = asyncio.create_task(client.listen())
    await settle()
    client.leave()
    running.feeds.hold_back.set()
    with pytest.raises(ConnectionResetError):
        await joining
    assert running.feeds.followed == set()
    assert running.hub.connections() == []


async def test_who_is_told_to_go_while_it_asks_for_more_is_let_go(running: Running) -> None:
    client = await running.listener("p", "trades")
    running.feeds.hold_back = asyncio.Event()
    joining = asyncio.create_task(client.listen("p", "account"))
    await settle()
    running.hub.end(client.connection, 4401, "access_revoked")
    running.feeds.hold_back.set()
    with pytest.raises(ConnectionResetError):
        await joining
    assert running.feeds.followed == set()


async def test_a_position_that_is_no_longer_held_is_not_told_to_who_was_behind(running: Running) -> None:
    running.feeds.holdings["p"] = frozenset({"A:US"})
    running.feeds.set("p", {"account": account(1), "position:A:US": position("A", 1)})
    client = await running.listener()
    client.stop_reading()
    for value in (1, 2):
        running.feeds.set("p", {"account": account(value)})
        await running.pass_time()
    running.hub.hold("p", ())
    client.read_on()
    assert client.messages()[-1]["events"] == [account(2)]


# ---- limits


async def test_a_connection_has_so_many_portfolios_and_instruments(running: Running) -> None:
    client = running.client()
    for number in range(MOST_PORTFOLIOS):
        await client.listen(f"p{number}")
    with pytest.raises(Invalid) as refused:
        await client.listen("one more")
    assert refused.value.code == "too_many_subscriptions"
    await client.listen("p3")
    await client.listen(None, "prices", symbols=[f"S{n}:US" for n in range(MOST_SYMBOLS)])
    with pytest.raises(Invalid) as refused:
        await client.listen(None, "prices", symbols=["T:US"])
    assert refused.value.code == "too_many_subscriptions"


# ---- server-sent streams


async def test_a_server_sent_stream_says_the_same_as_a_websocket(running: Running) -> None:
    socket, stream = running.client(), running.client(is_websocket=False)
    for client in (socket, stream):
        await client.listen("p", "positions", "account", "trades", "orders", "prices", since=0)
    running.feeds.happen("p", symbol="A")
    running.feeds.set("p", {"account": account(1)})
    await running.pass_time()
    said = stream.messages()
    assert said == socket.messages()
    assert len(said) == 3


async def test_a_stream_of_several_portfolios_says_how_far_each_of_them_is(running: Running) -> None:
    stream, alone = running.client(is_websocket=False), running.client(is_websocket=False)
    stream.connection.places = Places({"p": (0, "e0"), "q": (0, "e1")})
    for portfolio_id in ("p", "q"):
        await stream.listen(portfolio_id)
        assert body_in(b"".join(stream.wire())).count("id: e1:p=0,q=0\n") == (portfolio_id == "p")
    await alone.listen("q")
    alone.wire()
    running.feeds.happen("q")
    running.feeds.set("p", {"account": account(1)})
    await settle()
    assert body_in(b"".join(alone.wire())).startswith('id: e1:1\ndata: {"type":"update"')
    p, q = sorted(body_in(b"".join(stream.wire())).removesuffix("\n\n").split("\n\n"), key=len)
    assert p.startswith("data: ")
    assert q.startswith("id: e1:p=0,q=1\ndata: ")


# ---- alive or not


async def test_who_answers_no_ping_is_dropped(running: Running) -> None:
    dead, alive = await running.listener(), await running.listener()
    pinged = 0
    for _ in range(31):
        await running.pass_time()
        if (0x89, b"") in frames_in(b"".join(alive.wire())):
            pinged += 1
            alive.connection.heard_at = running.clock.monotonic()
    assert pinged == 1
    assert dead.pipe.closed
    assert not alive.pipe.closed


async def test_a_quiet_server_sent_stream_is_kept_alive_by_comments(running: Running) -> None:
    stream = running.client(is_websocket=False)
    for _ in range(31):
        await running.pass_time()
    assert stream.wire() == [b"3\r\n:\n\n\r\n"] * 2
    assert not stream.pipe.closed


async def test_at_the_end_everybody_is_told_to_go_elsewhere(running: Running) -> None:
    socket, stream = await running.listener(), running.client(is_websocket=False)
    await stream.listen()
    stream.wire()
    closing = asyncio.create_task(running.hub.close())
    await settle()
    assert frames_in(b"".join(socket.wire())) == [(0x88, b"\x03\xe9stopping")]
    assert stream.pipe.sent[-1].endswith(b"0\r\n\r\n")
    assert stream.messages() == [{"type": "closing", "code": 1001, "reason": "stopping"}]
    socket.leave()
    stream.leave()
    await closing
    assert running.hub.stats.closed == {"stopping": 2}


async def test_who_does_not_go_when_told_to_is_cut_off(running: Running) -> None:
    client = await running.listener()
    running.hub.end(client.connection, 4401, "access_revoked")
    running.feeds.set("p", {"account": account(1)})
    await settle()
    assert [first for first, _ in frames_in(b"".join(client.wire()))] == [0x88]
    assert running.feeds.followed == set()
    for _ in range(3):
        await running.pass_time()
    assert client.pipe.closed
    client.leave()
    assert running.hub.stats.closed == {"access_revoked": 1}


async def test_who_is_told_to_go_in_the_middle_of_a_flush_gets_nothing_after_that(running: Running) -> None:
    clients = [await running.listener() for _ in range(4 * delivery.PORTION)]
    for client in clients:
        client.pipe.on_write = lambda: running.clock.advance(40e-6)
    last = clients[-1]

    async def end_the_last() -> None:
        while not clients[0].wire():
            await asyncio.sleep(0)
        running.hub.end(last.connection, 4401, "access_revoked")

    ending = asyncio.create_task(end_the_last())
    running.feeds.set("p", {"account": account(1)})
    await ending
    await settle()
    assert [frame[0] for frame in last.wire()] == [0x88]
    assert len(clients[-2].wire()) == 1


@pytest.mark.parametrize("channels", [("prices",), ("positions",), ("positions", "prices")])
async def test_who_is_told_to_go_while_it_joins_becomes_no_listener(
    running: Running, channels: tuple[str, ...]
) -> None:
    running.feeds.hold_back = asyncio.Event()
    client = running.client()
    joining = asyncio.create_task(client.listen("p", *channels))
    await running.feeds.waiting.wait()
    running.hub.end(client.connection, 4401, "access_revoked")
    running.feeds.hold_back.set()
    with pytest.raises(ConnectionResetError):
        await joining
    with pytest.raises(ConnectionResetError):
        await client.listen(None, "prices", symbols=["AAPL:US"])
    assert not running.hub.is_listened("p")
    assert not running.hub.wants_price("AAPL:US")


# ---- portfolios that are no more


async def test_listeners_of_a_deleted_portfolio_are_told_and_hear_nothing_of_it_after_that(running: Running) -> None:
    running.feeds.holdings["p"] = frozenset({"AAPL:US"})
    all_channels = await running.listener("p", *messages.CHANNELS)
    both, other = await running.listener("p"), await running.listener("q")
    await both.listen("q")
    both.wire()
    running.feeds.set("p", {"account": account(1)})
    running.hub.publish_deletion("p")
    running.hub.publish_deletion("p")
    running.feeds.set("p", {"account": account(2)})
    running.feeds.happen("p")
    running.hub.publish_prices({"AAPL:US": price("AAPL", 2)})
    running.feeds.set("q", {"account": account(3)})
    await running.pass_time()
    farewell = {
        "type": "unsubscribed", "portfolioId": "p", "channels": list(messages.CHANNELS), "reason": "portfolio_deleted"
    }  # fmt: skip
    assert [one for one in all_channels.messages() if one["type"] != "prices"] == [farewell]
    assert [(one["type"], one["portfolioId"]) for one in both.messages()] == [("unsubscribed", "p"), ("update", "q")]
    assert [one["portfolioId"] for one in other.messages()] == ["q"]
    assert running.feeds.followed == {"q"}
    running.hub.publish_prices({"AAPL:US": price("AAPL", 3)})
    running.hub.publish_values("p", {"account": account(4)})
    await running.pass_time()
    assert all_channels.messages() == []


async def test_who_is_behind_is_told_of_a_deletion_and_gets_nothing_else_of_it(running: Running) -> None:
    client = await running.listener()
    client.stop_reading()
    for value in (1, 2):
        running.feeds.set("p", {"account": account(value)})
        running.feeds.happen("p")
        await running.pass_time()
    running.hub.publish_deletion("p")
    await settle()
    client.read_on()
    await running.pass_time()
    assert [(one["type"], one.get("seq")) for one in client.messages()] == [("update", 1), ("unsubscribed", None)]


async def test_who_joins_while_a_portfolio_is_deleted_is_refused(running: Running) -> None:
    running.feeds.hold_back = asyncio.Event()
    client = running.client()
    joining = asyncio.create_task(client.listen())
    await running.feeds.waiting.wait()
    running.hub.publish_deletion("p")
    running.feeds.hold_back.set()
    with pytest.raises(NotFound):
        await joining
    assert not running.hub.is_listened("p")


async def test_thousands_of_listeners_are_told_of_a_deletion_while_others_go_on(running: Running) -> None:
    clients = [await running.listener() for _ in range(3 * delivery.PORTION)]
    running.hub.publish_deletion("p")
    await settle()
    assert {tuple(one["type"] for one in client.messages()) for client in clients} == {("unsubscribed",)}
    assert not running.hub.is_listened("p")


# ---- figures


async def test_the_figures_say_what_was_spared_and_how_long_things_took(running: Running) -> None:
    assert running.hub.status()["status"] == "offline"
    clients = [await running.listener() for _ in range(4)]
    for value in range(10):
        running.feeds.set("p", {"account": account(value)})
    await running.pass_time(10)
    figures = running.hub.status()
    assert figures["status"] == "healthy"
    assert (figures["events"], figures["events_merged"], figures["messages"]) == (10, 9, 1)
    assert (figures["frames_written"], figures["batch_efficiency"]) == (4, 0.9)
    assert figures["avg_connection_duration_seconds"] == 10.0
    clients[0].leave()
    assert running.hub.status()["disconnect_rate_per_minute"] == 1
    await running.pass_time(61)
    assert running.hub.status()["disconnect_rate_per_minute"] == 0


async def test_a_bad_spell_is_over_a_minute_after_it_when_nothing_is_sent_any_more(running: Running) -> None:
    client = await running.listener()
    client.pipe.on_write = lambda: running.clock.advance(2.0)
    running.feeds.set("p", {"account": account(1)})
    await settle()
    client.pipe.on_write = None
    bad = running.hub.status()
    assert (bad["status"], bad["latency_p95_ms"]) == ("degraded", pytest.approx(2000))
    running.clock.advance(60)
    after = running.hub.status()
    assert (after["status"], after["latency_p50_ms"], after["latency_p95_ms"]) == ("healthy", None, None)


async def test_latencies_of_more_than_a_minute_ago_do_not_hide_those_of_now(running: Running) -> None:
    stats = running.hub.stats
    for _ in range(1500):
        stats.delivered(3.0)
    running.clock.advance(61)
    stats.delivered(0.25)
    assert (stats.latency.p50, stats.latency.p95) == (0.25, 0.25)


async def test_many_who_do_not_keep_up_make_the_stream_degraded(running: Running) -> None:
    clients = [await running.listener() for _ in range(9)]
    clients[0].stop_reading()
    for value in (1, 2):
        running.feeds.set("p", {"account": account(value)})
        await running.pass_time()
    assert running.hub.status()["status"] == "degraded"
