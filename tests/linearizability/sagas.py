"""The saga whose histories are checked: reserve, wait for the payment, ship (the point of no return), tell.

Owns the definition and what a client does with it: the calls of spec.py, each made of a real one, with the times at
which it was made and answered. It must not judge. Used by the recorder, and by its clients in other processes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from atone import Context, Saga, Tried, pivot, retriable, step, wait_for_event
from atone._core.journal import RequestReceived
from atone._runtime.reader import read
from atone.errors import ConflictingStart, OutcomeTimeout, RequestRefused, Shutdown, StoreUnavailable, UnknownSaga
from atone.orchestrator import Limits, Orchestrator
from tests.linearizability.spec import Seen
from tests.linearizability.wgl import Call

QUICK = Limits(poll_seconds=0.05, keep_seconds=0.2, lease_seconds=1.5, grace_seconds=0.5)
CALL_SECONDS = 2.0
ANSWER_SECONDS = 1.5
IN_DOUBT = (StoreUnavailable, TimeoutError, OutcomeTimeout, Shutdown)


class Parcel(Saga[int], version=1):
    """Reserve, wait for the payment, ship, tell."""

    @step()
    async def reserve(self, ctx: Context[int]) -> int:
        await asyncio.sleep(0.001)
        return ctx.input

    @reserve.compensation
    async def release(self, ctx: Context[int], tried: Tried[int]) -> None:
        await asyncio.sleep(0.001)

    paid = wait_for_event("paid", str, timeout=3600)

    @pivot(reserve)
    async def ship(self, ctx: Context[int], reserved: int) -> int:
        await asyncio.sleep(0.002)
        return reserved

    @retriable(ship)
    async def tell(self, ctx: Context[int], shipped: int) -> None:
        await asyncio.sleep(0.001)


@dataclass
class Client:
    """Who calls one orchestrator about one saga, one call at a time; `calls` is its part of the history."""

    orchestrator: Orchestrator
    saga_id: str
    name: str
    chance: Random
    calls: list[Call] = field(default_factory=list[Call])

    async def play(self, count: int) -> None:
        """Make some calls, and pause now and then."""
        for number in range(count):
            await asyncio.sleep(self.chance.choice([0.0, 0.0, 0.002, 0.01, 0.03]))
            drawn = self.chance.random()
            if drawn < 0.35:
                await self.start(2 if drawn < 0.06 else 1)
            elif drawn < 0.6:
                await self.event(self.chance.choice(["e1", "e1", "e2"]))
            elif drawn < 0.72:
                await self.cancel(f"{self.name}-{number}")
            else:
                await self.get()

    async def start(self, given: int) -> None:
        async def call() -> str:
            try:
                await self.orchestrator.start(Parcel, given, saga_id=self.saga_id)
            except ConflictingStart:
                return "conflict"
            return "started"

        await self._record(("start", given), call)

    async def event(self, event: str) -> None:
        async def call() -> str:
            try:
                receipt = await self.orchestrator.send_event(Parcel, self.saga_id, "paid", event, event_id=event)
            except RequestRefused:
                return "over"
            return receipt.delivered.value

        await self._record(("event", event), call)

    async def cancel(self, cancel: str) -> None:
        """Cancel, under an id of ours so that it is known again in the journal, and hear what became of it."""
        answers: list[Callable[[], Awaitable[str]]] = []

        async def call() -> str:
            try:
                said = {"by": "client", "reason": "changed our mind", "request_id": cancel}
                receipt = await self.orchestrator._ask(Parcel, self.saga_id, "cancel", **said)
            except RequestRefused:
                return "over"
            except UnknownSaga:
                return "unknown"

            async def answer() -> str:
                try:
                    return (await receipt.answer(timeout=ANSWER_SECONDS, poll_seconds=0.02)).verdict
                except UnknownSaga:
                    return "unknown"

            answers.append(answer)
            return receipt.delivered.value

        await self._record(("cancel", cancel), call)
        for answer in answers:
            await self._record(("answer", cancel), answer)

    async def get(self) -> None:
        async def call() -> str | Seen:
            return await seen(self.orchestrator, self.saga_id)

        await self._record(("get",), call)

    async def _record(self, asked: tuple[str | int, ...], call: Callable[[], Awaitable[str | Seen]]) -> None:
        invoked = time.monotonic()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                answer = await call()
        except IN_DOUBT:
            if asked[0] not in ("get", "answer"):  # who only looked has changed nothing, whatever he would have seen
                self.calls.append(Call(asked, None, invoked))
            return
        self.calls.append(Call(asked, answer, invoked, time.monotonic()))


async def seen(orchestrator: Orchestrator, saga_id: str) -> str | Seen:
    """Return what a get shows, with what the journal shows of requests."""
    try:
        handle = await orchestrator.get(Parcel, saga_id)
    except UnknownSaga:
        return "unknown"
    found = await read(orchestrator._store, handle.key)
    state = found.state
    status = state.status.value if state.status.value == found.summary.status else "torn"
    requests = tuple(
        entry.request.id for row in found.journal for entry in row.entries if isinstance(entry, RequestReceived)
    )  # fmt: skip
    steps = {one.name: state.steps[at] for at, one in enumerate(found.plan.steps)}
    result = steps["paid"].result
    taken = None if result is None else json.loads(result)
    return Seen(json.loads(state.input), status, state.version, requests, taken, steps["ship"].status == "succeeded")
