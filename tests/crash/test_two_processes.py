"""Two orchestrators on one SQLite file: they share the work, one goes on for the other, and the late one is not heard.

Each is a process of its own; a gate, which is a file, holds step 3 so that sagas are surely under way. What a process
wrote is told by the first half of its commit ids, which no other process has.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic, sleep

import pytest

from atone.store import FINAL_STATUSES
from tests.crash.child import Files, Life
from tests.crash.definitions import GATED
from tests.crash.participant import Participant
from tests.crash.processes import Process
from tests.crash.verdict import Found, judge, read

SAGAS = 12
PATIENCE_SECONDS = 60.0
# Long enough that no living process is taken for dead on a busy machine.
LEASE_SECONDS = 3.0


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """An empty folder for a run."""
    return Files(tmp_path)


def _until(what: str, is_so: Callable[[], bool]) -> None:
    """Look until it is so; how long that takes is nobody's business here."""
    end = monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert monotonic() < end, f"in vain: {what}"
        sleep(0.02)


def _process(files: Files, name: str) -> Process:
    return Process(files, Life(str(files.folder), name, lease_seconds=LEASE_SECONDS))


def _start(process: Process, ids: Collection[str], gate: Path | None = None) -> None:
    for saga_id in ids:
        process.order(start=saga_id, shape="Straight", gate=None if gate is None else str(gate))


def _at_the_gate(files: Files, pid: int) -> set[str]:
    """Return the sagas whose step 3 this process has called."""
    participant = Participant(files.participant)
    calls = participant.calls()
    participant.close()
    return {call.saga for call in calls if call.pid == pid and call.step == GATED}


def _found(files: Files) -> Found:
    return asyncio.run(read(files))


def _all_over(files: Files, ids: Collection[str]) -> bool:
    return {saga.saga_id for saga in _found(files).sagas if saga.status in FINAL_STATUSES} >= set(ids)


def _writers(found: Found, ids: Collection[str]) -> list[list[bytes]]:
    """Return for each saga which processes wrote its rows, in order, each run of rows once."""
    writers: list[list[bytes]] = []
    for saga in found.sagas:
        if saga.saga_id in ids:
            prefixes = [row.commit_id[:8] for row in saga.rows]
            writers.append([one for at, one in enumerate(prefixes) if at == 0 or one != prefixes[at - 1]])
    return writers


def test_what_a_killed_process_left_is_ended_by_the_other(files: Files) -> None:
    """Both work on one file; after a SIGKILL the survivor takes over when the lease is over."""
    gate = files.folder / "gate"
    ours, theirs = [f"a-{n}" for n in range(SAGAS)], [f"b-{n}" for n in range(SAGAS)]
    with _process(files, "a") as a, _process(files, "b") as b:
        a.wait_until_ready()
        b.wait_until_ready()
        _start(a, ours, gate)
        _start(b, theirs, gate)
        _until("each process is at step 3 of its own sagas", lambda: _at_the_gate(files, a.pid) == set(ours))
        _until("each process is at step 3 of its own sagas", lambda: _at_the_gate(files, b.pid) == set(theirs))
        a.kill()
        _until("the survivor is at step 3 of all", lambda: _at_the_gate(files, b.pid) == {*ours, *theirs})
        gate.touch()
        _until("all sagas are over", lambda: _all_over(files, [*ours, *theirs]))
        found = _found(files)
    verdict = judge(found)
    assert (verdict.stranded, verdict.untrue, verdict.twice) == ([], [], [])
    assert verdict.attempts_lost == SAGAS
    assert all(len(writers) == 2 for writers in _writers(found, ours)), "the dead one's, then the survivor's"
    assert all(len(writers) == 1 for writers in _writers(found, theirs)), "nobody takes a living process's sagas"


@pytest.mark.parametrize("opened", ["while it is stopped", "after it goes on"])
def test_a_process_that_was_stopped_past_its_lease_is_not_heard(files: Files, opened: str) -> None:
    """SIGSTOP past the lease, then SIGCONT: its sagas belong to the other; it drops them and takes new ones."""
    gate = files.folder / "gate"
    ids = [f"a-{n}" for n in range(SAGAS)]
    with _process(files, "a") as a, _process(files, "b") as b:
        a.wait_until_ready()
        b.wait_until_ready()
        _start(a, ids, gate)
        _until("the first is at step 3", lambda: _at_the_gate(files, a.pid) == set(ids))
        a.signal(signal.SIGSTOP)
        _until("the other has taken over", lambda: _at_the_gate(files, b.pid) == set(ids))
        if opened == "while it is stopped":
            gate.touch()
            _until("all sagas are over", lambda: _all_over(files, ids))
            a.signal(signal.SIGCONT)
        else:
            a.signal(signal.SIGCONT)
            _until("it has noticed", lambda: "was declared dead" in files.errors.read_text())
            gate.touch()
            _until("all sagas are over", lambda: _all_over(files, ids))
        _start(a, ["after"])
        _until("it works again, under a new id", lambda: _all_over(files, ["after"]))
        found = _found(files)
    verdict = judge(found)
    assert (verdict.stranded, verdict.untrue, verdict.twice) == ([], [], [])
    assert all(len(writers) == 2 for writers in _writers(found, ids)), "no row of the first after one of the other"
    assert "was declared dead" in files.errors.read_text()


def test_two_processes_that_are_fed_and_killed_in_turn_leave_nothing_undone(files: Files) -> None:
    """Random sagas in both; each is killed while the other works, and the sagas' ends are true."""
    for number in range(3):
        lives = [Life(str(files.folder), f"{name}{number}", feeders=6) for name in "ab"]
        with Process(files, lives[0]) as a, Process(files, lives[1]) as b:
            a.wait_until_ready()
            b.wait_until_ready()
            sleep(0.2)
            a.kill()
            sleep(0.1)
            b.kill()
    with Process(files, Life(str(files.folder), "last", drain=True)) as last:
        assert last.ends_within(PATIENCE_SECONDS), files.errors.read_text()
    verdict = judge(_found(files))
    assert (verdict.stranded, verdict.untrue, verdict.twice) == ([], [], [])
    assert verdict.ends.total() > 0
