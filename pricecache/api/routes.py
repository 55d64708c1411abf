"""The table: every endpoint there is, in the order the documents list them."""

from __future__ import annotations

from pricecache.api import (
    access,
    answers,
    cache,
    changes,
    corrections,
    history_answers,
    inputs,
    ledger_inputs,
    live_tracking,
    materialized,
    ops,
    providers,
    quarantine,
    runs,
    search,
    stream,
    stream_answers,
    stream_messages,
    summary,
    summary_answers,
    symbols,
)
from pricecache.api.connections import CONNECTION_ROUTES
from pricecache.api.mappings import MAPPING_ROUTES
from pricecache.api.portfolio_routes import PORTFOLIO_ROUTES
from pricecache.api.reconstruction_routes import RECONSTRUCTION_ROUTES
from pricecache.api.routing import Route
from pricecache.api.snapshot_routes import SNAPSHOT_ROUTES


def _cache_routes() -> tuple[Route, ...]:
    tags = ("cache",)
    return (
        Route(
            "GET", "/cache/status", summary.status,
            answers={200: answers.StatusOut}, tags=tags,
            summary="How it stands with everything: counts, coverage, hit rate, errors, providers, storage.",
        ),
        Route(
            "GET", "/cache/historical/{symbol}", cache.history, query=inputs.HistoryQuery,
            answers={200: answers.HistoryOut}, tags=tags,
            summary="Daily bars, with what is missing and why. ETag; 304 when nothing changed.",
        ),
        Route(
            "GET", "/cache/live", cache.live_quotes, query=inputs.LiveQuery,
            answers={200: answers.LiveOut}, tags=tags, summary="The latest quotes of many symbols.",
        ),
        Route(
            "GET", "/cache/live/{symbol}", cache.live_quote, query=inputs.MarketQuery,
            answers={200: answers.QuoteOut}, tags=tags, summary="The latest quote of one symbol.",
        ),
        Route(
            "GET", "/cache/coverage", summary.coverage_summary, query=inputs.CoverageQuery,
            answers={200: answers.SummaryOut}, tags=tags, summary="Coverage of all tracked symbols.",
        ),
        Route(
            "GET", "/cache/coverage/{symbol}", cache.coverage, query=inputs.RangeQuery,
            answers={200: answers.SymbolCoverage}, tags=tags,
            summary="Sessions expected, present, and every hole with its class.",
        ),
        Route(
            "GET", "/cache/actions/{symbol}", cache.actions, query=inputs.MarketQuery,
            answers={200: answers.ActionsOut}, tags=tags, summary="Splits and dividends known.",
        ),
        Route(
            "GET", "/cache/corrections/{symbol}", corrections.corrections, query=inputs.CorrectionsQuery,
            answers={200: answers.CorrectionsOut}, tags=tags,
            summary="What was superseded: old and new values, with source and time, newest first.",
        ),
        Route(
            "GET", "/cache/quarantine", quarantine.quarantine, query=inputs.QuarantineQuery,
            answers={200: answers.QuarantineOut}, tags=tags,
            summary="Bars and answers that were refused, or wait for review, with the reason.",
        ),
        Route(
            "GET", "/cache/providers", providers.providers,
            answers={200: answers.ProvidersOut}, tags=tags,
            summary="The providers in order: state, breaker, cool-down, budget, cost, errors.",
        ),
        Route(
            "GET", "/cache/symbols", cache.symbols, query=inputs.SymbolsQuery,
            answers={200: answers.SymbolsOut}, tags=tags,
            summary="Symbols kept, with their state, its reason, and the next retry.",
        ),
        Route(
            "GET", "/cache/symbols/search", search.search, query=inputs.SearchQuery,
            answers={200: answers.SearchOut}, tags=tags,
            summary="Instruments by symbol, name or former symbol: known here first, then the providers'.",
        ),
        Route(
            "GET", "/cache/symbols/{symbol}", symbols.details, query=inputs.MarketQuery,
            answers={200: answers.SymbolDetails}, tags=tags,
            summary="One symbol: former symbols, currencies, spellings, kind, name, its market's calendar.",
        ),
    )  # fmt: skip


