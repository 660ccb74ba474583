"""Lifecycle events: what a journal row tells the world about its saga, as names without contents.

A pure function of the plan, the saga before the row, and the row's entries: each entry is folded, and what has changed
is named. So an event can't say anything else than the state does. No payload, no reason and no exception's text is in
one: those may quote what a caller wants kept secret, and who may read the journal finds them there. Called by the
runtime, when it writes a turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from atone._core.fold import Folding, begun
from atone._core.journal import DirectionDecided, Entry, SagaResumed, SagaStarted
from atone._core.plan import Plan
from atone._core.state import SagaState, SagaStatus, StepState, StepStatus

STARTED = "saga.started"
RESUMED = "saga.resumed"
OF_SAGA = {
    SagaStatus.COMPENSATING: "saga.compensating",
    SagaStatus.COMPLETED: "saga.completed",
    SagaStatus.COMPENSATED: "saga.compensated",
    SagaStatus.FAILED: "saga.failed",
    SagaStatus.NEEDS_ATTENTION: "saga.needs_attention",
}
OF_STEP = {
    StepStatus.SUCCEEDED: "step.succeeded",
    StepStatus.FAILED: "step.failed",
    StepStatus.UNKNOWN: "step.unknown",
    StepStatus.SKIPPED: "step.skipped",
    StepStatus.COMPENSATED: "step.compensated",
    StepStatus.COMPENSATION_FAILED: "step.compensation_failed",
}
UNDO_SKIPPED = "step.compensation_skipped"
NAMES = (STARTED, *OF_SAGA.values(), RESUMED, *OF_STEP.values(), UNDO_SKIPPED)

_OF_UNDO = frozenset({StepStatus.COMPENSATED, StepStatus.COMPENSATION_FAILED})


class LifecycleEvent(NamedTuple):
    """One thing that happened. `attempt` is the last one of the action, or of the undo if that is what it is about.

    `trigger` (of saga.compensating) is failure, cancel, deadline, timeout or operator; `step` is then where it began.
    """

    name: str
    step: str | None = None
    attempt: int | None = None
    trigger: str | None = None


def lifecycle_events(plan: Plan, before: SagaState | None, entries: Sequence[Entry]) -> tuple[LifecycleEvent, ...]:
    """Return what a row's entries tell, in their order; `before` is the saga that they are appended to."""
    if not entries:
        return ()
    return tuple(_told(plan, before, entries))


def _told(plan: Plan, before: SagaState | None, entries: Sequence[Entry]) -> Iterator[LifecycleEvent]:
    if before is None:
        first, *entries = entries
        before = begun(plan, first)
        yield LifecycleEvent(STARTED)
    folding = Folding(plan, before, before.version + 1)
    for entry in entries:
        status, steps = folding.status, tuple(folding.steps)
        folding.apply(entry)
        for at, (was, step) in enumerate(zip(steps, folding.steps, strict=True)):
            if was is not step:
                yield from _of_step(plan.steps[at].name, was, step)
        if folding.status is not status:
            yield from _of_saga(entry, folding.status)


def _of_step(name: str, was: StepState, step: StepState) -> Iterator[LifecycleEvent]:
    if step.status is not was.status and step.status in OF_STEP:
        tries = step.compensation if step.status in _OF_UNDO else step.action
        yield LifecycleEvent(OF_STEP[step.status], name, tries.started)
    if step.waived is not None and was.waived is None:
        yield LifecycleEvent(UNDO_SKIPPED, name, step.compensation.started)


def _of_saga(entry: Entry, status: SagaStatus) -> Iterator[LifecycleEvent]:
    if isinstance(entry, SagaResumed):
        yield LifecycleEvent(RESUMED)
    elif isinstance(entry, DirectionDecided):
        yield LifecycleEvent(OF_SAGA[status], entry.cause.step, None, entry.cause.trigger)
    elif status in OF_SAGA:
        yield LifecycleEvent(OF_SAGA[status])


def is_beginning(entries: Sequence[Entry]) -> bool:
    """Tell whether these entries are the first ones of a saga."""
    return bool(entries) and isinstance(entries[0], SagaStarted)
