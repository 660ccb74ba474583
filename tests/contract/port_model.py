"""A model of the store port: what each call must answer, as plain data and without a thought of speed.

Owns no clock, no lock and no I/O: time is an argument that the test moves. Where the port leaves a choice (which of the
due sagas a claim takes, how a view's keys are made), the model is given what the store chose, complains if that was no
choice to make, and goes on from there. It must not share code with a store. Used by the differential machine.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from atone.broker import Message
from atone.errors import WorkerDead
from atone.store import (
    FINAL_STATUSES,
    VIEW_OVER_STATUSES,
    Birth,
    Census,
    Claimed,
    Count,
    Delivered,
    Delivery,
    Hot,
    Lease,
    Loaded,
    Marked,
    Observed,
    Outstanding,
    Query,
    Row,
    SetAside,
    StoredPlan,
    Summary,
    Turn,
    TurnResult,
)

Identity = tuple[str, str, str]
Definition = tuple[str, int, str]


class Disagreement(AssertionError):
    """A store answered what the port does not allow."""


class Waiting(NamedTuple):
    """A message in the outbox: its place in the order of all, who has it in hand, and until when."""

    place: int
    message: Message
    at: float
    relay: str = ""
    until: float = 0.0


class PortModel:
    """What a store has to remember, and what it has to say."""

    def __init__(self, now: float, row_bytes_max: int) -> None:
        self.now = now
        self.row_bytes_max = row_bytes_max
        self.leases: dict[str, float] = {}
        self.dead: set[str] = set()
        self.plans: dict[Definition, str] = {}
        self.sagas: dict[bytes, Summary] = {}
        self.journals: dict[bytes, list[Row]] = {}
        self.requests: set[tuple[bytes, str]] = set()
        self.asked: set[bytes] = set()
        self.early: dict[tuple[Identity, str], tuple[Delivery, float]] = {}
        self.outbox: list[Waiting] = []
        self.aside: dict[int, SetAside] = {}
        self.posted = 0
        self.views = ViewModel(self.plans)

    # -- workers -------------------------------------------------------------------------------------------------

    def renew(self, worker: str | None, seconds: float, register: Sequence[StoredPlan] | None) -> Lease:
        is_new = worker is not None and register is not None and worker not in self.leases
        if worker is not None and not is_new and (worker not in self.leases or worker in self.dead):
            raise WorkerDead(worker)
        for plan in register or ():
            self.plans[plan.name, plan.version, plan.plan_hash] = plan.plan
        if worker is None:
            return Lease(self.now, self.now)
        self.leases[worker] = self.now + seconds
        if seconds <= 0:
            self.dead.add(worker)
        return Lease(self.now, self.now + seconds)

    def is_alive(self, worker: str) -> bool:
        return worker not in self.dead and self.leases.get(worker, 0.0) > self.now

    def _check_alive(self, worker: str) -> None:
        if not self.is_alive(worker):
            raise WorkerDead(worker)

    # -- turns ---------------------------------------------------------------------------------------------------

    def commit(self, worker: str | None, turns: Sequence[Turn], told: Sequence[TurnResult] = ()) -> list[TurnResult]:
        """Let a batch happen; where two answers are true, the one that was `told` is."""
        if worker is not None:
            self._check_alive(worker)
        results = [self._turn(worker, turn) for turn in turns]
        for at, (turn, other) in enumerate(zip(turns, told, strict=False)):
            # Its key is another saga's, its name that of a neighbour in the batch: which of the two a store meets
            # first is its own affair.
            is_either = turn.birth is not None and turn.key in self.sagas and results[at] is TurnResult.TAKEN
            if is_either and other is TurnResult.CONFLICT:
                results[at] = other
        return results

    def judge(self, worker: str | None, turn: Turn) -> TurnResult:
        """Say what would become of a turn, and change nothing."""
        rows = self.journals.get(turn.key, ())
        if any((row.version, row.commit_id) == (turn.version, turn.commit_id) for row in rows):
            return TurnResult.APPLIED
        if max(len(turn.entries), *(len(one.body) for one in turn.messages), 0) > self.row_bytes_max:
            return TurnResult.REFUSED
        if turn.birth is not None:
            if self.key_of(turn.birth[:3]) is not None:
                return TurnResult.TAKEN
            return TurnResult.CONFLICT if turn.key in self.sagas else TurnResult.APPLIED
        if worker is None or turn.key not in self.sagas or self.sagas[turn.key].owner != worker:
            return TurnResult.NOT_MINE
        return TurnResult.APPLIED if turn.version == len(rows) + 1 else TurnResult.CONFLICT

    def key_of(self, identity: Sequence[object]) -> bytes | None:
        return next((key for key, one in self.sagas.items() if one[1:4] == tuple(identity)), None)

    def _turn(self, worker: str | None, turn: Turn) -> TurnResult:
        result = self.judge(worker, turn)
        stood = any(row.commit_id == turn.commit_id for row in self.journals.get(turn.key, ()))
        if result is not TurnResult.APPLIED or stood:
            return result
        self._append(turn.key, turn.commit_id, turn.entries)
        self.asked.discard(turn.key)
        if turn.birth is not None and turn.hot is not None:
            self._bear(worker, turn.key, turn.birth, turn.hot)
        elif turn.hot is not None:
            owner = worker if turn.hot.owned else None
            hot = {"status": turn.hot.status, "owner": owner, "wake_at": turn.hot.wake_at}
            self.sagas[turn.key] = self.sagas[turn.key]._replace(**hot)
        self._post(turn.messages)
        return result

    def _append(self, key: bytes, commit_id: bytes, entries: bytes) -> None:
        rows = self.journals.setdefault(key, [])
        rows.append(Row(len(rows) + 1, self.now, commit_id, entries))

    def _bear(self, worker: str | None, key: bytes, birth: Birth, hot: Hot) -> None:
        owner = worker if hot.owned else None
        wake_at = self.now if worker is None and hot.wake_at is None else hot.wake_at
        self.sagas[key] = Summary(key, *birth, hot.status, owner, wake_at, self.now)
        for whose, request_id in list(self.early):
            delivery, expires_at = self.early[whose, request_id]
            if whose == birth[:3] and expires_at > self.now and hot.status not in FINAL_STATUSES:
                del self.early[whose, request_id]
                self._ask(key, delivery)

    # -- requests ------------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> Delivered:
        key = self.key_of(delivery[:3])
        if key is None:
            return self._keep(delivery)
        if (key, delivery.request_id) in self.requests:
            return Delivered.DUPLICATE
        if self.sagas[key].status in FINAL_STATUSES:
            return Delivered.FINAL
        self._ask(key, delivery)
        return Delivered.APPENDED

    def _ask(self, key: bytes, delivery: Delivery) -> None:
        self._append(key, delivery.commit_id, delivery.entries)
        self.requests.add((key, delivery.request_id))
        self.asked.add(key)
        if self.sagas[key].owner is None:
            self.sagas[key] = self.sagas[key]._replace(wake_at=self.now)

    def _keep(self, delivery: Delivery) -> Delivered:
        if delivery.keep_seconds is None:
            return Delivered.UNKNOWN
        place = (delivery[:3], delivery.request_id)
        if place in self.early and self.early[place][1] > self.now:
            return Delivered.DUPLICATE
        # One that has run out, and that nobody has given up yet, comes anew, and in its old place.
        self.early[place] = (delivery, self.now + delivery.keep_seconds)
        return Delivered.KEPT

    # -- claims --------------------------------------------------------------------------------------------------

    def claim(
        self,
        worker: str,
        definitions: Collection[Definition],
        known: Collection[bytes],
        limit: int,
        lease_seconds: float,
        limits: Mapping[str, int],
        chosen: Sequence[bytes],
    ) -> Claimed:
        """Take over what `chosen` says, if the port allows that choice."""
        self._check_alive(worker)
        self.dead.update(other for other, until in self.leases.items() if until <= self.now)
        mine = sorted(key for key, one in self._unfinished() if one.owner == worker)
        newer = tuple(key for key in mine if key in known and key in self.asked)
        lost = [key for key in mine if key not in known][:limit]
        due = {key: definition_of(one) for key, one in self._unfinished() if self._is_due(one)}
        unclaimable = sum(definition not in definitions for definition in due.values())
        claimable = {key: definition for key, definition in due.items() if definition in definitions}
        found = list(chosen[len(lost) :])
        if list(chosen[: len(lost)]) != lost:
            raise Disagreement(f"mine without my knowing: {chosen[: len(lost)]!r} instead of {lost!r}")
        bounds = {name: most - sum(self.sagas[key].name == name for key in lost) for name, most in limits.items()}
        check_choice(found, claimable, limit - len(lost), bounds)
        for key in found:
            self.sagas[key] = self.sagas[key]._replace(owner=worker)
        if chosen:
            self.leases[worker] = max(self.leases[worker], self.now + lease_seconds)
        living = [until for other, until in self.leases.items() if other not in self.dead and other != worker]
        next_end = min(living, default=None)
        return Claimed(tuple(chosen), newer, unclaimable, self._give_up_early(), self.now, next_end)

    def _unfinished(self) -> Iterator[tuple[bytes, Summary]]:
        return ((key, one) for key, one in self.sagas.items() if one.status not in FINAL_STATUSES)

    def _is_due(self, one: Summary) -> bool:
        if one.owner is None:
            return one.wake_at is not None and one.wake_at <= self.now
        return one.owner in self.dead

    def _give_up_early(self) -> int:
        gone = [place for place, (_, expires_at) in self.early.items() if expires_at <= self.now]
        for place in gone:
            del self.early[place]
        return len(gone)

    # -- looks ---------------------------------------------------------------------------------------------------

    def load(self, keys: Sequence[bytes], after: int, with_plan: bool) -> list[Loaded | None]:
        return [self._load(key, after, with_plan) if key in self.sagas else None for key in keys]

    def _load(self, key: bytes, after: int, with_plan: bool) -> Loaded:
        plan = self.plans.get(definition_of(self.sagas[key])) if with_plan else None
        return Loaded(self.sagas[key], tuple(row for row in self.journals[key] if row.version > after), plan)

    def find(self, query: Query) -> list[Summary]:
        return find(self.sagas, query)

    def census(self) -> Census:
        ages: dict[tuple[str, str], list[float]] = defaultdict(list)
        for _, one in self._unfinished():
            ages[one.name, one.status].append(one.created_at)
        return Census(self.now, tuple(Count(*what, len(ages[what]), min(ages[what])) for what in sorted(ages)))

    # -- the outbox ----------------------------------------------------------------------------------------------

    def _post(self, messages: Sequence[Message]) -> None:
        self.outbox += [Waiting(place, one, self.now) for place, one in enumerate(messages, self.posted)]
        self.posted += len(messages)

    def relay(
        self, relay: str, published: Collection[str], refused: Mapping[str, str], limit: int, lease_seconds: float
    ) -> list[Waiting]:
        """Settle messages, named by their ids, and hand out others."""
        for one in self.outbox:
            if one.message.id in refused:
                self.aside[one.place] = SetAside(one.message, refused[one.message.id], self.now)
        gone = {*published, *refused}
        self.outbox = [one for one in self.outbox if one.message.id not in gone]
        held: set[str] = set()
        given: list[Waiting] = []
        for at, one in enumerate(self.outbox):
            if one.until > self.now and one.relay != relay:
                held.add(one.message.key)
            elif one.message.key not in held and len(given) < limit:
                self.outbox[at] = one._replace(relay=relay, until=self.now + lease_seconds)
                given.append(one)
        return given

    def outstanding(self) -> Outstanding:
        oldest_at = min((one.at for one in self.outbox), default=None)
        return Outstanding(len(self.outbox), oldest_at, len(self.aside), self.now)

    def set_aside(self, limit: int) -> list[SetAside]:
        return [one for _, one in sorted(self.aside.items())][:limit]

    def post_again(self, message_id: str) -> bool:
        self._post([one.message for _, one in sorted(self.aside.items()) if one.message.id == message_id])
        return self.drop_set_aside(message_id)

    def drop_set_aside(self, message_id: str) -> bool:
        gone = [place for place, one in self.aside.items() if one.message.id == message_id]
        for place in gone:
            del self.aside[place]
        return bool(gone)


class ViewModel:
    """Choreographed sagas: their events in the order of their coming, and a hot row."""

    def __init__(self, plans: Mapping[Definition, str]) -> None:
        self.plans = plans
        self.hot: dict[bytes, Summary] = {}
        self.folded: dict[bytes, int] = {}
        self.events: dict[bytes, list[Row]] = {}

    def observe(self, events: Sequence[Observed], chosen: Sequence[bytes]) -> list[bytes]:
        """Append events; a saga that is new gets the key that the store chose for it."""
        for event, key in zip(events, chosen, strict=True):
            identity = (event.tenant, event.name, event.saga_id)
            known = next((one.key for one in self.hot.values() if one[1:4] == identity), None)
            if known is None:
                if key in self.hot:
                    raise Disagreement(f"the key {key!r} of a new saga is another one's")
                known = key
                self.hot[key] = Summary(key, *identity, event.version, event.plan_hash, "pending", None, None, event.at)
                self.folded[key], self.events[key] = 0, []
            if known != key:
                raise Disagreement(f"an event of saga {known!r} went to {key!r}")
            rows, event_id = self.events[key], event.id.encode()
            if all(row.commit_id != event_id for row in rows):
                rows.append(Row(len(rows) + 1, event.at, event_id, event.entry))
        return list(chosen)

    def mark(self, marks: Sequence[Marked]) -> None:
        for key, rows, status, wake_at in marks:
            if key in self.hot and rows >= self.folded[key]:
                self.hot[key], self.folded[key] = self.hot[key]._replace(status=status, wake_at=wake_at), rows

    def load(self, keys: Sequence[bytes]) -> list[Loaded | None]:
        return [self._load(key) if key in self.hot else None for key in keys]

    def _load(self, key: bytes) -> Loaded:
        return Loaded(self.hot[key], tuple(self.events[key]), self.plans.get(definition_of(self.hot[key])))

    def find(self, query: Query) -> list[Summary]:
        return find(self.hot, query)

    def due(self, name: str, now: float, limit: int, chosen: Sequence[bytes]) -> list[bytes]:
        """Return what the store chose, if only sagas with the same time changed places."""
        times = {key: one.wake_at for key, one in self.hot.items() if one.name == name and one.wake_at is not None}
        wanted = sorted(at for at in times.values() if at <= now)[:limit]
        if len(set(chosen)) != len(chosen) or [times.get(key) for key in chosen] != wanted:
            raise Disagreement(f"due: {chosen!r}, but the times of what is due are {wanted!r}")
        return list(chosen)

    def purge(self, name: str, before: float, limit: int, left: Collection[bytes]) -> int:
        """Forget what the store forgot: `left` are the keys that it still has."""
        over = {key for key, one in self.hot.items() if one.name == name and one.status in VIEW_OVER_STATUSES}
        old = {key for key in over if all(row.at < before for row in self.events[key])}
        gone = self.hot.keys() - set(left)
        if not gone <= old or len(gone) != min(limit, len(old)):
            raise Disagreement(f"purged {sorted(gone)!r} of {sorted(old)!r}, at most {limit}")
        for key in gone:
            del self.hot[key], self.folded[key], self.events[key]
        return len(gone)


def definition_of(one: Summary) -> Definition:
    """Return what a saga follows."""
    return one.name, one.definition_version, one.plan_hash


def check_choice(
    found: Sequence[bytes], claimable: Mapping[bytes, Definition], room: int, bounds: Mapping[str, int]
) -> None:
    """Complain unless these are sagas that a claim may take: no fewer than it can, and fairly shared.

    Fair: no definition has two more than another that still has some, unless that one's name is at its bound.
    """
    if len(set(found)) != len(found) or not claimable.keys() >= set(found):
        raise Disagreement(f"taken: {found!r}, but due are {sorted(claimable)!r}")
    if len(found) > max(0, room):
        raise Disagreement(f"taken: {len(found)}, but there is room for {room}")
    given = Counter(claimable[key] for key in found)
    of_name = Counter(claimable[key][0] for key in found)
    left = {claimable[key] for key in claimable.keys() - set(found)}
    for name, most in bounds.items():
        if of_name[name] > max(0, most):
            raise Disagreement(f"taken: {of_name[name]} of {name}, whose bound leaves room for {most}")
    for poor in left:
        is_bound = of_name[poor[0]] >= bounds.get(poor[0], room + 1)
        if not is_bound and len(found) < room:
            raise Disagreement(f"one of {poor} is left though there is room")
        rich = [one for one in given if given[one] > given[poor] + 1 and (not is_bound or one[0] == poor[0])]
        if rich:
            raise Disagreement(f"{rich} got {given[rich[0]]} and {poor} only {given[poor]} though it has more")


def find(sagas: Mapping[bytes, Summary], query: Query) -> list[Summary]:
    """Return what fits, in the order of the keys."""
    wanted = {
        "tenant": query.tenant,
        "name": query.name,
        "saga_id": query.saga_id,
        "definition_version": query.definition_version,
    }
    named = {field: value for field, value in wanted.items() if value is not None}
    fitting = [
        one
        for key, one in sorted(sagas.items())
        if all(getattr(one, field) == value for field, value in named.items())
        and (query.statuses is None or one.status in query.statuses)
        and (query.keys is None or key in query.keys)
        and (query.other_hash_than is None or one.plan_hash != query.other_hash_than)
        and (query.after is None or key > query.after)
    ]
    return fitting[: query.limit]
