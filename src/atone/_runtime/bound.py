"""A saga definition bound to an object and a codec: everything that one call of user code needs, looked up once.

Owns the way from an intent to arguments, and from a return value to a payload. Must not call user code or decide;
`invoke` calls, `_core.decide` decides. Made when the orchestrator is built, one for each definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from atone._core.commands import Call, Decision
from atone._core.facts import Operation
from atone._core.keys import part_of_saga, part_of_step
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
_NO_HEADERS = headers_of(None)
_INPUT = -1  # where a step's value is kept under its place
# A decoded value is kept beside its bytes for as long as the saga runs here; a large one is decoded for each call.
KEPT_BYTES_MAX = 16_384


class Kept:
    """What the calls of one saga share: the first part of its keys, and decoded values that nobody can change.

    A value counts only for the very bytes that it was made of.
    """

    __slots__ = ("part_of_keys", "values")

    def __init__(self, state: SagaState) -> None:
        self.part_of_keys = part_of_saga(state.tenant, state.name, state.saga_id)
        self.values: dict[int, tuple[bytes, Any]] = {}

    def keep(self, at: int, schema: Schema, payload: bytes, value: Any) -> None:
        """Keep a value if it can be shared and is small."""
        if schema.is_shareable and len(payload) <= KEPT_BYTES_MAX:
            self.values[at] = (payload, value)


class BoundSaga:
    """One registered saga object, with its plan, code and schemas."""

    def __init__(self, saga: Saga[Any], codec: Codec) -> None:
        self.saga = saga
        self.definition: Definition = definition_of(saga)
        self.plan: Plan = self.definition.plan
        self.codec = codec
        self._encrypts = codec.encrypts
        self.input_schema: Schema = codec.schema(self.definition.input_type)
        self.steps = {step.plan.name: BoundStep(at, step, codec) for at, step in enumerate(self.definition.steps)}
        self.identity = (self.plan.name, self.plan.version, self.plan.plan_hash)
        self._in_thread = frozenset(
            (name, operation)
            for name, step in self.steps.items()
            for operation, code in step.code.items()
            # What builds a message is called in the event loop: it calls nobody.
            if code is not None and not code.is_async and operation.value not in step.messages
        )
        self.has_plain_code = bool(self._in_thread)

    def in_thread(self, step: str, operation: Operation) -> bool:
        """Whether this operation is a plain function: it takes a thread, and nobody can stop it."""
        return self.has_plain_code and (step, operation) in self._in_thread

    def threads_for(self, decision: Decision) -> int:
        """Return how many threads the calls of a decision take."""
        if not self.has_plain_code:
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
        kept: Kept,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the `Context` for one call; `headers` are a trace context of its own, the saga's if left out.

        Raises:
            PayloadError: The stored input or a result can't be decoded.
        """
        if headers is None:
            headers = _NO_HEADERS if state.trace is None else headers_of(state.trace)
        results: Any = _Results(self, state, kept)  # of a mapping, it is all that a context reads
        return Context(
            state.saga_id,
            self.input_of(state, kept),
            f"{kept.part_of_keys}.{self.steps[step].part_of_key[operation]}",
            attempt,
            state.version,
            state.tenant,
            deadline,
            results,
            headers,
        )

    def input_of(self, state: SagaState, kept: Kept) -> Any:
        """Return the saga's decoded input."""
        found = kept.values.get(_INPUT)
        if found is not None and found[0] is state.input:
            return found[1]
        value = self.input_schema.decode(state.input, self.sealed_for(state, "input"))
        kept.keep(_INPUT, self.input_schema, state.input, value)
        return value

    def sealed_for(self, state: SagaState, field: str) -> bytes:
        """Return the context of a payload's encryption; empty without one, for it is asked for at every decode."""
        return payload_context(state, field) if self._encrypts else b""

    def sealed_input(self, tenant: str, name: str, saga_id: str) -> bytes:
        """Return the same for the input of a saga that does not exist yet."""
        return payload_context_of(tenant, name, saga_id, "input") if self._encrypts else b""

    def arguments(self, state: SagaState, step: str, kept: Kept) -> list[Any]:
        """Return the decoded results that the step takes by position."""
        return [self.result_of(state, name, kept) for name in self.steps[step].inputs]

    def result_of(self, state: SagaState, step: str, kept: Kept) -> Any:
        """Return the decoded result of a step that has one.

        Raises:
            PayloadError: It can't be decoded, or there is none.
        """
        bound = self.steps[step]
        payload = state.steps[bound.at].result
        found = kept.values.get(bound.at)
        if found is not None and found[0] is payload:
            return found[1]
        value = bound.result.decode(payload if payload is not None else b"", self.sealed_for(state, bound.field))
        if payload is not None:
            kept.keep(bound.at, bound.result, payload, value)
        return value

    def encoded(self, value: Any, state: SagaState, step: str, kept: Kept) -> bytes:
        """Return a step's result as payload; what reads back of it is kept for the steps that take it.

        Raises:
            PayloadError: It does not read back as it was.
        """
        bound = self.steps[step]
        payload, copy = bound.result.encode_and_read(value, self.sealed_for(state, step))
        kept.keep(bound.at, bound.result, payload, copy)
        return payload

    def tried(self, state: SagaState, step: str, kept: Kept) -> Tried[Any]:
        """Return what is known of the action that a compensation undoes or a probe asks about."""
        bound = self.steps[step]
        key = f"{kept.part_of_keys}.{bound.part_of_key[Operation.ACTION]}"
        known = state.steps[bound.at].result is not None
        return Tried(key, Succeeded(self.result_of(state, step, kept)) if known else _OUTCOME_UNKNOWN)


