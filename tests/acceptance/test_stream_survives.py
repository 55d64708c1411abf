"""A portfolio's stream over kills: who comes back with `since` has every event once, and the latest values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.daemon import DaemonProcess

pytestmark = pytest.mark.slow

PATIENCE = 20.0


class Follower:
    """A client that keeps its place over connections, as a page does."""

    def __init__(self, daemon: DaemonProcess, portfolio: str) -> None:
        self.daemon, self.portfolio = daemon, portfolio
        self.seq: int | None = None
        self.epoch: str | None = None
        self.events: list[dict[str, Any]] = []
        self.values: dict[str, dict[str, Any]] = {}

    @contextmanager
    def connected(self) -> Iterator[ClientConnection]:
        """Once it has been told what it missed, and how things stand."""
        url = self.daemon.url.replace("http", "ws") + "/ws/portfolio"
        place = {} if self.seq is None else {"since": self.seq, "epoch": self.epoch}
        channels = ["positions", "account", "trades", "orders"]
        wanted = {"type": "subscribe", "portfolioId": self.portfolio, "channels": channels, **place}
        with connect(url, open_timeout=PATIENCE, compression=None) as socket:
            socket.send(json.dumps(wanted))
            self.until(socket, lambda message: message["type"] == "snapshot")
            yield socket

    def until(self, socket: ClientConnection, found: Any) -> dict[str, Any]:
        """Take messages in up to the one that is looked for."""
        while True:
            message = json.loads(socket.recv(timeout=PATIENCE))
            self.take(message)
            if found(message):
                return dict(message)

    def until_event(self, socket: ClientConnection, seq: int) -> None:
        self.until(socket, lambda message: message.get("seq") == seq)

    def take(self, message: dict[str, Any]) -> None:
        assert message["type"] != "error", message
        for event in message.get("events", ()):
            if "seq" in event:
                self.events.append(event)
            elif event["type"] == "account:updated":
                self.values["account"] = event
            elif event["type"] == "position:updated":
                self.values[event["symbol"]] = event
        if message.get("seq") is not None and message["type"] in ("snapshot", "update"):
            self.seq, self.epoch = message["seq"], message["epoch"]


def row(number: int, **facts: Any) -> dict[str, Any]:
    return {"date": "2026-11-02", "type": "buy", "symbol": "AAPL", "quantity": 1, "price": 100 + number, **facts}


def test_kills_lose_and_repeat_nothing_of_trades_orders_and_closures(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, providers="sample", symbols="AAPL,MSFT", sync_start_delay_seconds="0")
    daemon.start()
    try:
        daemon.wait(lambda: daemon.get("/cache/status")[1]["historical"]["symbols"] == 2, "filled")
        portfolio = daemon.post("/api/portfolios", {"name": "One"})[1]["id"]
        follower = Follower(daemon, portfolio)
        target = f"/api/portfolios/{portfolio}"
        for cycle in range(3):
            with follower.connected() as socket:
                daemon.post(f"{target}/transactions", row(2 * cycle, externalId=f"seen-{cycle}"))
                follower.until_event(socket, 1 + 5 * cycle)
            # unseen by anybody: a trade, an order that is filled, the position it closes
            bought = row(0, symbol="MSFT", externalId=f"unseen-{cycle}")
            assert daemon.post(f"{target}/transactions", bought)[0] == 201
            order = {
                "status": "filled",
                "side": "sell",
                "symbol": "MSFT",
                "quantity": 1,
                "filledQuantity": 1,
                "averagePrice": 30,
                "filledAt": "2026-11-25T15:00:00Z",
            }
            status, answer, _ = daemon.request("PUT", f"{target}/orders/order-{cycle}", order)
            assert status == 201, answer
            daemon.kill()
            daemon.start()
            # the same once more, as a system does that had no answer
            assert daemon.request("PUT", f"{target}/orders/order-{cycle}", order)[0] == 200
            assert daemon.post(f"{target}/transactions", bought)[0] == 201
        with follower.connected():
            pass
        assert [event["seq"] for event in follower.events] == list(range(1, 16))
        kinds = ["trade:executed", "trade:executed", "order:updated", "trade:executed", "position:closed"]
        assert [event["type"] for event in follower.events] == 3 * kinds
        told = follower.values["account"]["totalValue"]
        assert told == daemon.get(f"/api/portfolio/summary?portfolioId={portfolio}")[1]["totalValue"] is not None
        assert daemon.stop() == 0
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
