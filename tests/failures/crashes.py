"""Failures of the process that runs a saga: it dies, sleeps, or is killed by what it runs.

Each function is one failure: it makes it happen, asserts what the page claims, and quotes what was seen.
"""

from __future__ import annotations

import asyncio
from typing import Any

from atone import SagaStatus
from atone.testing._process import PROCESS
from tests.failures.stage import Stage, failure
from tests.runtime.world import Landing, hangs, lands_and_hangs

WHY = '--reason "the charge call is mended" --by ada'


@failure("A process dies before a step has its effect", "a step has one attempt more than it needed")
async def crash_between_the_intent_and_the_effect(at: Stage) -> None:
    at.happens("""
        That `charge` is about to run is in the journal before it runs. Then the process dies, before the card is
        charged. Nobody can tell this from a death just after the charge, so the attempt is *lost*: its outcome is
        unknown. When the lease of the dead worker is over, another worker takes the saga and repeats the step with the
        same key.
    """)
    at.world.script("charge", hangs)
    first = at.worker(name="one")
    await at.start()
    await at.world.reached("charge")
    first.kill()
    at.worker(name="two")
    assert await at.settled() is SagaStatus.COMPLETED
    assert (at.world.count("charge"), at.world.effects["order-1", "charge"]) == (2, 1)
    at.tell_ledger()
    at.journal("The attempt that was lost with its process, and the next one, about a lease (10 s) later.")
    assert "charge: attempt 1: its process died, outcome unknown" in await at.atone("show order-1")
    at.person("Nothing. If every worker dies, the saga waits for the next one, however long that takes.")


@failure("A process dies after a step has had its effect", "a participant was called twice for one step")
async def crash_after_the_effect_before_the_outcome(at: Stage) -> None:
    at.happens("""
        The card was charged, and the process died before it could write that down. The next worker can't know it. It
        calls again with the same idempotency key, and the participant, which has seen that key, charges nothing more.
    """)
    at.world.script("charge", lands_and_hangs)
    first = at.worker(name="one")
    await at.start()
    await at.world.reached("charge")
    first.kill()
    at.worker(name="two")
    assert await at.settled() is SagaStatus.COMPLETED
    assert (at.world.count("charge"), at.world.effects["order-1", "charge"]) == (2, 1)
    assert len({one.key for one in at.world.calls if one.step == "charge"}) == 1
    at.tell_ledger()
    at.journal("The same as if it had died before the effect: that is the point.")
    assert "charge: attempt 1: its process died, outcome unknown" in await at.atone("show order-1")
    at.person("""
        Nothing, if the participant honours the key (`ctx.idempotency_key`). If it does not, mark the step
        `at_most_once=True`: then a lost attempt is not repeated but waits for a person, or for the step's probe.
    """)


@failure("A worker sleeps past its lease", "the log says that a worker was declared dead, and it is running")
async def a_worker_sleeps_past_its_lease(at: Stage) -> None:
    at.happens("""
        A stopped process, a paused virtual machine, a collector that takes a minute. Its lease ends, another worker
        declares it dead for ever and goes on with its sagas. When it wakes, it still holds an answer of the
        participant. What it wants to write is refused, in the same transaction in which it would be written. It drops
        everything and comes back under a new id.
    """)

    async def answers_late(landing: Landing) -> Any:
        landing.land()
        await asyncio.sleep(1)
        return landing.land()

    at.world.script("charge", answers_late)
    sleeper = at.worker(name="sleeper")
    await at.start()
    await at.world.reached("charge")
    sleeper.freeze()
    at.worker(name="other")
    assert await at.settled() is SagaStatus.COMPLETED
    sleeper.thaw()
    await asyncio.sleep(30)
    assert (at.world.count("charge"), at.world.effects["order-1", "charge"]) == (2, 1)
    at.tell_ledger()
    at.journal("Nothing of the sleeper after it slept; the same as after a death.")
    said = await at.atone("show order-1")
    assert said.count("charge: attempt") == 4
    assert "attempt 1: its process died" in said
    at.journal("In the log of the sleeper:")
    at.log("was declared dead")
    at.person("""
        Nothing. If it happens often, give `Limits(lease_seconds=)` more room, or find out what stops the process.
    """)


@failure("A step kills every worker that runs it", "workers die one after the other, and always of the same saga")
async def a_step_that_kills_its_worker(at: Stage) -> None:
    at.happens("""
        A C extension that crashes, an input that takes all the memory. The worker that runs the step dies, the next one
        takes the saga, and would die of it too. Attempts that end so are counted apart: after more than
        `recoveries_max` (5) of a step the saga is left alone and needs a person, and the workers go on with the others.
    """)

    async def kills(landing: Landing) -> Any:
        process = PROCESS.get()
        assert process is not None
        process.kill()
        await asyncio.Event().wait()

    at.world.always("charge", kills)
    workers = [at.worker()]
    await at.start()
    while (status := await at.status()) is not SagaStatus.NEEDS_ATTENTION:
        assert len(workers) < 20, status
        await asyncio.sleep(1)
        if not workers[-1].alive:
            workers.append(at.worker())
    await asyncio.sleep(60)
    assert workers[-1].alive, "it lives on"
    at.tell_ledger()
    assert len(workers) == 7
    at.journal("Six lost attempts, and why it stopped.")
    assert "charge: needs a person: its process died 6 times" in await at.atone("show order-1")
    at.person("""
        Find out what the step does, mend it, and give it another round. To go on without it, cancel the saga: what may
        have been done is then undone.
    """)
    await at.atone("explain order-1")
    at.world.always("charge", _lands)
    await at.atone(f"retry order-1 charge {WHY}")
    assert await at.settled() is SagaStatus.COMPLETED
    assert at.world.effects["order-1", "charge"] == 1


async def _lands(landing: Landing) -> Any:
    return landing.land()
