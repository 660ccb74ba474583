"""How Atone's messages look on NATS: subjects, names of consumers, headers; a stored format.

Pure: no connection, no clock. A message that somebody else has published is read as far as it goes. Called by the
parts of the NATS adapter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from atone.broker import Message
from atone.brokers._texts import unquoted, whole_number

MESSAGE_ID = "Nats-Msg-Id"  # the server's own: it drops a second one within the stream's duplicate window
KEY = "Atone-Key"
ID = "Atone-Id"  # the message's, since Nats-Msg-Id is another one
REASON, ATTEMPTS, TOPIC = "Atone-Reason", "Atone-Attempts", "Atone-Topic"
_OWN = {MESSAGE_ID, KEY, ID, REASON, ATTEMPTS, TOPIC}

_PLAIN = "".join(chr(code) for code in range(32, 127) if chr(code) != "%")
_IS_ID = re.compile(r"[\x20-\x7e]{1,200}")
_NAME = re.compile(r"[^A-Za-z0-9_-]")


class Names(NamedTuple):
    """What things are called on the server. `stream` holds the topics, `kept` what is parked and declared.

    The stream's subjects are `<prefix>.<topic>`, and `<prefix>.~again.<group>.<topic>` for what one group alone gets
    again. Those of `kept` are `<prefix>-kept.parked.<group>.<hash of the id>` and `...declared.<group>.<topic>`.
    """

    stream: str
    prefix: str

    @property
    def kept(self) -> str:
        """The name of the other stream."""
        return f"{self.stream}-KEPT"

    def topic(self, topic: str) -> str:
        """Return the subject of a topic; an empty word, which NATS does not have, is a tilde."""
        return f"{self.prefix}.{_words(topic)}"

    def again(self, group: str, topic: str = ">") -> str:
        """Return the subject of what a group alone is given again."""
        return f"{self.prefix}.~again.{consumer_name(group)}.{_words(topic)}"

    def parked(self, group: str, message_id: str | None = None) -> str:
        """Return the subject of a parked message, or of all of a group's."""
        last = ">" if message_id is None else hashlib.sha256(message_id.encode()).hexdigest()[:32]
        return f"{self.prefix}-kept.parked.{consumer_name(group)}.{last}"

    def declared(self, group: str, topic: str = ">") -> str:
        """Return the subject that says that a group hears a topic."""
        return f"{self.prefix}-kept.declared.{consumer_name(group)}.{_words(topic)}"

    def topic_of(self, subject: str) -> str:
        """Return the topic that a subject of the stream stands for."""
        rest = subject.removeprefix(f"{self.prefix}.")
        if rest.startswith("~again."):
            rest = rest.split(".", 2)[-1]
        return ".".join("" if word == "~" else word for word in rest.split("."))


def _words(topic: str) -> str:
    return ".".join(word or "~" for word in topic.split("."))


def consumer_name(group: str) -> str:
    """Return a name that the server takes, another one for each group."""
    return _NAME.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), group)


def known_as(message: Message) -> str:
    """Return what the server shall know a message by: ids are the publishers' own, and may meet on two topics."""
    return _quoted(f"{message.topic}/{message.id}")


def headers_of(message: Message, message_id: str | None = None) -> dict[str, str]:
    """Return the headers of a message; `message_id` is what the server shall take for its id instead."""
    headers = {name: _quoted(value) for name, value in message.headers.items()}
    if message_id is not None or message.id != message.id.strip():
        headers[ID] = _quoted(message.id)
    return headers | {MESSAGE_ID: message_id or message.id, KEY: _quoted(message.key)}


def message_from(topic: str, body: bytes, headers: Mapping[str, str] | None, fallback_id: str) -> Message:
    """Read a message, also one that was published by somebody else."""
    given = headers or {}
    read = unquoted if KEY in given else str
    found = unquoted(given[ID]) if ID in given else given.get(MESSAGE_ID, "")
    message_id = found if _IS_ID.fullmatch(found) else fallback_id
    rest = {
        name.lower(): read(value) for name, value in given.items() if name not in _OWN and not name.startswith("Nats-")
    }
    return Message(message_id, topic, read(given.get(KEY, "")), body, rest)


def parked_headers(message: Message, reason: str, attempts: int, message_id: str) -> dict[str, str]:
    """Return the headers of a message in the dead-letter place."""
    about = {REASON: _quoted(reason), ATTEMPTS: str(attempts), TOPIC: message.topic}
    return headers_of(message, message_id) | about


class About(NamedTuple):
    """What the headers of a parked message say of it."""

    topic: str
    reason: str
    attempts: int


def about_parked(headers: Mapping[str, str]) -> About:
    """Return where a parked message belongs, why it is there, and after how many attempts."""
    attempts = headers.get(ATTEMPTS, "1")
    return About(headers.get(TOPIC, ""), unquoted(headers.get(REASON, "")), whole_number(attempts, 1))


def header_bytes(headers: Mapping[str, str]) -> int:
    """Return what headers take on the wire."""
    return 12 + sum(len(name) + len(value) + 4 for name, value in headers.items())


def _quoted(text: str) -> str:
    """Return a text as NATS can carry it: printable ASCII in one line, without blanks around it."""
    if text.isascii() and text.isprintable() and "%" not in text and text == text.strip():
        return text
    quoted = quote(text, safe=_PLAIN, errors="surrogatepass")
    bare = quoted.strip()
    if bare == quoted:
        return quoted
    left = len(quoted) - len(quoted.lstrip())
    right = len(quoted) - len(quoted.rstrip())
    return "%20" * left + bare + "%20" * right if bare else "%20" * len(quoted)
