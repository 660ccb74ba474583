"""Checks of the outbox: messages are written with their turn, claimed in order for each key, and forgotten once told.

It must not be about a broker, or about what a message says. Called through `atone.testing.contracts`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count

from atone.broker import Message, Relayed
from atone.errors import WorkerDead
from atone.store import Hot, Posting, Turn, TurnResult
from atone.testing._subject import Check, Lab, birth_of, holds, refuses, same, turn_of

_NUMBERS = count(1)


def message(key: str = "one", body: bytes = b"{}", **more: str) -> Message:
    """Return a new message."""
    return Message(f"message-{next(_NUMBERS)}", more.pop("topic", "order.placed"), key, body, more)


def with_messages(turn: Turn, *messages: Message) -> Turn:
    """Return a turn that sends messages along."""
    return turn._replace(messages=messages)


class Relaying:
    """A relay that takes a new name for each call, unless it is told to repeat one."""

    def __init__(self, lab: Lab, name: str = "relay") -> None:
        self._lab = lab
        self._name = name
        self._calls = 0

    async def __call__(
        self,
        *,
        published: Collection[int] = (),
        refused: Mapping[int, str] | None = None,
        limit: int = 100,
        lease_seconds: float = 10.0,
        again: bool = False,
    ) -> Relayed:
        self._calls += not again
        return await self._lab.store.relay(
            f"{self._name}-{self._calls}",
            published=published,
            refused=refused or {},
            limit=limit,
            lease_seconds=lease_seconds,
        )


def messages_in(found: Relayed) -> list[Message]:
    """Return what was claimed."""
    return [one.message for one in found.messages]


async def posted(lab: Lab, *messages: Message) -> None:
    """Have messages wait, in this order, each with a birth of its own."""
    for one in messages:
        await lab.applied(lab.poster, with_messages(birth_of(lab.key()), one))


@Check
async def messages_wait_in_the_order_of_their_turns(lab: Lab) -> None:
    """From births and from later turns, as they are; an empty outbox tells the time."""
    relay, worker = Relaying(lab), lab.worker()
    same(await relay(), Relayed((), lab.now()), "an empty outbox")
    sent = [
        message(),
        message(body=b"\x00\xff", name="v\u00e4lue \u2713", topic="a.b-c_9"),
        message(body=b""),
        message(),
    ]
    key = lab.key()
    at = lab.now()
    await lab.applied(worker, with_messages(birth_of(key), *sent[:2]))
    lab.advance(1)
    await lab.applied(worker, with_messages(turn_of(key, 2), *sent[2:]))
    found = await relay()
    same(messages_in(found), sent, "messages")
    same([one.at for one in found.messages], [at, at, at + 1, at + 1], "times")
    same(found.now, at + 1, "now")
    holds(sorted({one.ref for one in found.messages}) == [one.ref for one in found.messages], "refs grow")


@Check
async def a_batch_posts_what_all_its_turns_send(lab: Lab) -> None:
    """Births, later turns and turns without a message side by side; also births without a worker."""
    worker, relay = lab.worker(), Relaying(lab)
    old = [await lab.born(worker) for _ in range(3)]
    turns = [turn_of(key, 2) for key in old] + [birth_of(lab.key()) for _ in range(3)]
    sent = {turn.key: [message(turn.key.hex()), message(turn.key.hex())] for turn in turns[::2]}
    await lab.applied(worker, *(with_messages(turn, *sent.get(turn.key, ())) for turn in turns))
    found = messages_in(await relay())
    for key, expected in sent.items():
        same([one for one in found if one.key == key.hex()], expected, "messages of a saga, in their order")
    same(len(found), 6, "number of messages")
    alone = message()
    await lab.commit(None, with_messages(birth_of(lab.key(), owned=False), alone))
    same(messages_in(await relay()), [alone], "message of a birth without a worker")


@Check
async def a_turn_that_is_not_applied_posts_nothing(lab: Lab) -> None:
    """CONFLICT, NOT_MINE, TAKEN, REFUSED, and a worker that is dead; what stands beside them in the batch does."""
    worker, other, relay = lab.worker(), lab.worker(), Relaying(lab)
    mine, theirs = await lab.born(worker, saga_id="mine"), await lab.born(other)
    fine = message()
    unfit = [
        turn_of(mine, 4),
        turn_of(theirs, 2),
        birth_of(lab.key(), saga_id="mine"),
        birth_of(lab.key(), entries=b"x" * (lab.subject.row_bytes_max + 1)),
    ]
    batch = [with_messages(turn, message()) for turn in unfit]
    results = await lab.commit(worker, *batch, with_messages(birth_of(lab.key()), fine))
    wanted = [TurnResult.CONFLICT, TurnResult.NOT_MINE, TurnResult.TAKEN, TurnResult.REFUSED, TurnResult.APPLIED]
    same(results, wanted, "results")
    for turn, result in zip(batch, wanted, strict=False):
        same(await lab.commit(worker, turn), [result], "result of a turn that comes alone")
    same(messages_in(await relay()), [fine], "messages")
    lab.lapse()
    late = lab.store.commit(worker, [with_messages(turn_of(mine, 2), message())])
    await refuses(WorkerDead, late, "a commit of a worker whose lease is over")
    same(len((await relay()).messages), 1, "messages: the first one again, for its claim is over")


@Check
async def a_turn_that_is_sent_again_posts_once(lab: Lab) -> None:
    """Whether its message still waits or was published long ago."""
    worker, relay = lab.worker(), Relaying(lab)
    first = with_messages(birth_of(lab.key()), message())
    await lab.applied(worker, first)
    await lab.applied(worker, first)
    found = await relay()
    same(messages_in(found), list(first.messages), "messages")
    await relay(published=[one.ref for one in found.messages])
    second = with_messages(turn_of(first.key, 2), message())
    await lab.applied(worker, second)
    await lab.applied(worker, first)
    await lab.applied(worker, second, with_messages(birth_of(lab.key()), message("other")))
    same(messages_in(await relay())[:1], list(second.messages), "messages")
    same(len((await relay()).messages), 0, "messages afterwards")


@Check
async def a_message_that_is_too_large_refuses_its_turn(lab: Lab) -> None:
    """As a row would be that is too large; its neighbours in the batch land."""
    worker, relay = lab.worker(), Relaying(lab)
    large = message(body=b"x" * (lab.subject.row_bytes_max + 1))
    key, fine = lab.key(), message()
    turns = [with_messages(birth_of(key), message(), large), with_messages(birth_of(lab.key()), fine)]
    same(await lab.commit(worker, *turns), [TurnResult.REFUSED, TurnResult.APPLIED], "results")
    same(await lab.rows(key), (), "rows of the turn that was refused")
    same(messages_in(await relay()), [fine], "messages")


@Check
async def what_is_published_is_forgotten(lab: Lab) -> None:
    """For good; what is named twice, or was never there, is harmless."""
    relay = Relaying(lab)
    await posted(lab, message(), message())
    one, other = (await relay()).messages
    same((await relay(published=[one.ref, one.ref, 10**9])).messages, (), "messages while the other is claimed")
    lab.advance(10)
    found = await relay(published=[one.ref])
    same(messages_in(found), [other.message], "messages")
    await relay(published=[other.ref])
    lab.advance(10)
    same((await relay()).messages, (), "messages in the end")


@Check
async def a_ref_is_never_used_again(lab: Lab) -> None:
    """A relay that tells late what it has published must not have a newer message forgotten."""
    relay = Relaying(lab)
    newer = message()
    await posted(lab, message())
    (first,) = (await relay()).messages
    await relay(published=[first.ref])
    await posted(lab, newer)
    same(messages_in(await relay(published=[first.ref], refused={first.ref: "too large"})), [newer], "messages")


@Check
async def what_is_refused_is_set_aside_and_its_key_goes_on(lab: Lab) -> None:
    """With the reason, for people; what follows it is not held up."""
    relay = Relaying(lab)
    first, second = message(), message(extra="yes")
    await posted(lab, first, second)
    (claimed,) = (await relay(limit=1)).messages
    same(messages_in(await relay(refused={claimed.ref: "too large for it"})), [second], "messages")
    if not isinstance(lab.store, Posting):
        return
    (aside,) = await lab.store.set_aside()
    same((aside.message, aside.why, aside.at), (first, "too large for it", lab.now()), "what was set aside")


@Check
async def what_was_set_aside_is_posted_again_once(lab: Lab) -> None:
    """As it was, behind what waits already, under a number of its own; what waits can't be posted again."""
    if not isinstance(lab.store, Posting):
        return
    relay = Relaying(lab)
    first, other, newer = message(extra="yes"), message("b"), message()
    await posted(lab, first, other)
    refs = [one.ref for one in (await relay()).messages]
    await relay(refused=dict.fromkeys(refs, "too large"), limit=0)
    await posted(lab, newer)
    lab.advance(5)
    same(await lab.store.post_again("nobody's"), False, "answer for what is not there")
    same(await lab.store.post_again(newer.id), False, "answer for what waits")
    same(await lab.store.post_again(first.id), True, "answer")
    same(await lab.store.post_again(first.id), False, "second answer")
    same([one.message for one in await lab.store.set_aside()], [other], "what is set aside still")
    found = await relay(published=refs)
    same(messages_in(found), [newer, first], "messages")
    same(found.messages[-1].at, lab.now(), "since when it waits")


