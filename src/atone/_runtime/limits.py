"""The bounds of one worker, as data that users set.

Owns the numbers and what they mean; nothing else. Read by the worker and its parts, handed to `Orchestrator(limits=)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from atone._runtime.arguments import is_span
from atone.definition import Saga
from atone.errors import DefinitionError

_COUNTS = frozenset({"sagas_in_flight_max", "threads_max", "starts_waiting_max"})
_NEVER_ZERO = frozenset({"poll_seconds", "lease_seconds", "loop_stall_seconds"})


@dataclass(frozen=True)
class Limits:
    """The bounds of one worker; times in seconds.

    `sagas_in_flight_max`: sagas owned at once; more are stored and wait their turn. `keep_seconds`: a shorter wait
    keeps its saga in memory. `grace_seconds`: how long a shutdown waits for calls under way. `threads_max`: plain
    functions that run at once. `cancel_grace_seconds`: how long a timed-out async call may take to end.
    `starts_waiting_max`: starts that wait until they are durable; one more is refused. `sagas_in_flight_of`: a bound
    for single definitions, by class or by name (then for all versions), as in `{PlaceOrder: 50}`; it is this worker's,
    so a fleet of ten runs ten times as many.

    Raises:
        DefinitionError: A bound is none: a time is negative or endless, or nothing could ever run within it.
    """

    sagas_in_flight_max: int = 2000
    poll_seconds: float = 0.5
    lease_seconds: float = 10.0
    loop_stall_seconds: float = 30.0
    keep_seconds: float = 2.0
    grace_seconds: float = 10.0
    cancel_grace_seconds: float = 1.0
    threads_max: int = 32
    starts_waiting_max: int = 20_000
    sagas_in_flight_of: Mapping[type[Saga[Any]] | str, int] = field(default_factory=dict[type[Saga[Any]] | str, int])

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.name != "sagas_in_flight_of":
                _check(one.name, getattr(self, one.name))
        for saga, most in self.sagas_in_flight_of.items():
            _check_bound(saga, most)

    @property
    def bounds_by_name(self) -> dict[str, int]:
        """The bounds of single definitions, by their names; the smallest counts where there are several."""
        bounds: dict[str, int] = {}
        for saga, most in self.sagas_in_flight_of.items():
            name = saga if isinstance(saga, str) else saga.plan().name
            bounds[name] = min(most, bounds.get(name, most))
        return bounds


def _check_bound(saga: object, most: object) -> None:
    is_saga = isinstance(saga, str) or (isinstance(saga, type) and issubclass(saga, Saga))
    if not is_saga or type(most) is not int or most < 1:
        raise DefinitionError(
            "Limits(sagas_in_flight_of=) gives saga classes or their names a whole number each, 1 or more; "
            "write {PlaceOrder: 50}."
        )


def _check(name: str, value: Any) -> None:
    if name in _COUNTS:
        if type(value) is not int or value < 1:
            raise DefinitionError(f"Limits({name}=) is a whole number, 1 or more; leave it out to get its default.")
    elif not is_span(value) or (name in _NEVER_ZERO and value == 0):
        least = "more than 0" if name in _NEVER_ZERO else "0 or more"
        raise DefinitionError(
            f"Limits({name}=) is a finite number of seconds, {least}; leave it out to get its default."
        )
