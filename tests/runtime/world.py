"""The participants of the runtime's tests: scripted, honest about their keys, and with a memory of each call.

Owns the sagas that the tests run and what their steps do. A key that was seen has its effect once. Without a script a
step lands and returns a text. Also opens orchestrators with short polls, so that no test waits for a long timer.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from atone import Context, Orchestrator, Retry, Saga, Tried, pivot, retriable, step
from atone.codec import Codec
from atone.orchestrator import Limits
from atone.stores.sqlite import SqliteStore
from tests.runtime.faulty_store import FaultyStore

T = TypeVar("T")

AT_ONCE = Retry(attempts=3, initial=0.0, jitter=0.0)
ONCE = Retry(attempts=1, initial=0.0, jitter=0.0)


class Call(NamedTuple):
    """One call that reached a participant. `tried` is the action's key, if it was told one."""

    step: str
    saga_id: str
    key: str
    attempt: int
    tried: str | None = None


class Landing(NamedTuple):
    """What a behaviour may use: the world, the step's name, the context, and what was tried."""

    world: World
    step: str
    ctx: Context[Any]
    tried: Tried[Any] | None

    def land(self) -> str:
        """Have the effect."""
        return self.world.land(self.step, self.ctx, self.tried)


Behaviour: TypeAlias = Callable[[Landing], Awaitable[Any]]


class World:
    """Everything outside of Atone. `effects` counts by saga and step, `standing` leaves out what was undone.

    With `path`, effects outlive the process: they are written there, and read from there at first.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.calls: list[Call] = []
        self.effects: Counter[tuple[str, str]] = Counter()
        self.after_undo: list[str] = []
        self._path = path
        self._keys: dict[str, tuple[str, str]] = {}
        self._undone: set[str] = set()
        self._scripts: dict[str, deque[Behaviour]] = defaultdict(deque)
        self._always: dict[str, Behaviour] = {}
        self._reached: list[tuple[str, int, asyncio.Event]] = []
        self._lock = threading.Lock()
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                self._have_effect(*json.loads(line))

    def script(self, name: str, *behaviours: Behaviour) -> None:
        """Say what the next calls of a step do, one each."""
        self._scripts[name].extend(behaviours)

    def always(self, name: str, behaviour: Behaviour) -> None:
        """Say what every call of a step does when its script is through."""
        self._always[name] = behaviour

    async def act(self, name: str, ctx: Context[Any], tried: Tried[Any] | None = None) -> Any:
        """Be called: remember it, then do as scripted."""
        self.note(name, ctx, tried)
        script = self._scripts[name]
        behaviour = script.popleft() if script else self._always.get(name, lands)
        return await behaviour(Landing(self, name, ctx, tried))

    def note(self, name: str, ctx: Context[Any], tried: Tried[Any] | None = None) -> None:
        """Remember a call; of any thread."""
        with self._lock:
            whose = None if tried is None else tried.idempotency_key
            self.calls.append(Call(name, ctx.saga_id, ctx.idempotency_key, ctx.attempt, whose))
            count = self.count(name)
        for step_name, times, event in self._reached:
            if step_name == name and count >= times:
                event.set()

    def land(self, name: str, ctx: Context[Any], tried: Tried[Any] | None = None) -> str:
        """Have the effect, once for each key; an undo takes away what the action's key stands for."""
        what = (name, ctx.saga_id, ctx.idempotency_key, None if tried is None else tried.idempotency_key)
        with self._lock:
            self._have_effect(*what)
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps(what) + "\n")
        return f"{name} of {ctx.saga_id}"

    def _have_effect(self, name: str, saga_id: str, key: str, tried: str | None) -> None:
        if tried is not None:
            self._undone.add(tried)
        elif key not in self._keys:
            if key in self._undone:
                self.after_undo.append(name)
            self._keys[key] = (saga_id, name)
            self.effects[saga_id, name] += 1

    async def reached(self, name: str, times: int = 1) -> None:
        """Wait until a step was called this often."""
        event = asyncio.Event()
        self._reached.append((name, times, event))
        if self.count(name) < times:
            await asyncio.wait_for(event.wait(), 20)

    def count(self, name: str) -> int:
        """Return how often a step was called."""
        return sum(call.step == name for call in self.calls)

    @property
    def names(self) -> list[str]:
        """The steps in the order of their calls."""
        return [call.step for call in self.calls]

    def standing(self, saga_id: str = "1") -> set[str]:
        """Return the steps whose effect stands: it landed and was not undone."""
        return {name for key, (saga, name) in self._keys.items() if saga == saga_id and key not in self._undone}


# -- behaviours ------------------------------------------------------------------------------------------------------


