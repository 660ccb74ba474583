"""Checks of events that come before their saga, and of sagas that are born in somebody else's transaction.

It must not be about requests to sagas that exist. Called through `atone.testing.contracts`.
"""

from __future__ import annotations

from atone.store import Delivered, TurnResult
from atone.testing._subject import Check, Lab, birth_of, refuses, request_for, same, turn_of


@Check
async def an_early_event_is_there_when_its_saga_is_born(lab: Lab) -> None:
    """KEPT: the event waits for the saga; a first turn takes along the events that came early, in their order."""
    worker = lab.worker()
    events = [request_for("7", request_id=number, keep_seconds=60) for number in ("b", "a", "c")]
    for event in events:
        same(await lab.store.deliver(event), Delivered.KEPT, "answer")
    key = await lab.born(worker, saga_id="7")
    rows = await lab.rows(key)
    same([row.version for row in rows], [1, 2, 3, 4], "versions")
    same([row.commit_id for row in rows[1:]], [event.commit_id for event in events], "commit ids")
    same([row.entries for row in rows[1:]], [event.entries for event in events], "entries")
    same((await lab.claim(worker, known=[key])).newer, (key,), "newer")
    same(await lab.commit(worker, turn_of(key, 2)), [TurnResult.CONFLICT], "result of a turn that has not seen them")
    await lab.applied(worker, turn_of(key, 5))


@Check
async def an_early_event_wakes_a_saga_that_nobody_owns(lab: Lab) -> None:
    """A saga that is born unowned is due at once if an event waits for it."""
    worker = lab.worker()
    await lab.deliver(saga_id="7", keep_seconds=60)
    key = await lab.born(worker, saga_id="7", owned=False, wake_at=None)
    same((await lab.claim(worker)).taken, (key,), "taken")


@Check
async def an_early_event_is_kept_once_and_delivered_once(lab: Lab) -> None:
    """DUPLICATE before the saga is there, and after."""
    worker = lab.worker()
    same(await lab.deliver(saga_id="7", keep_seconds=60), Delivered.KEPT, "answer to the first")
    same(await lab.deliver(saga_id="7", keep_seconds=60), Delivered.DUPLICATE, "answer to the second")
    key = await lab.born(worker, saga_id="7")
    same(await lab.deliver(saga_id="7", keep_seconds=60), Delivered.DUPLICATE, "answer to the third")
    same(len(await lab.rows(key)), 2, "number of rows")


@Check
async def an_early_event_goes_to_its_own_saga_only(lab: Lab) -> None:
    """Tenant, name and id all count."""
    worker = lab.worker()
    await lab.deliver(saga_id="7", keep_seconds=60)
    for odd in ({"tenant": "other"}, {"name": "Refund"}):
        same(len(await lab.rows(await lab.born(worker, saga_id="7", **odd))), 1, "number of rows")
    same(len(await lab.rows(await lab.born(worker, saga_id="7"))), 2, "number of rows")


@Check
async def a_birth_that_fails_takes_no_event_along(lab: Lab) -> None:
    """Only APPLIED has written anything: the event still waits."""
    worker = lab.worker()
    await lab.deliver(saga_id="7", keep_seconds=60)
    large = birth_of(lab.key(), saga_id="7", entries=b"x" * (lab.subject.row_bytes_max + 1))
    same(await lab.commit(worker, large), [TurnResult.REFUSED], "result")
    same(len(await lab.rows(await lab.born(worker, saga_id="7"))), 2, "number of rows")


@Check
async def an_early_event_that_waits_too_long_is_a_dead_letter(lab: Lab) -> None:
    """It is kept for `keep_seconds`; then it is given up, once, and the next claim tells how many there were."""
    worker = lab.worker(1000)
    await lab.deliver(saga_id="7", keep_seconds=10)
    await lab.deliver(saga_id="7", keep_seconds=10, request_id="2")
    await lab.deliver(saga_id="7", keep_seconds=30, request_id="3")
    lab.advance(9)
    same((await lab.claim(worker)).dead_letters, 0, "dead letters before")
    lab.advance(1)
    same((await lab.claim(worker)).dead_letters, 2, "dead letters")
    same((await lab.claim(worker)).dead_letters, 0, "dead letters the second time")
    same(len(await lab.rows(await lab.born(worker, saga_id="7"))), 2, "number of rows")


