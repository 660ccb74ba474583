"""Decoders of what lies in a database: journals, plans, maps, payloads, messages that wait, what participants remember.

Owns their samples, which are what Atone itself writes, and what has to be true of a value that was read. Collected by
`decoders`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from atone._choreography.seen import Kept as KeptLine
from atone._choreography.seen import kept_of, sight
from atone._core.event_guard import Known, Ran
from atone._core.event_map import EventMap
from atone._core.explain import explain
from atone._core.fold import Unfoldable, fold
from atone._core.plan import Plan
from atone._core.preview import preview
from atone._messaging.events import Event
from atone._participant.remembering import remembered, stored
from atone._runtime.reader import glimpse, read, state_of
from atone._runtime.wire import decode_entries, encode_entries
from atone.barrier import Barrier
from atone.brokers._embedded_backend import message_of as embedded_message_of
from atone.codec import Codec, same_json
from atone.outbox import _outgoing
from atone.store import Loaded, Row, Store, Summary
from atone.stores._messages import headers_of_text, headers_to_text
from tests.choreography.maps import handler, the_map
from tests.core.readable import entry_from
from tests.fuzz.engine import SECRET, Broken, Decoder
from tests.fuzz.mutate import fields_of, joined, text_of
from tests.runtime.payloads import Basket, Cat, Dog, Line, Point, Sealer, Stock

HISTORIES = Path(__file__).resolve().parents[1] / "histories"
NAMES = (
    "completed",
    "undo_fails_halt",
    "command_over_a_crash",
    "late_sibling_joins",
    "event_early",
    "unknown_pivot_probed",
)


@cache
def _histories() -> list[tuple[str, list[bytes]]]:
    """Return plans, and the rows of journals that were written by them."""
    found: list[tuple[str, list[bytes]]] = []
    for name in NAMES:
        told = json.loads((HISTORIES / f"{name}.json").read_text(encoding="utf-8"))
        rows = [
            encode_entries([entry_from(one) for one in turn["entries"]]) for turn in told["turns"] if turn["entries"]
        ]
        found.append((json.dumps(told["plan"]), rows))
    return found


def _expect(fine: object, what: str) -> None:
    if not fine:
        raise Broken(what)


# -- journals


def _entries_samples() -> list[bytes]:
    return [row for _, rows in _histories() for row in rows]


def _entries_again(entries: Any) -> None:
    _expect(decode_entries(encode_entries(entries)) == entries, "entries are others after a trip there and back")


class _OneSaga:
    """A store that holds one saga, as far as the reader asks for it."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    async def load(self, keys: Sequence[bytes], *, after: int = 0, with_plan: bool = False) -> Sequence[Loaded | None]:
        return [self._loaded]


def _journal_samples() -> list[bytes]:
    return [joined(plan, *rows) for plan, rows in _histories()]


def _summary(state: Any) -> Summary:
    return Summary(b"k", state.tenant, state.name, state.saga_id, 1, "h", "running", None, None, 0.0)


@cache
def _first_entry() -> Any:
    """Return the beginning of all histories: it says whose journals they are."""
    return json.loads((HISTORIES / "completed.json").read_text(encoding="utf-8"))["turns"][0]["entries"][0]


def _read_journal(data: bytes) -> Any:
    """Read a saga as the worker does, and as people look at it; what the latter says may not raise at all."""
    plan, *rows = fields_of(data)
    kept = tuple(Row(at, 1.0, b"c", row) for at, row in enumerate(rows, start=1))
    summary = _summary(entry_from(_first_entry()))
    store: Any = _OneSaga(Loaded(summary, kept, text_of(plan)))
    seen = asyncio.run(_looked(store))
    if seen.plan is not None and seen.state is not None:
        said = (explain(seen.plan, seen.state, 2.0), preview(seen.plan, seen.state, 2.0))
        _expect(all(said), "nothing is said")
    _expect((seen.trouble is None) == (seen.state is not None), "no state, and no trouble told")
    return asyncio.run(read(store, b"k"))


async def _looked(store: Store) -> Any:
    return await glimpse(store, b"k")


