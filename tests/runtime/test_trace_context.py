"""The W3C trace context is untrusted: what is well-formed is kept, garbage is ignored, and nothing is unbounded."""

from __future__ import annotations

from typing import Any

import pytest

from atone._runtime.trace_context import TraceContext, headers_of, read_headers, read_text

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_what_is_well_formed_comes_back_as_it_was() -> None:
    """Both headers, and the stored form between."""
    found = read_headers({"traceparent": PARENT, "tracestate": "rojo=00f067aa0ba902b7,tenant@vendor=a b"})
    assert found == TraceContext(TRACE, SPAN, True, "rojo=00f067aa0ba902b7,tenant@vendor=a b")
    assert read_text(found.text) == found
    assert headers_of(found.text) == {"traceparent": PARENT, "tracestate": "rojo=00f067aa0ba902b7,tenant@vendor=a b"}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "garbage",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-more",
        PARENT + "\r\nx: y",
        " " + PARENT,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"01-{TRACE}-{SPAN}-01-" + "x" * 10_000,
        None,
        7,
        PARENT.encode(),
    ],
)
def test_a_traceparent_that_is_none_is_ignored(parent: Any) -> None:
    """It is no error: a request must not fail for a header that nobody needs."""
    assert read_headers({"traceparent": parent}) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """The standard asks for that; what is sent on is of the known version."""
    found = read_headers({"traceparent": f"cc-{TRACE}-{SPAN}-03-what-the-future-holds"})
    assert found is not None
    assert found.traceparent == PARENT


@pytest.mark.parametrize(
    "state",
    [
        "no-equals-sign",
        "Upper=1",
        "a=1,a=2",
        "a=x\r\nset-cookie: y",
        "a=ünïcode",
        "a=",
        "a" * 257 + "=1",
        ",".join(f"k{at}=1" for at in range(33)),
        "a=" + "x" * 600,
        ",".join(f"k{at}=" + "x" * 50 for at in range(10)),
        b"a=1",
        7,
    ],
)
def test_a_tracestate_beyond_its_limits_is_left_out(state: Any) -> None:
    """The trace goes on without it."""
    found = read_headers({"traceparent": PARENT, "tracestate": state})
    assert found == TraceContext(TRACE, SPAN, True)


def test_the_limits_themselves_are_allowed() -> None:
    """32 members, and 512 characters in all."""
    many = ",".join(f"k{at}=1" for at in range(32))
    long = "a=" + "x" * 254 + ",b=" + "y" * 253
    assert len(long) == 512
    for state in (many, long):
        found = read_headers({"traceparent": PARENT, "tracestate": state})
        assert found is not None
        assert found.tracestate == state


def test_what_somebody_wrote_into_the_database_is_checked_again() -> None:
    """A stored context becomes a request's header, so it may not bring another one along."""
    assert headers_of(f"{PARENT}\r\nx-evil: 1") == {}
    assert headers_of(f"{PARENT} a=1\r\nx-evil: 1") == {"traceparent": PARENT}
    assert headers_of(None) == {}
