"""What the annotations of a participant's handlers mean, and whether they say the same as their decorators.

Owns the resolving (late, so that a participant may stand above the events it uses) and the comparison, which refuses
only what is surely wrong. What a handler says that it returns is what it may publish: a union is a choice, a tuple
goes out together. Called by `compiled`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, iscoroutinefunction, signature, unwrap
from itertools import product
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints  # pyright: ignore[reportDeprecated]

from atone._choreography.declare import AnyReacting, Declared
from atone._choreography.events import is_event, spec_of
from atone._choreography.values import Reaction
from atone._define.fit import fits, label
from atone._define.step import Function
from atone.errors import DefinitionError

_UNIONS = (UnionType, Union)  # pyright: ignore[reportDeprecated]


@dataclass(frozen=True, slots=True)
class Signature:
    """What one handler returns: its type, the sets of events that one run may publish, whether it is awaited."""

    returns: Any
    outcomes: tuple[tuple[str, ...], ...]
    is_async: bool


class Reader:
    """Reads the signatures of one participant's handlers."""

    def __init__(self, participant: type, names: Mapping[str, Any]) -> None:
        self._participant = participant.__name__
        self._names = dict(names)

    def reaction(self, said: Declared) -> Signature:
        """Return what a reaction returns, having compared it with its decorator."""
        hints, parameters = self._read(said.function, ["ctx"])
        self._context(said, hints.get(parameters[0], Any), parameters[0])
        return self._returned(said, hints)

    def undo(self, reacting: AnyReacting, said: Declared, done: Any) -> Signature:
        """Return what an undo returns, having compared what it takes with what the reaction returned."""
        hints, parameters = self._read(said.function, ["ctx", "done"])
        self._context(said, hints.get(parameters[0], Any), parameters[0])
        self._done(said.function, hints.get(parameters[1], Any), parameters[1], reacting, done)
        return self._returned(said, hints)

    def overdue(self, reacting: AnyReacting, function: Function, done: Any) -> None:
        """Compare what a method for overdue events takes and returns."""
        hints, parameters = self._read(function, ["done"])
        self._done(function, hints.get(parameters[0], Any), parameters[0], reacting, done)
        expects = reacting.declared.expects
        assert expects is not None
        if iscoroutinefunction(function) or not fits(hints.get("return", Any), expects.otherwise):
            raise DefinitionError(
                f"{self._where(function)}: it makes the event in place of what did not come. "
                f"Write def {function.__name__}(self, done) -> {expects.otherwise.__name__}."
            )

    def _where(self, function: Function) -> str:
        return f"{self._participant}.{function.__name__}"

    def _read(self, function: Function, passed: list[str]) -> tuple[dict[str, Any], list[str]]:
        try:
            hints = get_type_hints(function, localns=self._names, include_extras=True)
        except Exception as wrong:
            raise DefinitionError(
                f"{self._where(function)}: an annotation can't be resolved ({type(wrong).__name__}: {wrong}). "
                f"Import the name at run time, not only under TYPE_CHECKING, or define it above the class."
            ) from wrong
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
        names = [p.name for p in by_position[1:]] + ["*"] * len(passed)
        return hints, names[: len(passed)]

    def _context(self, said: Declared, hint: Any, parameter: str) -> None:
        heard = _union(said.listens)
        box: Any = Reaction
        if not fits(box[heard], hint):
            raise DefinitionError(
                f"{self._where(said.function)}: {parameter} is {label(hint)}, but it listens to {label(heard)}. "
                f"Write {parameter}: Reaction[{label(heard)}]."
            )

    def _done(self, function: Function, hint: Any, parameter: str, reacting: AnyReacting, done: Any) -> None:
        if not fits(done, hint):
            raise DefinitionError(
                f"{self._where(function)}: {parameter} is {label(hint)}, but {reacting.name} returns {label(done)} "
                f"when it has done something. Write {parameter}: {label(done)}."
            )

    def _returned(self, said: Declared, hints: Mapping[str, Any]) -> Signature:
        function = said.function
        if "return" not in hints:
            raise DefinitionError(
                f"{self._where(function)}: it does not say what it returns. Add -> None, or the events it emits."
            )
        hint, is_async = _awaited(function, hints["return"])
        found = _Published()
        found.read(hint)
        if found.odd is not None:
            raise DefinitionError(
                f"{self._where(function)}: it returns {label(found.odd)}, which is no event. Return events that are "
                f"declared with @event, a tuple of them, or None."
            )
        missing = [one for one in found.classes if one not in said.emits]
        unsaid = [] if found.is_open else [one for one in said.emits if one not in found.classes]
        if missing or unsaid:
            emitted = f"emits ({', '.join(one.__name__ for one in said.emits)})" if said.emits else "emits nothing"
            names = ", ".join(one.__name__ for one in found.classes)
            line = f"emits=({names},)" if names else "-> " + label(_union(said.emits))
            raise DefinitionError(
                f"{self._where(function)}: it returns {label(hint)}, but its decorator says that it {emitted}. "
                f"Write {line}."
            )
        everything = tuple(spec_of(one).name for one in said.emits)
        outcomes = (*((one,) for one in everything), everything) if found.is_open else found.outcomes
        return Signature(hint, tuple(dict.fromkeys(outcomes)), is_async)


