"""Where a command's message goes and what it is called: by `to=`, by its own declaration, or by its class.

Owns the names of messages. A class that was declared as an event or a command of a choreography carries its name and
version in `__atone_event__`; nothing else is known of it here. Called by `compiled`; `check` asks what a topic may be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from atone._define.fit import label
from atone.errors import DefinitionError

TOPIC_CHARACTERS_MAX = 200
_TOPIC = re.compile(r"[a-z0-9._-]+")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class MessageDefinition:
    """What a command's builder returns, where that is sent, and the name and schema version that it carries."""

    type: Any
    topic: str
    name: str
    version: int


def message_of(where: str, message: Any, to: str | None) -> MessageDefinition:
    """Return a message's name and place.

    Raises:
        DefinitionError: It has no name that could be a topic.
    """
    declared = getattr(message, "__atone_event__", None)
    if declared is not None:
        return MessageDefinition(message, to or declared.name, declared.name, declared.version)
    own = isinstance(message, type) and message.__module__ != "builtins"
    topic = to or (_WORDS.sub(".", message.__name__).lower() if own else "")
    if not is_topic(topic):
        raise DefinitionError(
            f"{where}: it returns {label(message)}, which names no topic. Return a class of your own, "
            f'or say where the message goes: to="inventory.reserve".'
        )
    return MessageDefinition(message, topic, message.__name__ if own else topic, 1)


def is_topic(text: object) -> bool:
    """Whether a text is a topic's name: lower-case words with dots."""
    return isinstance(text, str) and len(text) <= TOPIC_CHARACTERS_MAX and _TOPIC.fullmatch(text) is not None
