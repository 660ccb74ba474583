"""Bugs planted in the runtime and the store, one at a time: each breaks one rule that the simulation must see broken.

Owns what each one changes, by replacing a method for as long as a block lasts. Must not be imported by anything but
tests. A tool whose check cannot fail is worthless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from atone._core import backward, facts
from atone._messaging.posting import Posting
from atone._runtime import invoke
from atone._runtime.alarm import Alarm
from atone._runtime.calls import Calls
from atone._runtime.committer import Committer
from atone._runtime.recovery import Recovery
from atone._runtime.runner import Runner
from atone.broker import Published
from atone.errors import BrokerUnavailable, StoreUnavailable
from atone.store import Turn, TurnResult
from atone.stores.memory import MemoryStore

Plant = Callable[[], Any]


def _instead(owner: Any, name: str, function: Callable[..., Any]) -> Plant:
    return lambda: mock.patch.object(owner, name, function)


async def _time_out_is_success(self: Any, turns: list[Turn]) -> list[TurnResult] | None:
    try:
        return list(await self._store.commit(self._worker, turns))
    except StoreUnavailable:
        return [TurnResult.APPLIED] * len(turns)


_write = Committer._write


async def _new_ids(self: Any, turns: list[Turn]) -> list[TurnResult] | None:
    try:
        return list(await self._store.commit(self._worker, turns))
    except StoreUnavailable:
        again = [turn._replace(commit_id=bytes(reversed(turn.commit_id))) for turn in turns]
        return await _write(self, again)


_write_turn = Runner._write


def _act_first(self: Any, fact: Any, decision: Any, released: bool, birth: Any = None) -> None:
    calls = tuple(one for one in decision.commands if isinstance(one, invoke.Call))
    if birth is None and not self._written and calls:
        self._calls.begin(calls[0], decision.saga)
        decision = decision._replace(commands=tuple(one for one in decision.commands if one is not calls[0]))
    _write_turn(self, fact, decision, released, birth)


def _never_lost(self: Any, state: Any, hot: Any, unfit: Any) -> None:
    self.state, self._hot, self._writing = state, hot, False
    self.tell(facts.Woke())


def _unknown_is_failed(error: BaseException, step: Any, attempt: Any) -> Any:
    call = attempt.call
    if isinstance(error, asyncio.CancelledError):
        return invoke._fact_of_stop(attempt)
    return facts.Rejected(call.step, call.operation, call.attempt, facts.Problem(type(error).__name__, "it failed"))


_is_due = MemoryStore._is_due


def _dead_keep_theirs(self: Any, saga: Any, now: float) -> bool:
    return saga.owner is None and _is_due(self, saga, now)


_claim = MemoryStore.claim


async def _reply_of_claim_lost(self: Any, worker: str, **how: Any) -> Any:
    mine = {key for key, saga in self._sagas.items() if saga.owner == worker}
    return await _claim(self, worker, **{**how, "known": {*how["known"], *mine}})


def _no_version(self: Any, worker: str | None, turn: Turn, now: float) -> TurnResult:
    saga = self._sagas.get(turn.key)
    if saga is not None and turn.birth is None and not self._stands(saga, turn):
        turn = turn._replace(version=len(saga.rows) + 1)
    return _append(self, worker, turn, now)


_append = MemoryStore._append


def _no_owner(self: Any, worker: str | None, turn: Turn, now: float) -> TurnResult:
    saga = self._sagas.get(turn.key)
    if saga is not None and worker is not None and turn.birth is None:
        owner, saga.owner = saga.owner, worker
        result = _no_version(self, worker, turn, now)
        if result is not TurnResult.APPLIED:
            saga.owner = owner
        return result
    return _append(self, worker, turn, now)


_insert = MemoryStore._insert


def _twice(self: Any, worker: str | None, turn: Turn, birth: Any, now: float) -> TurnResult:
    self._keys.pop((birth.tenant, birth.name, birth.saga_id), None)
    return _insert(self, worker, turn, birth, now)


_publish = Posting.publish


async def _gives_up(self: Any, messages: Sequence[Any]) -> Any:
    try:
        return await _publish(self, messages)
    except BrokerUnavailable:
        return [Published.DURABLE] * len(messages)


async def _never_looks(self: Any, seconds: float) -> None:
    await self._wanted.wait()
    self._wanted.clear()


def _no_alarm(self: Any, delay_seconds: float, ring: Any) -> None:
    pass


def _only_tell(self: Any, attempt: Any) -> None:
    self._give_up_on(attempt)


def _at_once(plan: Any, step: Any, state: Any) -> float:
    return 0.0


PLANTED: Mapping[str, Plant] = {
    "a commit without an answer counts as done": _instead(Committer, "_write", _time_out_is_success),
    "a commit is sent again under a new id": _instead(Committer, "_write", _new_ids),
    "the act comes before its intent": _instead(Runner, "_write", _act_first),
    "what a dead worker had begun is not lost": _instead(Runner, "resume", _never_lost),
    "unknown counts as failed": _instead(invoke, "_fact_of_error", _unknown_is_failed),
    "the sagas of the dead stay theirs": _instead(MemoryStore, "_is_due", _dead_keep_theirs),
    "a claim whose answer was lost is not found": _instead(MemoryStore, "claim", _reply_of_claim_lost),
    "two may append the same version": _instead(MemoryStore, "_append", _no_version),
    "anybody may append": _instead(MemoryStore, "_append", _no_owner),
    "one id may be started twice": _instead(MemoryStore, "_insert", _twice),
    "a message that no broker has taken counts as published": _instead(Posting, "publish", _gives_up),
    "hints only": _instead(Recovery, "_pause", _never_looks),
    "no saga wakes by itself": _instead(Alarm, "set", _no_alarm),
    "a call goes on after its hard end": _instead(Calls, "_expire", _only_tell),
    "an undo does not wait for what may still land": _instead(backward, "not_before", _at_once),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have this bug for as long as the block lasts."""
    with PLANTED[name]():
        yield
