"""The endpoints of snapshots."""

from __future__ import annotations

from pricecache.api import answers, inputs, snapshot_models, snapshots
from pricecache.api.routing import Route

SNAPSHOT_ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/api/portfolio/daily-snapshots/capture", snapshots.capture, scope="ops", query=inputs.WaitQuery,
        body=snapshot_models.CaptureBody, body_optional=True, waits=True,
        answers={200: answers.RunOut, 202: answers.RunOut}, tags=("portfolios",),
        summary="Capture what every portfolio closed at, of each day that is not captured yet.",
    ),
    Route(
        "GET", "/api/portfolio/daily-snapshots", snapshots.snapshots, scope="user",
        query=snapshot_models.SnapshotsQuery,
        answers={200: (snapshot_models.SnapshotsOut, snapshot_models.SeveralSnapshotsOut)}, tags=("portfolios",),
        summary="What portfolios closed at, day by day, as captured.",
    ),
)  # fmt: skip
