"""Checks of workers and their leases: who may write, and until when.

It must not be about what becomes of a dead worker's sagas. Called through `atone.testing.contracts`.
"""

from __future__ import annotations

import threading
from uuid import uuid4

from atone.errors import WorkerDead
from atone.store import Hot, Lease, StoredPlan, TurnResult
from atone.testing._subject import (
    LEASE_SECONDS,
    Check,
    Lab,
    birth_of,
    holds,
    refuses,
    refuses_at_once,
    same,
    turn_of,
)


@Check
async def a_lease_runs_by_the_clock_of_the_store(lab: Lab) -> None:
    """`now` is the store's clock, `until` the time until which nobody takes the worker's sagas."""
    worker = uuid4().hex
    first = lab.store.renew(worker, 10, register=())
    same(first.until, first.now + 10, "until")
    lab.advance(4)
    same(lab.store.renew(worker, 20), Lease(first.now + 4, first.now + 24), "the lease when renewed")


@Check
async def only_a_registered_worker_may_renew_commit_or_claim(lab: Lab) -> None:
    """WorkerDead: it was never registered; nothing was written."""
    stranger = uuid4().hex
    first = birth_of(lab.key())
    refuses_at_once(WorkerDead, lambda: lab.store.renew(stranger, 10), "renew")
    await refuses(WorkerDead, lab.commit(stranger, first), "commit")
    await refuses(WorkerDead, lab.claim(stranger), "claim")
    same(await lab.rows(first.key), (), "rows")


@Check
async def registering_again_is_harmless_while_alive(lab: Lab) -> None:
    """The reply may have been lost; the same call gives the same worker."""
    worker = lab.worker()
    key = await lab.born(worker)
    lab.advance(1)
    lease = lab.register(worker)
    same(lease.until, lease.now + LEASE_SECONDS, "until")
    await lab.applied(worker, turn_of(key, 2))


@Check
async def a_worker_id_is_never_used_again(lab: Lab) -> None:
    """Dead is for ever: the id of a retired or a dead worker can't be registered."""
    retired, lost, other = lab.worker(), lab.worker(), lab.worker()
    lab.store.renew(retired, 0)
    lab.lapse(other)
    await lab.claim(other)
    refuses_at_once(WorkerDead, lambda: lab.register(retired), "registering a retired one again")
    refuses_at_once(WorkerDead, lambda: lab.register(lost), "registering a dead one again")


@Check
async def a_retired_worker_is_dead_from_then_on(lab: Lab) -> None:
    """`lease_seconds` 0 retires it."""
    worker = lab.worker()
    key = await lab.born(worker)
    lab.store.renew(worker, 0)
    refuses_at_once(WorkerDead, lambda: lab.store.renew(worker, 10), "renew")
    await refuses(WorkerDead, lab.commit(worker, turn_of(key, 2)), "commit")
    await refuses(WorkerDead, lab.claim(worker), "claim")
    same(len(await lab.rows(key)), 1, "number of rows")


@Check
async def a_worker_whose_lease_is_over_writes_nothing(lab: Lab) -> None:
    """The lease is checked with the write, by the store's clock, though nobody has declared the worker dead."""
    worker = lab.worker()
    key = await lab.born(worker)
    lab.advance(LEASE_SECONDS)
    await refuses(WorkerDead, lab.commit(worker, turn_of(key, 2, Hot("x", False, None)), birth_of(lab.key())), "commit")
    await refuses(WorkerDead, lab.claim(worker), "claim")
    same((len(await lab.rows(key)), (await lab.summary(key)).status), (1, "running"), "rows and status")
    same(len(await lab.find()), 1, "number of sagas")


@Check
async def a_lease_holds_until_its_last_moment(lab: Lab) -> None:
    """A worker that is a little short of the end of its lease still writes, and is not declared dead."""
    worker, other = lab.worker(), lab.worker(100)
    key = await lab.born(worker)
    lab.advance(LEASE_SECONDS - 0.5)
    same((await lab.claim(other)).taken, (), "taken")
    await lab.applied(worker, turn_of(key, 2))


@Check
async def a_lease_that_is_over_may_be_renewed_while_nobody_noticed(lab: Lab) -> None:
    """Expired but not dead: it may renew, and then write again."""
    worker = lab.worker()
    key = await lab.born(worker)
    lab.advance(LEASE_SECONDS + 1)
    lab.store.renew(worker, LEASE_SECONDS)
    await lab.applied(worker, turn_of(key, 2))


