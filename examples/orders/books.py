"""The books: what the participants wrote, held against how each saga ended.

Owns the rules by which an order's effects are right. Pure: plain data in, a list of what is off out; where the data
comes from is `audit`'s business. Knows the business, not the mechanism that is meant to keep it right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from examples.orders.domain import Order

COMPLETED, COMPENSATED = "completed", "compensated"


@dataclass(frozen=True, slots=True)
class Movement:
    """Pieces taken off the shelf (`reserve`) or put back (`release`)."""

    kind: str
    order_id: str
    sku: str
    quantity: int

    @property
    def taken(self) -> int:
        """Pieces that left the shelf; negative when they came back."""
        return self.quantity if self.kind == "reserve" else -self.quantity


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Money captured (`charge`) or given back (`refund`)."""

    kind: str
    order_id: str
    amount_cents: int

    @property
    def kept_cents(self) -> int:
        """Cents that came in; negative when they went out."""
        return self.amount_cents if self.kind == "charge" else -self.amount_cents


@dataclass(frozen=True, slots=True)
class Shelf:
    """One article: pieces at the start, pieces now."""

    sku: str
    opening: int
    on_hand: int


@dataclass(frozen=True, slots=True)
class Books:
    """Everything there is to compare: the orders, the status of each one's saga, and the participants' rows."""

    orders: tuple[Order, ...]
    ends: Mapping[str, str]
    shelves: tuple[Shelf, ...]
    movements: tuple[Movement, ...]
    ledger: tuple[LedgerEntry, ...]
    shipments: tuple[str, ...]
    """The order of each shipment."""
    confirmations: tuple[str, ...]
    """The order of each confirmation."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something is off: what it is about, what should stand there, what does."""

    about: str
    expected: int | str
    found: int | str

    def __str__(self) -> str:
        return f"{self.about}: expected {self.expected}, found {self.found}"


def check(books: Books) -> list[Mistake]:
    """Return all that is off; an empty list means every cent, piece and parcel is where the sagas say."""
    completed = tuple(order for order in books.orders if books.ends.get(order.id) == COMPLETED)
    return [
        *_ends(books),
        *_shelves(books, completed),
        *_pieces(books, completed),
        *_money(books, completed),
        *_once("shipments", books.shipments, completed),
        *_once("confirmations", books.confirmations, completed),
        *_twice("movement", ((entry.kind, entry.order_id, entry.sku) for entry in books.movements)),
        *_twice("ledger entry", ((entry.kind, entry.order_id) for entry in books.ledger)),
    ]


def _ends(books: Books) -> Iterator[Mistake]:
    for order in books.orders:
        end = books.ends.get(order.id, "no saga")
        if end not in {COMPLETED, COMPENSATED}:
            yield Mistake(f"order {order.id}, its saga", f"{COMPLETED} or {COMPENSATED}", end)
    for order_id in sorted(books.ends.keys() - {order.id for order in books.orders}):
        yield Mistake(f"order {order_id}, its saga", "no such order", books.ends[order_id])


def _shelves(books: Books, completed: Iterable[Order]) -> Iterator[Mistake]:
    """Opening stock less what completed orders took is what must be on hand."""
    sold: Counter[str] = Counter()
    for order in completed:
        for line in order.lines:
            sold[line.sku] += line.quantity
    for shelf in books.shelves:
        yield from _compare(f"{shelf.sku}, pieces on hand", shelf.opening - sold[shelf.sku], shelf.on_hand)
    for sku in sorted(sold.keys() - {shelf.sku for shelf in books.shelves}):
        yield Mistake(f"{sku}, its shelf", "one", "none")


def _pieces(books: Books, completed: Iterable[Order]) -> Iterator[Mistake]:
    """Per order and article: reserved less released is what was ordered, or nothing if the order was undone."""
    expected = {(order.id, line.sku): line.quantity for order in completed for line in order.lines}
    found: defaultdict[tuple[str, str], int] = defaultdict(int)
    for movement in books.movements:
        found[movement.order_id, movement.sku] += movement.taken
    for order_id, sku in sorted(expected.keys() | found.keys()):
        about = f"order {order_id}, pieces of {sku} taken"
        yield from _compare(about, expected.get((order_id, sku), 0), found[order_id, sku])


def _money(books: Books, completed: Iterable[Order]) -> Iterator[Mistake]:
    """Per order: captured less refunded is its total, or nothing if the order was undone."""
    expected = {order.id: order.total_cents for order in completed}
    found: defaultdict[str, int] = defaultdict(int)
    for entry in books.ledger:
        found[entry.order_id] += entry.kept_cents
    for order_id in sorted(expected.keys() | found.keys()):
        yield from _compare(f"order {order_id}, cents kept", expected.get(order_id, 0), found[order_id])


def _once(what: str, order_ids: Iterable[str], completed: Iterable[Order]) -> Iterator[Mistake]:
    """One for each completed order, none for any other."""
    expected = {order.id for order in completed}
    found = Counter(order_ids)
    for order_id in sorted(expected | found.keys()):
        yield from _compare(f"order {order_id}, {what}", int(order_id in expected), found[order_id])


def _twice(what: str, effects: Iterable[tuple[str, ...]]) -> Iterator[Mistake]:
    """No effect happens twice, not even when a second undo would make the sum come right."""
    for effect, times in sorted(Counter(effects).items()):
        if times > 1:
            yield Mistake(f"{what} {' '.join(effect)}, times", 1, times)


def _compare(about: str, expected: int, found: int) -> Iterator[Mistake]:
    if expected != found:
        yield Mistake(about, expected, found)
