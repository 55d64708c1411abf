"""The endpoints of reconstructions."""

from __future__ import annotations

from pricecache.api import reconstruction
from pricecache.api import reconstruction_answers as answers
from pricecache.api import reconstruction_inputs as inputs
from pricecache.api.routing import Route

_BASE, _TAGS = "/api/portfolio/reconstruction", ("reconstruction",)

RECONSTRUCTION_ROUTES: tuple[Route, ...] = (
    Route(
        "POST", _BASE + "/request", reconstruction.request, scope="user", query=inputs.RequestQuery,
        body=inputs.ReconstructionBody, body_optional=True, takes_file=True, max_body_bytes=inputs.MOST_BYTES,
        more_seconds=inputs.SECONDS,
        answers={200: answers.RequestedOut, 202: answers.RequestedOut}, tags=_TAGS,
        summary="Make the history of what a broker says, posted or known already; an equal request joins.",
    ),
    Route(
        "GET", _BASE + "/status", reconstruction.status, scope="user", query=inputs.StatusQuery,
        answers={200: answers.StatusesOut}, tags=_TAGS,
        summary="How far each has come, and what came of the last one.",
    ),
    Route(
        "GET", _BASE + "/metrics", reconstruction.metrics, scope="ops",
        answers={200: answers.ReconstructionMetricsOut}, tags=_TAGS,
        summary="How reconstructions fare, and what they cost.",
    ),
)  # fmt: skip
