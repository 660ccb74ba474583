"""Which types hold values that nobody can change, so that one decoded copy serves several calls of user code?

Owns that rule. A type that is not surely frozen all the way down is not: then each call gets a copy of its own. Must
not look at values. Called by the codec, once for each type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, Generic, Protocol, cast

from msgspec import inspect

_SCALARS = (
    inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.StrType, inspect.BytesType,
    inspect.DateTimeType, inspect.TimeType, inspect.DateType, inspect.TimeDeltaType, inspect.UUIDType,
    inspect.DecimalType, inspect.EnumType, inspect.LiteralType,
)  # fmt: skip
_HOLDERS = (
    inspect.TupleType, inspect.VarTupleType, inspect.FrozenSetType, inspect.UnionType,
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
    if not _is_class(cls) or hasattr(cls, "__post_init__"):
        return False
    if isinstance(node, inspect.StructType):
        return bool(cls.__struct_config__.frozen) and not cls.__dictoffset__
    if isinstance(node, inspect.NamedTupleType):
        return not cls.__dictoffset__
    if not isinstance(node, inspect.DataclassType) or not dataclasses.is_dataclass(cls):
        return False
    fields = {field.name for field in dataclasses.fields(cls)}
    frozen: Any = getattr(cls, "__dataclass_params__", None)
    is_frozen = bool(frozen is not None and frozen.frozen) and fields == {field.name for field in node.fields}
    return is_frozen and not any(_hides(cls, fields))


def _is_class(found: object) -> bool:
    return isinstance(found, type)


def _hides(cls: Any, fields: set[str]) -> Iterator[bool]:
    """Tell of each attribute whether a frozen object could keep by it what is no field, as a cached property does.

    Only what is known to keep nothing passes: plain methods and properties, and the places of the fields themselves.
    """
    for base in cls.__mro__:
        own: dict[str, Any] = {} if base in _OF_THE_LANGUAGE else {**vars(base)}
        for name, value in own.items():
            if name in _LETS_HIDE:
                yield True
            elif isinstance(value, MemberDescriptorType):
                yield name not in fields
            elif hasattr(cast("object", value).__class__, "__get__"):
                yield type(value) not in _KEEPS_NOTHING or any(map(_writes_past_the_freeze, _codes(name, value)))


def _codes(name: str, value: Any) -> Iterator[CodeType]:
    """Return the code of a method or a property; what dataclasses generate is not looked into."""
    parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
    for part in parts:
        if isinstance(part, FunctionType) and name not in _GENERATED:
            yield part.__code__


def _writes_past_the_freeze(code: CodeType) -> bool:
    return not _PAST_THE_FREEZE.isdisjoint(code.co_names)


_LETS_HIDE = frozenset({"__new__", "__getattr__", "__getattribute__"})
_KEEPS_NOTHING = (FunctionType, classmethod, staticmethod, property, GetSetDescriptorType)
_GENERATED = frozenset(
    {"__setattr__", "__delattr__", "__init__", "__setstate__", "__getstate__", "__replace__", "__subclasshook__"}
)
_OF_THE_LANGUAGE: tuple[Any, ...] = (object, Generic, Protocol)
_PAST_THE_FREEZE = frozenset({"__setattr__", "__dict__", "setattr", "vars"})
