"""Hears the replies to commands, and appends each to its saga's journal before the broker may forget it.

Owns the way from a delivery to a request: read strictly, decoded as the type that the definition names, delivered to
the store under the message's id, then acknowledged. What can't be read or is for nobody is parked with the reason. Must
not decide what a reply means; the saga's owner does. Run by an orchestrator whose definitions have commands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from atone._core.facts import Operation
from atone._core.replies import worth_telling
from atone._core.state import Request
from atone._messaging.envelope import REASON_CHARACTERS_MAX, Reply, read_reply, reason_of
from atone._runtime.arguments import checked_name
from atone._runtime.bound import BoundSaga, BoundStep, payload_context_of
from atone._runtime.logs import about, report, told
from atone._runtime.reader import find_one, read
from atone._runtime.requests import encoded
from atone.broker import Broker, Delivery
from atone.codec import Codec
from atone.errors import (
    AtoneError,
    BrokerError,
    MessageError,
    PayloadError,
    RequestRefused,
    StoreClosed,
    StoreUnavailable,
)
from atone.machine import machine
from atone.store import Delivered, Store
from atone.store import Delivery as ToSaga

log = logging.getLogger("atone.replies")

IN_FLIGHT = 100
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
# A reply that something unforeseen goes wrong with comes again so often before it is set aside.
TRIES_MAX = 10


class Replies:
    """The listener of one orchestrator; `came` is called when a saga has something to look at.

    All orchestrators on one store share the `topic` and so the group of its name: each reply is heard by one of them.
    Two stores need two topics.
    """

    def __init__(
        self, store: Store, sagas: Sequence[BoundSaga], codec: Codec, topic: str, came: Callable[[], None]
    ) -> None:
        self._store, self._sagas, self._codec = store, sagas, codec
        self._topic, self._came = topic, came
        self._taking: set[asyncio.Task[None]] = set()

    async def listen(self, broker: Broker) -> None:
        """Have the group hear the topic, and take in what comes until cancelled; what is in hand then is taken in.

        Raises:
            BrokerError: The broker is away, or was closed.
        """
        await broker.declare(self._topic, [self._topic])
        try:
            async for delivery in broker.deliveries(self._topic, in_flight=IN_FLIGHT):
                task = asyncio.get_running_loop().create_task(self._take(delivery))
                self._taking.add(task)
                task.add_done_callback(self._taking.discard)
        finally:
            await asyncio.gather(*self._taking, return_exceptions=True)

    async def _take(self, delivery: Delivery) -> None:
        """End one delivery, come what may; what can't be ended comes again by itself."""
        try:
            await self._settle(delivery)
        except BrokerError as error:
            log.info("a reply could not be settled with the broker, and comes again: %s", told(error))
        except Exception as error:  # noqa: BLE001 - a broken reply must not keep the others waiting
            report(log, "a reply could not be taken", error)
            await self._give_back(delivery, told(error))

    async def _settle(self, delivery: Delivery) -> None:
        try:
            reply = read_reply(delivery.message)
            request = await self._request(reply)
            entries = encoded(request)
            to = ToSaga(reply.tenant, reply.saga, reply.saga_id, request.id, entries, machine().random_bytes(16))
            await self._ended(delivery, await self._store.deliver(to), reply, request)
        except (StoreUnavailable, StoreClosed) as error:
            log.warning("a reply waits for the store: %s", told(error), extra=about(error))
            await delivery.retry(after_seconds=min(FIRST_PAUSE_SECONDS * delivery.attempt, LONGEST_PAUSE_SECONDS))
        except (MessageError, RequestRefused) as wrong:
            await self._park(delivery, str(wrong))

    async def _ended(self, delivery: Delivery, delivered: Delivered, reply: Reply, request: Request) -> None:
        if delivered is Delivered.APPENDED:
            self._came()
        if delivered in (Delivered.APPENDED, Delivered.DUPLICATE):
            await delivery.ack()
            return
        why: str | None = f"There is no {reply.saga} saga {reply.saga_id!r} in this store. Has it a topic of its own?"
        if delivered is Delivered.FINAL:
            why = await self._after_the_end(reply, request)
        if why is None:
            await delivery.ack()
        else:
            await self._park(delivery, why, reply)

    async def _after_the_end(self, reply: Reply, request: Request) -> str | None:
        """Return what a reply to a saga that is over says that nobody knew, if it does."""
        summary = await find_one(self._store, reply.tenant, reply.saga, reply.saga_id)
        if summary is None:
            return None
        found = await read(self._store, summary.key)
        return worth_telling(found.plan, found.state, request)

    async def _park(self, delivery: Delivery, why: str, reply: Reply | None = None) -> None:
        known: dict[str, Any] = {}
        if reply is not None:
            known = {"saga": reply.saga, "saga_id": reply.saga_id, "tenant": reply.tenant, "step": reply.step}
        log.warning("reply %s was set aside: %s", delivery.message.id, why, extra=about(**known))
        await delivery.park(why)

    async def _give_back(self, delivery: Delivery, why: str) -> None:
        try:
            if delivery.attempt >= TRIES_MAX:
                await self._park(delivery, f"It could not be taken in {delivery.attempt} tries: {why}.")
            else:
                await delivery.retry(after_seconds=LONGEST_PAUSE_SECONDS)
        except AtoneError as error:
            log.info("a reply could not be given back, and comes again: %s", told(error))

    # -- from a reply to a request -------------------------------------------------------------------------------

    async def _request(self, reply: Reply) -> Request:
        """Return what a reply says to its saga.

        Raises:
            MessageError: Its body is not what the definition says that it is, or a name in it can't be one.
        """
        for what in ("id", "tenant", "saga", "saga_id", "step"):
            checked_name(what, getattr(reply, what), MessageError)
        step = await self._step(reply)
        try:
            reason = "replied" if reply.succeeded else _reason(reply, step)
            is_result = reply.succeeded and reply.operation == Operation.ACTION.value
            payload = self._payload(reply, step) if is_result else None
        except PayloadError as wrong:
            raise MessageError(f"A reply whose body does not fit: {wrong}") from None
        asked = Request(reply.id, "reply", reply.source, reason, reply.step, None, payload, reply.succeeded)
        return asked._replace(operation=Operation(reply.operation), attempt=reply.attempt)

    async def _step(self, reply: Reply) -> BoundStep | None:
        """Return the step that a reply is for; None if its saga's very version is not registered here, but elsewhere.

        The name alone does not tell: while a fleet is updated, who has one version hears for the sagas of another.

        Raises:
            MessageError: The definition has no such command.
        """
        named = [saga for saga in self._sagas if saga.plan.name == reply.saga]
        if named:
            found = await find_one(self._store, reply.tenant, reply.saga, reply.saga_id)
            identity = None if found is None else (found.name, found.definition_version, found.plan_hash)
            named = [saga for saga in named if saga.identity == identity]
        if not named:
            return None
        step = named[0].steps.get(reply.step)
        if step is None or reply.operation not in step.messages:
            raise MessageError(f"A reply for {reply.saga}.{reply.step}, which sends no {reply.operation}. Look there.")
        return step

    def _payload(self, reply: Reply, step: BoundStep | None) -> bytes:
        """Return the result as the journal holds it, for a reply is neither encrypted nor checked."""
        body = reply.body or b"null"
        field = reply.step if step is None else step.field
        context = payload_context_of(reply.tenant, reply.saga, reply.saga_id, field)
        if step is None:  # whoever runs the saga compares it with the declared type
            return self._codec.schema(object).encode(self._codec.plain.schema(object).decode(body), context)
        return step.result.encode(step.reply.decode(body), context)


def _reason(reply: Reply, step: BoundStep | None) -> str:
    """Return why a command was refused: the declared refusal's own `reason`, or the words of a plain one."""
    if step is None:
        return _reason_of_some_type(reply.body)
    if step.rejection is None:
        return reason_of(reply.body)
    try:
        refusal = step.rejection.decode(reply.body)
    except PayloadError:
        return reason_of(reply.body)  # a participant may also refuse in plain words
    words = getattr(refusal, "reason", None)
    return words[:REASON_CHARACTERS_MAX] if isinstance(words, str) and words.strip() else step.rejection.name


def _reason_of_some_type(body: bytes) -> str:
    """Return the reason of a refusal whose type is declared elsewhere; that it was refused is sure either way."""
    try:
        return reason_of(body)
    except MessageError:
        return "refused"
