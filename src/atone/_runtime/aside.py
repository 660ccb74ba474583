"""A blocking call off the loop, in a thread that belongs to nobody else: for the lease.

Owns the wait for it. Must not know what it calls. Called by the parts that ask the store without an event loop's help.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from atone._threads import run_into
from atone.machine import machine

T = TypeVar("T")


async def aside(call: Callable[[], T]) -> T:
    """Run a blocking call in a daemon thread of its own: no pool that user code has filled can hold it up.

    At the interpreter's end no thread can be started any more; then it runs here.
    """
    future: Future[T] = Future()
    try:
        machine().aside(partial(run_into, future, call), "atone-aside")
    except RuntimeError:
        run_into(future, call)
    return await asyncio.wrap_future(future)
