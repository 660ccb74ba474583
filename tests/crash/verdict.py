"""The verdict on a run with crashes: the journals against what the participant really did.

A pure function of what was read, so that tests can plant a violation and see it found. It takes no saga's word for
anything: an end is true if the participant's effects say so. Must not repair. Used by `random_kill` and the tests.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from atone._core.journal import AttemptLost, AttemptStarted, Entry
from atone._core.plan import Does, Plan, Role
from atone._core.state import SagaState, SagaStatus
from atone._runtime.reader import fold_rows
from atone._runtime.wire import decode_entries
from atone.errors import CorruptJournal
from atone.store import FINAL_STATUSES, Loaded, Query, Row, Store, Summary
from atone.stores.sqlite import SqliteStore
from atone.testing.invariants import Effect as Shown
from atone.testing.invariants import Rule, check_invariants
from tests.crash.child import Files
from tests.crash.definitions import SHAPES, Script
from tests.crash.participant import Call, Effect, Participant

PAGE = 500
PLANS = {shape.plan().name: shape.plan() for shape in SHAPES}


class Saga(NamedTuple):
    """One saga as stored."""

    name: str
    saga_id: str
    status: str
    rows: tuple[Row, ...]


@dataclass
class Found:
    """Everything that is left of a run. `started` and `ended` are what callers were told.

    `refused` counts turns by the store's answer, `counted` by the product's own telemetry; `in_doubt` has the commits
    without an answer, with the time of that.
    """

    sagas: list[Saga]
    calls: list[Call]
    effects: list[Effect]
    refusals: int = 0
    started: list[str] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    started_again: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    in_doubt: list[tuple[float, tuple[bytes, ...]]] = field(default_factory=list)


@dataclass
class Verdict:
    """What is wrong, in words, and how the sagas ended.

    `acknowledged` counts the starts and ends that callers were told. What of them is lost, effects that stand although
    their saga is compensated, and calls without an intent are untrue too, and counted apart.
    """

    stranded: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    acknowledged: int = 0
    acknowledged_lost: list[str] = field(default_factory=list)
    effects_standing: list[str] = field(default_factory=list)
    calls_without_intent: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    attempts_lost: int = 0
    calls_repeated: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong with a run in which somebody was told something."""
        return self.acknowledged > 0 and not (self.stranded or self.untrue or self.twice)


async def read(files: Files) -> Found:
    """Read the store through the port, the participant's tables, and the notes."""
    sagas: list[Saga] = []
    async with _store(files) as store:
        after: bytes | None = None
        while page := await store.find(Query(after=after, limit=PAGE)):
            sagas += [_saga(one) for one in await store.load([found.key for found in page]) if one is not None]
            after = page[-1].key
    participant = Participant(files.participant)
    found = Found(sagas, participant.calls(), participant.effects(), participant.refusals())
    participant.close()
    take_notes(found, files)
    return found


def take_notes(found: Found, files: Files) -> None:
    """Add what the processes have noted."""
    for line in files.notes.read_text().splitlines() if files.notes.exists() else ():
        _noted(found, json.loads(line))


def _store(files: Files) -> Store:
    if files.url is None:
        return SqliteStore(files.store)
    from atone.stores.postgres import PostgresStore

    return PostgresStore(files.url, migrate=False)


def _noted(found: Found, note: dict[str, Any]) -> None:
    if "started" in note:
        found.started.append(note["started"])
    elif "started_again" in note:
        found.started_again.append(note["started_again"])
    elif "ended" in note:
        found.ended.append((note["ended"], note["status"]))
    elif "refused" in note:
        found.refused[note["refused"]] += note["turns"]
    elif "counted" in note:
        found.counted[note["counted"]] += note["turns"]
    elif "in_doubt" in note:
        found.in_doubt.append((note["at"], tuple(bytes.fromhex(one) for one in note["in_doubt"])))


def _saga(loaded: Loaded) -> Saga:
    return Saga(loaded.summary.name, loaded.summary.saga_id, loaded.summary.status, loaded.rows)


def judge(found: Found) -> Verdict:
    """Compare the sagas' ends with the effects."""
    verdict = Verdict(ends=Counter(saga.status for saga in found.sagas))
    verdict.acknowledged = len(found.started) + len(found.ended)
    effects, calls = _by_saga(found.effects), _by_saga(found.calls)
    counted = Counter((effect.saga, effect.step, effect.operation) for effect in found.effects)
    verdict.twice = [f"{' '.join(what)} took effect {times} times" for what, times in counted.items() if times > 1]
    for saga in found.sagas:
        if saga.status not in FINAL_STATUSES:
            verdict.stranded.append(f"{saga.name} {saga.saga_id} is {saga.status}")
        wrong = _Case(saga, effects.pop(saga.saga_id, []), calls.pop(saga.saga_id, []), verdict)
        verdict.untrue += [f"{saga.name} {saga.saga_id}: {what}" for what in wrong.all()]
    strangers = {*effects, *calls}
    verdict.untrue += [f"{saga_id}: was called, but no such saga is in the store" for saga_id in sorted(strangers)]
    verdict.acknowledged_lost = list(_told_wrongly(found))
    verdict.untrue += verdict.acknowledged_lost
    return verdict


