"""`atone worker`: run sagas in this process until somebody asks it to stop.

Owns the process: user code is loaded, signals are listened to, the log goes to standard error. The first SIGTERM or
SIGINT drains (calls under way may end, sagas are handed back, none is cancelled); the second ends at once. Must not
decide about a saga: an `Orchestrator` runs them. Called by the command of that name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from atone.brokers import open_broker
from atone.cli.exits import Exit, Stop
from atone.cli.hearing import formatter_of, observers_of
from atone.cli.options import Heard, Sent
from atone.cli.place import named
from atone.cli.targets import codec_of, sagas_of
from atone.definition import Saga
from atone.errors import BrokerError
from atone.orchestrator import Limits, Orchestrator
from atone.stores._address import without_secrets

log = logging.getLogger("atone.worker")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A worker as asked for on the command line; `limits` are those of `Limits` that were given."""

    targets: Sequence[str]
    store: str | None = field(repr=False)
    migrate: bool
    notify: bool = True
    codec: str | None = None
    log_level: str = "info"
    heard: Heard = field(default_factory=Heard)
    sent: Sent = field(default_factory=Sent)
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])


async def work(job: Job) -> Exit:
    """Run a worker until a signal comes."""
    store = named(job.store, must_exist=not job.migrate, notify=job.notify)
    with signals() as stop:
        async with AsyncExitStack() as stack:
            codec = None if job.codec is None else codec_of(job.codec)
            sagas = [saga for target in job.targets for saga in await sagas_of(target, stack)]
            log_to_stderr(job.log_level, formatter_of(job.heard))
            limits = Limits(**job.limits)
            observers = observers_of(job.heard, stack.enter_context(ExitStack()))
            sending = _sending(job.sent)
            async with Orchestrator(store, sagas=sagas, codec=codec, limits=limits, telemetry=observers, **sending):
                _tell(job, sagas, limits)
                await stop.wait()
                log.info("stopping; a second signal ends at once")
        log.info("stopped")
    return Exit.DONE


def _sending(sent: Sent) -> dict[str, Any]:
    """Return the broker and what is published there, as arguments of `Orchestrator`."""
    try:
        broker = None if sent.broker is None else open_broker(sent.broker)
    except BrokerError as wrong:
        raise Stop(Exit.USAGE, "usage", str(wrong)) from wrong
    return {"broker": broker, "events": sent.publish_events, "topic_prefix": sent.topic_prefix}


@contextlib.contextmanager
def signals() -> Any:
    """Give an event that the first signal sets; the second ends the process, as a crash would."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    is_asked = False

    # Not by the loop's own handlers: a step that blocks the loop would keep the second signal waiting too.
    def caught(number: int, _frame: FrameType | None) -> None:
        nonlocal is_asked
        if is_asked:
            # The signal may have come in the midst of a write, so not through a buffer.
            os.write(2, b"atone: ended by a second signal; the lease ends by itself, then others go on\n")
            os._exit(Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED)
        is_asked = True
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, caught) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to_stderr(level: str, formatter: logging.Formatter) -> None:
    """Show what Atone says from `level` on, and of others warnings; user code that set up its own log keeps that."""
    try:
        logging.getLogger("atone").setLevel(level.upper())
    except ValueError:
        raise Stop(
            Exit.USAGE, "usage", f"There is no log level {level!r}. Give debug, info, warning or error."
        ) from None
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler])


def _tell(job: Job, sagas: Sequence[Saga[Any]], limits: Limits) -> None:
    """Log what runs where: the line that an operator looks for first."""
    plans = [saga.plan() for saga in sagas]
    log.info(
        "running %s; at most %d sagas at a time%s; host %s, pid %d, store %s",
        ", ".join(f"{plan.name} version {plan.version}" for plan in plans),
        limits.sagas_in_flight_max,
        "".join(f", {most} of {name}" for name, most in limits.bounds_by_name.items()),
        platform.node(),
        os.getpid(),
        without_secrets(job.store or ""),
    )
