"""The W3C trace context of whoever started a saga: checked, bounded, kept as one short text beside the input.

Owns the two headers' syntax and the text form. What comes from outside is untrusted: a traceparent that is none is
ignored, and so is a tracestate beyond the standard's limits; nothing of either is logged. Must not know a tracing
library. Used where a saga is started, where user code is called, and by the OpenTelemetry bridge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

TRACESTATE_CHARACTERS_MAX = 512
TRACESTATE_MEMBERS_MAX = 32

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_PARENT = re.compile(r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})")
_PARENT_CHARACTERS = 55
# A later version may add to the end, behind a dash; how long that may be is for us to bound.
_PARENT_CHARACTERS_MAX = 256
_KEY = r"(?:[a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"({_KEY})=({_VALUE})")


class TraceContext(NamedTuple):
    """Where a trace stands: ids as hexadecimal digits, and the vendors' part as it is sent."""

    trace_id: str
    span_id: str
    sampled: bool
    tracestate: str = ""

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    @property
    def text(self) -> str:
        """The form that is stored: the traceparent, then a space and the tracestate if there is one."""
        return f"{self.traceparent} {self.tracestate}" if self.tracestate else self.traceparent

    @property
    def headers(self) -> dict[str, str]:
        """What to send along with a request."""
        sent = {"traceparent": self.traceparent}
        if self.tracestate:
            sent["tracestate"] = self.tracestate
        return sent


def read_headers(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the context that a request's headers tell; None if there is none, or none that may be believed."""
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    return _read(parent, state)


def read_text(text: str) -> TraceContext | None:
    """Return a context from its stored form; None if it is none, for a database can be edited."""
    parent, _, state = text.partition(" ")
    return _read(parent, state)


def headers_of(text: str | None) -> Mapping[str, str]:
    """Return the headers that a stored context is sent as; none for what is none."""
    found = None if text is None else read_text(text)
    return _NO_HEADERS if found is None else found.headers


def _read(parent: object, state: object) -> TraceContext | None:
    if not isinstance(parent, str) or len(parent) > _PARENT_CHARACTERS_MAX:
        return None
    found = _PARENT.match(parent)
    if found is None or not _fits(found["version"], parent[_PARENT_CHARACTERS:]):
        return None
    if int(found["trace"], 16) == 0 or int(found["span"], 16) == 0:
        return None
    return TraceContext(found["trace"], found["span"], bool(int(found["flags"], 16) & 1), _tracestate(state))


def _fits(version: str, rest: str) -> bool:
    return version != "ff" and (not rest or (version != "00" and rest[0] == "-"))


def _tracestate(state: object) -> str:
    """Return a tracestate in its plain form; an empty one if anything in it is wrong."""
    if not isinstance(state, str) or not 0 < len(state) <= TRACESTATE_CHARACTERS_MAX:
        return ""
    members = [member for member in (part.strip(" \t") for part in state.split(",")) if member]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in found if match is not None}
    if len(members) > TRACESTATE_MEMBERS_MAX or len(keys) != len(members):
        return ""
    return ",".join(members)
