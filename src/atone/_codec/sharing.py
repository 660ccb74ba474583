"""Which types hold values that nobody can change, so that one decoded copy serves several calls of user code?

Owns that rule. A type that is not surely frozen all the way down is not: then each call gets a copy of its own. Must
not look at values. Called by the codec, once for each type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, cast

from msgspec import inspect

_SCALARS = (
    inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.StrType, inspect.BytesType,
    inspect.DateTimeType, inspect.TimeType, inspect.DateType, inspect.TimeDeltaType, inspect.UUIDType,
    inspect.DecimalType, inspect.EnumType, inspect.LiteralType,
)  # fmt: skip
_HOLDERS = (
    inspect.TupleType, inspect.VarTupleType, inspect.NamedTupleType, inspect.FrozenSetType, inspect.UnionType,
    inspect.Metadata, inspect.Field,
)  # fmt: skip


def is_shareable(tp: Any) -> bool:
    """Tell whether every value of the type, with all that it holds, is immutable."""
    todo: list[Any] = [inspect.type_info(tp)]
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, _SCALARS) or id(node) in seen:  # types may refer to themselves
            continue
        seen.add(id(node))
        if not (isinstance(node, _HOLDERS) or _is_frozen_record(node)):
            return False
        for name in node.__struct_fields__:
            part: Any = getattr(node, name)
            children = cast("Iterable[Any]", part) if isinstance(part, tuple) else (part,)
            todo += [child for child in children if isinstance(child, inspect.Type | inspect.Field)]
    return True


def _is_frozen_record(node: Any) -> bool:
    """Tell whether a class's objects stay as they were decoded; code that runs at their making may hide anything."""
    cls: Any = getattr(node, "cls", None)
    if cls is None or hasattr(cls, "__post_init__"):
        return False
    if isinstance(node, inspect.StructType):
        return bool(cls.__struct_config__.frozen)
    if not isinstance(node, inspect.DataclassType) or not dataclasses.is_dataclass(cls):
        return False
    fields = {field.name for field in dataclasses.fields(cls)}
    frozen: Any = getattr(cls, "__dataclass_params__", None)
    return bool(frozen is not None and frozen.frozen) and fields == {field.name for field in node.fields}
