"""A model of what surrounds one saga: participants with effects, calls on the wire, a process that dies, and people.

Owns what may happen next (`choices`) and what it does (`take`), as immutable data, so that the same model serves
random walks and exhaustive search. Must not judge; `invariants.py` does. Participants honour keys, or stand behind a
barrier; an `at_most_once` one has neither. A call that was given up on may still arrive before its deadline plus the
plan's grace, at any time behind a barrier. The operator waits until nothing can arrive any more and tells the truth;
with `misjudge` among the asks he may also say "it did not land" without looking.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from atone._core import facts
from atone._core.commands import AskCondition, AskMessage, Call, Decision, Send
from atone._core.decide import decide
from atone._core.facts import Fact, Landed, Operation, Problem
from atone._core.fold import fold
from atone._core.journal import RequestReceived
from atone._core.plan import Plan, StepPlan
from atone._core.state import Request, SagaState, SagaStatus

ACTION, COMPENSATION, PROBE = Operation.ACTION, Operation.COMPENSATION, Operation.PROBE
OOPS, NO = Problem("ConnectionError", "no answer"), Problem("Declined", "no")
Choice: TypeAlias = tuple[Any, ...]

# What each choice uses up of the budget of faults; what is not listed is free.
COSTS = {
    "refuse": 1,
    "cannot": 1,
    "break": 1,
    "timeout": 1,
    "impossible": 1,
    "hopeless": 1,
    "later": 1,
    "late": 1,
    "zombie": 1,
    "again": 1,
    "crash": 1,
    "drain": 1,
    "raise": 1,
    "ask": 1,
    "unbuilt": 1,
    "repeat": 1,
}


class Wire(NamedTuple):
    """One call. `answer` is what the participant did with it, "" before it arrives.

    `told`: the shell has given it up or told its end; `dead`: the process that waited for it is gone. `sent`: it is a
    command, for which no process waits; `told` and `dead` are then how often it was answered.
    """

    step: str
    operation: Operation
    attempt: int
    deadline: float
    answer: str = ""
    told: bool = False
    dead: bool = False
    sent: bool = False


class Participant(NamedTuple):
    """What one step's calls have done: effects that stand, effects that ever landed, and the keys it has seen."""

    standing: int = 0
    landed: int = 0
    acted: bool = False
    undid: bool = False


class World(NamedTuple):
    """Everything there is at one moment. `rows_after` of a `Taken` go to the journal."""

    saga: SagaState
    now: float
    participants: tuple[Participant, ...]
    wires: tuple[Wire, ...] = ()
    asks: frozenset[str] = frozenset()
    wake_at: float | None = None
    down: bool = False
    budget: int = 0
    requests: int = 0
    forced: frozenset[str] = frozenset()
    misjudged: frozenset[str] = frozenset()
    last: Fact | None = None
    wanted: tuple[AskMessage, ...] = ()


