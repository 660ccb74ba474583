"""What must hold of every saga whatever went wrong around it: journals against what the participants really did.

Owns nine rules as one function over plain data: histories as any store shows them, and the effects that your services
wrote down. It takes no saga's word for anything: an end is true if the effects say so. It must not repair, call user
code, or know how a run was tormented. Called by your tests, by `verify`, and by Atone's own proofs.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from atone._core.events import lifecycle_events
from atone._core.fold import fold
from atone._core.journal import AttemptStarted, CompensationGaveUp, Entry, StepResolved, StepWaived
from atone._core.plan import Plan, Role
from atone._core.state import SagaState, SagaStatus, StepStatus
from atone._runtime.reader import state_of
from atone._runtime.wire import decode_entries
from atone.broker import Message
from atone.errors import AtoneError, CorruptJournal
from atone.store import FINAL_STATUSES, Loaded, Query, Store
from atone.testing._law import wrong_rows

__all__ = [
    "Called",
    "Effect",
    "InvariantsBroken",
    "Rule",
    "Violation",
    "assert_invariants",
    "check_invariants",
    "read_histories",
]

PAGE = 500
ACTION, COMPENSATION = "action", "compensation"
NO_MOVES: Mapping[str, int] = MappingProxyType({})
_SETTLED = FINAL_STATUSES | {"needs_attention"}
_NEVER = sys.maxsize


class Rule(StrEnum):
    """The nine rules.

    MONEY: what is moved is neither made nor lost, and a compensated saga leaves every account as it was.
    ENDS: all is done, all is undone, or a person is asked; and what the status says is true.
    ORDER: effects follow the plan, and undos its reverse.
    AFTER_UNDO: no effect of an action comes after its undo.
    ONCE: each operation of each step takes effect at most once.
    PIVOT: after the point of no return nothing is undone.
    JOURNAL: it has no gap, says what the law allows, and nothing was called without an intent.
    MESSAGES: what was to be told was published, and one id always says the same.
    LIVENESS: once the faults are over, every saga comes to rest.
    """

    MONEY = "I1"
    ENDS = "I2"
    ORDER = "I3"
    AFTER_UNDO = "I4"
    ONCE = "I5"
    PIVOT = "I6"
    JOURNAL = "I7"
    MESSAGES = "I8"
    LIVENESS = "I9"


class Effect(NamedTuple):
    """One effect at a participant, there for good; give them in the order in which they happened.

    `operation` is "action" or "compensation". `moves` is what it moved, by account: -500 here and 500 there; leave it
    out where there is nothing to count. A repeat that was recognised by its key, and an undo that found nothing, are no
    effects. `saga` is the definition's name, needed only where two definitions share saga ids.
    """

    saga_id: str
    step: str
    operation: str
    moves: Mapping[str, int] = NO_MOVES
    saga: str = ""


class Called(NamedTuple):
    """One call of your code, noted before anything else happened in it; `attempt` is `ctx.attempt`."""

    saga_id: str
    step: str
    operation: str
    attempt: int
    saga: str = ""


class Violation(NamedTuple):
    """One rule that does not hold, for which saga, and in words what is wrong. `saga` is empty if it is about all."""

    rule: Rule
    saga: str
    saga_id: str
    what: str

    def __str__(self) -> str:
        whose = f" {self.saga} {self.saga_id!r}".rstrip() if self.saga_id else ""
        return f"{self.rule} {self.rule.name.lower()}:{whose} {self.what}"


class InvariantsBroken(AtoneError, AssertionError):
    """What was promised does not hold; `violations` has each."""

    code = "invariants_broken"

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        lines = "\n".join(f"  {one}" for one in self.violations)
        super().__init__(f"{len(self.violations)} invariants do not hold:\n{lines}\nRead the sagas' timelines next.")


async def read_histories(store: Store) -> list[Loaded]:
    """Return every saga of an open store with its plan and its whole journal."""
    histories: list[Loaded] = []
    after: bytes | None = None
    while page := await store.find(Query(after=after, limit=PAGE)):
        loaded = await store.load([found.key for found in page], with_plan=True)
        histories += [one for one in loaded if one is not None]
        after = page[-1].key
    return histories


def check_invariants(
    histories: Iterable[Loaded],
    ledger: Iterable[Effect],
    *,
    calls: Iterable[Called] = (),
    published: Iterable[Message] | None = None,
    events: bool = False,
    unrecorded: Collection[str] = (),
    at_rest: bool = True,
) -> list[Violation]:
    """Return every rule that does not hold between what sagas say and what was done; an empty list is good.

    `histories` come from `read_histories`, `ledger` from your services. `unrecorded` names steps that leave nothing in
    the ledger, as "step" or "PlaceOrder.step". With `calls`, each call is compared with its intent. `published` is all
    that came out of the broker; with `events` the orchestrator tells of its sagas there. `at_rest=False`: sagas may
    still be on their way. Effects of sagas that are in no history are violations too; for a service without an
    orchestrator give no histories, and only the rules of the ledger are applied.
    """
    histories, ledger, calls = list(histories), list(ledger), list(calls)
    found = list(_in_ledger(ledger))
    cases = [_Case(one, ledger, calls, unrecorded) for one in histories]
    for case in cases:
        found += case.all(at_rest=at_rest)
    if histories:
        found += _strangers(cases, [*ledger, *calls])
    if published is not None:
        found += _messages(cases, list(published), events=events)
    return found


def assert_invariants(
    histories: Iterable[Loaded],
    ledger: Iterable[Effect],
    *,
    calls: Iterable[Called] = (),
    published: Iterable[Message] | None = None,
    events: bool = False,
    unrecorded: Collection[str] = (),
    at_rest: bool = True,
) -> None:
    """Do as `check_invariants`, and complain.

    Raises:
        InvariantsBroken: Something does not hold; the message has a line for each.
    """
    found = check_invariants(
        histories, ledger, calls=calls, published=published, events=events, unrecorded=unrecorded, at_rest=at_rest
    )
    if found:
        raise InvariantsBroken(found)


def _in_ledger(ledger: Sequence[Effect]) -> Iterator[Violation]:
    """Yield what the ledger alone shows."""
    total: Counter[str] = Counter()
    times: Counter[tuple[str, str, str, str]] = Counter()
    undone: set[tuple[str, str, str]] = set()
    for effect in ledger:
        total.update({"": sum(effect.moves.values())})
        saga, saga_id, step = effect.saga, effect.saga_id, effect.step
        times[saga, saga_id, step, effect.operation] += 1
        if effect.operation == COMPENSATION:
            undone.add((saga, saga_id, step))
        elif (saga, saga_id, step) in undone:
            yield Violation(Rule.AFTER_UNDO, saga, saga_id, f"{step} took effect after it was undone.")
    for (saga, saga_id, step, operation), count in times.items():
        if count > 1:
            yield Violation(Rule.ONCE, saga, saga_id, f"the {operation} of {step} took effect {count} times.")
    if total[""]:
        yield Violation(Rule.MONEY, "", "", f"The ledger's moves add up to {total['']} and not to 0.")


def _strangers(cases: Sequence[_Case], things: Iterable[Effect | Called]) -> Iterator[Violation]:
    known = {one.saga_id for one in cases} | {(one.saga, one.saga_id) for one in cases}
    seen: set[tuple[str, str]] = set()
    for thing in things:
        whose = (thing.saga, thing.saga_id)
        if (whose if thing.saga else thing.saga_id) not in known and whose not in seen:
            seen.add(whose)
            yield Violation(Rule.JOURNAL, *whose, "was called, but no such saga is in the store.")


class _Case:
    """One saga before the judge."""

    def __init__(
        self, loaded: Loaded, ledger: Sequence[Effect], calls: Sequence[Called], unrecorded: Collection[str]
    ) -> None:
        self.loaded = loaded
        self.saga, self.saga_id, self.status = loaded.summary.name, loaded.summary.saga_id, loaded.summary.status
        self.plan: Plan | None = None
        self.rows: list[list[Entry]] = []
        self.ledger = [one for one in ledger if self._is_mine(one)]
        self.calls = [one for one in calls if self._is_mine(one)]
        self.done = self._first_of(ACTION)
        self.undone = self._first_of(COMPENSATION)
        self.unrecorded = frozenset(one.removeprefix(f"{self.saga}.") for one in unrecorded)

    def _is_mine(self, thing: Effect | Called) -> bool:
        return thing.saga_id == self.saga_id and thing.saga in ("", self.saga)

    def _first_of(self, operation: str) -> dict[str, int]:
        """Return where in the ledger each step has its first effect of a kind."""
        found: dict[str, int] = {}
        for at, effect in enumerate(self.ledger):
            if effect.operation == operation:
                found.setdefault(effect.step, at)
        return found

    def all(self, *, at_rest: bool) -> Iterator[Violation]:
        """Yield everything that is wrong with it, besides what the ledger shows alone."""
        try:
            state = self._unfolded()
        except CorruptJournal as broken:
            yield self._violation(Rule.JOURNAL, f"its journal can't be folded: {broken}")
            return
        assert self.plan is not None
        for rule, what in self._wrong(self.plan, state, at_rest=at_rest):
            yield self._violation(rule, what)

    def _violation(self, rule: Rule, what: str) -> Violation:
        return Violation(rule, self.saga, self.saga_id, what if what.endswith(".") else f"{what}.")

    def _unfolded(self) -> SagaState:
        if self.loaded.plan is None:
            raise CorruptJournal("Its plan is not in the store; load it with its plan.")
        self.plan = _plan_of(self.loaded.plan)
        self.rows = [list(decode_entries(row.entries)) for row in self.loaded.rows]
        return state_of(self.plan, self.loaded)

    def _wrong(self, plan: Plan, state: SagaState, *, at_rest: bool) -> Iterator[tuple[Rule, str]]:
        vouched = {
            entry.step for row in self.rows for entry in row if isinstance(entry, StepResolved | StepWaived)
        }  # a person's word counts for these, not the ledger's
        for what in self._journal(plan, state):
            yield Rule.JOURNAL, what
        for what in self._order(plan):
            yield Rule.ORDER, what
        beyond = [one.name for one in plan.steps if one.role is not Role.COMPENSATABLE and one.name in self.done]
        if beyond and self.undone and not vouched:
            yield Rule.PIVOT, f"{beyond[0]} has landed, and undone were: {_listed(self.undone)}"
        if self.status not in _SETTLED and at_rest:
            yield Rule.LIVENESS, f"it is {self.status}, and nothing moves it any more"
        for what in self._end(plan, state, vouched):
            yield Rule.ENDS, what
        for what in self._money(plan, state, vouched):
            yield Rule.MONEY, what

    def _journal(self, plan: Plan, state: SagaState) -> Iterator[str]:
        stored = self.loaded.rows
        versions = [row.version for row in stored]
        if versions != list(range(1, len(versions) + 1)):
            yield f"its journal has gaps: {versions}"
        if len({row.commit_id for row in stored}) < len(stored):
            yield "two journal rows have one commit id"
        if state.status.value != self.status:
            yield f"its journal says {state.status.value}, its row says {self.status}"
        # One that needs attention may have an owner that died before it gave it up; it is taken over then.
        if self.status in FINAL_STATUSES and self.loaded.summary.owner is not None:
            yield f"it is {self.status}, and worker {self.loaded.summary.owner} still owns it"
        yield from wrong_rows(plan, self.rows)
        yield from self._intents()

    def _intents(self) -> Iterator[str]:
        """Yield calls without a durable intent of their own, and effects without any: an intent is for one call."""
        intents = [one for row in self.rows for one in row if isinstance(one, AttemptStarted)]
        attempts = {(one.step, one.operation.value, one.attempt) for one in intents}
        for call, times in Counter((one.step, one.operation, one.attempt) for one in self.calls).items():
            told = f"attempt {call[2]} of the {call[1]} of {call[0]}"
            if call not in attempts:
                yield f"{told} was called without an intent"
            elif times > 1:
                yield f"{told} was called {times} times for one intent"
        meant = {(one.step, one.operation.value) for one in intents}
        for step, operation in dict.fromkeys((one.step, one.operation) for one in self.ledger):
            if (step, operation) not in meant:
                yield f"the {operation} of {step} took effect without an intent"

    def _order(self, plan: Plan) -> Iterator[str]:
        """Yield effects in an order that the plan forbids."""
        for name, at in self.undone.items():
            if at < self.done.get(name, _NEVER):
                yield f"{name} was undone {'before it was' if name in self.done else 'and never'} done"
        # An undo that has given up does not keep the others waiting, and may be tried again after them.
        gave_up = {entry.step for row in self.rows for entry in row if isinstance(entry, CompensationGaveUp)}
        for number, step in enumerate(plan.steps):
            for later in plan.descendants[number] if step.acts and step.name not in self.unrecorded else ():
                yield from self._pair(step.name, plan.steps[later].name, gave_up)

    def _pair(self, first: str, then: str, gave_up: Collection[str]) -> Iterator[str]:
        if then in self.done and self.done[then] < self.done.get(first, -1):
            yield f"{then} was done before {first}"
        late = first in self.undone and then in self.undone and self.undone[then] > self.undone[first]
        if late and then not in gave_up:
            yield f"{then} was undone after {first}"

    def _end(self, plan: Plan, state: SagaState, vouched: Collection[str]) -> Iterator[str]:
        """Yield what the status says that is not so."""
        if self.status not in set(SagaStatus):
            yield f"{self.status} is no status"
        if self.status == SagaStatus.FAILED and not vouched and "terminated" not in (state.ended_because or ""):
            yield "it has failed without a person's word"
        asked = state.broken is not None or any(one.attention for one in state.steps)
        if self.status == SagaStatus.NEEDS_ATTENTION and not asked:
            yield "it needs attention for nothing"
        judged = [
            (step.name, step.has_compensation, found)
            for step, found in zip(plan.steps, state.steps, strict=True)
            if step.acts and step.name not in self.unrecorded and step.name not in vouched
        ]
        for name, has_undo, found in judged:
            stands = name in self.done and name not in self.undone
            if self.status == SagaStatus.COMPLETED:
                if found.status is StepStatus.SUCCEEDED and not stands:
                    yield f"it is called completed, and {name} does not stand"
                elif found.status is not StepStatus.SUCCEEDED and name in self.done:
                    yield f"it is called completed, and {name} was done though it is {found.status}"
            elif self.status == SagaStatus.COMPENSATED and stands and (has_undo or plan.index[name] == plan.pivot):
                yield f"it is called compensated, and {name} stands"

    def _money(self, plan: Plan, state: SagaState, vouched: Collection[str]) -> Iterator[str]:
        if self.status != SagaStatus.COMPENSATED:
            return
        kept = {step.name for step in plan.steps if not step.has_compensation} | set(vouched)
        left: Counter[str] = Counter()
        for effect in self.ledger:
            left.update(effect.moves if effect.step not in kept else {})
        for account, amount in left.items():
            if amount:
                yield f"it is compensated, and left {amount} in {account}"

    def told(self) -> list[str]:
        """Return the ids of the lifecycle events of its rows, in their order."""
        if self.plan is None:
            return []
        before: SagaState | None = None
        ids: list[str] = []
        for version, row in enumerate(self.rows, start=1):
            happened = lifecycle_events(self.plan, before, row)
            ids += [f"{self.loaded.summary.key.hex()}-{version}-{at}" for at in range(len(happened))]
            before = fold(self.plan, before, row)
        return ids


def _messages(cases: Sequence[_Case], published: Sequence[Message], *, events: bool) -> Iterator[Violation]:
    first: dict[str, Message] = {}
    came: defaultdict[str, list[str]] = defaultdict(list)
    for message in published:
        if message.id not in first:
            first[message.id] = message
            came[message.id.partition("-")[0]].append(message.id)
        elif first[message.id].body != message.body:
            yield Violation(Rule.MESSAGES, "", "", f"Message {message.id} came again with other words.")
    for case in cases if events else ():
        expected = case.told()
        mine = [one for one in came[case.loaded.summary.key.hex()] if one in set(expected)]
        missing = [one for one in expected if one not in first]
        if missing:
            yield Violation(Rule.MESSAGES, case.saga, case.saga_id, f"never published: {', '.join(missing)}.")
        elif mine != expected:
            yield Violation(Rule.MESSAGES, case.saga, case.saga_id, f"published out of order: {', '.join(mine)}.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


@lru_cache(maxsize=256)
def _plan_of(text: str) -> Plan:
    try:
        return Plan.from_json(text)
    except ValueError as wrong:
        raise CorruptJournal(str(wrong)) from wrong
