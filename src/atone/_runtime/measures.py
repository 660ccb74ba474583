"""What is measured: the names, labels and buckets of every metric, and what makes each of them move.

Owns the one list that Prometheus and OpenTelemetry share. Labels are names out of definitions and words of Atone's own:
no saga id, no reason, no tenant, so their number is bounded by the code. Must not know a metrics library: a bridge
brings the instruments. The base of the bridges in `integrations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import NamedTuple, Protocol, TypeAlias

from atone.store import Census, Outstanding
from atone.telemetry import (
    CENSUS_SECONDS,
    Attempted,
    AttemptObserver,
    Looked,
    Observer,
    SagaObserver,
    StartObserver,
    Subject,
)

# After so many censuses that did not come, the last one is no news: a gauge that is not there can be alerted on.
_STALE_AFTER = 4

_LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)


class Metric(NamedTuple):
    """One metric. `unit` is s for seconds; `buckets` are a histogram's upper bounds."""

    name: str
    about: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()


STARTED = Metric("atone.sagas.started", "Sagas started by this process.", ("saga",))
CLAIMED = Metric("atone.sagas.claimed", "Sagas taken over, or taken up when they were due.", ("saga",))
RELEASED = Metric("atone.sagas.released", "Sagas given up while they wait.", ("saga",))
SETTLED = Metric("atone.sagas.settled", "Sagas that ended or came to need attention.", ("saga", "outcome"))
TURNED_BACK = Metric("atone.sagas.turned_back", "Sagas that turned to undoing, by what made them.", ("saga", "trigger"))
ATTENTION = Metric("atone.attention.raised", "Steps, or whole sagas, that came to need a person.", ("saga", "step"))
GAVE_UP = Metric("atone.compensations.gave_up", "Compensations that will not be tried again.", ("saga", "step"))
KEEPS_FAILING = Metric("atone.steps.keep_failing", "Steps past their alert threshold.", ("saga", "step"))
ATTEMPTS = Metric(
    "atone.attempt.duration",
    "How long calls of user code took.",
    ("saga", "step", "operation", "outcome"),
    "s",
    _DURATIONS,
)
LOST = Metric("atone.attempts.lost", "Calls whose process is gone.", ("saga", "step", "operation"))
LATE = Metric("atone.attempts.landed_late", "Calls that were given up on and succeeded.", ("saga", "step"))
BATCH_TURNS = Metric("atone.commit.turns", "Turns in a commit.", (), "", _SIZES)
COMMITS = Metric(
    "atone.commit.duration", "From the first send of a commit to its definite answer.", (), "s", _LATENCIES
)
REPEATS = Metric("atone.commit.repeats", "Commits sent again because their outcome was unknown.")
REFUSED = Metric("atone.writes.refused", "Stale writes that the store refused; none of them was written.", ("why",))
LEASE_LOSSES = Metric("atone.lease.losses", "Times that this worker was declared dead.")
DEAD_LETTERS = Metric("atone.dead_letters", "Early events that found no saga in time.")
PUBLISHED = Metric("atone.outbox.published", "Messages that the broker has taken.")
MESSAGES_REFUSED = Metric("atone.outbox.refused", "Messages that no broker takes; they are set aside.")
RELAY_FAILURES = Metric("atone.outbox.failures", "Failed calls of the relay, by what it called.", ("where",))

UNFINISHED = Metric("atone.sagas.unfinished", "Unfinished sagas in the store.", ("saga", "status"))
OLDEST = Metric("atone.sagas.oldest_unfinished_age", "Age of the oldest unfinished saga.", ("saga",), "s")
IN_NEED = Metric("atone.sagas.in_need_of_attention", "Sagas that wait for a person.", ("saga",))
UNCLAIMABLE = Metric("atone.sagas.unclaimable", "Due sagas that no definition of this worker fits.")
IN_FLIGHT = Metric("atone.sagas.in_flight", "Sagas that this worker runs.")
WAITING = Metric("atone.outbox.waiting", "Messages that wait to be published.")
LAG = Metric("atone.outbox.oldest_age", "Age of the message that has waited longest.", (), "s")
SET_ASIDE = Metric("atone.outbox.set_aside", "Messages that no broker took, in the store.")

