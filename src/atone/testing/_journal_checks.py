"""Checks of the journal: what a turn writes, and that two turns never share a version.

It must not be about leases or take-over. Called through `atone.testing.contracts`.
"""

from __future__ import annotations

import asyncio

from atone.errors import StoreError
from atone.store import Hot, Row, StoredPlan, Turn, TurnResult
from atone.testing._subject import Check, Lab, birth_of, holds, refuses, request_for, same, turn_of


@Check
async def a_turn_is_stored_with_its_version_time_commit_id_and_entries(lab: Lab) -> None:
    """A store keeps rows; it gives back what it was given, byte for byte."""
    worker = lab.worker()
    first = birth_of(lab.key(), entries=bytes(range(256)))
    await lab.applied(worker, first)
    born_at = lab.now()
    lab.advance(2.5)
    second = turn_of(first.key, 2, entries=b"")
    await lab.applied(worker, second)
    wanted = (
        Row(1, born_at, first.commit_id, first.entries),
        Row(2, born_at + 2.5, second.commit_id, second.entries),
    )
    same(await lab.rows(first.key), wanted, "rows")


@Check
async def a_birth_says_what_the_saga_is_called_and_looks_like(lab: Lab) -> None:
    """`birth` is written once, with the first turn, and `hot` is too."""
    worker = lab.worker()
    key = await lab.born(
        worker, tenant="t", name="N", saga_id="i", definition_version=3, plan_hash="h", status="s", wake_at=7.0
    )
    found = await lab.summary(key)
    same(found, (key, "t", "N", "i", 3, "h", "s", worker, 7.0, lab.now()), "summary")


@Check
async def what_others_look_at_changes_only_with_hot(lab: Lab) -> None:
    """The hot columns are written only when one of them changes."""
    worker = lab.worker()
    key = await lab.born(worker, wake_at=5.0)
    before = await lab.summary(key)
    lab.advance(1)
    await lab.applied(worker, turn_of(key, 2))
    same(await lab.summary(key), before, "summary after a turn without hot")
    await lab.applied(worker, turn_of(key, 3, Hot("waiting", True, 9.0)))
    same(await lab.summary(key), before._replace(status="waiting", wake_at=9.0), "summary after a turn with hot")


@Check
async def a_saga_can_be_born_unowned(lab: Lab) -> None:
    """`owned` False: nobody has it, anyone may claim it at `wake_at`."""
    worker = lab.worker()
    key = await lab.born(worker, owned=False, wake_at=lab.now())
    same((await lab.summary(key)).owner, None, "owner")
    same(await lab.commit(worker, turn_of(key, 2)), [TurnResult.NOT_MINE], "a turn by the worker that gave birth")
    same((await lab.claim(worker)).taken, (key,), "taken")


@Check
async def a_saga_that_was_given_up_belongs_to_nobody(lab: Lab) -> None:
    """`owned` False: the committing worker keeps it no longer."""
    worker = lab.worker()
    key = await lab.born(worker)
    await lab.applied(worker, turn_of(key, 2, Hot("waiting", False, None)))
    same((await lab.summary(key)).owner, None, "owner")
    same(await lab.commit(worker, turn_of(key, 3)), [TurnResult.NOT_MINE], "a turn after giving up")
    same(len(await lab.rows(key)), 2, "number of rows")


@Check
async def two_turns_at_one_version_never_both_succeed(lab: Lab) -> None:
    """The version is the compare-and-swap."""
    worker = lab.worker()
    key = await lab.born(worker)
    for version in range(2, 8):
        one, other = turn_of(key, version), turn_of(key, version)
        results = await asyncio.gather(lab.commit(worker, one), lab.commit(worker, other))
        same(sorted(results), [[TurnResult.APPLIED], [TurnResult.CONFLICT]], f"results at version {version}")
        winner = one if results[0] == [TurnResult.APPLIED] else other
        same((await lab.rows(key))[-1].commit_id, winner.commit_id, "the row that stands")