@Check
async def what_was_set_aside_is_dropped_for_good(lab: Lab) -> None:
    """That message alone; what waits is never dropped."""
    if not isinstance(lab.store, Posting):
        return
    relay = Relaying(lab)
    first, other, newer = message(), message(), message()
    await posted(lab, first, other)
    await relay(refused={one.ref: "too large" for one in (await relay()).messages}, limit=0)
    await posted(lab, newer)
    same(await lab.store.drop_set_aside(newer.id), False, "answer for what waits")
    same(await lab.store.drop_set_aside(first.id), True, "answer")
    same(await lab.store.drop_set_aside(first.id), False, "second answer")
    same(await lab.store.post_again(first.id), False, "answer for what is gone")
    same([one.message for one in await lab.store.set_aside()], [other], "what is set aside still")
    same(messages_in(await relay()), [newer], "messages")


@Check
async def what_is_claimed_holds_up_its_key_and_no_other(lab: Lab) -> None:
    """Another relay gets the other keys; what is committed later with a key in hand waits too."""
    one, other = Relaying(lab, "one"), Relaying(lab, "other")
    mine, theirs, late, empty = message("a"), message("b"), message("a"), message("")
    await posted(lab, mine)
    (claimed,) = (await one()).messages
    await posted(lab, late, theirs, empty)
    same(messages_in(await other()), [theirs, empty], "messages of the other relay")
    same(messages_in(await one()), [], "messages of the first relay, under another name")
    same(messages_in(await one(published=[claimed.ref])), [late], "messages of the key when its head is gone")


