"""Opening and closing an orchestrator: once at a time, each with its own store; and what is told when it is not open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from atone import Completed, Orchestrator
from atone.errors import AtoneError, Shutdown
from tests.runtime.world import Order, PlaceOrder, World, opened, run, sqlite


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
