"""Brokers that can't be reached, or addresses that can't be read: said with host and port, and never with a password.

Uses a real Valkey and, if there is one, a real RabbitMQ is asked in its own file.
"""

from __future__ import annotations

import asyncio

import pytest

from atone.broker import Broker
from atone.brokers import open_broker
from atone.errors import BrokerError, BrokerUnavailable
from atone.testing._server import free_port
from atone.testing.valkey import valkey_server


async def enter(broker: Broker) -> None:
    async with broker:
        raise AssertionError("it was entered where nothing is")


def refusal(url: str) -> BrokerUnavailable:
    with pytest.raises(BrokerUnavailable) as caught:
        asyncio.run(enter(open_broker(url)))
    return caught.value


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_server_that_is_down_at_the_start_is_named(scheme: str) -> None:
    """Host and port are said, the password is not."""
    port = free_port()
    said = str(refusal(f"{scheme}://atone:s3cret@127.0.0.1:{port}/0"))
    assert f"127.0.0.1:{port}" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_host_that_nobody_knows_is_named(scheme: str) -> None:
    """As a server that is down."""
    said = str(refusal(f"{scheme}://atone:s3cret@no-such-host.invalid/0"))
    assert "no-such-host.invalid" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret#x@host:6379/0",
        "redis://:s3/cret@host:6379/0",
        "redis://user:s3cret@host:port/0",
        "redis://user:s3cret@host/database",
        "redis://user:s3cret@one,other/0",
        "redis://user:s3cret@host/0?pateince_seconds=3",
        "redis://user:s3cret@host/0?patience_seconds=soon",
        "amqp://user:s3cret#x@host/",
        "amqp://user:s3cret@host:port/",
        "amqp://user:s3cret@host/?hold_seconds=-1",
    ],
)
def test_an_address_that_can_not_be_read_is_not_repeated(url: str) -> None:
    """A password may stand anywhere in it."""
    with pytest.raises(BrokerError) as caught:
        open_broker(url)
    assert "cret" not in str(caught.value)


def test_a_wrong_password_of_redis_is_unavailable_and_not_told() -> None:
    """Nor is the right one."""
    with valkey_server() as server:
        error = refusal(server.url(password="s3cret"))
        assert f"127.0.0.1:{server.port}" in str(error)
        assert "s3cret" not in str(error)
        assert server.password not in str(error)
