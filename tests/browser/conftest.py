"""A real Chromium for the tests of pages: one for each module, an empty window for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Skips on a laptop without one, and fails in CI.

    Not for the session: playwright's loop is taken for the running one until it ends, and tests that want a loop of
    their own come after these.
    """
    program = shutil.which("chromium")
    if program is None:
        reason = "chromium is not installed, so pages cannot be tried (apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty window with a session of its own. Whatever it asks for has to be on this machine."""
    context = browser.new_context()
    context.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # asked for by itself; the daemon has none
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    yield page
    context.close()
    assert {urlsplit(url).hostname for url in asked if not url.startswith("data:")} <= {"127.0.0.1"}
