"""Payloads to JSON bytes and back: the only place that serialises what users hand over.

Owns the closed set of payload types, the check that a value survives its trip unchanged, the limits, the encryption
envelope, and how an exception becomes text. Must not do I/O, know a saga, or import a type that data names.
Called by the orchestrator (inputs, events), by the runtime before a success is journalled, by tools that show payloads.
No message made here holds a payload's value: it names types, declared fields and positions.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any, Protocol, cast

import msgspec
from msgspec import inspect

from atone._codec.fidelity import Twins
from atone._codec.problems import describe as describe
from atone._codec.problems import message_of
from atone._codec.refusal import Refusal
from atone._codec.sharing import is_shareable
from atone.errors import DefinitionError, PayloadError

_SEAL = b'"atone:sealed:1:'
_USE = (
    "Use a dataclass, msgspec.Struct, TypedDict, NamedTuple, Pydantic model or builtin"
    " (a union of classes: msgspec.Structs with tag=True), with types that are defined at module level."
)
_GIVE = "Give a value of the declared type, or change the declaration."
_ROW = "Bring back the type that wrote it, or correct the row."

_JSON_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_KEYS = (
    inspect.AnyType, inspect.StrType, inspect.BytesType, inspect.IntType, inspect.FloatType, inspect.DecimalType,
    inspect.EnumType, inspect.LiteralType, inspect.UUIDType, inspect.DateTimeType, inspect.DateType, inspect.TimeType,
    inspect.TimeDeltaType, inspect.UnionType, inspect.Metadata,
)  # fmt: skip

# What msgspec says without quoting a value; the rest of its words are replaced.
_PLAIN_WORDS = re.compile(
    r"Expected |Object missing |Input data |JSON is malformed|Invalid (RFC3339|UUID|decimal|base64|ISO8601|UTF-8)"
    r"|(Integer value|Number) out of range"
)
_AT = re.compile(r" - at `[$.\w\[\]]*`( in `[$.\w\[\]]*`)?$")


def is_sealed(data: bytes) -> bool:
    """Tell whether a stored payload is encrypted."""
    return data.startswith(_SEAL)


class Encryption(Protocol):
    """Encrypt payloads at rest: bytes to bytes, authenticated.

    `context` names the saga and the field. Bind it as associated data, so that a ciphertext moved to another row
    does not decrypt. Raise anything to refuse. Both are called in the event loop, so fetch keys beforehand.
    """

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        """Return the ciphertext of `data`, with what `decrypt` needs to find the key."""
        ...

    def decrypt(self, data: bytes, context: bytes) -> bytes:
        """Return what was encrypted under the same `context`; raise for anything else."""
        ...


class Codec:
    """Hold the limits and the key with which payloads are written and read; make one schema per type.

    `payload_bytes_max` counts bytes of JSON before encryption, `items_max` the commas and brackets outside of texts.
    With `encryption`, unencrypted payloads are refused, unless `plain_readable` is set: for the time after
    encryption was switched on over a store with unfinished sagas.
    """

    def __init__(
        self,
        *,
        payload_bytes_max: int = 1_048_576,
        depth_max: int = 64,
        items_max: int = 100_000,
        encryption: Encryption | None = None,
        plain_readable: bool = False,
    ) -> None:
        if min(payload_bytes_max, depth_max, items_max) < 1:
            raise DefinitionError("A codec's limits are at least 1. Leave one out to get its default.")
        self._bytes_max, self._depth_max, self._items_max = payload_bytes_max, depth_max, items_max
        self._harmless_bytes = min(payload_bytes_max, depth_max, items_max)
        self._encryption = encryption
        self._plain_readable = plain_readable or encryption is None
        self._schemas: dict[Any, Schema] = {}
        self._plain: Codec | None = None

    @property
    def encrypts(self) -> bool:
        """Whether payloads are encrypted, so that their context is read at all."""
        return self._encryption is not None

    @property
    def plain(self) -> Codec:
        """This codec without encryption: for what is sent to others, who have no key."""
        if self._plain is None:
            self._plain = self if self._encryption is None else self._without_encryption()
        return self._plain

    def _without_encryption(self) -> Codec:
        return Codec(payload_bytes_max=self._bytes_max, depth_max=self._depth_max, items_max=self._items_max)

    def schema(self, tp: Any) -> Schema:
        """Return the schema of a payload type, made once.

        Raises DefinitionError for a type that can't be a payload. `Any` and `object` stand for plain JSON values.
        """
        try:
            known = self._schemas.get(tp)
        except TypeError:  # an annotation with an unhashable part: no cache for it
            return Schema(self, tp)
        if known is None:
            known = self._schemas[tp] = Schema(self, tp)
        return known

    def check_limits(self, data: bytes) -> None:
        """Raise PayloadError if unencrypted JSON is too long, too deep or holds too many items."""
        if len(data) <= self._harmless_bytes:
            return  # too short to break any limit; most payloads are
        if len(data) > self._bytes_max:
            raise PayloadError(
                f"A payload of {len(data)} bytes is over payload_bytes_max={self._bytes_max}."
                " Keep the data elsewhere and pass a reference to it, or raise the limit."
            )
        opened = data.count(b"[") + data.count(b"{")
        if opened > self._depth_max or opened + data.count(b",") > self._items_max:
            self._measure(data)  # only the counts can be wrong, by brackets and commas inside texts

    def _measure(self, data: bytes) -> None:
        bare = _JSON_TEXT.sub(b"", data)
        brackets = bare.translate(None, _NO_BRACKETS)
        items = bare.count(b",") + bare.count(b"[") + bare.count(b"{")
        if items > self._items_max:
            raise PayloadError(f"A payload of {items} items is over items_max={self._items_max}. Split it.")
        depth = 0
        for bracket in brackets:
            depth += 1 if bracket in b"[{" else -1
            if depth > self._depth_max:
                raise PayloadError(f"A payload is nested over depth_max={self._depth_max} levels deep. Flatten it.")

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Return JSON as it is stored: itself, or a JSON string that holds its ciphertext."""
        if self._encryption is None:
            if data.startswith(_SEAL):
                raise PayloadError(f"A text payload can't begin with {_SEAL[1:].decode()}. Change its first letters.")
            return data
        try:
            return b'%b%b"' % (_SEAL, base64.b64encode(self._encryption.encrypt(data, context)))
        except Exception as exc:  # noqa: BLE001 - foreign code
            raise PayloadError(f"Encryption raised {_name(type(exc))}. See what it needs.") from None

    def unseal(self, data: bytes, context: bytes) -> bytes:
        """Return the unencrypted JSON of what `seal` gave under the same context, within the limits."""
        if data.startswith(_SEAL):
            data = self._decrypt(data, context)
        elif not self._plain_readable:
            raise PayloadError(
                "A payload is not encrypted, and this codec is. Set plain_readable to read it all the same."
            )
        self.check_limits(data)
        return data

    def _decrypt(self, data: bytes, context: bytes) -> bytes:
        if self._encryption is None:
            raise PayloadError("A payload is encrypted and this codec has no key. Give it the one it was written with.")
        if len(data) > 2 * self._bytes_max + 4096:
            raise PayloadError("An encrypted payload is over payload_bytes_max. Raise the limit to read it.")
        try:
            return self._encryption.decrypt(base64.b64decode(data[len(_SEAL) : -1], validate=True), context)
        except Exception as exc:  # noqa: BLE001 - foreign code
            raise PayloadError(
                f"A payload can't be decrypted ({_name(type(exc))}): another key, another saga's or field's payload,"
                " or damage. Give the key it was written with, or correct the row."
            ) from None


