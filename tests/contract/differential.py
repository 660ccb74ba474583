"""The same calls to several stores at once, and a model beside each: a stateful machine over the whole store port.

Owns what is called: workers that come, lapse and die, sagas of several tenants, stale and repeated turns, early events,
limits, relays, views, and a clock that moves. It must not know how a store works. Run by test_differential.py, and for
longer by hand:

    python -m tests.contract.differential --examples 10000      memory, SQLite and PostgreSQL, --seed N for other ones
    python -m tests.contract.differential --broken              which of the broken stores are found, and which are not
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from atone.broker import Message
from atone.store import Birth, Delivery, Hot, Observed, Query, StoredPlan, Turn
from tests.contract.port_model import Disagreement, PortModel
from tests.contract.twins import Bed, MemoryBed, PostgresBed, SqliteBed, Twin, opened

STEPS = 40
NAMES = ("Order", "Refund")
DEFINITIONS = tuple((name, version, "hash") for name in NAMES for version in (1, 2))
IDENTITIES = (
    ("acme", "Order", "1"),
    ("acme", "Order", "2"),
    ("acme", "Refund", "1"),
    ("zeta", "Order", "1"),
    ("zeta", "Refund", "3"),
    ("acme", "Refund", "4"),
)
KEYS = tuple(bytes([at]) * 16 for at in range(1, len(IDENTITIES) + 1))
VIEWED = tuple((tenant, "orders", saga_id) for tenant in ("acme", "zeta") for saga_id in ("1", "2"))
STATUSES = ("pending", "running", "compensating", "needs_attention", "completed", "compensated", "failed")
OPEN = STATUSES[:4]

WORKERS = st.integers(0, 3)
SAGAS = st.integers(0, len(KEYS) - 1)
SECONDS = st.sampled_from([0.125, 1.0, 4.0, 5.0, 10.0, 31.0])
LEASES = st.sampled_from([10.0, 10.0, 30.0, 30.0, 5.0, 0.0])
AHEAD = st.sampled_from([None, 0.0, -5.0, 1.0, 5.0])
# Of what a turn shows, whether the worker keeps the saga; more is open than over.
SHOWN = st.none() | st.tuples(st.sampled_from([*OPEN, *STATUSES]), st.sampled_from([True, True, False]), AHEAD)
BORN = st.tuples(st.sampled_from([*OPEN, *OPEN, *STATUSES]), st.sampled_from([True, True, False]), AHEAD)
LIMITS = st.sampled_from([100, 100, 0, 1, 2, 3])
POSTS = st.lists(st.sampled_from(["", "saga", "saga", "shared"]), max_size=2)
SIZES = st.sampled_from([1, 1, 1, 1, 0, 30_000])


class StoreMachine(RuleBasedStateMachine):
    """Calls that make sense, some that are stale, late or repeated, and some that nobody should make."""

    beds: Sequence[Bed] = ()
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.twins = [Twin(bed) for bed in self.beds]
        for bed in self.beds:
            self.runner.run(bed.empty())
        self.numbers = count(1)
        self.was_reopened = False  # once is enough, for it takes long
        self.sent: list[tuple[str | None, Turn]] = []

    # -- words ---------------------------------------------------------------------------------------------------

    @property
    def model(self) -> PortModel:
        """The model that says what makes sense; the others may have taken another choice."""
        return self.twins[0].model

    def on_each(self, call: Callable[[Twin], Any]) -> None:
        async def main() -> None:
            for twin in self.twins:
                await call(twin)

        self.runner.run(main())

    def worker(self, number: int) -> str:
        return f"worker-{number}"

    def living(self, number: int) -> str:
        """Return a worker that is alive, mostly; what the dead do must be tried too."""
        alive = [name for name in sorted(self.model.leases) if self.model.is_alive(name)]
        return alive[number % len(alive)] if number and alive else self.worker(number)

    def owner(self, key: bytes, number: int) -> str:
        """Return who has the saga, mostly; what a stranger does must be tried too."""
        one = self.model.sagas.get(key)
        return self.living(number) if one is None or one.owner is None or number == 0 else one.owner

    def commit_id(self) -> bytes:
        return next(self.numbers).to_bytes(16, "big")

    def hot(self, shown: tuple[str, bool, float | None] | None) -> Hot | None:
        if shown is None:
            return None
        status, owned, ahead = shown
        return Hot(status, owned, None if ahead is None else self.model.now + ahead)

    def messages(self, key: bytes, keys: Sequence[str]) -> tuple[Message, ...]:
        names = {"saga": key.hex()}
        return tuple(
            Message(f"m-{next(self.numbers)}", "orders.told", names.get(one, one), b"body", {"a": one})
            for one in keys
        )  # fmt: skip

    def birth(self, at: int, other: int, version: int, born: Any, posts: Sequence[str] = (), size: int = 1) -> Turn:
        """Return a first turn; `other` names the saga whose identity it wants, mostly its own."""
        identity = IDENTITIES[at if other < 6 else other % len(IDENTITIES)]
        hot, key = self.hot(born), KEYS[at]
        birth = Birth(*identity, version, "hash")
        return Turn(key, 1, self.commit_id(), b"\xff" * size, hot, birth, self.messages(key, posts))

    def turn(self, at: int, ahead: int, shown: Any, posts: Sequence[str] = (), size: int = 1) -> Turn:
        key = KEYS[at]
        version = max(2, len(self.model.journals.get(key, ())) + ahead)
        return Turn(
            key, version, self.commit_id(), b"\x00\xfe" * size, self.hot(shown), None, self.messages(key, posts)
        )

    def commit(self, worker: str | None, turns: Sequence[Turn]) -> None:
        self.sent += [(worker, turn) for turn in turns]
        self.on_each(lambda twin: twin.commit(worker, turns))

    def going(self, at: int) -> int:
        """Return the place of a saga that somebody has, if there is one; of any other now and then."""
        owned = [KEYS.index(key) for key, one in sorted(self.model.sagas.items()) if one.owner is not None]
        return owned[at % len(owned)] if owned and at < len(KEYS) - 1 else at

    @initialize(seconds=st.sampled_from([10.0, 30.0, 100.0]), begun=st.lists(BORN, min_size=1, max_size=3))
    def begin_with_workers(self, seconds: float, begun: Any) -> None:
        """Most calls need a worker that is alive, and a saga or two."""
        for number in range(2):
            plans = [StoredPlan(*one, "{}") for one in DEFINITIONS[:3]] if number else []
            self.on_each(lambda twin, number=number, plans=plans: twin.renew(self.worker(number), seconds, plans))
        for at, born in enumerate(begun):
            self.commit(self.worker(at % 2), [self.birth(at, 0, 1, born)])

    # -- workers and time ----------------------------------------------------------------------------------------

    @rule(worker=WORKERS, seconds=LEASES, plans=st.lists(st.sampled_from(DEFINITIONS), max_size=2))
    def register(self, worker: int, seconds: float, plans: list[tuple[str, int, str]]) -> None:
        kept = [StoredPlan(*one, f'{{"n":{next(self.numbers)}}}') for one in dict.fromkeys(plans)]
        self.on_each(lambda twin: twin.renew(self.worker(worker), seconds, kept))

    @rule(worker=WORKERS, seconds=LEASES)
    def renew(self, worker: int, seconds: float) -> None:
        self.on_each(lambda twin: twin.renew(self.worker(worker), seconds, None))

    @rule(plans=st.lists(st.sampled_from(DEFINITIONS), max_size=2))
    def renew_nobody(self, plans: list[tuple[str, int, str]]) -> None:
        kept = [StoredPlan(*one, f'{{"n":{next(self.numbers)}}}') for one in dict.fromkeys(plans)]
        self.on_each(lambda twin: twin.renew(None, 0.0, kept or None))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        for twin in self.twins:
            twin.advance(seconds)

    @precondition(lambda self: not self.was_reopened)
    @rule()
    def reopen(self) -> None:
        self.was_reopened = True
        self.on_each(lambda twin: twin.bed.reopen())

    # -- turns ---------------------------------------------------------------------------------------------------

    @rule(worker=WORKERS, at=SAGAS, other=st.integers(0, 15), version=st.integers(1, 2), born=BORN, posts=POSTS)
    def begin(self, worker: int, at: int, other: int, version: int, born: Any, posts: list[str]) -> None:
        self.commit(self.living(worker), [self.birth(at, other, version, born, posts)])

    @rule(at=SAGAS, other=st.integers(0, 15), version=st.integers(1, 2), born=BORN)
    def begin_without_worker(self, at: int, other: int, version: int, born: Any) -> None:
        self.commit(None, [self.birth(at, other, version, born)])

    @rule(at=SAGAS, other=st.integers(0, 15), born=BORN, posts=POSTS, commits=st.booleans(), size=SIZES)
    def begin_in_transaction(self, at: int, other: int, born: Any, posts: list[str], commits: bool, size: int) -> None:
        turn = self.birth(at, other, 1, born, posts, size)
        self.on_each(lambda twin: twin.start(turn, commits))

    @rule(worker=WORKERS, at=SAGAS, ahead=st.sampled_from([1, 1, 1, 0, 2]), shown=SHOWN, posts=POSTS, size=SIZES)
    def go_on(self, worker: int, at: int, ahead: int, shown: Any, posts: list[str], size: int) -> None:
        at = self.going(at)
        self.commit(self.owner(KEYS[at], worker), [self.turn(at, ahead, shown, posts, size)])

    @rule(at=SAGAS, ahead=st.sampled_from([1, 1, 0, 2]), shown=SHOWN)
    def go_on_without_worker(self, at: int, ahead: int, shown: Any) -> None:
        self.commit(None, [self.turn(self.going(at), ahead, shown)])

    @rule(
        worker=WORKERS,
        begun=st.lists(st.tuples(SAGAS, st.integers(0, 15), BORN, POSTS), max_size=3),
        gone_on=st.lists(st.tuples(SAGAS, st.sampled_from([1, 1, 1, 0, 2]), SHOWN, POSTS, SIZES), max_size=3),
    )
    def commit_batch(self, worker: int, begun: Any, gone_on: Any) -> None:
        turns = [self.birth(at, other, 1, *rest) for at, other, *rest in begun]
        gone_on = [(self.going(at), *rest) for at, *rest in gone_on]
        turns += [self.turn(*some) for some in gone_on]
        # What is written first within a batch is the store's own choice; in the order of keys all choose the same.
        turns.sort(key=lambda turn: (turn.key, turn.version))
        self.commit(self.living(worker) if not gone_on else self.owner(KEYS[gone_on[0][0]], worker), turns)

    @rule(worker=WORKERS)
    def commit_nothing(self, worker: int) -> None:
        self.commit(self.worker(worker), [])

    @precondition(lambda self: bool(self.sent))
    @rule(at=st.integers(0, 39), other=st.none() | WORKERS)
    def send_again(self, at: int, other: int | None) -> None:
        worker, turn = self.sent[-1 - at % len(self.sent)]
        sender = worker if other is None else self.worker(other)
        self.on_each(lambda twin: twin.commit(sender, [turn]))

    # -- requests ------------------------------------------------------------------------------------------------

    @rule(
        at=SAGAS,
        is_born=st.booleans(),
        request=st.integers(1, 2),
        keep=st.sampled_from([5.0, 5.0, 30.0, None]),
    )
    def deliver(self, at: int, is_born: bool, request: int, keep: float | None) -> None:
        born = [one for one in IDENTITIES if (self.model.key_of(one) is not None) is is_born] or IDENTITIES
        named = (*born[at % len(born)], f"request-{request}")
        delivery = Delivery(*named, b"\xfd%d" % request, self.commit_id(), keep)
        self.on_each(lambda twin: twin.deliver(delivery))

    # -- take-over -----------------------------------------------------------------------------------------------

    @rule(
        worker=WORKERS,
        definitions=st.sampled_from([DEFINITIONS, DEFINITIONS, DEFINITIONS[:1], DEFINITIONS[:3], ()]),
        known=st.sampled_from([True, True, False]) | st.sets(SAGAS, max_size=3),
        limit=LIMITS,
        seconds=st.sampled_from([10.0, 10.0, 1.0, 40.0]),
        bounds=st.sampled_from([{}, {}, {"Order": 1}, {"Order": 2, "Refund": 0}]),
    )
    def claim(self, worker: int, definitions: Any, known: Any, limit: int, seconds: float, bounds: Any) -> None:
        name = self.living(worker)
        if isinstance(known, bool):  # all of mine, or none
            keys = [one.key for one in self.model.sagas.values() if one.owner == name and known]
        else:
            keys = [KEYS[at] for at in sorted(known)]
        self.on_each(lambda twin: twin.claim(name, definitions, keys, limit, seconds, bounds))

    @rule(worker=WORKERS, limit=st.sampled_from([100, 1]), is_known=st.booleans())
    def claim_what_there_is(self, worker: int, limit: int, is_known: bool) -> None:
        self.claim_all(worker, limit, is_known)

    @rule(worker=WORKERS, seconds=SECONDS)
    def time_passes_and_somebody_claims(self, worker: int, seconds: float) -> None:
        for twin in self.twins:
            twin.advance(seconds)
        self.claim_all(worker, 100, True)

    @rule(worker=WORKERS, limit=st.integers(1, 4), bounds=st.sampled_from([{}, {"Order": 2}, {"Order": 1}]))
    def claim_some_of_many(self, worker: int, limit: int, bounds: Any) -> None:
        """Have sagas of several definitions wait, and claim too few or too many of one."""
        unborn = [at for at, key in enumerate(KEYS) if key not in self.model.sagas]
        births = [self.birth(at, 0, 1 + at % 2, ("pending", False, None)) for at in unborn]
        self.commit(None, births)
        name = self.living(worker)
        known = [one.key for one in self.model.sagas.values() if one.owner == name]
        self.on_each(lambda twin: twin.claim(name, DEFINITIONS, known, limit, 10.0, bounds))

    @rule(worker=st.integers(1, 3), at=SAGAS, posts=POSTS)
    def ask_and_answer(self, worker: int, at: int, posts: list[str]) -> None:
        """Ask a saga something, and have its owner hear of it, go on, and hear of it no more."""
        key = KEYS[self.going(at)]
        owner = self.owner(key, worker)
        if key in self.model.sagas:
            named = (*self.model.sagas[key][1:4], f"request-{next(self.numbers)}")
            delivery = Delivery(*named, b"asked", self.commit_id(), None)
            self.on_each(lambda twin: twin.deliver(delivery))
        for _ in range(2):
            self.on_each(lambda twin: twin.claim(owner, DEFINITIONS, KEYS, 1, 10.0, {}))
            self.commit(owner, [self.turn(KEYS.index(key), 1, None, posts)])

    def claim_all(self, worker: int, limit: int, is_known: bool) -> None:
        name = self.living(worker)
        keys = [one.key for one in self.model.sagas.values() if one.owner == name and is_known]
        self.on_each(lambda twin: twin.claim(name, DEFINITIONS, keys, limit, 10.0, {}))

    # -- looks ---------------------------------------------------------------------------------------------------

    @rule(
        loaded=st.lists(SAGAS, max_size=3),
        version=st.integers(0, 4),
        with_plan=st.booleans(),
        tenant=st.sampled_from([None, None, "acme", "nobody"]),
        name=st.sampled_from([None, None, "Order"]),
        saga_id=st.sampled_from([None, None, "1"]),
        statuses=st.none() | st.frozensets(st.sampled_from(STATUSES), max_size=4),
        keys=st.none() | st.lists(st.sampled_from(KEYS), max_size=4).map(tuple),
        definition_version=st.sampled_from([None, None, 1]),
        other=st.sampled_from([None, None, "hash", "else"]),
        after=st.none() | st.sampled_from(KEYS),
        limit=LIMITS,
    )
    def look(self, loaded: list[int], version: int, with_plan: bool, **asked: Any) -> None:
        keys = [*(KEYS[at] for at in loaded), b"nobody has this!"]
        self.on_each(lambda twin: twin.load(keys, version, with_plan))
        query = Query(
            asked["tenant"], asked["name"], asked["saga_id"], asked["statuses"], asked["keys"],
            asked["definition_version"], asked["other"], asked["after"], asked["limit"],
        )  # fmt: skip
        self.on_each(lambda twin: twin.find(query))
        self.on_each(Twin.census)

    # -- the outbox ----------------------------------------------------------------------------------------------

    @rule(
        relay=st.sampled_from(["ann", "ann", "bob"]),
        published=st.lists(st.tuples(st.integers(0, 7), st.sampled_from([-1, -1, 0])), max_size=3),
        refused=st.lists(st.tuples(st.integers(0, 7), st.just(-1)), max_size=2),
        limit=LIMITS,
    )
    def relay(self, relay: str, published: Any, refused: Any, limit: int) -> None:
        told = self._handed_out(published)
        no = [one for one in self._handed_out(refused) if one[0] not in {message for message, _ in told}]
        self.on_each(lambda twin: twin.relay(relay, told, no, limit, 5.0))

    def _handed_out(self, named: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
        known = sorted(self.twins[0].refs, key=lambda one: int(one[2:]))
        return list(dict.fromkeys((known[-1 - at % len(known)], which) for at, which in named)) if known else []

    @rule(at=st.integers(0, 3), again=st.booleans(), limit=LIMITS)
    def decide_on_what_was_set_aside(self, at: int, again: bool, limit: int) -> None:
        self.on_each(Twin.outstanding)
        self.on_each(lambda twin: twin.set_aside(limit))
        aside = [one.message.id for one in self.model.set_aside(100)]
        message_id = aside[at % len(aside)] if aside else "m-0"
        self.on_each(lambda twin: twin.post_again(message_id) if again else twin.drop_set_aside(message_id))

    # -- views ---------------------------------------------------------------------------------------------------

    @rule(events=st.lists(st.tuples(st.sampled_from(VIEWED), st.integers(1, 4), st.integers(1, 2)), max_size=4))
    def observe(self, events: Any) -> None:
        seen = [
            Observed(tenant, name, version, "hash", saga_id, f"e-{number}", 100.0 + number, b"%d" % number)
            for (tenant, name, saga_id), number, version in events
        ]
        self.on_each(lambda twin: twin.observe(seen))

    @rule(
        marks=st.lists(
            st.tuples(
                st.sampled_from(VIEWED),
                st.integers(0, 4),
                st.sampled_from(STATUSES),
                st.sampled_from([None, 101.0, 102.0, 103.0]),
            ),
            max_size=3,
            unique_by=lambda mark: mark[0],
        )
    )
    def mark(self, marks: Any) -> None:
        self.on_each(lambda twin: twin.mark(marks))

    @rule(
        statuses=st.none() | st.frozensets(st.sampled_from(STATUSES), max_size=3),
        tenant=st.sampled_from([None, "acme"]),
        limit=LIMITS,
        at=st.sampled_from([101.0, 102.0, 110.0]),
        before=st.sampled_from([None, 102.0, 103.0, 110.0]),
    )
    def look_at_views_and_purge(
        self, statuses: Any, tenant: str | None, limit: int, at: float, before: float | None
    ) -> None:
        self.on_each(lambda twin: twin.find_views(Query(tenant=tenant, statuses=statuses, limit=limit)))
        self.on_each(lambda twin: twin.due_views("orders", at, limit))
        if before is not None:
            self.on_each(lambda twin: twin.purge_views("orders", before, limit))

    def teardown(self) -> None:
        self.on_each(Twin.look_at_everything)


def run(
    beds: Sequence[Bed], runner: asyncio.Runner, *, examples: int, number: int | None, shrinks: bool = True
) -> None:
    """Run examples on stores that are open; `number` None: always the same ones.

    Raises:
        Disagreement: A store does not do what its model says, after the shortest calls that show it.
    """
    machine = type("Stores", (StoreMachine,), {"beds": beds, "runner": runner})
    if number is not None:
        machine = seed(number)(machine)
    phases = (Phase.generate, Phase.shrink) if shrinks else (Phase.generate,)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=number is None,
            phases=phases,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def found_out(bed: Bed, *, examples: int, number: int | None = None) -> str | None:
    """Return what is wrong with one store, or None if it was not found out."""
    with asyncio.Runner() as runner, opened(runner, bed) as beds:
        try:
            run(beds, runner, examples=examples, number=number, shrinks=False)
        except Disagreement as error:  # a store that merely does not work is no proof that its fault was seen
            return str(error) or type(error).__name__
        return None


def show_broken(examples: int, number: int | None) -> None:
    """Print which of the broken stores are found out, and which are not."""
    from tests.contract.broken_stores import BROKEN, BROKEN_IN_SQL

    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stores: list[Bed] = [MemoryBed(kind) for kind in BROKEN]
        for kind in BROKEN_IN_SQL:
            Path(folder, kind.__name__).mkdir()
            stores.append(SqliteBed(Path(folder, kind.__name__), kind))
        for bed in stores:
            told = found_out(bed, examples=examples, number=number)
            print(f"{bed.name:45} {'MISSED' if told is None else ' '.join(told.split())[:100]}", flush=True)
            missed += [bed.name] if told is None else []
    print(f"{len(stores) - len(missed)} of {len(stores)} found in at most {examples} examples; missed: {missed}")


def main(arguments: Sequence[str]) -> int:
    """Run by hand; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.differential", description=__doc__)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--without-postgres", action="store_true")
    parser.add_argument("--as-found", action="store_true", help="do not look for shorter calls that show the same")
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args(arguments)
    began, cpu = time.perf_counter(), time.process_time()
    if options.broken:
        show_broken(options.examples, options.seed)
        return 0
    how: dict[str, Any] = {"examples": options.examples, "number": options.seed, "shrinks": not options.as_found}
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        stores: list[Bed] = [MemoryBed(), SqliteBed(Path(folder))]
        if options.without_postgres:
            with opened(runner, *stores) as beds:
                run(beds, runner, **how)
        else:
            from tests.servers.postgres import SERVERS, bench

            with bench(next(iter(SERVERS.values()))) as server, opened(runner, *stores, PostgresBed(server)) as beds:
                run(beds, runner, **how)
    took = time.perf_counter() - began
    print(f"{options.examples} examples of {STEPS} steps, {took:.0f} s, {time.process_time() - cpu:.0f} CPU s here")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