@Check
async def a_claim_ends_with_its_time(lab: Lab) -> None:
    """Not a moment earlier, by the store's clock; then anybody gets all of it, in order."""
    one, other = Relaying(lab, "one"), Relaying(lab, "other")
    sent = [message(), message()]
    await posted(lab, *sent)
    same(messages_in(await one(lease_seconds=4)), sent, "messages")
    lab.advance(3.875)
    same(messages_in(await other()), [], "messages just before")
    lab.advance(0.125)
    same(messages_in(await other()), sent, "messages when the time is over")
    same(messages_in(await one()), [], "messages of who had them before")


@Check
async def a_claim_is_given_again_under_its_own_name(lab: Lab) -> None:
    """Whoever had no answer asks again; a new name means that there was one."""
    relay = Relaying(lab)
    sent = [message(), message(), message("b")]
    await posted(lab, *sent)
    first = await relay()
    again = await relay(again=True)
    same(again.messages, first.messages, "messages of the same call")
    same(messages_in(await relay()), [], "messages of another call")


@Check
async def a_limit_cuts_keys_behind_and_never_in_between(lab: Lab) -> None:
    """Oldest first, at most so many; the rest of a key follows when what came before it is gone."""
    relay = Relaying(lab)
    sent = [message("abc"[at % 3]) for at in range(12)]
    await posted(lab, *sent)
    seen: list[Message] = []
    refs: list[int] = []
    for _ in range(6):
        found = await relay(published=refs, limit=5)
        holds(len(found.messages) <= 5, "no more than the limit")
        refs = [one.ref for one in found.messages]
        same(refs, sorted(refs), "order of what was claimed")
        seen += messages_in(found)
    same(sorted(seen), sorted(sent), "all messages, once")
    for key in "abc":
        of_key = [one for one in sent if one.key == key]
        same([one for one in seen if one.key == key], of_key, "messages of a key, in their order")
    same(seen[:5], sent[:5], "the oldest ones")