def _by_saga(things: Iterable[Any]) -> dict[str, list[Any]]:
    grouped: defaultdict[str, list[Any]] = defaultdict(list)
    for thing in things:
        grouped[thing.saga].append(thing)
    return dict(grouped)


def _told_wrongly(found: Found) -> Iterator[str]:
    statuses = {saga.saga_id: saga.status for saga in found.sagas}
    for saga_id in found.started:
        if saga_id not in statuses:
            yield f"{saga_id}: its start was acknowledged, and it is not in the store"
    for saga_id, status in found.ended:
        if statuses.get(saga_id) != status:
            yield f"{saga_id}: its caller was told {status}, and the store says {statuses.get(saga_id)}"


class _Case:
    """One saga before the judge."""

    def __init__(self, saga: Saga, effects: Sequence[Effect], calls: Sequence[Call], verdict: Verdict) -> None:
        self.saga, self.effects, self.calls, self.verdict = saga, effects, calls, verdict
        self.plan: Plan = PLANS[saga.name]
        self.done = {effect.step: effect.id for effect in effects if effect.operation == "action"}
        self.undone = {effect.step: effect.id for effect in effects if effect.operation == "compensation"}

    def all(self) -> Iterator[str]:
        """Yield everything that is wrong with it, besides effects that happened twice."""
        try:
            entries, state = self._unfolded()
        except CorruptJournal as broken:
            yield f"its journal can't be folded: {broken}"
            return
        for wrong in check_invariants([self._loaded()], self._ledger(), at_rest=False):
            if wrong.rule in (Rule.JOURNAL, Rule.ORDER):
                yield wrong.what.removesuffix(".")
        yield from self._calls(entries)
        if self.saga.status in FINAL_STATUSES:
            yield from self._end(msgspec.json.decode(state.input, type=Script))

    def _unfolded(self) -> tuple[list[Entry], SagaState]:
        entries = [entry for row in self.saga.rows for entry in decode_entries(row.entries)]
        self.verdict.attempts_lost += sum(isinstance(entry, AttemptLost) for entry in entries)
        return entries, fold_rows(self.plan, self.saga.rows)

    def _loaded(self) -> Loaded:
        known = (b"", "default", self.saga.name, self.saga.saga_id, self.plan.version, "", self.saga.status)
        return Loaded(Summary(*known, None, None, 0.0), self.saga.rows, self.plan.to_json())

    def _ledger(self) -> list[Shown]:
        return [Shown(one.saga, one.step, one.operation) for one in sorted(self.effects)]

    def _calls(self, entries: Sequence[Entry]) -> Iterator[str]:
        """Yield calls without a durable intent of their own: an intent is for one call."""
        intents = {(one.step, one.operation.value, one.attempt) for one in entries if isinstance(one, AttemptStarted)}
        made = Counter((call.step, call.operation, call.attempt) for call in self.calls)
        self.verdict.calls_repeated += len(made) - len({call[:2] for call in made})
        for call, times in made.items():
            if call not in intents:
                self.verdict.calls_without_intent.append(f"{self.saga.saga_id}: {call}")
                yield f"{call} was called without an intent"
            if times > 1:
                yield f"{call} was called {times} times for one intent"

    def _end(self, script: Script) -> Iterator[str]:
        if self.saga.status not in script.ends:
            yield f"it ended {self.saga.status}, its script says {' or '.join(sorted(script.ends))}"
        standing = sorted(self.done.keys() - self.undone.keys())
        if self.saga.status == SagaStatus.COMPENSATED and standing:
            self.verdict.effects_standing.append(f"{self.saga.saga_id}: {standing}")
            yield f"it is called compensated, and these effects stand: {', '.join(standing)}"
        if self.saga.status == SagaStatus.COMPLETED:
            acting = [step.name for step in self.plan.steps if step.does is Does.ACTION]
            missing = [name for name in acting if name not in self.done]
            if missing or self.undone:
                yield f"it is called completed; not done: {missing}, undone: {sorted(self.undone)}"
        beyond = [
            step.name for step in self.plan.steps if step.role is not Role.COMPENSATABLE and step.name in self.done
        ]
        if beyond and self.undone:
            yield f"its pivot landed, and these were undone: {', '.join(sorted(self.undone))}"
