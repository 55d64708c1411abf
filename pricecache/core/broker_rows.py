"""Rows of a broker's as rows of a ledger: what each is, and a price with which the engine moves the broker's money."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from hashlib import blake2b
from typing import Any

from pricecache.core.broker import BrokerSecurity
from pricecache.core.broker_pairs import Pairs, spent
from pricecache.core.broker_prices import BrokerPrices, fitted
from pricecache.core.broker_row import BrokerRow, worth_of
from pricecache.core.findings import REASONS, Finding
from pricecache.core.ledger import ZERO, Transaction, TransactionType
from pricecache.core.lots import FINEST

_LONGEST = 200
_DEAREST = Decimal(10) ** 14
_MANY = 10_000
"""Beyond so many units the last digit of a price is money; what is left goes to the fees."""


class Names:
    """External ids below one prefix: the same for the same row or correction in every run, at most 200 characters."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._taken: dict[str, int] = {}

    def name(self, kind: str, *parts: object) -> str:
        """Of the row `kind/parts`; from its second occurrence on with the number of it."""
        text = "/".join((self._prefix, kind, *map(str, parts)))
        if len(text) > _LONGEST - 8:
            text = f"{self._prefix}/{kind}/{blake2b(text.encode(), digest_size=24).hexdigest()}"
        self._taken[text] = count = self._taken.get(text, 0) + 1
        return text if count == 1 else f"{text}~{count}"


def link_of(name: str) -> str:
    """What a dividend and the purchase made of it share."""
    return blake2b(name.encode(), digest_size=12).hexdigest()


def unit_price(value: Decimal, quantity: Decimal, *, is_bought: bool) -> tuple[Decimal, Decimal]:
    """The price of one, and what it lacks of `value` (never negative): quantity × price and the rest, which the one
    who buys pays and who sells does not get, are `value` as exactly as a ledger can say it."""
    if value >= quantity * _DEAREST:
        return _DEAREST, fitted(value - quantity * _DEAREST) if is_bought else ZERO
    if quantity < _MANY:
        return (value / quantity).quantize(FINEST).normalize() + ZERO, ZERO
    price = (value / quantity).quantize(FINEST, ROUND_DOWN if is_bought else ROUND_UP)
    return price, abs(value - price * quantity).quantize(FINEST)


