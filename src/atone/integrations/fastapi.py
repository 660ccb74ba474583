"""FastAPI and Starlette: whose call this is, as a dependency; and what Atone's exceptions are over HTTP.

Owns the dependencies and the problem documents (RFC 9457). Must not guard an effect: that is the barrier's, in the
participant's own transaction. Made for services that sagas call. Needs the `fastapi` extra, which brings Starlette;
FastAPI itself is the service's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from math import ceil
from types import MappingProxyType
from typing import Any, TypeAlias

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError('Starlette is missing. Run: pip install "atone[fastapi]"') from missing

from atone._messaging.over_http import CompensationCall, SagaCall, read_action, read_compensation
from atone.errors import AlreadyCompensated, ArgumentsDiffer, AtoneError, MessageError, Reject, RetryAfter

__all__ = ["PROBLEMS", "CompensationCall", "SagaCall", "add_problems", "compensation_call", "saga_call"]

PROBLEM_TYPE = "application/problem+json"

Handler: TypeAlias = Callable[[Request, Any], Coroutine[Any, Any, Response]]


async def saga_call(request: Request) -> SagaCall:
    """Return whose call of an action this is: `Annotated[SagaCall, Depends(saga_call)]`, or call it with the request.

    Raises:
        MessageError: The header `Idempotency-Key` is missing, or one of the headers is malformed; a 400 problem.
    """
    return read_action(request.headers.getlist)


async def compensation_call(request: Request) -> CompensationCall:
    """Return whose call of a compensation this is; its `action_key` says what to undo.

    Raises:
        MessageError: As for `saga_call`, and for `Atone-Action-Key` too.
    """
    return read_compensation(request.headers.getlist)


def add_problems(app: Starlette) -> None:
    """Have an application answer Atone's exceptions as problems; the same as `exception_handlers=PROBLEMS`."""
    for kind, handler in PROBLEMS.items():
        app.add_exception_handler(kind, handler)


def _problem(status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, "code": code}
    text = json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")
    return Response(text, status.value, headers=headers, media_type=PROBLEM_TYPE)


def _says(status: HTTPStatus) -> Handler:
    async def answer(_: Request, error: Exception) -> Response:
        code = error.code if isinstance(error, AtoneError) else "atone"
        return _problem(status, code, str(error))

    return answer


async def _rejected(_: Request, error: Exception) -> Response:
    reason = error.reason if isinstance(error, Reject) else str(error)
    return _problem(HTTPStatus.CONFLICT, "rejected", reason)


async def _later(_: Request, error: Exception) -> Response:
    if not isinstance(error, RetryAfter):
        raise error
    code = error.code if isinstance(error, AtoneError) else "retry_after"
    # Whole seconds is what the header can say; sooner than asked would be wrong.
    headers = {"Retry-After": str(max(1, ceil(error.seconds)))}
    return _problem(HTTPStatus.SERVICE_UNAVAILABLE, code, error.reason, headers)


# Anything else is no definite answer: it stays a 500, and the saga takes it as unknown.
PROBLEMS: Mapping[int | type[Exception], Handler] = MappingProxyType(
    {
        MessageError: _says(HTTPStatus.BAD_REQUEST),
        AlreadyCompensated: _says(HTTPStatus.CONFLICT),
        ArgumentsDiffer: _says(HTTPStatus.UNPROCESSABLE_ENTITY),
        Reject: _rejected,
        RetryAfter: _later,
    }
)
