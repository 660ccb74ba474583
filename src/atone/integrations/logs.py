"""Logs for machines: one JSON object a line, and a record for each thing that happens to a saga.

Owns the form of a line, and which events become records. Must not configure logging, nor put a payload, a reason or an
exception's text into a record. Made by users; stands on the standard library alone.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from atone._runtime.logs import FIELDS, about
from atone._runtime.trace_context import read_text
from atone.telemetry import Attempted, AttemptObserver, Observer, SagaObserver, StartObserver, Subject

_CALM = frozenset({"succeeded", "interrupted", "landed", "not_landed"})
_ENDS_WELL = frozenset({"completed", "compensated"})


class JsonFormatter(logging.Formatter):
    """Write a record as one JSON object: time, level, logger, message, and the fields that Atone gave it.

    A record of another library is written too; of its exception the type is told, not the text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name in FIELDS if (value := getattr(record, name, None)) is not None)
        if record.exc_info is not None and record.exc_info[0] is not None:
            line.setdefault("error_type", record.exc_info[0].__qualname__)
        return json.dumps(line, ensure_ascii=False, default=str)


class EventLog(Observer):
    """Log a record for each start, claim, attempt, turn backward and end, with ids as fields.

    What goes well is INFO, what does not is WARNING; the logger is `atone.events`.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("atone.events")

    def starting(self, saga: Subject) -> StartObserver:
        return _Start(self._log, saga)

    def follow(self, saga: Subject) -> SagaObserver:
        return _Saga(self._log, saga)

    def lease_lost(self, sagas: int) -> None:
        self._log.warning("the lease was lost, and with it %d sagas", sagas)


class _Start(StartObserver):
    def __init__(self, log: logging.Logger, saga: Subject) -> None:
        self._log, self._saga = log, saga

    def ended(self, made: bool, error: str | None) -> None:
        level = logging.INFO if error is None else logging.WARNING
        what = "started" if made else "found" if error is None else "not started"
        self._log.log(level, "saga %s %s", self._saga.saga_id, what, extra=_fields(self._saga, error_type=error))


class _Saga(SagaObserver):
    def __init__(self, log: logging.Logger, saga: Subject) -> None:
        self._log, self._saga = log, saga

    def claimed(self) -> None:
        self._say(logging.INFO, "claimed")

    def released(self) -> None:
        self._say(logging.INFO, "released")

    def settled(self, status: str) -> None:
        self._say(logging.INFO if status in _ENDS_WELL else logging.WARNING, status, status=status)

    def turned_back(self, trigger: str) -> None:
        self._say(logging.WARNING, "turns back", trigger=trigger)

    def attention_raised(self, step: str | None) -> None:
        self._say(logging.WARNING, "needs attention", step=step)

    def compensation_gave_up(self, step: str) -> None:
        self._say(logging.WARNING, "gives up on an undo", step=step)

    def keeps_failing(self, step: str) -> None:
        self._say(logging.WARNING, "keeps failing at a step", step=step)

    def attempt_lost(self, what: Attempted) -> None:
        self._say(logging.WARNING, "lost an attempt", **what._asdict(), outcome="lost")

    def landed_late(self, step: str) -> None:
        self._say(logging.WARNING, "landed after all at a step", step=step)

    def attempt(self, what: Attempted) -> AttemptObserver:
        return _Attempt(self._log, self._saga, what)

    def _say(self, level: int, what: str, **fields: Any) -> None:
        self._log.log(level, "saga %s %s", self._saga.saga_id, what, extra=_fields(self._saga, **fields))


class _Attempt(AttemptObserver):
    def __init__(self, log: logging.Logger, saga: Subject, what: Attempted) -> None:
        self._log, self._saga, self._what = log, saga, what

    def ended(self, outcome: str, seconds: float, error: str | None) -> None:
        what, level = self._what, logging.INFO if outcome in _CALM else logging.WARNING
        said = (self._saga.saga_id, what.operation, what.step, what.attempt, outcome)
        known = {**what._asdict(), "outcome": outcome, "seconds": round(seconds, 6), "error_type": error}
        self._log.log(level, "saga %s: %s of %s, attempt %d: %s", *said, extra=_fields(self._saga, **known))


def _fields(saga: Subject, **other: Any) -> dict[str, Any]:
    trace = None if saga.trace is None else read_text(saga.trace)
    return about(
        saga=saga.name,
        saga_version=saga.version,
        saga_id=saga.saga_id,
        tenant=saga.tenant,
        trace_id=None if trace is None else trace.trace_id,
        **other,
    )
