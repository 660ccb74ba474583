"""A worker's way to its broker: whatever is wrong with it at first, it is tried again."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self
from uuid import uuid4

import pytest

from atone._runtime import messaging
from atone._runtime.messaging import Messaging
from atone.brokers.memory import MemoryBroker
from atone.errors import BrokerError, BrokerUnavailable
from atone.stores.memory import MemoryStore


class Troubled(MemoryBroker):
    """A broker that fails as told when it is entered."""

    def __init__(self, *faults: Exception) -> None:
        super().__init__(f"memory://{uuid4().hex}")
        self._faults = deque(faults)
        self.is_in = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self._faults:
            raise self._faults.popleft()
        self.is_in.set()
        return await super().__aenter__()


def test_a_broker_that_is_away_and_then_not_ready_is_entered_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits any more for whom it could raise, and messages would wait until a restart."""
    monkeypatch.setattr(messaging, "_FIRST_PAUSE_SECONDS", 0.001)

    async def main() -> None:
        broker = Troubled(
            BrokerUnavailable("away"), BrokerError("It has no streams. Start them."), ValueError("secret")
        )
        async with MemoryStore(allow_volatile=True) as store:
            under_test = Messaging(store, broker)
            await under_test.open()
            try:
                async with asyncio.timeout(20):
                    await broker.is_in.wait()
            finally:
                await under_test.close()

    asyncio.run(main())
    assert "It has no streams" in caplog.text
    assert "secret" not in caplog.text


def test_a_broker_that_can_never_be_used_is_told_to_who_opens() -> None:
    """So that a wrong URL is seen at once."""

    async def main() -> None:
        async with MemoryStore(allow_volatile=True) as store:
            under_test = Messaging(store, Troubled(BrokerError("wrong")))
            with pytest.raises(BrokerError, match="wrong"):
                await under_test.open()
            await under_test.close()

    asyncio.run(main())
