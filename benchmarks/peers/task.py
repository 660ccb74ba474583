"""What a peer's app is asked to do, and how it answers: a task as JSON on its command line, a line with the result.

Owns the form of both, and the check of the books before a result is told. Must not know a peer. Standard library only,
as it runs in the peers' environments. Called by the apps and by `benchmarks.compare`.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, NoReturn

from benchmarks.load import Loaded, RunOne, await_go, closed_loop, tell
from benchmarks.peers import shop


@dataclass(frozen=True)
class PeerTask:
    """One run: how much of what, where its servers are, and which processes' CPU time belongs to it.

    `places` has the addresses by name: `dsn` of a new database, or what the peer's own server listens on.
    """

    workload: str
    inflight: int
    warmup_seconds: float
    seconds: float
    places: dict[str, str] = field(default_factory=dict[str, str])
    servers: list[int] = field(default_factory=list[int])
    helpers: list[int] = field(default_factory=list[int])

    @property
    def declined(self) -> bool:
        """Whether the third step is to fail, so that the others are undone."""
        return self.workload == "compensate"

    def to_json(self) -> str:
        """Return it as `this_task` reads it."""
        return json.dumps(asdict(self))


def this_task() -> PeerTask:
    """Return the task that this process was started for. Nobody reads its log, so no peer pays for one."""
    logging.disable(logging.CRITICAL)
    found: dict[str, Any] = json.loads(sys.argv[1])
    return PeerTask(**found)


def saga_id(client: int, number: int) -> str:
    """Return an id that no other client or round uses, as long as those of Atone."""
    return f"order-{client:04d}-{number:07d}"


def judge(task: PeerTask, result: Any) -> None:
    """Stop the measurement if a saga did not end as it must."""
    ends = isinstance(result, dict) and ("undone" if task.declined else "id") in result
    if not ends:
        raise SystemExit(f"A saga ended with {result!r}.")


async def measured(task: PeerTask, run_one: RunOne) -> Loaded:
    """Load it as Atone is loaded, when the word is given."""
    await_go()
    return await closed_loop(
        run_one,
        inflight=task.inflight,
        warmup_seconds=task.warmup_seconds,
        seconds=task.seconds,
        servers=task.servers,
        helpers=task.helpers,
    )


def finish(task: PeerTask, loaded: Loaded, *packages: str, books: bool = True) -> NoReturn:
    """Tell the result and end this process at once, whatever threads the peer has left.

    `books` is for an app whose steps ran in this process: every service must have been called once for each saga.
    """
    owed = shop.books_of(loaded.sagas, task.workload)
    if books and shop.calls != owed:
        raise SystemExit(f"The books do not agree: {dict(shop.calls)}, not {owed}.")
    loaded.versions |= {name: version(name) for name in packages} | {"Python": platform.python_version()}
    tell(loaded)
    os._exit(0)
