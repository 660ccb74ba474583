"""`atone serve`: services of choreographies, and saga views, in this process until somebody asks it to stop.

Owns what a target may be: what `atone.serving.serve` returns, a `SagaView`, a list of these, or a function that returns
them. The first SIGTERM or SIGINT lets what is under way end, the second ends at once. Must not know what is served.
Called by the command of that name.
"""

from __future__ import annotations

import inspect
import logging
import os
import platform
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from atone.cli.exits import Exit, Stop
from atone.cli.hearing import formatter_of
from atone.cli.options import Heard
from atone.cli.targets import load
from atone.cli.working import log_to_stderr, signals

log = logging.getLogger("atone.serve")


async def serve_all(targets: Sequence[str], log_level: str, heard: Heard) -> Exit:
    """Serve what the targets give until a signal comes."""
    with signals() as stop:
        async with AsyncExitStack() as stack:
            log_to_stderr(log_level, formatter_of(heard))
            for target in targets:
                for one in await _served(target):
                    await stack.enter_async_context(one)
            log.info("serving %s; host %s, pid %d", ", ".join(targets), platform.node(), os.getpid())
            await stop.wait()
            log.info("stopping; a second signal ends at once")
        log.info("stopped")
    return Exit.DONE


async def _served(target: str) -> list[AbstractAsyncContextManager[object]]:
    made: Any = load(target)
    if callable(made) and not isinstance(made, AbstractAsyncContextManager):
        try:
            made = made()
            made = await made if inspect.isawaitable(made) else made
        except Exception as broken:
            text = f"{target} failed: {type(broken).__name__}: {broken}. Correct that, then start again."
            raise Stop(Exit.REFUSED, "target", text) from broken
    found: list[Any] = [*made] if isinstance(made, list | tuple) else [made]
    if not found or not all(isinstance(one, AbstractAsyncContextManager) for one in found):
        odd = next((type(one).__name__ for one in found if not isinstance(one, AbstractAsyncContextManager)), "list")
        text = (
            f"{target} gives nothing to serve but this: {odd}. Return what atone.serving.serve returns, or a SagaView."
        )
        raise Stop(Exit.USAGE, "usage", text)
    return found