def _change_routes() -> tuple[Route, ...]:
    tags = ("changes",)
    return (
        Route(
            "POST", "/cache/symbols", changes.track, scope="ops", body=inputs.TrackBody,
            answers={200: answers.TrackedOut, 201: answers.TrackedOut}, tags=tags,
            summary="Keep the prices of these symbols; new ones are filled at once.",
        ),
        Route(
            "DELETE", "/cache/symbols", changes.untrack_many, scope="ops", query=inputs.UntrackQuery,
            body=inputs.UntrackBody, body_optional=True,
            answers={200: answers.UntrackedOut}, tags=tags, summary="Keep them no longer; what is stored stays.",
        ),
        Route(
            "DELETE", "/cache/symbols/{symbol}", changes.untrack, scope="ops", query=inputs.MarketQuery,
            answers={200: answers.UntrackedOut}, tags=tags, summary="Keep it no longer; what is stored stays.",
        ),
        Route(
            "PATCH", "/cache/symbols/{symbol}", symbols.describe, scope="ops", query=inputs.MarketQuery,
            body=inputs.SymbolBody, answers={200: answers.SymbolDetails}, tags=tags,
            summary="Its end, its currency, its kind and name, and how a provider spells it.",
        ),
        Route(
            "POST", "/cache/symbols/{symbol}/rename", symbols.rename, scope="ops", query=inputs.MarketQuery,
            body=inputs.RenameBody, answers={200: answers.SymbolDetails}, tags=tags,
            summary="Another symbol from a day on; the former one leads to it.",
        ),
        Route(
            "PUT", "/cache/historical/{symbol}", changes.put_bars, scope="ops", owner_may=True,
            query=inputs.MarketQuery, body=inputs.BarsBody, max_body_bytes=1 << 20,
            answers={200: answers.StoredOut}, tags=tags,
            summary="Bars by hand: they beat a provider's.",
        ),
        Route(
            "DELETE", "/cache/historical/{symbol}", changes.retract_bars, scope="ops", owner_may=True,
            query=inputs.RangeQuery, answers={200: answers.RetractedOut}, tags=tags,
            summary="Take back bars put in by hand; the provider's show again.",
        ),
        Route(
            "POST", "/cache/quarantine/{id}/approve", quarantine.approve, scope="ops", body=inputs.ApproveBody,
            body_optional=True, answers={200: answers.QuarantineItemOut}, tags=tags,
            summary="Believe a parked bar, or a suggested split.",
        ),
        Route(
            "POST", "/cache/quarantine/{id}/drop", quarantine.drop, scope="ops", body=inputs.Nothing,
            body_optional=True, answers={200: answers.QuarantineItemOut}, tags=tags,
            summary="Do not believe it; the same values are not parked again.",
        ),
        Route(
            "PUT", "/cache/actions/{symbol}", changes.put_actions, scope="ops", owner_may=True,
            query=inputs.MarketQuery, body=inputs.ActionsBody, answers={200: answers.ActionsOut}, tags=tags,
            summary="Splits and dividends by hand.",
        ),
        Route(
            "POST", "/cache/providers/{name}/reset", providers.reset, scope="ops", body=inputs.ResetBody,
            body_optional=True, answers={200: answers.ProviderOut}, tags=tags,
            summary="Close the breaker of a provider and end its cool-down.",
        ),
        Route(
            "DELETE", "/cache/actions/{symbol}", changes.retract_actions, scope="ops", owner_may=True,
            query=inputs.RetractActionsQuery, answers={200: answers.ActionsOut}, tags=tags,
            summary="Take back splits and dividends put in by hand.",
        ),
    )  # fmt: skip


def _run_routes() -> tuple[Route, ...]:
    tags = ("runs",)
    report = {200: answers.RunOut, 202: answers.RunOut}
    return (
        Route(
            "POST", "/cache/refresh-live", runs.refresh_live, scope="ops", query=inputs.WaitQuery,
            body=inputs.RefreshBody, body_optional=True, answers=report, tags=tags, waits=True,
            summary="Fetch quotes now, of all tracked symbols or of those named.",
        ),
        Route(
            "POST", "/cache/sync-historical", runs.sync_historical, scope="ops", query=inputs.WaitQuery,
            body=inputs.Nothing, body_optional=True, answers=report, tags=tags, waits=True,
            summary="Run the staged sync now.",
        ),
        Route(
            "POST", "/cache/backfill-symbol", runs.backfill_symbol, scope="ops", query=inputs.WaitQuery,
            body=inputs.BackfillBody, answers=report, tags=tags, waits=True,
            summary="Fill one symbol now; an unknown one is tracked from now on.",
        ),
        Route(
            "GET", "/cache/scheduler/status", runs.scheduler_status,
            answers={200: answers.SchedulerOut}, tags=tags, summary="The jobs: when they run next, how they went last.",
        ),
        Route(
            "GET", "/cache/runs", runs.recent_runs, query=inputs.RunsQuery,
            answers={200: answers.RunsOut}, tags=tags, summary="The latest runs.",
        ),
        Route(
            "GET", "/cache/runs/{id}", runs.one_run,
            answers={200: answers.RunOut}, tags=tags, summary="One run: progress, counts, failures.",
        ),
        Route(
            "POST", "/api/admin/verify", runs.verify, scope="admin", query=inputs.WaitQuery, body=inputs.VerifyBody,
            body_optional=True, answers=report, tags=tags, waits=True,
            summary="Hold the stored record against its journal.",
        ),
    )  # fmt: skip