class Taken(NamedTuple):
    """What a choice led to: the world after it, the facts told, and each decision with the saga before it."""

    world: World
    told: tuple[tuple[float, Any], ...] = ()
    decisions: tuple[tuple[SagaState | None, Decision], ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()


class Model:
    """The rules of the world for one plan. `asks` names what people may ask for."""

    def __init__(
        self, plan: Plan, *, budget: int, asks: tuple[str, ...] = ("cancel",), keep_last: bool = False
    ) -> None:
        self.plan = plan
        self.budget = budget
        self.asks = asks
        self.keep_last = keep_last

    def start(self) -> Taken:
        """Start the saga."""
        fact = facts.StartRequested("main", "s", b"{}")
        decision = decide(self.plan, None, fact, 0.0)
        fresh = (Participant(),) * len(self.plan.steps)
        world = World(decision.saga, 0.0, fresh, budget=self.budget)
        return Taken(self._perform(world, decision), ((0.0, fact),), ((None, decision),), (decision.entries,))

    # What may happen

    def choices(self, world: World) -> list[Choice]:
        """List what may happen next, within the budget of faults."""
        found: list[Choice] = []
        for at, wire in enumerate(world.wires):
            found += [(what, at) for what in self._of_wire(world, wire)]
        if world.saga.status.is_final:
            return [choice for choice in found if choice[0] in ("arrive", "zombie", "late", "answer")]
        if world.down:
            found.append(("claim",))
        else:
            found += self._of_process(world)
        if self._next_time(world) is not None:
            found.append(("tick",))
        if world.budget > 0:
            found += [("ask", kind, *more) for kind, *more in self._requests(world)]
        return [choice for choice in found if COSTS.get(choice[0], 0) <= world.budget]

    def _of_letter(self, world: World, wire: Wire) -> list[str]:
        if not wire.answer:
            return ["arrive", "refuse"] if self.may_arrive(world, wire) else []
        return ["repeat"] if wire.told else ["answer"]

    def _of_wire(self, world: World, wire: Wire) -> list[str]:
        if wire.sent:
            return self._of_letter(world, wire)
        live = not wire.told and not wire.dead and not world.down
        found: list[str] = []
        if not wire.answer and self.may_arrive(world, wire):
            found += ["arrive", "refuse"] if wire.operation is not PROBE else ["arrive", "cannot"]
        if wire.answer and live:
            found.append("reply")
        if live:
            found.append("timeout" if world.now >= wire.deadline else "break")
            found += ["later"] if wire.operation is not PROBE else []
            found += ["hopeless"] if wire.operation is ACTION else []
            found += ["impossible"] if not wire.answer else []
        if wire.answer == "ok" and wire.operation is ACTION and not world.down and (wire.told or wire.dead):
            found.append("zombie" if wire.dead else "late")
        return found

    def _of_process(self, world: World) -> list[Choice]:
        found: list[Choice] = [("crash",), ("drain",)] if world.wires or world.asks or world.wanted else []
        if world.wanted:
            found += [("build",), ("unbuilt",)]
        if world.wake_at is not None and world.wake_at <= world.now:
            found.append(("wake",))
        for name in sorted(world.asks):
            found += [("say", name, True), ("say", name, False), ("raise", name)]
        if world.last is not None:
            found.append(("again",))
        return found

    def _requests(self, world: World) -> list[Choice]:
        found: list[Choice] = [(kind,) for kind in self.asks if kind in ("cancel", "terminate", "retry")]
        if "event" in self.asks:
            found += [("event", step.event_name) for step in self.plan.steps if step.event_name]
        parked = world.saga.status is SagaStatus.NEEDS_ATTENTION
        for step, state in zip(self.plan.steps, world.saga.steps, strict=True):
            if "skip" in self.asks and (state.due_at is not None or state.attention is not None):
                found.append(("skip", step.name))
            if not (state.doubt or state.attention is not None):
                continue
            is_quiet = not any(self.may_arrive(world, wire) for wire in self._of(world, step.name))
            found += [(kind, step.name) for kind in ("resolve",) if kind in self.asks and is_quiet]
            found += [(kind, step.name) for kind in ("misjudge",) if kind in self.asks and parked]
        return found

    def may_arrive(self, world: World, wire: Wire) -> bool:
        """Whether the participant may still get this call."""
        if wire.answer:
            return False
        barrier = self.plan.steps[self.plan.index[wire.step]].barrier
        return barrier or world.now < wire.deadline + self.plan.late_grace_seconds

    def _of(self, world: World, step: str) -> list[Wire]:
        return [wire for wire in world.wires if wire.step == step]

    def _next_time(self, world: World) -> float | None:
        times = [wire.deadline for wire in world.wires if not wire.told and not wire.dead and not wire.sent]
        times += [world.wake_at] if world.wake_at is not None else []
        return min((time for time in times if time > world.now), default=None)

    # What it does

    def take(self, world: World, choice: Choice) -> Taken:
        """Let one of the choices happen."""
        what, *rest = choice
        world = world._replace(budget=world.budget - COSTS.get(what, 0))
        if what in ("arrive", "refuse", "cannot"):
            return Taken(self._arrive(world, rest[0], what))
        if what in ("reply", "break", "timeout", "impossible", "hopeless", "later", "late", "zombie"):
            return self._end_call(world, rest[0], what)
        if what in ("answer", "repeat"):
            return self._reply(world, rest[0], what)
        if what in ("build", "unbuilt"):
            return self.tell(world, message_of(world.wanted, what))
        if what == "tick":
            time = self._next_time(world)
            assert time is not None
            later = world._replace(now=time)
            return Taken(later._replace(wires=tuple(wire for wire in world.wires if not self._is_gone(later, wire))))
        if what == "wake":
            return self.tell(world, facts.Woke())
        if what == "again":
            assert world.last is not None
            return self.tell(world, world.last)
        if what in ("say", "raise"):
            world = world._replace(asks=world.asks - {rest[0]})
            fact = facts.ConditionTold(rest[0], rest[1]) if what == "say" else facts.ConditionFailed(rest[0], OOPS)
            return self.tell(world, fact)
        if what == "ask":
            return self._ask(world, *rest)
        return {"crash": self._crash, "drain": self._drain, "claim": self._claim}[what](world)

    def tell(self, world: World, fact: Fact, *, may_start: bool = True) -> Taken:
        """Tell one fact and perform what follows."""
        decision = decide(self.plan, world.saga, fact, world.now, may_start=may_start)
        rows = (decision.entries,) if decision.entries else ()
        last = fact if self.keep_last and type(fact) is not facts.Woke else None
        after = self._perform(world._replace(saga=decision.saga, last=last), decision)
        return Taken(after, ((world.now, fact),), ((world.saga, decision),), rows)

    def _perform(self, world: World, decision: Decision) -> World:
        calls = [command for command in decision.commands if isinstance(command, Call)]
        asked = {command.step for command in decision.commands if isinstance(command, AskCondition)}
        wires = tuple(Wire(call.step, call.operation, call.attempt, call.deadline) for call in calls)
        letters = tuple(Wire(*one[:4], sent=True) for one in decision.commands if isinstance(one, Send))
        wanted = tuple(one for one in decision.commands if isinstance(one, AskMessage))
        after = world._replace(wires=(*world.wires, *wires, *letters), asks=world.asks | asked, wanted=wanted)
        return after._replace(wake_at=decision.wake_at)

    def _reply(self, world: World, at: int, what: str) -> Taken:
        """Let a participant's answer come in; it may come twice, in two messages."""
        wire = world.wires[at]
        left = self._wire(world, at, wire._replace(told=True, dead=what == "repeat"))
        name = f"{wire.operation}-{wire.step}-{wire.attempt}-{what}"
        landed = wire.answer == "ok"
        request = Request(
            name, "reply", "there", "no", wire.step, None, result_of(wire.step) if landed else None, landed
        )
        request = request._replace(operation=wire.operation, attempt=wire.attempt)
        if world.saga.status.is_final:
            return Taken(left)
        if landed and wire.operation is ACTION:
            # Now the saga knows better than the person.
            left = left._replace(misjudged=left.misjudged - {wire.step})
        row = (RequestReceived(request),)
        after = left._replace(saga=fold(self.plan, left.saga, row))
        came = Taken(after, ((world.now, request),), (), (row,))
        return came if world.down else _joined(came, self.tell(after, facts.Woke()))

    def _arrive(self, world: World, at: int, how: str) -> World:
        wire = world.wires[at]
        place = self.plan.index[wire.step]
        participant, answer = receive(self.plan.steps[place], world.participants[place], wire.operation, how)
        participants = (*world.participants[:place], participant, *world.participants[place + 1 :])
        return self._wire(world._replace(participants=participants), at, wire._replace(answer=answer))

    def _wire(self, world: World, at: int, wire: Wire) -> World:
        """Return the world with this wire, without those that can't matter any more."""
        wires = (*world.wires[:at], wire, *world.wires[at + 1 :])
        return world._replace(wires=tuple(one for one in wires if not self._is_gone(world, one)))

    def _is_gone(self, world: World, wire: Wire) -> bool:
        if wire.sent:
            return wire.dead or not (wire.answer or self.may_arrive(world, wire))
        if not (wire.told or wire.dead):
            return False
        # A late success is told once at most, and only of an action.
        says_more = wire.answer == "ok" and wire.operation is ACTION
        return not says_more and not self.may_arrive(world, wire)

    def _end_call(self, world: World, at: int, what: str) -> Taken:
        wire = world.wires[at]
        if what in ("late", "zombie"):
            without = world._replace(wires=(*world.wires[:at], *world.wires[at + 1 :]))
            if not world.saga.status.is_final:
                # Now the saga knows better than the person.
                without = without._replace(misjudged=world.misjudged - {wire.step})
            return self.tell(without, facts.Succeeded(wire.step, wire.operation, wire.attempt, result_of(wire.step)))
        if what == "impossible":
            without = world._replace(wires=(*world.wires[:at], *world.wires[at + 1 :]))
            return self.tell(without, facts.Impossible(wire.step, wire.operation, wire.attempt, OOPS))
        if what == "reply":
            without = world._replace(wires=(*world.wires[:at], *world.wires[at + 1 :]))
            return self.tell(without, fact_of(wire))
        after = self._wire(world, at, wire._replace(told=True))
        retry_after = 9.0 if what == "later" else None
        return self.tell(after, facts.CameToNothing(*wire[:3], OOPS, retry_after, what != "hopeless"))

    def _crash(self, world: World) -> Taken:
        wires = tuple(wire if wire.sent else wire._replace(dead=True) for wire in world.wires)
        kept = tuple(wire for wire in wires if not self._is_gone(world, wire))
        return Taken(world._replace(wires=kept, asks=frozenset(), wanted=(), wake_at=None, down=True, last=None))

    def _drain(self, world: World) -> Taken:
        taken = Taken(world)
        for wire in world.wires:
            if not wire.told and not wire.dead and not wire.sent:
                fact = facts.Interrupted(wire.step, wire.operation, wire.attempt)
                taken = _joined(taken, self.tell(taken.world, fact, may_start=False))
        return _joined(taken, self._crash(taken.world))

    def _claim(self, world: World) -> Taken:
        taken = Taken(world._replace(down=False))
        for step, state in zip(self.plan.steps, world.saga.steps, strict=True):
            if state.open is not None:
                fact = facts.Lost(step.name, state.open.operation, state.open.attempt)
                taken = _joined(taken, self.tell(taken.world, fact))
        return _joined(taken, self.tell(taken.world, facts.Woke()))

    def _ask(self, world: World, kind: str, name: str | None = None) -> Taken:
        request = Request(f"r{world.requests}", kind, "ann", "because")
        if kind == "event":
            request = request._replace(event=name, payload=b'"event"')
        elif kind == "misjudge":
            request = request._replace(kind="resolve", step=name, landed=False)
        elif kind == "resolve":
            request = self._truth(world, request._replace(step=name), name or "")
        else:
            request = request._replace(step=name)
        if kind == "retry":
            # A person who has an at-most-once step repeated takes the second effect on himself.
            world = world._replace(forced=world.forced | {step.name for step in self.plan.steps if step.at_most_once})
        row = (RequestReceived(request),)
        after = world._replace(saga=fold(self.plan, world.saga, row), requests=world.requests + 1)
        if kind == "misjudge":
            after = after._replace(misjudged=world.misjudged | {name or ""})
        asked = Taken(after, ((world.now, request),), (), (row,))
        return asked if world.down else _joined(asked, self.tell(after, facts.Woke()))

    def _truth(self, world: World, request: Request, name: str) -> Request:
        place = self.plan.index[name]
        participant, state = world.participants[place], world.saga.steps[place]
        if world.saga.is_backward and state.undo_begun:
            return request._replace(landed=participant.standing == 0)
        landed = participant.standing > 0
        return request._replace(landed=landed, payload=result_of(name) if landed else None)


def receive(step: StepPlan, known: Participant, operation: Operation, how: str) -> tuple[Participant, str]:
    """Return the participant after a call has arrived, and what it answers."""
    if operation is PROBE:
        return known, "cannot" if how == "cannot" else "landed" if known.acted else "absent"
    if operation is COMPENSATION:
        if how == "refuse":
            return known, "refused"
        return known._replace(standing=known.standing if known.undid else 0, undid=True), "ok"
    if known.acted and (step.barrier or not step.at_most_once):
        return known, "ok"
    if how == "refuse" or (step.barrier and known.undid):
        return known, "refused"
    return known._replace(standing=known.standing + 1, landed=known.landed + 1, acted=True), "ok"


def fact_of(wire: Wire) -> Fact:
    """Return what a call that was answered tells its process."""
    if wire.operation is PROBE:
        answer = {"landed": Landed.LANDED, "absent": Landed.NOT_LANDED, "cannot": Landed.CANNOT_TELL}[wire.answer]
        return facts.Probed(wire.step, wire.attempt, answer, result_of(wire.step) if wire.answer == "landed" else None)
    if wire.answer == "refused":
        return facts.Rejected(wire.step, wire.operation, wire.attempt, NO)
    return facts.Succeeded(wire.step, wire.operation, wire.attempt, result_of(wire.step))


def message_of(wanted: tuple[AskMessage, ...], what: str) -> Fact:
    """Return what comes of the messages asked for: `what` is build or unbuilt."""
    if what == "unbuilt":
        return facts.MessageFailed(wanted[0].version, wanted[0].step, wanted[0].operation, OOPS)
    built = tuple(facts.Built(one.step, one.operation, b"{}") for one in wanted)
    return facts.MessagesBuilt(wanted[0].version, built)


def result_of(step: str) -> bytes:
    """Return what a step's action returns in this world."""
    return f'"{step}"'.encode()


def _joined(first: Taken, second: Taken) -> Taken:
    return Taken(second.world, first.told + second.told, first.decisions + second.decisions, first.rows + second.rows)
