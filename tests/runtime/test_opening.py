"""Opening and closing: once at a time, each orchestrator with its own store; what is told when it is not open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from atone import Completed, Orchestrator
from atone._runtime.committer import Committer
from atone.errors import AtoneError, Shutdown, StoreClosed, StoreError
from atone.store import Store, Turn
from atone.stores.memory import MemoryStore
from tests.runtime.faulty_store import FaultyStore, fails_with
from tests.runtime.world import Order, PlaceOrder, World, opened, run, sqlite, until, waits


def test_an_open_orchestrator_is_not_entered_again(tmp_path: Path) -> None:
    """The second one is refused, the first one goes on; even one that is not open yet."""

    async def main() -> None:
        orchestrator = opened(sqlite(tmp_path), PlaceOrder(World()))
        opening = asyncio.ensure_future(orchestrator.__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(AtoneError, match="open already"):
            await orchestrator.__aenter__()
        await opening
        with pytest.raises(AtoneError, match="open already"):
            await orchestrator.__aenter__()
        assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Completed)
        await orchestrator.__aexit__(None, None, None)

    run(main())


def test_an_orchestrator_may_be_opened_again(tmp_path: Path) -> None:
    """After a clean end it works as before; after an opening that failed too."""

    async def main() -> None:
        orchestrator = opened(sqlite(tmp_path / "folder"), PlaceOrder(World()))
        with pytest.raises(AtoneError):
            await orchestrator.__aenter__()
        (tmp_path / "folder").mkdir()
        for saga_id in ("1", "2"):
            async with orchestrator:
                handle = await orchestrator.start(PlaceOrder, Order(), saga_id=saga_id)
                assert isinstance(await handle.outcome(timeout=20), Completed)
                assert [change.status.value async for change in orchestrator.watch(PlaceOrder, saga_id)]

    run(main())


CALLS: dict[str, Callable[[Orchestrator], Awaitable[Any]]] = {
    "get": lambda atone: atone.get(PlaceOrder, "1"),
    "list": lambda atone: atone.list(),
    "outcome": lambda atone: atone.outcome(PlaceOrder, "1"),
    "cancel": lambda atone: atone.cancel(PlaceOrder, "1", reason="a test"),
    "resolve": lambda atone: atone.resolve(PlaceOrder, "1", "charge", landed=False, reason="a test"),
    "explain": lambda atone: atone.explain(PlaceOrder, "1"),
    "execute": lambda atone: atone.execute(PlaceOrder, Order(), saga_id="1"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_call_says_that_the_orchestrator_is_not_open(
    tmp_path: Path, call: Callable[[Orchestrator], Awaitable[Any]]
) -> None:
    """Before it is entered and after it is left, the same error: not one about the store."""

    async def main() -> None:
        orchestrator = opened(sqlite(tmp_path), PlaceOrder(World()))
        with pytest.raises(Shutdown, match="not open"):
            await call(orchestrator)
        async with orchestrator:
            pass
        with pytest.raises(Shutdown, match="not open"):
            await call(orchestrator)

    run(main())


def test_a_handle_says_that_its_orchestrator_is_not_open(tmp_path: Path) -> None:
    """A handle outlives the context; what it is asked then is refused."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await handle.outcome(timeout=20)
        for call in (handle.status(), handle.outcome(), handle.cancel(reason="a test")):
            with pytest.raises(Shutdown, match="not open"):
                await call

    run(main())


def stores(folder: Path) -> list[Store]:
    return [sqlite(folder), MemoryStore(allow_volatile=True)]


@pytest.mark.parametrize("at", [0, 1], ids=["sqlite", "memory"])
def test_two_orchestrators_do_not_share_a_store_object(tmp_path: Path, at: int) -> None:
    """The first to leave would close it under the other; the second is told, and harms nobody."""

    async def main() -> None:
        store = stores(tmp_path)[at]
        async with opened(store, PlaceOrder(World())) as first:
            with pytest.raises(StoreError, match="its own store object"):
                await opened(store, PlaceOrder(World())).__aenter__()
            assert isinstance(await first.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Completed)
        async with opened(store, PlaceOrder(World())) as second:
            assert isinstance(await second.execute(PlaceOrder, Order(), saga_id="2", timeout=20), Completed)

    run(main())


def test_a_store_that_is_closed_under_an_orchestrator_is_told_to_who_waits(tmp_path: Path) -> None:
    """No commit is tried for ever: who waits, and who starts, hears of it, and the closing waits for no lease."""

    async def main() -> None:
        world, gate = World(), asyncio.Event()
        world.always("reserve", waits(gate))
        store = sqlite(tmp_path)
        async with opened(store, PlaceOrder(world)) as orchestrator:
            handle = await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("reserve")
            outcome = asyncio.ensure_future(handle.outcome(timeout=20))
            await asyncio.sleep(0)
            await store.__aexit__(None, None, None)
            gate.set()
            with pytest.raises(StoreClosed, match="not open"):
                await outcome
            for saga_id in ("2", "3"):
                with pytest.raises(StoreClosed, match="not open"):
                    await orchestrator.start(PlaceOrder, Order(), saga_id=saga_id)
        assert world.names == ["reserve"]

    run(main())


def test_a_commit_into_a_closed_store_is_not_sent_again() -> None:
    """It can't be told from a death: this life writes nothing more."""

    async def main() -> None:
        told: list[str] = []
        store = FaultyStore(MemoryStore(allow_volatile=True))
        store.always("commit", fails_with(StoreClosed("closed")))
        committer = Committer(store, "w", lambda: told.append("dead"))
        committer.start()
        committer.submit(Turn(b"1" * 16, 2, b"1" * 16, b"[]"), lambda result: told.append("landed"))
        await until(lambda: bool(told))
        await committer.close()
        assert told == ["dead"]

    run(main())
