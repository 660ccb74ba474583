"""Types that can be payloads, values of them, and a cipher: what the tests of the codec share."""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import strategies as st

from atone.codec import Codec, Schema
from atone.errors import PayloadError

SECRET = "4111-1111-1111-1111"
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    BIG = 2


class Word(enum.StrEnum):
    YES = "yes"


class Half(enum.Enum):
    HALF = 0.5


@dataclass
class Payment:
    id: str
    cents: int
    captured: bool = True


@dataclass
class CardPayment(Payment):
    card: str = SECRET


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    price: Decimal
    tags: frozenset[str] = frozenset()


@dataclass
class Order:
    id: UUID
    lines: list[Line]
    notes: dict[str, str | None] = field(default_factory=dict)
    placed: datetime | None = None


@dataclass
class Box(Generic[T]):
    held: T


@dataclass
class Node:
    value: int
    next: Node | None = None


@dataclass(eq=False)
class Incomparable:
    value: int
    more: Any = None


@dataclass
class Ignoring:
    seen: int
    unseen: Any = field(default=None, compare=False)


@dataclass(init=False)
class OwnInit:
    total: int

    def __init__(self, *parts: int) -> None:
        self.total = sum(parts)


@dataclass
class Derived:
    base: int
    double: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.double = 2 * self.base


@dataclass
class Growing:
    count: int

    def __post_init__(self) -> None:
        self.count += 1


@dataclass
class Choosy:
    card: str

    def __post_init__(self) -> None:
        if self.card == SECRET:
            raise ValueError(f"Expected another card than {self.card}")


@dataclass
class Nothing:
    pass


@dataclass
class Late:
    missing: Absent  # noqa: F821 - as a name imported for type checkers only


class Stock(msgspec.Struct):
    sku: str
    left: int = 0


class OneStock(Stock):
    place: str = "here"


class Cat(msgspec.Struct, tag=True, frozen=True):
    lives: int


class Dog(msgspec.Struct, tag=True, frozen=True):
    name: str


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    a: int


class Address(TypedDict):
    street: str
    number: int


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Item(pydantic.BaseModel):
    sku: str = pydantic.Field(alias="stockKeepingUnit")
    many: int = 1
    price: Decimal = Decimal(1)
    at: datetime | None = None
    tags: set[str] = set()


class Basket(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    items: list[Item]
    note: str | None = None
    counts: dict[str, int] = {}

    @pydantic.computed_field
    @property
    def size(self) -> int:
        return len(self.items)


@dataclass
class Parcel:
    basket: Basket
    items: dict[str, Item]
    best: Item | None = None


class Sealer:
    """A small authenticated cipher of the standard library: enough to tell right from wrong, no more."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def _mask(self, nonce: bytes, data: bytes) -> bytes:
        stream = hashlib.shake_256(self.key + nonce).digest(len(data))
        return bytes(x ^ y for x, y in zip(data, stream, strict=True))

    def _tag(self, nonce: bytes, context: bytes, data: bytes) -> bytes:
        return hmac.digest(self.key, len(context).to_bytes(4, "big") + context + nonce + data, "sha256")

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        nonce = secrets.token_bytes(16)
        masked = self._mask(nonce, data)
        return nonce + self._tag(nonce, context, masked) + masked

    def decrypt(self, data: bytes, context: bytes) -> bytes:
        nonce, tag, masked = data[:16], data[16:48], data[48:]
        if not hmac.compare_digest(tag, self._tag(nonce, context, masked)):
            raise ValueError(f"bad tag for {SECRET}")
        return self._mask(nonce, masked)


def schema(tp: Any, **limits: Any) -> Schema:
    return Codec(**limits).schema(tp)


def refused(act: Callable[[], object]) -> str:
    """Return the words of the PayloadError that `act` raises; no payload may be among them."""
    with pytest.raises(PayloadError) as caught:
        act()
    words = str(caught.value)
    assert caught.value.code == "payload"
    assert SECRET not in words
    assert words.endswith(".")
    return words


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ints = st.integers() | st.integers(-(2**200), 2**200)
floats = st.floats(allow_nan=False, allow_infinity=False)
decimals = st.decimals(allow_nan=False)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=st.none() | offsets | st.just(UTC)).map(lambda moment: moment.replace(fold=0))
lines = st.builds(Line, texts, decimals, st.frozensets(texts, max_size=3))
items = st.builds(
    Item,
    stockKeepingUnit=texts,
    many=st.integers(),
    price=st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9),
    at=st.none() | moments,
    tags=st.sets(texts, max_size=3),
)
baskets = st.builds(
    Basket, items=st.lists(items, max_size=3), note=st.none() | texts, counts=st.dictionaries(texts, ints, max_size=2)
)
json_values = st.recursive(
    st.none() | st.booleans() | ints | floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)

ZOO: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, ints),
    (float, floats),
    (str, texts),
    (bytes, st.binary(max_size=30)),
    (list[int], st.lists(ints, max_size=5)),
    (tuple[int, str], st.tuples(ints, texts)),
    (tuple[int, ...], st.lists(ints, max_size=5).map(tuple)),
    (dict[str, float], st.dictionaries(texts, floats, max_size=5)),
    (dict[int, bool], st.dictionaries(ints, st.booleans(), max_size=5)),
    (dict[UUID, date], st.dictionaries(st.uuids(), st.dates(), max_size=3)),
    (set[str], st.sets(texts, max_size=5)),
    (frozenset[int], st.frozensets(ints, max_size=5)),
    (Colour, st.sampled_from(Colour)),
    (Size, st.sampled_from(Size)),
    (dict[Colour, list[Size]], st.dictionaries(st.sampled_from(Colour), st.lists(st.sampled_from(Size), max_size=3))),
    (datetime, moments),
    (date, st.dates()),
    (time, st.times(timezones=st.none() | offsets).map(lambda clock: clock.replace(fold=0))),
    (timedelta, st.timedeltas()),
    (Decimal, decimals),
    (UUID, st.uuids()),
    (int | str | None, ints | texts | st.none()),
    (Literal["a", 1] | None, st.sampled_from(["a", 1, None])),
    (Annotated[int, msgspec.Meta(ge=0)], st.integers(min_value=0)),
    (Any, json_values),
    (dict[str, object], st.dictionaries(texts, json_values, max_size=3)),
    (Payment, st.builds(Payment, texts, ints, st.booleans())),
    (
        Order,
        st.builds(Order, st.uuids(), st.lists(lines, max_size=3), st.dictionaries(texts, texts, max_size=3), moments),
    ),
    (Box[list[Line]], st.builds(Box, st.lists(lines, max_size=3))),
    (Node, st.builds(Node, ints, st.none() | st.builds(Node, ints))),
    (Nothing, st.builds(Nothing)),
    (OwnInit, st.builds(OwnInit, ints)),
    (Derived, st.builds(Derived, ints)),
    (Stock, st.builds(Stock, texts, ints)),
    (Cat | Dog, st.builds(Cat, ints) | st.builds(Dog, texts)),
    (list[Cat | Dog | None], st.lists(st.none() | st.builds(Dog, texts), max_size=3)),
    (Address, st.fixed_dictionaries({"street": texts, "number": ints})),
    (Point, st.builds(Point, floats, floats)),
    (Item, items),
    (Basket, baskets),
    (Parcel, st.builds(Parcel, baskets, st.dictionaries(texts, items, max_size=2), st.none() | items)),
    (list[Basket | None], st.lists(st.none() | baskets, max_size=2)),
]
SCHEMAS = [(Codec().schema(tp), values) for tp, values in ZOO]