COUNTERS = (
    STARTED, CLAIMED, RELEASED, SETTLED, TURNED_BACK, ATTENTION, GAVE_UP, KEEPS_FAILING, LOST, LATE, REPEATS, REFUSED,
    LEASE_LOSSES, DEAD_LETTERS, PUBLISHED, MESSAGES_REFUSED, RELAY_FAILURES,
)  # fmt: skip
HISTOGRAMS = (ATTEMPTS, BATCH_TURNS, COMMITS)
GAUGES = (UNFINISHED, OLDEST, IN_NEED, UNCLAIMABLE, IN_FLIGHT, WAITING, LAG, SET_ASIDE)

Tell: TypeAlias = Callable[[float], object]


class Meter(Protocol):
    """Where instruments come from."""

    def counter(self, metric: Metric, labels: tuple[str, ...]) -> Tell:
        """Return what adds to a counter with these labels."""
        ...

    def histogram(self, metric: Metric, labels: tuple[str, ...]) -> Tell:
        """Return what a histogram with these labels is told a value by."""
        ...


class Measures(Observer):
    """Measures what the workers of this process do, all together; `gauges` tells how things stand."""

    def __init__(self, meter: Meter, census_seconds: float | None = CENSUS_SECONDS) -> None:
        self.census_seconds = census_seconds
        self._meter = meter
        self._definitions: dict[str, _Definition] = {}
        self._census: tuple[Census, float] | None = None
        self._looked: dict[str, tuple[Looked, float]] = {}
        self._turns, self._seconds = meter.histogram(BATCH_TURNS, ()), meter.histogram(COMMITS, ())
        self._repeats, self._losses = meter.counter(REPEATS, ()), meter.counter(LEASE_LOSSES, ())
        self._dead_letters = meter.counter(DEAD_LETTERS, ())
        self._outbox: tuple[Outstanding, float] | None = None
        self._published, self._set_aside = meter.counter(PUBLISHED, ()), meter.counter(MESSAGES_REFUSED, ())

    def starting(self, saga: Subject) -> StartObserver:
        return self._definition(saga).starts

    def follow(self, saga: Subject) -> SagaObserver:
        return self._definition(saga)

    def committed(self, turns: int, seconds: float) -> None:
        self._turns(turns)
        self._seconds(seconds)

    def commit_repeated(self, turns: int) -> None:
        self._repeats(1)

    def writes_refused(self, why: str, turns: int) -> None:
        self._meter.counter(REFUSED, (why,))(turns)

    def lease_lost(self, sagas: int) -> None:
        self._losses(1)

    def looked(self, found: Looked) -> None:
        if found.worker not in self._looked:  # a new one may stand where an old one stood
            self._looked = {one.worker: self._looked[one.worker] for one in self._looks()}
        self._looked[found.worker] = (found, monotonic())
        if found.dead_letters:
            self._dead_letters(found.dead_letters)

    def counted(self, census: Census) -> None:
        self._census = (census, monotonic())

    def relayed(self, published: int, refused: int, unheard: int) -> None:
        self._published(published)
        self._set_aside(refused)

    def relay_failed(self, where: str) -> None:
        self._meter.counter(RELAY_FAILURES, (where,))(1)

    def posting(self, found: Outstanding) -> None:
        self._outbox = (found, monotonic())

    def gauges(self) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
        """Yield what is known of how things stand now, from any thread; nothing that is no news any more."""
        looks = self._looks()
        if looks:
            yield UNCLAIMABLE, (), sum(one.unclaimable for one in looks)
            yield IN_FLIGHT, (), sum(one.in_flight for one in looks)
        if self.census_seconds is None:
            return
        newest = _STALE_AFTER * self.census_seconds
        if self._census is not None and (passed := monotonic() - self._census[1]) <= newest:
            yield from _of_census(self._census[0], passed)
        if self._outbox is not None and (passed := monotonic() - self._outbox[1]) <= newest:
            yield from _of_outbox(self._outbox[0], passed)

    def _looks(self) -> list[Looked]:
        """Return the last look of each worker that has looked lately."""
        now, usual = monotonic(), self.census_seconds or CENSUS_SECONDS
        return [
            look
            for look, at in [*self._looked.values()]
            if now - at <= _STALE_AFTER * max(usual, look.again_in_seconds)
        ]

    def _definition(self, saga: Subject) -> _Definition:
        found = self._definitions.get(saga.name)
        if found is None:
            found = self._definitions[saga.name] = _Definition(self._meter, saga.name)
        return found