@Check
async def a_turn_and_a_request_never_share_a_version(lab: Lab) -> None:
    """Outside writers append at the next version; a turn that was decided before one of them conflicts."""
    worker = lab.worker()
    key = await lab.born(worker)
    version = 2
    for number in range(5):
        turn, request = turn_of(key, version), request_for(key.hex(), request_id=str(number))
        (result,), _ = await asyncio.gather(lab.commit(worker, turn), lab.store.deliver(request))
        rows = await lab.rows(key)
        version = len(rows) + 1
        same([row.version for row in rows], list(range(1, version)), "versions")
        stands = any(row.commit_id == turn.commit_id for row in rows)
        same(result is TurnResult.APPLIED, stands, "the turn's result, and whether it stands there")
        holds(any(row.commit_id == request.commit_id for row in rows), "a request is not in the journal")


@Check
async def a_stale_turn_conflicts_and_writes_nothing(lab: Lab) -> None:
    """CONFLICT: another row has that version; only APPLIED has written anything."""
    worker = lab.worker()
    key = await lab.born(worker)
    await lab.applied(worker, turn_of(key, 2))
    before, shown = await lab.rows(key), await lab.summary(key)
    for version in (1, 2):
        stale = turn_of(key, version, Hot("completed", False, None))
        same(await lab.commit(worker, stale), [TurnResult.CONFLICT], "result of a stale turn")
    same((await lab.rows(key), await lab.summary(key)), (before, shown), "rows and summary")


@Check
async def a_version_is_never_skipped(lab: Lab) -> None:
    """`version` is one more than the version it was decided on; a journal has no gap."""
    worker = lab.worker()
    key = await lab.born(worker)
    same(await lab.commit(worker, turn_of(key, 3)), [TurnResult.CONFLICT], "result of a turn that skips one")
    same(len(await lab.rows(key)), 1, "number of rows")


@Check
async def a_turn_that_is_sent_again_is_applied_once(lab: Lab) -> None:
    """A turn that stands there already with the same commit id is APPLIED, and re-applies nothing."""
    worker = lab.worker()
    key = await lab.born(worker)
    lost = turn_of(key, 2, Hot("waiting", True, 5.0))
    await lab.applied(worker, lost)
    await lab.applied(worker, lost)
    same(len(await lab.rows(key)), 2, "number of rows")
    await lab.applied(worker, turn_of(key, 3, Hot("running", True, 6.0)))
    shown = await lab.summary(key)
    await lab.applied(worker, lost)
    same(await lab.summary(key), shown, "summary after an old turn was sent again")


