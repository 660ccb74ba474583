"""The Redis adapter's line to the server: commands that wait together go together, and errors in our own words.

Owns the client and its connections, which are made again by themselves. Must not know what a message is. Errors name
the host and the port, never a user or a password. Called by `RedisBroker` and its members.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError

from atone.brokers._hosts import Hosts
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable

Command = tuple[Any, ...]

_TOGETHER_MAX = 500
_ANSWER_SECONDS = 10.0
_CONNECT_SECONDS = 5.0


class Calls:
    """Commands to one server. Each is answered by its reply, or by an error of the server as a value."""

    def __init__(self, hosts: Hosts, *, database: int, tls: bool) -> None:
        self.where = hosts.shown
        self._hosts = hosts
        self._database = database
        self._tls = tls
        self._client: Any = None
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is between `open` and `close`."""
        return self._sender is not None

    async def open(self) -> None:
        """Connect; raise BrokerUnavailable if that can't be done."""
        # A connection that died while it lay in the pool is no reason to bother anybody.
        self._client = self._connected(retries=2)
        try:
            await self._client.ping()
        except (RedisError, OSError) as error:
            await self._client.aclose()
            raise self._unavailable(error) from error
        self._sender = asyncio.create_task(self._send_for_ever())

    async def close(self) -> None:
        """Disconnect. Whoever waits for a reply is told that there will be none."""
        sender, self._sender = self._sender, None
        if sender is None:
            return
        await stop([sender])
        while self._waiting:
            _fail(self._waiting.popleft()[1], self.closed())
        await self._client.aclose()

    def _connected(self, *, retries: int, alone: bool = False) -> Any:
        ((host, port),) = self._hosts.hosts
        return Redis(
            host=host, port=port, db=self._database, username=self._hosts.user, password=self._hosts.password,
            ssl=self._tls, protocol=2, socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS, socket_keepalive=True,
            single_connection_client=alone,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), retries, supported_errors=(NoConnection,)),
        )  # fmt: skip

    def closed(self) -> BrokerClosed:
        """Return what to raise when it is not open."""
        return BrokerClosed(f"The broker at {self.where} is not open. Use it inside `async with`.")

    async def one(self, *command: Any) -> Any:
        """Do one command, together with what others ask for meanwhile; raise what the server refuses."""
        if not self.is_open:
            raise self.closed()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        self._wake.set()
        return self.checked(await future)

    async def script(self, text: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script as one step."""
        return await self.one("EVAL", text, len(keys), *keys, *arguments)

    async def many(self, commands: Sequence[Command]) -> list[Any]:
        """Do these in order, on one connection; an error of the server is the answer of its command."""
        if not self.is_open:
            raise self.closed()
        pipeline = self._client.pipeline(transaction=False)
        try:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def line(self) -> Line:
        """Return a connection of its own, for a command that waits."""
        return Line(self, self._connected(retries=0, alone=True))

    def checked(self, answer: Any) -> Any:
        """Return an answer; raise if it is an error."""
        if isinstance(answer, BrokerError):
            raise answer
        if isinstance(answer, Exception):
            raise self._unavailable(answer) from answer
        return answer

    def _unavailable(self, error: Exception) -> BrokerUnavailable:
        said = (str(error) or type(error).__name__).rstrip(".")
        return BrokerUnavailable(f"Redis at {self.where} is not available: {said}. Check the server and the URL.")

    async def _send_for_ever(self) -> None:
        """Send what waits; nobody waits for a timer: the next lot is what came while this one was under way."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                lot = [self._waiting.popleft() for _ in range(min(len(self._waiting), _TOGETHER_MAX))]
                try:
                    answers = await self.many([command for command, _ in lot])
                except BrokerError as error:
                    answers = [error] * len(lot)
                except asyncio.CancelledError:
                    for _, future in lot:
                        _fail(future, self.closed())
                    raise
                for (_, future), answer in zip(lot, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)


class Line:
    """One connection, whose command is done once: an error means that its answer may be lost."""

    def __init__(self, calls: Calls, client: Any) -> None:
        self._calls = calls
        self._client = client
        self._number: Any = None

    async def do(self, *command: Any) -> Any:
        """Do a command that waits at the server; raise what it refuses."""
        try:
            if self._number is None:
                self._number = await self._client.execute_command("CLIENT", "ID")
            return await self._client.execute_command(*command)
        except (RedisError, OSError) as error:
            self._number = None
            return self._calls.checked(error)

    async def wake(self) -> None:
        """Have the server answer at once, if it is waiting."""
        if self._number is not None:
            await self._calls.one("CLIENT", "UNBLOCK", self._number)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()


async def stop(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their ends."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        # Again if it goes on: a client may swallow a cancel that comes in the same moment as its answer.
        _, waiting = await asyncio.wait(waiting, timeout=0.02)


def _fail(future: asyncio.Future[Any], error: BrokerError) -> None:
    if not future.done():
        future.set_result(error)
