"""Verify a saga of your own: every failure, crash, repeat and late result that its plan admits, against your ledger.

Owns the five functions that users call, and what each is made of. Must not run anything itself: `_verify.run` does, nor
know how a fault is done. Called by users' tests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar

from atone.broker import Broker
from atone.choreography import Choreography
from atone.definition import Saga
from atone.errors import DefinitionError
from atone.testing._verify.campaign import Campaign, Part
from atone.testing._verify.case import Case
from atone.testing._verify.report import Finding, Report, Row, SagaBroken, Uncovered

__all__ = [
    "Finding",
    "Report",
    "Row",
    "SagaBroken",
    "Uncovered",
    "crash_everywhere",
    "fail_each_step",
    "repeat_every_action",
    "repeat_every_compensation",
    "verify",
]

I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`
P = TypeVar("P")

RUNS_MAX = 1000
FINDINGS_MAX = 20


def verify(
    saga: Callable[[P], Saga[I]],
    given: I,
    /,
    *,
    participants: Callable[[], P | AbstractAsyncContextManager[P] | AbstractContextManager[P]],
    ledger: Callable[[P], object],
    events: Mapping[str, object] | None = None,
    serving: Callable[[P, Broker], AbstractAsyncContextManager[object]] | None = None,
    only: str | None = None,
    runs_max: int = RUNS_MAX,
    findings_max: int = FINDINGS_MAX,
    schedules: int = 0,
) -> Report:
    """Run a saga through everything that can happen to it, and compare what it leaves behind with how it ended.

    `participants` makes what the saga calls, anew for each run: your fakes, or your real services in this process.
    `saga` makes the definition's object on them, anew for each life of the worker, as a restarted process would.
    `ledger` reads the participants when all is over, and returns what counts: balances, stock, parcels. After a saga
    that was compensated it must return what it returned before; after one that completed, what a run without faults
    left. Or it raises.

    `events` are the payloads of events that the saga waits for, by name. `serving` returns who answers its commands on
    that broker, as `atone.serving.serve` does; it is entered for the length of a run.

    `only` replays one run of a report. More than `runs_max` runs are not made, and none after `findings_max` findings;
    what is left out stands in the report. With `schedules`, so many more runs have a seeded order of everything, two
    faults and a kill.

    Time is virtual, nothing sleeps, no socket is opened. It can be called where an event loop runs.

    Raises:
        ValueError: An argument makes no sense: an event that nobody waits for, commands that nobody answers, no runs.
        TypeError: An argument is not of the kind that is asked for.
        DefinitionError: It is a choreography: that has no plan to derive faults from.
    """
    parts = (Part.STEPS, Part.COMPENSATIONS, Part.QUESTIONS, Part.EVENTS, Part.REPEATS, Part.CANCELS, Part.CRASHES,
             Part.HOPS, Part.PAIRS)  # fmt: skip
    return _run(
        "verify", parts, saga, given, participants, ledger, events, serving, only, runs_max, findings_max, schedules
    )


def crash_everywhere(
    saga: Callable[[P], Saga[I]],
    given: I,
    /,
    *,
    participants: Callable[[], P | AbstractAsyncContextManager[P] | AbstractContextManager[P]],
    ledger: Callable[[P], object],
    events: Mapping[str, object] | None = None,
    serving: Callable[[P, Broker], AbstractAsyncContextManager[object]] | None = None,
    only: str | None = None,
    runs_max: int = RUNS_MAX,
    findings_max: int = FINDINGS_MAX,
) -> Report:
    """Kill the worker at every point of the saga on its way forward, and on every way back; see `verify`."""
    return _run(
        "crash_everywhere",
        (Part.CRASHES,),
        saga,
        given,
        participants,
        ledger,
        events,
        serving,
        only,
        runs_max,
        findings_max,
    )


def repeat_every_action(
    saga: Callable[[P], Saga[I]],
    given: I,
    /,
    *,
    participants: Callable[[], P | AbstractAsyncContextManager[P] | AbstractContextManager[P]],
    ledger: Callable[[P], object],
    events: Mapping[str, object] | None = None,
    serving: Callable[[P, Broker], AbstractAsyncContextManager[object]] | None = None,
    only: str | None = None,
    runs_max: int = RUNS_MAX,
    findings_max: int = FINDINGS_MAX,
) -> Report:
    """Call each action twice, one after the other and both at once, forward and on the way to an undo; see `verify`."""
    return _run(
        "repeat_every_action",
        (Part.REPEATS,),
        saga,
        given,
        participants,
        ledger,
        events,
        serving,
        only,
        runs_max,
        findings_max,
    )


def repeat_every_compensation(
    saga: Callable[[P], Saga[I]],
    given: I,
    /,
    *,
    participants: Callable[[], P | AbstractAsyncContextManager[P] | AbstractContextManager[P]],
    ledger: Callable[[P], object],
    events: Mapping[str, object] | None = None,
    serving: Callable[[P, Broker], AbstractAsyncContextManager[object]] | None = None,
    only: str | None = None,
    runs_max: int = RUNS_MAX,
    findings_max: int = FINDINGS_MAX,
) -> Report:
    """Call each compensation twice, fail it once, fail it until a person looks, and let it land late; see `verify`."""
    parts = (Part.COMPENSATIONS,)
    return _run(
        "repeat_every_compensation",
        parts,
        saga,
        given,
        participants,
        ledger,
        events,
        serving,
        only,
        runs_max,
        findings_max,
    )


def fail_each_step(
    saga: Callable[[P], Saga[I]],
    given: I,
    /,
    *,
    participants: Callable[[], P | AbstractAsyncContextManager[P] | AbstractContextManager[P]],
    ledger: Callable[[P], object],
    events: Mapping[str, object] | None = None,
    serving: Callable[[P, Broker], AbstractAsyncContextManager[object]] | None = None,
    only: str | None = None,
    runs_max: int = RUNS_MAX,
    findings_max: int = FINDINGS_MAX,
) -> Report:
    """Have each step refused, fail, and time out, before its effect and after it; and each call that it makes."""
    parts = (Part.STEPS, Part.QUESTIONS, Part.EVENTS, Part.HOPS)
    return _run(
        "fail_each_step", parts, saga, given, participants, ledger, events, serving, only, runs_max, findings_max
    )


def _run(
    helper: str,
    parts: tuple[Part, ...],
    saga: Callable[[Any], Saga[Any]],
    given: object,
    participants: Callable[[], Any],
    ledger: Callable[[Any], object],
    events: Mapping[str, object] | None,
    serving: Callable[[Any, Broker], AbstractAsyncContextManager[object]] | None,
    only: str | None,
    runs_max: int,
    findings_max: int,
    schedules: int = 0,
) -> Report:
    if isinstance(saga, Choreography):
        raise DefinitionError(
            f"{helper} takes a saga that is orchestrated, and {saga.name} is a choreography: it has no plan to derive "
            "faults from. Its map is checked when it is imported; run its services in atone.testing.Simulation, on a "
            "ChaoticBroker, and check their ledger with check_invariants."
        )

    bounds = {"runs_max": (runs_max, 1), "findings_max": (findings_max, 1), "schedules": (schedules, 0)}
    for name, (bound, least) in bounds.items():
        if bound < least:
            raise ValueError(f"{name}={bound} makes no sense. Give {least} or more.")

    def campaign() -> Report:
        case = Case.of(saga, given, participants, ledger, dict(events or {}), serving)
        return Campaign(helper, case, parts, runs_max=runs_max, findings_max=findings_max, schedules=schedules).report(
            only
        )

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return campaign()
    return _aside(campaign)


def _aside(call: Callable[[], Report]) -> Report:
    """Run it in a thread of its own, for a loop that runs admits no other one beside it."""
    ended: list[Report | BaseException] = []

    def run() -> None:
        try:
            ended.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            ended.append(error)

    thread = threading.Thread(target=run, name="atone-verify")
    thread.start()
    thread.join()
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]
