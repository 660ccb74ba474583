"""The commands of a decision as messages: what goes into the outbox with the intents of command steps.

Owns the way from `Send` to an envelope. The bodies were built before the decision; nothing is called here. Called by
`outgoing`, which writes what a turn sends.
"""

from __future__ import annotations

from collections.abc import Mapping

from atone._core.commands import Decision, Send
from atone._core.keys import idempotency_key
from atone._core.state import SagaState
from atone._messaging import headers
from atone._messaging.envelope import Command, command_message
from atone._runtime.bound import BoundSaga
from atone._runtime.trace_context import headers_of
from atone.broker import NO_HEADERS, Message

SOURCE = "orchestrator"


def commands_of(bound: BoundSaga, key: bytes, decision: Decision, at: float, reply_to: str) -> tuple[Message, ...]:
    """Return the messages of the commands that a decision sends, in its order; `at` is the store's time."""
    if not bound.plan.has_commands:
        return ()
    saga = decision.saga
    trace = NO_HEADERS if saga.trace is None else headers_of(saga.trace)
    return tuple(_message(bound, key, saga, one, at, reply_to, trace) for one in decision.commands if type(one) is Send)


def _message(
    bound: BoundSaga,
    key: bytes,
    saga: SagaState,
    send: Send,
    at: float,
    reply_to: str,
    trace: Mapping[str, str],
) -> Message:
    step, operation, attempt, _, body = send
    about = bound.steps[step].definition.messages[operation.value]
    is_undo = operation.value == headers.COMPENSATION
    command = Command(
        tenant=saga.tenant,
        saga=saga.name,
        saga_id=saga.saga_id,
        step=step,
        operation=operation.value,
        attempt=attempt,
        key=_key(saga, step, operation.value),
        name=about.name,
        version=about.version,
        reply_to=reply_to,
        source=SOURCE,
        at=at,
        action_key=_key(saga, step, headers.ACTION) if is_undo else None,
        trace=trace,
    )
    return command_message(command, about.topic, body, saga_key=key)


def _key(saga: SagaState, step: str, operation: str) -> str:
    return idempotency_key(saga.tenant, saga.name, saga.saga_id, step, operation)
