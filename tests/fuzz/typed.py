"""Decoders of what people type: addresses of stores and brokers, the command line, ids, filters, lengths of time.

An address may hold a password, so no error may repeat one. The command line may end with its own exit statuses and
with nothing else. Collected by `decoders`.
"""

# ruff: noqa: E501, PERF401 - samples and tables are read better in one line

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import os
import shutil
import sys
import tempfile
from datetime import timedelta
from functools import cache
from typing import Any
from unicodedata import category

from atone import Orchestrator
from atone._define.check import duration
from atone._runtime.arguments import checked_limit, checked_name, is_span, seconds_of
from atone._runtime.invoke import _delay_of
from atone.brokers import open_broker
from atone.brokers.embedded import _without_patience
from atone.cli.asking import _json
from atone.cli.commands import run
from atone.cli.exits import Exit, Stop
from atone.cli.listing import _status
from atone.cli.options import _bound
from atone.cli.safe import json_text, safe
from atone.cli.saga_json import Shown, payload_json, payload_text
from atone.errors import RetryAfter
from atone.store import Query
from atone.stores import migration_script, open_store, read_postgres_url
from atone.stores._address import place_of, without_secrets
from atone.stores.memory import MemoryStore
from atone.stores.sqlite import SqliteStore
from tests.fuzz.engine import SECRET, Broken, Decoder
from tests.fuzz.mutate import fields_of, joined, text_of
from tests.runtime.parcels import Parcel, SendParcel, Shop


def _expect(fine: object, what: str) -> None:
    if not fine:
        raise Broken(what)


# -- addresses

_STORES = (
    f"postgresql://user:{SECRET}@db:5432/orders?schema=atone&sslmode=require&notify=off",
    f"postgres://user:{SECRET}@[::1]:5432,two:5433/orders?statement_cache_size=0",
    "sqlite:///orders.db", "sqlite:////var/lib/orders.db", "memory://", "postgresql:///orders",
    f"postgresql://user:p%2F{SECRET}@db/orders?password={SECRET}",
)  # fmt: skip
_BROKERS = (
    f"nats://user:{SECRET}@one:4222,two:4222?stream=ATONE&replicas=3", f"kafka://user:{SECRET}@one:9092?partitions=8",
    f"amqp://user:{SECRET}@host:5672/vhost?prefix=atone&heartbeat_seconds=30", f"redis://:{SECRET}@host:6379/0?prefix=a",
    f"postgresql://user:{SECRET}@db/orders?patience_seconds=30", "sqlite:///orders.db?patience_seconds=3", "memory://",
    f"rediss://user:{SECRET}@[::1]:6380/1",
)  # fmt: skip


def _store_url(data: bytes) -> Any:
    url = text_of(data)
    if f":{SECRET}@" not in url and f"password={SECRET}" not in url:
        url = url.replace(SECRET, "x")  # a file's or a schema's name is no secret, wherever the marker was moved to
    store = open_store(url, allow_volatile=True)
    _expect(SECRET not in repr(store), "a secret in a store's repr")
    if isinstance(store, SqliteStore | MemoryStore):
        return url
    shown = (place_of(url), without_secrets(url))
    dsn, schema, _ = read_postgres_url(url)
    migration_script(url)
    if url.count(SECRET) == _STORES[0].count(SECRET) and f":{SECRET}@" in url:
        _expect(SECRET not in "".join(shown), "a secret in what is shown of an address")
    _expect(isinstance(schema, str) and dsn.startswith("postgres"), "an address that is none")
    return url


def _broker_url(data: bytes) -> Any:
    url = text_of(data)
    if "patience_seconds" in url:
        _without_patience(url)
    broker = open_broker(url)
    _expect(SECRET not in repr(broker), "a secret in a broker's repr")
    return url


_STEERS = {"Cc", "Cf", "Cs", "Zl", "Zp"}


# -- the command line


@cache
def bench() -> str:
    """Return the URL of a store with a few sagas in it, which goes with this process."""
    folder = tempfile.mkdtemp(prefix="atone-fuzz-")
    atexit.register(shutil.rmtree, folder, True)
    url = f"sqlite:///{folder}/sagas.db"

    async def fill() -> None:
        async with Orchestrator(url, sagas=[SendParcel(Shop())]) as orchestrator:
            for number in range(3):
                saga = await orchestrator.start(SendParcel, Parcel(f"p-{number}"), saga_id=f"order-{number}")
                await saga.outcome(timeout=60)

    asyncio.run(fill())
    return url