class Schema:
    """Encode and decode payloads of one type. Made by `Codec.schema`."""

    __slots__ = ("_codec", "_differs", "_dumps", "_loads", "is_shareable", "name")

    def __init__(self, codec: Codec, tp: Any) -> None:
        self.name = _name(tp)
        try:
            loads = msgspec.json.Decoder(tp, dec_hook=_revive).decode
            unsupported = next(_unsupported(tp), None)
        except Exception as exc:
            raise DefinitionError(f"{self.name} can't be a payload: {exc}. {_USE}") from exc
        if unsupported is not None:
            raise DefinitionError(f"{self.name} can't be a payload: {unsupported}. {_USE}")
        self._codec, self._loads = codec, loads
        self._dumps = msgspec.json.Encoder(enc_hook=_foreign).encode
        self._differs = Twins().differ
        # Whether one decoded value may be given to several calls: nobody can change it.
        self.is_shareable = is_shareable(tp)

    def encode(self, value: Any, context: bytes = b"") -> bytes:
        """Return the value as JSON bytes that surely read back as the same value.

        The bytes are decoded at once as the declared type, strictly. What comes back must be equal and of the same
        types all the way down, else PayloadError. Three differences pass: an int where a float is declared, a member
        of a str or int enum where str or int is declared, and a zone's name (an aware datetime keeps its instant and
        its offset). NaN and infinite floats are refused, for JSON has none.
        """
        return self.encode_and_read(value, context)[0]

    def encode_and_read(self, value: Any, context: bytes = b"") -> tuple[bytes, Any]:
        """Return what `encode` returns, and the value as it reads back."""
        try:
            data = self._dumps(value)
            self._codec.check_limits(data)
            copy = self._loads(data)
            found = self._differs(value, copy)
            if found is not None:
                raise Refusal(f"{found[1]} - at `${found[0]}`")
        except PayloadError:
            raise
        except Exception as exc:  # noqa: BLE001 - a type's own code runs in here
            what = _reason(exc)
            raise PayloadError(f"{self.name} can't be made of this {_name(type(value))}: {what}. {_GIVE}") from None
        return self._codec.seal(data, context), copy

    def decode(self, data: bytes, context: bytes = b"") -> Any:
        """Return the value that `encode` was given. Raises PayloadError for anything else.

        Fields that the type does not know are left out, so that an older process can read what a newer one wrote.
        """
        try:
            return self._loads(self._codec.unseal(data, context))
        except PayloadError:
            raise
        except Exception as exc:  # noqa: BLE001 - a type's own code runs in here
            raise PayloadError(f"A stored payload is no {self.name}: {_reason(exc)}. {_ROW}") from None

    def same(self, a: bytes, b: bytes, context: bytes = b"") -> bool:
        """Tell whether two stored payloads hold the same value, encrypted or not, sets in any order."""
        if a == b:
            return True
        if self._differs(self.decode(a, context), self.decode(b, context)) is None:
            return True
        return same_json(self._codec.unseal(a, context), self._codec.unseal(b, context))


