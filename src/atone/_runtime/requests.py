"""Ask something of a saga from outside: the one way in for cancel, events and operator commands.

Owns the request's journal entry and the receipt that finds its answer. Anyone with the store may ask, whoever runs the
saga; only its owner answers. Used by `Orchestrator` and the command line.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from atone._core.journal import RequestAnswered, RequestReceived
from atone._core.state import Request
from atone._runtime.arguments import checked_name, is_span
from atone._runtime.ids import new_request_id
from atone._runtime.reader import find_one, read
from atone._runtime.wire import decode_entries, encode_entries
from atone.errors import CorruptJournal, OutcomeTimeout, RequestRefused, StoreUnavailable, UnknownSaga
from atone.machine import machine
from atone.store import Delivered, Delivery, Store

REASON_LENGTH_MAX = 2000


@dataclass(frozen=True)
class Answer:
    """What the saga's owner said: `verdict` is applied, refused, too_late or ignored; `note` says why."""

    verdict: str
    note: str

    @property
    def applied(self) -> bool:
        """Whether the request took effect."""
        return self.verdict == "applied"

    @property
    def too_late(self) -> bool:
        """Whether the point of no return had passed."""
        return self.verdict == "too_late"


@dataclass(frozen=True)
class Receipt:
    """A request that is durable.

    `delivered` is DUPLICATE if this id was there before, KEPT if the saga does not exist yet.
    """

    store: Store
    key: bytes | None
    request_id: str
    delivered: Delivered

    async def answer(self, *, timeout: float | timedelta | None = 30.0, poll_seconds: float = 0.1) -> Answer:
        """Wait for the owner's answer; a cancel that meets a pivot under way is answered by its outcome.

        Raises:
            OutcomeTimeout: There was none within `timeout` seconds; the request stands.
            UnknownSaga: The saga does not exist yet.
        """
        if self.key is None:
            raise UnknownSaga("The saga does not exist yet; the event waits for it. Ask again when it was started.")
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self._look(self.key)
                    if found is not None:
                        return found
                    await asyncio.sleep(poll_seconds)
        except TimeoutError:
            raise OutcomeTimeout(f"No answer within {seconds} s; the request stands. Is a worker running?") from None

    async def _look(self, key: bytes) -> Answer | None:
        try:
            found = await read(self.store, key)
        except StoreUnavailable:
            return None  # the request stands; look again
        for row in reversed(found.journal):
            for entry in row.entries:
                if isinstance(entry, RequestAnswered) and entry.id == self.request_id:
                    return Answer(entry.answer, entry.note)
        return None


async def ask(
    store: Store,
    tenant: str,
    name: str,
    saga_id: str,
    kind: str,
    *,
    by: str,
    reason: str,
    step: str | None = None,
    event: str | None = None,
    payload: bytes | None = None,
    landed: bool | None = None,
    request_id: str | None = None,
    keep: float | timedelta | None = None,
) -> Receipt:
    """Append a request to the saga's journal; durable when this returns.

    Raises:
        UnknownSaga: There is no such saga, and the request is not kept for it.
        RequestRefused: The saga is over, or a text or time of the request is not a usable one. Nothing was written.
    """
    if not (_says_something(reason) and _says_something(by)):
        raise RequestRefused(f"Say who asks and why, in 1 to {REASON_LENGTH_MAX} characters.")
    identity = new_request_id() if request_id is None else request_id
    for what, text in (("step", step), ("event", event), ("event_id", identity)):
        if text is not None:
            checked_name(what, text, RequestRefused)
    request = Request(identity, kind, by, reason, step, event, payload, landed)
    seconds = keep.total_seconds() if isinstance(keep, timedelta) else keep
    if seconds is not None and not is_span(seconds):
        raise RequestRefused("keep= is a finite number of seconds, 0 or more; say how long the event waits.")
    entries = encoded(request)
    delivery = Delivery(tenant, name, saga_id, request.id, entries, machine().random_bytes(16), seconds)
    delivered = await store.deliver(delivery)
    if delivered is Delivered.UNKNOWN:
        raise UnknownSaga(f"There is no {name} saga {saga_id!r}; list the sagas to see what there is.")
    if delivered is Delivered.FINAL:
        raise RequestRefused(f"{name} saga {saga_id!r} is over; nothing can be asked of it any more.")
    found = None if delivered is Delivered.KEPT else await find_one(store, tenant, name, saga_id)
    return Receipt(store, None if found is None else found.key, request.id, delivered)


def _says_something(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text.strip()) <= len(text) <= REASON_LENGTH_MAX


def encoded(request: Request) -> bytes:
    """Return the request as a journal row; what could not be read again would damage the saga's journal.

    Raises:
        RequestRefused: A part of it is no valid text.
    """
    try:
        entries = encode_entries([RequestReceived(request)])
        if decode_entries(entries) == [RequestReceived(request)]:
            return entries
    except (TypeError, ValueError, CorruptJournal):
        pass
    raise RequestRefused("A part of this request is not of the type that it should be; give valid texts.")
