"""Calls and commands on their way: what may become of each, and what it does to its participant.

Owns whatever happens between a worker and the participants: arrivals, refusals, answers, duplicates, losses, and calls
that nobody listens to any more. Called by `moves.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

from atone._core import facts
from atone._core.facts import ACTION, PROBE
from atone._core.plan import Plan, StepPlan
from atone._core.state import Request
from tests.core.world import OOPS, Wire, fact_of, receive, result_of
from tests.model.judge import Judge
from tests.model.promise import Promise
from tests.model.rules import Rules
from tests.model.worker import Worker
from tests.model.world import Seat, World, seated, spent, without

Move: TypeAlias = tuple[str, int, World]


class Network:
    """What is on its way, for one plan. `rules` can break what participants and the network keep to."""

    def __init__(self, plan: Plan, rules: Rules, judge: Judge, promise: Promise, worker: Worker) -> None:
        self.plan = plan
        self.rules = rules
        self.judge = judge
        self.promise = promise
        self.worker = worker
        self._steps = {step.name: step for step in plan.steps}
        self._bare = {step.name: replace(step, barrier=False) for step in plan.steps}

    def ghosts(self, world: World, wires: tuple[Wire, ...]) -> tuple[Wire, ...]:
        found = {wire._replace(told=False) for wire in wires if self.may_arrive(wire) and wire.operation is not PROBE}
        return tuple(sorted(found.union(world.ghosts))) if found else world.ghosts

    def may_arrive(self, wire: Wire) -> bool:
        if wire.answer:
            return False
        if self._steps[wire.step].barrier or not self.rules.grace:
            return True
        return wire.deadline + self.plan.late_grace_seconds > 0.0

    def of_call(self, world: World, at: int, seat: Seat, wire: Wire) -> Iterator[Move]:
        worker = self.worker
        others = without(seat.calls, wire)
        if not wire.answer and self.may_arrive(wire):
            for what in ("arrive", "refuse", "cannot tell"):
                if self._answers(what, wire, world.budget):
                    paid = world if what == "arrive" else spent(world)
                    yield what, at, self._arrive_at(paid, at, seat, wire, what)
        if not wire.told:
            if wire.answer:
                yield "reply", at, seated(world, at, worker.tell(seat._replace(calls=others), fact_of(wire)))
            # It costs nothing to give up what will never be answered.
            is_hopeless = wire.deadline <= 0.0 and not wire.answer and not self.may_arrive(wire)
            if is_hopeless or world.budget:
                nothing = facts.CameToNothing(wire.step, wire.operation, wire.attempt, OOPS)
                after = seated(world, at, worker.tell(seat._replace(calls=self._given_up(others, wire)), nothing))
                yield ("time out", at, after) if is_hopeless else ("break", at, spent(after))
        elif wire.answer == "ok" and world.budget:
            landed = facts.Succeeded(wire.step, ACTION, wire.attempt, result_of(wire.step))
            yield "late", at, seated(spent(world), at, worker.tell(seat._replace(calls=others), landed))
        if world.budget and wire.answer != "refused" and self._may_come_twice(wire):
            ghost = wire._replace(answer="", told=False)
            if ghost not in world.ghosts and self.may_arrive(ghost):
                ghosts = tuple(sorted((*world.ghosts, ghost)))
                yield "twice", at, spent(world)._replace(ghosts=ghosts)

    def _answers(self, what: str, wire: Wire, budget: int) -> bool:
        if what == "arrive":
            return True
        return bool(budget) and (what == "cannot tell") is (wire.operation is PROBE)

    def _given_up(self, others: tuple[Wire, ...], wire: Wire) -> tuple[Wire, ...]:
        """Return the calls with one that is not waited for any more, if it can still matter."""
        told = wire._replace(told=True)
        matters = wire.operation is not PROBE and (
            self.may_arrive(wire) or (wire.answer == "ok" and wire.operation is ACTION)
        )
        return tuple(sorted((*others, told))) if matters else others

    def _may_come_twice(self, wire: Wire) -> bool:
        step = self._steps[wire.step]
        return wire.operation is not PROBE and (step.barrier or not step.at_most_once)

    def _arrive_at(self, world: World, at: int, seat: Seat, wire: Wire, what: str) -> World:
        after, answer = self.arrive(world, wire, what)
        if answer == "refused":
            # A participant that has refused a call refuses its copies.
            copy = wire._replace(told=False)
            after = after._replace(ghosts=tuple(ghost for ghost in after.ghosts if ghost != copy))
        others = without(seat.calls, wire)
        if wire.told and not (answer == "ok" and wire.operation is ACTION):
            return seated(after, at, seat._replace(calls=others))
        calls = tuple(sorted((*others, wire._replace(answer=answer))))
        return seated(after, at, seat._replace(calls=calls))

    def arrive(self, world: World, wire: Wire, what: str) -> tuple[World, str]:
        place, how = self.plan.index[wire.step], "cannot" if what == "cannot tell" else what
        step = self._heeded(wire.step)
        known = world.there[place]
        if not self.rules.keys:
            known = known._replace(acted=known.acted and step.barrier)
        there, answer = receive(step, known, wire.operation, how)
        after = world._replace(there=(*world.there[:place], there, *world.there[place + 1 :]))
        self.judge.arrived(world, after, wire)
        return after, answer

    def _heeded(self, name: str) -> StepPlan:
        step = self._steps[name]
        if self.rules.barrier or not step.barrier:
            return step
        return self._bare[name]

    def of_letter(self, world: World, wire: Wire) -> Iterator[Move]:
        others = without(world.letters, wire)
        if not wire.answer:
            if not self.may_arrive(wire):
                yield "lost for good", -1, world._replace(letters=others)
                return
            for what in ("arrive", "refuse") if world.budget else ("arrive",):
                after, answer = self.arrive(world, wire, what)
                left = tuple(sorted((*others, wire._replace(answer=answer))))
                after = after._replace(letters=left)
                yield what, -1, after if what == "arrive" else spent(after)
            if world.budget:
                yield "lost in the post", -1, spent(world)._replace(letters=others)
        elif not wire.told:
            yield "answer", -1, self._reply(world, others, wire, "answer")
            if world.budget:
                yield "lost in the post", -1, spent(world)._replace(letters=others)
        elif world.budget:
            yield "reply twice", -1, self._reply(spent(world), others, wire, "repeat")

    def _reply(self, world: World, others: tuple[Wire, ...], wire: Wire, what: str) -> World:
        name = f"{wire.operation}-{wire.step}-{wire.attempt}-{what}"
        landed = wire.answer == "ok"
        payload = result_of(wire.step) if landed else None
        request = Request(name, "reply", "there", "no", wire.step, None, payload, landed, wire.operation, wire.attempt)
        kept = others
        if what == "answer" and world.budget:
            kept = tuple(sorted((*others, wire._replace(told=True, deadline=0.0))))
        return self.promise.deliver(world._replace(letters=kept), request)
