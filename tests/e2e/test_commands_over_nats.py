"""Commands over a real broker between real processes: workers are killed with kill -9 while replies are awaited."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from atone import Completed, Orchestrator
from atone._messaging import headers
from atone._messaging.envelope import reply_message
from atone.brokers import open_broker
from atone.testing.nats import NatsServer, nats_server
from tests.servers.trips import Trip, TwoNights
from tests.servers.workers import atone, worker

SAGAS = 12


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    """A server of its own."""
    with nats_server() as server:
        yield server


class Hotel:
    """Answers each command, and remembers by its key what it has booked; tells when it has heard enough."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.booked: Counter[str] = Counter()
        self.heard = asyncio.Semaphore(0)

    async def serves(self) -> None:
        async with open_broker(self.url) as broker:
            await broker.declare("hotel", ["hotel.book"])
            async for delivery in broker.deliveries("hotel"):
                command = delivery.message
                self.booked[command.headers[headers.IDEMPOTENCY_KEY]] += 1
                self.heard.release()
                body = json.dumps(command.headers[headers.STEP]).encode()
                reply = reply_message(command, outcome=headers.SUCCEEDED, body=body, source="hotel", at=1.0)
                await broker.publish([reply])
                await delivery.ack()


def test_workers_that_are_killed_lose_no_command_and_no_reply(nats: NatsServer, tmp_path: Path) -> None:
    """One dies while commands are on their way and replies come in, the next goes on; each room is booked once."""
    url, broker = f"sqlite:///{tmp_path / 'sagas.db'}", nats.url()
    assert atone(tmp_path, "migrate", "--store", url).returncode == 0
    options = ("tests.servers.trips:sagas", "--lease", "1", "--broker", broker)

    async def main() -> list[object]:
        hotel = Hotel(broker)
        serving = asyncio.create_task(hotel.serves())
        async with Orchestrator(url, sagas=[TwoNights()], runs=False) as starter:
            waiting = [
                asyncio.create_task(starter.execute(TwoNights, Trip(str(at)), saga_id=str(at), timeout=50))
                for at in range(SAGAS)
            ]
            for enough in (3, 7):
                # In a thread: a worker's start is awaited by reading its log.
                running = worker(url, tmp_path, *options)
                one = await asyncio.to_thread(running.__enter__)
                for _ in range(enough):
                    await asyncio.wait_for(hotel.heard.acquire(), 30)
                one.signal(signal.SIGKILL)
                await asyncio.to_thread(running.__exit__, None, None, None)
            last = worker(url, tmp_path, *options)
            await asyncio.to_thread(last.__enter__)
            outcomes = await asyncio.gather(*waiting)
            await asyncio.to_thread(last.__exit__, None, None, None)
        serving.cancel()
        assert len(hotel.booked) == 2 * SAGAS
        return list(outcomes)

    outcomes = asyncio.run(main())
    assert all(isinstance(outcome, Completed) for outcome in outcomes)
