"""Text from a store, made safe to print: ids, reasons and messages are written by strangers.

Owns what is escaped: whatever could move the cursor, colour the screen, reorder the text or break a line. Must not know
what the text is about. Markup is never interpreted at all, see `output`. Used wherever stored text is printed.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

# Controls, formats (the bidirectional ones too), lone surrogates, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def safe(text: str) -> str:
    """Return the text with every unsafe character as its Python escape, in one line."""
    if text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _UNSAFE else one for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def json_text(data: Any) -> str:
    """Return data as one line of JSON in plain ASCII, so no terminal is steered by it and no encoding can fail."""
    return json.dumps(data, ensure_ascii=True, separators=(", ", ": ")).replace("\x7f", "\\u007f")
