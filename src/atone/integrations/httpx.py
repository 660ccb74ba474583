"""httpx: who calls, on each request of a step; and what a participant's answer means to a saga.

Owns the event hooks and the reading of a definite "no". Must not retry or wait: that is the saga's own. Used by steps
that call their participants with httpx. Needs the `httpx` extra.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

try:
    from httpx import Request, Response
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError('httpx is missing. Run: pip install "atone[httpx]"') from missing

from atone._define.values import Context, Tried
from atone._messaging.over_http import call_headers
from atone.errors import Reject, RetryAfter

__all__ = ["blocking_event_hooks", "call_headers", "calling", "event_hooks", "raise_for_answer"]

_NONE: dict[str, str] = {}
_headers: ContextVar[Mapping[str, str]] = ContextVar("atone_call_headers", default=_NONE)

_SAYS_NO = ("rejected", "already_compensated")
_REASON_LENGTH_MAX = 1000
_PROBLEM_BYTES_MAX = 64 * 1024
_RETRY_AFTER_DIGITS_MAX = 6  # a week and a half


@contextmanager
def calling(ctx: Context[Any], tried: Tried[Any] | None = None) -> Generator[None, None, None]:
    """Name the call on every request made inside, by clients that have `event_hooks`; a compensation gives `tried`.

    A header that a request has already stays as it is.
    """
    token = _headers.set(call_headers(ctx, tried))
    try:
        yield
    finally:
        _headers.reset(token)


def event_hooks() -> dict[str, list[Callable[[Request], Awaitable[None]]]]:
    """Return the hooks for `httpx.AsyncClient(event_hooks=...)`. Outside of `calling` they do nothing."""

    async def name_the_call(request: Request) -> None:
        _name(request)

    return {"request": [name_the_call]}


def blocking_event_hooks() -> dict[str, list[Callable[[Request], None]]]:
    """Return the hooks for `httpx.Client(event_hooks=...)`, for steps that are plain functions."""
    return {"request": [_name]}


def raise_for_answer(response: Response) -> Response:
    """Return a response that says yes; of any other, raise what it means to a saga.

    Raises:
        Reject: A participant with `atone.integrations.fastapi` said no, so there is surely no effect.
        RetryAfter: The answer names a time in `Retry-After` (429 or 503); the outcome is unknown.
        httpx.HTTPStatusError: Anything else that is no success; the outcome is unknown.
    """
    if response.is_success:
        return response
    problem = _problem_of(response)
    if response.is_client_error and problem.get("code") in _SAYS_NO:
        raise Reject(str(problem.get("detail", ""))[:_REASON_LENGTH_MAX] or "refused without a reason")
    seconds = _retry_after(response)
    if seconds is not None:
        raise RetryAfter(seconds, f"answered {response.status_code} with Retry-After")
    return response.raise_for_status()


def _name(request: Request) -> None:
    for name, value in _headers.get().items():
        request.headers.setdefault(name, value)


def _problem_of(response: Response) -> Mapping[str, Any]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/problem+json" or len(response.content) > _PROBLEM_BYTES_MAX:
        return _NONE
    try:
        problem = json.loads(response.content)
    except (ValueError, RecursionError):
        return _NONE
    return cast("dict[str, Any]", problem) if isinstance(problem, dict) else _NONE


def _retry_after(response: Response) -> float | None:
    """Return the seconds of the header; None for a date, which two clocks would read differently."""
    said = response.headers.get("retry-after", "") if response.status_code in {429, 503} else ""
    return float(said) if said.isascii() and said.isdigit() and len(said) <= _RETRY_AFTER_DIGITS_MAX else None
