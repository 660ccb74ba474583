"""Participants for tests: services in memory that keep accounts, honour keys or do not, and fail as they are told.

Owns what a well-behaved participant does, so that a test can take one property away and see what follows. Must not know
a saga. Made by users' tests, in the function that they give to `verify` as `participants`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from typing import Any, NamedTuple, TypeVar, cast

from atone.errors import Reject
from atone.testing.network import crossing, crossing_blocking

__all__ = ["AfterEffect", "FakeCall", "FakeParticipant"]

T = TypeVar("T")
_NOTHING: Any = None


class FakeCall(NamedTuple):
    """One call that arrived: what was asked, under which key, and whether it had an effect."""

    what: str
    key: str
    had_effect: bool


class AfterEffect(NamedTuple):
    """In a script: have the effect, and raise all the same."""

    error: Exception


class _Done(NamedTuple):
    account: str
    amount: int
    result: Any


class FakeParticipant:
    """A service in memory. `balances` are what its accounts hold; all accounts begin with nothing.

    It honours idempotency keys, and it has a barrier: an action after its undo is refused, and an undo of nothing does
    nothing. Take either away to see what your saga makes of it: `honours_keys=False`, `barrier=False`. With
    `takes_seconds` each call takes that long, and its effect comes at the end of it, whether or not its caller still
    waits. Use it as it is, or as the base of a class with methods of your own.
    """

    def __init__(
        self,
        name: str = "participant",
        *,
        honours_keys: bool = True,
        barrier: bool = True,
        takes_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.honours_keys, self.barrier, self.takes_seconds = honours_keys, barrier, takes_seconds
        self.balances: Counter[str] = Counter()
        self.calls: list[FakeCall] = []
        self._done: dict[str, _Done] = {}
        self._undone: set[str] = set()
        self._undo_keys: set[str] = set()
        self._scripts: defaultdict[str, deque[Exception | AfterEffect | None]] = defaultdict(deque)

    def __repr__(self) -> str:
        return f"<fake {self.name}>"

    @property
    def ledger(self) -> dict[str, int]:
        """The accounts that hold something: what to compare after a saga."""
        return {account: amount for account, amount in sorted(self.balances.items()) if amount}

    def script(self, what: str, *answers: Exception | AfterEffect | None) -> None:
        """Say what comes of the next calls of `what`: an error instead of the effect, or after it; None: as usual."""
        self._scripts[what].extend(answers)

    async def act(self, account: str, amount: int = 1, *, key: str, result: T = _NOTHING) -> T:
        """Have an effect: `amount` more on `account`, once for each key; returns `result`, or what it returned before.

        Raises:
            Reject: It was undone before (with a barrier).
        """

        async def there() -> T:
            await asyncio.sleep(self.takes_seconds)
            return cast("T", self._act(account, amount, key, result))

        return await crossing(f"{self.name}.{account}", there)

    async def undo(self, account: str, *, of: str, key: str) -> None:
        """Take back what was done under the key `of`; `key` is this call's own."""

        async def there() -> None:
            await asyncio.sleep(self.takes_seconds)
            self._undo(account, of, key)

        await crossing(f"{self.name}.{account} back", there)

    async def find(self, key: str) -> Any:
        """Return what the action under this key returned; None if it did nothing, or was undone."""

        async def there() -> Any:
            found = self._done.get(key)
            return None if found is None else found.result

        return await crossing(f"{self.name} asked", there)

    def act_blocking(self, account: str, amount: int = 1, *, key: str, result: T = _NOTHING) -> T:
        """Do the same as `act`, for plain steps; it takes no time."""
        return cast("T", crossing_blocking(f"{self.name}.{account}", lambda: self._act(account, amount, key, result)))

    def undo_blocking(self, account: str, *, of: str, key: str) -> None:
        """Do the same as `undo`, for plain steps; it takes no time."""
        crossing_blocking(f"{self.name}.{account} back", lambda: self._undo(account, of, key))

    def _act(self, account: str, amount: int, key: str, result: Any) -> Any:
        after = self._scripted(account)
        if self.barrier and key in self._undone:
            self.calls.append(FakeCall(account, key, False))
            raise Reject(f"{account} was undone before, so it can have no effect any more")
        if self.honours_keys and key in self._done:
            self.calls.append(FakeCall(account, key, False))
            return self._done[key].result
        self.balances[account] += amount
        self._done[key] = _Done(account, amount, result)
        self.calls.append(FakeCall(account, key, True))
        if after is not None:
            raise after
        return result

    def _undo(self, account: str, of: str, key: str) -> None:
        after = self._scripted(f"{account} back")
        is_repeat = self.honours_keys and key in self._undo_keys
        self._undo_keys.add(key)
        self._undone.add(of)
        done = None if is_repeat else self._done.pop(of, None) if self.honours_keys else self._done.get(of)
        self.calls.append(FakeCall(f"{account} back", key, done is not None))
        if done is not None:
            self.balances[done.account] -= done.amount
        if after is not None:
            raise after

    def _scripted(self, what: str) -> Exception | None:
        """Raise what the script says, or return what is to be raised after the effect."""
        answer = self._scripts[what].popleft() if self._scripts[what] else None
        if isinstance(answer, Exception):
            raise answer
        return None if answer is None else answer.error
