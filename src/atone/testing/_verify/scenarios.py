"""Which faults a plan admits, as data: every step with every way in which a call of it can go wrong.

Owns the list and the names that a run is replayed by. Pure: reads a plan, runs nothing. What it leaves out it says,
with the reason. Called by `campaign`; read by `run` and `calls`, which do what a fault says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, TypeAlias

from atone._core.plan import Does, Plan, Role, StepPlan

Called: TypeAlias = Literal["action", "compensation", "probe", "when", "event"]

# A retriable step is repeated until it succeeds, so "every time" would never end.
RETRIABLE_FAILURES = 5


class Kind(StrEnum):
    """What goes wrong with a call. The value is its name in tables and in the name of a run."""

    REJECTED = "rejected"
    FAILS = "fails"
    REPLY_LOST = "reply-lost"
    TIMES_OUT = "times-out"
    TIMES_OUT_AFTER = "times-out-after-its-effect"
    TWICE = "twice"
    TWICE_AT_ONCE = "twice-at-once"
    LATE = "lands-late"
    LATE_AFTER_END = "lands-after-the-end"
    NEVER_COMES = "never-comes"
    COMES_EARLY = "comes-early"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: with which calls of a step (the first `times`, 0: all), and in which hop of them.

    A hop is a call that the step's code makes to a participant; None is the step's code as a whole.
    """

    step: str
    called: Called
    kind: Kind
    times: int = 1
    hop: int | None = None

    @property
    def name(self) -> str:
        """Its name, as in `process_payment.compensation/1:reply-lost*`."""
        called = "" if self.called == "action" else f".{self.called}"
        hop = "" if self.hop is None else f"/{self.hop}"
        times = {0: "*", 1: ""}.get(self.times, f"*{self.times}")
        return f"{self.step}{called}{hop}:{self.kind}{times}"

    def hits(self, step: str, called: Called, number: int, hop: int | None) -> bool:
        """Whether it is about this call (the `number`-th of its kind, from 1)."""
        return (self.step, self.called, self.hop) == (step, called, hop) and (self.times == 0 or number <= self.times)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one run is put through. `about` are the faults that it is counted under; `because` turns it backward.

    With a `seed` the order of all that could happen next is drawn.
    """

    about: tuple[Fault, ...] = ()
    because: tuple[Fault, ...] = ()
    crashes: tuple[int, ...] = ()
    cancel: int | None = None
    seed: int | None = None

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All faults in it."""
        return (*self.because, *self.about)

    @property
    def name(self) -> str:
        """What replays it: `verify(..., only=name)`."""
        parts = [fault.name for fault in self.faults]
        parts += [f"crash@{at}" for at in self.crashes]
        parts += [] if self.cancel is None else [f"cancel@{self.cancel}"]
        parts += [] if self.seed is None else [f"seed@{self.seed}"]
        return "+".join(parts) or "no-fault"

    def crashing(self, *at: int) -> Scenario:
        """Return the same with the process killed at these points."""
        return replace(self, crashes=at)

    def cancelled(self, at: int) -> Scenario:
        """Return the same with a cancel at this point."""
        return replace(self, cancel=at)


