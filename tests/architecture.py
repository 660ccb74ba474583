"""The architecture as rules: each takes one module and yields what is wrong with it, in words.

A rule reads source text only, so the tests can feed it bad samples as well as the real tree.
It must not import the package: a module that cannot be imported is judged all the same.
Called by test_architecture.py alone, which also proves that every rule bites.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FUNCTION_LINES_MAX = 70
CLASS_LINES_MAX = 250
MODULE_LINES_MAX = 600
DOCSTRING_LINES = range(3, 9)
PORT_DOCSTRING_LINES = range(3, 13)

PORTS = {"atone.store", "atone.broker", "atone.clock", "atone.engine", "atone.machine", "atone.telemetry"}
ADAPTER_ROOMS = ("atone.stores", "atone.brokers", "atone.engines")
# Inside an adapters' room: what several adapters stand on, and so no adapter itself.
SHARED_BY_ADAPTERS = {"sql"}

CORE_DEPENDENCIES = {"apsw", "msgspec"}
# Optional package -> the rooms that may import it at module level. Elsewhere only inside a function.
OPTIONAL_ROOMS: Mapping[str, tuple[str, ...]] = {
    "aio_pika": (
        "atone.brokers.rabbitmq",
        "atone.brokers._rabbit_connection",
        "atone.brokers._rabbit_member",
        "atone.brokers._rabbit_publishing",
        "atone.brokers._rabbit_queues",
        "atone.brokers._rabbit_wire",
    ),
    "aiokafka": ("atone.brokers.kafka", "atone.brokers._kafka_connection", "atone.brokers._kafka_member"),
    "aiormq": ("atone.brokers._rabbit_publishing",),  # comes with aio_pika
    "asyncpg": ("atone.stores._postgres_dial",),
    "cyclopts": ("atone.cli",),
    "fastapi": ("atone.integrations.fastapi",),
    "faststream": ("atone.integrations.faststream",),
    "httpx": ("atone.integrations.httpx",),
    "jinja2": ("atone.dashboard",),
    "nats": ("atone.brokers.nats", "atone.brokers._nats_connection", "atone.brokers._nats_pull"),
    "opentelemetry": ("atone.integrations.opentelemetry",),
    "prometheus_client": ("atone.integrations.prometheus",),
    "psycopg": (),
    "pydantic": ("atone.integrations.pydantic",),
    "pytest": ("atone.testing",),
    "redis": ("atone.brokers.redis", "atone.brokers._redis_calls"),
    "rich": ("atone.cli",),
    "sqlalchemy": ("atone.integrations.sqlalchemy",),
    "starlette": ("atone.dashboard", "atone.integrations.fastapi"),
    "temporalio": ("atone.engines.temporal",),
    "uvicorn": ("atone.dashboard",),
}
# Rooms that stand on an optional package: importing one at module level brings the package along.
OPTIONAL_PARTS = ("atone.cli", "atone.dashboard", "atone.integrations", "atone.testing")

VAGUE_WORDS = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}
CODE_FROM_DATA_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
CODE_FROM_DATA_NAMES = {"eval", "exec", "__import__"}
IMPURE_MODULES = {
    "asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "uuid",
    "warnings",
}  # fmt: skip
IMPURE_NAMES = {"input", "open", "print"}
CLOCK_READS = {"now", "utcnow", "today"}


@dataclass(frozen=True)
class Module:
    """One source file of the package under its dotted name; `is_package` when it is an `__init__.py`."""

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, filename=self.name)


Rule = Callable[[Module], Iterator[str]]


def read_modules(root: Path) -> list[Module]:
    """Read every module below `root`, the folder that holds the package."""
    found: list[Module] = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return found


# What imports what


@dataclass(frozen=True)
class Import:
    """One imported dotted name; `at_import_time` when it happens as soon as the module is imported."""

    target: str
    line: int
    at_import_time: bool

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


def imports_of(module: Module) -> list[Import]:
    """List the module's imports; `from a import b` counts as `a.b`, since `b` may be a module."""
    return list(_imports_in(module, module.tree, at_import_time=True))