class BoundStep:
    """One step's code and the schema of its result; `at` is its place in the plan."""

    __slots__ = (
        "at",
        "code",
        "definition",
        "field",
        "inputs",
        "messages",
        "part_of_key",
        "rejection",
        "rejects",
        "reply",
        "result",
    )

    def __init__(self, at: int, definition: StepDefinition, codec: Codec) -> None:
        self.at = at
        self.definition = definition
        self.inputs = definition.plan.inputs
        self.part_of_key = {one: part_of_step(definition.plan.name, one.value) for one in Operation}
        # An event's payload is encrypted by its sender, who knows the event's name and not the step's.
        event = definition.plan.event_name
        self.field = definition.plan.name if event is None else event_field(event)
        self.result: Schema = codec.schema(definition.result_type)
        self.rejects = definition.rejects
        # What goes to a participant and comes from it is not encrypted: it has no key.
        self.messages = {what: codec.plain.schema(one.type) for what, one in definition.messages.items()}
        self.rejection = None if definition.rejection is None else codec.plain.schema(definition.rejection)
        self.reply: Schema = codec.plain.schema(definition.result_type)
        self.code: dict[Operation, UserCode | None] = {
            Operation.ACTION: definition.action,
            Operation.COMPENSATION: definition.compensation,
            Operation.PROBE: definition.probe,
        }


class _Results(Struct):
    """The results that `ctx.result_or_none` reads, decoded when asked for; a struct, for one is made at every call."""

    bound: BoundSaga
    state: SagaState
    kept: Kept

    def get(self, step: str, default: Any = None) -> Any:
        """Return the decoded result, or the default if the step has none."""
        found = self.bound.steps.get(step)
        if found is None or self.state.steps[found.at].result is None:
            return default
        return self.bound.result_of(self.state, step, self.kept)


def event_field(event: str) -> str:
    """Return the field name under which an event's payload is encrypted."""
    return f"event:{event}"


def payload_context(state: SagaState, field: str) -> bytes:
    """Return what a payload is bound to when it is encrypted: the saga's identity and the field."""
    return payload_context_of(state.tenant, state.name, state.saga_id, field)


def payload_context_of(tenant: str, name: str, saga_id: str, field: str) -> bytes:
    """Return the same for a saga that is not loaded, or does not exist yet."""
    return f"{tenant}\x1f{name}\x1f{saga_id}\x1f{field}".encode()
