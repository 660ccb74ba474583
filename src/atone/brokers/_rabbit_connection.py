"""The RabbitMQ adapter's connection: made again whenever it is asked for and gone, and errors in our own words.

Owns one connection and the hosts that it may be made to. Must not know what a message is. Errors name hosts and ports,
never a user or a password. Called by `RabbitBroker` and its members.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS

from atone.brokers._hosts import Hosts
from atone.errors import BrokerClosed, BrokerUnavailable

T = TypeVar("T")

CONNECT_SECONDS = 10.0
ASK_SECONDS = 30.0


class Connection:
    """One connection at a time. What was opened on a former one is closed with it."""

    def __init__(self, hosts: Hosts, *, virtual_host: str, tls: bool, heartbeat_seconds: int) -> None:
        self._hosts = hosts
        self._virtual_host = virtual_host
        self._tls = tls
        self._heartbeat_seconds = heartbeat_seconds
        self._connection: AbstractConnection | None = None
        self._making = asyncio.Lock()
        self.is_open = False

    async def open(self) -> None:
        """Connect; raise BrokerUnavailable if that can't be done."""
        self._connection = await self._made()
        self.is_open = True

    async def close(self) -> None:
        """Disconnect. What was delivered and not ended is given again by the server."""
        self.is_open = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with self.asking():
                await uncancelled(connection.close())

    def check(self) -> None:
        """Complain if it is not open."""
        if not self.is_open:
            raise BrokerClosed(f"The broker at {self._hosts.shown} is not open. Use it inside `async with`.")

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel, on a new connection if the last one is gone."""
        self.check()
        async with self._making:
            connection = self._connection
            if connection is not None and not connection.is_closed:
                try:
                    return await uncancelled(_channel(connection, confirms=confirms))
                except (*CONNECTION_EXCEPTIONS, TimeoutError):
                    self._connection = None  # it does not always know that it is gone
                    await uncancelled(_drop(connection))
            self._connection = await self._made()
            with self.asking():
                return await uncancelled(_channel(self._connection, confirms=confirms))

    def unavailable(self, error: BaseException) -> BrokerUnavailable:
        """Return what to raise for an error of the client or the server."""
        said = str(error) or type(error).__name__
        if self._hosts.password:
            said = said.replace(self._hosts.password, "***")
        return BrokerUnavailable(f"RabbitMQ at {self._hosts.shown} is not available: {said}. Check the server and URL.")

    @contextmanager
    def asking(self) -> Generator[None, None, None]:
        """Turn what the client raises into BrokerUnavailable."""
        try:
            yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self.unavailable(error) from None  # the client cancels what waits for a connection that is gone
        except (*CONNECTION_EXCEPTIONS, TimeoutError, asyncio.InvalidStateError) as error:
            raise self.unavailable(error) from error

    async def _made(self) -> AbstractConnection:
        problem: BaseException = ConnectionError("no host is named")
        for host, port in self._hosts.hosts:
            try:
                return await uncancelled(
                    aio_pika.connect(
                        host=host, port=port, login=self._hosts.user or "guest",
                        password="guest" if self._hosts.password is None else self._hosts.password,
                        virtualhost=self._virtual_host, ssl=self._tls, timeout=CONNECT_SECONDS,
                        heartbeat=self._heartbeat_seconds,
                    )
                )  # fmt: skip
            except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
                problem = error
        raise self.unavailable(problem) from problem


async def _channel(connection: AbstractConnection, *, confirms: bool) -> AbstractChannel:
    async with asyncio.timeout(ASK_SECONDS):
        return await connection.channel(publisher_confirms=confirms, on_return_raises=False)


async def _drop(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(1):
            await connection.close()
    except (*CONNECTION_EXCEPTIONS, TimeoutError, asyncio.CancelledError):
        return  # it is gone


async def uncancelled(call: Coroutine[Any, Any, T]) -> T:
    """Run a call of the client's to its end, even if who waits for it is cancelled: it takes a cancel badly."""
    task = asyncio.ensure_future(call)
    task.add_done_callback(_heard)  # nobody may be waiting for it any more
    return await asyncio.shield(task)


def _heard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
