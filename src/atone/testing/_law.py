"""What a journal may say, entry by entry: the rules that hold for any saga, whatever went wrong around it.

Owns the judgement of one entry against the state that it was written on. It takes the journal's word only, not the
participants', and knows no store. Must not call `decide`: it would prove the law by itself. Called by `invariants`,
and by Atone's own model checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from atone._core.facts import Operation
from atone._core.fold import fold
from atone._core.journal import AttemptStarted, DirectionDecided, Entry, RequestAnswered, SagaEnded
from atone._core.plan import Plan
from atone._core.state import SagaState, SagaStatus, StepStatus

COMPENSATION = Operation.COMPENSATION


def wrong_rows(plan: Plan, rows: Sequence[Sequence[Entry]]) -> Iterator[str]:
    """Yield what is wrong in a journal, in words; the rows are complete, in order, and can be folded."""
    saga: SagaState | None = None
    for row in rows:
        for entry in row:
            if saga is not None:
                yield from wrong_in(plan, saga, entry)
            saga = fold(plan, saga, (entry,))


def wrong_in(plan: Plan, saga: SagaState, entry: Entry) -> Iterator[str]:
    """Yield what is wrong with an entry that is appended to a saga, in words."""
    if saga.status.is_final and not isinstance(entry, RequestAnswered):
        yield "something happened after the end"
    if isinstance(entry, AttemptStarted):
        yield from _wrong_intent(plan, saga, entry)
    elif isinstance(entry, DirectionDecided):
        if saga.is_backward:
            yield "the direction was decided twice"
        if any(state.compensation.started for state in saga.steps):
            yield "an undo came before the decision"
    elif isinstance(entry, SagaEnded):
        failed = any(state.status is StepStatus.COMPENSATION_FAILED for state in saga.steps)
        if failed and entry.status is SagaStatus.COMPENSATED:
            yield "a failed undo was forgotten"


def _wrong_intent(plan: Plan, saga: SagaState, entry: AttemptStarted) -> Iterator[str]:
    at = plan.index[entry.step]
    if saga.steps[at].open is not None:
        yield f"two attempts of {entry.step} at once"
    if entry.operation is COMPENSATION:
        yield from _wrong_undo(plan, saga, entry.step, at)
    else:
        yield from _wrong_call(plan, saga, entry.step, at)


def _wrong_call(plan: Plan, saga: SagaState, step: str, at: int) -> Iterator[str]:
    state = saga.steps[at]
    if saga.is_backward:
        yield f"{step} was called forward after the turn"
    if state.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED):
        yield f"{step} was called when it was over"
    if not all(saga.steps[prior].is_over for prior in plan.predecessors[at]):
        yield f"{step} began before its turn"
    if plan.pivot == at and not state.doubt and any(request.kind == "cancel" for request in saga.requests):
        yield "the pivot overtook a cancel"


def _wrong_undo(plan: Plan, saga: SagaState, step: str, at: int) -> Iterator[str]:
    if not saga.is_backward or step not in saga.rollback:
        yield f"{step} was undone without a decision"
    if any(one.open is not None and one.open.operation is not COMPENSATION for one in saga.steps):
        yield f"{step} was undone while a call ran"
    for later in plan.descendants[at]:
        behind = saga.steps[later]
        settled = behind.status in (StepStatus.COMPENSATED, StepStatus.COMPENSATION_FAILED) or behind.waived is not None
        cleared = not behind.doubt and behind.result is None
        if plan.steps[later].name in saga.rollback and not settled and not cleared:
            yield f"{step} was undone out of order, before {plan.steps[later].name}"
    failed = any(one.status is StepStatus.COMPENSATION_FAILED and one.waived is None for one in saga.steps)
    if plan.on_compensation_failure == "halt" and failed:
        yield "the rollback went on after a halt"
