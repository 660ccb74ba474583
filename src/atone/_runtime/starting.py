"""Starting sagas, once each: what is written, what stands there already, and running one through to its end.

Owns the loop of a start whose answer was lost, and the comparison with a saga that has the id already. Must not decide
about a saga: the worker runs it. Called by `Orchestrator`, which makes handles of what it gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from atone._core.facts import StartRequested
from atone._core.plan import Plan
from atone._core.state import SagaState
from atone._runtime.arguments import checked_name
from atone._runtime.bound import BoundSaga
from atone._runtime.catalogue import Catalogue
from atone._runtime.reader import find_one, read_plan
from atone._runtime.starter import Starter
from atone._runtime.telemetry import Start, Telemetry, starting
from atone._runtime.views import outcome_of
from atone._runtime.waiting import Waiting
from atone._runtime.worker import Worker
from atone.definition import Saga
from atone.errors import ConflictingStart, CorruptJournal, PayloadError
from atone.outcome import Outcome
from atone.store import Store, Summary, TurnResult

Headers: TypeAlias = Mapping[str, str] | None
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0
_TOO_LARGE = "The store can't hold this start. Make the input smaller."


class Asked(NamedTuple):
    """A start that was asked for; `identity` is tenant, name and saga id."""

    bound: BoundSaga
    identity: tuple[str, str, str]
    payload: bytes

    def fact(self, trace: str | None) -> StartRequested:
        """Return what the worker is told; `trace` is the trace context that the saga goes on with, as text."""
        tenant, _, saga_id = self.identity
        return StartRequested(tenant, saga_id, self.payload, trace)

    def heard(self, telemetry: Telemetry | None, headers: Headers) -> Start:
        """Return what hears of this start, and holds its trace context."""
        tenant, _, saga_id = self.identity
        return starting(telemetry, self.bound.plan, tenant, saga_id, headers)


class Begun(NamedTuple):
    """A saga that is there, and what it follows; `bound` is that version, or the one that was asked with."""

    bound: BoundSaga
    plan: Plan
    key: bytes
    saga_id: str
    is_new: bool


class Starting:
    """`worker` returns what is open, or raises."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        waiting: Waiting,
        tenant: str,
        telemetry: Telemetry | None,
        worker: Callable[[], Worker | Starter],
    ) -> None:
        self._store, self._catalogue, self._waiting = store, catalogue, waiting
        self._tenant, self._telemetry, self._worker = tenant, telemetry, worker

    def checked(self, saga: type[Saga[Any]], given: object, saga_id: str) -> Asked:
        """Return what is to be started.

        Raises:
            PayloadError: The input is not of the declared type or too large, or the id is no usable text.
            UnknownSaga: The definition is not here.
        """
        bound = self._catalogue.of_class(saga)
        identity = (self._tenant, bound.plan.name, checked_name("saga_id", saga_id))
        return Asked(bound, identity, bound.input_schema.encode(given, bound.sealed_input(*identity)))

    async def start(self, asked: Asked, headers: Headers = None, connection: object | None = None) -> Begun:
        """Start a saga, or find the one that stands there; returns once it is durable.

        With a connection it is inserted within the caller's transaction there.
        """
        with asked.heard(self._telemetry, headers) as start:
            make = (
                self._make(asked, start.trace) if connection is None else self._insert(asked, start.trace, connection)
            )
            begun = await make
            start.made = begun.is_new
            return begun

    async def run_through(self, asked: Asked, headers: Headers) -> Outcome:
        """Start a saga and wait for its outcome, with one future where that can be: most calls want both."""
        outcomes, answer = self._waiting.outcomes, None
        if self._telemetry is None:  # it hears of a start by itself
            fact = asked.fact(asked.heard(None, headers).trace)
            answer = self._worker().run_through(asked.bound, fact, outcomes)
        if answer is None:
            return await self._outcome(await self.start(asked, headers))
        try:
            told = await answer.future
        except CorruptJournal as damage:
            return await self._waiting.outcome_of_damaged(answer.key, damage)
        finally:
            answer.leave()
        if isinstance(told, SagaState):
            return outcome_of(asked.bound, asked.bound.plan, told)
        begun = await self._begun(asked, answer.key, told)
        if begun is None:
            await _pause(told, _FIRST_PAUSE_SECONDS)
            begun = await self.start(asked, headers)
        return await self._outcome(begun)

    async def _make(self, asked: Asked, trace: str | None) -> Begun:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            if not self._worker().is_registered:
                await self._waiting.refuse_closed_store()  # between two lives, and then there is no next one
            key, result = await self._worker().start(asked.bound, asked.fact(trace))
            begun = await self._begun(asked, key, result)
            if begun is not None:
                return begun
            await _pause(result, pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _insert(self, asked: Asked, trace: str | None, connection: object) -> Begun:
        turn = await self._worker().unowned_start(asked.bound, asked.fact(trace))
        result = await self._store.start(turn, connection=connection)
        begun = await self._begun(asked, turn.key, result)
        if begun is None:
            raise ConflictingStart("The id was taken within a transaction that is not committed; try again later.")
        return begun

    async def found(self, asked: BoundSaga, found: Summary, is_new: bool = False) -> Begun:
        """Return a saga that may follow another version than the one it was asked for with."""
        bound = self._catalogue.of_stored(found)
        if bound is not None:
            return Begun(bound, bound.plan, found.key, found.saga_id, is_new)
        return Begun(asked, await read_plan(self._store, found.key), found.key, found.saga_id, is_new)

    async def _begun(self, asked: Asked, key: bytes, result: TurnResult | None) -> Begun | None:
        """Return the saga that a start came to; None: nobody knows, so start again."""
        if result is TurnResult.APPLIED:
            return Begun(asked.bound, asked.bound.plan, key, asked.identity[2], is_new=True)
        if result is TurnResult.REFUSED:
            raise PayloadError(_TOO_LARGE)
        # The id is taken, or the worker died before the answer: what stands in the store decides.
        found = await find_one(self._store, *asked.identity)
        if found is None:
            return None
        _refuse_other_input(asked, (await self._waiting.state(found.key)).input)
        return await self.found(asked.bound, found)

    async def _outcome(self, begun: Begun) -> Outcome:
        return await self._waiting.outcome(begun.bound, begun.plan, begun.key, None)


async def _pause(result: TurnResult | None, seconds: float) -> None:
    """Wait if the id is taken by what nobody can see yet: asking again at once would only burden the store."""
    if result is TurnResult.TAKEN:
        await asyncio.sleep(seconds)


def _refuse_other_input(asked: Asked, stored: bytes) -> None:
    context = asked.bound.sealed_input(*asked.identity)
    asked.bound.codec.unseal(stored, context)  # without its key nothing can be said of it, but what the codec says
    try:
        same = asked.bound.input_schema.same(stored, asked.payload, context)
    except PayloadError:  # another version's input, of another type
        same = False
    if not same:
        _, name, saga_id = asked.identity
        raise ConflictingStart(
            f"{name} saga {saga_id!r} was started with another input. Use a new saga_id, or the same input."
        )