@Check
async def what_waits_behind_a_long_queue_is_found(lab: Lab) -> None:
    """A key of which much waits, in somebody's hands, hides no other one."""
    relay = Relaying(lab)
    small = message("small")
    await lab.applied(lab.poster, with_messages(birth_of(lab.key()), *(message("long") for _ in range(50)), small))
    same([one.key for one in messages_in(await relay(limit=1))], ["long"], "the oldest one")
    same(messages_in(await relay(limit=1)), [small], "another key")
    same(messages_in(await relay(limit=1)), [], "nothing that is nobody's")


@Check
async def without_a_limit_to_claim_a_relay_only_tells(lab: Lab) -> None:
    """As one does that is about to stop."""
    relay = Relaying(lab)
    await posted(lab, message(), message())
    (first, _) = (await relay(limit=2)).messages
    await posted(lab, message("b"))
    same((await relay(published=[first.ref], limit=0)).messages, (), "messages")
    same(len((await relay()).messages), 1, "messages that were not claimed")


@Check
async def what_was_named_neither_way_comes_again_before_its_key_goes_on(lab: Lab) -> None:
    """Also if what came after it in the same answer is published: what is newer still waits for it."""
    relay = Relaying(lab)
    sent = [message(), message(), message(), message()]
    await posted(lab, *sent[:3])
    first, _, third = (await relay()).messages
    await posted(lab, sent[3])
    same(messages_in(await relay(published=[first.ref, third.ref])), [], "messages while the second is claimed")
    lab.advance(10)
    same(messages_in(await relay()), [sent[1], sent[3]], "messages when its time is over")


@Check
async def a_start_inside_a_transaction_posts_when_that_commits(lab: Lab) -> None:
    """Once, in order, and not at all after a roll-back or if the name is taken."""
    if lab.subject.join is None:
        return
    relay = Relaying(lab)
    kept = with_messages(birth_of(lab.key(), saga_id="7", owned=False), message(name="v\u00e4lue"), message())
    dropped = with_messages(birth_of(lab.key(), owned=False), message())
    again = with_messages(birth_of(lab.key(), saga_id="7", owned=False), message())
    large = with_messages(birth_of(lab.key(), owned=False), message(body=b"x" * (lab.subject.row_bytes_max + 1)))
    with lab.subject.join() as joined:
        same(await lab.store.start(dropped, connection=joined.connection), TurnResult.APPLIED, "result")
        joined.roll_back()
    wanted = [TurnResult.APPLIED, TurnResult.APPLIED, TurnResult.TAKEN, TurnResult.REFUSED]
    with lab.subject.join() as joined:
        results = [await lab.store.start(turn, connection=joined.connection) for turn in (kept, kept, again, large)]
        same(results, wanted, "results")
        joined.commit()
    same(messages_in(await relay()), list(kept.messages), "messages")


@Check
async def what_an_outbox_holds_can_be_counted(lab: Lab) -> None:
    """What waits, claimed or not, since when, and what was set aside; a store need not be able to."""
    if not isinstance(lab.store, Posting):
        return
    relay, at = Relaying(lab), lab.now()
    same(await lab.store.outstanding(), (0, None, 0, at), "an empty outbox")
    await posted(lab, message())
    lab.advance(5)
    await posted(lab, message(), message("b"))
    (first, second, _) = (await relay()).messages
    same(await lab.store.outstanding(), (3, at, 0, at + 5), "three that wait")
    await relay(published=[first.ref], refused={second.ref: "why"})
    same(await lab.store.outstanding(), (1, at + 5, 1, at + 5), "one that waits and one that was set aside")


@Check
async def messages_do_not_change_what_else_a_turn_does(lab: Lab) -> None:
    """Hot columns, rows and early events are as without them."""
    worker = lab.worker()
    await lab.deliver(saga_id="7", keep_seconds=60)
    key = lab.key()
    await lab.applied(worker, with_messages(birth_of(key, saga_id="7"), message()))
    same(len(await lab.rows(key)), 2, "rows with the early event")
    same(await lab.commit(worker, with_messages(turn_of(key, 2), message())), [TurnResult.CONFLICT], "result")
    await lab.applied(worker, with_messages(turn_of(key, 3, Hot("waiting", False, lab.now() + 5)), message()))
    shown = await lab.summary(key)
    same((shown.status, shown.owner, shown.wake_at), ("waiting", None, lab.now() + 5), "summary")


CHECKS = tuple(check for check in list(globals().values()) if isinstance(check, Check))
