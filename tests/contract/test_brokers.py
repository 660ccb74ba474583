"""Every broker passes the same contract; the sentences of it are in `atone.testing.broker_contract`.

Brokers that need a server of their own kind are tested beside this, each in a file of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from atone.broker import Message
from atone.brokers.memory import MemoryBroker, Server, server_of
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject, NotOffered

MakeSubject = Callable[[], BrokerSubject]


class MemoryServer:
    """The memory broker's shared state as a server to be taken away."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def kill(self) -> None:
        self._server.kill()

    async def start(self) -> None:
        self._server.start()


def memory_subject(kind: type[MemoryBroker] = MemoryBroker) -> BrokerSubject:
    """Return a memory broker's, under a name of its own; `kind` may be a broken one."""
    url = f"memory://{uuid4().hex}"
    server = server_of(url.removeprefix("memory://"))

    async def publish_foreign(topic: str, body: bytes) -> None:
        server.put(Message(f"foreign-{next(server.numbers)}", topic, "", body))

    return BrokerSubject(
        connect=lambda: kind(url),
        hurried=lambda: kind(url, patience_seconds=0.2),
        patience_seconds=0.2,
        server=MemoryServer(server),
        publish_foreign=publish_foreign,
        deadline_seconds=10,
    )


def run(check: BrokerCheck, make_subject: MakeSubject) -> None:
    """Run one check; what the subject does not offer is skipped, with words."""
    run_async(lambda: check(make_subject))


def run_async(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    try:
        asyncio.run(main())
    except NotOffered as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("check", BROKER_CHECKS, ids=repr)
def test_memory_broker(check: BrokerCheck, tmp_path: Path) -> None:
    """One sentence of the contract holds for the broker in memory."""
    run(check, memory_subject)
