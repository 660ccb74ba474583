"""The one place that tells observers what happens, when it is durable.

Owns the promise that an observer can't hurt a saga: one that raises is reported once and goes unheard that time. Must
not decide, nor hand out a payload, a reason or an exception's text. Without an observer there is no `Telemetry` at all.
What can be heard is said in `atone.telemetry`. Made by `Orchestrator`, called by the runtime.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Self, cast

from atone._codec.problems import type_name
from atone._core import journal
from atone._core.commands import Alert, Call, Decision
from atone._core.facts import Fact, Impossible, Interrupted, Operation, Probed, Problem, Rejected, Succeeded
from atone._core.plan import Plan
from atone._runtime.trace_context import read_headers
from atone.errors import DefinitionError
from atone.machine import new_name
from atone.store import Census, Claimed, Outstanding, TurnResult
from atone.telemetry import Attempted, AttemptObserver, Looked, Observer, SagaObserver, StartObserver, Subject

log = logging.getLogger("atone.telemetry")


class Telemetry:
    """Tells every observer. Made by `Orchestrator` if it was given one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(part for one in observers for part in one.parts or (one,))
        wishes = [one.census_seconds for one in self._observers if one.census_seconds is not None]
        self.census_seconds: float | None = min(wishes, default=None)
        self._worker = new_name()

    def starting(self, saga: Subject) -> Start:
        """Begin to hear one `start`."""
        return Start(_each(self._observers, "starting", saga), saga.trace)

    def follow(self, saga: Subject, claimed: bool) -> Heard | None:
        """Return what hears a saga that is run here, by a claim or by its start; None if nobody wants to."""
        observers = _each(self._observers, "follow", saga)
        if claimed:
            _each(observers, "claimed")
        return Heard(observers) if observers else None

    def committed(self, results: Sequence[TurnResult], seconds: float) -> None:
        """Tell of a batch, and of what was refused in it."""
        _each(self._observers, "committed", len(results), seconds)
        if results.count(TurnResult.APPLIED) == len(results):
            return
        for refused in (TurnResult.CONFLICT, TurnResult.NOT_MINE):
            if refused in results:
                _each(self._observers, "writes_refused", refused.value, results.count(refused))

    def commit_repeated(self, turns: int) -> None:
        """Tell that a batch is sent again."""
        _each(self._observers, "commit_repeated", turns)

    def refused_as_dead(self, turns: int) -> None:
        """Tell that a batch was refused because the worker is dead."""
        _each(self._observers, "writes_refused", "worker_dead", turns)

    def lease_lost(self, sagas: int) -> None:
        """Tell that this worker was declared dead."""
        _each(self._observers, "lease_lost", sagas)

    def relayed(self, published: int, refused: int, unheard: int) -> None:
        """Tell of a batch of messages that the relay has taken to the broker."""
        _each(self._observers, "relayed", published, refused, unheard)

    def relay_failed(self, where: str) -> None:
        """Tell that the relay could not reach the broker, or the store."""
        _each(self._observers, "relay_failed", where)

    def posting(self, found: Outstanding) -> None:
        """Tell what the outbox holds."""
        _each(self._observers, "posting", found)

    def looked(self, claimed: Claimed, in_flight: int, again_in_seconds: float) -> None:
        """Tell what a claim has found."""
        counted = (len(claimed.taken), claimed.unclaimable, claimed.dead_letters, in_flight)
        found = Looked(*counted, self._worker, again_in_seconds)
        _each(self._observers, "looked", found)

    def counted(self, census: Census) -> None:
        """Tell how many sagas are unfinished."""
        _each(self._observers, "counted", census)


def telemetry_of(observers: Observer | Sequence[Observer]) -> Telemetry | None:
    """Return what tells these observers; None if there is none.

    Raises:
        DefinitionError: Something else was given.
    """
    if isinstance(observers, Observer):
        return Telemetry([observers])
    given = cast("object", observers)
    listed: list[object] = [*given] if isinstance(given, Iterable) else [given]
    if not all(isinstance(one, Observer) for one in listed):
        raise DefinitionError("`telemetry` takes an observer or a list of them; give for example OpenTelemetry().")
    return Telemetry(cast("list[Observer]", listed)) if listed else None


class Start:
    """One `start` that is heard; `trace` is what to store with the saga.

    A context manager: it hears how the block ends. `made` is set there if it was this start that made the saga.
    """

    def __init__(self, observers: Sequence[StartObserver], given: str | None) -> None:
        self._observers = observers
        told = (one.trace for one in observers)
        self.trace = next((trace for trace in told if trace is not None), given)
        self.made = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _each(self._observers, "ended", self.made, None if error is None else type_name(error))


_UNHEARD = Start((), None)


def starting(
    telemetry: Telemetry | None, plan: Plan, tenant: str, saga_id: str, headers: Mapping[str, str] | None
) -> Start:
    """Return what hears a `start`, and holds its trace context; `headers` are what the caller gave along."""
    found = None if headers is None else read_headers(headers)
    given = None if found is None else found.text
    if telemetry is not None:
        return telemetry.starting(Subject(plan.name, plan.version, saga_id, tenant, given))
    return _UNHEARD if given is None else Start((), given)


