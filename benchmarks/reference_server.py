"""The reference of the HTTP figures: a bare aiohttp application whose handler returns ready bytes.

`python -m benchmarks.reference_server PORT FILE` serves the bytes of FILE at `/`, as JSON; without FILE, nothing but a
health answer, which is the empty daemon of the start figures.
"""

from __future__ import annotations

import sys

from aiohttp import web


def main(port: int, path: str | None) -> None:
    body = open(path, "rb").read() if path else b'{"status":"ok"}'  # noqa: SIM115

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    application = web.Application()
    application.router.add_get("/", answer)
    application.router.add_get("/healthz", answer)
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
