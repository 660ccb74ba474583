"""Facts, requests and entries as JSON that a person can read, and back.

One object each, `type` first, defaults left out, payloads as the JSON that they are. For golden histories only: the
stored format belongs to the runtime. Must not import it, so that a history judges the core alone.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from typing import Any

from atone._core import facts, journal, state
from atone._core.facts import Fact
from atone._core.journal import Entry
from atone._core.state import Request

_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *typing.get_args(journal.Entry),
        *typing.get_args(facts.Fact),
        facts.Problem,
        facts.Built,
        state.Request,
        state.Cause,
    )
}


def to_json(thing: Any) -> Any:
    """Return plain JSON data for a fact, a request or an entry."""
    kind = type(thing)
    if isinstance(thing, enum.Enum):
        return thing.value
    if kind.__name__ in _KINDS:
        shown: dict[str, Any] = {"type": kind.__name__}
        for name, default in _fields(kind).items():
            value = getattr(thing, name)
            if value != default or default is dataclasses.MISSING:
                shown[name] = to_json(value)
        return shown
    if isinstance(thing, bytes):
        return json.loads(thing)
    if isinstance(thing, tuple):
        return [to_json(one) for one in thing]
    return thing


def fact_from(data: dict[str, Any]) -> Fact | Request:
    """Rebuild a fact or a request."""
    return typing.cast("Fact | Request", _from_json(_KINDS[data["type"]], data))


def entry_from(data: dict[str, Any]) -> Entry:
    """Rebuild a journal entry."""
    return typing.cast("Entry", _from_json(_KINDS[data["type"]], data))


def _fields(kind: type) -> dict[str, Any]:
    """Return each field's name and default."""
    if dataclasses.is_dataclass(kind):
        return {field.name: field.default for field in dataclasses.fields(kind)}
    names: tuple[str, ...] = getattr(kind, "_fields", ())
    defaults: dict[str, Any] = getattr(kind, "_field_defaults", {})
    return {name: defaults.get(name, dataclasses.MISSING) for name in names}


def _from_json(hint: Any, data: Any) -> Any:
    if isinstance(hint, types.UnionType):
        inner = [one for one in typing.get_args(hint) if one is not type(None)]
        # A payload that is there may be null; anything else that is null is not there.
        return None if data is None and bytes not in inner else _from_json(inner[0], data)
    if typing.get_origin(hint) is tuple:
        return tuple(_from_json(typing.get_args(hint)[0], one) for one in data)
    if hint is bytes:
        return json.dumps(data, separators=(",", ":")).encode()
    if hint is float:
        return float(data)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(data)
    if isinstance(hint, type) and hint.__name__ in _KINDS:
        hints = typing.get_type_hints(hint)
        return hint(**{name: _from_json(hints[name], data[name]) for name in _fields(hint) if name in data})
    return data
