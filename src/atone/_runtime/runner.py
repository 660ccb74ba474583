"""One saga that this worker runs: facts in, decisions committed, commands performed.

Owns the saga's state between turns and its timer. A turn is always: decide, commit, then perform; one at a time, and
nothing is performed before its entries are durable. Must not judge a saga: what a fact means is `_core.decide`'s to
say. Made and kept by the worker.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

from atone._core import facts
from atone._core.attempts import chances_left, may_be_lost_again
from atone._core.commands import Alert, AskCondition, Call, Decision
from atone._core.decide import decide
from atone._core.facts import Fact, Operation, Problem
from atone._core.journal import AttentionRaised, Entry, SagaParked
from atone._core.state import Request, SagaState, SagaStatus
from atone._runtime.alarm import Alarm
from atone._runtime.bound import BoundSaga, BoundStep, payload_context
from atone._runtime.calls import Caller, Calls
from atone._runtime.caution import Caution
from atone._runtime.logs import of_saga, report
from atone._runtime.outgoing import Sending, events_of, messages_of
from atone._runtime.slots import Slots
from atone._runtime.telemetry import Telemetry
from atone._runtime.wire import encode_entries
from atone.broker import Message
from atone.codec import describe
from atone.errors import PayloadError
from atone.store import Birth, Hot, Turn, TurnResult
from atone.telemetry import Subject

log = logging.getLogger("atone.saga")

HELD_BACK_LOOK_SECONDS = 1.0
_KEEPS_FAILING = "saga %s: step %s has failed %d times"
_NOT_PARKED = "saga %s could not be parked (%s); it is claimed again later"
_APPLIED = TurnResult.APPLIED


# The turn that is being written: what it was decided on, what follows, and what the saga is and shows then.
_Writing: TypeAlias = tuple[Fact, Decision, SagaState, Hot]


class Host(Caller, Protocol):
    """What a runner needs of its worker."""

    draining: bool
    keep_seconds: float
    caution: Caution
    telemetry: Telemetry | None
    sending: Sending | None

    def next_commit_id(self) -> bytes:
        """Return a commit id never used before."""
        ...

    def submit(self, turn: Turn, landed: Callable[[TurnResult], None]) -> None:
        """Write a turn with the next batch."""
        ...

    def posted(self) -> None:
        """Messages were written with a turn, and wait to be published."""
        ...

    async def reread(self, runner: Runner) -> None:
        """Load the saga again, then call `reloaded` or `drop`."""
        ...

    @property
    def on_changed(self) -> Callable[[bytes, SagaState], None]:
        """What hears each state that has become durable."""
        ...

    def release(self, runner: Runner) -> None:
        """The saga is no longer this worker's; whoever waits for its end is told."""
        ...


