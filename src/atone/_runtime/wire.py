"""The journal's stored format: entries to a JSON array and back.

One object an entry, `type` first, defaults left out, payloads inlined as the JSON they are. Owns nothing but this
format; a row that can't be read is `CorruptJournal`, never a guess. Called by the runtime and the command line.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from atone._codec.fidelity import getter
from atone._core import journal
from atone._core.facts import Operation
from atone._core.journal import Entry, RequestReceived
from atone._core.state import Request
from atone.errors import CorruptJournal

# Left out of a row when it says this: most attempts are the first call of an action.
_USUAL: dict[str, Any] = {"operation": Operation.ACTION, "attempt": 1}

_PAYLOAD: dict[Any, tuple[Any, Any]] = {
    bytes: (Raw, ...),
    bytes | None: (Raw | UnsetType, UNSET),
}


def encode_entries(entries: Iterable[Entry]) -> bytes:
    """Return a journal row's entries as stored."""
    return _ENCODER.encode([_TO_WIRE[type(entry)](entry) for entry in entries])


def decode_entries(data: bytes) -> list[Entry]:
    """Return the entries of a stored row.

    Raises:
        CorruptJournal: The row is not what `encode_entries` writes.
    """
    try:
        return [_FROM_WIRE[type(found)](found) for found in _DECODER.decode(data)]
    except (msgspec.DecodeError, RecursionError, ValueError) as wrong:
        raise CorruptJournal(
            f"A journal row can't be read: {type(wrong).__name__}. Restore the row from a backup, then retry the saga."
        ) from wrong


def type_tag(entry: type) -> str:
    """Return what an entry of this class is called in a stored row."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", entry.__name__).lower()


def _fields_of(entry: type) -> list[tuple[str, Any, Any]]:
    """Return name, type and default of each stored field of an entry."""
    record: Any = Request if entry is RequestReceived else entry
    hints = typing.get_type_hints(record)
    if not dataclasses.is_dataclass(record):
        return [(name, hints[name], record._field_defaults.get(name, ...)) for name in record._fields]
    return [
        (field.name, hints[field.name], ... if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(record)
    ]


def _stored(name: str, kind: Any, default: Any) -> tuple[Any, ...]:
    kind, default = _PAYLOAD.get(kind, (kind, _USUAL.get(name, default)))
    return (name, kind) if default is ... else (name, kind, default)


def _struct_for(entry: type) -> type[msgspec.Struct]:
    # Fields with a default must come last in a struct; the order of an object's keys means nothing.
    fields = sorted((_stored(*field) for field in _fields_of(entry)), key=len)
    name, tag = f"{entry.__name__}Stored", type_tag(entry)
    return msgspec.defstruct(name, fields, tag=tag, tag_field="type", omit_defaults=True, frozen=True)


def _converters(entry: type, stored: type[msgspec.Struct]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the ways there and back; by position, because two entries are written at nearly every turn."""
    payloads = frozenset(name for name, kind, _ in _fields_of(entry) if kind in _PAYLOAD)
    names = stored.__struct_fields__

    def from_wire(found: Any) -> Any:
        values = {name: getattr(found, name) for name in names}
        for name in payloads:
            values[name] = None if values[name] is UNSET else bytes(values[name])
        return RequestReceived(Request(**values)) if entry is RequestReceived else entry(**values)

    return _to_wire(entry, stored, payloads), from_wire


def _to_wire(entry: type, stored: type[msgspec.Struct], payloads: frozenset[str]) -> Callable[[Any], Any]:
    names = stored.__struct_fields__
    at_payloads = [at for at, name in enumerate(names) if name in payloads]
    values_of = getter(names)

    def general(found: Any) -> msgspec.Struct:
        values = [*values_of(found.request if entry is RequestReceived else found)]
        for at in at_payloads:
            values[at] = UNSET if values[at] is None else Raw(values[at])
        return stored(*values)

    # Half of all entries hold no payload, and cost half without the list.
    plain = entry is not RequestReceived and not at_payloads
    return (lambda found: stored(*values_of(found))) if plain else general


def _all_entries() -> Sequence[type]:
    return typing.get_args(journal.Entry)


_STORED = {entry: _struct_for(entry) for entry in _all_entries()}
_TO_WIRE = {entry: _converters(entry, stored)[0] for entry, stored in _STORED.items()}
_FROM_WIRE = {stored: _converters(entry, stored)[1] for entry, stored in _STORED.items()}
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[typing.Union[tuple(_STORED.values())]])  # type: ignore[misc]  # noqa: UP007 - built at run time
