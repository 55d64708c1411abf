"""How sure it is that an instrument is the security that a broker means: the evidence, what it weighs, what follows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pricecache.core.broker.data import BrokerSecurity, SecurityKind
from pricecache.core.currencies import major
from pricecache.core.instruments import Instrument, InstrumentKind

MappingState = Literal["mapped", "review", "unmapped", "overridden"]
Means = Literal["exchange", "ticker", "coin", "identifier", "name"]
"""By what a candidate was come upon."""

MAPPED_FROM = 0.8
REVIEW_FROM = 0.5
CLOSE_CALL = 0.1
"""A second candidate that is so near to the first leaves it open which of them is meant."""
CONFLICTED = 0.7
"""The most that a candidate can have which something speaks against for certain."""
PRICE_AGREES = 0.03
PRICE_CONFLICTS = 0.25
"""How far apart, as a share of the close, two prices of one thing can be; and from where on they are of two."""

_MEANS: dict[Means, tuple[float, str, str]] = {
    "exchange": (0.70, "ticker_on_exchange", "{symbol} is the ticker, on the exchange that was named"),
    "ticker": (0.50, "ticker", "{symbol} is the ticker; no exchange was named"),
    "coin": (0.70, "coin", "{symbol} is the code of the coin and its currency"),
    "identifier": (0.65, "identifier", "a provider answered with {symbol} to its ISIN, CUSIP or SEDOL"),
    "name": (0.25, "found_by_name", "a provider answered with {symbol} to its name"),
}
_LEGAL_WORDS = (
    "INC INCORPORATED CORP CORPORATION CO COMPANY LTD LIMITED PLC LLC LP LLP SA AG SE NV SPA AB ASA OYJ AS KGAA BV PTY "
    "HOLDING HOLDINGS GROUP THE COMMON STOCK STK SHS SHARES SHARE ORD ORDINARY REG REGISTERED NEW COM CL CLASS ADR ADS "
    "SPONSORED DEPOSITARY RECEIPT DEL"
)
_LEGAL = frozenset(_LEGAL_WORDS.split())
_WORDS = re.compile(r"[A-Z0-9]+")
_SAMPLE = "(sample prices)"
_KINDS: dict[SecurityKind, frozenset[InstrumentKind]] = {
    "equity": frozenset({"equity"}),
    "etf": frozenset({"etf"}),
    "mutual_fund": frozenset({"fund"}),
    "crypto": frozenset({"crypto"}),
}
_TOLERATED = {("equity", "etf"), ("etf", "equity"), ("etf", "fund"), ("mutual_fund", "etf")}
"""Kinds that brokers and providers call by each other's name."""
PRICED_BY_BROKERS: frozenset[SecurityKind] = frozenset({"derivative", "fixed_income", "loan", "cash"})
"""Kinds of which no provider has prices."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence. `weight`: what it adds to the confidence; `is_conflict`: it rules a mapping out."""

    code: str
    weight: float
    detail: str
    is_conflict: bool = False

    def __str__(self) -> str:
        return f"{self.code} ({self.weight:+.2f}): {self.detail}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instrument that may be meant, and what is known of it.

    `is_listed`: it is known here with prices, or a provider names it; None: nobody could be asked. `close`: on the day
    of the broker's price, in the whole of `currency`. `is_renamed`: it had the ticker when the security was first used,
    and has another now. `is_identified`: a provider answered with it to a number of the security. `ended`: it traded
    for the last time before that day; `began`: for the first time after it.
    """

    instrument: Instrument
    means: Means
    name: str | None = None
    kind: InstrumentKind | None = None
    currency: str | None = None
    close: float | None = None
    is_listed: bool | None = None
    is_renamed: bool = False
    is_identified: bool = False
    ended: bool = False
    began: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """What is thought of a security: `instrument` is the likeliest candidate, None without any. `is_checked`: its
    price was held against the broker's; `is_off`: and is another."""

    instrument: Instrument | None
    confidence: float
    state: MappingState
    reasons: tuple[str, ...]
    is_checked: bool = False
    is_off: bool = False


def judged_of(
    security: BrokerSecurity,
    candidates: Sequence[tuple[Candidate, float | None]],
    price: float | None,
    rivals: Sequence[tuple[Candidate, float | None]] = (),
) -> Judged:
    """The best of `candidates`, each with how alike the names are (0 to 100, None where one is not known). `price`: the
    broker's, in the whole currency of the security. `rivals`: such as cannot be the best, and may be as likely."""
    if not candidates:
        return Judged(
            None, 0.0, "unmapped", ("no_candidate (+0.00): nothing known here or to the providers is like it",)
        )

    def weighed(some: Sequence[tuple[Candidate, float | None]]) -> list[tuple[Candidate, list[Reason]]]:
        return [(one, _evidence(security, one, alike, price)) for one, alike in some]

    ranked = sorted(weighed(candidates), key=lambda pair: -_weight(pair[1]))
    best, evidence = ranked[0]
    confidence = _confidence(evidence)
    others = (*ranked[1:], *weighed(rivals))
    rival = next((one for one, reasons in others if _is_close(best, evidence, one, reasons)), None)
    if rival is not None and confidence >= REVIEW_FROM:
        evidence = [*evidence, Reason("ambiguous", 0.0, f"{rival.instrument} is as likely", is_conflict=True)]
        confidence = _confidence(evidence)
    is_checked = price is not None and best.close is not None
    is_off = any(reason.code == "price_differs" for reason in evidence)
    return Judged(best.instrument, confidence, _state(confidence), tuple(map(str, evidence)), is_checked, is_off)


