"""Steer a saga: cancel, events, and an operator's commands, as typed calls.

Owns the check of what is sent along, against the definition, before it becomes a request. Must not write to the store
or decide whether a request applies: the saga's owner answers. The base of `Orchestrator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

from atone._runtime.bound import BoundSaga, BoundStep, event_field, payload_context_of
from atone._runtime.requests import Receipt
from atone.definition import Saga, Seconds
from atone.errors import UnknownSaga

# What `resolve` is given when nobody says what the action returned: None would be a result.
NOT_GIVEN: Final = object()


class Steering(ABC):
    """What can be asked of a saga by who holds its definition; each call returns a `Receipt` once it is durable."""

    _tenant: str

    @abstractmethod
    def _bound_to(self, saga: type[Saga[Any]]) -> BoundSaga: ...

    @abstractmethod
    async def _ask(self, saga: type[Saga[Any]], saga_id: str, kind: str, **what: Any) -> Receipt: ...

    async def cancel(self, saga: type[Saga[Any]], saga_id: str, /, *, reason: str, by: str = "api") -> Receipt:
        """Ask for the saga to be undone; durable when this returns. `Receipt.answer` tells what became of it.

        Raises:
            UnknownSaga: There is none with this id.
            RequestRefused: The saga is over.
        """
        return await self._ask(saga, saga_id, "cancel", by=by, reason=reason)

    async def terminate(self, saga: type[Saga[Any]], saga_id: str, /, *, reason: str, by: str = "api") -> Receipt:
        """End the saga as FAILED without undoing anything; effects stand. Errors as `cancel`."""
        return await self._ask(saga, saga_id, "terminate", by=by, reason=reason)

    async def retry(
        self, saga: type[Saga[Any]], saga_id: str, step: str | None = None, /, *, reason: str, by: str = "api"
    ) -> Receipt:
        """Give a step (or all that need it) another round of attempts at once. Errors as `cancel`."""
        if step is not None:
            _step_of(self._bound_to(saga), step)
        return await self._ask(saga, saga_id, "retry", by=by, reason=reason, step=step)

    async def skip(self, saga: type[Saga[Any]], saga_id: str, step: str, /, *, reason: str, by: str = "api") -> Receipt:
        """Skip a step that needs attention, or its undo: then the saga ends FAILED. Errors as `cancel`."""
        _step_of(self._bound_to(saga), step)
        return await self._ask(saga, saga_id, "skip", by=by, reason=reason, step=step)

    async def resolve(
        self,
        saga: type[Saga[Any]],
        saga_id: str,
        step: str,
        /,
        *,
        landed: bool,
        result: object = NOT_GIVEN,
        reason: str,
        by: str = "api",
    ) -> Receipt:
        """Vouch for what an unknown step did: it landed, with this result, or it surely had no effect.

        Leave `result` out for a compensation, and for an action that returns None.

        Raises:
            PayloadError: The result is not of the step's declared type. Nothing was written.
        """
        bound = self._bound_to(saga)
        found = _step_of(bound, step)
        if result is NOT_GIVEN and found.definition.result_type in (None, type(None)):
            result = None
        # An action without its result is refused in the saga's own words; a compensation has none.
        context = payload_context_of(self._tenant, bound.plan.name, saga_id, step)
        payload = found.result.encode(result, context) if landed and result is not NOT_GIVEN else None
        said: dict[str, Any] = {"step": step, "landed": landed, "payload": payload}
        return await self._ask(saga, saga_id, "resolve", by=by, reason=reason, **said)

    async def send_event(
        self,
        saga: type[Saga[Any]],
        saga_id: str,
        name: str,
        payload: object = None,
        /,
        *,
        event_id: str | None = None,
        keep: Seconds = 3600.0,
    ) -> Receipt:
        """Deliver an event to a saga that waits for it, or will; the first of a name counts, each `event_id` once.

        An event for a saga that does not exist yet is kept for `keep` seconds, then it is a dead letter.

        Raises:
            PayloadError: The payload is not of the type that the definition declares. Nothing was written.
            UnknownSaga: No step of the definition waits for such an event.
            RequestRefused: The saga is over.
        """
        bound = self._bound_to(saga)
        taker = next((step for step in bound.steps.values() if step.definition.plan.event_name == name), None)
        if taker is None:
            raise UnknownSaga(f"No step of {bound.plan.name} waits for an event {name!r}; check the name.")
        context = payload_context_of(self._tenant, bound.plan.name, saga_id, event_field(name))
        data = taker.result.encode(payload, context)
        return await self._ask(
            saga, saga_id, "event", by="event", reason=name, event=name, payload=data, request_id=event_id, keep=keep
        )


def _step_of(bound: BoundSaga, step: str) -> BoundStep:
    if step not in bound.steps:
        raise UnknownSaga(f"{bound.plan.name} has no step {step!r}; its steps are {', '.join(bound.steps)}.")
    return bound.steps[step]