class Reader:
    """Makes ledger rows, `rows`, of a broker's; `sources` has for each the place of the broker's row it is of.

    Splits are not among them: the walk has to say what they did. For one thread.
    """

    def __init__(
        self, securities: Mapping[str, BrokerSecurity], pairs: Pairs, prices: BrokerPrices, names: Names
    ) -> None:
        self._securities = securities
        self._pairs, self._prices, self._names = pairs, prices, names
        self.rows: list[Transaction] = []
        self.sources: list[int] = []
        self.findings: list[Finding] = []
        self._links: dict[int, str] = {}
        self._source = -1
        self._one = BrokerRow(None, "", None, ZERO, ZERO)  # type: ignore[arg-type]
        self._ways: dict[str, Callable[[], None]] = {
            **dict.fromkeys(("buy", "sell", "short", "cover"), self._trade),
            "reinvestment": self._reinvestment,
            **dict.fromkeys(("dividend", "return_of_capital"), self._dividend),
            "interest": self._interest,
            **dict.fromkeys(("fee", "tax"), self._charge),
            "cash": self._paid,
            "transfer": self._transfer,
            "spin_off": self._spin_off,
            "merger": self._merger,
            **dict.fromkeys(("expiry", "exercise"), self._expiry),
            "adjustment": self._adjustment,
        }

    def read(self, rows: Sequence[BrokerRow], left_out: frozenset[int] = frozenset()) -> None:
        """Everything of `rows` but `left_out`."""
        for funded in sorted(set(self._pairs.funded.values())):
            self._links[funded] = link_of(rows[funded].row.id)
        for source, one in enumerate(rows):
            if source in left_out or source in self._pairs.taken:
                continue
            self._source, self._one = source, one
            before = len(self.rows)
            self._read(rows)
            if len(self.rows) == before and not self._is_sweep():
                self._tell("row_without_effect", f"A row of kind {one.row.action} that moves nothing.")

    def _read(self, rows: Sequence[BrokerRow]) -> None:
        if self._source in self._pairs.renamed:
            return
        if self._source in self._pairs.moved:
            into, day = self._pairs.moved[self._source]
            self._moved(rows[into], day)
        elif self._one.instrument is None:
            self._of_money()
        else:
            self._ways[self._one.row.action]()

    # what every way uses

    def _add(
        self,
        what: TransactionType,
        kind: str = "t",
        *,
        quantity: Decimal | None = None,
        price: Decimal | None = None,
        amount: Decimal | None = None,
        fees: Decimal = ZERO,
        taxes: Decimal = ZERO,
        **other: Any,
    ) -> None:
        """A row of the present one's; `other`: what is not as there."""
        row, account, instrument, _, _ = self._one
        name = self._names.name(kind, row.id)
        facts = {"currency": row.currency, "account": account, "external_id": name, "note": row.note, **other}
        day, what_of = facts.pop("day", row.day), facts.pop("instrument", instrument)
        self.rows.append(Transaction(day, what, what_of, quantity, price, amount, fees, taxes, **facts))
        self.sources.append(self._source)

    def _tell(self, code: str, detail: str, **facts: Any) -> None:
        one = self._one
        self.findings.append(
            Finding(code, one.row.day, one.account, detail, one.instrument, rows=(one.row.id,), **facts)
        )

    def _correct(self, code: str, **fields: Any) -> None:
        """An adjustment, with the finding that explains it."""
        detail = f"{REASONS[code]} (row {self._one.row.id})"
        self._add("adjustment", "c", note=detail, **fields)
        row = self.rows[-1]
        self._tell(
            code, detail, quantity=row.quantity, amount=row.amount, currency=row.currency, external_id=row.external_id
        )

    def _noted(self, text: str) -> str:
        note = self._one.row.note
        return f"{text}: {note}" if note else text

    def _charges(self) -> tuple[Decimal, Decimal]:
        fees, taxes = self._one.row.fees, self._one.row.taxes
        return fitted(fees) if fees > 0 else ZERO, fitted(taxes) if taxes > 0 else ZERO

    # trades

    def _trade(self) -> None:
        one = self._one
        if not one.quantity:
            self._only_cash()
        elif one.cash:
            self._bought() if one.quantity > 0 else self._sold()
        elif one.quantity > 0 and one.row.price != 0:
            self._arrive(self._noted("came without money"))
        elif one.quantity < 0 and one.row.price:
            self._leave(self._noted("went without money"))
        else:
            self._worthless()

    def _bought(self, **more: Any) -> None:
        one, (fees, taxes) = self._one, self._charges()
        value = -one.cash - fees - taxes
        if value < 0:
            value, fees, taxes = ZERO, max(-one.cash, ZERO), ZERO
            if one.cash > 0:
                self._correct("odd_cash", instrument=None, amount=one.cash)
        self._priced("buy", value, fees, taxes, **more)

    def _sold(self, **more: Any) -> None:
        one, (fees, taxes) = self._one, self._charges()
        value = one.cash + fees + taxes
        if value < 0:
            value, fees, taxes = ZERO, -one.cash, ZERO
        self._priced("sell", value, fees, taxes, **more)

    def _priced(self, what: TransactionType, value: Decimal, fees: Decimal, taxes: Decimal, **more: Any) -> None:
        quantity, price = abs(self._one.quantity), self._one.row.price
        rest = ZERO
        if price is None or price * quantity != value or fitted(price) != price or price < 0:
            price, rest = unit_price(value, quantity, is_bought=what == "buy")
        self._add(what, quantity=quantity, price=price, fees=fees + rest, taxes=taxes, **more)

    def _worthless(self) -> None:
        quantity = self._one.quantity
        self._add("buy" if quantity > 0 else "sell", quantity=abs(quantity), price=ZERO)

    def _only_cash(self, kind: str = "t") -> None:
        """Money with a security's name on it that no shares moved for: cash in lieu, a correction of a fee."""
        one = self._one
        if one.cash > 0:
            self._add("dividend" if one.instrument is not None else "interest", kind, amount=one.cash)
        elif one.cash < 0:
            self._add("fee", kind, amount=-one.cash)

    # shares without money

    def _arrive(self, note: str | None) -> None:
        one = self._one
        assert one.instrument is not None
        price, currency = one.row.price, one.row.currency
        if not price or price < 0:
            price, currency, source = self._prices.on(one.instrument, one.row.day)
            if source is None:
                self._tell("no_price", "Nobody knows what it was worth that day; its cost counts as 0.")
        self._add("transfer_in", quantity=one.quantity, price=fitted(price), currency=currency, note=note)

    def _leave(self, note: str | None) -> None:
        self._add("transfer_out", quantity=-self._one.quantity, note=note)

    def _shares(self, note: str | None) -> None:
        self._arrive(note) if self._one.quantity > 0 else self._leave(note)

    def _transfer(self) -> None:
        one = self._one
        if not one.quantity:
            self._paid_by("transfer_in", "transfer_out")
            return
        self._shares(one.row.note)
        if one.cash:
            self._paid_by("transfer_in", "transfer_out", "m")

    def _moved(self, into: BrokerRow, day: int) -> None:
        one = self._one
        size: dict[str, Any] = {"amount": -one.cash} if one.instrument is None else {"quantity": -one.quantity}
        self._add("transfer_out", day=day, to_account=into.account, **size)

    def _expiry(self) -> None:
        one = self._one
        if one.cash and one.quantity:
            self._trade()
        elif one.quantity and (one.row.action == "expiry" or self._is_contract()):
            self._worthless()
        elif one.quantity:
            self._shares(one.row.note)
        else:
            self._only_cash()

    def _is_contract(self) -> bool:
        return self._securities[self._one.row.security or ""].is_contract

    def _merger(self) -> None:
        one = self._one
        found = self._pairs.exchanged.get(self._source)
        if found is None:
            self._trade() if one.cash or not one.quantity else self._shares(self._noted("exchanged"))
            return
        what: TransactionType = "buy" if one.quantity > 0 else "sell"
        price, rest = unit_price(found.value, abs(one.quantity), is_bought=what == "buy")
        if not found.value:
            self._tell("no_price", "Nobody knows what it was worth that day; it counts as bought for 0.")
        self._add(
            what, quantity=abs(one.quantity), price=price, fees=found.fees + rest, taxes=found.taxes,
            currency=found.currency, note=self._noted("exchanged at the value of the day"),
        )  # fmt: skip

    def _spin_off(self) -> None:
        one = self._one
        if one.quantity > 0 and not one.cash:
            value, currency = worth_of(one, self._prices)
            self._made_of(fitted(value), currency, self._noted("spun off"))
        elif one.quantity < 0 and not one.cash:
            self._leave(self._noted("spun off"))
        else:
            self._trade()

    def _adjustment(self) -> None:
        one = self._one
        if one.quantity:
            price, currency, _ = self._prices.on(one.instrument, one.row.day)  # type: ignore[arg-type]
            self._correct("broker_adjustment", quantity=one.quantity, price=price, currency=currency)
        if one.cash:
            self._correct("broker_adjustment", instrument=None, amount=one.cash)

    # income

    def _reinvestment(self) -> None:
        one = self._one
        if one.quantity <= 0:
            self._trade()
            return
        funded = self._pairs.funded.get(self._source)
        if funded is None:
            value, currency = (spent(one), one.row.currency) if spent(one) > 0 else worth_of(one, self._prices)
            self._made_of(fitted(value), currency, one.row.note)
        elif one.cash:
            self._bought(link=self._links[funded])
        else:
            self._priced("buy", fitted(spent(one)), ZERO, ZERO, link=self._links[funded])

    def _made_of(self, value: Decimal, currency: str, note: str | None) -> None:
        """Shares that came instead of money: income, and a purchase of the same value."""
        one = self._one
        price, rest = unit_price(value, one.quantity, is_bought=True)
        link = link_of(one.row.id)
        facts: dict[str, Any] = {"currency": currency, "note": note, "link": link if value else None}
        if value:
            self._add("dividend", "d", amount=value, **facts)
        else:
            self._tell("no_price", "Nobody knows what it was worth that day; it counts as bought for 0.")
        self._add("buy", quantity=one.quantity, price=price, fees=rest, **facts)

    def _dividend(self) -> None:
        one = self._one
        note = self._noted("return of capital") if one.row.action == "return_of_capital" else one.row.note
        if one.quantity > 0 and one.cash <= 0:
            self._reinvestment()
            return
        if one.cash > 0:
            fees, taxes = self._charges()
            link = self._links.get(self._source)
            self._add("dividend", amount=one.cash + fees + taxes, fees=fees, taxes=taxes, link=link, note=note)
        elif one.cash < 0:
            self._add("fee", amount=-one.cash, note=self._noted("income taken back"))
        if one.quantity:
            self._shares(self._noted("with a dividend"))

    def _interest(self) -> None:
        one = self._one
        if one.cash > 0:
            fees, taxes = self._charges()
            link = self._links.get(self._source)
            what: TransactionType = "dividend" if link is not None else "interest"
            self._add(what, amount=one.cash + fees + taxes, fees=fees, taxes=taxes, link=link)
        elif one.cash < 0:
            self._add("fee", amount=-one.cash, note=self._noted("interest paid"))
        if one.quantity:
            self._shares(self._noted("as interest"))

    def _charge(self) -> None:
        """A fee or a tax, in money, or in shares that are sold for it."""
        one = self._one
        what: TransactionType = "tax" if one.row.action == "tax" else "fee"
        if one.quantity < 0 and one.cash <= 0:
            value, currency = (-one.cash, one.row.currency) if one.cash else worth_of(one, self._prices)
            value = fitted(value)
            price, rest = unit_price(value, -one.quantity, is_bought=False)
            self._add("sell", quantity=-one.quantity, price=price, fees=rest, currency=currency)
            if value:
                self._add(what, "f", amount=value, currency=currency)
            return
        if one.cash < 0:
            self._add(what, amount=-one.cash)
        elif one.cash > 0:
            self._add("interest", amount=one.cash, note=self._noted(f"{what} paid back"))
        if one.quantity:
            self._shares(self._noted(what))

    # money

    def _paid(self) -> None:
        if self._one.quantity:
            self._shares(self._noted("paid in or out as shares"))
        else:
            self._paid_by("deposit", "withdrawal")

    def _paid_by(self, into: TransactionType, out: TransactionType, kind: str = "t") -> None:
        one, (fees, taxes) = self._one, self._charges()
        if one.cash == 0:
            return
        amount = one.cash + fees + taxes
        if amount == 0:
            self._add("fee", kind, amount=-one.cash, instrument=None)
        elif amount > 0:
            self._add(into, kind, amount=amount, fees=fees, taxes=taxes, instrument=None)
        else:
            self._add(out, kind, amount=-amount, fees=fees, taxes=taxes, instrument=None)

    def _of_money(self) -> None:
        """A row of money itself, or of a security that counts as money: buying and selling that moves nothing."""
        row, is_sweep = self._one.row, self._is_sweep()
        if self._one.quantity and not is_sweep and row.action not in ("cash", "transfer"):
            self._tell("row_without_security", "Shares of nothing: only the money of the row counts.")
        if row.action in ("cash", "transfer"):
            self._paid_by(*(("deposit", "withdrawal") if row.action == "cash" else ("transfer_in", "transfer_out")))
        elif row.action == "adjustment":
            if self._one.cash:
                self._correct("broker_adjustment", amount=self._one.cash)
        elif row.action in ("dividend", "interest", "return_of_capital"):
            self._interest_of_money()
        elif row.action in ("fee", "tax"):
            self._charge_of_money()
        elif not is_sweep:
            self._only_cash()

    def _is_sweep(self) -> bool:
        security = self._securities.get(self._one.row.security or "")
        return security is not None and security.is_money

    def _interest_of_money(self) -> None:
        one = self._one
        if one.cash > 0:
            fees, taxes = self._charges()
            self._add("interest", amount=one.cash + fees + taxes, fees=fees, taxes=taxes)
        elif one.cash < 0:
            self._add("fee", amount=-one.cash, note=self._noted("interest paid"))

    def _charge_of_money(self) -> None:
        one = self._one
        what: TransactionType = "tax" if one.row.action == "tax" else "fee"
        if one.cash < 0:
            self._add(what, amount=-one.cash)
        elif one.cash > 0:
            self._add("interest", amount=one.cash, note=self._noted(f"{what} paid back"))
