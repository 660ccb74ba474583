"""What the real `decide` says, asked once a question: sagas and decisions as objects that are the same when they equal.

Owns the canonical form: times count from now, what is past is past, row numbers are left out. So two situations that
differ only in when they happened meet. Each decision is judged by itself when it is first made. Must not know of
workers or stores.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from atone._core import facts
from atone._core.commands import AskCondition, AskMessage, Call, Decision, Send
from atone._core.decide import decide
from atone._core.facts import Fact
from atone._core.fold import fold
from atone._core.journal import Entry, RequestReceived
from atone._core.plan import Plan
from atone._core.state import Request, SagaState, StepState
from tests.core.invariants import judge_decision
from tests.core.world import Wire

_TIMES = frozenset({"deadline", "at", "due_at", "until", "rollback_deadline"})


class Saga:
    """A saga's state in canonical form. One object for each, so that `is` compares."""

    __slots__ = ("decided", "is_final", "later", "received", "state")

    def __init__(self, state: SagaState) -> None:
        self.state = state
        self.is_final = state.status.is_final
        self.decided: dict[tuple[Told, bool], Decided] = {}
        self.later: dict[float, Saga] = {}
        self.received: dict[Request, Saga] = {}


class Told:
    """A fact. One object for each."""

    __slots__ = ("fact",)

    def __init__(self, fact: Fact) -> None:
        self.fact = fact


class Decided:
    """A decision in canonical form, and the fact that it answers. One object for each."""

    __slots__ = ("after", "asks", "calls", "entries", "idle", "later", "letters", "told", "wake_at", "wanted")

    def __init__(self, told: Told, entries: tuple[Entry, ...], after: Saga, wake_at: float | None, idle: bool) -> None:
        self.told = told
        self.entries = entries
        self.after = after
        self.wake_at = wake_at
        self.idle = idle
        self.calls: tuple[Wire, ...] = ()
        self.letters: tuple[Wire, ...] = ()
        self.asks: tuple[str, ...] = ()
        self.wanted: tuple[AskMessage, ...] = ()
        self.later: dict[float, Decided] = {}


