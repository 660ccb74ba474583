"""How an input is changed: fields, JSON, numbers, texts and bytes, with a liking for what decoders trip over.

Owns the form of an input, bytes in fields with a separator between them, and the changes. Pure: everything is drawn from
the generator that is passed in, so a seed gives the same inputs again. Called by the engine alone.
"""

# ruff: noqa: E501, RUF001 - odd texts are what this is about

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

SEPARATOR = b"\x1e"
BYTES_MAX = 256 * 1024

_NUMBERS = (
    b"0", b"-0", b"-1", b"1", b"9" * 20, b"9" * 5000, b"1e999", b"-1e999", b"1e-999", b"NaN", b"Infinity", b"inf", b"nan",
    b"0x10", b"1_000", b"+1", b" 1", b"1.5", b"1.", b".5", b"007", b"65535", b"65536", b"2147483648",
    b"9223372036854775808", b"18446744073709551616", "²".encode(), "１".encode(), "٣".encode(), b"1" + b"0" * 309,
)  # fmt: skip
_TEXTS = (
    b"", b"\x00", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xff\xfe", "\u202e".encode(), "é".encode(), "e\u0301".encode(),
    b"\r\n", b"\x1b[31m", b"%", b"%00", b"%2", b"%zz", b"%ed%a0%80", b"%ff", b"@", b"/", b"//", b":", b"?", b"#", b"[", b"]",
    b"=", b"&", b",", b";", b"..", b"~", b"*", b">", b"'", b'"', b"\\", b"{", b"}", b"{}", b"{0}", b"%s", b"x" * 1000,
    b"a" * 70_000, b"--", b"-", b" ", b"\t", b"\xc2\xa0", "ﬀ".encode(), "İ".encode(), b"True", b"null", b"none",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, 1e308, "", "x", "\x00", "\ud800", "é" * 40, [], {},
    [[]], [{}], {"": None}, "1", "NaN", [None], {"type": "saga_started"}, 1e-300, "9" * 400,
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_DEEP = (10, 70, 1000, 20_000, 60_000)


def fields_of(data: bytes) -> list[bytes]:
    """Return the fields of an input."""
    return data.split(SEPARATOR)


def joined(*fields: bytes | str) -> bytes:
    """Return an input made of fields."""
    return SEPARATOR.join(one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one for one in fields)


def text_of(data: bytes) -> str:
    """Return a field as text, lone surrogates included; what is no UTF-8 is read byte by byte."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def mutate(data: bytes, random: Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return an input that is a few changes away from `data`; `others` are spliced, `words` are put in."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = _once(data, random, others, words)
    return data[:BYTES_MAX]


def _once(data: bytes, random: Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    fields = fields_of(data)
    at = random.randrange(len(fields))
    draw = random.random()
    if draw < 0.06 and others:
        theirs = fields_of(random.choice(others))
        fields[at] = random.choice(theirs)
    elif draw < 0.09:
        fields.insert(at, fields[random.randrange(len(fields))])
    elif draw < 0.12 and len(fields) > 1:
        del fields[at]
    elif draw < 0.14 and len(fields) > 1:
        other = random.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    else:
        fields[at] = _changed(fields[at], random, words)
    return SEPARATOR.join(fields)


def _changed(field: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    if field[:1] in (b"{", b"[") and random.random() < 0.7:
        changed = _json(field, random)
        if changed is not None:
            return changed
    way: Callable[[bytes, Random, Sequence[bytes]], bytes] = random.choice(_WAYS)
    return way(field, random, words)


def _flip(field: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    if not field:
        return bytes([random.randrange(256)])
    at = random.randrange(len(field))
    return field[:at] + bytes([field[at] ^ (1 << random.randrange(8))]) + field[at + 1 :]


def _put(field: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    at = random.randint(0, len(field))
    return field[:at] + random.choice((*_TEXTS, *words)) + field[at:]


def _replace(field: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    return random.choice((*_TEXTS, *_NUMBERS, *words))


def _number(field: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    found = list(_NUMBER.finditer(field))
    if not found:
        return _put(field, random, words)
    one = random.choice(found)
    return field[: one.start()] + random.choice(_NUMBERS) + field[one.end() :]


def _cut(field: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    a, b = sorted((random.randint(0, len(field)), random.randint(0, len(field))))
    return field[:a] + field[b:]


def _again(field: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    a, b = sorted((random.randint(0, len(field)), random.randint(0, len(field))))
    return field[:b] + field[a:b] * random.choice((1, 2, 30)) + field[b:]


def _deep(field: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[[", b""), (b'{"type":', b"")))
    times = random.choice(_DEEP)
    return (opening * times + random.choice((field, b"1")) + closing * times)[:BYTES_MAX]


_WAYS: tuple[Callable[[bytes, Random, Sequence[bytes]], bytes], ...] = (
    _flip, _put, _put, _replace, _replace, _number, _number, _cut, _cut, _again, _deep,
)  # fmt: skip


# -- JSON


def _json(field: bytes, random: Random) -> bytes | None:
    try:
        found = json.loads(field)
    except (ValueError, RecursionError):
        return None
    try:
        places = list(_places(found))
        if not places:
            return None
        holder, key = random.choice(places)
        _alter(holder, key, places, random)
        text = json.dumps(found, ensure_ascii=random.random() < 0.5)
    except (RecursionError, ValueError):
        return None
    if random.random() < 0.1:
        text = _NUMBER.sub(lambda _: random.choice(_NUMBERS), text.encode("utf-8", "surrogatepass"), count=1).decode(
            "utf-8", "surrogatepass"
        )
    return text.encode("utf-8", "surrogatepass")


def _places(found: Any) -> Any:
    if isinstance(found, dict):
        for key, value in list(found.items()):
            yield found, key
            yield from _places(value)
    elif isinstance(found, list):
        for at, value in enumerate(found):
            yield found, at
            yield from _places(value)


def _alter(holder: Any, key: Any, places: list[Any], random: Random) -> None:
    draw = random.random()
    if draw < 0.45:
        holder[key] = random.choice(_VALUES)
    elif draw < 0.6:
        del holder[key]
    elif draw < 0.75:
        other, theirs = random.choice(places)
        try:
            holder[key] = json.loads(json.dumps(other[theirs]))
        except (KeyError, IndexError):
            return
    elif draw < 0.85 and isinstance(holder, dict):
        holder[random.choice(("", "x", "type", str(key).upper(), "\x00"))] = holder.pop(key)
    elif isinstance(holder, list):
        holder.insert(key, holder[key])
    else:
        holder[key] = [holder[key]] if random.random() < 0.5 else {"a": holder[key]}
