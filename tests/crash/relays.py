"""Kill processes at random while they relay what their sagas tell; then compare what was published with the journals.

Owns the moments of the kills and the verdict: each row of each journal says which messages it must have told, in which
order; the ledger of the broker says what came, and when. Nothing may be missing or unknown, a message that came again
has the same id and the same words, and of each saga the first ones came in order. Run as
`python -m tests.crash.relays --store sqlite --kills 200 --json`; the exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

import msgspec

from atone._core.events import lifecycle_events
from atone._core.fold import fold
from atone._core.keys import part_of_saga
from atone._core.state import SagaState
from atone._runtime.wire import decode_entries
from atone.store import Query
from atone.stores.postgres import migrate
from atone.testing.postgres import postgres_server
from tests.crash.relay_child import Errand, Life, Line, store_of

ROOT = Path(__file__).parents[2]
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What to do: kill so often, of so many processes that work at once. `breaks` names a fault to be found."""

    store: str = "sqlite"
    kills: int = 8
    processes: int = 2
    feeders: int = 4
    seed: int = 1
    drain_seconds: float = 90.0
    breaks: str = ""


@dataclass
class Verdict:
    """What the journals and the ledger say. The last four must be empty."""

    store: str
    kills: int
    sagas: int = 0
    messages: int = 0
    published: int = 0
    published_again: int = 0
    left: int = 0
    drained: bool = True
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything is as it must be."""
        wrong = self.lost or self.unknown or self.changed or self.out_of_order
        return self.drained and not self.left and not wrong and self.messages > 0


class Process:
    """One life; it is surely gone at the end of the block."""

    def __init__(self, life: Life) -> None:
        command = [sys.executable, "-m", "tests.crash.relay_child", msgspec.json.encode(life).decode()]
        self._errors = (Path(life.folder) / "stderr.txt").open("ab")
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env={**os.environ}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def wait_until_ready(self) -> None:
        """Return when its orchestrator is open."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "it never became ready; see stderr.txt"

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def ends_within(self, seconds: float) -> bool:
        """Wait for it to end by itself."""
        try:
            return self._process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False


def torment(plan: Plan, folder: Path) -> Verdict:
    """Kill and replace, let everything end, and judge."""
    with _place(plan) as url:
        drained = _kill_at_random(plan, folder, url)
        verdict = asyncio.run(_judged(plan, folder, url))
    verdict.drained = drained
    return verdict


@contextmanager
def _place(plan: Plan) -> Iterator[str | None]:
    if plan.store == "sqlite":
        yield None
        return
    with postgres_server() as server:
        asyncio.run(migrate(server.url()))
        yield server.url()


def _kill_at_random(plan: Plan, folder: Path, url: str | None) -> bool:
    rng = random.Random(plan.seed)

    def life(name: str, *, drain: bool = False) -> Life:
        return Life(str(folder), name, rng.randrange(2**32), plan.feeders, drain, url, plan.breaks)

    with ExitStack() as stack:
        running = [stack.enter_context(Process(life(f"p{number}"))) for number in range(plan.processes)]
        for process in running:
            process.wait_until_ready()
        for number in range(plan.kills):
            sleep(rng.uniform(0.02, 0.4))
            at = rng.randrange(len(running))
            running[at].kill()
            running[at] = stack.enter_context(Process(life(f"k{number}")))
            if rng.random() < 0.85:  # some are killed while they still open their store
                running[at].wait_until_ready()
        for process in running:
            process.kill()
        last = stack.enter_context(Process(life("last", drain=True)))
        return last.ends_within(plan.drain_seconds)


async def _judged(plan: Plan, folder: Path, url: str | None) -> Verdict:
    verdict = Verdict(plan.store, plan.kills)
    expected = await _expected(verdict, folder, url)
    told = (folder / "ledger.jsonl").read_bytes().splitlines()
    # A line without its own end and its body's was torn by a kill; nobody has confirmed it, so it must come again.
    lines = [msgspec.json.decode(line, type=Line) for line in told if line.endswith(b'}"}')]
    first: dict[str, Line] = {}
    came: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line.id not in first:
            first[line.id] = line
            came[line.key].append(line.id)
        elif first[line.id] != line:
            verdict.changed.append(line.id)
    known = {message_id for ids in expected.values() for message_id in ids}
    verdict.messages, verdict.published, verdict.published_again = len(known), len(lines), len(lines) - len(first)
    verdict.lost = sorted(known - first.keys())
    verdict.unknown = sorted(first.keys() - known)
    verdict.out_of_order = [key for key, ids in expected.items() if [one for one in ids if one in first] != came[key]]
    return verdict


async def _expected(verdict: Verdict, folder: Path, url: str | None) -> dict[str, list[str]]:
    """Return, for each saga, the ids of all that its journal must have told, in order."""
    plan = Errand(0).plan()
    expected: dict[str, list[str]] = {}
    async with store_of(Life(str(folder), "judge", 0, url=url)) as store:
        verdict.left = (await store.outstanding()).waiting
        after: bytes | None = None
        while found := await store.find(Query(after=after, limit=500)):
            after = found[-1].key
            verdict.sagas += len(found)
            for loaded in await store.load([one.key for one in found]):
                assert loaded is not None
                saga: SagaState | None = None
                ids: list[str] = []
                for row in loaded.rows:
                    entries = decode_entries(row.entries)
                    told = lifecycle_events(plan, saga, entries)
                    ids += [f"{loaded.summary.key.hex()}-{row.version}-{at}" for at in range(len(told))]
                    saga = fold(plan, saga, entries)
                one = loaded.summary
                expected[part_of_saga(one.tenant, one.name, one.saga_id)] = ids
    return expected


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill processes that relay, and see what came of their messages.")
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--feeders", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    plan = Plan(given.store, given.kills, given.processes, given.feeders, given.seed)
    folder, begun = Path(tempfile.mkdtemp(prefix="atone-relays-")), monotonic()
    verdict = torment(plan, folder)
    counted = {name: len(value) if isinstance(value, list) else value for name, value in asdict(verdict).items()}
    figures = {"test": "relays", **counted, "processes": plan.processes, "seed": plan.seed}
    figures |= {"seconds": round(monotonic() - begun, 1), "python": platform.python_version()}
    if verdict.holds:
        shutil.rmtree(folder)
    else:
        print(f"Everything is kept in {folder}", file=sys.stderr)
    print(json.dumps(figures) if given.json else "\n".join(f"{name:16} {value}" for name, value in figures.items()))
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