_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("list", "--limit", "2", "--after", "order-0", "--status", "completed"),
    ("list", "--json", "--name", "SendParcel", "--tenant", "default", "--after", "SendParcel/order-1"),
    ("show", "order-1", "--json", "--payloads"),
    ("show", "SendParcel/order-1", "--tracebacks"),
    ("explain", "order-2"),
    ("preview", "order-2", "--json"),
    ("cancel", "order-1", "--reason", "why", "--by", "ada", "--wait", "0"),
    ("resolve", "order-1", "send", "--landed", "--result", '{"a":1}', "--reason", "x", "--by", "me", "--wait", "0.01"),
    ("retry", "order-1", "send", "--reason", "x", "--by", "me", "--wait", "0"),
    ("outbox", "--limit", "5"),
    ("outbox", "--again", "m1", "--reason", "x"),
    ("--version",),
)  # fmt: skip
_WORDS = (
    b"--limit", b"--after", b"--status", b"--wait", b"--json", b"--tenant", b"--name", b"--by", b"--reason", b"--result",
    b"--landed", b"--not-landed", b"--yes", b"--help", b"needs-attention", b"SendParcel/order-1", b"list", b"show",
)  # fmt: skip
# These would go on for as long as they are let, wait for a person, or import what is named.
_NOT_HERE = {"worker", "serve", "check", "ui", "migrate"}


def _command(data: bytes) -> Any:
    arguments = [text_of(one).replace("\0", "") for one in fields_of(data)[:20]]
    if _NOT_HERE.intersection(arguments) or any(one.startswith("--store") for one in arguments):
        return Exit.DONE
    out, err = io.StringIO(), io.StringIO()
    os.environ["ATONE_STORE"] = bench()
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(_short_waits(arguments))
    finally:
        sys.stdin = stdin
        del os.environ["ATONE_STORE"]
    said = out.getvalue() + err.getvalue()
    _expect("Traceback (most recent" not in said, "a traceback on the terminal")
    return status


def _short_waits(arguments: list[str]) -> list[str]:
    """Nobody answers here, so nothing is waited for."""
    return (
        ["--wait=0" if one.startswith("--wait=") else one for one in arguments]
        if "--wait" not in arguments
        else [
            "0" if at and arguments[at - 1] == "--wait" and one not in ("-1", "nan") else one
            for at, one in enumerate(arguments)
        ]
    )


def _a_status(status: Any) -> None:
    _expect(status in {0, 1, 2, 3}, f"exit status {status!r} is none of the promised ones")


def _parts(data: bytes) -> Any:
    """The small readers of the command line, one after the other; each may stop with a usage error."""
    text = text_of(data)
    found: list[Any] = []
    for reads in (_bound, _status, _json):
        try:
            found.append(reads(text))
        except Stop as stop:
            _expect(stop.status == Exit.USAGE and str(stop), "stopped without saying why")
    for shown in (Shown(), Shown(payloads=True)):
        found.append(json_text(payload_json(data, shown)))
    found.append(safe(payload_text(data)))
    _expect(
        not _STEERS.intersection(map(category, found[-1])) and found[-2].isascii(), "a terminal would be steered by it"
    )
    return found


# -- what code hands over


def _finds(data: bytes) -> Any:
    """Ask a memory store and SQLite with the same filters, after the checks that the typed calls make."""
    tenant, name, saga_id, status, after, limit = (*fields_of(data), b"", b"", b"", b"", b"", b"")[:6]
    texts = [checked_name("it", text_of(one)) if one else None for one in (tenant, name, saga_id)]
    most = checked_limit(int(limit) if limit.isdigit() and len(limit) < 9 else -1)
    wanted = frozenset(text_of(one) for one in status.split(b",")) if status else None
    if wanted is not None:
        for one in wanted:
            checked_name("status", one or "x")
    query = Query(texts[0], texts[1], texts[2], wanted, after=after or None, limit=most)
    here, there = asyncio.run(_asked(bench(), query))
    _expect(here == there, "two stores find other sagas")
    return here


async def _asked(url: str, query: Query) -> tuple[Any, Any]:
    async with SqliteStore(url.removeprefix("sqlite:///")) as sqlite:
        found = await sqlite.find(query)
        every = await sqlite.find(Query(limit=1000))
    return [one.key for one in found], [one.key for one in every if _fits(one, query)][: query.limit]


