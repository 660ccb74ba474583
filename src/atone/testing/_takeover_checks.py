"""Checks of claim: what is taken over, what is not, and how it is shared out.

It must not be about who is dead; that is with the leases. Called through `atone.testing.contracts`.
"""

from __future__ import annotations

import asyncio

from atone.store import Hot, TurnResult
from atone.testing._subject import LEASE_SECONDS, Check, Lab, holds, same, turn_of

_REFUND = ("Refund", 1, "hash")
_ORDER = ("Order", 1, "hash")


@Check
async def an_unowned_saga_is_taken_when_it_is_due_and_not_before(lab: Lab) -> None:
    """Anyone may claim it at `wake_at`."""
    worker = lab.worker(1000)
    key = await lab.born(worker)
    await lab.applied(worker, turn_of(key, 2, Hot("waiting", False, lab.now() + 5)))
    same((await lab.claim(worker)).taken, (), "taken at once")
    lab.advance(4.75)
    same((await lab.claim(worker)).taken, (), "taken a little too early")
    lab.advance(0.25)
    claimed = await lab.claim(worker)
    same((claimed.taken, claimed.now), ((key,), lab.now()), "taken when due, and the time")
    same((await lab.summary(key)).owner, worker, "owner")
    await lab.applied(worker, turn_of(key, 3))


@Check
async def an_unowned_saga_without_a_time_is_never_due(lab: Lab) -> None:
    """It waits for a request."""
    worker = lab.worker(10**9)
    await lab.born(worker, status="needs_attention", owned=False, wake_at=None)
    lab.advance(10**8)
    same((await lab.claim(worker)).taken, (), "taken")


@Check
async def a_final_saga_is_never_taken(lab: Lab) -> None:
    """Neither when its owner is dead nor when it has a time to wake."""
    worker, other = lab.worker(), lab.worker()
    for status in ("completed", "compensated", "failed"):
        await lab.born(worker, status=status)
        await lab.born(worker, status=status, owned=False, wake_at=0.0)
    lab.lapse(other)
    same((await lab.claim(other)).taken, (), "taken")


@Check
async def the_unfinished_sagas_of_a_dead_owner_are_taken(lab: Lab) -> None:
    """Whatever they wait for; the former owner writes nothing more."""
    worker, other = lab.worker(), lab.worker()
    keys = [await lab.born(worker), await lab.born(worker, status="needs_attention", wake_at=10.0**12)]
    same((await lab.claim(other)).taken, (), "taken while the owner lives")
    lab.lapse(other)
    same(sorted((await lab.claim(other)).taken), keys, "taken when the owner is dead")
    same((await lab.summary(keys[0])).owner, other, "owner")
    await lab.applied(other, turn_of(keys[0], 2))


@Check
async def the_sagas_of_a_retired_worker_are_taken_at_once(lab: Lab) -> None:
    """Retired is dead: nobody waits for a lease to run out."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    lab.store.renew(worker, 0)
    same((await lab.claim(other)).taken, (key,), "taken")


@Check
async def a_dead_owners_sagas_can_be_taken_bit_by_bit(lab: Lab) -> None:
    """A page is at most `limit`, and the next claim goes on with the rest, however many claims it takes."""
    worker, other = lab.worker(), lab.worker()
    keys = {await lab.born(worker) for _ in range(7)}
    lab.lapse(other)
    taken: list[bytes] = []
    sizes: list[int] = []
    for _ in range(4):
        page = (await lab.claim(other, known=taken, limit=3)).taken
        sizes.append(len(page))
        taken += page
    same(sizes, [3, 3, 1, 0], "sizes of the pages")
    same({*taken}, keys, "all that was taken")


@Check
async def what_is_mine_but_not_known_is_taken_again(lab: Lab) -> None:
    """The reply of an earlier claim was lost: without this the saga would be nobody's for as long as I live."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    lab.lapse(other)
    same((await lab.claim(other)).taken, (key,), "taken")
    same((await lab.claim(other)).taken, (key,), "taken, when the first reply was lost")
    same((await lab.claim(other, known=[key])).taken, (), "taken, when it is known")


