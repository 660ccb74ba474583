"""Pydantic models as payloads.

Owns how a value of a Pydantic type becomes JSON and comes back. Must not be imported before such a type was seen:
Pydantic is optional. Called by the codec only, which compares what comes back with what went out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from atone._codec.refusal import Refusal


def dump(value: object) -> bytes:
    """Return the JSON of a value of a Pydantic type, by field name, without computed fields.

    A field that holds another type than declared raises, where Pydantic alone would warn and quote the value.
    """
    return _adapter(cast("Any", type(value))).dump_json(value, by_alias=False, round_trip=True, warnings="error")


def load(tp: Any, data: bytes) -> Any:
    """Return the value of a Pydantic type, validated strictly. Raises `Refusal` with the field and the broken rule."""
    try:
        return _adapter(tp).validate_json(data, strict=True, by_alias=False, by_name=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        raise Refusal(f"{_place(tp, first['loc'])} breaks the rule {first['type']}") from None


def _place(tp: Any, loc: tuple[int | str, ...]) -> str:
    """Name the model and its field; what lies deeper may be a key, which is data."""
    field = loc[0] if loc and loc[0] in getattr(tp, "model_fields", ()) else None
    return tp.__qualname__ if field is None else f"{tp.__qualname__}.{field}"


@lru_cache(maxsize=512)
def _adapter(tp: Any) -> TypeAdapter[Any]:
    return TypeAdapter(tp)
