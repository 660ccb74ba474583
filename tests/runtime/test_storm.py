"""Everything at once: two processes, a store that loses calls and answers, deaths by declaration, moody participants.

Whatever happens meanwhile, every saga ends, its end is true, and no effect is had twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from atone import Compensated, Completed, NeedsAttention, Orchestrator, Reject, RetryAfter
from atone.errors import AtoneError, RequestRefused
from tests.runtime.faulty_store import FaultyStore, lost_after, lost_before, passes
from tests.runtime.world import Landing, Order, PlaceOrder, ShipOrder, World, opened, run, sqlite

SAGAS = 40
METHODS = ("commit", "claim", "load", "find", "deliver")


class Storm:
    """Faults by dice: of the store, of the workers' lives, of the participants."""

    def __init__(self, seed: int, world: World) -> None:
        self.dice, self.world, self.over = random.Random(seed), world, False
        for name in ("reserve", "charge", "ship", "confirm", "release", "refund", "recall"):
            world.always(name, self.acts)

    def blow_over(self, *stores: FaultyStore) -> None:
        """End it: from now on everything works."""
        self.over = True
        for store in stores:
            for method in METHODS:
                store.always(method, None)

    async def loses(self, call: Any) -> Any:
        """Treat one call of the store."""
        return await self.dice.choice([passes, passes, passes, lost_before, lost_after])(call)

    async def acts(self, at: Landing) -> Any:
        """Be one call of a participant; an action that comes after its undo is refused, as a barrier does it."""
        await asyncio.sleep(self.dice.random() * 0.01)
        mood = 1.0 if self.over else self.dice.random()
        if mood < 0.1:
            raise OSError("no answer, nothing done")
        if at.tried is None and mood < 0.16 and at.step != "confirm":
            raise Reject("refused")
        if mood < 0.2:
            raise RetryAfter(0.01)
        result = at.land()
        if mood < 0.3:
            raise ConnectionError("done, and the answer is lost")
        return result

    async def declares_dead(self, one: Orchestrator, store: FaultyStore, times: int) -> None:
        """Do what a rival does when it believes that a worker is gone."""
        for _ in range(times):
            await asyncio.sleep(0.1 * self.dice.random())
            assert one._worker is not None
            with contextlib.suppress(AtoneError):  # it is dead already
                store.inner.renew(one._worker.membership.id, 0.0)

    async def cancels(self, one: Orchestrator, kind: Any, times: int) -> None:
        """Ask for sagas to be undone, here and there."""
        for _ in range(times):
            await asyncio.sleep(0.05 * self.dice.random())
            try:
                await one.cancel(kind, str(self.dice.randrange(SAGAS)), reason="a whim")
            except AtoneError:
                continue


async def started(one: Orchestrator, kind: Any, number: int) -> None:
    while True:
        try:
            await one.start(kind, Order(), saga_id=str(number))
        except AtoneError:
            await asyncio.sleep(0.01)  # the store is away; the same start again
        else:
            return


async def ended(one: Orchestrator, kind: Any, number: int) -> Any:
    """Return how a saga ends at last; whoever needs a person gets one."""
    while True:
        outcome = await one.outcome(kind, str(number), timeout=30)
        if not isinstance(outcome, NeedsAttention):
            return outcome
        try:
            receipt = await one.retry(kind, str(number), reason="it works again")
            await receipt.answer(timeout=10)
        except RequestRefused:
            continue


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [PlaceOrder, ShipOrder])
def test_every_saga_ends_truly_in_any_weather(tmp_path: Path, kind: Any, seed: int) -> None:
    """Completed: everything stands. Compensated: nothing does. Each effect was had once."""

    async def main() -> None:
        world = World()
        storm = Storm(seed, world)
        stores = [FaultyStore(sqlite(tmp_path)) for _ in range(2)]
        pair = [opened(store, kind(world), keep_seconds=0.2, sagas_in_flight_max=15) for store in stores]
        async with pair[0] as one, pair[1] as two:
            for store in stores:
                for method in METHODS:
                    store.always(method, storm.loses)
            await asyncio.gather(
                *[started((one, two)[number % 2], kind, number) for number in range(SAGAS)],
                storm.declares_dead(one, stores[0], 4),
                storm.declares_dead(two, stores[1], 4),
                storm.cancels(one, kind, 8),
            )
            storm.blow_over(*stores)
            outcomes = await asyncio.gather(*[ended((two, one)[number % 2], kind, number) for number in range(SAGAS)])
        steps = {step.name for step in kind.plan().steps}
        for number, outcome in enumerate(outcomes):
            assert isinstance(outcome, Completed | Compensated), outcome
            stands = world.standing(str(number))
            assert stands == (steps if isinstance(outcome, Completed) else set()), (number, outcome)
        assert set(world.effects.values()) == {1}
        assert not world.after_undo

    run(main())
