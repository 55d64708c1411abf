"""The endpoints of portfolios: what is in them, and what they are and were worth."""

from __future__ import annotations

from pricecache.api import (
    breakdown,
    breakdown_answers,
    exports,
    histories,
    history_answers,
    holdings,
    import_inputs,
    imports,
    ledger_answers,
    ledger_inputs,
    live_tracking,
    order_answers,
    order_inputs,
    orders,
    portfolio_events,
    portfolio_summary,
    portfolios,
    returns,
    returns_answers,
    returns_inputs,
    summary_answers,
    transactions,
)
from pricecache.api.routing import Route

_BASE, _TAGS = "/api/portfolios", ("portfolios",)

_PORTFOLIOS = (
    Route(
        "POST", _BASE, portfolios.create, scope="user", body=ledger_inputs.PortfolioBody,
        answers={201: ledger_answers.PortfolioOut}, tags=_TAGS, summary="Make a portfolio.",
    ),
    Route(
        "GET", _BASE, portfolios.list_all, scope="user",
        answers={200: ledger_answers.PortfoliosOut}, tags=_TAGS, summary="The user's portfolios, oldest first.",
    ),
    Route(
        "GET", _BASE + "/{id}", portfolios.one, scope="user", answers={200: ledger_answers.PortfolioOut}, tags=_TAGS,
        summary="One portfolio. Its ETag goes into If-Match of a change.",
    ),
    Route(
        "PATCH", _BASE + "/{id}", portfolios.change, scope="user", body=ledger_inputs.PortfolioChange,
        answers={200: ledger_answers.PortfolioOut}, tags=_TAGS, summary="Change its name or its rules, or archive it.",
    ),
    Route(
        "DELETE", _BASE + "/{id}", portfolios.delete, scope="user",
        answers={200: ledger_answers.DeletedOut}, tags=_TAGS,
        summary="Delete it with all its accounts, transactions and orders.",
    ),
)  # fmt: skip

_ACCOUNTS = (
    Route(
        "POST", _BASE + "/{id}/accounts", portfolios.create_account, scope="user",
        body=ledger_inputs.AccountBody, answers={201: ledger_answers.AccountOut}, tags=_TAGS,
        summary="Make an account in it.",
    ),
    Route(
        "GET", _BASE + "/{id}/accounts", portfolios.accounts, scope="user",
        answers={200: ledger_answers.AccountsOut}, tags=_TAGS, summary="Its accounts, oldest first.",
    ),
    Route(
        "PATCH", _BASE + "/{id}/accounts/{accountId}", portfolios.change_account, scope="user",
        body=ledger_inputs.AccountChange, answers={200: ledger_answers.AccountOut}, tags=_TAGS,
        summary="Rename or archive an account.",
    ),
    Route(
        "DELETE", _BASE + "/{id}/accounts/{accountId}", portfolios.delete_account, scope="user",
        answers={200: ledger_answers.DeletedOut}, tags=_TAGS, summary="Delete an account that no transaction names.",
    ),
)  # fmt: skip

_TRANSACTIONS = (
    Route(
        "POST", _BASE + "/{id}/transactions", transactions.add, scope="user",
        body=ledger_inputs.TransactionsBody, max_body_bytes=4 << 20,
        answers={201: ledger_answers.AddedOut}, tags=_TAGS,
        summary="Put transactions in, all or none; the same externalId once more changes the row.",
    ),
    Route(
        "GET", _BASE + "/{id}/transactions", transactions.list_all, scope="user",
        query=ledger_inputs.TransactionsQuery, answers={200: ledger_answers.TransactionsOut}, tags=_TAGS,
        summary="Its transactions by date and order of entry.",
    ),
    Route(
        "POST", _BASE + "/{id}/transactions/import", imports.import_file, scope="user",
        query=import_inputs.ImportQuery, body=import_inputs.ImportBody, takes_file=True,
        max_body_bytes=import_inputs.MOST_BYTES, more_seconds=import_inputs.SECONDS,
        answers={200: ledger_answers.ImportPreviewOut, 201: ledger_answers.ImportedOut}, tags=_TAGS,
        summary="A file of transactions, CSV or JSON, all or none; a dry run says what it would change.",
    ),
    Route(
        "GET", _BASE + "/{id}/transactions/export", exports.export_file, scope="user",
        query=import_inputs.ExportQuery, more_seconds=import_inputs.SECONDS,
        answers={200: "text/csv"}, tags=_TAGS,
        summary="Its transactions as a file that an import takes, every digit of them.",
    ),
    Route(
        "GET", _BASE + "/{id}/transactions/{transactionId}", transactions.one, scope="user",
        answers={200: ledger_answers.TransactionOut}, tags=_TAGS, summary="One transaction.",
    ),
    Route(
        "PUT", _BASE + "/{id}/transactions/{transactionId}", transactions.replace, scope="user",
        body=ledger_inputs.TransactionInput, answers={200: ledger_answers.TransactionOut}, tags=_TAGS,
        summary="Another row in its place.",
    ),
    Route(
        "DELETE", _BASE + "/{id}/transactions/{transactionId}", transactions.delete, scope="user",
        answers={200: ledger_answers.DeletedOut}, tags=_TAGS, summary="Take a transaction out.",
    ),
)  # fmt: skip

