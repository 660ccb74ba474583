"""The telemetry port: what can be heard of the sagas, and of the worker that runs them.

Owns the names of what is told. Nothing that is told holds a payload, a reason or an exception's text. Must not know
who listens: observers are the bridges in `integrations`, and anybody may write another by deriving from `Observer`;
every method has a body that hears nothing. Told by `_runtime.telemetry`; named in `Orchestrator(telemetry=)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from atone.store import Census, Outstanding

CENSUS_SECONDS = 15.0


class Subject(NamedTuple):
    """The saga that is spoken of. `trace` is the stored trace context of who started it, as text."""

    name: str
    version: int
    saga_id: str
    tenant: str
    trace: str | None = None


class Attempted(NamedTuple):
    """The call that is spoken of. `operation` is action, compensation or probe."""

    step: str
    operation: str
    attempt: int


class Looked(NamedTuple):
    """What a look for sagas to claim has found; `unclaimable` are due, and no definition here fits them.

    `worker` is who looked, under one name in all its lives; `again_in_seconds` is the longest until its next look.
    """

    taken: int
    unclaimable: int
    dead_letters: int
    in_flight: int
    worker: str = ""
    again_in_seconds: float = 0.0


class StartObserver:
    """Hears one `start`; `trace` is the context to store with the saga, as text."""

    trace: str | None = None

    def ended(self, made: bool, error: str | None) -> None:
        """It is over: a saga was made, or one was found, or it failed with an error of this type."""


class AttemptObserver:
    """Hears one attempt; `headers` are the trace context that the participant is to be sent, if it is another one."""

    headers: Mapping[str, str] | None = None

    def returned(self) -> None:
        """User code is over; called in the task (so with the context variables) that began it."""

    def ended(self, outcome: str, seconds: float, error: str | None) -> None:
        """It has an outcome, told once. `error` is the type of what was raised, if anything was.

        `outcome` is succeeded, rejected, unknown, timed_out, interrupted, impossible or dropped; of a probe it is
        landed, not_landed or cannot_tell too.
        """


class SagaObserver:
    """Hears one saga, for as long as this worker owns it. All of it is durable when it is told."""

    def claimed(self) -> None:
        """This worker has taken it, from the store or from a worker that is gone."""

    def released(self) -> None:
        """This worker has given it up, because it waits for long; anybody may claim it when it is due."""

    def settled(self, status: str) -> None:
        """It is completed, compensated, failed or needs_attention."""

    def turned_back(self, trigger: str) -> None:
        """It only undoes from now on; `trigger` is failure, cancel, deadline, timeout or operator."""

    def attention_raised(self, step: str | None) -> None:
        """A step, or the whole saga (None), can't go on without a person."""

    def compensation_gave_up(self, step: str) -> None:
        """An undo will not be tried again."""

    def keeps_failing(self, step: str) -> None:
        """A step has failed so often that somebody should look; it is tried again all the same."""

    def attempt_lost(self, what: Attempted) -> None:
        """The process that made an attempt is gone: nobody will say how it ended."""

    def landed_late(self, step: str) -> None:
        """An attempt that was given up on has succeeded after all."""

    def attempt(self, what: Attempted) -> AttemptObserver | None:
        """User code is about to be called, in the task (so with the context variables) that this is called in."""


class Observer:
    """Hears what one worker does. Override what you want to hear; every method must return at once.

    `census_seconds` is how often it wants to hear a census; None: never. One that is made of `parts` hears nothing
    itself.
    """

    census_seconds: float | None = None
    parts: Sequence[Observer] = ()

    def starting(self, saga: Subject) -> StartObserver | None:
        """Somebody starts a saga, in the caller's task; `saga.trace` is the context that was given along, if any."""

    def follow(self, saga: Subject) -> SagaObserver | None:
        """A saga begins to be run here; return who hears of it."""

    def committed(self, turns: int, seconds: float) -> None:
        """A batch of turns has had its definite answer, so long after it was first sent."""

    def commit_repeated(self, turns: int) -> None:
        """The outcome of a commit is unknown, so it is sent again."""

    def writes_refused(self, why: str, turns: int) -> None:
        """The store refused stale writes; `why` is conflict, not_mine or worker_dead. Nothing of them was written."""

    def lease_lost(self, sagas: int) -> None:
        """This worker was declared dead; it has dropped so many sagas and comes back under another id."""

    def looked(self, found: Looked) -> None:
        """A look for sagas to claim is over."""

    def counted(self, census: Census) -> None:
        """The unfinished sagas of the whole store, by name and status."""

    def relayed(self, published: int, refused: int, unheard: int) -> None:
        """A batch of messages is over: so many are with the broker, are set aside, or wait for somebody to listen."""

    def relay_failed(self, where: str) -> None:
        """The relay failed to reach the broker or the store, or in its own work (`where` says it); it tries again."""

    def posting(self, found: Outstanding) -> None:
        """What the outbox of the store holds: what waits to be published, and since when."""
