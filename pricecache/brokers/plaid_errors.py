"""What Plaid's refusals mean for us: what passes, what the user must do, what whoever runs the daemon must do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from pricecache.errors import AccessRevoked, BrokerError, BrokerUnavailable, LoginRequired

# Plaid's error codes, from the `plaid-python` library and plaid.com/docs/errors
_LOGIN = frozenset(
    {
        *("ITEM_LOGIN_REQUIRED", "INVALID_CREDENTIALS", "INVALID_MFA", "INVALID_UPDATED_USERNAME", "ITEM_LOCKED"),
        *("USER_SETUP_REQUIRED", "MFA_NOT_SUPPORTED", "INSUFFICIENT_CREDENTIALS", "USER_INPUT_TIMEOUT"),
        "ADDITIONAL_CONSENT_REQUIRED",
    }
)
_REVOKED = frozenset(
    {
        *("INVALID_ACCESS_TOKEN", "ITEM_NOT_FOUND", "USER_PERMISSION_REVOKED", "ACCESS_NOT_GRANTED"),
        *("ITEM_CONCURRENTLY_DELETED", "INSTITUTION_NO_LONGER_SUPPORTED", "USER_ACCOUNT_REVOKED"),
    }
)
_NOT_READY = frozenset({"PRODUCT_NOT_READY"})
_KEYS = frozenset({"INVALID_API_KEYS", "MISSING_FIELDS_API_KEYS", "UNAUTHORIZED_ENVIRONMENT", "INVALID_PRODUCT"})
_PUBLIC_TOKEN = frozenset({"INVALID_PUBLIC_TOKEN", "EXPIRED_PUBLIC_TOKEN"})
_PASSING_TYPES = frozenset({"API_ERROR", "INSTITUTION_ERROR"})

_OTHER_ENVIRONMENT = "wrong Plaid environment"
_TOKEN = re.compile(r"\b(access|public|link)-(sandbox|development|production)-[\w-]+")
_LONGEST = 300


def refusal(status: int | None, body: Any, headers: Mapping[str, str] | None) -> BrokerError:
    """The error for an answer that is not 2xx. What it says of Plaid's words has no token in it."""
    found = _fields(body)
    if _OTHER_ENVIRONMENT in str(found.get("error_message")):  # the access is as good as ever, the settings are not
        return BrokerError("This access is of another Plaid environment than PLAID_ENV.", code="plaid_keys_refused")
    code, kind = str(found.get("error_code") or "")[:64], str(found.get("error_type") or "")[:64]
    detail = f"Plaid answered {status}{f' {code}' if code else ''}."
    if words := plain_words(found.get("error_message")):
        detail += f" {words}"
    if status == 429 or kind == "RATE_LIMIT_EXCEEDED":
        after = _seconds((headers or {}).get("Retry-After"))
        return BrokerUnavailable(detail, code="plaid_rate_limited", retry_after=after)
    if (known := of_code(code, kind, detail)) is not None:
        return known
    if not status or status >= 500 or not code:
        return BrokerUnavailable(detail, code="plaid_unavailable")
    return BrokerError(detail, code="plaid_refused", plaid_code=code, plaid_type=kind)


def of_code(code: str, kind: str, detail: str) -> BrokerError | None:
    """The error that Plaid's `error_code` stands for whatever the status, as webhooks bring it; None for others."""
    if code in _LOGIN:
        return LoginRequired(plaid_code=code)
    if code in _REVOKED:
        return AccessRevoked(plaid_code=code)
    if code in _NOT_READY:
        return BrokerUnavailable("Plaid has not gathered the accounts' data yet.", code="plaid_not_ready")
    if code in _KEYS:
        detail = f"Plaid refuses the keys of this daemon ({code}). See PLAID_CLIENT_ID, PLAID_SECRET_KEY, PLAID_ENV."
        return BrokerError(detail, code="plaid_keys_refused", plaid_code=code)
    if code in _PUBLIC_TOKEN:
        return BrokerError("The public token is unknown to Plaid or has run out.", code="bad_public_token")
    if kind in _PASSING_TYPES:
        return BrokerUnavailable(detail, code="plaid_unavailable", plaid_code=code)
    return None


def failed_call(error: Exception) -> BrokerError:
    """The error for a call that brought no answer, or none that can be read."""
    kind = type(error).__name__
    if isinstance(error, orjson.JSONDecodeError):
        return BrokerUnavailable("Plaid's answer is no JSON.", code="plaid_unavailable")
    if isinstance(error, ValueError | TypeError | AttributeError) or kind.startswith("Api"):
        # a request or an answer that the library will not have, and a refusal whose body is no text
        return BrokerError(f"The call of Plaid could not be made ({kind}).", code="plaid_answer_bad")
    return BrokerUnavailable(f"Plaid does not answer ({kind}).", code="plaid_unavailable")


def plain_words(words: Any) -> str:
    """A vendor's sentence, short, on one line and without tokens."""
    return _TOKEN.sub(r"\1-…", " ".join(words.split()))[:_LONGEST] if isinstance(words, str) else ""


def _fields(body: Any) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except (orjson.JSONDecodeError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() and len(text) < 6 else None
