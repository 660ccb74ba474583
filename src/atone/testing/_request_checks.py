"""Checks of requests from outside to sagas that exist: cancel, event, operator.

It must not be about events that come before their saga. Called through `atone.testing.contracts`.
"""

from __future__ import annotations

from atone.store import Delivered, Hot, TurnResult
from atone.testing._subject import Check, Lab, holds, request_for, same, turn_of


@Check
async def a_request_becomes_the_next_row(lab: Lab) -> None:
    """APPENDED: it is in the journal, as the row after the last one."""
    worker = lab.worker()
    key = await lab.born(worker)
    await lab.applied(worker, turn_of(key, 2))
    request = request_for(key.hex(), entries=b"\x00please")
    same(await lab.store.deliver(request), Delivered.APPENDED, "answer")
    row = (await lab.rows(key))[-1]
    same((row.version, row.at, row.commit_id, row.entries), (3, lab.now(), request.commit_id, b"\x00please"), "row")


@Check
async def a_turn_that_has_not_seen_a_request_conflicts(lab: Lab) -> None:
    """A request that is durable can't be overlooked, not even by the turn that gives the saga up."""
    worker = lab.worker()
    key = await lab.born(worker)
    await lab.deliver(saga_id=key.hex())
    turn = turn_of(key, 2, Hot("waiting", False, None))
    same(await lab.commit(worker, turn), [TurnResult.CONFLICT], "result")
    found = await lab.summary(key)
    same((found.owner, found.status), (worker, "running"), "owner and status")
    await lab.applied(worker, turn_of(key, 3))


@Check
async def a_request_is_delivered_once(lab: Lab) -> None:
    """DUPLICATE: this request id was there already; each saga counts for itself."""
    worker = lab.worker()
    one, other = await lab.born(worker), await lab.born(worker)
    same(await lab.deliver(saga_id=one.hex()), Delivered.APPENDED, "answer to the first")
    same(await lab.deliver(saga_id=one.hex()), Delivered.DUPLICATE, "answer to the second")
    same(await lab.deliver(saga_id=one.hex(), request_id="2"), Delivered.APPENDED, "answer to another id")
    same(await lab.deliver(saga_id=other.hex()), Delivered.APPENDED, "answer for another saga")
    same((len(await lab.rows(one)), len(await lab.rows(other))), (3, 2), "numbers of rows")


@Check
async def a_request_for_a_final_saga_writes_nothing(lab: Lab) -> None:
    """FINAL: the saga is over. A request that came in time is a DUPLICATE even then."""
    worker = lab.worker()
    for status in ("completed", "compensated", "failed"):
        key = await lab.born(worker)
        await lab.deliver(saga_id=key.hex(), request_id="in time")
        await lab.applied(worker, turn_of(key, 3, Hot(status, False, None)))
        shown = await lab.summary(key)
        same(await lab.deliver(saga_id=key.hex(), request_id="late", keep_seconds=60), Delivered.FINAL, "answer")
        same(await lab.deliver(saga_id=key.hex(), request_id="in time"), Delivered.DUPLICATE, "answer to the early one")
        same((len(await lab.rows(key)), await lab.summary(key)), (3, shown), "rows and summary")
    same((await lab.claim(worker)).taken, (), "taken")


@Check
async def a_request_for_nobody_writes_nothing(lab: Lab) -> None:
    """UNKNOWN: there is no such saga. The tenant and the name have to be right too."""
    worker = lab.worker()
    key = await lab.born(worker)
    same(await lab.deliver(saga_id="x"), Delivered.UNKNOWN, "answer for an unknown id")
    same(await lab.deliver(saga_id=key.hex(), tenant="other"), Delivered.UNKNOWN, "answer for another tenant")
    same(await lab.deliver(saga_id=key.hex(), name="Refund"), Delivered.UNKNOWN, "answer for another name")
    same(len(await lab.rows(key)), 1, "number of rows")


@Check
async def a_request_wakes_a_saga_that_waits(lab: Lab) -> None:
    """It is due at once: one that waits for a later time, and one that waits for nothing but a request."""
    worker = lab.worker()
    later = await lab.born(worker, status="waiting", owned=False, wake_at=lab.now() + 1000)
    stuck = await lab.born(worker, status="needs_attention", owned=False, wake_at=None)
    same((await lab.claim(worker)).taken, (), "taken before")
    await lab.deliver(saga_id=later.hex())
    await lab.deliver(saga_id=stuck.hex())
    same(sorted((await lab.claim(worker)).taken), [later, stuck], "taken after")


@Check
async def a_request_takes_no_saga_from_its_owner(lab: Lab) -> None:
    """Only the owner decides; others see nothing of it."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    await lab.deliver(saga_id=key.hex())
    claimed = await lab.claim(other)
    same((claimed.taken, claimed.newer), ((), ()), "taken and newer by another worker")
    same((await lab.summary(key)).owner, worker, "owner")


@Check
async def the_owner_hears_of_a_request_until_it_has_written_a_row_above(lab: Lab) -> None:
    """`newer`: sagas that I own and know, with a request that I may not have seen; a reply may be lost, so again."""
    worker = lab.worker(1000)
    key, quiet = await lab.born(worker), await lab.born(worker)
    same((await lab.claim(worker, known=[key, quiet])).newer, (), "newer before")
    await lab.deliver(saga_id=key.hex())
    for _ in range(2):
        same((await lab.claim(worker, known=[key, quiet])).newer, (key,), "newer")
        lab.advance(1)
    same(await lab.commit(worker, turn_of(key, 2)), [TurnResult.CONFLICT], "result of a turn that has not seen it")
    same((await lab.claim(worker, known=[key, quiet])).newer, (key,), "newer after a conflict")
    await lab.applied(worker, turn_of(key, 3))
    same((await lab.claim(worker, known=[key, quiet])).newer, (), "newer after a row above")


@Check
async def a_row_above_ends_the_news_with_hot_and_without(lab: Lab) -> None:
    """Whatever the owner writes above the request, it has seen the request."""
    worker = lab.worker()
    one, other = await lab.born(worker), await lab.born(worker)
    for key in (one, other):
        await lab.deliver(saga_id=key.hex())
    await lab.applied(worker, turn_of(one, 3, Hot("waiting", True, None)), turn_of(other, 3))
    same((await lab.claim(worker, known=[one, other])).newer, (), "newer")
    await lab.deliver(saga_id=one.hex(), request_id="2")
    same((await lab.claim(worker, known=[one, other])).newer, (one,), "newer after a second request")


@Check
async def a_request_is_not_lost_with_its_owner(lab: Lab) -> None:
    """Who takes the saga over finds the request in the journal."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    await lab.deliver(saga_id=key.hex())
    lab.lapse(other)
    same((await lab.claim(other)).taken, (key,), "taken")
    holds(len(await lab.rows(key)) == 2, "the request is not in the journal")
    await lab.applied(other, turn_of(key, 3))
    same((await lab.claim(other, known=[key])).newer, (), "newer")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, Check))
