"""Which values are decoded once for all steps, and which anew for each: nobody sees what another step changed."""

from __future__ import annotations

import enum
from abc import ABC
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest

from atone import Completed, Context, Saga, pivot, retriable, step
from atone.codec import Codec
from tests.runtime.world import opened, run, sqlite

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Line:
    item: str
    colours: tuple[Colour, ...] = ()


class Order(msgspec.Struct, frozen=True):
    id: UUID
    at: datetime
    price: Decimal | None
    lines: frozenset[Line] = frozenset()


class Pair(NamedTuple):
    left: int
    right: Line


@dataclass(frozen=True)
class Tree:
    name: str
    children: tuple[Tree, ...] = ()


@dataclass
class Loose:
    item: str


@dataclass(frozen=True)
class HoldsList:
    items: list[str]


@dataclass(frozen=True)
class HoldsLoose:
    loose: Loose | None


@dataclass(frozen=True)
class Hides:
    item: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", [])


@dataclass(frozen=True)
class FieldOfItsOwn:
    item: str
    seen: list[str] = field(default_factory=list[str], init=False)


@dataclass(frozen=True)
class Caches:
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split(",")


@dataclass(frozen=True)
class InheritsTheCache(Caches):
    more: str


class OwnCache:
    """A cached property as other libraries have it."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return instance.__dict__.setdefault("lines", [])


@dataclass(frozen=True)
class CachesByItself:
    text: str
    lines = OwnCache()


@dataclass(frozen=True)
class WritesPastTheFreeze:
    text: str

    def lines(self) -> list[str]:
        object.__setattr__(self, "found", self.text.split(","))
        return self.found


class Room:
    __slots__ = ("found",)


@dataclass(frozen=True, slots=True)
class HasRoom(Room):
    text: str


class CachingStruct(msgspec.Struct, frozen=True, dict=True):
    text: str


class CachingPair(Pair):
    """Without `__slots__` it has room for anything."""


@dataclass(frozen=True)
class Usual:
    """What most people write."""

    LIMIT: ClassVar[int] = 3
    text: str = ""
    line: Line = Line("none")

    def __str__(self) -> str:
        return self.text

    @property
    def short(self) -> str:
        return self.text[:3]

    @classmethod
    def parse(cls, text: str) -> Usual:
        return cls(text)

    @staticmethod
    def empty() -> str:
        return ""


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Slim:
    text: str
    line: Line = Line("none")


@dataclass(frozen=True)
class Inherits(Usual):
    more: int = 0


class Priced(Protocol):
    def price(self) -> int: ...


@dataclass(frozen=True)
class Box(Generic[T]):
    content: str


@dataclass(frozen=True)
class Mixed(Box[int], Priced, ABC):
    more: int = 0

    def price(self) -> int:
        return self.more


class LooseStruct(msgspec.Struct):
    item: str


class Typed(TypedDict):
    item: str


class LoosePair(NamedTuple):
    left: int
    right: list[int]


@pytest.mark.parametrize(
    "kind",
    [int, str | None, Colour, Line, Order, Pair, Tree, Usual, Slim, Inherits, Mixed, tuple[int, Line], bytes],
    ids=str,
)
def test_what_nobody_can_change_is_shared(kind: Any) -> None:
    """Frozen all the way down."""
    assert Codec().schema(kind).is_shareable


@pytest.mark.parametrize(
    "kind",
    [list[int], dict[str, int], set[int], Any, Loose, HoldsList, HoldsLoose, Hides, FieldOfItsOwn, LooseStruct, Typed,
     LoosePair, Caches, InheritsTheCache, CachesByItself, WritesPastTheFreeze, HasRoom, CachingStruct, CachingPair,
     Caches | None, tuple[list[int], ...], Loose | None],
    ids=str,
)  # fmt: skip
def test_what_somebody_could_change_is_not(kind: Any) -> None:
    """Somewhere in it there is room for a change, or for something hidden."""
    assert not Codec().schema(kind).is_shareable


class Careless(Saga[HoldsList], version=1):
    """Its steps change what they are handed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[str]]] = []

    @step(no_compensation="nothing is done")
    async def first(self, ctx: Context[HoldsList]) -> HoldsList:
        self._see("first", ctx.input)
        return HoldsList(["kept"])

    @pivot(first)
    async def second(self, ctx: Context[HoldsList], first: HoldsList) -> Line:
        self._see("second", ctx.input)
        self._see("second", first)
        return Line("as stored")

    @retriable(first, second)
    async def third(self, ctx: Context[HoldsList], first: HoldsList, second: Line) -> Line:
        self._see("third", ctx.input)
        self._see("third", first)
        return second

    def _see(self, step: str, value: HoldsList) -> None:
        self.seen.append((step, [*value.items]))
        value.items.append(f"changed by {step}")


def test_no_step_sees_what_another_did_to_its_copy(tmp_path: Path) -> None:
    """Neither of the input nor of a result."""
    careless = Careless()

    async def main() -> None:
        async with opened(sqlite(tmp_path), careless) as orchestrator:
            outcome = await orchestrator.execute(Careless, HoldsList(["given"]), saga_id="1")
            assert isinstance(outcome, Completed)
            assert outcome[Careless.first] == HoldsList(["kept"])

    run(main())
    assert careless.seen == [
        ("first", ["given"]),
        ("second", ["given"]),
        ("second", ["kept"]),
        ("third", ["given"]),
        ("third", ["kept"]),
    ]
