"""Stores that are broken on purpose: each has one rule of the port taken out.

They are the memory store, and for a caller's transactions the SQLite store, with one method changed. Used by
test_contract_bites.py, which shows that the contract turns each of them down.
"""

# ruff: noqa: N801 - `kind` is a class attribute of each broken outbox: the class that its store is made of

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any
from uuid import uuid4

import apsw

from atone.broker import Relayed
from atone.store import (
    FINAL_STATUSES,
    Claimed,
    Delivered,
    Delivery,
    Lease,
    Loaded,
    Outstanding,
    Query,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)
from atone.stores._memory_outbox import MemoryOutbox
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore

ROW_BYTES_MAX = 1000
APPLIED = TurnResult.APPLIED


class Broken(MemoryStore):
    """A memory store to take a rule out of."""

    def saga(self, turn: Turn) -> Any:
        return self._sagas.get(turn.key)


# -- the journal


class StaleTurnsLand(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        saga = self.saga(turn)
        if saga is not None and turn.birth is None and not self._stands(saga, turn):
            turn = turn._replace(version=len(saga.rows) + 1)
        return super()._append(worker, turn, now)


class StaleTurnsReplaceWhatStands(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        saga = self.saga(turn)
        if saga is not None and turn.birth is None and not self._stands(saga, turn):
            del saga.rows[turn.version - 1 :]
        return super()._append(worker, turn, now)


class VersionsAreSkipped(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        saga = self.saga(turn)
        if saga is not None and saga.owner == worker and turn.version > len(saga.rows) + 1:
            return super()._append(worker, turn._replace(version=len(saga.rows) + 1), now)
        return super()._append(worker, turn, now)


class AnybodyWrites(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        saga = self.saga(turn)
        if saga is not None:
            saga.owner = worker
        return super()._append(worker, turn, now)


class ResendsAreNotKnown(Broken):
    def _stands(self, saga: Any, turn: Turn) -> bool:
        return False


class ResendsShowAgain(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        result = super()._append(worker, turn, now)
        if result is APPLIED and turn.hot is not None:
            saga = self.saga(turn)
            saga.status, saga.wake_at = turn.hot.status, turn.hot.wake_at
            saga.owner = worker if turn.hot.owned else None
        return result


class EntriesAreText(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        return super()._append(worker, turn._replace(entries=turn.entries.decode(errors="replace").encode()), now)


class EveryTurnShows(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        result = super()._append(worker, turn, now)
        if turn.hot is None and result is APPLIED:
            self.saga(turn).wake_at = now
        return result


class BirthsForgetTheTimeToWake(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        if turn.birth is not None and turn.hot is not None:
            turn = turn._replace(hot=turn.hot._replace(wake_at=None))
        return super()._append(worker, turn, now)


class NothingIsGivenUp(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        if turn.hot is not None:
            turn = turn._replace(hot=turn.hot._replace(owned=True))
        return super()._append(worker, turn, now)


class NamesAreTakenTwice(Broken):
    def _insert(self, worker: str, turn: Turn, birth: Any, now: float) -> TurnResult:
        self._keys.pop((birth.tenant, birth.name, birth.saga_id), None)
        return super()._insert(worker, turn, birth, now)


class NamesCountWithoutTenant(Broken):
    def _insert(self, worker: str, turn: Turn, birth: Any, now: float) -> TurnResult:
        taken = {(name, saga_id) for _, name, saga_id in self._keys}
        if (birth.name, birth.saga_id) in taken:
            return TurnResult.TAKEN
        return super()._insert(worker, turn, birth, now)


class KeysAreTakenTwice(Broken):
    def _insert(self, worker: str, turn: Turn, birth: Any, now: float) -> TurnResult:
        self._sagas.pop(turn.key, None)
        return super()._insert(worker, turn, birth, now)


class NothingIsTooLarge(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        self._row_bytes_max = 10**9
        return super()._append(worker, turn, now)


class OneBadTurnSpoilsTheBatch(Broken):
    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        kept = copy.deepcopy((self._sagas, self._keys, self._early))
        results = await super().commit(worker, turns)
        if any(result is not APPLIED for result in results):
            self._sagas, self._keys, self._early = kept
        return results


class ResultsComeInAnyOrder(Broken):
    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        return sorted(await super().commit(worker, turns))


class LargeBatchesAreCut(Broken):
    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        return [*await super().commit(worker, turns[:5]), *[APPLIED] * len(turns[5:])]


class NothingToDoIsAnError(Broken):
    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        return [*await super().commit(worker, turns)] or [APPLIED]


class ReadsAreTorn(Broken):
    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        summaries = {key: self._summary(key) for key in keys if key in self._sagas}
        await asyncio.sleep(0)
        loaded = await super().load(keys, after=after, with_plan=with_plan)
        return [one and one._replace(summary=summaries.get(one.summary.key, one.summary)) for one in loaded]


class ClosingForgets(Broken):
    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await super().__aexit__(None, None, None)
        self._sagas.clear()


class OpensForEverybody(Broken):
    async def __aenter__(self) -> Any:
        self._entered = False
        return await super().__aenter__()


# -- leases


class StrangersMayWrite(Broken):
    def _alive(self, worker: str) -> float:
        return self._clock()


class LeasesOnlyEndByDeclaration(Broken):
    def _alive(self, worker: str) -> float:
        found = self._workers.get(worker)
        return self._clock() if found is not None and not found.dead else super()._alive(worker)


class TheDeadMayRenew(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if worker is not None and worker in self._workers:
            self._workers[worker].dead = False
        return super().renew(worker, lease_seconds, register=register)


class IdsAreUsedAgain(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if worker is not None and register is not None:
            self._workers.pop(worker, None)
        return super().renew(worker, lease_seconds, register=register)


class RegisteringTwiceIsAnError(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if worker is not None and register is not None and worker in self._workers:
            self._workers[worker].dead = True
        return super().renew(worker, lease_seconds, register=register)


class RetiredWorkersLiveOn(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        return super().renew(worker, lease_seconds or 10, register=register)


class LapsedLeasesCannotBeRenewed(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if worker is not None and register is None:
            self._alive(worker)
        return super().renew(worker, lease_seconds, register=register)


class RenewingNeedsTheLoop(Broken):
    async def __aenter__(self) -> Any:
        self.loop = asyncio.get_running_loop()
        return await super().__aenter__()

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        if register is not None:
            return super().renew(worker, lease_seconds, register=register)

        turned = threading.Event()
        self.loop.call_soon_threadsafe(turned.set)
        return super().renew(worker, lease_seconds) if turned.wait(timeout=0.05) else Lease(0, 0)


class PlansAreForgotten(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        return super().renew(worker, lease_seconds, register=register if register is None else ())


class LooksAtTheClockLeaveAWorker(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        lease = super().renew(worker, lease_seconds, register=register)
        return lease if worker else super().renew("nobody", 1.0, register=())


class OnlyWorkersKeepPlans(Broken):
    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        return super().renew(worker, lease_seconds, register=register if worker else ())


class NobodyIsDeclaredDead(Broken):
    async def claim(self, worker: str, **wish: Any) -> Claimed:
        kept = {name: one.lease_until for name, one in self._workers.items() if not one.dead and name != worker}
        for name in kept:
            self._workers[name].lease_until = float("inf")
        claimed = await super().claim(worker, **wish)
        for name, until in kept.items():
            self._workers[name].lease_until = until
        return claimed


class OthersAreDeclaredDeadTooEarly(Broken):
    async def claim(self, worker: str, **wish: Any) -> Claimed:
        for name, one in self._workers.items():
            one.dead = one.dead or (name != worker and one.lease_until <= self._clock() + 2)
        return await super().claim(worker, **wish)


# -- take-over


class SagasAreDueTooEarly(Broken):
    def _is_due(self, saga: Any, now: float) -> bool:
        return super()._is_due(saga, now + 1)


class SagasAreDueAMomentTooLate(Broken):
    def _is_due(self, saga: Any, now: float) -> bool:
        return super()._is_due(saga, now - 0.125)


class SagasWithoutATimeAreDue(Broken):
    def _is_due(self, saga: Any, now: float) -> bool:
        return super()._is_due(saga, now) or (saga.owner is None and saga.wake_at is None)


class FinalSagasAreTaken(Broken):
    def _unfinished(self) -> Iterator[tuple[bytes, Any]]:
        return iter(sorted(self._sagas.items()))


class AnyTimeInTheFutureCounts(Broken):
    def _is_due(self, saga: Any, now: float) -> bool:
        return super()._is_due(saga, now) and (saga.wake_at is None or saga.wake_at <= now)


class TakeOverIsForgotten(Broken):
    async def claim(self, worker: str, **wish: Any) -> Claimed:
        owners = {key: saga.owner for key, saga in self._sagas.items()}
        claimed = await super().claim(worker, **wish)
        for key in claimed.taken:
            self._sagas[key].owner = owners[key]
        return claimed


class ChangedClaim(Broken):
    """Changes what a claim is asked or what it answers."""

    def asked(self, worker: str, wish: dict[str, Any]) -> None: ...

    def answered(self, worker: str, claimed: Claimed) -> Claimed:
        return claimed

    async def claim(self, worker: str, **wish: Any) -> Claimed:
        self.asked(worker, wish)
        return self.answered(worker, await super().claim(worker, **wish))


class WhatIsMineIsNeverReported(ChangedClaim):
    def asked(self, worker: str, wish: dict[str, Any]) -> None:
        wish["known"] = {*wish["known"], *(key for key, saga in self._sagas.items() if saga.owner == worker)}


class WhatIsKnownIsReported(ChangedClaim):
    def asked(self, worker: str, wish: dict[str, Any]) -> None:
        wish["known"] = ()


class PagesHaveNoEnd(ChangedClaim):
    def asked(self, worker: str, wish: dict[str, Any]) -> None:
        wish["limit"] = 10**6


class AnyDefinitionIsTaken(ChangedClaim):
    def asked(self, worker: str, wish: dict[str, Any]) -> None:
        wish["definitions"] = {saga.definition for saga in self._sagas.values()}


class NothingIsUnclaimable(ChangedClaim):
    def answered(self, worker: str, claimed: Claimed) -> Claimed:
        return claimed._replace(unclaimable=0)


class BoundsOfDefinitionsAreIgnored(ChangedClaim):
    def asked(self, worker: str, wish: dict[str, Any]) -> None:
        wish["limits"] = {}


class BoundsForgetWhatIsMine(Broken):
    def _allowed(self, taken: Any, keys: Any, limits: Any) -> Any:
        return super()._allowed((), keys, limits)


class TheNewestVersionFillsItsBound(Broken):
    def _in_turns(self, queues: Any) -> Any:
        return (key for queue in reversed(queues) for key in queue)


class StartsWithoutAWorkerAreNeverDue(Broken):
    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        results = await super().commit(worker, turns)
        for turn in turns:
            if worker is None and turn.hot is not None and turn.hot.wake_at is None and turn.key in self._sagas:
                self._sagas[turn.key].wake_at = None
        return results


class AnybodyWritesToTheUnowned(Broken):
    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        if worker is not None:
            return await super().commit(worker, turns)
        return [TurnResult.APPLIED if turn.birth is None else self._append(None, turn, self._clock()) for turn in turns]


class NewsIsDropped(ChangedClaim):
    def answered(self, worker: str, claimed: Claimed) -> Claimed:
        return claimed._replace(newer=())


class NewsIsToldOnce(ChangedClaim):
    def answered(self, worker: str, claimed: Claimed) -> Claimed:
        for key in claimed.newer:
            self._sagas[key].asked = False
        return claimed


class NewsNeverEnds(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        saga = self.saga(turn)
        asked = saga is not None and saga.asked
        result = super()._append(worker, turn, now)
        if asked:
            saga.asked = True
        return result


class NewsGoesToEverybody(ChangedClaim):
    def answered(self, worker: str, claimed: Claimed) -> Claimed:
        return claimed._replace(newer=tuple(key for key, saga in sorted(self._sagas.items()) if saga.asked))


class LeasesAreNotProlonged(ChangedClaim):
    def asked(self, worker: str, wish: dict[str, Any]) -> None:
        wish["lease_seconds"] = 0


class LeasesAreCutShort(ChangedClaim):
    def answered(self, worker: str, claimed: Claimed) -> Claimed:
        self._workers[worker].lease_until = min(self._workers[worker].lease_until, claimed.now + 10)
        return claimed


class DefinitionsQueueUp(Broken):
    def _in_turns(self, queues: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
        return chain.from_iterable(queues)


class TheSameDefinitionIsAlwaysFirst(Broken):
    def _in_turns(self, queues: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
        self._claims = count()
        return super()._in_turns(queues)


class TheRetiredKeepTheirSagas(Broken):
    def _is_due(self, saga: Any, now: float) -> bool:
        owner = self._workers.get(saga.owner)
        return super()._is_due(saga, now) and (owner is None or owner.lease_until < now)


# -- requests


class ChangedDelivery(Broken):
    def before(self, saga: Any, delivery: Delivery) -> None: ...

    def after(self, saga: Any, delivery: Delivery) -> None: ...

    async def deliver(self, delivery: Delivery) -> Delivered:
        key = self._keys.get((delivery.tenant, delivery.name, delivery.saga_id), b"")
        saga = self._sagas.get(key)
        if saga is not None:
            self.before(saga, delivery)
        answer = await super().deliver(delivery)
        if saga is not None:
            self.after(saga, delivery)
        return answer


class RequestsComeTwice(ChangedDelivery):
    def before(self, saga: Any, delivery: Delivery) -> None:
        saga.requests.clear()


class RequestsCountForAllSagas(ChangedDelivery):
    def after(self, saga: Any, delivery: Delivery) -> None:
        for other in self._sagas.values():
            other.requests.add(delivery.request_id)


class FinalSagasAreAsked(ChangedDelivery):
    def before(self, saga: Any, delivery: Delivery) -> None:
        self.status, saga.status = saga.status, "running" if saga.status in FINAL_STATUSES else saga.status

    def after(self, saga: Any, delivery: Delivery) -> None:
        saga.status = self.status


class RequestsWakeNobody(ChangedDelivery):
    def before(self, saga: Any, delivery: Delivery) -> None:
        self.wake_at = saga.wake_at

    def after(self, saga: Any, delivery: Delivery) -> None:
        saga.wake_at = self.wake_at


class RequestsTakeTheSagaAway(ChangedDelivery):
    def after(self, saga: Any, delivery: Delivery) -> None:
        saga.owner, saga.wake_at = None, 0.0


class RequestsLeaveNoRow(ChangedDelivery):
    def after(self, saga: Any, delivery: Delivery) -> None:
        saga.rows[:] = [row for row in saga.rows if row.commit_id != delivery.commit_id]


class RequestsOfAnyTenant(Broken):
    async def deliver(self, delivery: Delivery) -> Delivered:
        tenants = [tenant for tenant, name, saga_id in self._keys if saga_id == delivery.saga_id]
        return await super().deliver(delivery._replace(tenant=tenants[0] if tenants else delivery.tenant))


# -- early events


class EarlyEventsAreDropped(Broken):
    async def deliver(self, delivery: Delivery) -> Delivered:
        answer = await super().deliver(delivery)
        if answer is Delivered.KEPT:
            self._early.clear()
        return answer


class EarlyEventsComeTwice(Broken):
    async def deliver(self, delivery: Delivery) -> Delivered:
        for early in self._early.values():
            early.expires_at = 0
        return await super().deliver(delivery)


class EarlyEventsAreForAnyName(Broken):
    def _insert(self, worker: str, turn: Turn, birth: Any, now: float) -> TurnResult:
        identity = (birth.tenant, birth.name, birth.saga_id)
        for (whose, number), early in list(self._early.items()):
            if whose[2] == birth.saga_id:
                self._early[identity, number] = self._early.pop((whose, number), early)
        return super()._insert(worker, turn, birth, now)


class EarlyEventsGoWithFailedBirths(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        result = super()._append(worker, turn, now)
        if result is TurnResult.REFUSED:
            self._early.clear()
        return result


class EarlyEventsNeverRunOut(Broken):
    def _insert(self, worker: str, turn: Turn, birth: Any, now: float) -> TurnResult:
        for early in self._early.values():
            early.expires_at = float("inf")
        return super()._insert(worker, turn, birth, now)


class DeadLettersAreNotCounted(Broken):
    def _give_up_early(self, now: float) -> int:
        super()._give_up_early(now)
        return 0


class DeadLettersAreCountedAgain(Broken):
    def _give_up_early(self, now: float) -> int:
        super()._give_up_early(now)
        return len(self._dead_letters)


class AnythingIsAConnection(Broken):
    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        return APPLIED


# -- looking


class LoadsComeSorted(Broken):
    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return await super().load(sorted(keys), after=after, with_plan=with_plan)


class LoadsAreWhole(Broken):
    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return await super().load(keys, with_plan=with_plan)


class FindsComeInAnyOrder(Broken):
    async def find(self, query: Query) -> Sequence[Summary]:
        return list(reversed(await super().find(query)))


class FindsAreWhole(Broken):
    async def find(self, query: Query) -> Sequence[Summary]:
        return await super().find(query._replace(after=None, limit=10**6))


class FindsLookAtNothing(Broken):
    async def find(self, query: Query) -> Sequence[Summary]:
        return await super().find(Query(keys=query.keys, after=query.after, limit=query.limit))


class SummariesChangeTheirAge(Broken):
    async def find(self, query: Query) -> Sequence[Summary]:
        return [one._replace(created_at=self._clock()) for one in await super().find(query)]


# -- the outbox


class BrokenOutbox(Broken):
    """Relays from an outbox of another kind."""

    kind: type[MemoryOutbox] = MemoryOutbox

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._outbox = self.kind()


class MessagesAreForgotten(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        return super()._append(worker, turn._replace(messages=()), now)


class OnlyBirthsPost(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        return super()._append(worker, turn if turn.birth else turn._replace(messages=()), now)


class MessagesAreTurnedRound(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        return super()._append(worker, turn._replace(messages=turn.messages[::-1]), now)


class MessagesLoseTheirHeaders(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        bare = tuple(one._replace(headers={}) for one in turn.messages)
        return super()._append(worker, turn._replace(messages=bare), now)


class WhateverBecameOfATurnItsMessagesWait(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        result = super()._append(worker, turn, now)
        if result is not APPLIED:
            self._outbox.post(turn.messages, now)
        return result


class ResendsPostAgain(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        saga = self.saga(turn)
        if saga is not None and self._stands(saga, turn):
            self._outbox.post(turn.messages, now)
        return super()._append(worker, turn, now)


class TurnsWithMessagesKeepTheSaga(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        if turn.messages and turn.hot is not None:
            turn = turn._replace(hot=turn.hot._replace(owned=True))
        return super()._append(worker, turn, now)


class OnlyRowsAreTooLarge(Broken):
    def _append(self, worker: str, turn: Turn, now: float) -> TurnResult:
        self._row_bytes_max = ROW_BYTES_MAX if len(turn.entries) > ROW_BYTES_MAX else 10**9
        return super()._append(worker, turn, now)


class PublishedMessagesStay(BrokenOutbox):
    class kind(MemoryOutbox):
        def settle(self, published: Any, refused: Any, now: float) -> None:
            super().settle((), refused, now)


class RefsAreUsedAgain(BrokenOutbox):
    class kind(MemoryOutbox):
        def post(self, messages: Any, now: float) -> None:
            self._refs = count(max(self._waiting, default=0) + 1)
            super().post(messages, now)


class UnknownRefsAreAnError(BrokenOutbox):
    class kind(MemoryOutbox):
        def settle(self, published: Any, refused: Any, now: float) -> None:
            assert all(ref in self._waiting for ref in published)
            super().settle(published, refused, now)


class RefusedMessagesVanish(BrokenOutbox):
    class kind(MemoryOutbox):
        def settle(self, published: Any, refused: Any, now: float) -> None:
            super().settle([*published, *refused], {}, now)


class RefusedMessagesBlockTheirKey(BrokenOutbox):
    class kind(MemoryOutbox):
        def settle(self, published: Any, refused: Any, now: float) -> None:
            super().settle(published, {}, now)
            for ref in refused:
                self._waiting[ref].claimed_until = float("inf")


class WhatIsPostedAgainStaysAside(BrokenOutbox):
    class kind(MemoryOutbox):
        def post_again(self, message_id: str, now: float) -> bool:
            aside = self.aside
            found = super().post_again(message_id, now)
            self.aside = aside
            return found


class WhatIsPostedAgainIsLost(BrokenOutbox):
    class kind(MemoryOutbox):
        def post_again(self, message_id: str, now: float) -> bool:
            return self.drop(message_id)


class WhatIsPostedAgainHasItsOldPlace(BrokenOutbox):
    class kind(MemoryOutbox):
        def post_again(self, message_id: str, now: float) -> bool:
            found = super().post_again(message_id, now)
            if found:
                self._waiting[0] = self._waiting.pop(max(self._waiting))
            return found


class DropsDropAll(BrokenOutbox):
    class kind(MemoryOutbox):
        def drop(self, message_id: str) -> bool:
            found = super().drop(message_id)
            self.aside = {} if found else self.aside
            return found


class DropsReachWhatWaits(BrokenOutbox):
    class kind(MemoryOutbox):
        def drop(self, message_id: str) -> bool:
            refs = [ref for ref, one in self._waiting.items() if one.message.id == message_id]
            return super().drop(message_id) or any(self._waiting.pop(ref) for ref in refs)


class ChangedOutbox(MemoryOutbox):
    """Hands out what it should not, or not what it should."""

    def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
        return super()._claimable(relay, now)

    def _claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
        return self.claimable(relay, now)


class ClaimsHoldOneRowAndNotItsKey(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            return ((ref, one) for ref, one in sorted(self._waiting.items()) if one.claimed_until <= now)


class ClaimsHoldEverything(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            is_held = any(one.claimed_until > now for one in self._waiting.values())
            return iter(()) if is_held else super().claimable(relay, now)


class ClaimsAreNotKept(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            return super().claimable(relay, now + 10**6)


class ClaimsEndTooEarly(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            return super().claimable(relay, now + 0.125)


class ClaimsEndTooLate(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            return super().claimable(relay, now - 0.125)


class RepeatedCallsFindNothing(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            return super().claimable(uuid4().hex, now)


class TheNewestComeFirst(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            return reversed([*super().claimable(relay, now)])


class AWatermarkMoves(BrokenOutbox):
    class kind(ChangedOutbox):
        seen = 0

        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            found = [(ref, one) for ref, one in super().claimable(relay, now) if ref > self.seen]
            self.seen = max((ref for ref, _ in found), default=self.seen)
            return iter(found)


class OnlyTheOldestAreLookedAt(BrokenOutbox):
    class kind(ChangedOutbox):
        def claimable(self, relay: str, now: float) -> Iterator[tuple[int, Any]]:
            oldest = sorted(self._waiting)[:20]
            return ((ref, one) for ref, one in super(ChangedOutbox, self)._claimable(relay, now) if ref in oldest)


class LimitsAreIgnored(BrokenOutbox):
    class kind(MemoryOutbox):
        def claim(self, relay: str, limit: int, now: float, until: float) -> Relayed:
            return super().claim(relay, 100, now, until)


class ClaimedMessagesAreNotCounted(BrokenOutbox):
    class kind(MemoryOutbox):
        def outstanding(self, now: float) -> Outstanding:
            found = super().outstanding(now)
            return found._replace(waiting=sum(one.claimed_until <= now for one in self._waiting.values()))


# -- transactions of the caller


class StartsPostNothing(SqliteStore):
    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        return await super().start(turn._replace(messages=()), connection=connection)


class StartsCommitAtOnce(SqliteStore):
    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        result = await super().start(turn, connection=connection)
        if isinstance(connection, apsw.Connection):
            connection.execute("COMMIT")
            connection.execute("BEGIN")
        return result


class StartsAreNeverTaken(SqliteStore):
    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        if turn.birth is not None and isinstance(connection, apsw.Connection):
            turn = turn._replace(birth=turn.birth._replace(saga_id=uuid4().hex))
        return await super().start(turn, connection=connection)


class StartsWaitForEver(SqliteStore):
    async def start(self, turn: Turn, *, connection: object) -> TurnResult:
        result = await super().start(turn, connection=connection)
        if isinstance(connection, apsw.Connection):
            connection.execute("UPDATE sagas SET wake_at = NULL WHERE key = ?", (turn.key,))
        return result


def every(kind: type) -> Iterator[type]:
    """Yield all subclasses, theirs too."""
    for child in kind.__subclasses__():
        yield child
        yield from every(child)


SHAPES = {ChangedClaim, ChangedDelivery, BrokenOutbox}
BROKEN = [kind for kind in every(Broken) if kind not in SHAPES]
BROKEN_IN_SQL = [StartsPostNothing, StartsCommitAtOnce, StartsAreNeverTaken, StartsWaitForEver]
