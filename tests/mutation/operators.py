"""What a mutant is: one small change of one place in a module's syntax tree, and all the places where one fits.

Owns the kinds of change and which places are left out: annotations, docstrings, decorators, imports, type variables,
the first argument of `cast`, and the words of an assertion. Pure: source in, mutants or mutated trees out. Called by
the runner, which tells what became of each, and by the tests of both.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Div,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LEFT_OUT_CALLS = {"TypeVar", "cast", "dataclass", "ParamSpec"}


@dataclass(frozen=True)
class Mutant:
    """One change. `place` is the qualified name of the function or class, `at` the number of the node in the tree."""

    file: str
    place: str
    line: int
    at: int
    kind: str
    variant: int
    before: str
    after: str

    @property
    def name(self) -> str:
        """What it is called in lists of equivalent ones: as stable as the code around it."""
        return f"{self.file} {self.place}: {self.before} -> {self.after}"


def mutants_of(source: str, file: str) -> list[Mutant]:
    """List every mutant of a module, in the order of its text."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    parents = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
    left_out = _left_out(tree)
    found: list[Mutant] = []
    for at, node in enumerate(nodes):
        if id(node) in left_out or not hasattr(node, "lineno"):
            continue
        for kind, variant, changed in _changes(node, parents.get(id(node))):
            ast.fix_missing_locations(ast.copy_location(changed, node))
            place = _place_of(node, parents)
            found.append(Mutant(file, place, node.lineno, at, kind, variant, _text(node), _text(changed)))
    return sorted(found, key=lambda one: (one.line, one.at, one.kind, one.variant))


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the module's tree with the change in it."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    parents = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
    node = nodes[mutant.at]
    parent = parents[id(node)]
    for kind, variant, changed in _changes(node, parent):
        if (kind, variant) == (mutant.kind, mutant.variant):
            _put(parent, node, changed)
            return ast.fix_missing_locations(tree)
    raise LookupError(f"The source has changed: there is no {mutant.name!r} any more. List the mutants again.")


# -- what may be changed


def _left_out(tree: ast.Module) -> set[int]:  # noqa: C901 - a table of places
    out: set[int] = set()

    def leave(node: ast.AST | None) -> None:
        if node is not None:
            out.update(id(one) for one in ast.walk(node))

    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                _docstring(node, leave)
                leave(node.returns)
                for decorator in node.decorator_list:
                    leave(decorator)
            case ast.ClassDef():
                _docstring(node, leave)
                for part in (*node.decorator_list, *node.bases):
                    leave(part)
            case ast.Module():
                _docstring(node, leave)
            case ast.arg():
                leave(node.annotation)
            case ast.AnnAssign():
                leave(node.annotation)
            case ast.Assert(msg=words):
                leave(words)
            case ast.Call(func=ast.Name(id="cast"), args=[kind, *_]):
                leave(kind)
            case ast.Call(func=ast.Name(id=name)) if name in _LEFT_OUT_CALLS - {"cast"}:
                leave(node)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                leave(node)
            case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
                leave(node)
            case ast.Assign(targets=[ast.Name(id=name)]) if _is_alias(node.value) and name[:1].isupper():
                leave(node)  # a name of a type
            case _:
                pass
    return out


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, leave: Callable[..., None]
) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        leave(node.body[0])


def _is_alias(value: ast.expr) -> bool:
    return (
        isinstance(value, ast.BinOp)
        and isinstance(value.op, ast.BitOr)
        and isinstance(value.right, ast.Name | ast.Attribute)
    )


def _place_of(node: ast.AST, parents: dict[int, ast.AST]) -> str:
    names: list[str] = []
    at: ast.AST | None = node
    while at is not None:
        if isinstance(at, (*_FUNCTIONS, ast.ClassDef)):
            names.append(at.name)
        at = parents.get(id(at))
    return ".".join(reversed(names)) or "<module>"


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:160]


# -- the kinds of change

_Change = tuple[str, int, ast.AST]


def _changes(node: ast.AST, parent: ast.AST | None) -> Iterator[_Change]:
    if isinstance(node, ast.stmt):
        yield from _of_statement(node)
    elif isinstance(node, ast.expr):
        yield from _of_expression(node, parent)
        if _is_condition(node, parent):
            yield from _of_condition(node)
    elif isinstance(node, ast.match_case):
        return


