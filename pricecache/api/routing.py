"""One typed table of routes, and the matcher that finds a request's row in it."""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote_to_bytes

from pricecache.api.auth import Scope
from pricecache.errors import Invalid, NotFound, PricecacheError

if TYPE_CHECKING:
    from aiohttp import web
    from pydantic import BaseModel

    from pricecache.api.call import Answer, Call, Document, Stream
    from pricecache.api.kept import Kept

Answered: TypeAlias = "type[BaseModel] | str"
"""What an answer is: of a model, or text of a media type."""
Handler = Callable[["Call"], Awaitable["Answer | Document | Kept | Stream | web.StreamResponse"]]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One row: what is called how, by whom, with what, and what comes back.

    `path`: segments, of which `{name}` takes any one segment. `scope`: None is open to everybody. `query` and `body`:
    models the input is checked by; without `body` a body is refused. `body_optional`: an empty body is `body()`, no
    file is None; `max_body_bytes`: a longer one is refused, so that checking it never holds up the others for long.
    `answers`: model (or media type) of each status of success, or all of those it may be. `waits`: the handler bounds
    its own time. `takes_file`: the body is a file (`uploads.Upload`), of which `body` says what is in it; its limit is
    the route's.
    `more_seconds`: how much longer than others it may take, its body too. `takes_ticket`: a parameter `ticket` does
    instead of a credential. `keeps_bytes`: the handler is given the body as the bytes that came, of which `body` says
    what is in them. `owner_may`: a user may too where the instrument could be of their own; the handler asks whose it
    is.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope | None = "read"
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    body_optional: bool = False
    max_body_bytes: int = 256 << 10
    answers: Mapping[int, Answered | tuple[Answered, ...]] = field(default_factory=dict)
    summary: str = ""
    tags: tuple[str, ...] = ()
    waits: bool = False
    takes_file: bool = False
    more_seconds: float = 0.0
    takes_ticket: bool = False
    keeps_bytes: bool = False
    owner_may: bool = False


class MethodNotAllowed(PricecacheError):
    """This path does not take that method."""

    code = "method_not_allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"This path takes {self.allowed}.")


@dataclass(frozen=True, slots=True)
class _Pattern:
    literals: tuple[tuple[int, str], ...]
    names: tuple[tuple[int, str], ...]
    methods: dict[str, Route]


class Router:
    """Finds rows of a table. Pure, so safe anywhere."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[str, dict[str, Route]] = {}
        patterns: dict[str, _Pattern] = {}
        for route in self.routes:
            if "{" in route.path:
                methods = patterns.setdefault(route.path, _pattern(route.path)).methods
            else:
                methods = self._exact.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"{route.method} {route.path} stands twice in the table")
            methods[route.method] = route
        self._by_length: dict[int, list[_Pattern]] = {}
        for path, pattern in patterns.items():
            self._by_length.setdefault(path.count("/"), []).append(pattern)

    def match(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The row for `method` and a path as it was sent (percent-encoded), with its parameters decoded.

        HEAD finds the GET. Raises `NotFound` code `no_such_path`, `MethodNotAllowed`, and `Invalid` code `invalid_path`
        for a parameter that does not decode to one clean piece of text.
        """
        methods, names = self._methods(raw_path)
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise MethodNotAllowed(_with_head(methods))
        if not names:
            return route, {}
        segments = raw_path.split("/")
        return route, {name: clean_segment(segments[at]) for at, name in names}

    def allowed(self, raw_path: str) -> str:
        """The methods of a path, for `Allow`. Raises `NotFound` code `no_such_path`."""
        methods, _ = self._methods(raw_path)
        return ", ".join(sorted({*_with_head(methods), "OPTIONS"}))

    def _methods(self, raw_path: str) -> tuple[dict[str, Route], tuple[tuple[int, str], ...]]:
        exact = self._exact.get(raw_path)
        if exact is not None:
            return exact, ()
        segments = raw_path.split("/") if len(raw_path) < 2048 else []
        for pattern in self._by_length.get(len(segments) - 1, ()):
            if all(segments[at] == text for at, text in pattern.literals):
                return pattern.methods, pattern.names
        raise NotFound("There is no such path; /docs lists them all.", code="no_such_path")


def clean_segment(raw: str) -> str:
    """A path segment decoded. Raises `Invalid` code `invalid_path` when it is empty, not UTF-8, or holds a slash, a
    control or an invisible character."""
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or any(char in "/\\" or unicodedata.category(char).startswith("C") for char in text):
        raise Invalid("A part of the path is empty or holds characters no name here has.", code="invalid_path")
    return text


def _pattern(path: str) -> _Pattern:
    literals, names = [], []
    for at, segment in enumerate(path.split("/")):
        if segment.startswith("{"):
            names.append((at, segment.strip("{}")))
        else:
            literals.append((at, segment))
    return _Pattern(tuple(literals), tuple(names), {})


def _with_head(methods: Mapping[str, Any]) -> set[str]:
    return {*methods, "HEAD"} if "GET" in methods else set(methods)
