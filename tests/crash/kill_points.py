"""Where a process can die: around each call of the store, between a decision and its commit, within a transaction.

Owns the count of the points that a life has come to, and what happens at the one it was told of: it kills or stops
itself, at once and without a word to anybody else. Points around effects are the shapes' own. Must not change what
passes through. Used by `kill_lives`.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, cast

from atone._runtime import committer
from atone.broker import Broker, Message
from atone.errors import WorkerDead
from atone.store import Store, TurnResult
from atone.testing.through import Through
from tests.crash.forks import Tell

_TRANSACTIONS = ("before a transaction", "before a commit", "after a commit")


class Point(NamedTuple):
    """The `number`-th time, from 1, that a life comes to `what`."""

    what: str
    number: int

    def __str__(self) -> str:
        return f"{self.what} #{self.number}"


class Points:
    """The points of one life, which does to itself at `dies_at` what `signal_number` says; None: it only counts."""

    def __init__(self, tell: Tell, dies_at: Point | None, signal_number: signal.Signals = signal.SIGKILL) -> None:
        self._tell, self._dies_at, self._signal = tell, dies_at, signal_number
        self.tells_of = ""
        self._seen: Counter[str] = Counter()
        self._looked: dict[str, int] = {}
        self._steps = 0
        self._lock = threading.Lock()
        self.passed: list[Point] = []

    def hit(self, what: str, *, looks: bool = False) -> None:
        """Come to a point. One that only `looks` is no new one as long as no other kind was passed in between."""
        with self._lock:
            if looks and self._looked.get(what) == self._steps:
                return
            if looks:
                self._looked[what] = self._steps
            else:
                self._steps += 1
            self._seen[what] += 1
            point = Point(what, self._seen[what])
            if what == self.tells_of:
                self._tell(came_to=what)
            self.passed.append(point)
            if point == self._dies_at:
                self._tell(at=point)
                self._stop()

    def around_effects(self, what: str) -> None:
        """Come to a point of a participant's; those of its transactions come round with every poll of its relay."""
        self.hit(what, looks=what.startswith(_TRANSACTIONS))

    def _stop(self) -> None:
        # To this very thread: it must not go on while another one is being stopped.
        signal.pthread_kill(threading.get_ident(), self._signal)


class MarkedStore(Through):
    """The port around `inner`, with a point before and after each call. Polls that find nothing are one point.

    `fenced` counts the writes that were refused because they came from a worker that is dead, or of a saga that is
    somebody else's, or had moved on.
    """

    def __init__(self, inner: Store, points: Points) -> None:
        super().__init__(inner)
        self._hit = points.hit
        self.fenced = 0

    def renew(self, worker: str | None, lease_seconds: float, **more: Any) -> Any:
        what = "register" if more.get("register") is not None else "renew" if lease_seconds else "retire"
        return self._around_blocking(what, lambda: self.inner.renew(worker, lease_seconds, **more), what == "renew")

    def _around_blocking(self, what: str, call: Callable[[], Any], looks: bool) -> Any:
        self._hit(f"before {what}", looks=looks)
        answer = call()
        self._hit(f"after {what}", looks=looks)
        return answer

    async def _around(self, what: str, call: Any, *, looks: bool = False) -> Any:
        self._hit(f"before {what}", looks=looks)
        answer = await call
        self._hit(f"after {what}", looks=looks)
        return answer

    async def commit(self, *given: Any, **more: Any) -> Any:
        try:
            results = await self._around("commit", self.inner.commit(*given, **more))
        except WorkerDead:
            self.fenced += 1
            raise
        self.fenced += sum(one in (TurnResult.NOT_MINE, TurnResult.CONFLICT) for one in results)
        return results

    async def deliver(self, *given: Any, **more: Any) -> Any:
        return await self._around("deliver", self.inner.deliver(*given, **more))

    async def load(self, *given: Any, **more: Any) -> Any:
        return await self._around("load", self.inner.load(*given, **more), looks=True)

    async def find(self, *given: Any, **more: Any) -> Any:
        return await self._around("find", self.inner.find(*given, **more), looks=True)

    async def relay(self, *given: Any, **more: Any) -> Any:
        return await self._around("relay", self.inner.relay(*given, **more), looks=True)

    async def claim(self, *given: Any, **more: Any) -> Any:
        self._hit("before claim", looks=True)
        claimed = await self.inner.claim(*given, **more)
        self._hit("after claim of something" if claimed.taken else "after claim", looks=not claimed.taken)
        return claimed


class MarkedBroker:
    """The broker around `inner`, with a point before and after each publishing and each end of a delivery."""

    def __init__(self, inner: Broker, points: Points) -> None:
        self._inner, self._hit = inner, points.hit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, messages: Sequence[Message]) -> Any:
        self._hit("before publish")
        told = await self._inner.publish(messages)
        self._hit("after publish")
        return told

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Any]:
        async with aclosing(cast("Any", self._inner.deliveries(group, in_flight=in_flight))) as all_:
            async for one in all_:
                self._hit(f"delivered to {group}")
                yield _MarkedDelivery(one, self._hit)


class _MarkedDelivery:
    def __init__(self, inner: Any, hit: Callable[[str], None]) -> None:
        self._inner, self._hit = inner, hit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def ack(self) -> None:
        self._hit("before ack")
        await self._inner.ack()
        self._hit("after ack")


def mark_decisions(points: Points) -> None:
    """Have a point between each decision and its commit, in this process, for good."""
    submit = committer.Committer.submit

    def marked(self: Any, *given: Any) -> None:
        points.hit("decided, not committed")
        submit(self, *given)

    vars_of: Any = committer.Committer
    vars_of.submit = marked


def mark_transactions(points: Points, store_file: str) -> None:
    """Have a point in each transaction of the SQLite file, when all of it is done but its end; in this process."""
    import apsw

    def on_commit() -> bool:
        points.hit("in the transaction, before its COMMIT", looks=True)
        return False

    def watch(connection: Any) -> None:
        if connection.db_filename("main") == store_file:
            connection.set_commit_hook(on_commit)

    apsw.connection_hooks.append(watch)