@Check
async def the_turn_that_gave_a_saga_up_is_applied_when_sent_again(lab: Lab) -> None:
    """The reply of a commit may be lost, and the saga is somebody else's by then: it is APPLIED all the same."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    lost = turn_of(key, 2, Hot("waiting", False, lab.now()))
    await lab.applied(worker, lost)
    await lab.applied(worker, lost)
    same((await lab.claim(other)).taken, (key,), "taken")
    await lab.applied(other, turn_of(key, 3, Hot("running", True, None)))
    await lab.applied(worker, lost)
    found = await lab.summary(key)
    same((found.owner, found.status), (other, "running"), "owner and status after an old turn was sent again")


@Check
async def a_birth_that_is_sent_again_is_applied_once(lab: Lab) -> None:
    """The same commit id at version 1: APPLIED, and the saga stays as it has become."""
    worker = lab.worker()
    first = birth_of(lab.key())
    await lab.applied(worker, first)
    await lab.applied(worker, first)
    await lab.applied(worker, turn_of(first.key, 2, Hot("completed", False, None)))
    await lab.applied(worker, first)
    same(len(await lab.rows(first.key)), 2, "number of rows")
    same((await lab.summary(first.key)).status, "completed", "status")


@Check
async def a_turn_that_stands_twice_in_a_batch_is_written_once(lab: Lab) -> None:
    """Both are APPLIED: the second one stands there already."""
    worker = lab.worker()
    first = birth_of(lab.key())
    await lab.applied(worker, first, first)
    second = turn_of(first.key, 2)
    await lab.applied(worker, second, second)
    same(len(await lab.rows(first.key)), 2, "number of rows")


@Check
async def a_taken_name_gives_birth_to_nothing(lab: Lab) -> None:
    """TAKEN: a saga with this tenant, name and id exists already."""
    worker = lab.worker()
    key = await lab.born(worker, saga_id="7")
    before = await lab.rows(key), await lab.summary(key)
    again = birth_of(lab.key(), saga_id="7", definition_version=2)
    same(await lab.commit(worker, again), [TurnResult.TAKEN], "result of a second birth")
    same(await lab.rows(again.key), (), "rows of the second one")
    same((await lab.rows(key), await lab.summary(key)), before, "the first one")


@Check
async def two_births_of_one_name_give_one_saga(lab: Lab) -> None:
    """Also when they come at the same moment, alone or in one batch."""
    worker = lab.worker()
    for saga_id in ("a", "b"):
        one, other = birth_of(lab.key(), saga_id=saga_id), birth_of(lab.key(), saga_id=saga_id)
        if saga_id == "a":
            (first,), (second,) = await asyncio.gather(lab.commit(worker, one), lab.commit(worker, other))
        else:
            first, second = await lab.commit(worker, one, other)
        same(sorted((first, second)), [TurnResult.APPLIED, TurnResult.TAKEN], "results")
        same(len(await lab.find(saga_id=saga_id)), 1, "number of sagas")


@Check
async def the_same_id_is_free_under_another_tenant_or_name(lab: Lab) -> None:
    """A saga is (tenant, name, id): all three together."""
    worker = lab.worker()
    await lab.born(worker, saga_id="7")
    await lab.born(worker, saga_id="7", tenant="other")
    again = birth_of(lab.key(), saga_id="7")
    free = [birth_of(lab.key(), saga_id="7", name="Refund"), birth_of(lab.key(), saga_id="7", tenant="third")]
    wanted = [TurnResult.TAKEN, TurnResult.APPLIED, TurnResult.APPLIED]
    same(await lab.commit(worker, again, *free), wanted, "results beside one that is taken")
    same(len(await lab.find(saga_id="7")), 4, "number of sagas")


@Check
async def a_key_belongs_to_one_saga(lab: Lab) -> None:
    """A birth under a key that another saga has is a conflict at version 1."""
    worker = lab.worker()
    key = await lab.born(worker)
    same(await lab.commit(worker, birth_of(key, saga_id="x")), [TurnResult.CONFLICT], "result of a second birth")
    same(await lab.find(saga_id="x"), [], "sagas of that name")


@Check
async def a_row_that_is_too_large_is_refused_alone(lab: Lab) -> None:
    """REFUSED: the row itself can't be stored; the rest of the batch is not affected."""
    worker = lab.worker()
    key = await lab.born(worker)
    large = b"x" * (lab.subject.row_bytes_max + 1)
    monster = birth_of(lab.key(), entries=large)
    results = await lab.commit(worker, birth_of(lab.key()), monster, turn_of(key, 2, entries=large))
    same(results, [TurnResult.APPLIED, TurnResult.REFUSED, TurnResult.REFUSED], "results")
    same(await lab.rows(monster.key), (), "rows of what was refused")
    await lab.applied(worker, turn_of(key, 2), birth_of(monster.key))


@Check
async def one_turn_that_does_not_fit_hurts_no_neighbour(lab: Lab) -> None:
    """Turns that fail a check are reported alone, in their places; the others land."""
    worker, other = lab.worker(), lab.worker()
    mine, stale, theirs = await lab.born(worker), await lab.born(worker), await lab.born(other)
    taken = await lab.summary(mine)
    batch = [
        birth_of(lab.key()),
        turn_of(stale, 1),
        turn_of(theirs, 2),
        birth_of(lab.key(), saga_id=taken.saga_id),
        turn_of(mine, 2, Hot("waiting", True, None)),
        turn_of(lab.key(), 2),
        turn_of(mine, 2, entries=b"x" * (lab.subject.row_bytes_max + 1)),
        birth_of(lab.key()),
    ]
    results = await lab.commit(worker, *batch)
    wanted = ["applied", "conflict", "not_mine", "taken", "applied", "not_mine"]
    same([str(result) for result in results[:6]], wanted, "results")
    holds(results[6] in {TurnResult.CONFLICT, TurnResult.REFUSED}, "a turn with two faults was not turned down")
    same(results[7], TurnResult.APPLIED, "result of the last one")
    for turn in (batch[0], batch[4], batch[7]):
        same((await lab.rows(turn.key))[-1].commit_id, turn.commit_id, "the row of a neighbour")
    same((await lab.summary(mine)).status, "waiting", "a neighbour's status")
    same((len(await lab.rows(stale)), len(await lab.rows(theirs))), (1, 1), "rows of the others")