def _of_census(census: Census, passed: float) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
    oldest: dict[str, float] = {}
    in_need: dict[str, int] = {}
    for count in census.counts:
        yield UNFINISHED, (count.name, count.status), count.sagas
        oldest[count.name] = min(count.oldest_at, oldest.get(count.name, count.oldest_at))
        in_need[count.name] = in_need.get(count.name, 0) + (count.sagas if count.status == "needs_attention" else 0)
    for name, at in oldest.items():
        yield OLDEST, (name,), max(0.0, census.now - at + passed)
        yield IN_NEED, (name,), in_need[name]


def _of_outbox(found: Outstanding, passed: float) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
    yield WAITING, (), found.waiting
    yield LAG, (), 0.0 if found.oldest_at is None else max(0.0, found.now - found.oldest_at + passed)
    yield SET_ASIDE, (), found.refused


class _Starts(StartObserver):
    def __init__(self, meter: Meter, name: str) -> None:
        self._made = meter.counter(STARTED, (name,))

    def ended(self, made: bool, error: str | None) -> None:
        if made:
            self._made(1)


class _Definition(SagaObserver):
    """All sagas of one name: a metric knows no single one."""

    def __init__(self, meter: Meter, name: str) -> None:
        self._meter, self._name = meter, name
        self._attempts: dict[tuple[str, str], _Attempts] = {}
        self._outcomes: dict[str, Tell] = {}
        self.starts = _Starts(meter, name)

    def claimed(self) -> None:
        self._count(CLAIMED)

    def released(self) -> None:
        self._count(RELEASED)

    def settled(self, status: str) -> None:
        tell = self._outcomes.get(status)
        if tell is None:
            tell = self._outcomes[status] = self._meter.counter(SETTLED, (self._name, status))
        tell(1)

    def turned_back(self, trigger: str) -> None:
        self._count(TURNED_BACK, trigger)

    def attention_raised(self, step: str | None) -> None:
        self._count(ATTENTION, step or "")

    def compensation_gave_up(self, step: str) -> None:
        self._count(GAVE_UP, step)

    def keeps_failing(self, step: str) -> None:
        self._count(KEEPS_FAILING, step)

    def attempt_lost(self, what: Attempted) -> None:
        self._count(LOST, what.step, what.operation)

    def landed_late(self, step: str) -> None:
        self._count(LATE, step)

    def attempt(self, what: Attempted) -> AttemptObserver:
        place = (what.step, what.operation)
        found = self._attempts.get(place)
        if found is None:
            found = self._attempts[place] = _Attempts(self._meter, (self._name, *place))
        return found

    def _count(self, metric: Metric, *labels: str) -> None:
        self._meter.counter(metric, (self._name, *labels))(1)


class _Attempts(AttemptObserver):
    """All calls of one operation of one step."""

    def __init__(self, meter: Meter, place: tuple[str, str, str]) -> None:
        self._meter, self._place = meter, place
        self._by_outcome: dict[str, Tell] = {}

    def ended(self, outcome: str, seconds: float, error: str | None) -> None:
        tell = self._by_outcome.get(outcome)
        if tell is None:
            tell = self._by_outcome[outcome] = self._meter.histogram(ATTEMPTS, (*self._place, outcome))
        tell(seconds)
