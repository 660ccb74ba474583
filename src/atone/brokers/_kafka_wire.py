"""How Atone's messages look on Kafka: names of topics and groups, records; a stored format.

Pure: no connection, no clock. A record that somebody else has produced is read as far as it goes. Called by the parts
of the Kafka adapter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from atone.broker import Message
from atone.brokers._texts import whole_number

ID, TOPIC, KEY, REASON, ATTEMPTS = "Atone-Id", "Atone-Topic", "Atone-Key", "Atone-Reason", "Atone-Attempts"
_OWN = {ID, TOPIC, KEY, REASON, ATTEMPTS}
_IS_ID = re.compile(r"[\x20-\x7e]{1,200}")
_NAME = re.compile(r"[^A-Za-z0-9-]")
_NAME_MAX = 150

Headers = Sequence[tuple[str, bytes]]


class Names(NamedTuple):
    """What things are called on the server. Words in capitals are no topic of Atone's, which are lower-case."""

    prefix: str

    @property
    def declared(self) -> str:
        """The topic that says which group hears which topic."""
        return f"{self.prefix}GROUPS"

    def topic(self, topic: str) -> str:
        """Return the name of a topic."""
        return self.prefix + topic

    def again(self, group: str) -> str:
        """Return the topic of what a group alone is given again."""
        return f"{self.prefix}AGAIN.{_named(group)}"

    def dead(self, group: str) -> str:
        """Return the topic of what a group has parked."""
        return f"{self.prefix}DEAD.{_named(group)}"

    def group(self, group: str) -> str:
        """Return the name of a group."""
        return self.prefix + group


def _named(group: str) -> str:
    """Return a name that may stand in a topic's, another one for each group."""
    name = _NAME.sub(lambda found: "".join(f"_{byte:02X}" for byte in found[0].encode()), group)
    return name if len(name) <= _NAME_MAX else hashlib.sha256(group.encode()).hexdigest()


def key_of(message: Message) -> bytes | None:
    """Return what decides on the partition; without a key, any will do."""
    return message.key.encode(errors="surrogatepass") or None


def parked_headers(message: Message, reason: str, attempts: int) -> list[tuple[str, bytes]]:
    """Return the headers of a message in a dead-letter topic, where the record's key is the message's id."""
    about = {TOPIC: message.topic, KEY: message.key, REASON: reason, ATTEMPTS: str(attempts)}
    return headers_of(message, **about)


def headers_of(message: Message, **more: str) -> list[tuple[str, bytes]]:
    """Return the headers of a message, and those of `more` by their short names."""
    own = [(ID, message.id.encode()), *((name, value.encode(errors="surrogatepass")) for name, value in more.items())]
    return own + [(name, value.encode(errors="surrogatepass")) for name, value in message.headers.items()]


def message_from(topic: str, key: bytes | None, value: bytes | None, headers: Headers, fallback_id: str) -> Message:
    """Read a message, also one that was produced by somebody else."""
    texts = {name: _text(found) for name, found in headers}
    found = texts.get(ID, "")
    rest = {name.lower(): text for name, text in texts.items() if name not in _OWN}
    message_id = found if _IS_ID.fullmatch(found) else _short(fallback_id)
    return Message(message_id, texts.get(TOPIC, topic), texts.get(KEY, _text(key)), bytes(value or b""), rest)


class About(NamedTuple):
    """Why a message is parked, and after how many attempts."""

    reason: str
    attempts: int


def about_parked(headers: Headers) -> About:
    """Read what was written beside a parked message."""
    texts = {name: _text(found) for name, found in headers}
    attempts = texts.get(ATTEMPTS, "1")
    return About(texts.get(REASON, ""), whole_number(attempts, 1))


def declaration(group: str, topic: str) -> bytes:
    """Return the key of the record that says that a group hears a topic."""
    return json.dumps([group, topic]).encode()


def declaration_from(key: bytes | None) -> tuple[str, str] | None:
    """Read such a key; None if it is no such key."""
    try:
        group, topic = json.loads(key or b"")
    except (ValueError, TypeError, RecursionError):  # anybody may write there
        return None
    return (group, topic) if isinstance(group, str) and isinstance(topic, str) else None


def _text(found: bytes | None) -> str:
    if not found:
        return ""
    try:
        return bytes(found).decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return bytes(found).decode(errors="replace")


def _short(text: str) -> str:
    return text if len(text) <= 200 else hashlib.sha256(text.encode()).hexdigest()
