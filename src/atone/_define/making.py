"""What all decorators of steps have in common: how a step comes of a word, its options and the function below it.

Owns the two mistakes that no class body survives: brackets forgotten, and an option that does not exist. Must not judge
a step beyond that; `check` does. Called by `decorate` and `command`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from atone._core.plan import Does, Role
from atone._define.step import Action, Declared, Step, is_step, method
from atone.errors import DefinitionError

After: TypeAlias = Iterable[Step[Any, Any, Any]]


def made(
    word: str,
    role: Role,
    does: Does,
    kind: type[Action[Any, Any, Any, ..., Any]],
    taken: Any,
    needs: tuple[Any, ...],
    options: dict[str, Any],
) -> Callable[[Any], Step[Any, Any, Any]]:
    """Return the decorator that makes such a step of the function below it.

    Raises:
        DefinitionError: It was written without brackets, or with an option that it does not take.
    """
    if len(needs) == 1 and not isinstance(needs[0], Step) and callable(needs[0]):
        raise DefinitionError(f"@{word} stands without brackets above a function. Write @{word}().")
    unknown = sorted(options.keys() - taken.__annotations__.keys())
    if unknown:
        raise DefinitionError(f"@{word} has no option {unknown[0]!r}. It takes: {', '.join(taken.__annotations__)}.")
    options = options | {"after": steps_named(options.get("after"))}

    def make(function: Any) -> Step[Any, Any, Any]:
        method(f"@{word}()", function)
        return kind(function.__name__, Declared(word, role, does, function, needs, options))

    return make


def steps_named(after: Any) -> tuple[Any, ...] | None:
    """Return what `after` named; what is no collection is wrapped, for `check` to judge."""
    if after is None:
        return None
    named: Iterable[Any] = (after,) if is_step(after) or not hasattr(after, "__iter__") else after
    return tuple(named)
