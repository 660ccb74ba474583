"""A database's address as people give it: read strictly, and told without what is secret in it.

Owns the one way from an address to words for messages. An address that can be read in two ways is refused and not
repeated: a `/`, `#` or `?` in a password moves the border between what is secret and what is not. Must not connect, nor
show a user, a password or a parameter. Called by `open_store`, the PostgreSQL adapter and the command line.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from atone.errors import StoreError

POSTGRES = ("postgres", "postgresql")
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/@,\[\]]*)(?::\d{1,5})?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")
_DATABASE = re.compile(r"(?:/[^\s:/@\[\]]*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+]{1,30}")

_UNUSABLE = (
    "This is no usable address; it is not repeated here, for it may hold a password. "
    "Write postgresql://user:password@host:port/database, and percent-encode what is special in the user, the password "
    "and the parameters: %2F for /, %23 for #, %3F for ?, %40 for @, %5B for [, %5D for ], %3A for :, %26 for &."
)


def split_address(address: str) -> SplitResult:
    """Return the parts of a PostgreSQL address that can be read in one way only.

    Raises:
        StoreError: It can't. Nothing of the address stands in the message, nor in an error behind it.
    """
    parts = _split(address)
    if parts is None or not _is_plain(address, parts):
        raise StoreError(_UNUSABLE)
    return parts


def place_of(address: str) -> str:
    """Return the hosts and the database of a PostgreSQL address, for messages.

    Raises:
        StoreError: As `split_address`.
    """
    parts = split_address(address)
    return f"{_hosts(parts) or 'the local server'}{parts.path}"


def without_secrets(url: str) -> str:
    """Return the URL of a store that was opened, without the user, the password and the parameters.

    Raises:
        StoreError: As `split_address`.
    """
    if scheme_of(url) == "sqlite":
        return url  # a file's path has none of them
    parts = split_address(url)
    return f"{parts.scheme}://{_hosts(parts)}{parts.path}"


def scheme_of(url: str) -> str | None:
    """Return what stands before `://`, or None if that looks like no scheme: it may be anything then."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator and _SCHEME.fullmatch(scheme) else None


def _split(address: str) -> SplitResult | None:
    try:
        address.encode()
        return urlsplit(address)
    except ValueError:  # it quotes the password
        return None


def _is_plain(address: str, parts: SplitResult) -> bool:
    if parts.scheme not in POSTGRES or not address.startswith(f"{parts.scheme}://") or "#" in address:
        return False
    user, _, hosts = parts.netloc.rpartition("@")
    if {*"@[]"} & {*user} or {*"@[]"} & {*parts.query}:
        return False
    return bool(_HOSTS.fullmatch(hosts) and _DATABASE.fullmatch(parts.path))


def _hosts(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
