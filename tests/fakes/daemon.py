"""A daemon for the command line to talk to: a real HTTP server whose answers are what a test puts there."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it came in. `body`: what JSON says, of anything else the bytes."""

    method: str
    path: str
    body: Any
    headers: dict[str, str]


@dataclass
class FakeDaemon:
    """Answers each `METHOD /path?query` with what was put there, in turn; the last answer stays."""

    answers: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def put(self, request: str, *answers: object, status: int = 200) -> None:
        self.answers[request] = [
            (status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()) for answer in answers
        ]

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fake daemon")
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        self.asked.append(asked)
        waiting = self.answers.get(f"{asked.method} {asked.path}")
        if not waiting:
            problem = {"title": "Not found", "code": "unknown_route", "detail": f"{asked.method} {asked.path}"}
            return 404, json.dumps(problem).encode()
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, _body(sent, self.headers), dict(self.headers))
                status, content = daemon.answer(asked)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = _reply

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler


def _body(sent: bytes, headers: Any) -> Any:
    if not sent:
        return None
    return json.loads(sent) if headers.get("Content-Type") == "application/json" else sent
