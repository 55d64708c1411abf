"""A page that follows portfolios, as tests see it."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Page

FOLLOW = """async (options) => {
    const { PriceStream } = await import("/static/stream.js");
    if (options.keeps) options.storage = sessionStorage;
    const token = options.token;
    if (token) options.headers = () => ({ Authorization: `Bearer ${token}` });
    window.told = [];
    const stream = (window.stream = new PriceStream(options));
    for (const type of ["state", "snapshot", "event", "values", "prices", "stale", "deleted", "problem"])
        stream.addEventListener(type, ({ detail }) => window.told.push({ event: type, detail }));
    stream.start();
}"""
SNAPSHOT = "told.some((one) => one.event === 'snapshot')"


class Follower:
    """`errors`: what the page complained about on its console."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(url)

    def follow(self, **options: Any) -> None:
        """Begin, with the options of the stream; `keeps`: in sessionStorage, `token`: as a Bearer."""
        self.page.evaluate(FOLLOW, options)

    def until(self, condition: str, seconds: float = 5.0, **known: str) -> None:
        """Until an expression of `stream`, of what it `told`, and of what is `known` holds. Asked from here, because
        pages may not eval."""
        deadline = time.monotonic() + seconds
        while not self.page.evaluate(f"({{{', '.join(known)}}}) => {condition}", known):
            assert time.monotonic() < deadline, f"never: {condition}; it told {self.page.evaluate('told')}"
            self.page.wait_for_timeout(10)

    def pass_until(self, condition: str, seconds: float, step: float = 0.1) -> None:
        """Let the page's own clock go on in steps until an expression holds, for at most so many of its seconds."""
        for _ in range(round(seconds / step)):
            if self.page.evaluate(condition):
                return
            self.page.clock.run_for(round(1000 * step))
            self.page.wait_for_timeout(10)
        assert self.page.evaluate(condition), (
            f"not within {seconds} s: {condition}; it told {self.page.evaluate('told')}"
        )

    def told(self, event: str) -> list[dict[str, Any]]:
        """The details of all events of a kind, in order."""
        script = "(kind) => told.filter((one) => one.event === kind).map((one) => one.detail)"
        found: list[dict[str, Any]] = self.page.evaluate(script, event)
        return found

    def states(self) -> list[str]:
        return [one["state"] for one in self.told("state")]

    def numbers(self, portfolio: str = "p1") -> list[int]:
        """Of the trades, orders and closures that were told of, in order."""
        return [one["seq"] for one in self.told("event") if one["portfolioId"] == portfolio]

    def value(self, portfolio: str = "p1") -> float:
        return float(self.page.evaluate("(id) => stream.portfolio(id).account.totalValue", portfolio))
