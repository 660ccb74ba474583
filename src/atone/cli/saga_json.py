"""Sagas, steps and journal entries as JSON for programs; the keys are a promise (docs/command-line.md).

Owns the shapes, and that payloads and tracebacks stay out unless they were asked for. Must not print. Used by the
commands under `--json`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import msgspec

from atone._core.facts import Problem
from atone._core.journal import Entry
from atone._core.plan import StepPlan
from atone._core.state import StepState
from atone._runtime.wire import type_tag
from atone.codec import is_sealed
from atone.store import Summary


class Shown(NamedTuple):
    """What may be shown of what is stored."""

    payloads: bool = False
    tracebacks: bool = False


def summary_json(summary: Summary, *, choreographed: bool = False) -> dict[str, Any]:
    """Return a saga's hot row. Times are epoch seconds by the store's clock."""
    return {
        "key": summary.key.hex(),
        "tenant": summary.tenant,
        "name": summary.name,
        "saga_id": summary.saga_id,
        "definition_version": summary.definition_version,
        "plan_hash": summary.plan_hash,
        "status": summary.status,
        "worker": summary.owner,
        "wake_at": summary.wake_at,
        "created_at": summary.created_at,
        "style": "choreographed" if choreographed else "orchestrated",
    }


def step_json(step: StepPlan, state: StepState, shown: Shown) -> dict[str, Any]:
    """Return where one step stands."""
    return {
        "step": step.name,
        "role": step.role.value,
        "status": state.status.value,
        "attempts": state.action.started,
        "probe_attempts": state.probe.started,
        "compensation_attempts": state.compensation.started,
        "in_doubt": state.doubt,
        "due_at": state.due_at,
        "attention": state.attention,
        "waived": state.waived,
        "problem": plain(state.problem, shown),
    }


def entry_json(entry: Entry, shown: Shown) -> dict[str, Any]:
    """Return a journal entry: its type, then its own fields."""
    return {"type": type_tag(type(entry)), **{name: plain(getattr(entry, name), shown) for name in _names_of(entry)}}


def plain(value: Any, shown: Shown) -> Any:
    """Return a value of the core as JSON values; payloads and tracebacks only as far as they may be shown."""
    if isinstance(value, bytes):
        return payload_json(value, shown)
    if isinstance(value, Problem):
        trace = value.traceback if shown.tracebacks else None
        return {"type": value.type, "message": value.message, "traceback": trace}
    names = _names_of(value)
    if names:
        return {name: plain(getattr(value, name), shown) for name in names}
    if issubclass(type(value), tuple):
        return [plain(one, shown) for one in value]
    return value


def _names_of(value: Any) -> tuple[str, ...]:
    """Return the fields of a dataclass or a named tuple."""
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    return getattr(value, "_fields", ())


def payload_json(data: bytes, shown: Shown) -> dict[str, Any]:
    """Return what may be shown of a payload: hidden, plain with its `value`, encrypted, or damaged; and its size."""
    known: dict[str, Any] = {"payload": "hidden", "bytes": len(data)}
    if is_sealed(data):
        return known | {"payload": "encrypted"}
    if not shown.payloads:
        return known
    try:
        return known | {"payload": "plain", "value": msgspec.json.decode(data)}
    except (msgspec.DecodeError, ValueError, RecursionError):  # no UTF-8, or a number of thousands of digits
        return known | {"payload": "damaged"}


def payload_text(data: bytes) -> str:
    """Return a payload for people: its JSON in one line, or that it is encrypted."""
    if is_sealed(data):
        return "encrypted"
    return data.decode("utf-8", "backslashreplace")
