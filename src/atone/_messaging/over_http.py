"""How one call of a saga is named in the headers of an HTTP request, and what they may hold.

Owns the headers' names, their form, and the check of what comes from outside. A value is printable ASCII; every other
character, and the percent sign itself, stands as UTF-8 in percent escapes, so two keys never become one on the way.
Must not know a web framework or a client. Written by the httpx hook, read by the FastAPI and Starlette dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from atone._define.values import Context, Tried
from atone._messaging.headers import ACTION_KEY, ATTEMPT, SAGA_ID
from atone._runtime.trace_context import read_headers
from atone.barrier import KEY_LENGTH_MAX
from atone.errors import MessageError

IDEMPOTENCY_KEY = "idempotency-key"
SAGA_ID_LENGTH_MAX = 300
ATTEMPT_MAX = 1_000_000_000

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_ESCAPE_LENGTH_MAX = 12  # of one character: four bytes, three characters each


class SagaCall(Struct, frozen=True):
    """Who calls: what a participant has to know of a saga's call of an action.

    `saga_id` and `attempt` are None if the caller is no saga. `trace_headers` is its W3C trace context, to be sent
    along; empty if there is none that may be believed.
    """

    idempotency_key: str
    saga_id: str | None = None
    attempt: int | None = None
    trace_headers: Mapping[str, str] = _NO_HEADERS


class CompensationCall(Struct, frozen=True):
    """The same of a compensation; `action_key` is the idempotency key of the action that it undoes."""

    idempotency_key: str
    action_key: str
    saga_id: str | None = None
    attempt: int | None = None
    trace_headers: Mapping[str, str] = _NO_HEADERS


def call_headers(ctx: Context[Any], tried: Tried[Any] | None = None) -> dict[str, str]:
    """Return the headers that tell a participant whose call this is, for any HTTP client.

    Give a compensation's `tried` too: it brings the key of the action.
    """
    headers = {
        "Idempotency-Key": _written(ctx.idempotency_key),
        "Atone-Saga-Id": _written(ctx.saga_id),
        "Atone-Attempt": str(ctx.attempt),
        **ctx.trace_headers,
    }
    if tried is not None:
        headers["Atone-Action-Key"] = _written(tried.idempotency_key)
    return headers


def read_action(values_of: Callable[[str], Sequence[str]]) -> SagaCall:
    """Return the call that a request's headers tell; `values_of` returns all values of one.

    Raises:
        MessageError: A header is missing, is there twice, or is not in the form of this module.
    """
    key = _text(values_of, IDEMPOTENCY_KEY, KEY_LENGTH_MAX)
    return SagaCall(key, _saga_id(values_of), _attempt(values_of), _trace(values_of))


def read_compensation(values_of: Callable[[str], Sequence[str]]) -> CompensationCall:
    """Return a compensation's call; see `read_action`.

    Raises:
        MessageError: As there; or its key is the action's own, so that one of them would pass for the other.
    """
    key = _text(values_of, IDEMPOTENCY_KEY, KEY_LENGTH_MAX)
    action_key = _text(values_of, ACTION_KEY, KEY_LENGTH_MAX)
    if key == action_key:
        raise MessageError(
            f"{_shown(IDEMPOTENCY_KEY)} and {_shown(ACTION_KEY)} are the same. "
            "A compensation has a key of its own; send both."
        )
    return CompensationCall(key, action_key, _saga_id(values_of), _attempt(values_of), _trace(values_of))


def _written(text: str) -> str:
    return quote(text, safe=_PLAIN)


def _saga_id(values_of: Callable[[str], Sequence[str]]) -> str | None:
    return _text(values_of, SAGA_ID, SAGA_ID_LENGTH_MAX) if values_of(SAGA_ID) else None


def _attempt(values_of: Callable[[str], Sequence[str]]) -> int | None:
    if not values_of(ATTEMPT):
        return None
    text = _only(values_of, ATTEMPT)
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(ATTEMPT_MAX))
    if not is_number or not 1 <= int(text) <= ATTEMPT_MAX:
        raise MessageError(f"{_shown(ATTEMPT)} is a whole number from 1 to {ATTEMPT_MAX}; send one, or leave it out.")
    return int(text)


def _trace(values_of: Callable[[str], Sequence[str]]) -> Mapping[str, str]:
    parents = values_of("traceparent")
    if len(parents) != 1:
        return _NO_HEADERS
    found = read_headers({"traceparent": parents[0], "tracestate": ",".join(values_of("tracestate"))})
    return _NO_HEADERS if found is None else found.headers


def _text(values_of: Callable[[str], Sequence[str]], name: str, length_max: int) -> str:
    written = _only(values_of, name)
    if len(written) <= length_max * _ESCAPE_LENGTH_MAX:
        try:
            text = unquote_to_bytes(written).decode()
        except UnicodeError:
            text = ""
        if 1 <= len(text) <= length_max and "\0" not in text and _written(text) == written:
            return text
    raise MessageError(
        f"{_shown(name)} is a text of 1 to {length_max} characters without NUL, in printable ASCII; spaces, percent "
        "signs and all other characters as percent escapes of their UTF-8 (%25 for a percent sign). Send one."
    )


def _only(values_of: Callable[[str], Sequence[str]], name: str) -> str:
    values = values_of(name)
    if len(values) != 1:
        there = "is missing" if not values else f"is there {len(values)} times"
        raise MessageError(f"{_shown(name)} {there}. Send it once with each request.")
    return values[0]


def _shown(name: str) -> str:
    return f"The header {name.title()}"
