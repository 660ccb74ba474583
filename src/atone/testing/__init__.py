"""What helps to test sagas, and to test what Atone stands on.

`verify` and its four parts run a saga of yours through every failure, crash, repeat and late result; beside them stand
the simulation, its clock, fakes of participants and `check_invariants`. Names are imported when they are asked for, so
that the pytest plugin costs nothing. It must not need a test framework. Called by tests: Atone's own, and those of
anyone who writes a saga or an adapter. Adapters have `contracts` and `broker_contract`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atone.testing.clock import VirtualClock
    from atone.testing.fakes import AfterEffect, FakeCall, FakeParticipant
    from atone.testing.invariants import (
        Called,
        Effect,
        InvariantsBroken,
        Violation,
        assert_invariants,
        check_invariants,
        read_histories,
    )
    from atone.testing.network import crossing, remote
    from atone.testing.simulate import Killed, Process, Simulation, Stuck, TooLong
    from atone.testing.verifying import (
        Finding,
        Report,
        Row,
        SagaBroken,
        Uncovered,
        crash_everywhere,
        fail_each_step,
        repeat_every_action,
        repeat_every_compensation,
        verify,
    )

__all__ = [
    "AfterEffect",
    "Called",
    "Effect",
    "FakeCall",
    "FakeParticipant",
    "Finding",
    "InvariantsBroken",
    "Killed",
    "Process",
    "Report",
    "Row",
    "SagaBroken",
    "Simulation",
    "Stuck",
    "TooLong",
    "Uncovered",
    "Violation",
    "VirtualClock",
    "assert_invariants",
    "check_invariants",
    "crash_everywhere",
    "crossing",
    "fail_each_step",
    "read_histories",
    "remote",
    "repeat_every_action",
    "repeat_every_compensation",
    "verify",
]

_HOMES = {
    "clock": ("VirtualClock",),
    "fakes": ("AfterEffect", "FakeCall", "FakeParticipant"),
    "invariants": (
        "Called",
        "Effect",
        "InvariantsBroken",
        "Violation",
        "assert_invariants",
        "check_invariants",
        "read_histories",
    ),
    "network": ("crossing", "remote"),
    "simulate": ("Killed", "Process", "Simulation", "Stuck", "TooLong"),
    "verifying": (
        "Finding",
        "Report",
        "Row",
        "SagaBroken",
        "Uncovered",
        "crash_everywhere",
        "fail_each_step",
        "repeat_every_action",
        "repeat_every_compensation",
        "verify",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a name when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"atone.testing.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found
