"""One decision in the making: the entries so far, the saga that they give, and what the shell will be asked.

The state is always the fold of the entries, so nobody in the core changes a saga in any other way. Lives for one
call of `decide`; the only mutable thing in the core.
"""

from __future__ import annotations

from atone._core.commands import Alert, AskCondition, AskMessage, Call, Command, Decision, Finish, Send
from atone._core.facts import ACTION, PROBE, Built, Operation
from atone._core.fold import Folding
from atone._core.journal import AttemptStarted, Entry, SagaEnded, SagaParked
from atone._core.keys import idempotency_key
from atone._core.plan import COMMAND, Plan, Role, StepPlan
from atone._core.records import new
from atone._core.retry import Retry, delay_seconds
from atone._core.state import SagaState, SagaStatus, StepState

_NEEDS_ATTENTION = SagaStatus.NEEDS_ATTENTION


def awaits_reply(step: StepPlan, state: StepState) -> bool:
    """Whether a command was sent and its reply is awaited: no process runs that attempt, so none can lose it."""
    return step.does is COMMAND and state.open is not None and state.open.operation is not PROBE


def action_end(step: StepPlan, state: StepState, now: float) -> float | None:
    """Return when the deadline over all attempts of a step's action passes; a step after the pivot has none."""
    if step.deadline_seconds is None or step.role is Role.RETRIABLE:
        return None
    return (now if state.began_at is None else state.began_at) + step.deadline_seconds


class Draft(Folding):
    """The decision that `decide` is working on.

    `may_start` is False while the worker drains: outcomes are still recorded, but no new intent is committed. `built`
    holds the messages that the shell has brought.
    """

    __slots__ = ("_alerts", "_asks", "_calls", "_sends", "_wanted", "built", "entries", "may_start", "now", "wake_at")

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
        self._sends: tuple[Send, ...] = ()
        self._wanted: tuple[tuple[str, Operation, int], ...] = ()
        self.built: tuple[Built, ...] = ()

    def record(self, entry: Entry) -> None:
        """Add an entry and let it change the saga."""
        self.apply(entry)
        self.entries += (entry,)

    def at(self, name: str) -> tuple[StepPlan, StepState]:
        """Return the plan and the present state of a step."""
        position = self.plan.index[name]
        return self.plan.steps[position], self.steps[position]

    def start(self, step: StepPlan, state: StepState, operation: Operation) -> None:
        """Commit the intent to call this operation now, or to send it; while draining, leave it to the next owner."""
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
        if step.does is COMMAND and operation is not PROBE:
            self._send(step.name, operation, attempt, deadline)
            return
        self.record(new(AttemptStarted, (step.name, operation, attempt, deadline, now)))
        self._calls += (new(Call, (step.name, operation, attempt, deadline)),)

    def _send(self, step: str, operation: Operation, attempt: int, deadline: float) -> None:
        """Commit intent and message together, or ask for the message first."""
        body = next((one.body for one in self.built if one.step == step and one.operation is operation), None)
        if body is None:
            self._wanted += ((step, operation, attempt),)
            return
        self.record(AttemptStarted(step, operation, attempt, deadline, self.now))
        self._sends += (Send(step, operation, attempt, deadline, body),)

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
        """Whether no call is under way and nothing is being asked; a reply may be awaited."""
        if self._calls or self._asks or self._wanted:
            return False
        for at, step in enumerate(self.steps):  # `all` over a generator costs three times as much, each turn
            if step.open is not None and not awaits_reply(self.plan.steps[at], step):
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
            if self._sends or self._wanted:
                wanted = tuple(AskMessage(*what, saga.version) for what in self._wanted)
                commands = (*self._sends, *commands, *wanted)
            return new(Decision, (entries, saga, commands, self.wake_at, idle))
        ended = any(type(entry) is SagaEnded or type(entry) is SagaParked for entry in entries)
        return new(Decision, (entries, saga, (Finish(),) if ended else (), None, True))