async def lands(at: Landing) -> Any:
    """Have the effect and return."""
    return at.land()


def raises(error: BaseException) -> Behaviour:
    """Have no effect and raise."""

    async def behaviour(at: Landing) -> Any:
        raise error

    return behaviour


def lands_and_raises(error: BaseException) -> Behaviour:
    """Have the effect and raise all the same."""

    async def behaviour(at: Landing) -> Any:
        at.land()
        raise error

    return behaviour


def returns(value: Any) -> Behaviour:
    """Have the effect and return this value."""

    async def behaviour(at: Landing) -> Any:
        at.land()
        return value

    return behaviour


def waits(gate: asyncio.Event) -> Behaviour:
    """Have the effect when the gate opens."""

    async def behaviour(at: Landing) -> Any:
        await gate.wait()
        return at.land()

    return behaviour


def lands_and_waits(gate: asyncio.Event) -> Behaviour:
    """Have the effect, and return when the gate opens."""

    async def behaviour(at: Landing) -> Any:
        at.land()
        await gate.wait()
        return at.land()

    return behaviour


async def hangs(at: Landing) -> Any:
    """Have no effect and never return."""
    await asyncio.Event().wait()


async def lands_and_hangs(at: Landing) -> Any:
    """Have the effect and never return."""
    at.land()
    await asyncio.Event().wait()


# -- sagas -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    id: str = "1"
    total: int = 100


class PlaceOrder(Saga[Order], late_grace=0):
    """The seed's three steps; each participant refuses late actions, so nothing is awaited before an undo."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, timeout=20, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=AT_ONCE)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    @step(retry=AT_ONCE, timeout=20, barrier=True)
    async def charge(self, ctx: Context[Order]) -> str:
        return await self.world.act("charge", ctx)

    @charge.compensation(retry=AT_ONCE)
    async def refund(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("refund", ctx, tried)

    @step(retry=AT_ONCE, timeout=20, barrier=True)
    async def ship(self, ctx: Context[Order]) -> str:
        return await self.world.act("ship", ctx)

    @ship.compensation(retry=AT_ONCE)
    async def recall(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("recall", ctx, tried)


class ShipOrder(Saga[Order], late_grace=0):
    """Reserve, then the point of no return, then a step that must succeed."""

    def __init__(self, world: World) -> None:
        self.world = world

    @step(retry=AT_ONCE, timeout=20, barrier=True)
    async def reserve(self, ctx: Context[Order]) -> str:
        return await self.world.act("reserve", ctx)

    @reserve.compensation(retry=AT_ONCE)
    async def release(self, ctx: Context[Order], tried: Tried[str]) -> None:
        await self.world.act("release", ctx, tried)

    @pivot(reserve, retry=AT_ONCE, timeout=20)
    async def ship(self, ctx: Context[Order], reservation: str) -> str:
        return await self.world.act("ship", ctx)

    @retriable(ship, retry=Retry(initial=0.01, maximum=0.01), timeout=20)
    async def confirm(self, ctx: Context[Order], shipment: str) -> str:
        return await self.world.act("confirm", ctx)


# -- opening ---------------------------------------------------------------------------------------------------------


def limits(**other: Any) -> Limits:
    """Return limits that look often, and end what hangs soon."""
    usual: dict[str, Any] = {"poll_seconds": 0.03, "grace_seconds": 0.1, "cancel_grace_seconds": 0.1}
    return Limits(**{**usual, **other})


def sqlite(path: Path) -> SqliteStore:
    """Return the store in a folder of a test; each call is another process's view of the same file."""
    return SqliteStore(path / "sagas.db")


def opened(
    store: Any, *sagas: Saga[Any], codec: Codec | None = None, telemetry: Any = (), **other: Any
) -> Orchestrator:
    """Return an orchestrator to enter; `other` are limits."""
    return Orchestrator(
        store, sagas=list(sagas), codec=codec, limits=limits(**other), allow_volatile=True, telemetry=telemetry
    )


@asynccontextmanager
async def crashing(path: Path, *sagas: Saga[Any], **other: Any) -> AsyncIterator[tuple[Orchestrator, FaultyStore]]:
    """Open an orchestrator that crashes at the end of the block: nothing of what it does then reaches the store.

    Its calls under way are cut off, its lease is left to end.
    """
    store = FaultyStore(sqlite(path))
    usual: dict[str, Any] = {"lease_seconds": 0.5, "grace_seconds": 0.0, "cancel_grace_seconds": 0.01}
    async with opened(store, *sagas, **{**usual, **other}) as orchestrator:
        yield orchestrator, store
        store.unplug()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; one that hangs fails."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await main

    return asyncio.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)