class Runner:
    """One owned saga. `gone` once it is somebody else's, or nobody's."""

    __slots__ = (
        "_alarm",
        "_calls",
        "_facts",
        "_held_back",
        "_host",
        "_hot",
        "_posts",
        "_started",
        "_wary",
        "_writing",
        "_written",
        "bound",
        "gone",
        "key",
        "state",
    )

    def __init__(self, host: Host, bound: BoundSaga, key: bytes) -> None:
        self._host = host
        self._facts: deque[Fact] = deque()
        self._calls = Calls(host, bound, self.tell)
        self._alarm = Alarm()
        self.gone = self._writing = self._wary = self._posts = False
        self._written: _Writing | None = None
        self._held_back: Slots | Caution | None = None
        self._hot: Hot | None = None
        self._started: Callable[[TurnResult], None] | None = None
        self.bound = bound
        self.key = key
        self.state: SagaState | None = None

    def begin(self, fact: facts.StartRequested, started: Callable[[TurnResult], None]) -> None:
        """Start the saga; `started` hears what became of it, unless the worker dies first."""
        self._started = started
        self.listen(fact.tenant, fact.saga_id, fact.trace)
        decision = self._weigh(None, fact)
        plan = self.bound.plan
        birth = Birth(fact.tenant, plan.name, fact.saga_id, plan.version, plan.plan_hash)
        self._write(fact, decision, self._releases(decision), birth)

    def resume(self, state: SagaState, hot: Hot, unfit: Iterable[facts.RequestsUnfit]) -> None:
        """Go on with a saga that was claimed: whoever ran its open attempts is gone."""
        self.state, self._hot, self._writing = state, hot, False
        self._wary = may_be_lost_again(state)
        self._facts.extend(unfit)
        self.listen(state.tenant, state.saga_id, state.trace, claimed=True)
        for step, found in zip(self.bound.plan.steps, state.steps, strict=True):
            if found.open is not None:
                self._facts.append(facts.Lost(step.name, found.open.operation, found.open.attempt))
        self.tell(facts.Woke())

    def listen(self, tenant: str, saga_id: str, trace: str | None, *, claimed: bool = False) -> None:
        """Have telemetry hear of this saga, if there is any."""
        if self._host.telemetry is not None:
            subject = Subject(self.bound.plan.name, self.bound.plan.version, saga_id, tenant, trace)
            self._calls.heard = self._host.telemetry.follow(subject, claimed)

    def tell(self, fact: Fact) -> None:
        """Add a fact; it is decided as soon as the write under way is durable."""
        self._facts.append(fact)
        self._next()

    def refresh(self) -> None:
        """Read the saga again, because somebody has appended to it; a write under way finds out by itself."""
        if not self._writing and not self.gone:
            self._writing = True
            self._host.spawn(self._host.reread(self))

    def reloaded(self, state: SagaState, hot: Hot, unfit: Iterable[facts.RequestsUnfit]) -> None:
        """Go on from the state that was read; attempts under way here stay under way."""
        self.state, self._hot, self._writing = state, hot, False
        self._facts.extendleft(unfit)
        self.tell(facts.Woke())

    def drop(self) -> None:
        """Forget the saga at once: it is not mine. Calls under way are interrupted and their outcomes are not told."""
        self._go()
        self._alarm.stop()
        self._calls.forget()

    def leave(self) -> None:
        """Forget the saga: it needs no owner now. What still runs in a thread is not listened to any more."""
        self._go()
        self._calls.leave()

    def _go(self) -> None:
        self.gone = True
        if self._wary:
            self._host.caution.hold(self.key, None)

    def interrupt(self) -> None:
        """End the calls under way for a shutdown; each is told as interrupted and goes on elsewhere."""
        self._calls.interrupt()

    def park(self, why: str, version: int) -> None:
        """Leave the saga to a person, because it can't be folded or decided; `version` is its last row's."""
        self._alarm.stop()
        self._writing = True
        self._host.submit(_parking(self, self._host, why, version + 1), self._parked)

    def _parked(self, result: TurnResult) -> None:
        if result is not TurnResult.APPLIED:
            log.error(_NOT_PARKED, self.key.hex(), result.value, extra=_fields(self, self._host))
        elif self._calls.heard is not None:
            self._calls.heard.parked()
        self.state = None
        self.drop()
        self._host.release(self)

    def _next(self) -> None:
        while self._facts and not self._writing and not self.gone:
            fact = self._facts.popleft()
            decision = self._decide(fact)
            if decision is None:
                return
            released = self._releases(decision)
            if decision.entries or released:
                self._write(fact, decision, released)
            else:
                self._perform(decision)

    def _decide(self, fact: Fact) -> Decision | None:
        assert self.state is not None
        try:
            return self._weigh(self.state, fact)
        except Exception as error:  # noqa: BLE001 - an assertion of the law failed: this saga stops, no other does
            what = f"saga {self.state.saga_id} can't be decided on {type(fact).__name__}"
            report(log, what, error, **_fields(self, self._host))
            self.park(f"internal: {describe(error)}", self.state.version)
            return None

    def _weigh(self, state: SagaState | None, fact: Fact) -> Decision:
        """Decide; if that would begin a call for which there is no thread, decide again that nothing begins now."""
        host = self._host
        now, may_start = host.now(), not host.draining
        decision = decide(self.bound.plan, state, fact, now, may_start=may_start)
        if not (self.bound.has_plain_code or self._wary):
            return decision
        self._held_back = _held_back(self.key, self.bound, host, decision, wary=self._wary)
        return decision if self._held_back is None else decide(self.bound.plan, state, fact, now, may_start=False)

    def _releases(self, decision: Decision) -> bool:
        """Whether the saga needs no owner after this: it is over, waits for a person, or for long enough."""
        # What is over goes in this very row: after a crash, nobody would take it in order to give it up.
        if not decision.idle or ((self._facts or self._calls.asking) and not decision.is_over):
            return False
        if decision.wake_at is None or self._host.draining:
            return True
        # A call that was given up on may still succeed; only its saga's owner can hear it.
        return not self._calls and decision.wake_at - self._host.now() > self._host.keep_seconds

    def _write(self, fact: Fact, decision: Decision, released: bool, birth: Birth | None = None) -> None:
        saga, old = decision.saga, self._hot
        if not decision.entries:
            # Giving a saga up without anything to say is a row too: the version is what makes it safe.
            saga = saga._replace(version=saga.version + 1)
        hot, host = _hot_after(old, saga, released, decision.wake_at), self._host
        entries, changed = encode_entries(decision.entries), None if hot is old else hot
        messages: tuple[Message, ...] = ()
        if host.sending is not None:
            messages = messages_of(host.sending, self.bound, self.key, self.state, decision, host.now())
            self._posts = bool(messages)
        turn = Turn(self.key, saga.version, host.next_commit_id(), entries, changed, birth, messages)
        self._writing, self._written = True, (fact, decision, saga, hot)
        if self.bound.has_plain_code:
            host.threads.take(self.bound.threads_for(decision))
        if self._wary:
            host.caution.hold(self.key, chances_left(self.bound.plan, saga))
        host.submit(turn, self._landed)

    def _landed(self, result: TurnResult) -> None:
        assert self._written is not None, "one turn is written at a time"
        (fact, decision, saga, hot), self._written = self._written, None
        if self.bound.has_plain_code and (result is not _APPLIED or self.gone):
            self._host.threads.give(self.bound.threads_for(decision))
        if self.gone:
            return
        if self._started is not None:
            started, self._started = self._started, None
            started(result)
        if result is _APPLIED:
            self._applied(decision, saga, hot)
            return
        match result:
            case TurnResult.CONFLICT:
                # Somebody appended first: keep the fact, read what they wrote, decide again.
                self._facts.appendleft(fact)
                self._host.spawn(self._host.reread(self))
            case TurnResult.REFUSED:
                self._writing = False
                self._refused(fact, decision)
            case _:  # not mine, or taken
                self.drop()
                self._host.release(self)

    def _applied(self, decision: Decision, saga: SagaState, hot: Hot) -> None:
        self._writing = False
        self.state, self._hot = saga, hot
        if self._posts:
            self._host.posted()
        self._host.on_changed(self.key, saga)
        if self._calls.heard is not None:
            self._calls.heard.turned(decision, hot.owned)
        if not hot.owned:
            for command in decision.commands:
                if type(command) is Alert:  # what keeps failing waits long, so it is mostly handed back at once
                    _warn(self, self._host, command)
            self._alarm.stop()
            self._host.release(self)
            return
        self._perform(decision)
        self._next()

    def _refused(self, fact: Fact, decision: Decision) -> None:
        """Keep going although the row can't be stored: the outcome becomes unknown, or the saga is parked."""
        why = Problem("StoreError", "the store can't hold this journal row; it is probably too large")
        if isinstance(fact, facts.Succeeded) and fact.operation is Operation.ACTION:
            self._facts.appendleft(facts.CameToNothing(fact.step, fact.operation, fact.attempt, why, repeatable=False))
            self._next()
        elif isinstance(fact, facts.MessagesBuilt):
            largest = max(fact.built, key=lambda one: len(one.body))
            self._facts.appendleft(facts.MessageFailed(fact.version, largest.step, largest.operation, why))
            self._next()
        elif self.state is not None:
            self.park(str(why), self.state.version)
        else:
            self._host.release(self)

    def _perform(self, decision: Decision) -> None:
        for command in decision.commands:
            if type(command) is Call:
                self._calls.begin(command, decision.saga)
            elif type(command) is AskCondition:
                self._calls.ask(command.step, decision.saga)
            elif type(command) is Alert:
                _warn(self, self._host, command)
        if self.bound.plan.has_commands and (built := self._host.invoker.messages(self.bound, decision)) is not None:
            self._facts.appendleft(built)  # before any other fact, for it is of this very state
        _set_alarm(self._alarm, self._host, decision, self._held_back, self._woke)
        # Nothing that is due begins here any more, so there is nothing to wake for; who only waits is handed back.
        if self._host.draining and decision.idle and not self._calls.asking and not self._facts:
            self._facts.append(facts.Woke())

    def _woke(self) -> None:
        if not self.gone:
            self.tell(facts.Woke())