def _fold_row(data: bytes) -> Any:
    """Fold any row onto a saga in the middle of its life, by a plan that is right."""
    which, *rows = fields_of(data)
    plan_text, own = _histories()[len(which) % len(NAMES)]
    plan = Plan.from_json(plan_text)
    state = None
    for row in (*own[:3], *rows):
        state = fold(plan, state, decode_entries(row))
    loaded = Loaded(_summary(state), tuple(Row(at, 0.0, b"c", row) for at, row in enumerate((*own[:3], *rows), 1)))
    _expect(state_of(plan, loaded) == state, "the same rows give another state")
    return plan, state


def _told_of(found: Any) -> None:
    plan, state = found
    _expect(explain(plan, state, 5.0) is not None and preview(plan, state, 5.0) is not None, "nothing is said")


def _fold_samples() -> list[bytes]:
    return [joined(b"x" * at, *rows[3:]) for at, (_, rows) in enumerate(_histories())]


# -- plans and maps


def _plan_again(plan: Any) -> None:
    again = Plan.from_json(plan.to_json())
    _expect(again == plan and again.plan_hash == plan.plan_hash, "a plan is another one after a trip there and back")
    _expect(isinstance(hash(plan), int) and plan.index is not None, "a plan that can't be used")


def _map_again(found: Any) -> None:
    again = EventMap.from_json(found.to_json())
    _expect(again == found and again.map_hash == found.map_hash, "a map is another one after a trip there and back")
    _expect((found.backward, found.looping, found.by_path) is not None, "a map that can't be used")


@cache
def sample_map() -> EventMap:
    """Return a map with an undo, a time-out and a bound."""
    return the_map(
        handler("stock.reserve", on="a", to="b|no.stock"),
        handler("pay.charge", on="b", to="z|no.money"),
        handler("stock.release", on="no.money", to="undone", undo_of="reserve"),
    )


# -- payloads


@dataclass(frozen=True)
class Order:
    """A payload as users have them."""

    id: str
    cents: int
    at: datetime | None = None
    tags: tuple[str, ...] = ()
    password: str = ""


_TYPES: tuple[Any, ...] = (
    Order, Line, Stock, Cat | Dog, Point, Basket, dict[str, int], list[Decimal], dict[UUID, timedelta], set[str],
    bytes, Any, object, float, int | str | None,
)  # fmt: skip
_CODECS = (
    Codec(),
    Codec(payload_bytes_max=200, depth_max=3, items_max=20),
    Codec(encryption=Sealer(b"k"), plain_readable=True),
)
_PAYLOADS = (
    f'{{"id":"o-1","cents":100,"at":"2026-01-01T00:00:00Z","tags":["a"],"password":"{SECRET}"}}',
    '{"name":"x","price":"1.5","tags":["b"]}', '{"sku":"a","left":3}', '{"type":"Cat","lives":9}', "[1.5,2.0]",
    '{"items":[{"sku":"a","many":2,"price":"3","at":null,"tags":[]}],"note":null,"counts":{"a":1}}', '{"a":1}',
    '["1.10","2e3"]', '{"5c1b6dd6-3ab7-4b0e-8d0c-1c9c8f0e9d1a":"P1D"}', '["x","y"]', '"AAECAw=="', '{"deep":[[[1]]]}',
    "1.5e3", "null",
)  # fmt: skip


def _payload_samples() -> list[bytes]:
    plain = [joined(b"%d" % (at % len(_TYPES)), b"0", text) for at, text in enumerate(_PAYLOADS)]
    sealed = _CODECS[2].seal(_PAYLOADS[0].encode(), b"ctx")
    return [*plain, joined(b"0", b"2", sealed), joined(b"0", b"0", sealed), joined(b"11", b"1", "[" * 5 + "]" * 5)]


def _chosen(data: bytes, of: Sequence[Any]) -> Any:
    return of[int(data) % len(of)] if data.isdigit() and len(data) < 4 else of[len(data) % len(of)]


def _read_payload(data: bytes) -> Any:
    kind, codec, *rest = [*fields_of(data), b"", b""]
    schema = _chosen(codec, _CODECS).schema(_chosen(kind, _TYPES))
    value = schema.decode(rest[0], b"ctx")
    return schema, value


def _payload_again(found: Any) -> None:
    schema, value = found
    again = schema.decode(schema.encode(value, b"ctx"), b"ctx")
    _expect(again == value, "a payload is another one after a trip there and back")


