"""The outbox of the memory store: what waits to be published, in the order in which it was written.

Owns who may be given what. It must not know where a message came from, and has no lock of its own: the store's protects
it. Called by the memory store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice

from atone.broker import Message, Outgoing, Relayed
from atone.store import Outstanding, SetAside


@dataclass(slots=True)
class _Waiting:
    message: Message
    at: float
    claimed_by: str = ""
    claimed_until: float = 0.0


class MemoryOutbox:
    """Messages that wait, and those that were set aside."""

    def __init__(self) -> None:
        self._refs = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self.aside: dict[int, SetAside] = {}

    def post(self, messages: Sequence[Message], now: float) -> None:
        """Have messages wait, behind all that wait already."""
        self._waiting.update((next(self._refs), _Waiting(message, now)) for message in messages)

    def settle(self, published: Collection[int], refused: Mapping[int, str], now: float) -> None:
        """Forget what is published and set aside what is refused."""
        for ref in published:
            self._waiting.pop(ref, None)
        for ref, why in refused.items():
            if (waiting := self._waiting.pop(ref, None)) is not None:
                self.aside[ref] = SetAside(waiting.message, why, now)

    def claim(self, relay: str, limit: int, now: float, until: float) -> Relayed:
        """Hand out what nobody else has in hand."""
        claimed = list(islice(self._claimable(relay, now), limit))
        for _, waiting in claimed:
            waiting.claimed_by, waiting.claimed_until = relay, until
        return Relayed(tuple(Outgoing(ref, one.message, one.at) for ref, one in claimed), now)

    def set_aside(self) -> list[SetAside]:
        """Return what was set aside, in the order in which it was written."""
        return [one for _, one in sorted(self.aside.items())]

    def post_again(self, message_id: str, now: float) -> bool:
        """Have a message that was set aside wait once more."""
        again = [one.message for one in self.set_aside() if one.message.id == message_id]
        self.post(again, now)
        return self.drop(message_id)

    def drop(self, message_id: str) -> bool:
        """Forget a message that was set aside."""
        before = len(self.aside)
        self.aside = {ref: one for ref, one in self.aside.items() if one.message.id != message_id}
        return len(self.aside) < before

    def outstanding(self, now: float) -> Outstanding:
        """Count."""
        oldest_at = min((waiting.at for waiting in self._waiting.values()), default=None)
        return Outstanding(len(self._waiting), oldest_at, len(self.aside), now)

    def _claimable(self, relay: str, now: float) -> Iterator[tuple[int, _Waiting]]:
        """Yield what waits, oldest first; behind what is claimed its whole key waits."""
        held: set[str] = set()
        for ref, waiting in sorted(self._waiting.items()):
            if waiting.claimed_until > now and waiting.claimed_by != relay:
                held.add(waiting.message.key)
            elif waiting.message.key not in held:
                yield ref, waiting