def _of_statement(node: ast.stmt) -> Iterator[_Change]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign():
            yield "statement left out", 0, ast.Pass()
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield "returns None", 0, ast.Return(ast.Constant(None))
        case ast.Assign(value=value) if not _is_none(value) and not isinstance(node.targets[0], ast.Tuple):
            yield "assigns None", 0, ast.Assign(node.targets, ast.Constant(None))
        case ast.Break():
            yield "break or continue", 0, ast.Continue()
        case ast.Continue():
            yield "break or continue", 0, ast.Break()
        case ast.Match():
            for at in range(len(node.cases)):
                if not _is_wildcard(node.cases[at]):
                    yield "case never taken", at, _without_case(node, at)
        case _:
            pass
    if isinstance(node, ast.AugAssign) and type(node.op) in _BINARY:
        yield "operator", 0, ast.AugAssign(node.target, _BINARY[type(node.op)](), node.value)


def _is_wildcard(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None


def _without_case(node: ast.Match, at: int) -> ast.Match:
    changed = copy.deepcopy(node)
    changed.cases[at].guard = ast.Constant(False)
    return changed


def _of_expression(node: ast.expr, parent: ast.AST | None) -> Iterator[_Change]:
    match node:
        case ast.Compare(ops=[only]):
            for at, other in enumerate(_COMPARE[type(only)]):
                yield "comparison", at, ast.Compare(node.left, [other()], node.comparators)
        case ast.BoolOp(op=ast.And()):
            yield "and, or", 0, ast.BoolOp(ast.Or(), node.values)
        case ast.BoolOp(op=ast.Or()):
            yield "and, or", 0, ast.BoolOp(ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield "not left out", 0, node.operand
        case ast.UnaryOp(op=ast.USub()):
            yield "sign left out", 0, node.operand
        case ast.BinOp() if type(node.op) in _BINARY:
            yield "operator", 0, ast.BinOp(node.left, _BINARY[type(node.op)](), node.right)
        case ast.Constant():
            yield from _of_constant(node, parent)
        case ast.Call():
            yield from _of_call(node)
        case _:
            pass


def _of_constant(node: ast.Constant, parent: ast.AST | None) -> Iterator[_Change]:
    match node.value:
        case bool():
            yield "constant", 0, ast.Constant(not node.value)
        case int():
            yield "constant", 0, ast.Constant(node.value + 1)
        case float():
            yield "constant", 0, ast.Constant(node.value + 1.0)
        case str() if not (isinstance(parent, ast.FormattedValue)):
            yield "text", 0, ast.Constant(f"XX{node.value}XX")
        case _:
            pass


def _of_call(node: ast.Call) -> Iterator[_Change]:
    for at, given in enumerate(node.args):
        if not isinstance(given, ast.Starred) and not _is_none(given):
            args = [*node.args[:at], ast.Constant(None), *node.args[at + 1 :]]
            yield "argument None", at, ast.Call(node.func, args, node.keywords)
    for at, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            yield "argument left out", at, ast.Call(node.func, node.args, node.keywords[:at] + node.keywords[at + 1 :])


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_condition(node: ast.expr, parent: ast.AST | None) -> bool:
    match parent:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            return test is node
        case ast.comprehension(ifs=ifs):
            return any(node is one for one in ifs)
        case ast.match_case(guard=guard):
            return guard is node
        case ast.BoolOp():
            return True
        case _:
            return False


def _of_condition(node: ast.expr) -> Iterator[_Change]:
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    compared = isinstance(node, ast.Compare) and len(node.ops) == 1
    if not (negated or compared or isinstance(node, ast.BoolOp)):
        yield "condition turned round", 0, ast.UnaryOp(ast.Not(), node)


def _put(parent: ast.AST, node: ast.AST, changed: ast.AST) -> None:
    ast.copy_location(changed, node)
    for name, value in ast.iter_fields(parent):
        if value is node:
            setattr(parent, name, changed)
            return
        if isinstance(value, list):
            for at, one in enumerate(value):
                if one is node:
                    value[at] = changed
                    return
    raise LookupError("the node is not below its parent")
