"""Choreography: participants that react to each other's events, and the whole of it, checked and drawn.

Declare events with `@event`, participants with `Participant` and `@reacts`, and put them together in a `Choreography`,
which is checked when it is built. Each participant undoes its own work: `@reaction.undo(FailureEvent)`.
Must not publish or listen by itself. Imported by users.
"""

from atone._choreography.compiled import HandlerCode
from atone._choreography.declare import Reacting, reacts
from atone._choreography.events import event, times, within
from atone._choreography.participant import Participant
from atone._choreography.values import Reaction
from atone._choreography.whole import Choreography
from atone._core.event_map import EventMap

__all__ = [
    "Choreography",
    "EventMap",
    "HandlerCode",
    "Participant",
    "Reacting",
    "Reaction",
    "event",
    "reacts",
    "times",
    "within",
]