@Check
async def dead_is_for_ever(lab: Lab) -> None:
    """A worker that was declared dead never writes again, whatever it renews."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    lab.lapse(other)
    await lab.claim(other, definitions=())
    refuses_at_once(WorkerDead, lambda: lab.store.renew(worker, LEASE_SECONDS), "renew")
    await refuses(WorkerDead, lab.commit(worker, turn_of(key, 2)), "commit")
    await refuses(WorkerDead, lab.claim(worker), "claim")
    same(len(await lab.rows(key)), 1, "number of rows")
    same((await lab.summary(key)).owner, worker, "owner of what nobody took")


@Check
async def dead_is_for_ever_even_if_the_clock_goes_back(lab: Lab) -> None:
    """A clock that is set right must not bring a worker back whose sagas others have."""
    worker, other = lab.worker(), lab.worker(1000)
    key = await lab.born(worker)
    lab.lapse()
    await lab.claim(other, definitions=())
    lab.advance(-LEASE_SECONDS)
    refuses_at_once(WorkerDead, lambda: lab.store.renew(worker, LEASE_SECONDS), "renew")
    await refuses(WorkerDead, lab.commit(worker, turn_of(key, 2)), "commit")
    await refuses(WorkerDead, lab.claim(worker), "claim")


@Check
async def a_dead_workers_batch_leaves_nothing_behind(lab: Lab) -> None:
    """WorkerDead means that nothing was written, and a batch of another worker beside it lands."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    lab.lapse(other)
    await lab.claim(other)
    batch = [turn_of(key, 2, Hot("x", True, None)), birth_of(lab.key())]
    await refuses(WorkerDead, lab.commit(worker, *batch), "commit")
    await refuses(WorkerDead, lab.commit(worker), "commit of nothing")
    same((len(await lab.rows(key)), len(await lab.find())), (1, 1), "rows and sagas")
    await lab.applied(other, birth_of(lab.key()))


@Check
async def a_lease_is_renewed_from_any_thread_while_the_loop_is_blocked(lab: Lab) -> None:
    """`renew` blocks its own thread only, and needs nothing of the event loop."""
    worker = lab.worker()
    leases: list[Lease] = []
    thread = threading.Thread(target=lambda: leases.append(lab.store.renew(worker, 99)), daemon=True)
    thread.start()
    thread.join(timeout=20)  # the loop does not turn while we wait here
    holds(leases, "renew did not come back while the event loop was blocked")
    same(leases[0].until, leases[0].now + 99, "until")


@Check
async def who_starts_sagas_and_runs_none_needs_no_lease(lab: Lab) -> None:
    """Without a worker `renew` keeps the plans and tells the time, and no lease begins."""
    plans = [StoredPlan("Order", 1, "hash", '{"steps": []}')]
    first = lab.store.renew(None, 0, register=plans)
    same(first.until, first.now, "until, without a worker")
    lab.advance(3)
    same(lab.store.renew(None, 0), Lease(first.now + 3, first.now + 3), "the time, asked again")
    key = await lab.born(lab.worker(), definition_version=1, plan_hash="hash")
    (loaded,) = await lab.store.load([key], with_plan=True)
    same(loaded and loaded.plan, '{"steps": []}', "the plan")


@Check
async def plans_are_kept_when_a_worker_registers(lab: Lab) -> None:
    """`register` keeps the plans; `load` gives the plan of a saga if it is asked for."""
    plans = [StoredPlan("Order", 1, "hash", '{"steps": []}'), StoredPlan("Order", 2, "other", "{}")]
    worker = lab.worker(plans=plans)
    lab.worker(plans=plans)
    keys = [
        await lab.born(worker),
        await lab.born(worker, definition_version=2, plan_hash="other"),
        await lab.born(worker, plan_hash="never registered"),
    ]
    loaded = await lab.store.load(keys, with_plan=True)
    same([one and one.plan for one in loaded], ['{"steps": []}', "{}", None], "plans")
    (plain,) = await lab.store.load(keys[:1])
    same(plain and plain.plan, None, "plan that nobody asked for")


@Check
async def nothing_to_commit_is_no_error(lab: Lab) -> None:
    """An empty batch has no results."""
    same(await lab.commit(lab.worker()), list[TurnResult](), "results")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, Check))
