"""What `atone.testing` gives: these names, each of them there, and nothing imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import atone.testing

PROMISED = {
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
}


def test_the_public_names_are_the_promised_ones() -> None:
    """A change here is a change for everybody who tests sagas, so it is made on purpose."""
    assert set(atone.testing.__all__) == PROMISED
    assert all(getattr(atone.testing, name).__name__ for name in PROMISED)


def test_a_name_that_is_none_is_missed_as_anywhere() -> None:
    """The lazy look-up says so itself."""
    with pytest.raises(AttributeError, match="no attribute 'verfy'"):
        _ = atone.testing.verfy  # type: ignore[attr-defined]


def test_importing_the_package_imports_none_of_it() -> None:
    """An adapter's test that needs a contract does not pay for a simulation."""
    code = "import sys, atone.testing; assert not [m for m in sys.modules if m.startswith('atone.testing.')]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
