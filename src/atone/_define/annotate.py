"""The types that annotations of a saga class mean, and whether they fit each other.

Owns the resolving (late, so that a saga may stand above the types it uses) and the comparison. The comparison refuses
only what is surely wrong: type checkers know more, and what they let pass must pass here. Called by `compiled`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from inspect import Parameter, iscoroutinefunction, signature, unwrap
from typing import Any, cast, get_args, get_origin, get_type_hints

from atone._core.plan import COMMAND
from atone._define.fit import fits, label
from atone._define.step import Handler, Step
from atone._define.values import CannotTell, Context, Landed, NotLanded, Tried
from atone.errors import DefinitionError

__all__ = ["Types", "label", "types_of"]

AnyStep = Step[Any, Any, Any]
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Types:
    """What a saga's input and its steps' results are, and which functions return something to await.

    `messages` is what the functions of commands build, by step and operation.
    """

    input: Any
    results: Mapping[str, Any]
    asynchronous: frozenset[Function]
    messages: Mapping[tuple[str, str], Any]


class _Scope:
    """Resolves annotations of one saga class."""

    def __init__(self, cls: type, names: Mapping[str, Any]) -> None:
        self.saga = cls.__name__
        self._module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
        self._names = dict(names)

    def of_function(self, function: Function) -> dict[str, Any]:
        try:
            return get_type_hints(function, localns=self._names, include_extras=True)
        except Exception as wrong:
            raise self._unresolved(function.__name__, wrong) from wrong

    def of_input(self, annotation: Any) -> Any:
        def stand_in() -> None: ...

        stand_in.__annotations__ = {"input": annotation}
        try:
            return get_type_hints(stand_in, self._module, self._names, include_extras=True)["input"]
        except Exception as wrong:
            raise self._unresolved("its input", wrong) from wrong

    def _unresolved(self, what: str, wrong: Exception) -> DefinitionError:
        return DefinitionError(
            f"{self.saga}: an annotation of {what} can't be resolved ({type(wrong).__name__}: {wrong}). "
            f"Import the name at run time, not only under TYPE_CHECKING, or define it above the class."
        )


def types_of(cls: type, input_annotation: Any, steps: tuple[AnyStep, ...], names: Mapping[str, Any]) -> Types:
    """Resolve and compare all annotations of a saga class.

    Raises:
        DefinitionError: An annotation can't be resolved, is missing, or contradicts another.
    """
    scope = _Scope(cls, names)
    taken = scope.of_input(input_annotation)
    results: dict[str, Any] = {}
    asynchronous: set[Function] = set()
    messages: dict[tuple[str, str], Any] = {}
    for step in steps:
        reader = _Reader(scope, taken, step, asynchronous)
        results[step.name] = step.declared.payload if step.declared.action is None else reader.action(results)
        is_command = step.declared.does is COMMAND
        if is_command:
            messages[step.name, "action"] = reader.message(step.declared.action, results[step.name])
            results[step.name] = step.declared.options["reply"]
        for what, handler in step.declared.handlers.items():
            returned = reader.handler(what, handler, results[step.name])
            if is_command and what == "compensation":
                messages[step.name, what] = reader.message(handler.function, returned)
            else:
                reader.answer(what, handler, results[step.name], returned)
    return Types(taken, results, frozenset(asynchronous), messages)


class _Reader:
    """Reads the signatures of one step's functions."""

    def __init__(self, scope: _Scope, taken: Any, step: AnyStep, asynchronous: set[Function]) -> None:
        self._scope = scope
        self._input = taken
        self._step = step
        self._asynchronous = asynchronous

    def action(self, results: Mapping[str, Any]) -> Any:
        """Return the action's result type, having compared what it takes."""
        function = self._step.declared.action
        assert function is not None
        needs = self._step.declared.needs
        hints, parameters = self._read(function, ["ctx", *(need.name for need in needs)])
        self._context(function, hints, parameters[1])
        for need, parameter in zip(needs, parameters[2:], strict=False):
            expected, given = hints.get(parameter, Any), results[need.name]
            if not fits(given, expected):
                raise DefinitionError(
                    f"{self._where(function)}: {parameter} is {label(expected)}, but {need.name} returns "
                    f"{label(given)}. Write {parameter}: {label(given)}, or give @{self._step.declared.word} the "
                    f"steps in the order of the parameters."
                )
        if "return" not in hints:
            raise DefinitionError(
                f"{self._where(function)}: it does not say what it returns. Add -> None, or the result's type."
            )
        return self._returned(function, hints["return"])

    def handler(self, what: str, handler: Handler, result: Any) -> Any:
        """Compare what a compensation, probe or condition takes, and return the type that it returns."""
        function = handler.function
        hints, parameters = self._read(function, ["ctx"] if what == "when" else ["ctx", "tried"])
        self._context(function, hints, parameters[1])
        if what != "when":
            expected = hints.get(parameters[2], Any)
            self._holds(function, parameters[2], expected, Tried, result, f"{self._step.name} returns")
        return self._returned(function, hints.get("return", Any))

    def message(self, function: Function | None, returned: Any) -> Any:
        """Return what a command's function builds, having judged that it only builds it."""
        assert function is not None
        where = self._where(function)
        if function in self._asynchronous:
            raise DefinitionError(f"{where}: it builds a message and calls nobody. Write def, not async def.")
        if returned is Any or returned is None or returned is type(None):
            raise DefinitionError(f"{where}: it does not say which message it builds. Write -> ReserveSeat, its class.")
        return returned

    def answer(self, what: str, handler: Handler, result: Any, returned: Any) -> None:
        """Judge what a compensation, probe or condition returns."""
        function = handler.function
        allowed, line = _ANSWERS[what]
        if not fits(returned, allowed(result)):
            raise DefinitionError(
                f"{self._where(function)}: it returns {label(returned)}. Write -> {line.format(label(result))}."
            )

    def _where(self, function: Function) -> str:
        return f"{self._scope.saga}.{function.__name__}"

    def _read(self, function: Function, passed: list[str]) -> tuple[dict[str, Any], list[str]]:
        hints = self._scope.of_function(function)
        parameters = list(signature(unwrap(function)).parameters.values())
        by_position = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
        takes_any = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        left_over = [p for p in by_position[len(passed) + 1 :] if p.default is Parameter.empty]
        left_over += [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
        if left_over or (len(by_position) < len(passed) + 1 and not takes_any):
            raise DefinitionError(
                f"{self._where(function)}: it is called with {', '.join(passed)}, but takes "
                f"{', '.join(p.name for p in parameters[1:]) or 'nothing'}. "
                f"Write def {function.__name__}(self, {', '.join(passed)})."
            )
        names = [p.name for p in by_position] + ["*"] * (len(passed) + 1)
        return hints, names[: len(passed) + 1]

    def _context(self, function: Function, hints: Mapping[str, Any], parameter: str) -> None:
        self._holds(function, parameter, hints.get(parameter, Any), Context, self._input, "the saga's input is")

    def _holds(self, function: Function, parameter: str, hint: Any, box: Any, content: Any, why: str) -> None:
        if not fits(box[content], hint):
            raise DefinitionError(
                f"{self._where(function)}: {parameter} is {label(hint)}, but {why} {label(content)}. "
                f"Write {parameter}: {box.__name__}[{label(content)}]."
            )

    def _returned(self, function: Function, hint: Any) -> Any:
        """Note whether the function returns something to await, and return the type that comes of it."""
        if iscoroutinefunction(function) or iscoroutinefunction(unwrap(function)):
            self._asynchronous.add(function)
            return hint
        origin = get_origin(hint) or hint
        if not (isinstance(origin, type) and issubclass(origin, Awaitable)):
            return hint
        self._asynchronous.add(function)
        inside = get_args(hint)
        return inside[2 if issubclass(origin, Coroutine) else 0] if inside else Any


_ANSWERS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "compensation": (lambda _: type(None), "None"),
    "probe": (
        lambda result: cast("Any", Landed)[result] | NotLanded | CannotTell,
        "Landed[{}] | NotLanded | CannotTell",
    ),
    "when": (lambda _: bool, "bool"),
}
