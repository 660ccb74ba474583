"""`atone check`: whether the sagas and choreographies of a module can work, without running anything.

Owns what is looked for in a module, and how findings are told. Must not judge: what a definition raises and what a
choreography finds is told as it is. Needs no store. Called by the command of that name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from atone._choreography.compiled import handlers_of
from atone._choreography.participant import name_of
from atone._core.plan import Plan
from atone.choreography import Choreography, Participant
from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.cli.targets import load
from atone.definition import Saga
from atone.errors import DefinitionError

_MADE_BY_USERS: tuple[type, ...] = (Saga, Participant)

Findings = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Checked:
    """One definition that was looked at, and what is wrong with it: code, place and message of each finding."""

    kind: str
    name: str
    version: int | None
    findings: Findings


def check_targets(out: Output, targets: Iterable[str]) -> Exit:
    """Check all that the targets name, and say what was found."""
    checked = [one for target in dict.fromkeys(targets) for one in _target(target)]
    is_well = not any(one.findings for one in checked)
    if out.as_json:
        out.data({"ok": is_well, "checked": [_json(one) for one in checked]})
    else:
        for one in checked:
            _tell(out, one)
    return Exit.DONE if is_well else Exit.REFUSED


def _target(target: str) -> list[Checked]:
    try:
        found = list(_named(target))
    except Stop as stop:
        wrong = stop.__cause__
        if not isinstance(wrong, DefinitionError):
            raise
        return [Checked("module", target.partition(":")[0], None, _findings(wrong, target))]
    if not found:
        text = f"{target} has no saga, choreography or participant of its own. Name what to check: package.module:name"
        raise Stop(Exit.USAGE, "usage", text)
    return [_checked(one) for one in found]


def _named(target: str) -> Iterator[Any]:
    """Yield the definitions that a target names; of a whole module those that are its own."""
    if ":" in target:
        found = load(target)
        many: Iterable[Any] = cast("Iterable[Any]", found) if isinstance(found, list | tuple) else [found]
        for one in many:
            definition: object = cast("object", one)
            if isinstance(definition, _MADE_BY_USERS):
                definition = definition.__class__
            if not _is_definition(definition):
                text = f"{target} is no saga, choreography or participant. Name one of them, or a list of them."
                raise Stop(Exit.USAGE, "usage", text)
            yield definition
        return
    load(f"{target}:__name__")
    yield from _own(sys.modules[target])


def _own(module: ModuleType) -> list[Any]:
    values: list[Any] = list(dict.fromkeys(one for one in vars(module).values() if _is_definition(one)))
    whole = [one for one in values if isinstance(one, Choreography)]
    told = {participant for one in whole for participant in one.participants.values()}
    classes = [one for one in values if isinstance(one, type) and one.__module__ == module.__name__]
    return [*whole, *(one for one in classes if one not in told)]


def _is_definition(value: Any) -> bool:
    if isinstance(value, Choreography):
        return True
    return isinstance(value, type) and issubclass(value, _MADE_BY_USERS) and value not in _MADE_BY_USERS


def _checked(found: Any) -> Checked:
    if isinstance(found, Choreography):
        return Checked("choreography", found.name, found.version, found.findings())
    kind = "participant" if issubclass(found, Participant) else "saga"
    try:
        if issubclass(found, Participant):
            handlers_of(found)
            return Checked(kind, name_of(found), None, ())
        plan: Plan = found.plan()
        return Checked(kind, plan.name, plan.version, ())
    except DefinitionError as wrong:
        return Checked(kind, found.__name__, None, _findings(wrong, found.__name__))


def _findings(wrong: DefinitionError, where: str) -> Findings:
    return wrong.findings or ((wrong.code, where, str(wrong)),)


def _tell(out: Output, one: Checked) -> None:
    version = "" if one.version is None else f", version {one.version}"
    count = len(one.findings)
    if not count:
        out.say(f"{one.name} ({one.kind}{version}): nothing found", "green")
        return
    out.say(f"{one.name} ({one.kind}{version}): {count} finding{'' if count == 1 else 's'}", "bold red")
    for code, where, message in one.findings:
        out.say(f"- {code}  {where}", "yellow")
        out.wrapped(message)


def _json(one: Checked) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "version": one.version,
        "findings": [{"code": code, "where": where, "message": message} for code, where, message in one.findings],
    }
