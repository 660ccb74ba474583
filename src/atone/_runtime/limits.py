"""The bounds of one worker, as data that users set.

Owns the numbers and what they mean; nothing else. Read by the worker and its parts, handed to `Orchestrator(limits=)`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds of one worker; times in seconds.

    `sagas_in_flight_max`: sagas owned at once; more are stored and wait their turn. `keep_seconds`: a shorter wait
    keeps its saga in memory. `grace_seconds`: how long a shutdown waits for calls under way. `threads_max`: plain
    functions that run at once. `cancel_grace_seconds`: how long a timed-out async call may take to end.
    """

    sagas_in_flight_max: int = 2000
    poll_seconds: float = 0.5
    lease_seconds: float = 10.0
    loop_stall_seconds: float = 30.0
    keep_seconds: float = 2.0
    grace_seconds: float = 10.0
    cancel_grace_seconds: float = 1.0
    threads_max: int = 32