_ORDERS = (
    Route(
        "PUT", _BASE + "/{id}/orders/{orderId}", orders.put, scope="user", body=order_inputs.OrderBody,
        answers={200: order_answers.OrderOut, 201: order_answers.OrderOut}, tags=_TAGS,
        summary="Report an order; what is filled becomes a transaction, once.",
    ),
    Route(
        "GET", _BASE + "/{id}/orders", orders.list_all, scope="user", query=order_inputs.OrdersQuery,
        answers={200: order_answers.OrdersOut}, tags=_TAGS, summary="Its orders, the newest first.",
    ),
    Route(
        "GET", _BASE + "/{id}/orders/{orderId}", orders.one, scope="user",
        answers={200: order_answers.OrderOut}, tags=_TAGS, summary="One order.",
    ),
    Route(
        "GET", _BASE + "/{id}/events", portfolio_events.events, scope="user", query=order_inputs.EventsQuery,
        answers={200: order_answers.EventsOut}, tags=_TAGS,
        summary="What happened to it since, each event once: trades, closed positions, orders.",
    ),
)  # fmt: skip

_DAYS = (
    Route(
        "GET", _BASE + "/{id}/holdings", holdings.holdings, scope="user", query=ledger_inputs.HoldingsQuery,
        answers={200: ledger_answers.HoldingsOut}, tags=_TAGS, summary="What it holds at the end of a day.",
    ),
    Route(
        "GET", "/api/portfolio/history", histories.history, scope="user", query=ledger_inputs.ValueHistoryQuery,
        answers={200: history_answers.HISTORY_SHAPES}, tags=_TAGS,
        summary="What a portfolio or an account was worth on each calendar day.",
    ),
    Route(
        "GET", "/api/portfolio/history-data/{period}", histories.period, scope="user",
        query=ledger_inputs.PeriodQuery, answers={200: history_answers.HISTORY_SHAPES}, tags=_TAGS,
        summary="The same for a period that ends today.",
    ),
    Route(
        "GET", "/api/portfolio/performance", returns.performance, scope="user",
        query=returns_inputs.PerformanceQuery, tags=_TAGS,
        answers={200: (returns_answers.PerformanceOut, returns_answers.SeveralPerformancesOut)},
        summary="Time-weighted and money-weighted return, drawdown, volatility; by account, position, benchmark.",
    ),
)  # fmt: skip

_LIVE = (
    Route(
        "POST", _BASE + "/{id}/refresh", live_tracking.refresh, scope="user", query=returns_inputs.RefreshQuery,
        waits=False, more_seconds=live_tracking.FETCH_SECONDS,
        answers={200: summary_answers.SummaryOut}, tags=_TAGS,
        summary="Value it anew at once; prices=true asks the providers for what it holds first.",
    ),
    Route(
        "POST", "/api/portfolio/live-tracking/start", live_tracking.start, scope="user",
        answers={200: summary_answers.TrackingOut, 201: summary_answers.TrackingOut}, tags=_TAGS,
        summary="Keep the user's portfolios up to the minute from now on.",
    ),
    Route(
        "DELETE", "/api/portfolio/live-tracking/stop", live_tracking.stop, scope="user",
        answers={200: summary_answers.TrackingOut}, tags=_TAGS, summary="No longer.",
    ),
    Route(
        "GET", "/api/portfolio/live-tracking/status", live_tracking.status, scope="user",
        answers={200: summary_answers.TrackingOut}, tags=_TAGS,
        summary="Whether they are, when the next look is, and what they closed at.",
    ),
)  # fmt: skip

_NOW = (
    Route(
        "GET", "/api/portfolio/summary", portfolio_summary.summary, scope="user",
        query=returns_inputs.SummaryQuery, tags=_TAGS,
        answers={200: (summary_answers.SummaryOut, summary_answers.SeveralSummariesOut)},
        summary="What portfolios are worth now, and how they changed since the last close.",
    ),
    Route(
        "GET", "/api/portfolio/account-breakdown", breakdown.breakdown, scope="user",
        query=breakdown_answers.BreakdownQuery, tags=_TAGS,
        answers={200: (breakdown_answers.BreakdownOut, breakdown_answers.SeveralBreakdownsOut, "text/csv")},
        summary="The same by account, institution and kind, on any day too, with the shares of each day.",
    ),
)  # fmt: skip

PORTFOLIO_ROUTES: tuple[Route, ...] = (*_PORTFOLIOS, *_ACCOUNTS, *_TRANSACTIONS, *_ORDERS, *_DAYS, *_LIVE, *_NOW)
