"""Every decoder of Atone: the table of those that are fuzzed, and what only looks like one, each with the reason.

`found_in` reads the source and lists all functions that are named like a decoder or call one; a test holds that list
against this table, so a new decoder is either fuzzed or explained. Read by the command and by the tests.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.fuzz import carried, stored, typed
from tests.fuzz.engine import Decoder

DECODERS: dict[str, Decoder] = {one.name: one for one in (*stored.DECODERS, *carried.DECODERS, *typed.DECODERS)}
SOURCE = Path(__file__).resolve().parents[2] / "src"

# What a decoder is called, and what one calls.
_NAMED = re.compile(
    r"(^|_)(decode[ds]?|parse[ds]?|read|unseal|load|loads|remembered|unquoted)(_|$)|from_(json|message|headers|wire)"
)
_CALLS = {
    "loads",
    "urlsplit",
    "parse_qsl",
    "unquote",
    "unquote_to_bytes",
    "b64decode",
    "fromisoformat",
    "isdigit",
    "isdecimal",
}

_STORES = "asks the database for rows; what stands in them is read by decode_entries, from_json and sight"
_SIGNATURES = "reads annotations of the user's own classes, not data"
_SERVER = "reads the answer of a server through its driver's own decoder"
NOT_DECODERS: dict[str, str] = {
    "atone._choreography.annotate": _SIGNATURES,
    "atone._define.annotate": _SIGNATURES,
    "atone._participant.commanded:Commanded._reply": "reads what the same transaction has encoded",
    "atone._runtime.wire:_converters": "makes the functions that decode_entries calls",
    "atone._runtime.wire:_converters.from_wire": "called by decode_entries alone",
    "atone.stores.memory": _STORES,
    "atone.stores._memory_views": _STORES,
    "atone.stores.sqlite": _STORES,
    "atone.stores._sqlite_read": _STORES,
    "atone.stores._sqlite_views": _STORES,
    "atone.stores.postgres": _STORES,
    "atone.stores._postgres_read": _STORES,
    "atone.stores._postgres_views": _STORES,
    "atone.stores._postgres_schema": "reads the package's own migrations",
    "atone.store": "a port: declarations",
    "atone.brokers._kafka_connection": _SERVER,
    "atone.brokers._kafka_member": "polls; each record is read by message_from",
    "atone.brokers._redis_member": "polls; each entry is read by message_of",
    "atone.cli.targets": "imports a module that the user names: any module at all, so no text is tried on it",
    "atone.testing": "for tests",
}


@cache
def found_in(source: Path = SOURCE) -> dict[str, str]:
    """Return every function that looks like a decoder, as `module:qualified.name`, with what gave it away."""
    found: dict[str, str] = {}
    for path in sorted(source.rglob("*.py")):
        module = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        _walk(ast.parse(path.read_text(encoding="utf-8")), f"{module}:", found)
    return found


def _walk(node: ast.AST, prefix: str, found: dict[str, str]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            _walk(child, f"{prefix}{child.name}.", found)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            why = _gives_away(child)
            if why:
                found[f"{prefix}{child.name}"] = why
            _walk(child, f"{prefix}{child.name}.", found)


def _gives_away(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if _NAMED.search(function.name):
        return "its name"
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)) if name in _CALLS:
                return f"calls {name}"
            case ast.Call(func=ast.Attribute(attr="decode" | "Decoder", value=ast.Name() | ast.Attribute() as value)):
                if ast.unparse(value) == "msgspec.json" or ast.unparse(value).isupper():
                    return f"calls {ast.unparse(node.func)}"
            case _:
                pass
    return ""


def unexplained() -> dict[str, str]:
    """Return what looks like a decoder and is neither fuzzed nor explained."""
    fuzzed = {name for one in DECODERS.values() for name in one.of}

    def is_known(name: str) -> bool:
        module, _, rest = name.partition(":")
        parts = module.split(".")
        rooms = {".".join(parts[:at]) for at in range(2, len(parts) + 1)}
        classes = {f"{module}:{rest[:at]}" for at in range(1, len(rest)) if rest[at] == "."}
        return bool(fuzzed & {name} or NOT_DECODERS.keys() & {name, *rooms, *classes})

    return {name: why for name, why in found_in().items() if not is_known(name)}
