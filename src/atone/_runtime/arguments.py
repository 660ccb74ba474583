"""What users hand over, checked before anything happens: identities, lengths of time, counts.

Owns the checks and their sentences. Must not know a saga or a store; a payload is the codec's to check. Called by the
typed calls of `Orchestrator` and its parts.
"""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import Any

from atone.errors import AtoneError, PayloadError

ID_LENGTH_MAX = 300
LIST_LIMIT_MAX = 1000
# Nobody waits so long; a whole number beyond it is no float any more.
ENDLESS_SECONDS = 1e300


def is_name(text: object) -> bool:
    """Whether this is a text that may name something: valid, bounded, not empty."""
    return type(text) is str and 1 <= len(text) <= ID_LENGTH_MAX and "\x00" not in text and _is_unicode(text)


def checked_name(what: str, text: str, error: type[AtoneError] = PayloadError) -> str:
    """Return the text, or raise `error` if it can't name anything."""
    if not is_name(text):
        raise error(f"{what} must be a valid text of 1 to {ID_LENGTH_MAX} characters without NUL; give another.")
    return text


def checked_limit(limit: int) -> int:
    """Return how many to list.

    Raises:
        PayloadError: It is no whole number from 1 to 1000.
    """
    if type(limit) is not int or not 1 <= limit <= LIST_LIMIT_MAX:
        raise PayloadError(f"limit= is a whole number from 1 to {LIST_LIMIT_MAX}; for more, continue with after=.")
    return limit


def seconds_of(what: str, given: Any) -> float | None:
    """Return a length of time in seconds; None, or an endless one, is None.

    Raises:
        PayloadError: It is no number and no timedelta.
    """
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not -inf <= seconds <= inf:
        raise PayloadError(f"{what}= is a number of seconds, a timedelta or None; give one of these.")
    return None if seconds >= ENDLESS_SECONDS else float(max(seconds, -ENDLESS_SECONDS))


def is_span(seconds: object) -> bool:
    """Whether this is a length of time that can end: a finite number of seconds, not below zero."""
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < ENDLESS_SECONDS


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