def _fits(one: Any, query: Query) -> bool:
    """Say again, in plain words, what a filter means."""
    return (
        query.tenant in (None, one.tenant)
        and query.name in (None, one.name)
        and query.saga_id in (None, one.saga_id)
        and (query.statuses is None or one.status in query.statuses)
        and (query.after is None or one.key > query.after)
    )


def _length(data: bytes) -> Any:
    """A length of time as people give it to a definition, to a call, and in RetryAfter."""
    kind, text = (*fields_of(data), b"")[:2]
    given = _number(len(kind) % 4, text_of(text))
    found: list[Any] = []
    for reads in (lambda: duration("a step", "timeout", given), lambda: seconds_of("timeout", given)):
        try:
            found.append(reads())
        except Exception as error:
            if not hasattr(error, "code"):
                raise
    asked = _delay_of(given) if isinstance(given, int | float | timedelta) else None
    _expect(asked is None or is_span(asked), "a delay that never ends, or ended before")
    return found


def _number(kind: int, text: str) -> Any:
    try:
        match kind:
            case 0:
                return float(text)
            case 1:
                return int(text)
            case 2:
                return timedelta(seconds=float(text))
            case _:
                return text
    except (ValueError, OverflowError):
        return text


def _sample_filters() -> list[bytes]:
    return [
        joined("default", "SendParcel", "order-1", "completed", b"", b"5"),
        joined("", "", "", "completed,running", b"\x01" * 16, b"1000"),
        joined("", "", "", "", b"\xff", b"1"),
    ]


DECODERS = (
    Decoder(
        "store-url",
        (
            "atone.stores:open_store", "atone.stores:read_postgres_url", "atone.stores:sqlite_path", "atone.stores:migration_script",
            "atone.stores._address:split_address", "atone.stores._address:scheme_of", "atone.stores._address:_split",
            "atone.stores._address:_is_plain", "atone.stores._address:place_of", "atone.stores._address:without_secrets",
            "atone.stores.postgres:PostgresStore.__init__",
        ),
        lambda: [one.encode() for one in _STORES],
        _store_url,
        secret=True,
        words=(b"postgresql://", b"sqlite://", b"schema=", b"notify=", b"statement_cache_size=", b"@", SECRET.encode()),
    ),
    Decoder(
        "broker-url",
        (
            "atone.brokers:open_broker", "atone.brokers._hosts:hosts_of", "atone.brokers._hosts:_split",
            "atone.brokers._hosts:_host", "atone.brokers._hosts:Hosts.number", "atone.brokers.embedded:_without_patience",
            "atone.brokers.rabbitmq:RabbitBroker.__init__", "atone.brokers.redis:RedisBroker.__init__",
        ),
        lambda: [one.encode() for one in _BROKERS],
        _broker_url,
        secret=True,
        words=(b"nats://", b"kafka://", b"amqp://", b"redis://", b"patience_seconds=", b"replicas=", b"@", SECRET.encode()),
    ),
    Decoder(
        "command-line",
        ("atone.cli.commands:run", "atone.cli.commands:_refuse_undecodable", "atone.cli.place:find_saga", "atone.cli.place:_candidates"),
        lambda: [joined(*one) for one in _COMMANDS],
        _command,
        check=_a_status,
        words=_WORDS,
        slow=True,
    ),
    Decoder(
        "command-parts",
        (
            "atone.cli.options:_bound", "atone.cli.listing:_status", "atone.cli.asking:_json",
            "atone.cli.saga_json:payload_json", "atone.cli.saga_json:payload_text", "atone.cli.safe:safe",
        ),
        lambda: [b"PlaceOrder=50", b"needs-attention", b'{"a":[1,2.5,null]}', b'"atone:sealed:1:AAAA"'],
        _parts,
    ),
    Decoder(
        "filters",
        (
            "atone._runtime.arguments:checked_name", "atone._runtime.arguments:checked_limit",
            "atone.stores.sqlite:SqliteStore.find",
        ),
        _sample_filters,
        _finds,
        slow=True,
    ),
    Decoder(
        "length-of-time",
        ("atone._define.check:duration", "atone._runtime.arguments:seconds_of", "atone._runtime.invoke:_delay_of"),
        lambda: [joined("", "1.5"), joined("x", "30"), joined("xx", "86400"), joined("xxx", "soon")],
        _length,
        (RetryAfter,),
    ),
)  # fmt: skip
