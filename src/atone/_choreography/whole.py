"""The choreography: participants together, the map of their events, and what is wrong with it.

Owns `Choreography`. Must not serve it: nothing here listens or publishes. Built by users when their module is
imported; read by what serves participants, by the saga view and by the command line's check.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from atone._choreography.compiled import HandlerCode, by_name, events_of, handlers_of
from atone._choreography.draw import draw
from atone._choreography.events import events_in, is_name, is_whole, spec_of
from atone._choreography.participant import Participant, name_of
from atone._core.event_checks import Finding, findings
from atone._core.event_map import DEFAULT_DEADLINE_SECONDS, EventMap
from atone._define.check import duration
from atone._define.values import Seconds
from atone.errors import DefinitionError


class Choreography:
    """Put participants together, and say which events begin a saga and which end it.

    `starts` are published from outside of it; `completes` end it as completed, `compensates` as compensated.
    `deadline` after its first event a saga without an end is reported as in need of attention; nothing is undone by
    that. `check=False` builds it in spite of findings, to look at them.

    Raises:
        DefinitionError: A declaration is wrong, or the whole is; all findings are listed, each with the line to add.
    """

    def __init__(
        self,
        name: str,
        *participants: type[Participant],
        starts: tuple[type, ...],
        completes: tuple[type, ...],
        compensates: tuple[type, ...] = (),
        version: int = 1,
        deadline: Seconds = DEFAULT_DEADLINE_SECONDS,
        check: bool = True,
    ) -> None:
        _judge(name, participants, version)
        self.name = name
        self.version = version
        self.participants: Mapping[str, type[Participant]] = {name_of(one): one for one in participants}
        self._code = {one: handlers_of(one) for one in dict.fromkeys(participants)}
        ends = (events_in(name, "completes", completes), events_in(name, "compensates", compensates))
        classes = [*events_in(name, "starts", starts), *events_of(participants), *ends[0], *ends[1]]
        self.event_types: Mapping[str, type] = {spec_of(one).name: one for one in classes}
        self.event_map = EventMap(
            name=name,
            version=version,
            events=tuple(spec_of(one) for one in dict.fromkeys(classes)),
            participants=tuple(name_of(one) for one in participants),
            handlers=tuple(one.spec for codes in self._code.values() for one in codes),
            starts=tuple(spec_of(one).name for one in starts),
            completes=tuple(spec_of(one).name for one in completes),
            compensates=tuple(spec_of(one).name for one in compensates),
            deadline_seconds=duration(name, "deadline", deadline) or DEFAULT_DEADLINE_SECONDS,
        )
        if check:
            self._refuse_findings()

    def __repr__(self) -> str:
        return f"<choreography {self.name} version {self.version}>"

    def findings(self) -> tuple[Finding, ...]:
        """Return what is wrong with the whole, each with a code and the line to add; nothing if it may run."""
        return findings(self.event_map)

    def mermaid(self) -> str:
        """Return the event map as a Mermaid flowchart: the way forward solid, the undos and time-outs dashed."""
        return draw(self.event_map)

    def _refuse_findings(self) -> None:
        found = self.findings()
        if found:
            lines = "\n".join(f"  - {one.code}: {one.message}" for one in found)
            error = DefinitionError(
                f"{self.name} can't work as declared:\n{lines}\n"
                f"Change what is named there, or pass check=False to look at the whole."
            )
            error.findings = found
            raise error

    @cached_property
    def handlers(self) -> Mapping[str, Mapping[str, HandlerCode]]:
        """The handlers with their code, by participant and by name of the method."""
        return {name_of(one): by_name(codes) for one, codes in self._code.items()}


def _judge(name: Any, participants: tuple[Any, ...], version: Any) -> None:
    if not is_name(name):
        raise DefinitionError(
            f"{name!r:.120} is not a choreography's name. Write lower-case words, such as "
            f'Choreography("orders", Inventory, Payments, ...).'
        )
    if not is_whole(version):
        raise DefinitionError(f"{name}: version={version!r} is not a whole number from 1. Write version=1.")
    if not participants:
        raise DefinitionError(f'{name} has no participants. Write Choreography("{name}", Inventory, Payments, ...).')
    for one in participants:
        if not (isinstance(one, type) and issubclass(one, Participant)) or one is Participant:
            raise DefinitionError(
                f"{name}: {one!r:.100} is not a participant's class. Write class Inventory(Participant, "
                f'name="inventory"), and give the class, not an object of it.'
            )
