"""Several processes on one SQLite file: nothing is lost, nothing is torn, and the living take over from the dead."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from atone.store import Hot, Query
from atone.testing._subject import Lab, turn_of
from tests.contract.scene import Clock, on_writer, opened
from tests.servers.processes import child_process

CHILD = Path(__file__).with_name("sqlite_child.py")
Row = tuple[bytes, int, bytes]


@contextmanager
def child(mode: str, path: Path, sagas: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Start a process that is ready, and waits for a line."""
    command = [sys.executable, str(CHILD), mode, str(path), str(sagas)]
    with child_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def acknowledged(lines: Sequence[str]) -> list[Row]:
    # A line that the kill has cut is no acknowledgement.
    words = [line.split() for line in lines if line.endswith("\n")]
    return [(bytes.fromhex(key), int(version), bytes.fromhex(commit_id)) for key, version, commit_id in words]


async def missing(lab: Lab, rows: Sequence[Row]) -> list[Row]:
    """Return what was acknowledged and is not there; complain about a journal with a gap."""
    stored: set[Row] = set()
    for summary in await lab.store.find(Query(limit=10**6)):
        versions = await lab.rows(summary.key)
        assert [row.version for row in versions] == list(range(1, len(versions) + 1))
        stored.update((summary.key, row.version, row.commit_id) for row in versions)
    return [row for row in rows if row not in stored]


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """Each has its own worker and its own sagas; what was acknowledged to either is there in the end."""
    with ExitStack() as stack:
        both = [stack.enter_context(child("write", tmp_path / "a.db", 80)) for _ in range(2)]
        for process in both:
            go(process)
        lines = [line for process in both for line in process.communicate(timeout=240)[0].splitlines(keepends=True)]
    assert [process.returncode for process in both] == [0, 0]
    rows = acknowledged(lines)
    assert len(rows) == 2 * (80 * 4 + 1)

    async def look() -> None:
        async with opened(tmp_path / "a.db") as lab:
            assert await missing(lab, rows) == []
            assert len(await lab.find(statuses=frozenset({"completed"}), limit=1000)) == 160
            assert await on_writer(lab, lambda c: c.pragma("integrity_check")) == "ok"

    asyncio.run(look())


def test_what_was_acknowledged_survives_a_kill_and_is_taken_over(tmp_path: Path) -> None:
    """SIGKILL in the middle of commits: acknowledged rows are there, and another worker goes on with every saga."""
    path = tmp_path / "a.db"
    for _ in range(3):
        with child("write", path, 10**6) as process:
            go(process)
            assert process.stdout is not None
            lines = list(islice(process.stdout, 150))
            process.kill()
            lines += list(process.stdout)
        rows = acknowledged(lines)
        assert len(rows) >= 150
        asyncio.run(_take_over(path, rows))


async def _take_over(path: Path, rows: Sequence[Row]) -> None:
    # The lease of the dead process is over by a clock that is two minutes ahead; nobody has to wait for it.
    async with opened(path, clock=Clock(time.time() + 120)) as lab:
        assert await missing(lab, rows) == []
        worker = lab.worker()
        unfinished = await lab.find(statuses=frozenset({"running"}), limit=1000)
        taken = (await lab.claim(worker, limit=1000)).taken
        assert sorted(taken) == unfinished
        assert taken
        for key in taken:
            await lab.applied(worker, turn_of(key, len(await lab.rows(key)) + 1, Hot("completed", False, None)))
        assert await on_writer(lab, lambda c: c.pragma("integrity_check")) == "ok"
        lab.store.renew(worker, 0)


def test_several_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    """The first migrations run once, whoever comes first; nobody takes a half-made file for somebody else's."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(child("create", tmp_path / "a.db")) for _ in range(4)]
        for process in crowd:
            go(process)
        for process in crowd:
            process.communicate(timeout=60)
    assert [process.returncode for process in crowd] == [0, 0, 0, 0]

    async def look() -> int:
        async with opened(tmp_path / "a.db") as lab:
            return int(await on_writer(lab, lambda c: c.execute("SELECT count(*) FROM workers").get))

    assert asyncio.run(look()) == 4


def test_two_stores_in_one_process_share_a_file(tmp_path: Path) -> None:
    """It is the same library, so their locks hold; each sees what the other has committed."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as one, opened(tmp_path / "a.db") as other:
            workers = one.worker(), other.worker()
            keys = await asyncio.gather(
                *(lab.born(worker) for _ in range(20) for lab, worker in zip((one, other), workers, strict=True))
            )
            assert await one.find() == await other.find() == sorted(keys)
            one.store.renew(workers[0], 0)
            assert len((await other.claim(workers[1], known=keys)).taken) == 20

    asyncio.run(use())
