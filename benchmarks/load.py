"""A load generator: so many keep-alive connections, each sends its next request when an answer is whole.

Run as `python -m benchmarks.load PORT CONNECTIONS SECONDS < request`; prints one JSON line. On a processor of its own
it costs about 10 us a request, less than any server measured here, so the server is what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, times: list[float], statuses: dict[bytes, int]) -> None:
        self.request = request
        self.times = times
        self.statuses = statuses
        self.missing = 0
        self.waiting = False
        self.buffer = b""
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.begin = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self.buffer, 0, end)
            status = self.buffer[9:12]
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.missing = (int(found[1]) if found else 0) + end + 4 - len(self.buffer)
            self.buffer = b""
        if self.missing <= 0:
            self.missing = 0
            self.times.append(time.perf_counter() - self.begin)
            if self.stopped:
                self.transport.close()
            else:
                self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stopped = True


async def drive(port: int, connections: int, seconds: float, request: bytes) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    statuses: dict[bytes, int] = {}
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(request, times, statuses), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(0.2)
    times.clear()
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - begin
    measured = sorted(times)
    for client in clients:
        client.stopped = True
        client.transport.close()
    return {
        "rate": len(measured) / took,
        "p50_ms": 1e3 * measured[len(measured) // 2],
        "p99_ms": 1e3 * measured[int(len(measured) * 0.99)],
        "statuses": {status.decode(): n for status, n in statuses.items()},
    }


if __name__ == "__main__":
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(asyncio.run(drive(port, connections, seconds, sys.stdin.buffer.read()))))