def _state(confidence: float) -> MappingState:
    return "mapped" if confidence >= MAPPED_FROM else "review" if confidence >= REVIEW_FROM else "unmapped"


def _is_close(best: Candidate, evidence: Sequence[Reason], other: Candidate, reasons: Sequence[Reason]) -> bool:
    """A ticker on the exchange that was named is of one instrument, unless another one had it before."""
    if best.means != "exchange":
        return _confidence(reasons) > _confidence(evidence) - CLOSE_CALL
    return other.means == "exchange" and _weight(reasons) > round(_weight(evidence) - CLOSE_CALL, 2)


def _confidence(evidence: Sequence[Reason]) -> float:
    return min(1.0, _weight(evidence))


def _weight(evidence: Sequence[Reason]) -> float:
    """All that speaks for it, which may be more than it takes to be sure."""
    weight = max(0.0, sum(reason.weight for reason in evidence))
    is_conflict = any(reason.is_conflict for reason in evidence)
    return round(min(CONFLICTED, weight) if is_conflict else weight, 2)


def _evidence(security: BrokerSecurity, one: Candidate, alike: float | None, price: float | None) -> list[Reason]:
    weight, code, detail = _MEANS[one.means]
    found = [Reason(code, weight, detail.format(symbol=one.instrument))]
    judges = (_listing(one), _name(security, one, alike), _currency(security, one), _kind(security, one))
    found += [reason for reason in (*judges, _price(one, price)) if reason is not None]
    if one.is_identified and one.means != "identifier":
        found.append(Reason("number_agrees", 0.2, "a provider answered with it to its ISIN, CUSIP or SEDOL"))
    if one.ended:
        found.append(Reason("ended_before", -0.3, "it was delisted before this was first used", is_conflict=True))
    if one.began:
        found.append(Reason("began_after", -0.3, "it was listed after this was first used", is_conflict=True))
    return found


def _listing(one: Candidate) -> Reason | None:
    if one.is_listed is None:
        return None
    if one.is_listed:
        return Reason("listed", 0.1, "it is known here or to a provider")
    return Reason("not_found", -0.3, "no provider knows it")


def _name(security: BrokerSecurity, one: Candidate, alike: float | None) -> Reason | None:
    if alike is None:
        return None
    said = f"{security.name} and {one.name}"
    if alike >= 90:
        return Reason("name_agrees", 0.25, said)
    if alike >= 75:
        return Reason("name_similar", 0.15, said)
    if alike >= 55:
        return Reason("name_unsure", 0.0, said)
    if one.is_renamed:
        return Reason("renamed", 0.0, said)
    return Reason("name_differs", -0.35, said)


def _currency(security: BrokerSecurity, one: Candidate) -> Reason | None:
    if one.currency is None:
        return None
    if major(one.currency) == major(security.currency):
        return Reason("currency_agrees", 0.1, one.currency)
    said = f"{security.currency} against {one.currency}"
    return Reason("currency_differs", -0.2, said, is_conflict=True)


def _kind(security: BrokerSecurity, one: Candidate) -> Reason | None:
    if one.kind is None or security.kind not in _KINDS:
        return None
    if one.kind in _KINDS[security.kind]:
        return Reason("kind_agrees", 0.05, one.kind)
    if (security.kind, one.kind) in _TOLERATED:
        return None
    return Reason("kind_differs", -0.2, f"{security.kind} against {one.kind}")


def _price(one: Candidate, price: float | None) -> Reason | None:
    if price is None or one.close is None or price <= 0 or one.close <= 0:
        return None
    apart = abs(price / one.close - 1)
    said = f"{price:g} against a close of {one.close:g}"
    if apart <= PRICE_AGREES:
        return Reason("price_agrees", 0.2, said)
    if apart <= PRICE_CONFLICTS:
        return Reason("price_near", 0.0, said)
    return Reason("price_differs", -0.3, said, is_conflict=True)


@lru_cache(4096)
def plain_name(name: str | None) -> str | None:
    """The words of a name that tell it from others, in upper case; None where there are none, or where it says that it
    is not a real one."""
    if name is None or _SAMPLE in name:
        return None
    words = _WORDS.findall(name.upper().replace("'", "").replace(".", ""))
    return " ".join(word for word in words if word not in _LEGAL) or " ".join(words) or None
