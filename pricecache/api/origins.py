"""Where a page comes from: which origins may call from a browser, and which names this daemon answers to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from pricecache.errors import Forbidden, Misconfigured

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/]+)(?::[0-9]+)?")


class Origins:
    """The origins that pages may send credentials from. Immutable, so safe anywhere.

    `allowed`: such as `https://pages.example`, without a path. Raises `Misconfigured` code `bad_origin_setting`.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(_origin_setting(text) for text in allowed)

    def allows(self, origin: str, host: str | None) -> bool:
        """Whether `origin` is one of the allowed, or the very host that is asked (header Host)."""
        return origin in self._allowed or _is_same(origin, host)

    def answer_headers(self, origin: str | None) -> dict[str, str]:
        """What tells a browser that a page of `origin` may read the answer; nothing for any other."""
        if origin is None or origin not in self._allowed:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "ETag, Location, Retry-After, X-Pricecache-Coverage",
            "Vary": "Accept-Encoding, Origin",
        }

    def preflight_headers(self, origin: str | None, methods: str) -> dict[str, str]:
        """The answer to a browser's question before a call that is not simple; `methods` as in Allow."""
        headers = self.answer_headers(origin)
        if headers:
            headers["Access-Control-Allow-Methods"] = methods
            headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, If-None-Match, X-API-Key, X-User-Id"
            headers["Access-Control-Max-Age"] = "600"
        return headers

    def require(self, origin: str | None, host: str | None) -> None:
        """Raises `Forbidden`, code `foreign_origin`, unless `origin` is given and allowed."""
        if origin is None or not self.allows(origin, host):
            raise Forbidden("Pages of this origin may not do this; PRICECACHE_ALLOWED_ORIGINS names those that may.",
                            code="foreign_origin")  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or a host name, is this machine's own loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache(256)
def names_loopback(host: str | None) -> bool:
    """The same for a Host header, which may carry a port. No header at all is no page's doing, so it passes."""
    if host is None or is_loopback(host):
        return True
    matched = _HOST.fullmatch(host)
    return matched is not None and is_loopback(matched[1])


def _origin_setting(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise Misconfigured(
            f"PRICECACHE_ALLOWED_ORIGINS has {text!r}; an origin is like https://pages.example.",
            code="bad_origin_setting",
        )
    return f"{parts.scheme}://{parts.netloc}".lower()


def _is_same(origin: str, host: str | None) -> bool:
    scheme, _, netloc = origin.partition("://")
    return scheme in ("http", "https") and host is not None and netloc.lower() == host.lower()
