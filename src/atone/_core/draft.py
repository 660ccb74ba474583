"""One decision in the making: the entries so far, the saga that they give, and what the shell will be asked.

The state is always the fold of the entries, so nobody in the core changes a saga in any other way. Lives for one
call of `decide`; the only mutable thing in the core.
"""

from __future__ import annotations

from atone._core.commands import Alert, AskCondition, Call, Command, Decision, Finish
from atone._core.facts import ACTION, PROBE, Operation
from atone._core.fold import Folding
from atone._core.journal import AttemptStarted, Entry, SagaEnded, SagaParked
from atone._core.keys import idempotency_key
from atone._core.plan import Plan, Role, StepPlan
from atone._core.records import new
from atone._core.retry import Retry, delay_seconds
from atone._core.state import SagaState, SagaStatus, StepState

_NEEDS_ATTENTION = SagaStatus.NEEDS_ATTENTION


def action_end(step: StepPlan, state: StepState, now: float) -> float | None:
    """Return when the deadline over all attempts of a step's action passes; a step after the pivot has none."""
    if step.deadline_seconds is None or step.role is Role.RETRIABLE:
        return None
    return (now if state.began_at is None else state.began_at) + step.deadline_seconds


class Draft(Folding):
    """The decision that `decide` is working on.

    `may_start` is False while the worker drains: outcomes are still recorded, but no new intent is committed.
    """

    __slots__ = ("_alerts", "_asks", "_calls", "entries", "may_start", "now", "wake_at")

    def __init__(self, plan: Plan, saga: SagaState, now: float, may_start: bool) -> None:
        super().__init__(plan, saga, saga.version + 1)
        self.now = now
        self.may_start = may_start
        # Tuples, not lists: most stay empty, and the others hold one or two.
        self.entries: tuple[Entry, ...] = ()
        self.wake_at: float | None = None
        self._calls: tuple[Call, ...] = ()
        self._asks: tuple[AskCondition, ...] = ()
        self._alerts: tuple[Alert, ...] = ()

    def record(self, entry: Entry) -> None:
        """Add an entry and let it change the saga."""
        self.apply(entry)
        self.entries += (entry,)

    def at(self, name: str) -> tuple[StepPlan, StepState]:
        """Return the plan and the present state of a step."""
        position = self.plan.index[name]
        return self.plan.steps[position], self.steps[position]

    def start(self, step: StepPlan, state: StepState, operation: Operation) -> None:
        """Commit the intent to call this operation now; while draining, leave it to the next owner."""
        if not self.may_start:
            self.wake(self.now)
            return
        now = self.now
        if operation is ACTION:
            attempt, deadline = state.action.started + 1, now + step.timeout_seconds
            if step.deadline_seconds is not None:
                end = action_end(step, state, now)
                deadline = deadline if end is None else min(deadline, end)
        elif operation is PROBE:
            attempt, deadline = state.probe.started + 1, now + step.probe_timeout_seconds
        else:
            attempt, deadline = state.compensation.started + 1, now + step.compensation_timeout_seconds
        self.record(new(AttemptStarted, (step.name, operation, attempt, deadline, now)))
        self._calls += (new(Call, (step.name, operation, attempt, deadline)),)

    def ask(self, step: str) -> None:
        """Have the shell ask the step's `when`; while draining, leave it to the next owner."""
        if self.may_start:
            self._asks += (AskCondition(step),)
        else:
            self.wake(self.now)

    def alert(self, step: str, failures: int) -> None:
        """Have the shell report a step that keeps failing."""
        self._alerts += (Alert(step, failures),)

    def wake(self, at: float) -> None:
        """Look again at this time at the latest."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def backoff(self, retry: Retry, failures: int, step: str, operation: Operation) -> float:
        """Return the seconds to wait before the next attempt; jitter comes from the operation's idempotency key."""
        saga = self.cold
        return delay_seconds(
            retry, failures, idempotency_key(saga.tenant, saga.name, saga.saga_id, step, operation.value)
        )

    def rests(self) -> bool:
        """Whether no attempt is under way and no condition is being asked."""
        if self._calls or self._asks:
            return False
        for step in self.steps:  # noqa: SIM110 - `all` over a generator costs three times as much, each turn
            if step.open is not None:
                return False
        return True

    def decision(self) -> Decision:
        """Return what was drafted."""
        saga, entries = self.saga, self.entries
        if not (saga.status.is_final or saga.status is _NEEDS_ATTENTION):
            idle = self.rests()
            if idle and self.wake_at is None:
                raise AssertionError(f"saga {saga.saga_id!r} would wait for nothing: {saga}")
            commands: tuple[Command, ...] = self._calls + self._asks + self._alerts
            return new(Decision, (entries, saga, commands, self.wake_at, idle))
        ended = any(type(entry) is SagaEnded or type(entry) is SagaParked for entry in entries)
        return new(Decision, (entries, saga, (Finish(),) if ended else (), None, True))
