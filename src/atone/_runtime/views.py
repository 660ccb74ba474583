"""What a caller is shown of a saga: its hot row, its progress, its outcome.

Owns the translation from state to public values; results are decoded when somebody reads them. Must not read the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from atone._core.plan import Plan
from atone._core.state import Cause, SagaState, SagaStatus, StepStatus
from atone._runtime.bound import BoundSaga, payload_context
from atone.errors import PayloadError
from atone.outcome import Compensated, Completed, Failed, NeedsAttention, Outcome
from atone.store import Summary


@dataclass(frozen=True, slots=True)
class SagaInfo:
    """One line of a list. `wake_at` and `created_at` are epoch seconds by the store's clock."""

    key: bytes
    tenant: str
    name: str
    saga_id: str
    version: int
    status: SagaStatus
    worker: str | None
    wake_at: float | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a saga and each of its steps stand; `version` grows with every change."""

    saga_id: str
    status: SagaStatus
    steps: Mapping[str, StepStatus]
    version: int


class LazyResults(Mapping[str, Any]):
    """The results of a completed saga by step name, decoded when read; skipped steps are left out.

    `plan` is what the saga followed. Where that is not the bound definition's, a result is read only if its step has
    the same type there.
    """

    def __init__(self, bound: BoundSaga, plan: Plan, state: SagaState) -> None:
        self._bound, self._plan, self._state = bound, plan, state
        self._names = [
            step.name
            for step, found in zip(plan.steps, state.steps, strict=True)
            if found.status is StepStatus.SUCCEEDED
        ]

    def __getitem__(self, step: str) -> Any:
        if step not in self._names:
            raise KeyError(step)
        at, known = self._plan.index[step], self._bound.steps.get(step)
        if known is None or known.definition.plan.result_type != self._plan.steps[at].result_type:
            written_by = f"{self._plan.name} version {self._plan.version}"
            raise PayloadError(f"The result of {step} was written by {written_by}; register that to read it.")
        return known.result.decode(self._state.steps[at].result or b"", payload_context(self._state, known.field))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<results of {', '.join(self._names)}>"


def info_of(found: Summary) -> SagaInfo:
    """Return a list's line for a hot row."""
    status = SagaStatus(found.status)
    return SagaInfo(
        found.key,
        found.tenant,
        found.name,
        found.saga_id,
        found.definition_version,
        status,
        found.owner,
        found.wake_at,
        found.created_at,
    )


def progress_of(plan: Plan, state: SagaState) -> Progress:
    """Return where a saga stands."""
    steps = {step.name: found.status for step, found in zip(plan.steps, state.steps, strict=True)}
    return Progress(state.saga_id, state.status, steps, state.version)


def outcome_of(bound: BoundSaga, plan: Plan, state: SagaState) -> Outcome:
    """Return how a settled saga that followed `plan` ended."""
    match state.status:
        case SagaStatus.COMPLETED:
            return Completed(LazyResults(bound, plan, state))
        case SagaStatus.COMPENSATED:
            return Compensated(_said(state.cause))
        case SagaStatus.FAILED:
            return Failed(state.ended_because or _said(state.cause))
        case SagaStatus.NEEDS_ATTENTION:
            return NeedsAttention(*_trouble(plan, state))
        case _:
            raise AssertionError(f"saga {state.saga_id!r} is not settled: {state.status}")


def _said(cause: Cause | None) -> str:
    if cause is None:
        return ""
    return cause.message if cause.step is None else f"{cause.step}: {cause.message}"


def _trouble(plan: Plan, state: SagaState) -> tuple[str, str]:
    for step, found in zip(plan.steps, state.steps, strict=True):
        if found.attention is not None:
            return step.name, found.attention
    return "", state.broken or "unknown"