@Check
async def many_commits_at_once_all_land(lab: Lab) -> None:
    """Concurrent calls may share a transaction; each gets its own results."""
    workers = [lab.worker(), lab.worker()]
    batches = [[birth_of(lab.key()) for _ in range(size)] for size in range(12)]
    done = await asyncio.gather(*(lab.commit(workers[at % 2], *batch) for at, batch in enumerate(batches)))
    same(done, [[TurnResult.APPLIED] * len(batch) for batch in batches], "results")
    loaded = await lab.store.load([turn.key for batch in batches for turn in batch])
    stored = [one.rows[0].commit_id for one in loaded if one is not None]
    same(stored, [turn.commit_id for batch in batches for turn in batch], "commit ids")


@Check
async def a_snapshot_never_shows_half_a_turn(lab: Lab) -> None:
    """`load` reads a saga and its rows in one snapshot."""
    worker = lab.worker()
    key = await lab.born(worker, status="1")

    async def write(turn: Turn) -> None:
        await lab.applied(worker, turn)

    for version in range(2, 30):
        reading = asyncio.ensure_future(lab.store.load([key]))
        await asyncio.sleep(0)
        await write(turn_of(key, version, Hot(str(version), True, None)))
        (loaded,) = await reading
        holds(loaded is not None, "a saga is missing")
        if loaded is not None:
            same(loaded.summary.status, str(len(loaded.rows)), "status, against the number of rows")


@Check
async def what_is_stored_outlives_the_closing_of_the_store(lab: Lab) -> None:
    """Entering opens it; leaving closes it; calls under way end first."""
    worker = lab.worker(plans=[StoredPlan("Order", 1, "hash", "{}")])
    first = birth_of(lab.key())
    under_way = asyncio.ensure_future(lab.commit(worker, first))
    await asyncio.sleep(0)
    await lab.store.__aexit__(None, None, None)
    await lab.store.__aenter__()
    same(await under_way, [TurnResult.APPLIED], "result of a commit that was under way")
    same(len(await lab.rows(first.key)), 1, "number of rows")
    await lab.applied(worker, turn_of(first.key, 2))


@Check
async def an_open_store_is_not_opened_by_somebody_else(lab: Lab) -> None:
    """The first of two to leave would close it under the other; the refusal harms nobody."""
    worker = lab.worker()
    key = await lab.born(worker)
    await refuses(StoreError, lab.store.__aenter__(), "entering an open store")
    await lab.applied(worker, turn_of(key, 2))


@Check
async def without_a_worker_sagas_are_born_unowned_and_due_at_once(lab: Lab) -> None:
    """Whoever only starts sagas has no lease; their early events come along, and a repeated start changes nothing."""
    await lab.deliver(saga_id="early", keep_seconds=100)
    first, later = birth_of(lab.key(), saga_id="early", owned=False), birth_of(lab.key(), wake_at=lab.now() + 5)
    same(await lab.commit(None, first, later), [TurnResult.APPLIED] * 2, "results of two births")
    same(await lab.commit(None, first), [TurnResult.APPLIED], "the same sent again")
    same(await lab.commit(None, birth_of(lab.key(), saga_id="early")), [TurnResult.TAKEN], "another of that name")
    same([(await lab.summary(one.key)).owner for one in (first, later)], [None, None], "owners")
    same(len(await lab.rows(first.key)), 2, "rows: its start, and the event that came early")
    worker = lab.worker(1000)
    same((await lab.claim(worker)).taken, (first.key,), "taken at once")
    lab.advance(5)
    same((await lab.claim(worker, known=[first.key])).taken, (later.key,), "taken when it was due")


@Check
async def without_a_worker_nothing_but_a_birth_is_written(lab: Lab) -> None:
    """Not even to a saga that nobody owns."""
    worker = lab.worker()
    owned, unowned = await lab.born(worker), await lab.born(worker, owned=False)
    found = await lab.commit(None, turn_of(owned, 2), turn_of(unowned, 2), birth_of(lab.key()))
    same(found, [TurnResult.NOT_MINE, TurnResult.NOT_MINE, TurnResult.APPLIED], "results")
    same([len(await lab.rows(key)) for key in (owned, unowned)], [1, 1], "rows")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, Check))
