"""Torment a broker: many messages from an outbox to an inbox, while servers, consumers and the publisher are killed.

Owns the moments of the kills and the verdict, which counts rows in the consumers' database: each message has exactly
one effect, the outbox is empty, nothing is parked. Run as `python -m tests.crash.brokers --broker nats --messages
100000 --kill --json`; the exit status is 1 if anything is wrong. `--break-inbox` and `--ack-early` show that it can be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

import asyncpg
import msgspec

from atone.brokers import open_broker
from atone.errors import BrokerUnavailable
from atone.inbox import Inbox
from atone.outbox import ServiceOutbox
from atone.testing.postgres import postgres_server
from tests.crash.broker_parties import GROUP, TABLES, TOPIC, Part, play
from tests.crash.broker_servers import TARGETS, Target

ROOT = Path(__file__).parents[2]
CONSUMERS = 2
BULK_FROM = 10_000
_LOOK_SECONDS = 0.1
_DOWN_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    """What to do. `kills`: how often the broker is killed, and each time a consumer or the publisher too."""

    broker: str
    messages: int = 2000
    kills: int = 0
    seed: int = 1
    break_inbox: bool = False
    ack_early: bool = False
    bulk: bool = False
    linger_seconds: float = 2.0
    stalled_seconds: float = 60.0


@dataclass
class Verdict:
    """What the databases say at the end."""

    test: str
    broker: str
    messages: int
    lost: int = 0
    effects_twice: int = 0
    outbox_left: int = 0
    parked: int = 0
    duplicates_refused: int = 0
    broker_kills: int = 0
    process_kills: int = 0
    seconds: float = 0.0
    messages_per_second: int = 0
    seed: int = 0
    python: str = field(default_factory=platform.python_version)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled or left."""
        return not (self.lost or self.effects_twice or self.outbox_left or self.parked)


class Actor:
    """A publisher or consumer that can be killed: a process, or a task where the broker lives in this process."""

    def __init__(self, part: Part, *, within: bool) -> None:
        self.part = part
        self._within = within
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        if self._within:
            self._task = asyncio.create_task(play(self.part))
        else:
            self._process = self._spawned()

    def _spawned(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.crash.broker_parties", msgspec.json.encode(self.part).decode()]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Let it end in good order."""
        if self._process is not None:
            assert self._process.stdin is not None, "it has a pipe"
            self._process.stdin.close()
            try:
                await asyncio.to_thread(self._process.wait, 20)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Torment:
    """One run."""

    def __init__(self, plan: Plan, target: Target, dsn: str) -> None:
        self._plan, self._target, self._dsn = plan, target, dsn
        self._actors: list[Actor] = []
        self.verdict = Verdict("brokers", plan.broker, plan.messages, seed=plan.seed)

    async def run(self) -> Verdict:
        """Publish, consume, kill, wait for the end, judge."""
        self._connection = await asyncpg.connect(self._dsn)
        try:
            await self._prepare()
            begun = monotonic()
            try:
                for role in ("publisher", *["consumer"] * CONSUMERS):
                    self._start(role)
                await self._watch()
                self.verdict.seconds = round(monotonic() - begun, 1)
                await asyncio.sleep(self._plan.linger_seconds)  # what would have its effect twice has time for it
            finally:
                await asyncio.gather(*(actor.stop() for actor in self._actors))
            await self._judge()
        finally:
            await self._connection.close()
        return self.verdict

    async def _prepare(self) -> None:
        await self._connection.execute(TABLES)
        await Inbox().create_table(self._connection)
        await ServiceOutbox().create_table(self._connection)
        async with open_broker(self._target.url) as broker:
            await broker.declare(GROUP, [TOPIC])

    def _start(self, role: str) -> None:
        part = Part(
            role, self._dsn, self._target.url, self._plan.messages, self._plan.seed + len(self._actors),
            early=self._plan.ack_early, no_inbox=self._plan.break_inbox, bulk=self._plan.bulk,
            chaotic=self._target.chaotic,
        )  # fmt: skip
        actor = Actor(part, within=self._target.within)
        self._actors.append(actor)
        actor.start()

    async def _watch(self) -> None:
        """Kill at even parts of the way, until everything is done or nothing has moved for long."""
        moments = [self._plan.messages * (one + 1) // (self._plan.kills + 1) for one in range(self._plan.kills)]
        last, moved_at = -1, monotonic()
        while True:
            done = await self._count("SELECT count(*) FROM effects")
            left = await self._count("SELECT count(*) FROM atone_outbox")
            if moments and done >= moments[0]:
                moments.pop(0)
                await self._kill(len(moments))
            if done >= self._plan.messages and not left and not moments:
                return
            if done + left != last:
                last, moved_at = done + left, monotonic()
            elif monotonic() - moved_at > self._plan.stalled_seconds:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _kill(self, number: int) -> None:
        """Kill the broker, and while it is down a consumer or the publisher."""
        if self._target.kill is not None:
            await asyncio.to_thread(self._target.kill)
            self.verdict.broker_kills += 1
        role = "publisher" if number % 3 == 2 else "consumer"
        victim = next(actor for actor in self._actors if actor.part.role == role)
        victim.kill()
        self.verdict.process_kills += 1
        await asyncio.sleep(_DOWN_SECONDS)
        if self._target.start is not None:
            await asyncio.to_thread(self._target.start)
        await victim.stop()
        self._actors.remove(victim)
        self._start(role)

    async def _judge(self) -> None:
        verdict = self.verdict
        distinct = await self._count("SELECT count(DISTINCT message) FROM effects")
        verdict.lost = self._plan.messages - distinct
        verdict.effects_twice = await self._count(
            "SELECT count(*) FROM (SELECT 1 FROM effects GROUP BY message HAVING count(*) > 1) AS twice"
        )
        verdict.outbox_left = await self._count("SELECT count(*) FROM atone_outbox")
        verdict.duplicates_refused = await self._count("SELECT coalesce(sum(number), 0) FROM tallies")
        verdict.messages_per_second = int(distinct / max(verdict.seconds, 0.1))
        verdict.parked = await self._parked()

    async def _parked(self) -> int:
        for _ in range(50):
            try:
                async with open_broker(self._target.url) as broker:
                    return len(await broker.parked(GROUP))
            except BrokerUnavailable:
                await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError("the broker did not come back")

    async def _count(self, statement: str) -> int:
        return int(await self._connection.fetchval(statement))


def torment(plan: Plan) -> Verdict:
    """Run a plan on new servers."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(settings={"fsync": "off"}))  # nobody kills this one
        target = stack.enter_context(TARGETS[plan.broker]())
        return asyncio.run(Torment(plan, target, server.url()).run())


def main() -> int:
    """Run what the command line says, and print the verdict."""
    parser = argparse.ArgumentParser(description="Torment a broker, and see whether each message has one effect.")
    parser.add_argument("--broker", choices=sorted(TARGETS), default="nats")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--kill", action="store_true", help="kill the broker, consumers and the publisher")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--break-inbox", action="store_true", help="consume without an inbox: must be found")
    parser.add_argument("--ack-early", action="store_true", help="acknowledge before the commit: must be found")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plan = Plan(
        options.broker, options.messages, options.kills if options.kill else 0, options.seed,
        options.break_inbox, options.ack_early, bulk=options.messages > BULK_FROM,
    )  # fmt: skip
    verdict = torment(plan)
    figures = asdict(verdict)
    print(json.dumps(figures) if options.json else "\n".join(f"{name:22} {value}" for name, value in figures.items()))
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
