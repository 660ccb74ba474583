"""The bounds of one worker, as data that users set.

Owns the numbers and what they mean; nothing else. Read by the worker and its parts, handed to `Orchestrator(limits=)`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from atone._runtime.arguments import is_span
from atone.errors import DefinitionError

_COUNTS = frozenset({"sagas_in_flight_max", "threads_max"})
_NEVER_ZERO = frozenset({"poll_seconds", "lease_seconds", "loop_stall_seconds"})


@dataclass(frozen=True)
class Limits:
    """The bounds of one worker; times in seconds.

    `sagas_in_flight_max`: sagas owned at once; more are stored and wait their turn. `keep_seconds`: a shorter wait
    keeps its saga in memory. `grace_seconds`: how long a shutdown waits for calls under way. `threads_max`: plain
    functions that run at once. `cancel_grace_seconds`: how long a timed-out async call may take to end.

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

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one.name, getattr(self, one.name))


def _check(name: str, value: Any) -> None:
    if name in _COUNTS:
        if type(value) is not int or value < 1:
            raise DefinitionError(f"Limits({name}=) is a whole number, 1 or more; leave it out to get its default.")
    elif not is_span(value) or (name in _NEVER_ZERO and value == 0):
        least = "more than 0" if name in _NEVER_ZERO else "0 or more"
        raise DefinitionError(
            f"Limits({name}=) is a finite number of seconds, {least}; leave it out to get its default."
        )