@Check
async def what_is_mine_and_known_is_left_alone(lab: Lab) -> None:
    """A claim takes nothing that is in good hands, of mine or of others."""
    worker, other = lab.worker(), lab.worker()
    mine = await lab.born(worker, wake_at=0.0)
    await lab.born(other, wake_at=0.0)
    claimed = await lab.claim(worker, known=[mine])
    same((claimed.taken, claimed.newer), ((), ()), "taken and newer")


@Check
async def a_saga_is_never_taken_by_two(lab: Lab) -> None:
    """Two workers that claim at the same moment share what is there."""
    worker, one, other = lab.worker(), lab.worker(), lab.worker()
    keys = [await lab.born(worker) for _ in range(10)]
    lab.lapse(one, other)
    first, second = await asyncio.gather(lab.claim(one, limit=6), lab.claim(other, limit=6))
    same(sorted((*first.taken, *second.taken)), keys, "what both have taken")
    for claimed, owner in ((first, one), (second, other)):
        for key in claimed.taken:
            same((await lab.summary(key)).owner, owner, "owner")
            await lab.applied(owner, turn_of(key, 2))


@Check
async def only_the_definitions_that_i_run_are_taken(lab: Lab) -> None:
    """The others are counted: `unclaimable`. Name, version and plan hash have to be the same."""
    worker, other = lab.worker(), lab.worker()
    mine = await lab.born(worker)
    for odd in ({"name": "Refund"}, {"definition_version": 2}, {"plan_hash": "another"}):
        await lab.born(worker, **odd)
    await lab.born(worker, name="Refund", owned=False, wake_at=lab.now())
    await lab.born(worker, name="Refund", owned=False, wake_at=lab.now() + 1000)
    lab.lapse(other)
    claimed = await lab.claim(other)
    same((claimed.taken, claimed.unclaimable), ((mine,), 4), "taken and unclaimable")
    same((await lab.claim(other, known=[mine])).unclaimable, 4, "unclaimable at the next claim")
    claimed = await lab.claim(other, known=[mine], definitions=[_ORDER, _REFUND])
    same((len(claimed.taken), claimed.unclaimable), (2, 2), "taken and unclaimable with one more definition")


@Check
async def no_definition_starves_another(lab: Lab) -> None:
    """A page is shared fairly between the definitions, however many sagas one of them has, and however old they are."""
    worker, other = lab.worker(), lab.worker()
    long_ago, lately = lab.now() - 1000, lab.now()
    mine: list[bytes] = []
    for owned in (True, False):
        for _ in range(20):
            await lab.born(worker, owned=owned, wake_at=long_ago)
        few = [await lab.born(worker, owned=owned, wake_at=lately, name="Refund") for _ in range(3)]
        if owned:
            lab.lapse(other)
        first = await lab.claim(other, limit=4, definitions=[_ORDER, _REFUND], known=mine)
        mine += first.taken
        same((len(first.taken), len({*few} & {*first.taken})), (4, 2), "a page of 4, and how many of the few")
        second = await lab.claim(other, limit=4, definitions=[_ORDER, _REFUND], known=mine)
        mine += second.taken
        same((len(second.taken), len({*few} & {*second.taken})), (4, 1), "the next page, and how many of the few")
        mine += (await lab.claim(other, definitions=[_ORDER, _REFUND], known=mine)).taken
        worker = lab.worker()


@Check
async def each_definition_gets_its_turn_when_there_is_room_for_one_saga_only(lab: Lab) -> None:
    """A worker that is nearly full takes one at a time, and not always of the same definition."""
    worker = lab.worker(1000)
    for _ in range(20):
        await lab.born(worker, owned=False, wake_at=lab.now() - 1000)
    few = [await lab.born(worker, owned=False, wake_at=lab.now(), name="Refund") for _ in range(3)]
    taken: list[bytes] = []
    for _ in range(20):
        taken += (await lab.claim(worker, limit=1, definitions=[_ORDER, _REFUND], known=taken)).taken
    same(len(taken), 20, "number of those taken")
    holds({*few} & {*taken}, "twenty pages of one saga, and none of the other definition")


