"""From `package.module:name` to saga objects: importing user code, calling it, and saying what is wrong with it.

Owns what a target may be: sagas, a list of them, or a function that returns them, also as a context manager, so that
the participants' clients are made in the event loop and closed after the sagas. Must not run a saga. Called by the
worker command.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Awaitable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path
from typing import Any, cast

from atone.cli.exits import Exit, Stop
from atone.codec import Codec
from atone.definition import Saga


def load(target: str) -> object:
    """Return what a target names; the current folder is looked in first, as by `python -m`."""
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise _wrong(f"{target!r} names nothing. Write package.module:name, where name is your sagas.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise _failed(f"Importing {module_name}", missing) from missing
        raise _wrong(
            f"There is no module {missing.name!r} in {here}, nor installed. "
            "Run this where your package is, or mind the spelling."
        ) from missing
    except Exception as broken:
        raise _failed(f"Importing {module_name}", broken) from broken
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise _wrong(f"{module_name} has no {path!r}. Mind the spelling, or define it there.") from None
    return found


async def sagas_of(target: str, stack: AsyncExitStack) -> list[Saga[Any]]:
    """Return the sagas that a target gives; what it opened is closed with the stack."""
    made = load(target)
    if callable(made) and not isinstance(made, Saga):
        try:
            made = await _called(made, stack)
        except Exception as broken:
            raise _failed(target, broken) from broken
    sagas: list[object] = list(cast("list[object]", made)) if isinstance(made, list | tuple) else [made]
    if not sagas or not all(isinstance(saga, Saga) for saga in sagas):
        odd = next((type(saga).__name__ for saga in sagas if not isinstance(saga, Saga)), "empty list")
        raise _wrong(f"{target} gives no sagas but this: {odd}. Let it be a list of Saga objects, or return one.")
    return cast("list[Saga[Any]]", sagas)


def codec_of(target: str) -> Codec:
    """Return the codec that a target is, or returns."""
    found = load(target)
    if callable(found) and not isinstance(found, Codec):
        try:
            found = found()
        except Exception as broken:
            raise _failed(target, broken) from broken
    if not isinstance(found, Codec):
        raise _wrong(f"{target} gives no codec but this: {type(found).__name__}. Let it be an atone.codec.Codec.")
    return found


async def _called(make: Any, stack: AsyncExitStack) -> object:
    if inspect.isasyncgenfunction(make):
        make = asynccontextmanager(make)
    elif inspect.isgeneratorfunction(make):
        make = contextmanager(make)
    made: object = make()
    if inspect.isawaitable(made):
        made = await cast("Awaitable[object]", made)
    if isinstance(made, AbstractAsyncContextManager):
        return await stack.enter_async_context(cast("AbstractAsyncContextManager[object]", made))
    if isinstance(made, AbstractContextManager):
        return stack.enter_context(cast("AbstractContextManager[object]", made))
    return made


def _wrong(text: str) -> Stop:
    return Stop(Exit.USAGE, "usage", text)


def _failed(what: str, error: Exception) -> Stop:
    """Say what user code raised, and where: the last of its lines that is no library's way of importing it."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "importlib" not in one.filename]
    at = f", {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""
    if isinstance(error, SyntaxError):
        at = f", {error.filename}:{error.lineno}"
    text = f"{what} failed: {type(error).__name__}: {error}{at}. Correct that, then start again."
    return Stop(Exit.REFUSED, "target", text)
