"""Checks of load and find: what a reader gets, and in which order.

It must not be about what is written. Called through `atone.testing.contracts`.
"""

from __future__ import annotations

from atone.store import Hot, Query
from atone.testing._subject import Check, Lab, same, turn_of


@Check
async def sagas_are_loaded_in_the_order_that_was_asked_for(lab: Lab) -> None:
    """None where there is none; twice where it is asked for twice."""
    worker = lab.worker()
    one, other = await lab.born(worker), await lab.born(worker)
    loaded = await lab.store.load([other, b"nobody", one, other])
    same([one and one.summary.key for one in loaded], [other, None, one, other], "keys")
    same(list(await lab.store.load([])), [], "nothing")


@Check
async def rows_are_loaded_above_a_version(lab: Lab) -> None:
    """`after`: a worker that knows some rows asks for the rest, in their order."""
    worker = lab.worker()
    key = await lab.born(worker)
    for version in range(2, 13):
        await lab.applied(worker, turn_of(key, version))
    for after in (0, 1, 9, 12, 99):
        (loaded,) = await lab.store.load([key], after=after)
        versions = [] if loaded is None else [row.version for row in loaded.rows]
        same(versions, list(range(after + 1, 13)), f"versions after {after}")


@Check
async def what_is_found_comes_in_the_order_of_keys(lab: Lab) -> None:
    """The newest keys come last, whatever was written when."""
    worker = lab.worker()
    keys = [lab.key() for _ in range(6)]
    for at in (3, 0, 5, 1, 4, 2):
        await lab.born(worker, keys[at], status="pending" if at % 2 else "running", wake_at=-float(at))
    same(await lab.find(), keys, "all")
    same(await lab.find(name="Order"), keys, "by name")
    same(await lab.find(statuses=frozenset({"pending", "running"})), keys, "by status")
    same(await lab.find(keys=(keys[4], keys[2], keys[4])), [keys[2], keys[4]], "by keys")


@Check
async def what_is_found_comes_in_pages(lab: Lab) -> None:
    """At most `limit`, and then those behind the last one seen."""
    worker = lab.worker()
    keys = [await lab.born(worker, status="running" if at % 2 else "completed") for at in range(10)]
    same(await lab.find(limit=4), keys[:4], "the first page")
    same(await lab.find(limit=4, after=keys[3]), keys[4:8], "the second page")
    same(await lab.find(limit=4, after=keys[7]), keys[8:], "the last page")
    running = frozenset({"running"})
    same(await lab.find(statuses=running, limit=2), [keys[1], keys[3]], "the first page of a status")
    same(await lab.find(statuses=running, limit=9, after=keys[3]), [keys[5], keys[7], keys[9]], "the rest of it")
    same(await lab.find(keys=tuple(keys), limit=2, after=keys[0]), keys[1:3], "a page of keys")
    same(await lab.find(limit=0), [], "no page")


@Check
async def each_condition_of_a_query_counts(lab: Lab) -> None:
    """None means any; all that are given have to hold."""
    worker = lab.worker()
    plain = await lab.born(worker, saga_id="1")
    tenant = await lab.born(worker, saga_id="1", tenant="other")
    name = await lab.born(worker, saga_id="1", name="Refund")
    number = await lab.born(worker, saga_id="2")
    version = await lab.born(worker, saga_id="3", definition_version=2)
    hashed = await lab.born(worker, saga_id="4", plan_hash="another")
    everything = [plain, tenant, name, number, version, hashed]
    same(await lab.find(tenant="other"), [tenant], "by tenant")
    same(await lab.find(name="Refund"), [name], "by name")
    same(await lab.find(saga_id="1"), [plain, tenant, name], "by id")
    same(await lab.find(tenant="acme", name="Order", saga_id="1"), [plain], "by tenant, name and id")
    same(await lab.find(tenant="acme", name="Order", saga_id="1", definition_version=2), [], "with a version too much")
    same(await lab.find(definition_version=2), [version], "by version")
    same(await lab.find(other_hash_than="hash"), [hashed], "by another hash")
    same(await lab.find(keys=tuple(everything), name="Refund"), [name], "by keys and name")
    same(await lab.find(keys=(b"nobody",)), [], "by an unknown key")
    same(await lab.find(keys=()), [], "by no key")
    same(await lab.find(after=name), [number, version, hashed], "after a key")


@Check
async def sagas_are_found_by_what_they_are_now(lab: Lab) -> None:
    """By any of several statuses, final or not."""
    worker = lab.worker()
    statuses = ("pending", "running", "compensating", "completed", "compensated", "failed", "needs_attention")
    keys = {status: await lab.born(worker) for status in statuses}
    for status, key in keys.items():
        await lab.applied(worker, turn_of(key, 2, Hot(status, False, None)))
    for status, key in keys.items():
        same(await lab.find(statuses=frozenset({status})), [key], f"what is {status}")
    some = frozenset({"needs_attention", "completed", "pending"})
    same(await lab.find(statuses=some), sorted(keys[status] for status in some), "what is one of three")
    same(await lab.find(statuses=frozenset[str]()), [], "what is nothing at all")
    same(await lab.find(statuses=frozenset({"unheard of"})), [], "what is something unheard of")


@Check
async def a_summary_shows_what_a_list_needs(lab: Lab) -> None:
    """What is found is what is loaded."""
    worker = lab.worker()
    key = await lab.born(worker, tenant="t", definition_version=2, plan_hash="h", wake_at=3.5)
    lab.advance(5)
    (loaded,) = await lab.store.load([key])
    (by_key,) = await lab.store.find(Query(keys=(key,)))
    same(loaded and loaded.summary, by_key, "summary")
    same(by_key.created_at, lab.now() - 5, "created_at")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, Check))
