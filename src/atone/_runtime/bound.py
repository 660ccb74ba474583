"""A saga definition bound to an object and a codec: everything that one call of user code needs, looked up once.

Owns the way from an intent to arguments, and from a return value to a payload. Must not call user code or decide;
`invoke` calls, `_core.decide` decides. Made when the orchestrator is built, one for each definition.
"""

from __future__ import annotations

from typing import Any

from atone._core.commands import Call, Decision
from atone._core.facts import Operation
from atone._core.keys import idempotency_key
from atone._core.plan import Plan
from atone._core.state import SagaState
from atone._runtime.trace_context import headers_of
from atone.codec import Codec, Schema
from atone.definition import (
    Context,
    Definition,
    Saga,
    StepDefinition,
    Succeeded,
    Tried,
    Unknown,
    UserCode,
    definition_of,
)

_OUTCOME_UNKNOWN = Unknown()


class BoundSaga:
    """One registered saga object, with its plan, code and schemas."""

    def __init__(self, saga: Saga[Any], codec: Codec) -> None:
        self.saga = saga
        self.definition: Definition = definition_of(saga)
        self.plan: Plan = self.definition.plan
        self.codec = codec
        self._encrypts = codec.encrypts
        self.input_schema: Schema = codec.schema(self.definition.input_type)
        self.steps = {step.plan.name: BoundStep(step, codec) for step in self.definition.steps}
        self.identity = (self.plan.name, self.plan.version, self.plan.plan_hash)
        self._in_thread = frozenset(
            (name, operation)
            for name, step in self.steps.items()
            for operation, code in step.code.items()
            if code is not None and not code.is_async
        )

    def in_thread(self, step: str, operation: Operation) -> bool:
        """Whether this operation is a plain function: it takes a thread, and nobody can stop it."""
        return (step, operation) in self._in_thread

    def threads_for(self, decision: Decision) -> int:
        """Return how many threads the calls of a decision take."""
        if not self._in_thread:
            return 0
        calls = (command for command in decision.commands if isinstance(command, Call))
        return sum(self.in_thread(call.step, call.operation) for call in calls)

    def context(
        self,
        state: SagaState,
        step: str,
        operation: Operation,
        attempt: int,
        deadline: float | None,
        trace: str | None = None,
    ) -> Any:
        """Return the `Context` for one call; `trace` is the trace context that it is part of, as text.

        Raises:
            PayloadError: The stored input or a result can't be decoded.
        """
        key = idempotency_key(state.tenant, state.name, state.saga_id, step, operation.value)
        return Context(
            saga_id=state.saga_id,
            input=self.input_of(state),
            idempotency_key=key,
            attempt=attempt,
            fence=state.version,
            tenant=state.tenant,
            deadline=deadline,
            _results=_Results(self, state),
            trace_headers=headers_of(trace),
        )

    def input_of(self, state: SagaState) -> Any:
        """Return the saga's decoded input."""
        return self.input_schema.decode(state.input, self.sealed_for(state, "input"))

    def sealed_for(self, state: SagaState, field: str) -> bytes:
        """Return the context of a payload's encryption; empty without one, for it is asked for at every decode."""
        return payload_context(state, field) if self._encrypts else b""

    def arguments(self, state: SagaState, step: str) -> list[Any]:
        """Return the decoded results that the step takes by position."""
        return [self.result_of(state, name) for name in self.steps[step].definition.plan.inputs]

    def result_of(self, state: SagaState, step: str) -> Any:
        """Return the decoded result of a step that has one.

        Raises:
            PayloadError: It can't be decoded, or there is none.
        """
        payload = state.steps[self.plan.index[step]].result
        found = self.steps[step]
        return found.result.decode(payload if payload is not None else b"", self.sealed_for(state, found.field))

    def tried(self, state: SagaState, step: str) -> Tried[Any]:
        """Return what is known of the action that a compensation undoes or a probe asks about."""
        key = idempotency_key(state.tenant, state.name, state.saga_id, step, Operation.ACTION.value)
        known = state.steps[self.plan.index[step]].result is not None
        return Tried(key, Succeeded(self.result_of(state, step)) if known else _OUTCOME_UNKNOWN)


class BoundStep:
    """One step's code and the schema of its result."""

    __slots__ = ("code", "definition", "field", "rejects", "result")

    def __init__(self, definition: StepDefinition, codec: Codec) -> None:
        self.definition = definition
        # An event's payload is encrypted by its sender, who knows the event's name and not the step's.
        event = definition.plan.event_name
        self.field = definition.plan.name if event is None else event_field(event)
        self.result: Schema = codec.schema(definition.result_type)
        self.rejects = definition.rejects
        self.code: dict[Operation, UserCode | None] = {
            Operation.ACTION: definition.action,
            Operation.COMPENSATION: definition.compensation,
            Operation.PROBE: definition.probe,
        }


class _Results(dict[str, Any]):
    """The results that `ctx.result_or_none` reads, decoded when asked for."""

    def __init__(self, bound: BoundSaga, state: SagaState) -> None:
        super().__init__()
        self._bound = bound
        self._state = state

    def get(self, step: str, default: Any = None) -> Any:
        """Return the decoded result, or the default if the step has none."""
        at = self._bound.plan.index.get(step)
        if at is None or self._state.steps[at].result is None:
            return default
        return self._bound.result_of(self._state, step)


def event_field(event: str) -> str:
    """Return the field name under which an event's payload is encrypted."""
    return f"event:{event}"


def payload_context(state: SagaState, field: str) -> bytes:
    """Return what a payload is bound to when it is encrypted: the saga's identity and the field."""
    return payload_context_of(state.tenant, state.name, state.saga_id, field)


def payload_context_of(tenant: str, name: str, saga_id: str, field: str) -> bytes:
    """Return the same for a saga that is not loaded, or does not exist yet."""
    return f"{tenant}\x1f{name}\x1f{saga_id}\x1f{field}".encode()