NO_FAULT = Scenario()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is not run, and why."""

    step: str
    what: str
    why: str


def named(name: str) -> Scenario:
    """Return the scenario of a name.

    Raises:
        ValueError: The text names none.
    """
    faults: list[Fault] = []
    crashes: list[int] = []
    found: dict[str, int] = {}
    for part in [] if name == "no-fault" else name.split("+"):
        word, at, number = part.partition("@")
        if at and word == "crash" and number.isdigit():
            crashes.append(int(number))
        elif at and word in ("cancel", "seed") and number.isdigit():
            found[word] = int(number)
        else:
            faults.append(_fault_named(part))
    return Scenario(tuple(faults), (), tuple(crashes), **found)


def _fault_named(part: str) -> Fault:
    where, _, what = part.partition(":")
    where, _, hop = where.partition("/")
    step, _, called = where.partition(".")
    kind, star, times = what.partition("*")
    calls: dict[str, Called] = {"": "action", "compensation": "compensation", "probe": "probe", "when": "when",
                                "event": "event"}  # fmt: skip
    try:
        many = (int(times) if times else 0) if star else 1
        return Fault(step, calls[called], Kind(kind), many, int(hop) if hop else None)
    except (KeyError, ValueError):
        raise ValueError(f"{part!r} is no fault. Copy `only=` from a report, as it stands there.") from None


# What follows is the matrix. A message that is lost is a time-out: nobody tells the sender.

_FAILURES = {
    Does.ACTION: (Kind.FAILS, Kind.REPLY_LOST, Kind.TIMES_OUT, Kind.TIMES_OUT_AFTER),
    Does.COMMAND: (Kind.FAILS, Kind.REPLY_LOST),
}


def of_actions(plan: Plan) -> Iterator[Scenario]:
    """Each action with each way in which a call of it can end."""
    for step in plan.steps:
        if step.acts:
            for kind, times in _ways_of_action(step):
                yield Scenario((Fault(step.name, "action", kind, times),))


def _ways_of_action(step: StepPlan) -> Iterator[tuple[Kind, int]]:
    always = RETRIABLE_FAILURES if step.role is Role.RETRIABLE else 0
    if _can_refuse(step):
        yield Kind.REJECTED, 1
    for kind in _FAILURES[step.does]:
        yield kind, 1
        yield kind, always
    yield Kind.LATE, 1
    yield Kind.LATE, always
    if step.at_most_once:
        return
    yield Kind.TWICE, 1
    if step.does is not Does.COMMAND:
        yield Kind.TWICE_AT_ONCE, 1
    if _bears_any_delay(step):
        yield Kind.LATE_AFTER_END, 1
        yield Kind.LATE_AFTER_END, always


def _bears_any_delay(step: StepPlan) -> bool:
    """Whether a call may land however late: its participant refuses it after an undo, or there is no undo."""
    return step.barrier or not step.has_compensation


def of_compensations(plan: Plan) -> Iterator[Scenario]:
    """Each compensation with each way in which a call of it can end, in a saga that has to turn back."""
    for step in plan.steps:
        if not step.has_compensation:
            continue
        for because in turns_back(plan, step):
            for kind, times in _ways_of_compensation(step):
                yield Scenario((Fault(step.name, "compensation", kind, times),), because)


def _ways_of_compensation(step: StepPlan) -> Iterator[tuple[Kind, int]]:
    yield from ((kind, 1) for kind in _FAILURES[step.does])
    yield from ((Kind.FAILS, 0), (Kind.REPLY_LOST, 0), (Kind.LATE, 1), (Kind.TWICE, 1))
    if step.does is not Does.COMMAND:
        yield Kind.TWICE_AT_ONCE, 1


def of_questions(plan: Plan) -> Iterator[Scenario]:
    """Each probe, asked after a call that landed and after one that did not, and each condition."""
    for step in plan.steps:
        if step.has_probe:
            for doubt in (Kind.REPLY_LOST, Kind.FAILS):
                because = (Fault(step.name, "action", doubt),)
                for kind, times in ((Kind.FAILS, 1), (Kind.FAILS, 0), (Kind.TIMES_OUT, 1), (Kind.TWICE, 1)):
                    yield Scenario((Fault(step.name, "probe", kind, times),), because)
        if step.has_when:
            for kind in (Kind.FAILS, Kind.TWICE):
                yield Scenario((Fault(step.name, "when", kind),))


def of_events(plan: Plan) -> Iterator[Scenario]:
    """Each event that is awaited: it never comes, comes before it is awaited, or comes twice."""
    for step in plan.steps:
        if step.does is Does.EVENT:
            for kind in (Kind.NEVER_COMES, Kind.COMES_EARLY, Kind.TWICE):
                yield Scenario((Fault(step.name, "event", kind),))


def of_hops(plan: Plan, base: Scenario, hops: Mapping[tuple[str, Called], int]) -> Iterator[Scenario]:
    """The calls that the steps' code was seen to make to participants in a run, each lost on its way there or back."""
    for step in plan.steps:
        for called in ("action", "compensation", "probe"):
            for hop in range(1, hops.get((step.name, called), 0) + 1):
                for kind, times in _ways_of_hop(step, called):
                    yield replace(base, about=(Fault(step.name, called, kind, times, hop),), because=base.faults)


def _ways_of_hop(step: StepPlan, called: Called) -> Iterator[tuple[Kind, int]]:
    yield Kind.FAILS, 1
    if called == "action" and step.at_most_once:
        return
    yield Kind.REPLY_LOST, 1
    if called == "action":
        always = RETRIABLE_FAILURES if step.role is Role.RETRIABLE else 0
        yield Kind.FAILS, always
        yield Kind.REPLY_LOST, always
    yield Kind.TWICE, 1


def turns_back(plan: Plan, step: StepPlan) -> Iterator[tuple[Fault, ...]]:
    """What makes a saga undo this step: the last one that can refuse, or its own doubt if none comes after it."""
    at = plan.index[step.name]
    refusing = [one for one in plan.descendants[at] if _can_refuse(plan.steps[one])]
    if refusing:
        yield (Fault(plan.steps[max(refusing)].name, "action", Kind.REJECTED),)
    else:
        yield (Fault(step.name, "action", Kind.REPLY_LOST, 0),)


def repeated_and_undone(plan: Plan, repeats: Iterable[Scenario]) -> Iterator[Scenario]:
    """Runs with an action that is repeated, in a saga that undoes it afterwards."""
    for one in repeats:
        step = plan.steps[plan.index[one.about[0].step]]
        if step.has_compensation:
            yield from (replace(one, because=because) for because in turns_back(plan, step) if _is_other(because, step))


def _is_other(because: tuple[Fault, ...], step: StepPlan) -> bool:
    return all(fault.step != step.name for fault in because)


def _can_refuse(step: StepPlan) -> bool:
    """Whether a run may refuse it: what a refusal of a type of the user's says, only he could know."""
    return step.acts and step.role is not Role.RETRIABLE and step.rejects_type is None


def backward(plan: Plan) -> list[Scenario]:
    """The fewest runs in which every compensation is called."""
    found: dict[tuple[Fault, ...], Scenario] = {}
    for step in plan.steps:
        if step.has_compensation:
            for because in turns_back(plan, step):
                found[because] = Scenario(because)
    return list(found.values())


def left_out(plan: Plan) -> Iterator[LeftOut]:
    """What is not run for these steps, with the reason."""
    for step in plan.steps:
        if step.acts and not step.at_most_once and not _bears_any_delay(step):
            yield LeftOut(
                step.name,
                Kind.LATE_AFTER_END,
                f"no barrier=True; more than late_grace ({plan.late_grace_seconds:g} s) after its deadline nothing is "
                "promised without it",
            )
        if step.rejects_type is not None and step.does is Does.COMMAND:
            yield LeftOut(step.name, Kind.REJECTED, "rejects= is of a type of yours, so no refusal is made up")
        if step.acts and step.at_most_once:
            yield LeftOut(step.name, Kind.TWICE, "at_most_once=True: it does not have to bear it")


def distinct(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """Leave out what is there already under the same name."""
    return list({one.name: one for one in scenarios}.values())
