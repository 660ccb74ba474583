"""What a log record of Atone carries: fields for machines beside the words for people, and no data of a user.

Owns the names of the fields, and how an exception is told: Atone's own by its message, any other by its type and where
it came from, for a foreign message may quote a payload. Must not configure logging. Called wherever the shell logs.
"""

from __future__ import annotations

import logging
from typing import Any

from atone._codec.problems import describe, type_name
from atone._core.plan import Plan
from atone._core.state import SagaState
from atone.errors import AtoneError

# The fields, in the order in which they are shown; each is an attribute of the record if it is known.
FIELDS = (
    "saga", "saga_version", "saga_id", "tenant", "step", "operation", "attempt", "outcome", "seconds", "status",
    "trigger", "worker", "error_type", "trace_id",
)  # fmt: skip


def told(error: BaseException) -> str:
    """Return what may be said of an exception: Atone's own words, or the type of a foreign one."""
    return str(error) if isinstance(error, AtoneError) else type_name(error)


def report(log: logging.Logger, what: str, error: BaseException, **fields: Any) -> None:
    """Log an error that should not happen, with the places that it came through and without its message."""
    trace = describe(error).traceback
    log.error("%s: %s%s", what, told(error), f"\n{trace}" if trace else "", extra=about(error, **fields))


def of_saga(plan: Plan, state: SagaState | None, **fields: Any) -> dict[str, Any]:
    """Return the fields of a record about a saga; without its state, the definition's."""
    known: dict[str, Any] = {} if state is None else {"saga_id": state.saga_id, "tenant": state.tenant}
    return about(None, saga=plan.name, saga_version=plan.version, **known, **fields)


def about(error: BaseException | None = None, **fields: Any) -> dict[str, Any]:
    """Return a record's fields; those that are not known are left out."""
    found = {name: value for name, value in fields.items() if value is not None}
    return found if error is None else {**found, "error_type": type_name(error)}
