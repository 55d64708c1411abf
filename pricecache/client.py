"""Talking to a daemon that runs: its REST over one connection, with the standard library only."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

FILE_SECONDS = 120.0
"""How long a file may take, to be sent and worked on or to be made."""
FINISHED = frozenset({"succeeded", "failed", "interrupted"})


class ClientSettings(BaseSettings):
    """The settings of the commands that talk to a daemon; the daemon itself reads neither."""

    model_config = SettingsConfigDict(env_prefix="PRICECACHE_", env_file=".env", extra="ignore", frozen=True)

    url: str | None = Field(
        None,
        description="Base URL of the daemon that commands talk to. None: PRICECACHE_HOST and PRICECACHE_PORT.",
        pattern=r"^https?://[^/\s]+",
    )
    api_key: SecretStr | None = Field(None, description="Key that commands send as X-API-Key.")
    user: str | None = Field(None, description="User that commands act for, sent as X-User-Id beside the key.")


class NoDaemon(Exception):
    """Nothing that is pricecache answers at this address."""


class Refusal(Exception):
    """The daemon answered with an error: `status`, and the problem document as it came, or an empty one."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        super().__init__(str(problem.get("detail") or problem.get("title") or f"The daemon answered {status}."))


def path(*parts: str) -> str:
    """`/`-joined, each part escaped, so that `^GSPC` and `EURUSD=X` are one segment each."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Daemon:
    """A daemon by its base URL. Not thread-safe. Every call raises `NoDaemon` or `Refusal` when it does not succeed.

    `ValueError` when `url` is none. `user`: on whose behalf, beside a key that may. `timeout`: seconds a call may take,
    files aside; `sleep` waits between two looks at a run.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        user: str | None = None,
        timeout: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError(f"{url} is not of the form http://host:port.")
        self.url = url.rstrip("/")
        self.has_key = bool(key)
        self._prefix = parts.path.rstrip("/")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc.rpartition("@")[2], timeout=timeout)
        self._headers: dict[str, str | bytes] = {"Accept": "application/json"}
        if key:
            self._headers["X-API-Key"] = key
        if user:
            self._headers["X-User-Id"] = user.encode()
        self._timeout = timeout
        self._sleep = sleep

    def get(self, path: str, **query: object) -> Any:
        return self._call("GET", path, query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        return self._call("POST", path, query, body)

    def put(self, path: str, body: object = None, **query: object) -> Any:
        return self._call("PUT", path, query, body)

    def delete(self, path: str, body: object = None, **query: object) -> Any:
        return self._call("DELETE", path, query, body)

    def upload(self, path: str, content: bytes, content_type: str, **query: object) -> Any:
        """POST a file; what is answered."""
        headers = {**self._headers, "Content-Type": content_type}
        return self._read(*self._exchange("POST", self._target(path, query), content, headers, FILE_SECONDS))

    def download(self, path: str, **query: object) -> bytes:
        """GET a file as it is."""
        headers = {**self._headers, "Accept": "*/*"}
        status, content = self._exchange("GET", self._target(path, query), None, headers, FILE_SECONDS)
        if status >= 400:
            self._read(status, content)
        return content

    def start(self, path: str, body: object = None) -> dict[str, Any]:
        """Start a run by POST and return it at once, finished or not."""
        return _run(self.post(path, body, wait=0))

    def follow(self, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The run as it is, then as it proceeds, until it has finished; the last one is the report."""
        pause = 0.1
        yield run
        while run["state"] not in FINISHED:
            self._sleep(pause)
            pause = min(1.0, pause * 1.3)
            run = _run(self.get(path("cache", "runs", str(run["id"]))))
            yield run

    def poll(self, path: str, name: str, **query: object) -> Iterator[dict[str, Any]]:
        """The first of what is listed under `name`, as it is now and as it proceeds, for as long as somebody asks and
        it is listed."""
        pause = 0.1
        while listed := self.get(path, **query)[name]:
            yield listed[0]
            self._sleep(pause)
            pause = min(1.0, pause * 1.3)

    def _call(self, method: str, path: str, query: dict[str, object], body: object = None) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({} if sent is None else {"Content-Type": "application/json"})}
        return self._read(*self._exchange(method, self._target(path, query), sent, headers, self._timeout))

    def _target(self, path: str, query: dict[str, object]) -> str:
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        return f"{self._prefix}{path}{'?' if asked else ''}{asked}"

    def _exchange(
        self, method: str, target: str, sent: bytes | None, headers: dict[str, str | bytes], timeout: float
    ) -> tuple[int, bytes]:
        try:
            self._connection.timeout = timeout
            # A kept connection may have been closed by the daemon between two polls; a fresh one costs nothing here.
            self._connection.close()
            self._connection.request(method, target, sent, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except TimeoutError as exc:
            raise Refusal(504, {"code": "no_answer", "detail": f"{self.url} did not answer in time."}) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise NoDaemon(f"No daemon answers at {self.url} ({exc}).") from exc

    def _read(self, status: int, content: bytes) -> Any:
        try:
            answer = json.loads(content) if content else None
        except ValueError as exc:
            raise NoDaemon(f"What answers at {self.url} is not pricecache.") from exc
        if status >= 400:
            raise Refusal(status, answer if isinstance(answer, dict) else {})
        return answer


def _run(answer: Any) -> dict[str, Any]:
    run = answer.get("run", answer) if isinstance(answer, dict) else None
    if not isinstance(run, dict) or not {"id", "state"} <= run.keys():
        raise NoDaemon("What answered is not a run of pricecache.")
    return run
