"""A connection to NATS that is made again for as long as it is wanted, and the streams that Atone needs there.

Owns the client and its lives: `life` changes with each, and whoever asked the server for something asks again then.
Must not know a message. Called by the NATS adapter and by its deliveries.
"""

# pyright: reportUnknownMemberType=false
# nats-py leaves some of its parameters without types; what it returns is typed.

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from atone.brokers._hosts import Hosts
from atone.brokers._nats_wire import Names
from atone.errors import BrokerClosed, BrokerError, BrokerUnavailable

T = TypeVar("T")

_log = logging.getLogger("atone.brokers.nats")

CONNECT_SECONDS = 10.0
ASK_SECONDS = 10.0
_RETRY_SECONDS = 0.25
_BACK_SECONDS = 2.0
_DUPLICATE_SECONDS = 120.0
_NOT_YET = 10008  # a cluster that has no leader for the moment, and soon has one


class Connection:
    """One connection. `heard` is called whenever it was lost or made again."""

    def __init__(self, hosts: Hosts, names: Names, replicas: int) -> None:
        self.hosts = hosts
        self.names = names
        self.life = 0
        self.is_interest = True
        self.heard: set[Callable[[], None]] = set()
        self._replicas = replicas
        self._client: Client | None = None
        self._context: JetStreamContext | None = None
        self._again: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is wanted, up or not."""
        return self._client is not None

    @property
    def client(self) -> Client:
        """The client of now; it may be without a server for a while."""
        if self._client is None:
            raise BrokerClosed("This broker is not open. Enter it first: async with open_broker(url) as broker.")
        return self._client

    @property
    def context(self) -> JetStreamContext:
        """What speaks JetStream over the client."""
        if self._context is None:
            raise BrokerClosed("This broker is not open. Enter it first: async with open_broker(url) as broker.")
        return self._context

    def check(self) -> None:
        """Raise if there is no server now: what would be sent would only wait."""
        if not self.client.is_connected:
            raise self.unavailable("the connection is down and is being made again")

    def unavailable(self, what: object) -> BrokerUnavailable:
        """Return the error that says what went wrong, without a password."""
        text = str(what) or type(what).__name__
        for secret in (self.hosts.password, self.hosts.user if self.hosts.password is None else None):
            text = text.replace(secret, "***") if secret else text
        return BrokerUnavailable(f"NATS at {self.hosts.shown}: {text}. See that the server runs, then try again.")

    async def open(self) -> None:
        """Connect, and see that the streams are there.

        Raises:
            BrokerUnavailable: No host answers, or none lets us in.
            BrokerError: The server can't do what is needed.
        """
        client = await self._connected()
        try:
            version = client.connected_server_version
            if (version.major, version.minor) < (2, 10):
                raise BrokerError(f"NATS at {self.hosts.shown} is older than 2.10. Update the server.")
            await self._see_streams(client.jetstream(timeout=ASK_SECONDS))
        except BaseException:
            await client.close()
            raise
        self._took(client)

    async def wait_for_server(self) -> None:
        """Wait a moment for a server that is away."""
        back = asyncio.Event()
        self.heard.add(back.set)
        try:
            async with asyncio.timeout(_BACK_SECONDS):
                while not self.client.is_connected:
                    await back.wait()
                    back.clear()
        except TimeoutError:
            return
        finally:
            self.heard.discard(back.set)

    async def close(self) -> None:
        """Send what waits to be sent, and disconnect."""
        client, self._client, self._context = self._client, None, None
        if self._again is not None:
            self._again.cancel()
            await asyncio.gather(self._again, return_exceptions=True)
        self._tell()
        if client is None:
            return
        try:
            if client.is_connected:
                await uncancelled(client.flush(int(CONNECT_SECONDS)))
            await uncancelled(client.close())
        except (TimeoutError, nats.errors.Error, OSError):
            await client.close()  # what could not be sent comes again, elsewhere

    def _took(self, client: Client) -> None:
        self._client = client
        self._context = client.jetstream(timeout=ASK_SECONDS)
        self._tell()

    def _tell(self) -> None:
        self.life += 1
        for hears in tuple(self.heard):
            hears()

    async def _connected(self) -> Client:
        """Return a client of the first host that answers; from then on it goes round all of them for ever."""
        problem: object = "nobody answers"
        for number in range(len(self.hosts.hosts)):
            client = Client()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._connect(client, number)
            except (TimeoutError, nats.errors.Error, OSError) as error:
                problem = error
                await client.close()
                continue
            client.options["allow_reconnect"] = True
            return client
        raise self.unavailable(problem) from None

    async def _connect(self, client: Client, first: int) -> None:
        order = [*self.hosts.hosts[first:], *self.hosts.hosts[:first]]
        secure = self.hosts.options.get("tls") in ("1", "true")
        user, password = self.hosts.user, self.hosts.password

        async def noted(error: Exception) -> None:
            if client.options["allow_reconnect"]:
                _log.debug("The connection to NATS: %s", type(error).__name__)
            else:
                raise error  # while it connects for the first time: else it would try this host for ever

        async def lost() -> None:
            self._tell()

        async def found() -> None:
            self._tell()

        async def closed() -> None:
            # The library gives up for good on some errors, such as a login that is refused for a moment.
            if self._client is client and self._again is None:
                self._again = asyncio.create_task(self._reopen())

        await client.connect(
            [f"{'tls' if secure else 'nats'}://{_host(name)}:{port}" for name, port in order],
            name="atone", error_cb=noted, disconnected_cb=lost, reconnected_cb=found, closed_cb=closed,
            allow_reconnect=False, max_reconnect_attempts=-1, dont_randomize=True, connect_timeout=int(CONNECT_SECONDS),
            reconnect_time_wait=_RETRY_SECONDS,  # type: ignore[arg-type]  # it takes fractions all the same
            ping_interval=10, max_outstanding_pings=2, tls=ssl.create_default_context() if secure else None,
            user=user if password is not None else None, password=password, token=user if password is None else None,
        )  # fmt: skip

    async def _reopen(self) -> None:
        while self._client is not None:
            await asyncio.sleep(_RETRY_SECONDS)
            try:
                client = await self._connected()
            except BrokerUnavailable as problem:
                _log.warning("%s", problem)
                continue
            self._again = None
            self._took(client)
            return

    async def _see_streams(self, context: JetStreamContext) -> None:
        names = self.names
        topics = api.StreamConfig(
            name=names.stream, subjects=[f"{names.prefix}.>"], retention=api.RetentionPolicy.INTEREST,
            storage=api.StorageType.FILE, num_replicas=self._replicas, duplicate_window=_DUPLICATE_SECONDS,
        )  # fmt: skip
        kept = api.StreamConfig(
            name=names.kept, subjects=[f"{names.prefix}-kept.>"], retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE, num_replicas=self._replicas, max_msgs_per_subject=1,
            duplicate_window=_DUPLICATE_SECONDS,
        )  # fmt: skip
        try:
            found = await _stream(context, topics)
            await _stream(context, kept)
        except nats.js.errors.ServiceUnavailableError as error:
            if error.err_code == _NOT_YET:
                raise self.unavailable(error.description) from None
            raise BrokerError(
                f"NATS at {self.hosts.shown} has no JetStream. Start it with -js and a store directory."
            ) from None
        except nats.js.errors.APIError as error:
            raise BrokerError(
                f"NATS at {self.hosts.shown} refuses the stream {names.stream}: {error.description}. "
                "Name another one with ?stream=, or make it yourself."
            ) from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise self.unavailable(error) from None
        if found.config.retention == api.RetentionPolicy.WORK_QUEUE:
            raise BrokerError(f"The stream {names.stream} is a work queue, which has one group only. Name another one.")
        self.is_interest = found.config.retention == api.RetentionPolicy.INTEREST


async def uncancelled(call: Coroutine[Any, Any, T]) -> T:
    """Run a call of the client's to its end, even if who waits for it is cancelled.

    The client takes a cancellation badly: it swallows some, and others end the task that reads from the server.
    """
    task = asyncio.ensure_future(call)
    task.add_done_callback(_heard)  # nobody may be waiting for it any more
    return await asyncio.shield(task)


def _heard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def _stream(context: JetStreamContext, wanted: api.StreamConfig) -> api.StreamInfo:
    """Return the stream, made if it is not there; one that is there is left as it is."""
    assert wanted.name is not None, "it has a name"
    try:
        return await context.stream_info(wanted.name)
    except nats.js.errors.NotFoundError:
        return await context.add_stream(wanted)


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name
