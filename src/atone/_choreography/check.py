"""What is wrong with one participant or one of its reactions, before anything is known of the others.

Owns the messages: each names the place and the line to add or change. Must not look at the whole; that is the event
map's matter. Called when a participant's class is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atone._choreography.declare import AnyReacting, Declared, is_reacting
from atone._choreography.events import NAME_CHARACTERS_MAX, is_name, makes_itself
from atone.errors import DefinitionError

REACTIONS_MAX = 100

# Groups are called choreography.participant, choreography.view and participant.commands.
_TAKEN = frozenset({"commands", "view"})


def keywords(participant: str, given: Mapping[str, Any]) -> None:
    """Judge the names of a participant's class keywords; Python's own words would speak of `__init_subclass__`."""
    if "name" not in given:
        raise DefinitionError(
            f"{participant} has no name for others to know it by. "
            f'Write: class {participant}(Participant, name="{participant.lower()}")'
        )
    unknown = [name for name in given if name != "name"]
    if unknown:
        raise DefinitionError(f"{participant}: there is no class keyword {unknown[0]!r}. A participant takes: name.")


def participant(cls: type, root: type, name: Any) -> dict[str, AnyReacting]:
    """Judge a participant's class and return its reactions by name."""
    where = cls.__name__
    if not is_name(name):
        raise DefinitionError(
            f"{where}: {name!r:.120} is not a participant's name. Write lower-case words, such as "
            f'class {where}(Participant, name="inventory"), at most {NAME_CHARACTERS_MAX} characters.'
        )
    if "." in name or name in _TAKEN:
        raise DefinitionError(
            f"{where}: {name!r} would make a group that others have too, and each would hear half. Take a name "
            f"without dots, and none of {', '.join(sorted(_TAKEN))}."
        )
    for base in cls.__mro__[1:]:
        if base is not root and (issubclass(base, root) or any(is_reacting(one) for one in vars(base).values())):
            raise DefinitionError(
                f"{where} would inherit the reactions of {base.__name__}, and a participant is read in one place. "
                f"Write: class {where}(Participant, name=...) with reactions of its own."
            )
    found = {key: value for key, value in vars(cls).items() if is_reacting(value)}
    if len(found) > REACTIONS_MAX:
        raise DefinitionError(f"{where} has {len(found)} reactions, and {REACTIONS_MAX} is the most. Split it.")
    for key, reacting in found.items():
        _reaction(where, cls, root, key, reacting)
    return found


def _reaction(where: str, cls: type, root: type, name: str, reacting: AnyReacting) -> None:
    if reacting.owner is not None:
        raise DefinitionError(f"{where}.{name} belongs to {reacting.owner}. Write a reaction of its own for {where}.")
    undo = reacting.undone_by
    for mine in (name, *([undo.name] if undo else [])):
        hidden = next((base for base in cls.__mro__[1:] if mine in vars(base)), None)
        if hidden is not None:
            raise DefinitionError(f"{where}.{mine} would hide {hidden.__name__}.{mine}. Give it another name.")
    _promises(f"{where}.{name}", name, reacting)
    _expectation(f"{where}.{name}", name, reacting.declared)
    reacting.owner, reacting.name = where, name


def _promises(where: str, name: str, reacting: AnyReacting) -> None:
    said = reacting.declared
    if not isinstance(said.pivot, bool):
        raise DefinitionError(f"{where}: pivot={said.pivot!r} means nothing. Write pivot=True, or leave it out.")
    if said.out_of_order not in ("defer", "reject"):
        raise DefinitionError(
            f"{where}: out_of_order={said.out_of_order!r} means nothing. "
            f'Write out_of_order="defer" or out_of_order="reject".'
        )
    if said.out_of_order == "reject" and not said.after:
        raise DefinitionError(
            f"{where}: nothing says what it has to come after. Add after=(Earlier,), or remove out_of_order."
        )
    both = [one.__name__ for one in said.after if one in said.listens]
    if both:
        raise DefinitionError(
            f"{where}: {both[0]} is what it listens to, and what has to be heard before. Remove it from after."
        )
    if said.no_undo is not None and (not isinstance(said.no_undo, str) or not said.no_undo.strip()):
        raise DefinitionError(f'{where}: no_undo={said.no_undo!r} gives no reason. Write no_undo="why".')
    undo = reacting.undone_by
    if undo is not None and said.pivot:
        raise DefinitionError(
            f"{where}: the point of no return can't be undone. Remove pivot=True, or remove @{name}.undo."
        )
    if undo is not None and said.no_undo is not None:
        raise DefinitionError(
            f"{where}: it has an undo and says that it needs none. Remove no_undo={said.no_undo!r}, "
            f"or remove @{name}.undo."
        )


def _expectation(where: str, name: str, said: Declared) -> None:
    expects = said.expects
    if expects is not None and said.overdue is None and not makes_itself(expects.otherwise):
        event = expects.otherwise.__name__
        raise DefinitionError(
            f"{where}: {event} can't be made without arguments. Give its fields defaults, "
            f"or add @{name}.overdue above a method that makes one: def overdue(self, done) -> {event}."
        )
