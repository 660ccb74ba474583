"""Messages as rows: how large a turn is with its messages, and headers as one text.

Owns the measure, so that all stores refuse the same turns. It must not look into entries or bodies. Called by the
adapters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from atone.broker import NO_HEADERS, Message
from atone.errors import StoreError
from atone.store import Turn

# Heads are looked for among so many times as many of the oldest messages as may be claimed; further only if need be.
LOOKED_AT = 20


def is_too_large(turn: Turn, row_bytes_max: int) -> bool:
    """Tell whether the row or one of its messages is larger than a row may be."""
    if len(turn.entries) > row_bytes_max:
        return True
    return any(message_bytes(message) > row_bytes_max for message in turn.messages)


def message_bytes(message: Message) -> int:
    """Return about how many bytes a message takes."""
    return len(message.body) + sum(map(len, words_of(message)))


def words_of(message: Message) -> tuple[str, ...]:
    """Return all text of a message."""
    return (message.id, message.topic, message.key, *message.headers, *message.headers.values())


def headers_to_text(headers: Mapping[str, str]) -> str:
    """Return headers as a JSON object."""
    return json.dumps(dict(headers), ensure_ascii=False, separators=(",", ":")) if headers else "{}"


def headers_of_text(text: str) -> Mapping[str, str]:
    """Read them back.

    Raises:
        StoreError: It is no such text.
    """
    if text == "{}":
        return NO_HEADERS
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    headers = cast("dict[str, object]", found) if isinstance(found, dict) else {"": None}
    if not all(isinstance(one, str) for one in headers.values()):
        raise StoreError("The headers of a message are no JSON object of texts. Correct its row, or delete it.")
    return MappingProxyType(cast("dict[str, str]", headers))
