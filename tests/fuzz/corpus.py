"""Inputs that are kept: what a decoder once took badly, and what has led a run to new lines.

Owns the form of the files in `corpus/`: one for each decoder, one input a line as base64 of its compressed bytes, with
`!` before what was a bug. Read by the command and the tests; written by the command under `--keep`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")
KEPT_MAX = 40


def load(decoder: str) -> list[bytes]:
    """Return the inputs that are kept for a decoder."""
    file = FOLDER / f"{decoder}.txt"
    if not file.exists():
        return []
    return [_unpacked(line.lstrip("!")) for line in file.read_text(encoding="ascii").split()]


def keep(decoder: str, bugs: Iterable[bytes], others: Iterable[bytes]) -> int:
    """Add inputs to a decoder's file, bugs first, and return how many there are."""
    file = FOLDER / f"{decoder}.txt"
    lines = file.read_text(encoding="ascii").split() if file.exists() else []
    known = {line.lstrip("!") for line in lines}
    for mark, data in (*(("!", one) for one in bugs), *(("", one) for one in others)):
        packed = _packed(data)
        is_worth_it = mark or (len(packed) <= 2000 and len(lines) < KEPT_MAX)
        if packed not in known and is_worth_it:
            known.add(packed)
            lines.append(mark + packed)
    if lines:
        FOLDER.mkdir(exist_ok=True)
        file.write_text("\n".join(sorted(lines)) + "\n", encoding="ascii")
    return len(lines)


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _unpacked(line: str) -> bytes:
    return zlib.decompress(base64.b64decode(line))