def _set_alarm(
    alarm: Alarm, host: Host, decision: Decision, held_back: Slots | Caution | None, wake: Callable[[], None]
) -> None:
    """Have the saga look again when something of it is due, or when there is room for it."""
    alarm.stop()
    if host.draining:
        return
    if held_back is not None:
        held_back.wait(wake)
        # What else may be due meanwhile (a deadline, another branch) hides behind what can't begin.
        alarm.set(HELD_BACK_LOOK_SECONDS, wake)
    elif decision.wake_at is not None:
        alarm.set(max(0.0, decision.wake_at - host.now()), wake)


def _held_back(key: bytes, bound: BoundSaga, host: Host, decision: Decision, *, wary: bool) -> Slots | Caution | None:
    """Return what has no room for the calls that a decision would begin; None if they may begin."""
    if bound.has_plain_code and host.threads.none_left and bound.threads_for(decision) > 0:
        host.caution.give_way(key)
        return host.threads
    if wary and not host.caution.admits(key, chances_left(bound.plan, decision.saga)):
        return host.caution
    return None


def _warn(runner: Runner, host: Host, alert: Alert) -> None:
    assert runner.state is not None
    known = _fields(runner, host, step=alert.step)
    log.warning(_KEEPS_FAILING, runner.state.saga_id, alert.step, alert.failures, extra=known)