@Check
async def no_more_of_a_definition_is_taken_than_its_limit(lab: Lab) -> None:
    """Of all its versions together, of the dead and of nobody; the others fill the page."""
    worker, other = lab.worker(), lab.worker()
    definitions = [_ORDER, ("Order", 2, "hash"), _REFUND]
    orders = {await lab.born(worker) for _ in range(5)}
    orders |= {await lab.born(worker, owned=False, wake_at=lab.now(), definition_version=2) for _ in range(5)}
    refunds = {await lab.born(worker, owned=False, wake_at=lab.now(), name="Refund") for _ in range(5)}
    lab.lapse(other)
    first = set((await lab.claim(other, limit=9, definitions=definitions, limits={"Order": 3})).taken)
    same((len(first & orders), len(first & refunds)), (3, 5), "orders of which 3 were allowed, and refunds")
    again = await lab.claim(other, known=first, definitions=definitions, limits={"Order": 0})
    same((again.taken, again.unclaimable), ((), 0), "taken when none is allowed, and unclaimable")
    once_more = await lab.claim(other, limits={"Order": 5})
    same(len(once_more.taken), len(first) + 2, "what is mine though I did not know it, and two more")
    rest = await lab.claim(other, known=await lab.find(), definitions=definitions, limits={"Refund": 0})
    same(len(rest.taken), 5, "the orders that are left")


@Check
async def each_version_gets_its_turn_within_the_limit_of_its_definition(lab: Lab) -> None:
    """Sagas of the version before are not starved by a flood of the present one."""
    worker = lab.worker(1000)
    definitions = [_ORDER, ("Order", 2, "hash")]
    for _ in range(20):
        await lab.born(worker, owned=False, wake_at=lab.now() - 1000, definition_version=2)
    few = [await lab.born(worker, owned=False, wake_at=lab.now()) for _ in range(3)]
    taken: list[bytes] = []
    for _ in range(20):
        taken += (await lab.claim(worker, definitions=definitions, known=taken, limits={"Order": 1})).taken
    same(len(taken), 20, "number of those taken")
    holds({*few} & {*taken}, "twenty pages of one saga, and none of the other version")


@Check
async def a_claim_without_room_takes_nothing_but_tells_what_is_newer(lab: Lab) -> None:
    """`limit` 0: a worker that is full still hears of requests."""
    worker, other = lab.worker(), lab.worker()
    mine = await lab.born(worker)
    theirs = await lab.born(other)
    lab.lapse(worker)
    await lab.deliver(saga_id=(await lab.summary(mine)).saga_id)
    claimed = await lab.claim(worker, known=[mine], limit=0)
    same((claimed.taken, claimed.newer), ((), (mine,)), "taken and newer")
    same((await lab.summary(theirs)).owner, other, "owner")


@Check
async def what_was_taken_is_mine_for_the_time_that_i_asked_for(lab: Lab) -> None:
    """A claim that takes something prolongs a lease that would end sooner; it never shortens one."""
    worker, third = lab.worker(), lab.worker(1000)
    key = await lab.born(worker, owned=False, wake_at=lab.now())
    lab.advance(LEASE_SECONDS - 1)
    same((await lab.claim(worker)).taken, (key,), "taken")
    lab.advance(LEASE_SECONDS - 1)
    same((await lab.claim(third)).taken, (), "taken by another one within that time")
    await lab.applied(worker, turn_of(key, 2))
    patient = lab.worker(1000)
    await lab.born(patient, owned=False, wake_at=lab.now())
    holds((await lab.claim(patient)).taken, "nothing was taken")
    lab.advance(500)
    await lab.applied(patient, turn_of((await lab.find())[-1], 2))


@Check
async def a_reload_tells_whose_a_saga_is(lab: Lab) -> None:
    """Who was dead for a while sees by the owner that the saga is another's, and its commit says NOT_MINE."""
    worker, other = lab.worker(), lab.worker()
    key = await lab.born(worker)
    lab.store.renew(worker, 0)
    await lab.claim(other)
    reborn = lab.worker()
    same((await lab.summary(key)).owner, other, "owner")
    same(await lab.commit(reborn, turn_of(key, 2)), [TurnResult.NOT_MINE], "result")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, Check))
