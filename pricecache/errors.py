"""Every error that a caller of the daemon may see, in families by what the caller can do about it.

The docstring of a class is its default detail; `code` is stable and part of the API; facts are keyword arguments,
kept in `facts` and shown beside the detail. HTTP statuses are chosen at the edge (`api/wire.py`), nowhere else.
What only says within the daemon that a race was lost is apart: docs/architecture.md lists it.
"""

from __future__ import annotations

from typing import Any


class PricecacheError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, detail: str | None = None, *, code: str | None = None, **facts: Any) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.code = code or type(self).code
        self.facts = facts
        super().__init__(self.detail)


class Invalid(PricecacheError):
    """The request cannot be understood. Change it before sending it again.

    `rows` holds one `{"row" | "field", "code", "detail"}` for every fault found, not just the first.
    """

    code = "invalid"

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        rows: list[dict[str, Any]] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(detail, code=code, **facts)
        self.rows = rows or []


class TooMuch(Invalid):
    """One answer cannot hold all of this. Ask for less at a time."""

    code = "too_much"


class NotFound(PricecacheError):
    """There is no such thing here."""

    code = "not_found"


class Conflict(PricecacheError):
    """The thing changed meanwhile, or another owner holds it."""

    code = "conflict"


class VersionMismatch(Conflict):
    """It was changed meanwhile. Read it again, and repeat the change on what it is now."""

    code = "version_mismatch"


class Unauthorized(PricecacheError):
    """Say who you are: send X-API-Key, or Authorization: Bearer."""

    code = "unauthorized"


class Forbidden(PricecacheError):
    """You are known, and may not do this."""

    code = "forbidden"


class Unavailable(PricecacheError):
    """Not now. Try again after `retry_after` seconds."""

    code = "unavailable"

    def __init__(
        self, detail: str | None = None, *, code: str | None = None, retry_after: float = 1.0, **facts: Any
    ) -> None:
        super().__init__(detail, code=code, **facts)
        self.retry_after = retry_after


class Corrupt(PricecacheError):
    """Stored data does not match its checksum or its journal. Run `pricecache doctor --verify`."""

    code = "corrupt"


class Misconfigured(PricecacheError):
    """The settings cannot work. Change them before starting again."""

    code = "misconfigured"


class ProviderError(PricecacheError):
    """A price provider did not answer as it should."""

    code = "provider_error"


class SymbolNotFound(ProviderError):
    """The provider does not know this symbol. Alone, this is no evidence of a delisting."""

    code = "symbol_not_found"


class RateLimited(ProviderError):
    """The provider asked for fewer calls. `retry_after` is its own word in seconds, or None."""

    code = "rate_limited"

    def __init__(self, detail: str | None = None, *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.retry_after = retry_after


class ProviderUnavailable(ProviderError):
    """The provider failed in a way that passes: a time-out, a refused connection, a 5xx."""

    code = "provider_unavailable"


class NotAsked(ProviderUnavailable):
    """The provider was not asked, for a reason that passes after `retry_after` seconds. No call was made."""

    def __init__(self, detail: str | None = None, *, retry_after: float = 1.0, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.retry_after = retry_after


class BudgetSpent(NotAsked):
    """The provider's requests of this UTC day are spent."""

    code = "budget_spent"


class ProviderPaused(NotAsked):
    """The provider failed repeatedly and is not asked for a while."""

    code = "provider_paused"


class ProviderAnswerBad(ProviderError):
    """The provider answered with something that is not what was asked: HTML, a wrong symbol, another currency."""

    code = "provider_answer_bad"


class PlanExcludes(ProviderAnswerBad):
    """The user's plan with the provider does not include what was asked for. No word on whether it exists."""

    code = "provider_plan_excludes"


class BrokerError(PricecacheError):
    """The service that speaks for the broker refused. It will again, until something is changed."""

    code = "broker_refused"


class BrokerUnavailable(BrokerError):
    """The service that speaks for the broker failed in a way that passes. `retry_after`: its own word, or None."""

    code = "broker_unavailable"

    def __init__(
        self, detail: str | None = None, *, code: str | None = None, retry_after: float | None = None, **facts: Any
    ) -> None:
        super().__init__(detail, code=code, **facts)
        self.retry_after = retry_after


class LoginRequired(BrokerError):
    """The user has to log in at the institution again."""

    code = "login_required"


class AccessRevoked(BrokerError):
    """Access to the accounts has ended. Connect them again."""

    code = "access_revoked"