def _unsupported(tp: Any) -> Iterator[str]:
    """Name the parts of a type that msgspec lets through, only to fail on every value."""
    todo: list[Any] = [inspect.type_info(tp)]
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if id(node) in seen:  # types may refer to themselves
            continue
        seen.add(id(node))
        match node:
            case inspect.CustomType(cls=cls) if cls is not object and not _has_hook(cls):
                yield f"{_name(cls)} is no type for JSON"
            case inspect.RawType() | inspect.ExtType():
                yield "it holds data that is not decoded"
            case inspect.DictType(key_type=key) if not isinstance(key, _KEYS):
                yield f"a dict's key can't be a {type(key).__name__.removesuffix('Type')}"
            case _:
                pass
        for name in node.__struct_fields__:
            part: Any = getattr(node, name)
            children = cast("Iterable[Any]", part) if isinstance(part, tuple) else (part,)
            todo += [child for child in children if isinstance(child, inspect.Type | inspect.Field)]


def _name(tp: Any) -> str:
    return tp.__qualname__ if isinstance(tp, type) else str(tp).replace("typing.", "")


def _has_hook(kind: type) -> bool:
    """Tell a Pydantic type without importing Pydantic."""
    return hasattr(kind, "__get_pydantic_core_schema__")


def _foreign(value: object) -> msgspec.Raw:
    if not _has_hook(type(value)):
        raise Refusal(f"a {_name(type(value))} can't be JSON in its place")
    from atone.integrations import pydantic

    return msgspec.Raw(pydantic.dump(value))


def _revive(tp: Any, data: Any) -> Any:
    if tp is object:
        return data
    from atone.integrations import pydantic

    return pydantic.load(tp, msgspec.json.encode(data))


def _reason(exc: Exception) -> str:
    """Say what is wrong without a value: of an exception's own words only those are kept that quote none."""
    if isinstance(exc, Refusal) or isinstance(exc.__cause__, Refusal):
        return str(exc)
    if isinstance(exc, RecursionError):
        return "it is nested too deeply, or holds itself"
    if isinstance(exc, UnicodeError):
        return "a text in it is not valid Unicode"
    said = message_of(exc)
    where = found.group() if (found := _AT.search(said)) else ""
    if isinstance(exc, msgspec.MsgspecError) and exc.__cause__ is None:
        if said.startswith("Expected `float`, got `null`"):
            return f"{said} (NaN and infinity become null)"
        if _PLAIN_WORDS.match(said):
            return said
        return f"a name or value is none of those declared{where}"
    if type(exc) is ValueError and said.startswith("Exceeds the limit ("):
        return "an int has too many digits"
    return f"{_name(type(exc.__cause__ or exc))} was raised{where}"


def _number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise Refusal("a number is out of range")
    return int(value) if value.is_integer() else value


_ANY = msgspec.json.Decoder(float_hook=_number)
_SORTED = msgspec.json.Encoder(order="sorted")


def same_json(a: bytes, b: bytes) -> bool:
    """Tell whether two payloads are the same JSON value: the order of keys does not matter, 1 equals 1.0, not true.

    Raises PayloadError for what is not JSON. For encrypted payloads, and types with sets, ask `Schema.same`.
    """
    return a == b or _canonical(a) == _canonical(b)


def _canonical(data: bytes) -> bytes:
    try:
        return _SORTED.encode(_ANY.decode(data))
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is no JSON
        raise PayloadError(f"A payload can't be compared: {_reason(exc)}. {_ROW}") from None