@Check
async def an_event_that_has_run_out_is_not_delivered(lab: Lab) -> None:
    """Also if no claim has given it up yet; the same event may come anew."""
    worker = lab.worker(1000)
    await lab.deliver(saga_id="7", keep_seconds=10)
    await lab.deliver(saga_id="8", keep_seconds=10)
    lab.advance(10)
    same(await lab.deliver(saga_id="8", keep_seconds=10), Delivered.KEPT, "answer to one that comes anew")
    same(len(await lab.rows(await lab.born(worker, saga_id="7"))), 1, "number of rows of the first")
    same(len(await lab.rows(await lab.born(worker, saga_id="8"))), 2, "number of rows of the second")


@Check
async def a_start_inside_a_transaction_shows_when_that_commits(lab: Lab) -> None:
    """Nothing is visible before, and nothing at all after a roll-back; then it is unowned and due."""
    if lab.subject.join is None:
        return  # `a_start_on_something_else_is_refused` says what such a store does instead
    worker = lab.worker()
    kept, dropped = birth_of(lab.key(), owned=False, wake_at=lab.now()), birth_of(lab.key(), owned=False)
    with lab.subject.join() as joined:
        same(await lab.store.start(dropped, connection=joined.connection), TurnResult.APPLIED, "result")
        joined.roll_back()
    with lab.subject.join() as joined:
        same(await lab.store.start(kept, connection=joined.connection), TurnResult.APPLIED, "result")
        again = await lab.store.start(kept, connection=joined.connection)
        same(again, TurnResult.APPLIED, "result when sent again")
        same(await lab.find(), [], "sagas before the commit")
        joined.commit()
    same(await lab.find(), [kept.key], "sagas after the commit")
    same((await lab.summary(kept.key)).owner, None, "owner")
    same((await lab.claim(worker)).taken, (kept.key,), "taken")


@Check
async def a_start_inside_a_transaction_is_due_unless_it_says_when(lab: Lab) -> None:
    """Nobody owns it, whatever its first turn says, and it must not wait for ever."""
    if lab.subject.join is None:
        return
    worker = lab.worker(1000)
    at_once, later = birth_of(lab.key(), owned=True), birth_of(lab.key(), owned=False, wake_at=lab.now() + 5)
    with lab.subject.join() as joined:
        for first in (at_once, later):
            await lab.store.start(first, connection=joined.connection)
        joined.commit()
    same((await lab.claim(worker)).taken, (at_once.key,), "taken at once")
    lab.advance(5)
    same((await lab.claim(worker, known=[at_once.key])).taken, (later.key,), "taken later")


@Check
async def a_start_inside_a_transaction_needs_a_free_name(lab: Lab) -> None:
    """TAKEN, and what else the caller wrote is not affected; early events are taken along here too."""
    if lab.subject.join is None:
        return
    worker = lab.worker()
    await lab.born(worker, saga_id="7")
    await lab.deliver(saga_id="8", keep_seconds=60)
    again, first = birth_of(lab.key(), saga_id="7", owned=False), birth_of(lab.key(), saga_id="8", owned=False)
    with lab.subject.join() as joined:
        same(await lab.store.start(again, connection=joined.connection), TurnResult.TAKEN, "result of the second one")
        same(await lab.store.start(first, connection=joined.connection), TurnResult.APPLIED, "result of a new one")
        joined.commit()
    same((len(await lab.rows(again.key)), len(await lab.rows(first.key))), (0, 2), "numbers of rows")


@Check
async def a_start_on_something_else_is_refused(lab: Lab) -> None:
    """TypeError: the connection is of a kind that this store can't use. Nothing was written."""
    first = birth_of(lab.key(), owned=False)
    await refuses(TypeError, lab.store.start(first, connection=object()), "start on an object")
    same(await lab.find(), [], "sagas")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, Check))