def _imports_in(module: Module, node: ast.AST, *, at_import_time: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_import_time) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            origin = _origin(module, child)
            yield from (Import(f"{origin}.{alias.name}", child.lineno, at_import_time) for alias in child.names)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from _imports_in(module, ast.Module(child.body, []), at_import_time=False)
            yield from _imports_in(module, ast.Module(child.orelse, []), at_import_time=at_import_time)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports_in(module, child, at_import_time=at_import_time and not later)


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    up = node.level - 1 if module.is_package else node.level
    base = parts[: len(parts) - up]
    return ".".join([*base, node.module] if node.module else base)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _inside(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


# The rules


def core_imports_only_itself_and_the_standard_library(module: Module) -> Iterator[str]:
    if not _inside(module.name, "atone._core"):
        return
    for found in imports_of(module):
        if not (_inside(found.target, "atone._core") or found.top in sys.stdlib_module_names):
            yield f"line {found.line}: _core imports {found.target}"


def core_is_pure(module: Module) -> Iterator[str]:
    if not _inside(module.name, "atone._core"):
        return
    for found in imports_of(module):
        if found.top in IMPURE_MODULES:
            yield f"line {found.line}: _core imports {found.target}: clock, chance, log and I/O belong to the shell"
    for node in ast.walk(module.tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield f"line {node.lineno}: _core awaits"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_NAMES:
                yield f"line {node.lineno}: _core calls {name}()"
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCK_READS:
                yield f"line {node.lineno}: _core reads a clock with .{name}()"


def adapters_never_import_each_other(module: Module) -> Iterator[str]:
    room = next((room for room in ADAPTER_ROOMS if module.name.startswith(f"{room}.")), None)
    if room is None:
        return
    mine = _adapter(module.name, room)
    for found in imports_of(module):
        if not found.target.startswith(f"{room}."):
            continue
        other = _adapter(found.target, room)
        if other != mine and other not in SHARED_BY_ADAPTERS and not other.startswith("_"):
            yield f"line {found.line}: adapter {mine} imports adapter {other}"


def _adapter(name: str, room: str) -> str:
    return name.removeprefix(f"{room}.").partition(".")[0]


def names_say_what_a_module_owns(module: Module) -> Iterator[str]:
    for part in module.name.split("."):
        vague = VAGUE_WORDS.intersection(part.lower().split("_"))
        if vague:
            yield f"{part}: {vague.pop()!r} names no responsibility"


def modules_open_with_a_docstring(module: Module) -> Iterator[str]:
    allowed = PORT_DOCSTRING_LINES if module.name in PORTS else DOCSTRING_LINES
    lines = len((ast.get_docstring(module.tree) or "").splitlines())
    if lines not in allowed:
        yield f"its docstring has {lines} lines; {allowed.start} to {allowed.stop - 1} say what it owns and must not do"


def optional_packages_stay_in_their_room(module: Module) -> Iterator[str]:
    for found in imports_of(module):
        if found.top in sys.stdlib_module_names or found.top in CORE_DEPENDENCIES:
            continue
        if found.top == "atone":
            part = next((part for part in OPTIONAL_PARTS if _inside(found.target, part)), None)
            if part and found.at_import_time and not _inside(module.name, part):
                yield f"line {found.line}: imports {found.target}, an optional part, as soon as it is imported"
        elif found.top not in OPTIONAL_ROOMS:
            yield f"line {found.line}: imports {found.target}, which no extra declares"
        elif found.at_import_time and not _inside(module.name, *OPTIONAL_ROOMS[found.top]):
            yield f"line {found.line}: imports optional {found.target} as soon as it is imported"


def data_never_becomes_code(module: Module) -> Iterator[str]:
    for found in imports_of(module):
        if found.top in CODE_FROM_DATA_MODULES:
            yield f"line {found.line}: imports {found.top}"
    for node in ast.walk(module.tree):
        match node:
            case ast.Name(id=name) if name in CODE_FROM_DATA_NAMES:
                yield f"line {node.lineno}: uses {name}"
            case ast.Attribute(value=ast.Name(id="builtins"), attr=name) if name in CODE_FROM_DATA_NAMES:
                yield f"line {node.lineno}: uses builtins.{name}"


def statements_are_never_formatted(module: Module) -> Iterator[str]:
    scopes = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    seen: set[int] = set()
    for scope in [*scopes, module.tree]:
        formatted = _names_of_formatted_text(scope)
        for call in ast.walk(scope):
            if not (isinstance(call, ast.Call) and call.args and _executes(call.func)):
                continue
            statement = call.args[0]
            by_name = isinstance(statement, ast.Name) and statement.id in formatted
            if (by_name or _is_formatted(statement)) and call.lineno not in seen:
                seen.add(call.lineno)
                yield f"line {call.lineno}: executes text put together at run time; pass values as parameters"


def _executes(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name.startswith("execute")


def _names_of_formatted_text(scope: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=targets, value=value) if _is_formatted(value):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if _is_formatted(value):
                names.add(name)
    return names


def _is_formatted(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr(values=values):
            return any(isinstance(value, ast.FormattedValue) for value in values)
        case ast.BinOp(left=left, right=right, op=ast.Mod() | ast.Add()):
            return any(_is_text(side) or _is_formatted(side) for side in (left, right))
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return _is_text(value)
        case _:
            return False


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


RULES: tuple[Rule, ...] = (
    core_imports_only_itself_and_the_standard_library,
    core_is_pure,
    adapters_never_import_each_other,
    names_say_what_a_module_owns,
    modules_open_with_a_docstring,
    optional_packages_stay_in_their_room,
    data_never_becomes_code,
    statements_are_never_formatted,
)


# Sizes


@dataclass(frozen=True)
class Excess:
    """A place that may be larger than its limit: how large at most, and why it is not split."""

    lines: int
    reason: str


def sizes_over_limit(module: Module) -> dict[str, int]:
    """Measure what is over its limit: `module`, `module:Class` or `module:Class.function`, and its lines."""
    over: dict[str, int] = {}
    lines = len(module.source.splitlines())
    if lines > MODULE_LINES_MAX:
        over[module.name] = lines
    for name, node in _definitions(module.tree, ""):
        limit = CLASS_LINES_MAX if isinstance(node, ast.ClassDef) else FUNCTION_LINES_MAX
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > limit:
            over[f"{module.name}:{name}"] = lines
    return over


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = f"{prefix}{child.name}"
            yield name, child
            yield from _definitions(child, f"{name}.")
        else:
            yield from _definitions(child, prefix)


def judge_sizes(over: Mapping[str, int], exceptions: Mapping[str, Excess]) -> Iterator[str]:
    """Compare what is over its limit with the list of exceptions, which may only shrink."""
    for place, lines in over.items():
        allowed = exceptions.get(place)
        if allowed is None:
            yield f"{place} has {lines} lines: split it"
        elif lines > allowed.lines:
            yield f"{place} grew to {lines} lines from {allowed.lines}: split it"
        elif lines < allowed.lines:
            yield f"{place} shrank to {lines} lines: lower its exception from {allowed.lines}"
    for place in exceptions.keys() - over.keys():
        yield f"{place} needs its exception no longer: remove it"