def done_of(returned: Any) -> Any:
    """Return what of a reaction's results its undo can be handed: those that tell of no failure."""
    members = get_args(returned) if get_origin(returned) in _UNIONS else (returned,)
    kept = [one for one in members if not (is_event(one) and spec_of(one).failure)]
    return _union(kept) if kept else returned


class _Published:
    """What a return annotation says of the events that are published."""

    def __init__(self) -> None:
        self.outcomes: tuple[tuple[str, ...], ...] = ()
        self.classes: tuple[type, ...] = ()
        self.is_open = False
        self.odd: Any = None

    def read(self, hint: Any) -> None:
        """Read a whole annotation."""
        choices: list[tuple[str, ...]] = []
        for member in _members(hint):
            choices += self._choice(member)
        self.outcomes = tuple(dict.fromkeys(choices))
        self.classes = tuple(dict.fromkeys(self.classes))

    def _choice(self, hint: Any) -> list[tuple[str, ...]]:
        if hint is NoneType or hint is None:
            return [()]
        if is_event(hint):
            self.classes += (hint,)
            return [(spec_of(hint).name,)]
        origin, inside = get_origin(hint) or hint, get_args(hint)
        if hint is Any:
            self.is_open = True
            return []
        if not (isinstance(origin, type) and issubclass(origin, Sequence) and origin not in (str, bytes)):
            self.odd = hint
            return []
        if origin is tuple and Ellipsis not in inside and inside:
            parts = [[one for member in _members(part) for one in self._choice(member)] for part in inside]
            return [tuple(dict.fromkeys(name for part in combined for name in part)) for combined in product(*parts)]
        return self._many([one for one in inside if one is not Ellipsis])

    def _many(self, inside: Iterable[Any]) -> list[tuple[str, ...]]:
        """A sequence of unknown length: each kind alone, or all of them together."""
        each = [one for part in inside for member in _members(part) for one in self._choice(member)]
        if not each:
            self.is_open = True
            return []
        return [*each, tuple(dict.fromkeys(name for one in each for name in one))]


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in _UNIONS:
        return tuple(one for member in get_args(hint) for one in _members(member))
    return (hint,)


def _union(classes: Iterable[Any]) -> Any:
    first, *others = classes
    found: Any = first
    for one in others:
        found = found | one
    return found


def _awaited(function: Function, hint: Any) -> tuple[Any, bool]:
    if iscoroutinefunction(function) or iscoroutinefunction(unwrap(function)):
        return hint, True
    origin = get_origin(hint) or hint
    if not (isinstance(origin, type) and issubclass(origin, Awaitable)):
        return hint, False
    inside = get_args(hint)
    return (inside[2 if issubclass(origin, Coroutine) else 0] if inside else Any), True
