"""Brings the oldest PostgreSQL that Atone is tested on to this machine, if it can: Debian's own package, by its name.

Must not start a server, and must not fail: without the package its tests are skipped, and say so. Run as root by
`make test`, or by hand: `python -m tests.servers.older`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from atone.testing.postgres import find_postgres, major_version
from tests.servers.debian import install

OLDEST = 15
PACKAGE = f"postgresql-{OLDEST}"
MISSING = (
    f"PostgreSQL {OLDEST} is not here, so nothing is tested on it. On Debian 12, as root: python -m tests.servers.older"
)
# Without this the package would make a database of its own and start a server for it.
_SETTINGS = Path("/etc/postgresql-common/createcluster.conf")


def is_here() -> bool:
    """Tell whether there are programs of that version."""
    return any(major_version(folder) == OLDEST for folder in find_postgres())


def bring() -> str:
    """Install the package; return why that was not possible, or nothing."""
    if os.access("/etc", os.W_OK) and not _SETTINGS.exists():
        _SETTINGS.parent.mkdir(parents=True, exist_ok=True)
        _SETTINGS.write_text("create_main_cluster = false\nstart_conf = manual\n", encoding="utf-8")
    return install(PACKAGE)


def main() -> None:
    if is_here():
        return
    print(f"PostgreSQL {OLDEST} is not here; installing {PACKAGE} for the tests ...", file=sys.stderr)
    why = bring()
    if why or not is_here():
        print(f"{MISSING} ({why or 'the package has no programs'})", file=sys.stderr)


if __name__ == "__main__":
    main()
