"""Numbers and quoted texts in headers that anybody may have written: read as far as they go, and never refused.

Owns the reading only. A digit may be one of many scripts, and a number may have thousands of them; both are read as if
nothing stood there. Called by the wire formats of the adapters, and by the integration of FastStream.
"""

from __future__ import annotations

from urllib.parse import unquote

_DIGITS_MAX = 9
_EPOCH_SECONDS_MAX = 1e11


def whole_number(text: str, otherwise: int) -> int:
    """Return a number from 0, or `otherwise` for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else otherwise


def moment_of(text: str) -> float:
    """Return epoch seconds, or 0 for what is no time that a calendar has."""
    try:
        at = float(text)
    except ValueError:
        return 0.0
    return at if 0 <= at < _EPOCH_SECONDS_MAX else 0.0


def unquoted(text: str) -> str:
    """Return a text without its percent escapes; what they hold that is no text is replaced."""
    if "%" not in text:
        return text
    try:
        return unquote(text, errors="surrogatepass")
    except UnicodeDecodeError:
        return unquote(text, errors="replace")