def _compare(data: bytes) -> Any:
    a, *rest = fields_of(data)
    b = rest[0] if rest else a
    said = same_json(a, b)
    _expect(said == same_json(b, a) and same_json(a, a), "equality is not symmetric")
    return said


# -- messages that wait


def _text_headers(data: bytes) -> Any:
    return dict(headers_of_text(text_of(data)))


def _headers_again(found: Any) -> None:
    _expect(dict(headers_of_text(headers_to_text(found))) == found, "headers are others after a trip there and back")
    _expect(all(isinstance(one, str) for pair in found.items() for one in pair), "a header that is no text")


def _embedded(data: bytes) -> Any:
    id_, topic, key, body, headers = (*fields_of(data), b"", b"", b"", b"", b"")[:5]
    return dict(embedded_message_of(text_of(id_), text_of(topic), key, body, text_of(headers)).headers)


def _outbox(data: bytes) -> Any:
    id_, topic, key, body, headers = (*fields_of(data), b"", b"", b"", b"", b"")[:5]
    found = _outgoing((1, text_of(id_), text_of(topic), text_of(key), body, text_of(headers), 1.0, 2.0))
    return dict(found.message.headers)


def _row_headers(found: Any) -> None:
    _expect(all(isinstance(one, str) for pair in found.items() for one in pair), "a header that is no text")


_ROW = joined("id-1", "stock.reserved", "order-1", b'{"a":1}', '{"atone-kind":"event","x":"\\u00e9"}')


# -- what participants and views keep


def _known_samples() -> list[bytes]:
    known = Known((("m1", "a"), ("m2", "b")), (Ran("reserve", "m1", "a"),), frozenset({"b"}))
    return [b"", stored(known).encode(), stored(Known()).encode()]


def _known_again(known: Any) -> None:
    _expect(remembered(stored(known)) == known, "what is known is other after a trip there and back")


def _view_samples() -> list[bytes]:
    made = Event("m1", "a", 1, "sample", "s-1", b'{"x":1}', "", "shop", 1.0)
    note = made._replace(
        name="parked", kind="lifecycle", cause="m1", body=b'{"event":"b","handler":"pay.charge","why":"x"}'
    )
    rows = [kept_of(made), kept_of(made._replace(name="b", id="m2", cause="m1", source="stock")), kept_of(note)]
    return [joined(sample_map().to_json(), "m1", *rows), joined("", "m1", rows[0])]


def _see(data: bytes) -> Any:
    """See a choreographed saga: damage is told and never raised."""
    text, id_, *rows = [*fields_of(data), b""]
    kept = tuple(Row(at, float(at), id_ if at == 1 else b"%d" % at, row) for at, row in enumerate(rows, start=1))
    summary = Summary(b"k", "default", "sample", "s-1", 1, "h", "running", None, None, 0.0)
    found = sight(Loaded(summary, kept, text_of(text)), 10_000.0)
    _expect(all(isinstance(one.kept, KeptLine) for one in found.lines), "a line that was not read")
    return found


def _keep(data: bytes) -> Any:
    kind, name, source, cause, body = (*fields_of(data), b"", b"", b"", b"", b"")[:5]
    event = Event(
        "m1", text_of(name), 1, "sample", "s-1", body, text_of(cause), text_of(source), 1.0, kind=text_of(kind)
    )
    return kept_of(event)


def _keep_again(kept: Any) -> None:
    summary = Summary(b"k", "default", "sample", "s-1", 1, "h", "running", None, None, 0.0)
    found = sight(Loaded(summary, (Row(1, 1.0, b"m1", kept),), sample_map().to_json()), 2.0)
    _expect(found.trouble is None, "what was kept can't be read back")


def _barrier_row(data: bytes) -> Any:
    kind, state, result = (*fields_of(data), b"", b"")[:3]
    row: Any = type(
        "Row", (), {"state": text_of(state), "arguments": b"p", "result": result or None, "compensation": None}
    )
    returns: Any = (None, Order, dict[str, int])[len(kind) % 3]
    return Barrier()._repeated(row, "key-1", b"p", returns)


