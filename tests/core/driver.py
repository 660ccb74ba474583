"""A story of one saga, told fact by fact: what the tests of the law speak in.

Owns the building of small plans and the checks that hold after every decision, whatever the test is about. Must not
know what `decide` should answer; each test says that. No event loop, no store: rows are kept in a list.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from atone._core import facts
from atone._core.commands import AskCondition, AskMessage, Call, Decision, Send
from atone._core.decide import decide
from atone._core.facts import Fact, Landed, Operation, Problem
from atone._core.fold import fold
from atone._core.journal import AttemptStarted, AttentionRaised, Entry, RequestReceived, SagaParked
from atone._core.plan import Does, Plan, Role, StepPlan
from atone._core.retry import Retry
from atone._core.state import Open, Request, SagaState, SagaStatus, StepState, StepStatus

ACTION, COMPENSATION, PROBE = Operation.ACTION, Operation.COMPENSATION, Operation.PROBE
OOPS = Problem("ConnectionError", "no answer")
NO = Problem("CardDeclined", "no funds")
# No jitter, so that a test can say when something is due.
RETRY = Retry(attempts=3, initial=1.0, factor=2.0, maximum=60.0, jitter=0.0)
UNDO_RETRY = Retry(attempts=2, initial=1.0, factor=2.0, maximum=60.0, jitter=0.0)
ONCE = Retry(attempts=1, jitter=0.0)


def step(name: str, **options: Any) -> StepPlan:
    """Plan a compensatable step: time-outs of 10 s, three attempts, two of its compensation."""
    settled: dict[str, Any] = {
        "has_compensation": "no_compensation" not in options,
        "retry": RETRY,
        "compensation_retry": UNDO_RETRY,
        "probe_retry": replace(UNDO_RETRY),
        "timeout_seconds": 10.0,
        "compensation_timeout_seconds": 10.0,
        "probe_timeout_seconds": 10.0,
    }
    return StepPlan(name, **(settled | options))


def pivot(name: str, **options: Any) -> StepPlan:
    """Plan the point of no return."""
    return step(name, **{"role": Role.PIVOT, "has_compensation": False} | options)


def retriable(name: str, **options: Any) -> StepPlan:
    """Plan a step that comes after the pivot."""
    return step(name, **{"role": Role.RETRIABLE, "has_compensation": False} | options)


def delay(name: str, seconds: float, **options: Any) -> StepPlan:
    """Plan a delay."""
    return step(name, **{"does": Does.DELAY, "wait_seconds": seconds, "has_compensation": False} | options)


def event(name: str, seconds: float = 60.0, **options: Any) -> StepPlan:
    """Plan a wait for the event of the same name."""
    settled: dict[str, Any] = {
        "does": Does.EVENT,
        "event_name": name,
        "wait_seconds": seconds,
        "has_compensation": False,
    }
    return step(name, **settled | options)


def command(name: str, **options: Any) -> StepPlan:
    """Plan a command to a participant behind a barrier, and one that undoes it."""
    settled: dict[str, Any] = {"does": Does.COMMAND, "topic": f"{name}.do", "message_type": name.title()}
    if "no_compensation" not in options and options.get("has_compensation", True):
        settled |= {"barrier": True, "compensation_topic": f"{name}.undo"}
    return step(name, **settled | options)


def saga_of(*steps: StepPlan, parallel: bool = False, **options: Any) -> Plan:
    """Put steps into a row; one that names its `after` keeps it, `parallel` leaves all of them beside each other."""
    placed: list[StepPlan] = []
    for one in steps:
        is_placed = bool(one.after) or bool(one.inputs) or parallel or not placed
        placed.append(one if is_placed else replace(one, after=(placed[-1].name,)))
    return Plan("Test", 1, tuple(placed), **options)


def fan(*branches: StepPlan, join: StepPlan | None = None, first: StepPlan | None = None, **options: Any) -> Plan:
    """Put branches beside each other, after `first` and before `join`."""
    before = () if first is None else (first.name,)
    middle = [replace(branch, after=before) for branch in branches]
    names = tuple(branch.name for branch in branches)
    last = [] if join is None else [replace(join, after=names)]
    return Plan("Test", 1, (*([] if first is None else [first]), *middle, *last), **options)


class Story:
    """One saga and everything that was told of it. Each decision is checked against what always holds."""

    def __init__(self, plan: Plan, *, may_start: bool = True, now: float = 0.0) -> None:
        self.plan = plan
        self.now = now
        self.may_start = may_start
        self.rows: list[tuple[Entry, ...]] = []
        self.decisions: list[Decision] = []
        self.told: list[tuple[float, Fact | Request]] = []
        self.drained: set[int] = set()
        self._saga: SagaState | None = None
        self.tells(facts.StartRequested("main", "s-1", b'{"n":1}'))

    # What there is to see

    @property
    def saga(self) -> SagaState:
        """The saga after the last decision."""
        assert self._saga is not None
        return self._saga

    def status(self) -> SagaStatus:
        """Return the saga's status; a method, so that type checkers do not remember an earlier answer."""
        return self.saga.status

    def to_undo(self) -> tuple[str, ...]:
        """Return the rollback list."""
        return self.saga.rollback

    @property
    def last(self) -> Decision:
        """The newest decision."""
        return self.decisions[-1]

    @property
    def entries(self) -> list[Entry]:
        """Everything in the journal, in order."""
        return [entry for row in self.rows for entry in row]

    def all(self, kind: type) -> list[Any]:
        """Return the journal's entries of one type."""
        return [entry for entry in self.entries if type(entry) is kind]

    def at(self, name: str) -> StepState:
        """Return the present state of a step."""
        return self.saga.steps[self.plan.index[name]]

    def is_(self, name: str) -> StepStatus:
        """Return the status of a step."""
        return self.at(name).status

    @property
    def started(self) -> list[str]:
        """Every intent in order, as 'a', 'probe a' or 'undo a'."""
        words = {ACTION: "", PROBE: "probe ", COMPENSATION: "undo "}
        return [words[entry.operation] + entry.step for entry in self.all(AttemptStarted)]

    @property
    def undone(self) -> list[str]:
        """The steps whose compensation was called, in order of their first call."""
        return list(dict.fromkeys(word[5:] for word in self.started if word.startswith("undo ")))

    @property
    def calls(self) -> list[Call]:
        """The calls that the newest decision asks for."""
        return [command for command in self.last.commands if isinstance(command, Call)]

    @property
    def asks(self) -> list[str]:
        """The conditions that the newest decision asks for."""
        return [command.step for command in self.last.commands if isinstance(command, AskCondition)]

    @property
    def sends(self) -> list[Send]:
        """The messages that the newest decision sends."""
        return [command for command in self.last.commands if isinstance(command, Send)]

    @property
    def wanted(self) -> list[AskMessage]:
        """The messages that the newest decision asks for."""
        return [command for command in self.last.commands if isinstance(command, AskMessage)]

    def answers(self) -> dict[str, str]:
        """Return what was answered to each request, by its id."""
        return {entry.id: entry.answer for entry in self.entries if type(entry).__name__ == "RequestAnswered"}

    def open(self, name: str) -> Open:
        """Return the attempt of a step that is under way."""
        found = self.at(name).open
        assert found is not None, f"no attempt of {name} is under way: {self.at(name)}"
        return found

    # What may happen

    def tells(self, fact: Fact, *, at: float | None = None) -> Story:
        """Tell a fact and let what follows become durable."""
        self.now = self.now if at is None else at
        if not self.may_start:
            self.drained.add(len(self.told))
        self.told.append((self.now, fact))
        before = self._saga
        decision = decide(self.plan, before, fact, self.now, may_start=self.may_start)
        self._check(before, decision)
        self.decisions.append(decision)
        if decision.entries:
            self.rows.append(decision.entries)
        self._saga = decision.saga
        return self

    def asked(self, kind: str, *, wake: bool = True, id: str | None = None, **options: Any) -> Story:  # noqa: A002 - as requests have it
        """Append a request as an outside writer does; with `wake` the owner looks at it at once."""
        request = Request(id or f"r{len(self.rows)}", kind, "ann", "because", **options)
        self.told.append((self.now, request))
        row = (RequestReceived(request),)
        self.rows.append(row)
        self._saga = fold(self.plan, self.saga, row)
        return self.wakes(at=self.now) if wake else self

    def wakes(self, *, at: float | None = None) -> Story:
        """Let time pass until the saga wants to be looked at, or until `at`."""
        due = self.last.wake_at if at is None else at
        assert due is not None, "nothing is due, ever"
        return self.tells(facts.Woke(), at=max(due, self.now))

    def parks(self, why: str) -> Story:
        """Leave the whole saga to a person, as a worker does that can't decide it."""
        row: tuple[Entry, ...] = (AttentionRaised(None, why), SagaParked())
        self.rows.append(row)
        self._saga = fold(self.plan, self.saga, row)
        return self

    def builds(self) -> Story:
        """Build the messages that the newest decision asks for, and have them sent."""
        wanted = self.wanted
        assert wanted, f"no message is asked for: {self.last.commands}"
        built = tuple(facts.Built(one.step, one.operation, f'"{one.step}"'.encode()) for one in wanted)
        return self.tells(facts.MessagesBuilt(wanted[0].version, built))

    def fails_to_build(self) -> Story:
        """Let the code that builds the first message asked for raise."""
        one = self.wanted[0]
        return self.tells(facts.MessageFailed(one.version, one.step, one.operation, OOPS))

    def replied(
        self,
        name: str,
        attempt: int | None = None,
        *,
        operation: Operation = ACTION,
        landed: bool = True,
        **options: Any,
    ) -> Story:
        """Let a participant answer: the newest attempt, unless another one is named."""
        state = self.at(name)
        newest = state.action.started if operation is ACTION else state.compensation.started
        said: dict[str, Any] = {"step": name, "operation": operation, "attempt": newest if attempt is None else attempt}
        payload = {"payload": f'"{name}"'.encode()} if landed and operation is ACTION else {}
        return self.asked("reply", **said | {"landed": landed} | payload | options)

    def sent_and_done(self, *names: str) -> Story:
        """Send each command and have it answered."""
        for name in names:
            self.builds().replied(name)
        return self

    def sent_and_undone(self, *names: str) -> Story:
        """Send the command that undoes each, and have it answered."""
        for name in names:
            self.builds().replied(name, operation=COMPENSATION)
        return self

    def succeeds(self, *names: str, result: bytes | None = None, operation: Operation = ACTION) -> Story:
        """Let the attempts under way end well, one after the other."""
        for name in names:
            found = self.open(name)
            assert found.operation is operation, f"{name} has an attempt of {found.operation} under way"
            self.tells(facts.Succeeded(name, operation, found.attempt, result or f'"{name}"'.encode()))
        return self

    def undoes(self, *names: str) -> Story:
        """Let the compensations under way end well, one after the other."""
        return self.succeeds(*names, result=b"null", operation=COMPENSATION)

    def rejects(self, name: str) -> Story:
        """Let the attempt under way be refused, surely without effect."""
        found = self.open(name)
        return self.tells(facts.Rejected(name, found.operation, found.attempt, NO))

    def breaks(self, name: str, **options: Any) -> Story:
        """Let the attempt under way end without an answer, now."""
        found = self.open(name)
        return self.tells(facts.CameToNothing(name, found.operation, found.attempt, OOPS, **options))

    def times_out(self, name: str, **options: Any) -> Story:
        """Let the attempt under way reach its hard deadline."""
        self.now = self.open(name).deadline
        return self.breaks(name, **options)

    def gives_up(self, name: str) -> Story:
        """Let every attempt of this operation break until the saga does not try again."""
        operation = self.open(name).operation
        while (found := self.at(name).open) is not None and found.operation is operation:
            self.breaks(name)
            if self.at(name).due is operation:
                self.wakes()
        return self

    def loses(self, *names: str) -> Story:
        """Let the process die, so that another one claims the saga and its open attempts are lost."""
        for name in names:
            found = self.open(name)
            self.tells(facts.Lost(name, found.operation, found.attempt))
        return self

    def interrupts(self, name: str) -> Story:
        """Let the worker stop the attempt in order to shut down."""
        found = self.open(name)
        return self.tells(facts.Interrupted(name, found.operation, found.attempt))

    def probed(self, name: str, answer: Landed, result: bytes | None = None) -> Story:
        """Let the probe under way answer."""
        return self.tells(facts.Probed(name, self.open(name).attempt, answer, result))

    def arrives_late(self, name: str, attempt: int = 1, result: bytes | None = None) -> Story:
        """Let an attempt that was given up on succeed after all."""
        return self.tells(facts.Succeeded(name, ACTION, attempt, result or f'"{name} late"'.encode()))

    # What always holds

    def refolded(self) -> SagaState:
        """Return the saga as a reload would give it."""
        saga = None
        for row in self.rows:
            saga = fold(self.plan, saga, row)
        assert saga is not None
        return saga

    def _check(self, before: SagaState | None, decision: Decision) -> None:
        if decision.entries:
            assert fold(self.plan, before, decision.entries) == decision.saga, "memory and journal disagree"
        else:
            assert decision.saga == before, "a change without an entry"
        intents = {
            (entry.step, entry.operation, entry.attempt) for entry in decision.entries if type(entry) is AttemptStarted
        }
        for command in decision.commands:
            if isinstance(command, Call):
                assert (command.step, command.operation, command.attempt) in intents, f"{command} without an intent"
            if isinstance(command, Send):
                assert (command.step, command.operation, command.attempt) in intents, f"{command} without an intent"


def given(plan: Plan, **options: Any) -> Story:
    """Begin a story: the saga was started."""
    return Story(plan, **options)
