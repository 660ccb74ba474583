"""The network between a step's code and the participants it calls, for `verify` to lose, repeat and delay calls on.

Owns `remote`, which puts an object on the far side of it, and what a call of it goes through. Without a `verify` around
it a call is just a call. Must not know a saga: what happens to a call is asked of whoever runs the step. Called by
users' tests and by the fakes.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

__all__ = ["crossing", "remote"]

P = ParamSpec("P")
T = TypeVar("T")


class Line(Protocol):
    """What carries the calls of one attempt of a step."""

    async def carry(self, what: str, request: Callable[[], Awaitable[Any]]) -> Any:
        """Carry an asynchronous call to the other side, and its answer back, or not."""
        ...

    def carry_blocking(self, what: str, request: Callable[[], Any]) -> Any:
        """Carry a plain call."""
        ...


LINE: ContextVar[Line | None] = ContextVar("atone-testing-line", default=None)


def remote(participant: T) -> T:
    """Return a stand-in for a participant whose public methods are called over the network of the running `verify`.

    Each call of one is a place where the request or the reply is lost, the request comes twice, or the caller is killed
    meanwhile. What runs on the other side goes on when its caller has given up, as a server does. Attributes that
    are no methods are the participant's own. Outside of `verify` everything is as without it.
    """
    return cast("T", _Remote(participant))


async def crossing(what: str, request: Callable[[], Awaitable[T]]) -> T:
    """Make one call over the network of the running `verify`; `request` is what happens on the other side.

    For clients that are no objects with methods, such as an HTTP transport.
    """
    line = LINE.get()
    if line is None:
        return await request()
    return cast("T", await line.carry(what, request))


def crossing_blocking(what: str, request: Callable[[], T]) -> T:
    """Make one plain call over the network; see `crossing`."""
    line = LINE.get()
    return request() if line is None else cast("T", line.carry_blocking(what, request))


class _Remote:
    def __init__(self, participant: object) -> None:
        self._participant = participant

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._participant, name)
        if name.startswith("_") or not inspect.isroutine(found):
            return found
        what = f"{type(self._participant).__name__}.{name}"
        if inspect.iscoroutinefunction(found):
            return _over_async(what, found)
        return _over(what, cast("Callable[..., Any]", found))

    def __repr__(self) -> str:
        return f"<remote {self._participant!r}>"


def _over_async(what: str, method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await crossing(what, lambda: method(*args, **kwargs))

    return call


def _over(what: str, method: Callable[P, T]) -> Callable[P, T]:
    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return crossing_blocking(what, lambda: method(*args, **kwargs))

    return call