class Heard:
    """One saga that is heard; kept by its runner."""

    __slots__ = ("_observers",)

    def __init__(self, observers: Sequence[SagaObserver]) -> None:
        self._observers = observers

    def turned(self, decision: Decision, owned: bool) -> None:
        """Tell what a turn that is durable now has brought."""
        settled = False
        for entry in decision.entries:
            hear = _TOLD.get(type(entry))
            if hear is not None:
                _each(self._observers, *hear(entry))
                settled = settled or type(entry) in _SETTLES
        for command in decision.commands:
            if type(command) is Alert:
                _each(self._observers, "keeps_failing", command.step)
        if not owned and not settled:
            _each(self._observers, "released")

    def parked(self) -> None:
        """Tell that the saga can't be read or decided, and waits for a person."""
        _each(self._observers, "attention_raised", None)
        _each(self._observers, "settled", "needs_attention")

    def attempt(self, call: Call) -> HeardAttempt | None:
        """Begin to hear an attempt, in the task that makes it; None if nobody wants to."""
        what = Attempted(call.step, call.operation.value, call.attempt)
        observers: list[AttemptObserver] = []
        for one in self._observers:
            try:
                observer = one.attempt(what)
            except Exception as error:  # noqa: BLE001 - telemetry is no reason for a saga to fail
                _report(one, "attempt", error)
            else:
                if observer is not None:
                    observers.append(observer)
        return HeardAttempt(observers) if observers else None


class HeardAttempt:
    """One attempt that is heard; `headers` are what its participant is to be sent, if an observer has any."""

    __slots__ = ("_began", "_ended", "_observers", "headers")

    def __init__(self, observers: Sequence[AttemptObserver]) -> None:
        self._observers = observers
        self._began = perf_counter()
        self._ended = False
        self.headers: Mapping[str, str] | None = None
        for one in observers:
            if one.headers is not None:
                self.headers = one.headers
                break

    def returned(self, fact: Fact | None, *, in_time: bool) -> None:
        """Tell that user code is over, and what came of it unless that was told before."""
        for one in self._observers:
            try:
                one.returned()
            except Exception as error:  # noqa: BLE001 - telemetry is no reason for a saga to fail
                _report(one, "returned", error)
        self.ended(_outcome_of(fact, in_time), _error_of(fact))

    def ended(self, outcome: str, error: str | None = None) -> None:
        """Tell the outcome; only the first one counts."""
        if self._ended:
            return
        self._ended, seconds = True, perf_counter() - self._began
        for one in self._observers:
            try:
                one.ended(outcome, seconds, error)
            except Exception as wrong:  # noqa: BLE001 - telemetry is no reason for a saga to fail
                _report(one, "ended", wrong)


def _outcome_of(fact: Fact | None, in_time: bool) -> str:
    known = _OUTCOMES.get(type(fact))
    if known is not None:
        return known
    if isinstance(fact, Probed):
        return fact.answer.value
    return "unknown" if in_time else "timed_out"


def _error_of(fact: Fact | None) -> str | None:
    if isinstance(fact, Succeeded):
        return None
    problem = getattr(fact, "problem", None)
    return problem.type if isinstance(problem, Problem) else None


def _each(observers: Iterable[Any], what: str, *told: Any) -> list[Any]:
    """Tell all of them, and return their answers; one that fails is no reason for a saga to fail."""
    answers: list[Any] = []
    for one in observers:
        try:
            answer = getattr(one, what)(*told)
        except Exception as error:  # noqa: BLE001 - as said
            _report(one, what, error)
        else:
            if answer is not None:
                answers.append(answer)
    return answers


_reported: set[tuple[str, str]] = set()


def _report(observer: object, what: str, error: Exception) -> None:
    """Say once that an observer fails: it would fail at every turn of every saga."""
    place = (type(observer).__qualname__, what)
    if place not in _reported:
        _reported.add(place)
        log.error("telemetry: %s.%s raised %s; said once", *place, type_name(error))


_OUTCOMES: dict[type, str] = {
    type(None): "dropped",
    Succeeded: "succeeded",
    Rejected: "rejected",
    Interrupted: "interrupted",
    Impossible: "impossible",
}
_SETTLES = (journal.SagaEnded, journal.SagaParked)
_TOLD: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    journal.SagaEnded: lambda entry: ("settled", entry.status.value),
    journal.SagaParked: lambda entry: ("settled", "needs_attention"),
    journal.DirectionDecided: lambda entry: ("turned_back", entry.cause.trigger),
    journal.AttentionRaised: lambda entry: ("attention_raised", entry.step),
    journal.CompensationGaveUp: lambda entry: ("compensation_gave_up", entry.step),
    journal.LateSuccess: lambda entry: ("landed_late", entry.step),
    journal.AttemptLost: lambda entry: (
        "attempt_lost",
        Attempted(entry.step, Operation(entry.operation).value, entry.attempt),
    ),
}