DECODERS = (
    Decoder(
        "journal-row", ("atone._runtime.wire:decode_entries",), _entries_samples, decode_entries, check=_entries_again
    ),
    Decoder(
        "journal",
        (
            "atone._runtime.reader:read",
            "atone._runtime.reader:glimpse",
            "atone._runtime.reader:_decoded",
            "atone._runtime.reader:_decoded_row",
            "atone._runtime.reader:_sifted",
            "atone._runtime.reader:_plan_of",
            "atone._runtime.reader:_load",
            "atone._runtime.reader:read_plan",
            "atone._runtime.reader:_folded_or_torn",
        ),
        _journal_samples,
        _read_journal,
    ),
    Decoder(
        "fold",
        ("atone._core.fold:fold", "atone._runtime.reader:state_of", "atone._runtime.reader:fold_rows"),
        _fold_samples,
        _fold_row,
        (Unfoldable,),
        _told_of,
    ),
    Decoder(
        "plan",
        ("atone._core.plan:Plan.from_json", "atone._core.stored:known_fields", "atone._core.plan:_step_from"),
        lambda: [plan.encode() for plan, _ in _histories()],
        lambda data: Plan.from_json(text_of(data)),
        (ValueError,),
        _plan_again,
    ),
    Decoder(
        "event-map",
        (
            "atone._core.event_map:EventMap.from_json",
            "atone._core.stored:_is",
            "atone._core.event_map:_handler_from",
        ),
        lambda: [sample_map().to_json().encode()],
        lambda data: EventMap.from_json(text_of(data)),
        (ValueError,),
        _map_again,
    ),
    Decoder(
        "payload",
        (
            "atone.codec:Schema.decode",
            "atone.codec:Codec.unseal",
            "atone.codec:Codec._decrypt",
            "atone.codec:_revive",
            "atone.integrations.pydantic:load",
            "atone.codec:Codec.check_limits",
            "atone.codec:Codec._measure",
            "atone.codec:Schema.encode_and_read",
            "atone.codec:Schema.__init__",
        ),
        _payload_samples,
        _read_payload,
        check=_payload_again,
        secret=True,
        words=(b'"atone:sealed:1:', base64.b64encode(b"x" * 48), SECRET.encode()),
    ),
    Decoder(
        "same-json",
        ("atone.codec:same_json", "atone.codec:_canonical", "atone.codec:_number"),
        lambda: [joined('{"a":[1,2.0],"b":null}', '{"b":null,"a":[1.0,2]}'), b"[1e3,1000]"],
        _compare,
        secret=True,
    ),
    Decoder(
        "outbox-headers",
        ("atone.stores._messages:headers_of_text",),
        lambda: [b"{}", b'{"atone-kind":"event","x":"\\u00e9"}'],
        _text_headers,
        check=_headers_again,
    ),
    Decoder(
        "embedded-row",
        ("atone.brokers._embedded_backend:message_of",),
        lambda: [_ROW, joined("1", "t", "\ud800", b"", "{}")],
        _embedded,
        check=_row_headers,
    ),
    Decoder("outbox-row", ("atone.outbox:_outgoing",), lambda: [_ROW], _outbox, check=_row_headers),
    Decoder(
        "remembered",
        ("atone._participant.remembering:remembered",),
        _known_samples,
        lambda data: remembered(text_of(data)),
        check=_known_again,
    ),
    Decoder(
        "view-rows",
        ("atone._choreography.seen:sight", "atone._choreography.seen:_line"),
        _view_samples,
        _see,
    ),
    Decoder(
        "view-event",
        ("atone._choreography.seen:kept_of", "atone._choreography.seen:_note_of"),
        lambda: [
            joined("event", "a", "shop", "m0", "{}"),
            joined("lifecycle", "parked", "s", "m1", '{"event":"b","why":"x"}'),
        ],
        _keep,
        check=_keep_again,
    ),
    Decoder(
        "barrier-row",
        ("atone.barrier:Barrier._repeated", "atone.barrier:Barrier._stored", "atone.barrier:Barrier._read"),
        lambda: [
            joined("", "done", '{"a":1}'),
            joined("x", "done", _PAYLOADS[0]),
            joined("", "begun", ""),
            joined("", "undone", ""),
        ],
        _barrier_row,
        secret=True,
    ),
)