def _access_routes() -> tuple[Route, ...]:
    tags = ("access",)
    return (
        Route(
            "GET", "/api/admin/keys", access.keys, scope="admin",
            answers={200: answers.KeysOut}, tags=tags, summary="Keys made here, without their secrets.",
        ),
        Route(
            "POST", "/api/admin/keys", access.create_key, scope="admin", body=inputs.KeyBody,
            answers={201: answers.NewKeyOut}, tags=tags, summary="Make a key. Its secret is shown this once.",
        ),
        Route(
            "DELETE", "/api/admin/keys/{id}", access.revoke_key, scope="admin",
            answers={200: answers.KeyOut}, tags=tags, summary="Revoke a key.",
        ),
        Route(
            "POST", "/api/session", access.open_session, scope="user", body=inputs.Nothing, body_optional=True,
            answers={200: answers.SessionOut}, tags=tags, summary="A page's token for a session cookie.",
        ),
        Route(
            "DELETE", "/api/session", access.end_session, scope="user",
            answers={200: answers.SessionOut}, tags=tags, summary="End the page's session.",
        ),
    )  # fmt: skip


def _ops_routes() -> tuple[Route, ...]:
    tags, html = ("operations",), {200: "text/html"}
    return (
        Route("GET", "/health", ops.health, None, answers={200: answers.HealthOut, 503: answers.HealthOut}, tags=tags,
              summary="ok when it can serve."),
        Route("GET", "/healthz", ops.healthz, None, answers={200: answers.HealthOut}, tags=tags,
              summary="ok when the process is alive."),
        Route("GET", "/readyz", ops.readyz, None, answers={200: answers.HealthOut, 503: answers.HealthOut}, tags=tags,
              summary="Whether it can serve, with every check."),
        Route("GET", "/metrics", ops.metrics, answers={200: "text/plain"}, tags=tags,
              summary="Metrics in the text format of Prometheus."),
        Route("GET", "/openapi.json", ops.OpenApi(lambda: ROUTES), None, answers={200: "application/json"}, tags=tags,
              summary="This description."),
        Route("GET", "/docs", ops.docs_page, None, answers=html, tags=tags, summary="This description, for people."),
        Route("GET", "/docs/{name}", ops.static_file, None, answers={200: "text/plain"}, tags=tags,
              summary="What the page is made of."),
        Route("GET", "/static/stream.js", ops.stream_client, None, answers={200: "text/javascript"}, tags=tags,
              summary="A JavaScript module with which pages follow portfolios."),
        Route("GET", "/", ops.start_page, None, answers=html, tags=tags, summary="Where to begin."),
    )  # fmt: skip


def _materialized_routes() -> tuple[Route, ...]:
    tags, base = ("materialized history",), "/api/admin/history"
    return (
        Route(
            "POST", base + "/materialize", materialized.materialize, scope="ops", query=inputs.WaitQuery,
            body=ledger_inputs.MaterializeBody, body_optional=True, waits=True,
            answers={200: answers.RunOut, 202: answers.RunOut}, tags=tags,
            summary="Store the settled rows of one portfolio, or of all that are behind.",
        ),
        Route(
            "GET", base + "/stats", materialized.stats, scope="ops",
            answers={200: history_answers.MaterializedOut}, tags=tags,
            summary="What is stored of histories, how much of what could be, and drift.",
        ),
        Route(
            "GET", "/api/admin/queue-stats", live_tracking.queue_stats, scope="ops",
            answers={200: summary_answers.QueueStatsOut}, tags=("real time",),
            summary="What waits to be valued anew, what was merged and put off, and what it cost.",
        ),
        Route(
            "POST", base + "/invalidate", materialized.invalidate, scope="ops", body=ledger_inputs.InvalidateBody,
            answers={200: history_answers.InvalidatedOut}, tags=tags,
            summary="Let rows be computed again from a date on.",
        ),
    )  # fmt: skip


def _stream_routes() -> tuple[Route, ...]:
    tags = ("streaming",)
    return (
        Route(
            "GET", "/ws/portfolio", stream.portfolio_socket, scope="user", query=stream_messages.SocketQuery,
            takes_ticket=True, answers={101: "application/json"}, tags=tags,
            summary="Portfolios and prices as they change, over WebSocket.",
        ),
        Route(
            "GET", "/api/stream", stream.events, scope="user", query=stream_messages.StreamQuery, takes_ticket=True,
            answers={200: "text/event-stream"}, tags=tags, summary="The same as Server-Sent Events.",
        ),
        Route(
            "POST", "/api/stream/ticket", stream.make_ticket, scope="user", body=inputs.Nothing, body_optional=True,
            answers={200: stream_answers.TicketOut}, tags=tags,
            summary="A ticket for one stream, for a client that can set no header.",
        ),
        Route(
            "GET", "/api/admin/websocket-stats", stream.stats, scope="ops",
            answers={200: stream_answers.StreamStatsOut}, tags=tags, summary="How streams fare on this daemon.",
        ),
    )  # fmt: skip


ROUTES: tuple[Route, ...] = (
    *_cache_routes(),
    *_change_routes(),
    *_run_routes(),
    *_access_routes(),
    *_ops_routes(),
    *PORTFOLIO_ROUTES,
    *_materialized_routes(),
    *_stream_routes(),
    *RECONSTRUCTION_ROUTES,
    *CONNECTION_ROUTES,
    *MAPPING_ROUTES,
    *SNAPSHOT_ROUTES,
)