class Book:
    """Everything that was ever said about the sagas of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.woke = self.told(facts.Woke())
        self._sagas: dict[SagaState, Saga] = {}
        self._decided: dict[tuple[Any, ...], Decided] = {}

    @cache  # noqa: B019 - a book lives as long as its search
    def told(self, fact: Fact) -> Told:
        """Return the one object for a fact."""
        return Told(fact)

    def saga(self, state: SagaState) -> Saga:
        """Return the one object for a state."""
        state = self._canonical(state, 0.0)
        known = self._sagas.get(state)
        if known is None:
            known = self._sagas[state] = Saga(state)
        return known

    def start(self, *, may_start: bool) -> Decided:
        """Return how the saga begins."""
        fact = facts.StartRequested("main", "s", b"{}")
        return self._kept(self.told(fact), None, decide(self.plan, None, fact, 0.0, may_start=may_start))

    def decide(self, saga: Saga, told: Told, may_start: bool) -> Decided:
        """Return what `decide` says, asked now."""
        known = saga.decided.get((told, may_start))
        if known is None:
            decision = decide(self.plan, saga.state, told.fact, 0.0, may_start=may_start)
            known = saga.decided[told, may_start] = self._kept(told, saga.state, decision)
        return known

    def _kept(self, told: Told, before: SagaState | None, decision: Decision) -> Decided:
        judge_decision(self.plan, before, decision)
        calls = tuple(Wire(*one) for one in decision.commands if type(one) is Call)
        letters = tuple(Wire(*one[:4], sent=True) for one in decision.commands if type(one) is Send)
        asks = tuple(one.step for one in decision.commands if type(one) is AskCondition)
        wanted = tuple(one for one in decision.commands if type(one) is AskMessage)
        return self._made(
            told, decision.entries, decision.saga, decision.wake_at, decision.idle, calls, letters, asks, wanted
        )

    def _made(
        self,
        told: Told,
        entries: tuple[Entry, ...],
        after: SagaState,
        wake_at: float | None,
        idle: bool,
        *commands: tuple[Any, ...],
    ) -> Decided:
        saga, wake_at = self.saga(after), _past(wake_at)
        key = (told, entries, saga, wake_at, idle, *commands)
        known = self._decided.get(key)
        if known is None:
            known = self._decided[key] = Decided(told, entries, saga, wake_at, idle)
            known.calls, known.letters, known.asks, known.wanted = commands
        return known

    def received(self, saga: Saga, request: Request) -> Saga:
        """Return the saga after a request was appended to its journal."""
        known = saga.received.get(request)
        if known is None:
            known = saga.received[request] = self.saga(fold(self.plan, saga.state, (RequestReceived(request),)))
        return known

    def folded(self, saga: Saga, entries: tuple[Entry, ...]) -> Saga:
        """Return the saga after a row that was decided on another state of it."""
        return self.saga(fold(self.plan, saga.state, entries))

    def later(self, saga: Saga, seconds: float) -> Saga:
        """Return the same saga as it looks so many seconds later."""
        known = saga.later.get(seconds)
        if known is None:
            known = saga.later[seconds] = self.saga(self._canonical(saga.state, seconds))
        return known

    def decided_later(self, decided: Decided, seconds: float) -> Decided:
        """Return the same decision as it looks so many seconds later, still not written or not heard of."""
        known = decided.later.get(seconds)
        if known is None:
            entries = tuple(_moved(entry, seconds) for entry in decided.entries)
            after = self._canonical(decided.after.state, seconds)
            wake_at = None if decided.wake_at is None else decided.wake_at - seconds
            calls = tuple(self.wire_later(wire, seconds) for wire in decided.calls)
            letters = tuple(self.wire_later(wire, seconds) for wire in decided.letters)
            known = self._made(
                decided.told, entries, after, wake_at, decided.idle, calls, letters, decided.asks, decided.wanted
            )
            decided.later[seconds] = known
        return known

    def wire_later(self, wire: Wire, seconds: float) -> Wire:
        """Return a call as it looks so many seconds later."""
        return wire._replace(deadline=max(wire.deadline - seconds, -self.plan.late_grace_seconds))

    def _canonical(self, state: SagaState, seconds: float) -> SagaState:
        steps = tuple(self._canonical_step(step, seconds) for step in state.steps)
        deadline = None if state.deadline is None else max(state.deadline - seconds, 0.0)
        # Compared by "later than": the moment itself is not past yet.
        rollback = None if state.rollback_deadline is None else max(state.rollback_deadline - seconds, -1.0)
        version = state.version if self.plan.has_commands else 1
        return state._replace(steps=steps, deadline=deadline, rollback_deadline=rollback, version=version)

    def _canonical_step(self, step: StepState, seconds: float) -> StepState:
        grace = self.plan.late_grace_seconds
        opened = step.open
        if opened is not None:
            opened = opened._replace(deadline=max(opened.deadline - seconds, -grace))
        due_at = None if step.due_at is None else max(step.due_at - seconds, 0.0)
        quiet_at = max(step.quiet_at - seconds, -grace) if step.doubt else -grace
        began_at = step.began_at
        if began_at is not None:
            began_at = began_at - seconds if self._has_deadline else 0.0
        return step._replace(open=opened, due_at=due_at, quiet_at=quiet_at, began_at=began_at)

    @property
    def _has_deadline(self) -> bool:
        return any(step.deadline_seconds is not None for step in self.plan.steps)


def _past(time: float | None) -> float | None:
    return None if time is None else max(time, 0.0)


def _moved(entry: Any, seconds: float) -> Any:
    if dataclasses.is_dataclass(entry):
        names = [one.name for one in dataclasses.fields(entry) if one.name in _TIMES]
        times = {name: getattr(entry, name) for name in names}
        return dataclasses.replace(entry, **{name: time - seconds for name, time in times.items() if time is not None})  # type: ignore[type-var]
    times = {name: getattr(entry, name) for name in entry._fields if name in _TIMES}
    return entry._replace(**{name: time - seconds for name, time in times.items() if time is not None})
