"""Addresses of brokers that may have several hosts: read once, checked, and shown without a password.

Owns the reading only: which options there are is each adapter's to say. Nothing of an address that can't be read is
repeated, since a password may stand anywhere in it. Called by the adapters that have a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from atone.errors import BrokerError

Number = TypeVar("Number", int, float)


class Hosts(NamedTuple):
    """Where a broker is. `hosts` have a name and a port each; `shown` is fit for a message."""

    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None
    path: str
    options: Mapping[str, str]

    @property
    def shown(self) -> str:
        """The hosts and nothing else."""
        return ", ".join(f"{name}:{port}" for name, port in self.hosts)

    def number(self, name: str, default: Number, *, least: Number) -> Number:
        """Return an option that is a number.

        Raises:
            BrokerError: It is none, or less than `least`.
        """
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = type(default)(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise BrokerError(f"The option {name} of a broker's URL has to be a number from {least}. Write it so.")
        return value


def hosts_of(url: str, example: str, default_port: int, options: frozenset[str]) -> Hosts:
    """Read a URL of the form scheme://user:password@host:port,host:port/path?option=value.

    Raises:
        BrokerError: It is no such URL, or has options that nobody knows.
    """
    parts = _split(url)
    if parts is None or parts.fragment:
        raise BrokerError(f"This broker URL can't be read. Write one like {example}, with %-escapes in a password.")
    userinfo, _, netloc = parts.netloc.rpartition("@")
    user, separator, password = userinfo.partition(":")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not given.keys() <= options:
        raise BrokerError(f"This broker URL has an unknown option. Known are: {', '.join(sorted(options))}.")
    try:
        hosts = (
            tuple(_host(one, default_port) for one in netloc.split(",")) if netloc else (("127.0.0.1", default_port),)
        )
    except ValueError:
        raise BrokerError(f"The hosts of this broker URL can't be read. Write one like {example}.") from None
    return Hosts(hosts, unquote(user) or None, unquote(password) if separator else None, parts.path, given)


def _split(url: str) -> SplitResult | None:
    try:
        url.encode()
        return urlsplit(url)
    except ValueError:  # it quotes the password
        return None


def _host(text: str, default_port: int) -> tuple[str, int]:
    """Read `name`, `name:port`, `[::1]` or `[::1]:port`."""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = text.partition(":")
    number = int(port) if port else default_port
    if not name or not 0 < number < 65536:
        raise ValueError
    return name, number