def _parking(runner: Runner, host: Host, why: str, version: int) -> Turn:
    """Return the turn that leaves a saga to a person; of one that can't be read no event can tell anything."""
    entries: tuple[Entry, ...] = (AttentionRaised(None, why), SagaParked())
    messages: tuple[Message, ...] = ()
    if host.sending is not None and runner.state is not None:
        messages = events_of(host.sending, runner.bound, runner.key, runner.state, entries, version, host.now())
    hot = Hot(SagaStatus.NEEDS_ATTENTION.value, False, None)
    return Turn(runner.key, version, host.next_commit_id(), encode_entries(entries), hot, None, messages)


def _hot_after(old: Hot | None, saga: SagaState, released: bool, wake_at: float | None) -> Hot:
    """Return what others see of the saga: the very same as before if nothing has changed, as at most turns."""
    if not released and old is not None and old.owned and old.wake_at is None and old.status == saga.status:
        return old
    hot = Hot(saga.status.value, not released, wake_at if released else None)
    return old if old is not None and hot == old else hot


def _fields(runner: Runner, host: Host, **more: Any) -> dict[str, Any]:
    """Return what a log record about a runner's saga carries."""
    return of_saga(runner.bound.plan, runner.state, worker=host.id, **more)


def unfit_requests(bound: BoundSaga, state: SagaState) -> list[facts.RequestsUnfit]:
    """Return the unanswered events and vouched results whose payload is not of the type that their step declares.

    All in one fact: when the first was told, the saga would take the next.
    """
    unfit: list[facts.RequestUnfit] = []
    for request in state.requests:
        taker = _taker_of(bound, request)
        if taker is None:
            continue
        try:
            taker.result.decode(request.payload or b"null", payload_context(state, taker.field))
        except PayloadError as error:
            unfit.append(facts.RequestUnfit(request.id, str(error)))
    return [facts.RequestsUnfit(tuple(unfit))] if unfit else []


def _taker_of(bound: BoundSaga, request: Request) -> BoundStep | None:
    """Return the step that will read the request's payload, if there is one."""
    if request.kind == "event" and request.event:
        return next((bound.steps[step.name] for step in bound.plan.steps if step.event_name == request.event), None)
    if request.kind == "reply" and request.landed and request.operation is Operation.ACTION:
        return bound.steps.get(request.step or "")
    if request.kind == "resolve" and request.landed and request.payload is not None and request.step is not None:
        return bound.steps.get(request.step)
    return None
